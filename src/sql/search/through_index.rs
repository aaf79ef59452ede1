//! The rows of one file that may be in the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use tracing::warn;

use super::brute_force::scan_vectors;
use super::cancel::{self, SHORT};
use super::files::{SearchFile, Strategy};
use super::scan::Run;
use super::top_k_bound::Bound;
use crate::hnsw::exact::{LANES, distances_f64};
use crate::hnsw::{Damaged, Hit, RowSet, SearchError, SearchOptions, VectorMetric, distance_error};
use crate::id::RowId;
use crate::rows::kept_vectors::KeptVectors;
use crate::sidecar::Sidecar;
use crate::sql::recognize::sort_key::Distance;

/// A row with its distance, of which only bounds may be known. Smaller is nearer; for the inner product, its negative.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The row in its file.
    pub row: u64,
    /// It is at least this far.
    pub at_least: f64,
    /// It is at most this far.
    pub at_most: f64,
}

impl Candidate {
    pub(crate) fn exactly(row: u64, distance: f64) -> Self {
        Self {
            row,
            at_least: distance,
            at_most: distance,
        }
    }
}

/// What one file offers.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// Rows with a distance: the `k` nearest and perhaps more.
    pub near: Vec<Candidate>,
    /// Rows with components that are not finite, or so large or small that the index does not link them: offered always.
    pub always: Vec<u64>,
    /// Rows whose distance is NULL: as many as could be needed.
    pub nulls: Vec<u64>,
    /// The vectors of these rows, if a scan kept them.
    pub vectors: Option<KeptVectors>,
    /// What these lists take.
    memory: Option<MemoryReservation>,
}

impl Candidates {
    /// How many rows it offers.
    pub(crate) fn len(&self) -> usize {
        self.near.len() + self.always.len() + self.nulls.len()
    }

    /// Registers the memory of these lists.
    pub(crate) fn held(mut self, run: &Run) -> Result<Self> {
        let bytes = size_of_val(&*self.near) + size_of_val(&*self.always) + size_of_val(&*self.nulls);
        let memory = run.memory.new_empty();
        memory.try_grow(bytes)?;
        self.memory = Some(memory);
        Ok(self)
    }
}

/// A vector in the file has another length than the query: DataFusion's own plan says what is wrong.
#[derive(Debug)]
pub(crate) struct OtherDimension;

/// The query as the kernels want it.
#[derive(Clone, Debug)]
pub(crate) struct PreparedQuery {
    /// As DataFusion's functions see it.
    pub exact: Arc<[f64]>,
    /// Rounded, for the index.
    pub rounded: Arc<[f32]>,
    /// Its Euclidean length.
    pub length: f64,
}

impl PreparedQuery {
    /// Prepares a query. `None` for one that the index cannot be asked: not finite, so long or short that `f32`
    /// arithmetic fails, or zero where the distance from zero is NULL.
    pub(crate) fn new(exact: Arc<[f64]>, distance: Distance) -> Option<Self> {
        let length = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
        let in_range = (1e-15..=1e15).contains(&length);
        let zero_is_fine = distance != Distance::Cosine && length == 0.0;
        if !(in_range || zero_is_fine) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
        let rounded = exact.iter().map(|&x| x as f32).collect();
        Some(Self {
            exact,
            rounded,
            length,
        })
    }
}

/// The k-th best distance so far, and how near a row of the file at hand can be at best.
pub(crate) type Known<'a> = Option<(&'a Arc<Bound>, f64)>;

/// Whether no indexed row of the file can be in the answer.
fn is_too_far(known: Known<'_>) -> bool {
    known.is_some_and(|(bound, at_least)| at_least > bound.distance())
}

/// Whether a file offers nothing, and need not even be searched.
pub(crate) fn can_skip(file: &SearchFile, known: Known<'_>) -> bool {
    file.index()
        .is_some_and(|sidecar| is_too_far(known) && special_rows(sidecar) == 0)
}

/// Finds the candidates of one file.
pub(crate) async fn candidates(
    run: &Arc<Run>,
    file: &SearchFile,
    query: &PreparedQuery,
    known: Known<'_>,
) -> Result<Result<Candidates, OtherDimension>> {
    let found = match usable_index(run, file) {
        None => scan_vectors(run, file, query).await?,
        Some(sidecar) => {
            if !takes_queries_of(sidecar, query.exact.len()) {
                return Ok(Err(OtherDimension));
            }
            let allowed = match &run.filter {
                None => None,
                Some(filter) => {
                    let _timer = run.metrics.filter_time.timer();
                    let cache = run.bitmaps(filter);
                    let (rows, known) = filter
                        .rows(cache, &run.spec.table, run.read(file), &run.context)
                        .await?;
                    run.metrics.filter_cache_hits.add(usize::from(known));
                    if !known && run.spec.reads_vectors(filter) {
                        let rows = usize::try_from(file.footer.rows).unwrap_or(usize::MAX);
                        run.metrics.filter_vectors.add(rows);
                    }
                    Some(rows)
                }
            };
            let memory = run.memory.new_empty();
            let rows = allowed.as_ref().map_or(0, |rows| rows.count());
            memory.try_grow(search_memory(run, sidecar, rows))?;
            match cancel::search(run, sidecar, query, allowed, known, memory).await? {
                Ok(found) => Ok(found.held(run)?),
                Err(error) => {
                    // Damage inside the graph shows only when a search meets it: the file is answered exactly.
                    search_failed(run, file, sidecar, &error);
                    scan_vectors(run, file, query).await?
                }
            }
        }
    };
    if let (Ok(found), Some((bound, _))) = (&found, known) {
        bound.note(&found.near);
    }
    Ok(found)
}

