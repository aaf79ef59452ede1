//! Row ids back to Arrow batches: only the pages that hold them are read, and vectors come from the sidecar.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, GenericListArray, OffsetSizeTrait, RecordBatch,
    RecordBatchOptions, UInt64Array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};

use super::files::SearchFile;
use super::scan::Run;
use crate::id::RowId;
use crate::rows::kept_vectors::KeptVectors;
use crate::rows::pause::Pause;
use crate::rows::scan::row_numbers;
use crate::sidecar::Sidecar;

/// Files fetched from at the same time.
pub(crate) const FETCHES_AT_ONCE: usize = 8;

/// Fetches the chosen rows of each file; of some files vectors may have been kept.
pub(crate) fn fetch(
    run: Arc<Run>,
    rows: Vec<Vec<u64>>,
    kept: Vec<Option<KeptVectors>>,
) -> SendableRecordBatchStream {
    let schema = Arc::clone(&run.spec.schema);
    let batch_size = run.context.session_config().batch_size().max(1);
    let kept = kept.into_iter().chain(std::iter::repeat_with(|| None));
    let batches = futures::stream::iter(rows.into_iter().zip(kept).enumerate())
        .filter(|(_, (rows, _))| futures::future::ready(!rows.is_empty()))
        .map(move |(index, (rows, kept))| fetch_file(Arc::clone(&run), index, rows, kept))
        .buffered(FETCHES_AT_ONCE)
        .map_ok(move |fetched| {
            let Fetched { batches, memory } = fetched;
            let pieces = batches
                .into_iter()
                .flat_map(move |batch| pieces(&batch, batch_size));
            futures::stream::iter(pieces).map(move |batch| {
                let _held = &memory;
                Ok(batch)
            })
        })
        .try_flatten();
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// A batch in pieces of the session's size: a filter above may have a value for each row by itself that it has not
/// where it looks at all of them together.
fn pieces(batch: &RecordBatch, size: usize) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    let piece = |at: usize| batch.slice(at, size.min(rows - at));
    (0..rows).step_by(size).map(piece).collect()
}

/// Rows of one file, and the memory they were granted.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub batches: Vec<RecordBatch>,
    pub memory: MemoryReservation,
}

/// Fetches these rows of one file, in this order, which is ascending.
pub(crate) async fn fetch_file(
    run: Arc<Run>,
    index: usize,
    rows: Vec<u64>,
    kept: Option<KeptVectors>,
) -> Result<Fetched> {
    let memory = run.memory.new_empty();
    let _timer = run.metrics.fetch_time.timer();
    let file = &run.spec.files[index];
    let spec = &run.spec;
    let vectors = spec
        .projection
        .iter()
        .position(|&column| column == spec.request.column)
        .and_then(|at| Some((at, VectorSource::of(&run, file, &rows, kept.as_ref())?)));
    run.metrics.rows_fetched.add(rows.len());
    let mut columns = spec.projection.clone();
    if let Some((at, _)) = vectors {
        columns.remove(at);
    }
    let mut read = run.read(file);
    read.columns = &columns;
    let whole = match columns.contains(&spec.request.column) {
        true => None,
        false if columns.is_empty() && vectors.is_some() => Some(vec![]),
        false => spec.shared.columns.whole(&spec.table, read, &run.context).await?,
    };
    let (mut batches, mut pause) = (vec![], Pause::new());
    let mut put = |mut arrays: Vec<ArrayRef>, rows: &mut dyn Iterator<Item = u64>, count: usize| {
        if let Some((at, source)) = &vectors {
            arrays.insert(*at, source.vectors(rows, &spec.vector_type)?);
        }
        let count = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&spec.schema), arrays, &count)?;
        memory.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
        Ok::<_, DataFusionError>(())
    };
    if let Some(whole) = whole {
        run.metrics.bytes_read.add(run.take_bytes_read());
        // Some rows at a time: a query may be dropped in between, and learns soon if memory is short.
        for some in rows.chunks(run.context.session_config().batch_size().max(1)) {
            pause.if_due().await;
            let places = UInt64Array::from_iter_values(some.iter().copied());
            let arrays = whole.iter().map(|column| take(column, &places, None));
            put(
                arrays.collect::<Result<_, _>>()?,
                &mut some.iter().copied(),
                some.len(),
            )?;
        }
        return Ok(Fetched { batches, memory });
    }
    // Also refuses rows that the file does not have, which only a damaged index can name.
    let mut read = run.read(file);
    read.columns = &columns;
    read.selection = Some(selection(&rows, file.footer.rows)?);
    let mut stream = spec.table.read(read, &run.context)?;
    while let Some(batch) = stream.try_next().await? {
        pause.if_due().await;
        let arrays = batch.columns()[..columns.len()].to_vec();
        let mut numbers = row_numbers(&batch)?.values().iter().map(|n| n.cast_unsigned());
        put(arrays, &mut numbers, batch.num_rows())?;
    }
    run.metrics.bytes_read.add(run.take_bytes_read());
    let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if found != rows.len() {
        return Err(internal_datafusion_err!(
            "{} rows of {} were fetched",
            found,
            rows.len()
        ));
    }
    Ok(Fetched { batches, memory })
}

