//! CREATE INDEX and DROP INDEX, as commands.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, Float64Array, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Result, TableReference, exec_err, plan_datafusion_err, plan_err};
use datafusion::datasource::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::empty::EmptyExec;

use super::command::Command;
use super::files::{identity, location, sidecar_dir};
use super::option_list::OptionList;
use super::options::HnswOptions;
use super::shared::Shared;
use super::table::VectorTable;
use crate::create::{FileToIndex, IndexProgress, IndexSpec, create};
use crate::hnsw::{HnswConfig, VectorMetric};
use crate::rows::footer::SourceFile;
use crate::rows::scan::{TableFiles, is_parquet_listing};
use crate::rows::vectors::item_type;
use crate::sidecar::Lookup;

/// `CREATE INDEX [IF NOT EXISTS] [name] ON table USING hnsw (column) [WITH (...)]`.
#[derive(Debug)]
pub(crate) struct CreateIndexCommand {
    pub table: String,
    pub column: String,
    pub options: OptionList,
}

/// The table to index or to search: files, and where the column is.
pub(crate) struct Target {
    pub files: Vec<FileToIndex>,
    pub table: Option<TableFiles>,
    pub column: usize,
}

/// Looks a table up in the session's catalogs.
///
/// # Errors
///
/// Returns an error if there is none of that name, or if it is not a listing of Parquet files.
pub(crate) async fn parquet_table(
    state: &SessionState,
    name: &TableReference,
) -> Result<Arc<dyn TableProvider>> {
    let schema = state.schema_for_ref(name.clone())?;
    let provider = schema
        .table(name.table())
        .await?
        .ok_or_else(|| plan_datafusion_err!("there is no table {name}"))?;
    let provider = match provider.downcast_ref::<VectorTable>() {
        Some(table) => Arc::clone(table.inner()),
        None => provider,
    };
    if !is_parquet_listing(provider.as_ref()) {
        return plan_err!(
            "{name} is not a table of Parquet files; indexes are built for CREATE EXTERNAL TABLE ... STORED AS PARQUET"
        );
    }
    Ok(provider)
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
    let plan = provider.scan(state, Some(&vec![index]), &[], None).await?;
    if plan.is::<EmptyExec>() {
        return Ok(Target {
            files: vec![],
            table: None,
            column: index,
        });
    }
    let Some(files) = TableFiles::of(&plan) else {
        return plan_err!("{table} is not read as whole Parquet files, so row numbers would mean nothing");
    };
    let shared = Shared::of(state)?;
    let options = HnswOptions::of(state.config_options());
    shared
        .sidecars
        .set_cache(options.cache_dir(), options.cache_size as u64);
    let dir = sidecar_dir(&options, state.runtime_env())?;
    let store = state.runtime_env().object_store(files.store_url())?;
    let mut found = vec![];
    for file in files.files() {
        let source = SourceFile::new(
            Arc::clone(&store),
            files.store_url().clone(),
            file.object_meta.clone(),
        );
        if !source.is_as_listed() {
            return exec_err!(
                "{} changed after its directory was listed; create the table again",
                source.meta.location
            );
        }
        let footer = shared.footers.get(&source).await?;
        found.push(FileToIndex {
            file: file.clone(),
            location: location(&source, dir.clone()),
            identity: identity(&source, &footer),
            source,
            footer,
        });
    }
    found.sort_by(|a, b| a.source.meta.location.cmp(&b.source.meta.location));
    Ok(Target {
        files: found,
        table: Some(files),
        column: index,
    })
}

impl CreateIndexCommand {
    fn spec(&self, state: &SessionState, column: usize) -> Result<IndexSpec> {
        let defaults = HnswOptions::of(state.config_options());
        let metric = self.options.metric.unwrap_or(&defaults.metric);
        let metric: VectorMetric = metric.parse().map_err(external)?;
        let config = HnswConfig {
            m: self.options.m.unwrap_or(defaults.m),
            ef_construction: self.options.ef_construction.unwrap_or(defaults.ef_construction),
            seed: self.options.seed.unwrap_or(defaults.seed),
            threads: self.options.threads.unwrap_or(defaults.threads),
            ..HnswConfig::default()
        };
        config.check().map_err(external)?;
        let name = self.options.name.clone().unwrap_or_else(|| {
            let table = TableReference::from(self.table.as_str());
            format!("{}_{}_{metric}_idx", table.table(), self.column)
        });
        Ok(IndexSpec {
            name,
            column,
            column_name: self.column.clone(),
            metric,
            config,
        })
    }
}

