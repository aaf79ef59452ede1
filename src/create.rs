//! The BUILD sentence: Parquet file, vectors, graph, bytes, sidecar.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::TryStreamExt;

use crate::format::{SidecarMeta, SourceIdentity};
use crate::hnsw::{BuildPhase, BuildProgress, HnswBuilder, HnswConfig, VectorMetric};
use crate::id::RowId;
use crate::rows::footer::Footer;
use crate::rows::pause::Pause;
use crate::rows::scan::{FileRead, TableFiles, row_numbers};
use crate::rows::source_file::SourceFile;
use crate::rows::vectors::{Vector, Vectors, item_type};
use crate::sidecar::{Location, SidecarStore};

/// Bytes that a build takes for each row beside its vector, roughly: codes, links and bookkeeping.
const BYTES_PER_ROW: usize = 512;

/// An index to build over one column of a table.
#[derive(Clone, Debug)]
pub(crate) struct IndexSpec {
    /// What the user calls it.
    pub name: String,
    /// The column's place in the table's schema.
    pub column: usize,
    /// The column's name.
    pub column_name: String,
    /// Its distance.
    pub metric: VectorMetric,
    /// How the graph is built.
    pub config: HnswConfig,
}

/// One file to index.
#[derive(Clone, Debug)]
pub(crate) struct FileToIndex {
    /// As the table's scan names it.
    pub file: PartitionedFile,
    /// Where it lies.
    pub source: SourceFile,
    /// Its footer.
    pub footer: Arc<Footer>,
    /// Where its sidecar goes.
    pub location: Location,
    /// What binds the sidecar to it.
    pub identity: SourceIdentity,
}

/// How far a build is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IndexProgress {
    /// The file being indexed, counted from 1.
    pub file: usize,
    /// How many files are to be indexed.
    pub files: usize,
    /// How many of them are finished. Small files are indexed side by side, so that is not always `file - 1`.
    pub files_done: usize,
    /// The path of the file on this machine, or its URL.
    pub path: String,
    /// What is being done.
    pub phase: IndexPhase,
    /// Rows of this file that went through this phase.
    pub done: u64,
    /// Rows of this file.
    pub total: u64,
}

/// What a build is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexPhase {
    /// Vectors are read from Parquet.
    Read,
    /// Vectors are encoded, clustered and put in order.
    Encode,
    /// Nodes are linked.
    Link,
    /// The sidecar is written.
    Publish,
}

impl fmt::Display for IndexPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IndexPhase::Read => "read",
            IndexPhase::Encode => "encode",
            IndexPhase::Link => "link",
            IndexPhase::Publish => "publish",
        })
    }
}

/// Called now and then during a build, from its threads; [`ControlFlow::Break`] cancels it.
pub type ProgressFn = Arc<dyn Fn(&IndexProgress) -> ControlFlow<()> + Send + Sync>;

/// What came of one file.
#[derive(Clone, Debug)]
pub(crate) struct Indexed {
    /// Rows of the file.
    pub rows: u64,
    /// Bytes of the sidecar.
    pub bytes: u64,
}

/// A vector that no index over its file can hold, as its length differs from that of the others: the file stays
/// without an index, and searches of it are answered row by row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file}, row {row} (counted from 0): the vector has {found} numbers{}; a search that compares this row fails, so \
     correct it or set it to NULL",
    .expected.map_or_else(String::new, |n| format!(" where those before it have {n}"))
)]
pub(crate) struct OddVector {
    /// The file's path.
    pub file: String,
    /// The row in the file.
    pub row: u64,
    /// How many numbers its vector has.
    pub found: usize,
    /// How many those before it have, if there are any.
    pub expected: Option<usize>,
}

