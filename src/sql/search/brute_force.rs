//! The nearest of rows that are compared one by one.

use std::sync::Arc;

use datafusion::common::Result;
use futures::TryStreamExt;

use super::files::SearchFile;
use super::scan::Run;
use super::through_index::{Candidate, Candidates, OtherDimension, PreparedQuery};
use crate::hnsw::VectorMetric;
use crate::hnsw::exact::{LANES, Neighbour, TopK, distance_f64, distances_f64};
use crate::id::RowId;
use crate::rows::kept_vectors::VectorKeeper;
use crate::rows::pause::Pause;
use crate::rows::scan::{matching, row_numbers};
use crate::rows::vectors::{Vector, Vectors};
use crate::sql::recognize::order_by::KnnRequest;
use crate::sql::recognize::sort_key::Distance;

/// Rows that are compared together.
const BLOCK: usize = 8 * LANES;

/// Compares every vector of a file that passes the filter.
pub(crate) async fn scan_vectors(
    run: &Run,
    file: &SearchFile,
    query: &PreparedQuery,
) -> Result<Result<Candidates, OtherDimension>> {
    let fetches_vectors = run.spec.projection.contains(&run.spec.request.column);
    let keeper = fetches_vectors.then(|| VectorKeeper::new(run.memory.new_empty()));
    let found = scan(run, file, &[query], keeper).await?;
    Ok(found.map(|mut found| found.pop().unwrap_or_default()))
}

/// Compares every vector of a file that passes the filter with each of the queries, reading the file once.
pub(crate) async fn scan_vectors_for(
    run: &Run,
    file: &SearchFile,
    queries: &[&PreparedQuery],
) -> Result<Result<Vec<Candidates>, OtherDimension>> {
    scan(run, file, queries, None).await
}

/// The keeper is for the rows of the first query.
async fn scan<'q>(
    run: &Run,
    file: &SearchFile,
    queries: &[&'q PreparedQuery],
    mut keeper: Option<VectorKeeper>,
) -> Result<Result<Vec<Candidates>, OtherDimension>> {
    let spec = &run.spec;
    let mut columns = run
        .filter
        .as_ref()
        .map_or_else(Vec::new, |filter| filter.columns.clone());
    let vector_at = columns
        .iter()
        .position(|&c| c == spec.request.column)
        .unwrap_or_else(|| {
            columns.push(spec.request.column);
            columns.len() - 1
        });
    let mut read = run.read(file);
    read.columns = &columns;
    read.prune_by = run.filter.as_ref().map(|filter| Arc::clone(&filter.over_table));
    let mut batches = spec.table.read(read, &run.context)?;
    let gather = |query: &&'q PreparedQuery| Gather::new(&spec.request, spec.nulls_wanted(), query);
    let mut gathers: Vec<_> = queries.iter().map(gather).collect();
    let memory = run.memory.new_empty();
    let mut pause = Pause::new();
    while let Some(batch) = batches.try_next().await? {
        memory
            .try_resize(batch.get_array_memory_size() + gathers.iter().map(Gather::memory).sum::<usize>())?;
        let mask = match &run.filter {
            Some(filter) => Some(matching(&batch, filter.over_columns())?),
            None => None,
        };
        let vectors = Vectors::of(batch.column(vector_at))?;
        let numbers = row_numbers(&batch)?;
        for first in (0..batch.num_rows()).step_by(BLOCK) {
            pause.if_due().await;
            let _timer = run.metrics.search_time.timer();
            for index in first..batch.num_rows().min(first + BLOCK) {
                if mask.as_ref().is_none_or(|mask| mask.value(index)) {
                    let row = numbers.value(index).cast_unsigned();
                    let vector = vectors.get(index);
                    if gathers
                        .iter_mut()
                        .any(|gather| gather.offer(row, vector).is_err())
                    {
                        return Ok(Err(OtherDimension));
                    }
                }
            }
            let counted: usize = gathers.iter_mut().map(Gather::take_count).sum();
            run.metrics.distances.add(counted);
        }
        if let (Some(keeper), Some(gather)) = (&mut keeper, gathers.first_mut()) {
            gather.flush();
            keeper.keep(numbers, batch.column(vector_at), gather.rows())?;
        }
    }
    let mut found = vec![];
    for mut gather in gathers {
        gather.flush();
        run.metrics.distances.add(gather.take_count());
        let vectors = match keeper.take() {
            Some(keeper) => keeper.finish(gather.rows())?,
            None => None,
        };
        let mut candidates = gather.finish();
        candidates.vectors = vectors;
        found.push(candidates.held(run)?);
    }
    Ok(Ok(found))
}

