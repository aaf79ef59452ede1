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
use super::option_list::{OptionList, metric, ordered_by};
use super::tables::{NamedTable, named_parquet_table};
use super::targets::target;
use crate::create::{FileToIndex, IndexProgress, IndexSpec, Indexed, OddVector, ProgressFn, create};
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
    /// Files that got none, as one of their vectors is longer or shorter than the others: each names file and row.
    pub skipped: Vec<String>,
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
    fn spec(&self, state: &SessionState, table: &TableReference, column: usize) -> Result<IndexSpec> {
        let defaults = HnswOptions::of(state.config_options());
        let metric = match self.options.metric {
            Some(metric) => ordered_by(metric, Command::name(self)).map(|_| metric)?,
            None => metric(&defaults.metric, "hnsw.metric")?,
        };
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
            .unwrap_or_else(|| default_name(table, &self.column, metric));
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
        let NamedTable { reference, provider } = named_parquet_table(state, &self.table).await?;
        let target = target(state, &provider, &reference, &self.column).await?;
        let mut spec = self.spec(state, &reference, target.column)?;
        if target.files.is_empty() {
            // An index lies beside its file: without any, nothing would remember it.
            return exec_err!(
                "{reference} has no files yet, so there is nothing to index; run CREATE INDEX when it has rows"
            );
        }
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
            None => Built::default(),
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
        if files_kept == 0 && built.indexed.is_empty() && !built.skipped.is_empty() {
            return exec_err!("no index was built: {}", built.sentence());
        }
        Ok(IndexSummary {
            index_name: spec.name,
            metric: spec.metric,
            files_built: built.indexed.len() as u64,
            files_kept,
            rows: built.indexed.iter().map(|file| file.rows).sum(),
            bytes: built.indexed.iter().map(|file| file.bytes).sum(),
            skipped: built.skipped.into_iter().map(|odd| odd.to_string()).collect(),
            elapsed: start.elapsed(),
        })
    }
}

/// Files of fewer rows are built side by side, a thread for each; the others one after the other, by all threads.
///
/// The bytes of an index do not depend on the threads.
const SMALL: u64 = 20_000;

/// What came of several files.
#[derive(Default)]
struct Built {
    indexed: Vec<Indexed>,
    /// Files that no index can hold.
    skipped: Vec<OddVector>,
}

impl Built {
    fn note(&mut self, built: Result<Indexed>) -> Result<()> {
        match built {
            Ok(indexed) => self.indexed.push(indexed),
            Err(error) => match odd_vector(&error) {
                // One odd vector keeps no other file from its index.
                Some(odd) => {
                    tracing::warn!("a file gets no index: {odd}");
                    self.skipped.push(odd.clone());
                }
                None => return Err(error),
            },
        }
        Ok(())
    }

    /// The first of the files that were skipped, and how many more there are.
    fn sentence(&self) -> String {
        told(&self.skipped)
    }
}

fn odd_vector(error: &DataFusionError) -> Option<&OddVector> {
    match error.find_root() {
        DataFusionError::External(error) => error.downcast_ref(),
        _ => None,
    }
}

/// Some sentences as one, of which only the first few are told.
pub(crate) fn told(sentences: &[impl ToString]) -> String {
    const TOLD: usize = 3;
    let mut text: Vec<String> = sentences.iter().take(TOLD).map(ToString::to_string).collect();
    if sentences.len() > TOLD {
        text.push(format!("and {} files more", sentences.len() - TOLD));
    }
    text.join("; ")
}

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
    async fn all(self: Arc<Self>, files: Vec<FileToIndex>) -> Result<Built> {
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
        let mut all = Built::default();
        while let Some(built) = side_by_side.next().await {
            let (number, file, built) = built.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
            match built {
                // There is not room for so many at once.
                Err(DataFusionError::ResourcesExhausted(_)) => alone.push((number, file)),
                built => all.note(built)?,
            }
        }
        for (number, file) in alone {
            all.note(self.one(number, &file, self.spec.config.threads).await)?;
        }
        all.skipped.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(all)
    }

    async fn one(&self, number: usize, file: &FileToIndex, threads: usize) -> Result<Indexed> {
        let (path, total) = (file.source.path(), file.footer.rows);
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
            Field::new("skipped", DataType::Utf8, true),
        ]))
    }

    async fn run(&self, state: &SessionState, context: Arc<TaskContext>) -> Result<RecordBatch> {
        let progress = Shared::of(state)?.progress();
        let summary = self.create(state, context, progress).await?;
        let skipped = (!summary.skipped.is_empty()).then(|| told(&summary.skipped));
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
                Arc::new(StringArray::from(vec![skipped])),
            ],
        )?)
    }
}

/// What an index is called when nobody says. A table named by its file gives it the file's name without its directory.
pub(crate) fn default_name(table: &TableReference, column: &str, metric: VectorMetric) -> String {
    let path = table.table().trim_end_matches('/');
    let file = path.rsplit('/').next().unwrap_or(path);
    let table = file.strip_suffix(".parquet").unwrap_or(file);
    format!("{table}_{column}_{metric}_idx")
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
