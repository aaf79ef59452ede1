//! `hnsw_indexes()` and `hnsw_verify('t')`: which indexes there are, and whether they hold what they promise.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Float64Array, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, TableReference};
use datafusion::datasource::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};

use super::command::Command;
use super::targets::{all_parquet_tables, files, locations, parquet_table};
use crate::create::FileToIndex;
use crate::format::FormatError;
use crate::hnsw::SearchOptions;
use crate::id::RowId;
use crate::sidecar::{Lookup, Sidecar, SidecarEntry};
use crate::sql::shared::Shared;

/// A sidecar of a table's file with what became of looking it up.
struct Found {
    file: usize,
    entry: SidecarEntry,
    /// `fresh`, or the code and the sentence of why not.
    state: Result<Arc<Sidecar>, (String, String)>,
}

/// All sidecars of a table's files.
async fn find(state: &SessionState, files: &[FileToIndex]) -> Result<Vec<Found>> {
    let shared = Shared::of(state)?;
    let locations: Vec<_> = files.iter().map(|file| file.location.clone()).collect();
    let entries = shared
        .sidecars
        .list(&locations)
        .await
        .map_err(|e| DataFusionError::External(Box::new(e)))?;
    let mut found = vec![];
    for entry in entries {
        let Some(file) = entry.location else { continue };
        let of = &files[file];
        let state = match &entry.opened {
            Err(reason) => Err((reason.code().into_owned(), reason.to_string())),
            Ok(sidecar) => {
                let column = &sidecar.meta().table_column;
                match shared
                    .sidecars
                    .lookup(&of.location, column, entry.name.metric, &of.identity)
                    .await
                {
                    Lookup::Fresh(sidecar) => Ok(sidecar),
                    Lookup::Unusable(reason) => Err((reason.code().into_owned(), reason.to_string())),
                }
            }
        };
        found.push(Found { file, entry, state });
    }
    Ok(found)
}

/// All sidecars of a table whose files cannot be read, for this reason; and how many files those are.
async fn find_unread(
    state: &SessionState,
    provider: &Arc<dyn TableProvider>,
    error: &DataFusionError,
) -> Result<(usize, Vec<Found>)> {
    let places = locations(state, provider).await?;
    let entries = Shared::of(state)?.sidecars.list(&places).await;
    let entries = entries.map_err(|e| DataFusionError::External(Box::new(e)))?;
    let found = entries.into_iter().filter_map(|entry| {
        Some(Found {
            file: entry.location?,
            entry,
            state: Err(("unreadable".to_owned(), error.strip_backtrace())),
        })
    });
    Ok((places.len(), found.collect()))
}

/// `SELECT * FROM hnsw_indexes()`: a row for each index of the tables of the default schema.
#[derive(Debug)]
pub(crate) struct IndexesCommand;

#[derive(Default)]
struct Index {
    name: Option<String>,
    parameters: Option<(u64, u64)>,
    fresh: u64,
    rows: u64,
    bytes: u64,
    trouble: Option<(String, String)>,
}

#[async_trait]
impl Command for IndexesCommand {
    fn name(&self) -> &'static str {
        "hnsw_indexes"
    }

    fn schema(&self) -> SchemaRef {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        let number = |name: &str, nullable| Field::new(name, DataType::UInt64, nullable);
        Arc::new(Schema::new(vec![
            text("table_name", false),
            text("index_name", true),
            text("column_name", false),
            text("metric", false),
            number("m", true),
            number("ef_construction", true),
            number("files", false),
            number("files_fresh", false),
            number("rows", false),
            number("bytes", false),
            text("state", false),
            text("reason", true),
        ]))
    }

    async fn run(&self, state: &SessionState, _context: Arc<TaskContext>) -> Result<RecordBatch> {
        let mut indexes: BTreeMap<(String, String, String), (u64, Index)> = BTreeMap::new();
        for (table, provider) in all_parquet_tables(state).await? {
            let (files, found) = match files(state, &provider, &[]).await {
                Ok((files, _)) => (files.len(), find(state, &files).await?),
                // One table that cannot be read does not hide the others.
                Err(error) => find_unread(state, &provider, &error).await?,
            };
            for found in found {
                let column = found.entry.name.column().unwrap_or_default();
                let key = (table.clone(), column, found.entry.name.metric.to_string());
                let (_, index) = indexes
                    .entry(key)
                    .or_insert_with(|| (files as u64, Index::default()));
                index.bytes += found.entry.bytes;
                if let Ok(sidecar) = &found.entry.opened {
                    index
                        .name
                        .get_or_insert_with(|| sidecar.meta().index_name.clone());
                    index
                        .parameters
                        .get_or_insert((sidecar.m() as u64, sidecar.ef_construction() as u64));
                    index.rows += sidecar.rows();
                }
                match found.state {
                    Ok(_) => index.fresh += 1,
                    Err(trouble) => _ = index.trouble.get_or_insert(trouble),
                }
            }
        }
        let rows: Vec<_> = indexes.into_iter().collect();
        let text = |of: &dyn Fn(&((String, String, String), (u64, Index))) -> Option<String>| {
            Arc::new(rows.iter().map(of).collect::<StringArray>())
        };
        let number = |of: &dyn Fn(&((String, String, String), (u64, Index))) -> Option<u64>| {
            Arc::new(rows.iter().map(of).collect::<UInt64Array>())
        };
        let coverage = |files: u64, index: &Index| match &index.trouble {
            Some((code, _)) => code.split(':').next().unwrap_or("stale").to_owned(),
            None if index.fresh < files => "missing".to_owned(),
            None => "fresh".to_owned(),
        };
        Ok(RecordBatch::try_new(
            self.schema(),
            vec![
                text(&|((table, _, _), _)| Some(table.clone())),
                text(&|(_, (_, index))| index.name.clone()),
                text(&|((_, column, _), _)| Some(column.clone())),
                text(&|((_, _, metric), _)| Some(metric.clone())),
                number(&|(_, (_, index))| index.parameters.map(|p| p.0)),
                number(&|(_, (_, index))| index.parameters.map(|p| p.1)),
                number(&|(_, (files, _))| Some(*files)),
                number(&|(_, (_, index))| Some(index.fresh)),
                number(&|(_, (_, index))| Some(index.rows)),
                number(&|(_, (_, index))| Some(index.bytes)),
                text(&|(_, (files, index))| Some(coverage(*files, index))),
                text(&|(_, (_, index))| index.trouble.as_ref().map(|t| format!("{}: {}", t.0, t.1))),
            ],
        )?)
    }
}

