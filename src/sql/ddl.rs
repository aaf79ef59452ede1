//! CREATE INDEX and DROP INDEX, as commands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, Float64Array, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Result, TableReference, exec_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};

use super::command::Command;
use super::option_list::OptionList;
use super::options::HnswOptions;
use super::shared::Shared;
use super::targets::{all_parquet_tables, locations, parquet_table, target};
use crate::create::{IndexProgress, IndexSpec, ProgressFn, create};
use crate::hnsw::{HnswConfig, VectorMetric};
use crate::sidecar::Lookup;

/// What came of building an index.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IndexSummary {
    /// The index's name.
    pub index_name: String,
    /// Its distance.
    pub metric: VectorMetric,
    /// Files that got a sidecar.
    pub files_built: u64,
    /// Files whose sidecar fits already.
    pub files_kept: u64,
    /// Rows of the files built.
    pub rows: u64,
    /// Bytes of their sidecars.
    pub bytes: u64,
    /// What it took.
    pub elapsed: Duration,
}

/// `CREATE INDEX [IF NOT EXISTS] [name] ON table USING hnsw (column) [WITH (...)]`.
#[derive(Clone, Debug)]
pub(crate) struct CreateIndexCommand {
    pub table: String,
    pub column: String,
    pub options: OptionList,
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

    /// Builds the indexes of all files that have none which fits.
    pub(crate) async fn create(
        &self,
        state: &SessionState,
        context: Arc<TaskContext>,
        progress: Option<ProgressFn>,
    ) -> Result<IndexSummary> {
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
            let listener = progress.clone();
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
        Ok(IndexSummary {
            index_name: spec.name,
            metric: spec.metric,
            files_built: built,
            files_kept: (target.files.len() - stale.len()) as u64,
            rows,
            bytes,
            elapsed: start.elapsed(),
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
        let progress = Shared::of(state)?.progress();
        let summary = self.create(state, context, progress).await?;
        Ok(RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(StringArray::from(vec![summary.index_name])),
                Arc::new(StringArray::from(vec![self.table.as_str()])),
                Arc::new(StringArray::from(vec![self.column.as_str()])),
                Arc::new(StringArray::from(vec![summary.metric.to_string()])),
                Arc::new(UInt64Array::from(vec![summary.files_built])),
                Arc::new(UInt64Array::from(vec![summary.files_kept])),
                Arc::new(UInt64Array::from(vec![summary.rows])),
                Arc::new(UInt64Array::from(vec![summary.bytes])),
                Arc::new(Float64Array::from(vec![summary.elapsed.as_secs_f64()])),
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
                vec![(table.clone(), parquet_table(state, &reference).await?)]
            }
            None => all_parquet_tables(state).await?,
        };
        let shared = Shared::of(state)?;
        let mut dropped = 0_u64;
        for (_, provider) in tables {
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

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