/// The index of a file, if it can be searched now; else the file is answered exactly.
pub(crate) fn usable_index<'f>(run: &Run, file: &'f SearchFile) -> Option<&'f Arc<Sidecar>> {
    let Strategy::Index(sidecar) = &file.strategy else {
        return None;
    };
    match sidecar.usable() {
        Ok(()) => Some(sidecar),
        Err(reason) => {
            warn!(file = %file.source.meta.location, code = %reason.code(), "answering the file without its index: {reason}");
            run.metrics.fallbacks.add(1);
            None
        }
    }
}

/// Tells of a search that gave an error; one that contradictions in the index led to is remembered of it.
pub(crate) fn search_failed(run: &Run, file: &SearchFile, sidecar: &Sidecar, error: &SearchError) {
    if let SearchError::Damaged(damaged) = error {
        sidecar.note_damage(damaged.section, "a search came upon contradictions");
    }
    warn!(file = %file.source.meta.location, %error, "index search failed; answering exactly");
    run.metrics.fallbacks.add(1);
}

/// Bytes that a search of this index takes while it runs: two bits for each node, to know which were met and to forget
/// it; the candidates, in the list and on their way to hits; the hits; and a number for each of the rows that a filter
/// allows.
pub(crate) fn search_memory(run: &Run, sidecar: &Sidecar, allowed: u64) -> usize {
    let nodes = sidecar.node_count();
    let candidates = run.spec.ef().min(nodes);
    // A search holds up to four times the hits it wants, and a few thousand, before it cuts them down.
    let hits = candidates.saturating_mul(4).saturating_add(4096).min(nodes);
    let listed = usize::try_from(allowed).unwrap_or(usize::MAX).min(nodes);
    nodes / 4 + 2 * candidates * size_of::<u64>() + hits * size_of::<Hit>() + listed * size_of::<u32>()
}

/// How many rows it lists that a search of its graph cannot find.
pub(crate) fn special_rows(sidecar: &Sidecar) -> usize {
    sidecar.null_rows().len() + sidecar.zero_rows().len() + sidecar.unindexable_rows().len()
}

/// Whether its vectors can be compared with one of this length. Where it has none, all rows are NULL, and so is their
/// distance to a vector of any length.
pub(crate) fn takes_queries_of(sidecar: &Sidecar, length: usize) -> bool {
    let has_vectors =
        sidecar.node_count() > 0 || sidecar.zero_rows().len() + sidecar.unindexable_rows().len() > 0;
    sidecar.dim() == length || !has_vectors
}

