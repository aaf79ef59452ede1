//! The rows that a join by nearness fetched, and its pairs of them.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::memory_pool::MemoryReservation;

use super::plan::JoinColumn;
use crate::sql::search::fetch::fetch_file;
use crate::sql::search::scan::Run;

/// The rows of each file that were chosen for a query.
pub(crate) type Chosen = Vec<Vec<u64>>;

/// A pair of the join, its right row by place in the fetched ones.
pub(crate) struct Pair {
    pub(crate) left: u64,
    pub(crate) right: u64,
    pub(crate) distance: f64,
}

/// The rows that any query chose.
pub(crate) struct Fetched {
    pub(crate) rows: RecordBatch,
    /// The first place of each file, and its rows in their order.
    files: Vec<(u64, Vec<u64>)>,
    _memory: MemoryReservation,
}

impl Fetched {
    pub(crate) async fn new(run: &Arc<Run>, chosen: &[Chosen]) -> Result<Self> {
        let memory = run.memory.new_empty();
        let mut batches = vec![];
        let mut files = vec![];
        let mut first = 0;
        for file in 0..run.spec.files.len() {
            let mut rows: Vec<u64> = chosen
                .iter()
                .flat_map(|of_query| &of_query[file])
                .copied()
                .collect();
            rows.sort_unstable();
            rows.dedup();
            if !rows.is_empty() {
                let fetched = fetch_file(Arc::clone(run), file, rows.clone(), None).await?;
                memory.try_grow(fetched.memory.size())?;
                batches.extend(fetched.batches);
            }
            let count = rows.len() as u64;
            files.push((first, rows));
            first += count;
        }
        Ok(Self {
            rows: concat_batches(&run.spec.schema, &batches)?,
            files,
            _memory: memory,
        })
    }

    /// Where the rows chosen for a query are.
    pub(crate) fn places<'a>(&'a self, chosen: &'a Chosen) -> impl Iterator<Item = Result<u64>> + 'a {
        chosen
            .iter()
            .zip(&self.files)
            .flat_map(|(rows, (first, fetched))| {
                rows.iter().map(move |row| {
                    let place = fetched.binary_search(row);
                    let place = place.map_err(|_| internal_datafusion_err!("row {row} was not fetched"))?;
                    Ok(first + place as u64)
                })
            })
    }

    /// Every left row with all that was chosen for it.
    pub(crate) fn all_pairs(&self, lefts: &[u64], chosen: &[Chosen]) -> Result<Vec<Pair>> {
        let mut pairs = vec![];
        for (&left, chosen) in lefts.iter().zip(chosen) {
            for right in self.places(chosen) {
                pairs.push(Pair {
                    left,
                    right: right?,
                    distance: f64::NAN,
                });
            }
        }
        Ok(pairs)
    }
}

/// The columns of the answer.
pub(crate) fn assemble(
    output: &[JoinColumn],
    schema: &SchemaRef,
    left: &RecordBatch,
    fetched: &Fetched,
    pairs: &[Pair],
) -> Result<RecordBatch> {
    let left_rows = UInt64Array::from_iter_values(pairs.iter().map(|pair| pair.left));
    let right_rows = UInt64Array::from_iter_values(pairs.iter().map(|pair| pair.right));
    let column = |column: &JoinColumn| -> Result<ArrayRef> {
        Ok(match *column {
            JoinColumn::Left(at) => take(left.column(at), &left_rows, None)?,
            JoinColumn::Right(at) => take(fetched.rows.column(at), &right_rows, None)?,
            JoinColumn::Distance => Arc::new(Float64Array::from_iter_values(
                pairs.iter().map(|pair| pair.distance),
            )),
        })
    };
    let columns = output.iter().map(column).collect::<Result<Vec<_>>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(pairs.len()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &rows,
    )?)
}
