//! The files that statements about indexes are about.

use std::sync::Arc;

use datafusion::common::{Result, TableReference, exec_err, plan_err};
use datafusion::datasource::TableProvider;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::SessionState;
use datafusion::physical_plan::empty::EmptyExec;
use futures::{StreamExt, TryStreamExt};

use crate::create::FileToIndex;
use crate::rows::scan::TableFiles;
use crate::rows::source_file::SourceFile;
use crate::rows::vectors::item_type;
use crate::sidecar::Location;
use crate::sql::options::HnswOptions;
use crate::sql::search::files::{LOOKUPS_AT_ONCE, apply_settings, identity, location, sidecar_dir, sources};
use crate::sql::shared::Shared;

/// The table to index or to search: files, and where the column is.
pub(crate) struct Target {
    pub files: Vec<FileToIndex>,
    pub table: Option<TableFiles>,
    pub column: usize,
}

/// The files of a table as an index over one column sees them.
pub(crate) async fn target(
    state: &SessionState,
    provider: &Arc<dyn TableProvider>,
    table: &TableReference,
    column: &str,
) -> Result<Target> {
    let schema = provider.schema();
    let Some((index, field)) = schema.column_with_name(column) else {
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .filter(|field| item_type(field.data_type()).is_some())
            .map(|field| field.name().as_str())
            .collect();
        return plan_err!(
            "{table} has no column {column}; its vector columns are: {}",
            names.join(", ")
        );
    };
    if item_type(field.data_type()).is_none() {
        return plan_err!(
            "column {column} of {table} is {}, but vectors are lists of Float16, Float32 or Float64",
            field.data_type()
        );
    }
    let (files, table_files) = files(state, provider, &[index]).await?;
    Ok(Target {
        files,
        table: table_files,
        column: index,
    })
}

/// The files of a table in the order of their paths, and its scan of these columns taken apart.
pub(crate) async fn files(
    state: &SessionState,
    provider: &Arc<dyn TableProvider>,
    columns: &[usize],
) -> Result<(Vec<FileToIndex>, Option<TableFiles>)> {
    let plan = provider.scan(state, Some(&columns.to_vec()), &[], None).await?;
    if plan.is::<EmptyExec>() {
        return Ok((vec![], None));
    }
    let Some(files) = TableFiles::of(&plan) else {
        return plan_err!("the table is not read as whole Parquet files, so row numbers would mean nothing");
    };
    let shared = Shared::of(state)?;
    let options = HnswOptions::of(state.config_options());
    apply_settings(&shared, &options);
    let dir = sidecar_dir(&options, state.runtime_env())?;
    let store = state.runtime_env().object_store(files.store_url())?;
    let look = async |(file, source): (PartitionedFile, SourceFile)| {
        if !source.is_as_listed() {
            return exec_err!(
                "{} changed after its directory was listed; create the table again",
                source.meta.location
            );
        }
        let source = source.identified().await?;
        let footer = shared.footers.get(&source).await?;
        Ok(FileToIndex {
            location: location(&source, dir.clone()),
            identity: identity(&source, &footer),
            file,
            source,
            footer,
        })
    };
    let mut found: Vec<FileToIndex> = futures::stream::iter(sources(&shared, &files, &store).await)
        .map(look)
        .buffered(LOOKUPS_AT_ONCE)
        .try_collect()
        .await?;
    found.sort_by(|a, b| a.source.meta.location.cmp(&b.source.meta.location));
    Ok((found, Some(files)))
}

/// Where the sidecars of all files of a table are.
pub(crate) async fn locations(
    state: &SessionState,
    provider: &Arc<dyn TableProvider>,
) -> Result<Vec<Location>> {
    let plan = provider.scan(state, Some(&vec![]), &[], None).await?;
    let Some(files) = TableFiles::of(&plan) else {
        return Ok(vec![]);
    };
    let dir = sidecar_dir(&HnswOptions::of(state.config_options()), state.runtime_env())?;
    let store = state.runtime_env().object_store(files.store_url())?;
    let found = sources(&*Shared::of(state)?, &files, &store).await;
    Ok(found
        .iter()
        .map(|(_, source)| location(source, dir.clone()))
        .collect())
}