/// Finds the candidates of one file through its index; ends early with an error once `stop` is true. Without a `stop`
/// it ends with the same error where it would have to look at every node of a large index.
pub(crate) fn search_index(
    run: &Run,
    sidecar: &Sidecar,
    query: &PreparedQuery,
    allowed: Option<&RowSet>,
    known: Known<'_>,
    stop: Option<&AtomicBool>,
) -> Result<Candidates, SearchError> {
    let request = &run.spec.request;
    let _timer = run.metrics.search_time.timer();
    let goes_on = || stop.is_none_or(|stop| !stop.load(Ordering::Relaxed));
    // Once it is to stop, all lists of rows end soon.
    let is_allowed = |row: &RowId| allowed.is_none_or(|set| set.contains(*row));
    // Under cosine a zero vector has a NULL distance, if it is zero in the file and not only rounded to it.
    let holds_bits = run.spec.holds_bits(sidecar);
    let listed = |rows: &mut dyn Iterator<Item = RowId>, most: usize| -> Vec<u64> {
        let rows = rows.take_while(|_| goes_on()).filter(is_allowed);
        rows.map(RowId::get).take(most).collect()
    };
    let mut found = Candidates {
        always: listed(&mut sidecar.unindexable_rows(), usize::MAX),
        nulls: listed(&mut sidecar.null_rows(), run.spec.nulls_wanted()),
        ..Candidates::default()
    };
    if holds_bits {
        found
            .nulls
            .append(&mut listed(&mut sidecar.zero_rows(), run.spec.nulls_wanted()));
    } else {
        found
            .always
            .append(&mut listed(&mut sidecar.zero_rows(), usize::MAX));
    }
    if is_too_far(known) {
        run.metrics.files_skipped.add(1);
        return Ok(found);
    }

    if sidecar.node_count() == 0 {
        return Ok(found);
    }
    let ef = run.spec.ef();
    let mut options = SearchOptions::new(ef).ef(ef).tie_margin();
    options.stop = stop;
    if let Some(set) = allowed {
        options = options.allowed(set);
    }
    let mut outcome = sidecar.search(&query.rounded, &options)?;
    if outcome.hits.len() < request.k {
        let count =
            |rows: &mut dyn Iterator<Item = RowId>| rows.take_while(|_| goes_on()).filter(is_allowed).count();
        let special = count(&mut sidecar.unindexable_rows())
            + count(&mut sidecar.null_rows())
            + count(&mut sidecar.zero_rows());
        let rows = allowed.map_or(sidecar.rows(), RowSet::count);
        let linked = rows.saturating_sub(special as u64);
        if (outcome.hits.len() as u64) < linked {
            // A walk may end early on a graph in pieces; looking at every node does not.
            run.metrics.count(&outcome.stats);
            if stop.is_none() && sidecar.node_count() > SHORT {
                return Err(SearchError::Interrupted);
            }
            outcome = sidecar.search(&query.rounded, &options.ef(usize::MAX))?;
            if (outcome.hits.len() as u64) < linked.min(request.k as u64) {
                // Every node was looked at, so some stand for fewer rows than they did.
                return Err(Damaged { section: "nodes" }.into());
            }
        }
    }
    run.metrics.count(&outcome.stats);
    let error = |hit: &Hit| {
        let (length, longest) = (query.length, f64::from(sidecar.max_norm()));
        distance_error(sidecar.metric(), sidecar.dim(), length, longest, hit.distance)
    };
    // Farther than the k-th best of this file or of the others, even if rounding made it look so.
    let mut limit = known.map_or(f64::INFINITY, |(bound, _)| bound.distance());
    if let Some(kth) = outcome.hits.get(request.k.saturating_sub(1)) {
        limit = limit.min(f64::from(kth.distance) + error(kth));
    }
    let too_far = |hit: &&Hit| holds_bits && f64::from(hit.distance) - error(hit) > limit;
    let near = outcome.hits.iter().filter(|hit| !too_far(hit));
    let near = near.take_while(|_| goes_on()).map(|hit| hit.row);
    found.near = measure(run, sidecar, query, holds_bits, near)?;
    let mut rows: Vec<u64> = found.near.iter().map(|near| near.row).collect();
    rows.sort_unstable();
    if rows.is_sorted_by(|a, b| a < b) {
        Ok(found)
    } else {
        // Each row belongs to one node. Twice in the answer, it would take the place of another.
        Err(Damaged { section: "nodes" }.into())
    }
}

/// Exact distances of rows of an index, or bounds where it does not hold their very bits.
fn measure(
    run: &Run,
    sidecar: &Sidecar,
    query: &PreparedQuery,
    holds_bits: bool,
    mut rows: impl Iterator<Item = RowId>,
) -> Result<Vec<Candidate>, SearchError> {
    let metric = run.spec.request.distance.metric();
    let mut measured = vec![];
    loop {
        let together: Vec<RowId> = rows.by_ref().take(LANES).collect();
        // Halves are not the vectors, and bound nothing.
        let stored = |&row: &RowId| sidecar.has_vectors().then(|| sidecar.vector(row)).flatten();
        let stored: Vec<_> = together.iter().map(stored).collect();
        let vectors: Vec<&[f32]> = stored.iter().flatten().map(|vector| &**vector).collect();
        let mut distances = vec![None; vectors.len()];
        distances_f64(metric, &query.exact, &vectors, &mut distances);
        if distances.iter().flatten().any(|distance| !distance.is_finite()) {
            // Vectors that are linked are finite and not so long that their squares are not.
            return Err(Damaged { section: "vectors" }.into());
        }
        let mut distances = vectors.iter().zip(distances);
        measured.extend(together.iter().zip(&stored).map(|(row, stored)| {
            let row = row.get();
            match stored.as_ref().and_then(|_| distances.next()) {
                Some((_, Some(distance))) if holds_bits => Candidate::exactly(row, distance),
                Some((vector, Some(distance))) => bounds(row, metric, query, vector, distance),
                // Not stored in full, or of no distance.
                Some((_, None)) | None => Candidate {
                    row,
                    at_least: f64::NEG_INFINITY,
                    at_most: f64::INFINITY,
                },
            }
        }));
        if together.len() < LANES {
            return Ok(measured);
        }
    }
}

/// How far the distance from a `Float64` vector can be from that of its rounding to `f32`, which moves each
/// component by at most half a unit in the last place.
fn bounds(row: u64, metric: VectorMetric, query: &PreparedQuery, vector: &[f32], distance: f64) -> Candidate {
    let square = |sum: f64, x: f64| sum + x * x;
    let length = vector.iter().map(|&x| f64::from(x)).fold(0.0, square).sqrt();
    let moved = f64::from(f32::EPSILON) * length + 1e-30;
    let error = match metric {
        VectorMetric::Euclidean => moved,
        VectorMetric::DotProduct => moved * query.exact.iter().copied().fold(0.0, square).sqrt(),
        VectorMetric::Cosine | VectorMetric::NormalizedCosine => 2.0 * moved / length.max(f64::MIN_POSITIVE),
    };
    Candidate {
        row,
        at_least: distance - error,
        at_most: distance + error,
    }
}