/// Builds the index of one file and publishes it.
///
/// The index of a file without any vector has no nodes. It says that the file was looked at, and which rows are NULL.
///
/// # Errors
///
/// An [`OddVector`] if the vectors of the file are not all of one length.
pub(crate) async fn create(
    table: &TableFiles,
    file: &FileToIndex,
    spec: &IndexSpec,
    sidecars: &Arc<SidecarStore>,
    context: &Arc<TaskContext>,
    progress: impl Fn(IndexPhase, u64) -> ControlFlow<()> + Send + Sync + 'static,
) -> Result<Indexed> {
    // Taken first: a build whose sidecar could not be written fails before its work is done.
    let lease = sidecars
        .begin(&file.location, &spec.column_name, spec.metric)
        .await
        .map_err(external)?;
    let (builder, item_type, memory) = read_vectors(table, file, spec, context, &progress).await?;
    let rows = file.footer.rows;
    // The threads of a build run on when the statement is dropped: they look whether it is still there.
    let wanted = Arc::new(());
    let watch = Arc::downgrade(&wanted);
    let linked = SpawnedTask::spawn_blocking(move || {
        let index = builder.build_with(&|at: BuildProgress| match watch.strong_count() {
            0 => ControlFlow::Break(()),
            _ => match at.phase {
                BuildPhase::Arrange | BuildPhase::Encode => progress(IndexPhase::Encode, at.done),
                BuildPhase::Link => progress(IndexPhase::Link, at.done),
                // Rarely is anything left to do after the last link.
                BuildPhase::Check => progress(IndexPhase::Link, at.total),
            },
        });
        let _ = progress(IndexPhase::Publish, rows);
        (index, memory)
    });
    let (index, _memory) = linked
        .await
        .map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
    drop(wanted);
    let index = index.map_err(external)?;
    let meta = SidecarMeta {
        index_name: spec.name.clone(),
        table_column: spec.column_name.clone(),
        item_type,
        sources: vec![file.identity.clone()],
        ..SidecarMeta::default()
    };
    let published = lease.publish(Arc::new(index), meta).await.map_err(external)?;
    Ok(Indexed {
        rows,
        bytes: published.bytes,
    })
}

async fn read_vectors(
    table: &TableFiles,
    file: &FileToIndex,
    spec: &IndexSpec,
    context: &Arc<TaskContext>,
    progress: &(impl Fn(IndexPhase, u64) -> ControlFlow<()> + Sync),
) -> Result<(HnswBuilder, String, MemoryReservation)> {
    let memory = MemoryConsumer::new("CREATE INDEX USING hnsw").register(context.memory_pool());
    let read = FileRead {
        file: &file.file,
        source: &file.source,
        footer: &file.footer,
        columns: &[spec.column],
        selection: None,
        prune_by: None,
        bytes_read: &Arc::default(),
    };
    let mut batches = table.read(read, context)?;
    let odd = |row: RowId, found: usize, expected: Option<usize>| {
        external(OddVector {
            file: file.source.path(),
            row: row.get(),
            found,
            expected,
        })
    };
    // A file without vectors does not say how long they are, unless their type does.
    let mut empty_dim = 1;
    let mut builder: Option<HnswBuilder> = None;
    let mut null_rows = vec![];
    let mut item = String::new();
    let mut rounded = vec![];
    let mut pause = Pause::new();
    while let Some(batch) = batches.try_next().await? {
        pause.if_due().await;
        let column = batch.column(0);
        if let DataType::FixedSizeList(_, size) = column.data_type() {
            empty_dim = usize::try_from(*size).unwrap_or(1).max(1);
        }
        if let Some(of) = item_type(column.data_type()) {
            item = of.to_string();
        }
        let vectors = Vectors::of(column)?;
        let numbers = row_numbers(&batch)?;
        for index in 0..batch.num_rows() {
            let row = RowId::new(numbers.value(index).cast_unsigned());
            let vector = match vectors.get(index) {
                Vector::Null => {
                    null_rows.push(row);
                    continue;
                }
                Vector::Single(vector) => vector,
                Vector::Double(vector) => {
                    rounded.clear();
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "an index holds f32; the query reads the rows again"
                    )]
                    rounded.extend(vector.iter().map(|&x| x as f32));
                    &rounded
                }
            };
            let builder = match &mut builder {
                Some(builder) if builder.dim() != vector.len() => {
                    return Err(odd(row, vector.len(), Some(builder.dim())));
                }
                Some(builder) => builder,
                None if vector.is_empty() => return Err(odd(row, 0, None)),
                none => {
                    let rows = usize::try_from(file.footer.rows).unwrap_or(usize::MAX);
                    memory.try_grow(rows.saturating_mul(vector.len() * 5 + BYTES_PER_ROW))?;
                    none.insert(HnswBuilder::new(vector.len(), spec.metric, spec.config.clone()))
                }
            };
            builder.insert_slice(row, vector).map_err(external)?;
        }
        if progress(IndexPhase::Read, batch_end(&batch)?).is_break() {
            return Err(DataFusionError::Execution(
                "the build was cancelled; no index was changed".into(),
            ));
        }
    }
    let mut builder =
        builder.unwrap_or_else(|| HnswBuilder::new(empty_dim, spec.metric, spec.config.clone()));
    for row in null_rows {
        builder.insert_null(row).map_err(external)?;
    }
    Ok((builder, item, memory))
}

fn batch_end(batch: &datafusion::arrow::array::RecordBatch) -> Result<u64> {
    let numbers = row_numbers(batch)?;
    Ok(numbers.values().last().map_or(0, |last| last.cast_unsigned() + 1))
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