#[async_trait]
impl Command for CreateIndexCommand {
    fn name(&self) -> &'static str {
        "CREATE INDEX USING hnsw"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("index_name", DataType::Utf8, false),
            Field::new("table_name", DataType::Utf8, false),
            Field::new("column_name", DataType::Utf8, false),
            Field::new("metric", DataType::Utf8, false),
            Field::new("files_built", DataType::UInt64, false),
            Field::new("files_kept", DataType::UInt64, false),
            Field::new("rows", DataType::UInt64, false),
            Field::new("bytes", DataType::UInt64, false),
            Field::new("seconds", DataType::Float64, false),
        ]))
    }

    async fn run(&self, state: &SessionState, context: Arc<TaskContext>) -> Result<RecordBatch> {
        let start = Instant::now();
        let reference = TableReference::from(self.table.as_str());
        let provider = parquet_table(state, &reference).await?;
        let target = target(state, &provider, &reference, &self.column).await?;
        let spec = self.spec(state, target.column)?;
        let shared = Shared::of(state)?;

        let mut stale = vec![];
        for file in &target.files {
            let found = shared
                .sidecars
                .lookup(&file.location, &spec.column_name, spec.metric, &file.identity)
                .await;
            if matches!(found, Lookup::Unusable(_)) {
                stale.push(file);
            }
        }
        if stale.is_empty() && !target.files.is_empty() && self.options.if_not_exists != Some(true) {
            return exec_err!(
                "all files of {reference} have a {} index on {} already; DROP INDEX first, or say IF NOT EXISTS",
                spec.metric,
                spec.column_name
            );
        }
        let (mut built, mut rows, mut bytes) = (0_u64, 0, 0);
        for (number, file) in stale.iter().enumerate() {
            let Some(table) = &target.table else { break };
            let files = stale.len();
            let (path, total) = (file.source.meta.location.to_string(), file.footer.rows);
            let listener = shared.progress();
            let progress = move |phase, done| match &listener {
                None => std::ops::ControlFlow::Continue(()),
                Some(listener) => {
                    let path = path.clone();
                    listener(&IndexProgress {
                        file: number + 1,
                        files,
                        path,
                        phase,
                        done,
                        total,
                    })
                }
            };
            if let Some(done) = create(table, file, &spec, &shared.sidecars, &context, progress).await? {
                built += 1;
                rows += done.rows;
                bytes += done.bytes;
            }
        }
        let kept = (target.files.len() - stale.len()) as u64;
        Ok(RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(StringArray::from(vec![spec.name])),
                Arc::new(StringArray::from(vec![reference.to_string()])),
                Arc::new(StringArray::from(vec![spec.column_name])),
                Arc::new(StringArray::from(vec![spec.metric.to_string()])),
                Arc::new(UInt64Array::from(vec![built])),
                Arc::new(UInt64Array::from(vec![kept])),
                Arc::new(UInt64Array::from(vec![rows])),
                Arc::new(UInt64Array::from(vec![bytes])),
                Arc::new(Float64Array::from(vec![start.elapsed().as_secs_f64()])),
            ],
        )?)
    }
}

/// `DROP INDEX [IF EXISTS] name [ON table]`.
#[derive(Debug)]
pub(crate) struct DropIndexCommand {
    pub name: String,
    pub table: Option<String>,
    pub if_exists: bool,
}

#[async_trait]
impl Command for DropIndexCommand {
    fn name(&self) -> &'static str {
        "DROP INDEX"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("index_name", DataType::Utf8, false),
            Field::new("files_dropped", DataType::UInt64, false),
        ]))
    }

    async fn run(&self, state: &SessionState, _context: Arc<TaskContext>) -> Result<RecordBatch> {
        let tables = match &self.table {
            Some(table) => {
                let reference = TableReference::from(table.as_str());
                vec![parquet_table(state, &reference).await?]
            }
            None => all_parquet_tables(state).await?,
        };
        let shared = Shared::of(state)?;
        let mut dropped = 0_u64;
        for provider in tables {
            let locations = locations(state, &provider).await?;
            for entry in shared.sidecars.list(&locations).await.map_err(external)? {
                let (Some(place), Ok(sidecar)) = (entry.location, &entry.opened) else {
                    continue;
                };
                if sidecar.meta().index_name != self.name {
                    continue;
                }
                let (column, metric) = (sidecar.meta().table_column.clone(), entry.name.metric);
                let removed = shared
                    .sidecars
                    .remove(&locations[place], &column, metric)
                    .await
                    .map_err(external)?;
                dropped += u64::from(removed);
            }
        }
        if dropped == 0 && !self.if_exists {
            let on = self
                .table
                .as_ref()
                .map_or_else(String::new, |table| format!(" on {table}"));
            return exec_err!(
                "there is no index {}{on}; SELECT * FROM hnsw_indexes() lists them, and IF EXISTS makes this no error",
                self.name
            );
        }
        Ok(RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(StringArray::from(vec![self.name.as_str()])) as Arc<dyn Array>,
                Arc::new(UInt64Array::from(vec![dropped])),
            ],
        )?)
    }
}

/// Where the sidecars of all files of a table are.
pub(crate) async fn locations(
    state: &SessionState,
    provider: &Arc<dyn TableProvider>,
) -> Result<Vec<crate::sidecar::Location>> {
    let plan = provider.scan(state, Some(&vec![]), &[], None).await?;
    let Some(files) = TableFiles::of(&plan) else {
        return Ok(vec![]);
    };
    let dir = sidecar_dir(&HnswOptions::of(state.config_options()), state.runtime_env())?;
    let store = state.runtime_env().object_store(files.store_url())?;
    Ok(files
        .files()
        .map(|file| {
            let source = SourceFile::new(
                Arc::clone(&store),
                files.store_url().clone(),
                file.object_meta.clone(),
            );
            location(&source, dir.clone())
        })
        .collect())
}

/// Every Parquet table of the session's default schema.
pub(crate) async fn all_parquet_tables(state: &SessionState) -> Result<Vec<Arc<dyn TableProvider>>> {
    let schema = state.schema_for_ref(TableReference::bare("any"))?;
    let mut tables = vec![];
    for name in schema.table_names() {
        if let Ok(provider) = parquet_table(state, &TableReference::bare(name)).await {
            tables.push(provider);
        }
    }
    Ok(tables)
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