/// Where the vectors of rows come from, if not from the pages of the file.
#[derive(Clone, Copy)]
enum VectorSource<'a> {
    Sidecar(&'a Sidecar),
    Kept(&'a KeptVectors),
}

impl<'a> VectorSource<'a> {
    /// One that can give the vectors of all these rows as the table's scan would.
    fn of(run: &Run, file: &'a SearchFile, rows: &[u64], kept: Option<&'a KeptVectors>) -> Option<Self> {
        let sidecar = file.index().filter(|sidecar| {
            run.spec.holds_bits(sidecar)
                && sidecar.gives_vectors()
                && rows.iter().all(|&row| sidecar.vector(RowId::new(row)).is_some())
        });
        match sidecar {
            Some(sidecar) => Some(Self::Sidecar(sidecar.as_ref())),
            None => kept.filter(|kept| kept.has(rows)).map(Self::Kept),
        }
    }

    fn vectors(self, rows: &mut dyn Iterator<Item = u64>, vector_type: &DataType) -> Result<ArrayRef> {
        match self {
            Self::Sidecar(sidecar) => from_sidecar(sidecar, rows, vector_type),
            Self::Kept(kept) => kept.of(rows),
        }
    }
}

/// Compares the vectors of chosen rows with their checksums. A file of which one disagrees has no index from then on.
pub(crate) async fn check_rows(run: &Run, chosen: &[Vec<u64>]) {
    let mut pause = Pause::new();
    for (file, rows) in run.spec.files.iter().zip(chosen) {
        let Some(sidecar) = file.index() else { continue };
        for &row in rows {
            pause.if_due().await;
            if !sidecar.row_agrees(RowId::new(row)) {
                run.metrics.fallbacks.add(1);
                break;
            }
        }
    }
}

fn selection(rows: &[u64], total: u64) -> Result<RowSelection> {
    let mut ranges: Vec<Range<usize>> = vec![];
    for &row in rows {
        let row = place(row)?;
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }
    let total = place(total)?;
    if ranges.last().is_some_and(|last| last.end > total) {
        return Err(internal_datafusion_err!("row beyond the end of its file"));
    }
    Ok(RowSelection::from_consecutive_ranges(ranges.into_iter(), total))
}

fn place(row: u64) -> Result<usize> {
    usize::try_from(row).map_err(|_| internal_datafusion_err!("row {row} is beyond memory"))
}

/// The vectors of rows that the sidecar holds, as an array of the table's type.
fn from_sidecar(
    sidecar: &Sidecar,
    rows: impl Iterator<Item = u64>,
    vector_type: &DataType,
) -> Result<ArrayRef> {
    let dim = sidecar.dim();
    let mut items: Vec<f32> = vec![];
    let mut count = 0;
    for row in rows {
        let vector = sidecar.vector(RowId::new(row));
        let vector =
            vector.ok_or_else(|| internal_datafusion_err!("row {row} has no vector in its index"))?;
        items.extend_from_slice(&vector);
        count += 1;
    }
    let items = Float32Array::from(items);
    match vector_type {
        DataType::FixedSizeList(field, size) => {
            let items = cast(&items, field.data_type())?;
            Ok(Arc::new(FixedSizeListArray::try_new(
                Arc::clone(field),
                *size,
                items,
                None,
            )?))
        }
        DataType::List(field) => list::<i32>(field, &items, dim, count),
        DataType::LargeList(field) => list::<i64>(field, &items, dim, count),
        other => Err(internal_datafusion_err!("{other} is not a column of vectors")),
    }
}

fn list<O: OffsetSizeTrait>(
    field: &FieldRef,
    items: &Float32Array,
    dim: usize,
    count: usize,
) -> Result<ArrayRef> {
    let items = cast(items, field.data_type())?;
    let offsets = OffsetBuffer::<O>::from_lengths(std::iter::repeat_n(dim, count));
    debug_assert_eq!(items.len(), dim * count, "vectors of one length");
    Ok(Arc::new(GenericListArray::<O>::try_new(
        Arc::clone(field),
        offsets,
        items,
        None,
    )?))
}
