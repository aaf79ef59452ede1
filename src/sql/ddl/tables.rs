//! The tables that statements and functions name, looked up in the session's catalogs.
//!
//! A name is read as SQL reads it, or else it is the path or URL of files, where the session's catalog takes those
//! (`FROM 'docs.parquet'`). Tables named by their files stand in no list of a catalog, so the session remembers them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::utils::quote_identifier;
use datafusion::common::{Result, TableReference, exec_datafusion_err, plan_datafusion_err, plan_err};
use datafusion::datasource::TableProvider;
use datafusion::execution::SessionState;
use futures::FutureExt;

use crate::rows::scan::is_parquet_listing;
use crate::sql::search::table::VectorTable;
use crate::sql::shared::{Shared, is_path};

/// How long a statement that is being planned waits for a catalog.
const PATIENCE: Duration = Duration::from_secs(30);

/// A table that was found, and its name.
#[derive(Clone, Debug)]
pub(crate) struct NamedTable {
    /// Where it was found.
    pub reference: TableReference,
    pub provider: Arc<dyn TableProvider>,
}

/// Looks up a table whose name is text: that of a table as in SQL, or of its files as behind `FROM`.
///
/// # Errors
///
/// Returns an error if there is none of that name.
pub(crate) async fn named_table(state: &SessionState, name: &str) -> Result<NamedTable> {
    let in_sql = TableReference::from(name);
    let first = table(state, in_sql.clone()).await;
    if let Ok(Some(table)) = first {
        return Ok(table);
    }
    // `docs.parquet` reads as table `parquet` of schema `docs`; it is the name of a file as well.
    let as_a_whole = TableReference::bare(name);
    if as_a_whole != in_sql
        && let Some(table) = table(state, as_a_whole).await?
    {
        return Ok(table);
    }
    match first {
        Err(error) if !is_path(name) => Err(error),
        _ if is_path(name) => {
            plan_err!("there is no table {name}, and no file of that name that FROM '{name}' would read")
        }
        _ => plan_err!("there is no table {name}"),
    }
}

/// [`named_table`] that must be a listing of Parquet files.
///
/// # Errors
///
/// Returns an error if there is none of that name, or if it is something else.
pub(crate) async fn named_parquet_table(state: &SessionState, name: &str) -> Result<NamedTable> {
    let found = named_table(state, name).await?;
    let provider = parquet_files(&found.reference, found.provider)?;
    Ok(NamedTable { provider, ..found })
}

/// Looks up a table of Parquet files.
///
/// # Errors
///
/// Returns an error if there is none of that name, or if it is not a listing of Parquet files.
pub(crate) async fn parquet_table(
    state: &SessionState,
    name: &TableReference,
) -> Result<Arc<dyn TableProvider>> {
    match table(state, name.clone()).await? {
        Some(found) => parquet_files(name, found.provider),
        None => plan_err!("there is no table {name}"),
    }
}

/// Waits for a table while a statement is planned, which DataFusion does without `await`.
///
/// A catalog in memory answers at once. Another one is asked from a thread of its own, so that it answers whatever
/// runtime the session is used on.
///
/// # Errors
///
/// Returns an error if the lookup fails, or does not end within half a minute.
pub(crate) fn now<T, F>(name: &str, lookup: impl Fn() -> F + Sync) -> Result<T>
where
    T: Send,
    F: Future<Output = Result<T>> + Send,
{
    if let Some(found) = lookup().now_or_never() {
        return found;
    }
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| exec_datafusion_err!("cannot look up {name}: {e}"))?;
        let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, lookup()).await });
        found.unwrap_or_else(|_| {
            plan_err!(
                "the catalog of {name} did not answer within {} seconds; register the table in the session, with \
                 CREATE EXTERNAL TABLE for example",
                PATIENCE.as_secs()
            )
        })
    };
    std::thread::scope(|scope| {
        let waited = scope.spawn(wait).join();
        waited.unwrap_or_else(|_| plan_err!("the catalog of {name} panicked"))
    })
}

async fn table(state: &SessionState, reference: TableReference) -> Result<Option<NamedTable>> {
    let schema = state.schema_for_ref(reference.clone())?;
    let Some(provider) = schema.table(reference.table()).await? else {
        return Ok(None);
    };
    if let (TableReference::Bare { table }, Ok(shared), false) = (
        &reference,
        Shared::of(state),
        schema.table_exist(reference.table()),
    ) {
        shared.remember_file_table(table);
    }
    Ok(Some(NamedTable { reference, provider }))
}

fn parquet_files(name: &TableReference, provider: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let provider = match provider.downcast_ref::<VectorTable>() {
        Some(table) => Arc::clone(table.inner()),
        None => provider,
    };
    if is_parquet_listing(provider.as_ref()) {
        return Ok(provider);
    }
    Err(plan_datafusion_err!(
        "{name} is not a table of Parquet files; indexes are built for CREATE EXTERNAL TABLE ... STORED AS PARQUET"
    ))
}

/// A table of Parquet files in a list of all of them.
pub(crate) struct ListedTable {
    /// Its name as the functions take it: with its schema and catalog where those are not the session's own.
    pub name: String,
    pub table: NamedTable,
    /// Whether it is in the session's own schema.
    pub in_default_schema: bool,
}

/// Every table of Parquet files: of the session's own schema, then of the others, then those that the session knows
/// by the names of their files. Tables that cannot be opened are left out.
pub(crate) async fn all_parquet_tables(state: &SessionState) -> Result<Vec<ListedTable>> {
    let defaults = &state.config_options().catalog;
    let (own_catalog, own_schema) = (&defaults.default_catalog, &defaults.default_schema);
    let mut references = vec![];
    for catalog_name in state.catalog_list().catalog_names() {
        let Some(catalog) = state.catalog_list().catalog(&catalog_name) else {
            continue;
        };
        for schema_name in catalog.schema_names() {
            let Some(schema) = catalog.schema(&schema_name) else {
                continue;
            };
            let is_own = catalog_name == *own_catalog && schema_name == *own_schema;
            for table in schema.table_names() {
                let quoted = |part: &str| quote_identifier(part).into_owned();
                let name = match (is_own, catalog_name == *own_catalog) {
                    (true, _) => table.clone(),
                    (false, true) => format!("{}.{}", quoted(&schema_name), quoted(&table)),
                    (false, false) => {
                        format!(
                            "{}.{}.{}",
                            quoted(&catalog_name),
                            quoted(&schema_name),
                            quoted(&table)
                        )
                    }
                };
                let reference = match is_own {
                    true => TableReference::bare(table),
                    false => TableReference::full(catalog_name.as_str(), schema_name.as_str(), table),
                };
                references.push((!is_own, false, name, reference));
            }
        }
    }
    for file in Shared::of(state)?.file_tables() {
        let reference = TableReference::bare(file.as_ref());
        let schema = state.schema_for_ref(reference.clone())?;
        if !schema.table_exist(&file) {
            references.push((true, true, file.to_string(), reference));
        }
    }
    references.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    let mut tables = vec![];
    for (is_other, _, name, reference) in references {
        if let Ok(provider) = parquet_table(state, &reference).await {
            tables.push(ListedTable {
                name,
                table: NamedTable { reference, provider },
                in_default_schema: !is_other,
            });
        }
    }
    Ok(tables)
}
