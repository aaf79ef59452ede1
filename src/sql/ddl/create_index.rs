//! CREATE INDEX, as a command: which files need a sidecar, and building them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::arrow::array::{Float64Array, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::utils::quote_identifier;
use datafusion::common::{Result, TableReference, exec_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};
use futures::StreamExt;

use super::command::Command;
use super::option_list::OptionList;
use super::targets::{parquet_table, target};
use crate::create::{FileToIndex, IndexProgress, IndexSpec, Indexed, ProgressFn, create};
use crate::hnsw::{HnswConfig, VectorMetric};
use crate::rows::scan::TableFiles;
use crate::sidecar::SidecarStore;
use crate::sql::options::HnswOptions;
use crate::sql::shared::Shared;

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
            stored: self.options.stored.unwrap_or(defaults.stored.0),
            threads: self.options.threads.unwrap_or(defaults.threads),
        };
        config.check().map_err(external)?;
        let name = self
            .options
            .name
            .clone()
            .unwrap_or_else(|| default_name(&self.table, &self.column, metric));
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
        let mut spec = self.spec(state, target.column)?;
        let shared = Shared::of(state)?;

        let places: Vec<_> = target
            .files
            .iter()
            .map(|file| (file.location.clone(), file.identity.clone()))
            .collect();
        let found = shared
            .sidecars
            .lookup_all_or_build(&places, &spec.column_name, spec.metric)
            .await;
        let stale: Vec<FileToIndex> = target
            .files
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.fresh().is_none())
            .map(|(file, _)| file.clone())
            .collect();
        let is_new = self.options.if_not_exists != Some(true);
        let name = found
            .iter()
            .find_map(|found| Some(&found.fresh()?.meta().index_name));
        if let Some(name) = name {
            let other = self.options.name.as_ref().is_some_and(|ours| ours != name);
            if is_new && (stale.is_empty() || other) {
                let name = quote_identifier(name);
                return exec_err!(
                    "{} files of {reference} have a {} index on {} already, {name}; \
                    DROP INDEX {name} first, or say IF NOT EXISTS",
                    if stale.is_empty() { "all" } else { "some" },
                    spec.metric,
                    spec.column_name
                );
            }
            // One index has one name, also where the rest of it is built later.
            spec.name.clone_from(name);
        }
        let (files_kept, files) = ((target.files.len() - stale.len()) as u64, stale.len());
        let built = match target.table {
            None => vec![],
            Some(table) => {
                let build = Build {
                    table,
                    spec: spec.clone(),
                    sidecars: Arc::clone(&shared.sidecars),
                    context,
                    progress,
                    files,
                    done: Arc::default(),
                };
                Arc::new(build).all(stale).await?
            }
        };
        Ok(IndexSummary {
            index_name: spec.name,
            metric: spec.metric,
            files_built: built.len() as u64,
            files_kept,
            rows: built.iter().map(|file| file.rows).sum(),
            bytes: built.iter().map(|file| file.bytes).sum(),
            elapsed: start.elapsed(),
        })
    }
}

/// Files of fewer rows are built side by side, a thread for each; the others one after the other, by all threads.
///
/// The bytes of an index do not depend on the threads.
const SMALL: u64 = 20_000;

/// A build of several files.
struct Build {
    table: TableFiles,
    spec: IndexSpec,
    sidecars: Arc<SidecarStore>,
    context: Arc<TaskContext>,
    progress: Option<ProgressFn>,
    files: usize,
    done: Arc<AtomicUsize>,
}

impl Build {
    /// Builds all of them. What was published before an error or an interruption stays, and is not built again.
    async fn all(self: Arc<Self>, files: Vec<FileToIndex>) -> Result<Vec<Indexed>> {
        let threads = match self.spec.config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let numbered = files.into_iter().enumerate();
        let (small, mut alone): (Vec<_>, Vec<_>) =
            numbered.partition(|(_, file)| threads > 1 && file.footer.rows < SMALL);
        let mut side_by_side = futures::stream::iter(small)
            .map(|(number, file)| {
                let build = Arc::clone(&self);
                SpawnedTask::spawn(async move {
                    let built = build.one(number, &file, 1).await;
                    (number, file, built)
                })
            })
            .buffer_unordered(threads);
        let mut indexed = vec![];
        while let Some(built) = side_by_side.next().await {
            let (number, file, built) = built.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
            match built {
                Ok(built) => indexed.extend(built),
                // There is not room for so many at once.
                Err(DataFusionError::ResourcesExhausted(_)) => alone.push((number, file)),
                Err(error) => return Err(error),
            }
        }
        for (number, file) in alone {
            indexed.extend(self.one(number, &file, self.spec.config.threads).await?);
        }
        Ok(indexed)
    }

    async fn one(&self, number: usize, file: &FileToIndex, threads: usize) -> Result<Option<Indexed>> {
        let (path, total) = (file.source.meta.location.to_string(), file.footer.rows);
        let (listener, files, files_done) = (self.progress.clone(), self.files, Arc::clone(&self.done));
        let progress = move |phase, done| match &listener {
            None => ControlFlow::Continue(()),
            Some(listener) => listener(&IndexProgress {
                file: number + 1,
                files,
                files_done: files_done.load(Relaxed),
                path: path.clone(),
                phase,
                done,
                total,
            }),
        };
        let mut spec = self.spec.clone();
        spec.config.threads = threads;
        let built = create(&self.table, file, &spec, &self.sidecars, &self.context, progress).await?;
        self.done.fetch_add(1, Relaxed);
        Ok(built)
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

/// What an index is called when nobody says.
pub(crate) fn default_name(table: &str, column: &str, metric: VectorMetric) -> String {
    let table = TableReference::from(table);
    format!("{}_{column}_{metric}_idx", table.table())
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