/// `SELECT * FROM hnsw_verify('t')`: checks every byte, link and node of a table's sidecars, and samples their recall.
#[derive(Debug)]
pub(crate) struct VerifyCommand {
    pub table: String,
}

/// Vectors of an index that are searched for to sample its recall.
const SAMPLES: u64 = 50;
/// Neighbors of each that are counted.
const SAMPLE_K: usize = 10;

#[async_trait]
impl Command for VerifyCommand {
    fn name(&self) -> &'static str {
        "hnsw_verify"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("file", DataType::Utf8, false),
            Field::new("column_name", DataType::Utf8, false),
            Field::new("metric", DataType::Utf8, false),
            Field::new("rows", DataType::UInt64, true),
            Field::new("state", DataType::Utf8, false),
            Field::new("reason", DataType::Utf8, true),
            Field::new("recall_at_10", DataType::Float64, true),
        ]))
    }

    async fn run(&self, state: &SessionState, _context: Arc<TaskContext>) -> Result<RecordBatch> {
        let provider = parquet_table(state, &TableReference::from(self.table.as_str())).await?;
        let (files, _) = files(state, &provider, &[]).await?;
        let mut names: Vec<String> = vec![];
        let (mut columns, mut metrics, mut rows) = (vec![], vec![], vec![]);
        let (mut states, mut reasons, mut recalls) = (vec![], vec![], vec![]);
        for found in find(state, &files).await? {
            names.push(files[found.file].source.file_name().to_owned());
            columns.push(found.entry.name.column().unwrap_or_default());
            metrics.push(found.entry.name.metric.to_string());
            let sidecar = found.entry.opened.ok();
            rows.push(sidecar.as_ref().map(|sidecar| sidecar.rows()));
            let checked = match sidecar {
                Some(sidecar) => {
                    let check = SpawnedTask::spawn_blocking(move || (damage(&sidecar), recall(&sidecar)));
                    Some(
                        check
                            .await
                            .map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?,
                    )
                }
                None => None,
            };
            let damage = checked.as_ref().and_then(|(damage, _)| damage.as_ref());
            let trouble = match (damage, found.state) {
                (Some(damage), _) => Some(("damaged".to_owned(), damage.to_string())),
                (None, Err((code, sentence))) => Some((code, sentence)),
                (None, Ok(_)) => None,
            };
            recalls.push(checked.and_then(|(damage, recall)| if damage.is_none() { recall } else { None }));
            states.push(
                trouble
                    .as_ref()
                    .map_or_else(|| "fresh".to_owned(), |t| t.0.clone()),
            );
            reasons.push(trouble.map(|t| t.1));
        }
        Ok(RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(StringArray::from(names)),
                Arc::new(StringArray::from(columns)),
                Arc::new(StringArray::from(metrics)),
                Arc::new(UInt64Array::from(rows)),
                Arc::new(StringArray::from(states)),
                Arc::new(StringArray::from(reasons)),
                Arc::new(Float64Array::from(recalls)),
            ],
        )?)
    }
}

/// What does not hold together in a sidecar: its bytes, or the ball that says how near its rows can be.
fn damage(sidecar: &Sidecar) -> Option<FormatError> {
    if let Err(error) = sidecar.verify() {
        return Some(error);
    }
    let ball = sidecar.ball()?;
    let mut listed: Vec<RowId> = sidecar.zero_rows().chain(sidecar.unindexable_rows()).collect();
    listed.sort_unstable();
    let outside = (0..sidecar.rows()).map(RowId::new).find(|row| {
        listed.binary_search(row).is_err()
            && sidecar
                .vector(*row)
                .is_some_and(|vector| !ball.holds(sidecar.metric(), &vector))
    });
    outside.map(|row| FormatError::Damaged {
        section: "footer",
        reason: format!("row {} lies outside of the ball around all rows", row.get()),
    })
}

/// Recall@10 of searches for vectors of the index itself, spread over its rows, against looking at every node.
fn recall(sidecar: &Sidecar) -> Option<f64> {
    let (mut found, mut wanted) = (0, 0);
    for sample in 0..SAMPLES.min(sidecar.rows()) {
        let row = RowId::new(sample * sidecar.rows() / SAMPLES.min(sidecar.rows()));
        let Some(vector) = sidecar.vector(row) else {
            continue;
        };
        let options = SearchOptions::new(SAMPLE_K);
        let (Ok(near), Ok(truth)) = (
            sidecar.search(&vector, &options),
            sidecar.search(&vector, &options.ef(usize::MAX)),
        ) else {
            continue;
        };
        wanted += truth.hits.len();
        found += truth
            .hits
            .iter()
            .filter(|t| near.hits.iter().any(|n| n.row == t.row))
            .count();
    }
    (wanted > 0).then(|| found as f64 / wanted as f64)
}
