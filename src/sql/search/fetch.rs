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
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};

use super::files::{SearchFile, Strategy};
use super::scan::Run;
use crate::id::RowId;
use crate::rows::pause::Pause;
use crate::rows::scan::row_numbers;
use crate::sidecar::Sidecar;

/// Files fetched from at the same time.
const FETCHES_AT_ONCE: usize = 8;

/// Fetches the chosen rows of each file.
pub(crate) fn fetch(run: Arc<Run>, rows: Vec<Vec<u64>>) -> SendableRecordBatchStream {
    let schema = Arc::clone(&run.spec.schema);
    let batch_size = run.context.session_config().batch_size().max(1);
    let batches = futures::stream::iter(rows.into_iter().enumerate())
        .filter(|(_, rows)| futures::future::ready(!rows.is_empty()))
        .map(move |(index, rows)| fetch_file(Arc::clone(&run), index, rows))
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
pub(crate) async fn fetch_file(run: Arc<Run>, index: usize, rows: Vec<u64>) -> Result<Fetched> {
    let memory = run.memory.new_empty();
    let one = |batch: RecordBatch, memory: MemoryReservation| {
        memory.try_grow(batch.get_array_memory_size())?;
        let batches = vec![batch];
        Ok(Fetched { batches, memory })
    };
    let _timer = run.metrics.fetch_time.timer();
    let file = &run.spec.files[index];
    let spec = &run.spec;
    let vectors = spec
        .projection
        .iter()
        .position(|&column| column == spec.request.column)
        .and_then(|at| Some((at, holder(&run, file, &rows)?)));
    run.metrics.rows_fetched.add(rows.len());
    let mut columns = spec.projection.clone();
    if let Some((at, sidecar)) = vectors {
        columns.remove(at);
        if columns.is_empty() {
            let vectors = from_sidecar(sidecar, rows.iter().copied(), &spec.vector_type)?;
            let batch = RecordBatch::try_new(Arc::clone(&spec.schema), vec![vectors])?;
            return one(batch, memory);
        }
    }
    // Also refuses rows that the file does not have, which only a damaged index can name.
    let selection = selection(&rows, file.footer.rows)?;
    let mut read = run.read(file);
    read.columns = &columns;
    let whole = match columns.contains(&spec.request.column) {
        true => None,
        false => spec.shared.columns.whole(&spec.table, read, &run.context).await?,
    };
    if let Some(whole) = whole {
        run.metrics.bytes_read.add(run.take_bytes_read());
        let places = UInt64Array::from_iter_values(rows.iter().copied());
        let mut arrays = whole
            .iter()
            .map(|column| take(column, &places, None))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some((at, sidecar)) = vectors {
            arrays.insert(
                at,
                from_sidecar(sidecar, rows.iter().copied(), &spec.vector_type)?,
            );
        }
        let count = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&spec.schema), arrays, &count)?;
        return one(batch, memory);
    }
    let mut read = run.read(file);
    read.columns = &columns;
    read.selection = Some(selection);
    let mut stream = spec.table.read(read, &run.context)?;
    let (mut batches, mut pause) = (vec![], Pause::new());
    while let Some(batch) = stream.try_next().await? {
        pause.if_due().await;
        let mut arrays = batch.columns()[..columns.len()].to_vec();
        if let Some((at, sidecar)) = vectors {
            let numbers = row_numbers(&batch)?.values().iter().map(|n| n.cast_unsigned());
            arrays.insert(at, from_sidecar(sidecar, numbers, &spec.vector_type)?);
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&spec.schema), arrays, &rows)?;
        memory.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
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

/// The sidecar of a file, if it can give the vectors of all these rows as the table's scan would.
fn holder<'a>(run: &Run, file: &'a SearchFile, rows: &[u64]) -> Option<&'a Sidecar> {
    let Strategy::Index(sidecar) = &file.strategy else {
        return None;
    };
    let all =
        run.spec.holds_bits(sidecar) && rows.iter().all(|&row| sidecar.vector(RowId::new(row)).is_some());
    all.then_some(sidecar.as_ref())
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