/// The k nearest of the vectors offered so far.
struct Gather<'a> {
    metric: VectorMetric,
    query: &'a PreparedQuery,
    nulls_wanted: usize,
    nearest: TopK,
    found: Candidates,
    block: Vec<f32>,
    block_rows: Vec<u64>,
    distances: Vec<Option<f64>>,
    counted: usize,
}

impl<'a> Gather<'a> {
    fn new(request: &KnnRequest, nulls_wanted: usize, query: &'a PreparedQuery) -> Self {
        Self {
            metric: request.distance.metric(),
            query,
            nulls_wanted,
            nearest: if request.ties {
                TopK::with_ties(request.k)
            } else {
                TopK::new(request.k)
            },
            found: Candidates::default(),
            block: Vec::with_capacity(BLOCK * query.exact.len()),
            block_rows: Vec::with_capacity(BLOCK),
            distances: vec![None; BLOCK],
            counted: 0,
        }
    }

    fn offer(&mut self, row: u64, vector: Vector<'_>) -> Result<(), OtherDimension> {
        match vector.dim() {
            None => self.null(row),
            Some(dim) if dim != self.query.exact.len() => return Err(OtherDimension),
            Some(_) => match vector {
                Vector::Null => self.null(row),
                Vector::Single(vector) => {
                    self.block.extend_from_slice(vector);
                    self.block_rows.push(row);
                    if self.block_rows.len() == BLOCK {
                        self.flush();
                    }
                }
                Vector::Double(vector) => {
                    let distance = distance_f64(self.metric, &self.query.exact, vector);
                    self.put(row, distance);
                }
            },
        }
        Ok(())
    }

    fn flush(&mut self) {
        let rows = std::mem::take(&mut self.block_rows);
        let mut distances = std::mem::take(&mut self.distances);
        let out = &mut distances[..rows.len()];
        let dim = self.query.exact.len();
        let vectors: Vec<&[f32]> = (0..rows.len()).map(|at| &self.block[at * dim..][..dim]).collect();
        distances_f64(self.metric, &self.query.exact, &vectors, out);
        for (&row, &distance) in rows.iter().zip(out.iter()) {
            self.put(row, distance);
        }
        self.block.clear();
        self.block_rows = rows;
        self.block_rows.clear();
        self.distances = distances;
    }

    fn put(&mut self, row: u64, distance: Option<f64>) {
        self.counted += 1;
        match distance {
            None => self.null(row),
            Some(distance) if distance.is_finite() => self.nearest.push(RowId::new(row), distance),
            Some(_) => self.found.always.push(row),
        }
    }

    fn null(&mut self, row: u64) {
        if self.found.nulls.len() < self.nulls_wanted {
            self.found.nulls.push(row);
        }
    }

    /// The rows that it would offer by now.
    fn rows(&self) -> impl Iterator<Item = u64> + Clone {
        let listed = self.found.always.iter().chain(&self.found.nulls).copied();
        self.nearest.iter().map(|near| near.row.get()).chain(listed)
    }

    /// Bytes that it holds, roughly.
    fn memory(&self) -> usize {
        (self.found.nulls.len() + self.found.always.len()) * size_of::<u64>()
            + self.nearest.len() * size_of::<Neighbour>()
            + self.block.capacity() * size_of::<f32>()
    }

    fn take_count(&mut self) -> usize {
        std::mem::take(&mut self.counted)
    }

    fn finish(mut self) -> Candidates {
        self.found.near = self
            .nearest
            .iter()
            .map(|n| Candidate::exactly(n.row.get(), n.distance))
            .collect();
        self.found
    }
}

/// The distance of a vector, smaller is nearer; `None` where it is NULL.
pub(crate) fn distance_of(distance: Distance, query: &[f64], vector: Vector<'_>) -> Option<f64> {
    match vector {
        Vector::Null => None,
        Vector::Single(vector) => distance_f64(distance.metric(), query, vector),
        Vector::Double(vector) => distance_f64(distance.metric(), query, vector),
    }
}
