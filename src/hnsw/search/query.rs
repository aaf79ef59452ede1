//! What a search is asked, and the steps of answering it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cost_model::is_exact_cheaper;
use super::filtered::{self, SearchWay};
use super::rerank::Decide;
use crate::hnsw::config::DEFAULT_EF_SEARCH;
use crate::hnsw::graph::distance_computer::{Walk, with_space};
use crate::hnsw::graph::entry_points::enter_nearest_cells;
use crate::hnsw::graph::links::{Damaged, Parts};
use crate::hnsw::graph::search_layer::{EveryNode, Scratch, descend, go_on, search_layer};
use crate::hnsw::kernels;
use crate::hnsw::metric::VectorMetric;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::row_set::RowSet;
use crate::id::RowId;

/// A row and its distance to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row.
    pub row: RowId,
    /// Its distance, computed in f32; see [`distance_error`]. Smaller is nearer.
    pub distance: f32,
}

/// How to search. Start from [`SearchOptions::new`] and add to it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SearchOptions<'a> {
    /// Rows wanted.
    pub k: usize,
    /// Candidates kept during the search; raised to `k` if less.
    pub ef: usize,
    /// Only these rows may be returned.
    pub allowed: Option<&'a RowSet>,
    /// Also return rows beyond the k-th that could be nearer than it once distances are computed
    /// exactly: those within twice [`distance_error`] of it. For callers that decide in f64.
    pub slack: bool,
    /// How to search.
    pub way: SearchWay,
    /// Set by the caller, perhaps in another thread, to end the search with [`SearchError::Interrupted`].
    pub stop: Option<&'a AtomicBool>,
}

impl<'a> SearchOptions<'a> {
    /// The `k` nearest of all rows, with the default `ef`.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            ef: DEFAULT_EF_SEARCH,
            allowed: None,
            slack: false,
            way: SearchWay::Auto,
            stop: None,
        }
    }

    /// Keeps `ef` candidates: more is slower and finds more of the true neighbours.
    #[must_use]
    pub fn ef(self, ef: usize) -> Self {
        Self { ef, ..self }
    }

    /// Returns only rows of this set.
    #[must_use]
    pub fn allowed(self, allowed: &'a RowSet) -> Self {
        Self {
            allowed: Some(allowed),
            ..self
        }
    }

    /// Searches in this way, whatever the model of costs says.
    #[must_use]
    pub fn way(self, way: SearchWay) -> Self {
        Self { way, ..self }
    }

    /// Ends the search with [`SearchError::Interrupted`] soon after this is set: a few thousand distances
    /// are computed in between at most.
    #[must_use]
    pub fn stop(self, stop: &'a AtomicBool) -> Self {
        Self {
            stop: Some(stop),
            ..self
        }
    }

    /// Also returns the rows that rounding may have put behind the k-th.
    #[must_use]
    pub fn slack(self) -> Self {
        Self { slack: true, ..self }
    }
}

/// The work that a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Nodes whose neighbours were looked at.
    pub nodes_visited: u64,
    /// Distances computed between codes (or vectors, if there are no codes) during the walk.
    pub distances: u64,
    /// Distances computed between full vectors, to decide.
    pub reranked: u64,
    /// Whether every row that qualifies was looked at, so that nothing was missed.
    pub exact: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchOutcome {
    /// Nearest first, ties by row.
    pub hits: Vec<Hit>,
    /// The work it took.
    pub stats: SearchStats,
}

/// Why a search has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The query has another length than the index.
    #[error("the query has {found} numbers but the index holds vectors of {expected}")]
    Dimension {
        /// The index's dimension.
        expected: usize,
        /// The query's length.
        found: usize,
    },
    /// NaN, infinite, or so long that squares overflow an f32.
    #[error("the query holds a number that is not finite or too large for 32-bit arithmetic")]
    OutOfRange,
    /// The cosine distance from a zero vector (or one too short for 32-bit arithmetic) is undefined.
    #[error("the query is a zero vector, whose cosine distance is undefined")]
    ZeroQuery,
    /// The caller asked to stop, through [`SearchOptions::stop`].
    #[error("the search was interrupted")]
    Interrupted,
    /// The bytes of the index contradict themselves.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// The caller's wish to end a search, if there is a way to say it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop<'a>(pub(crate) Option<&'a AtomicBool>);

impl Stop<'_> {
    /// An error if the search is to end.
    #[inline(always)]
    pub(crate) fn check(self) -> Result<(), SearchError> {
        match self.0 {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(SearchError::Interrupted),
            _ => Ok(()),
        }
    }
}

/// The longest vector, and the shortest under cosine, that f32 sums of squares can hold with room to
/// spare. Vectors beyond are listed, not linked.
pub(crate) const LENGTHS: std::ops::RangeInclusive<f64> = 1e-15..=1e15;

/// By how much a [`Hit`]'s distance may differ from the real number it stands for, at most.
///
/// `query_length` is the query's Euclidean length and `distance` the hit's. Rounding the query to f32 is
/// included; rounding the index's vectors to f32 (or f16) is not. For the inner product give the
/// greatest length of a vector as `vector_length`; the others do not need it.
pub fn distance_error(
    metric: VectorMetric,
    dim: usize,
    query_length: f64,
    vector_length: f64,
    distance: f32,
) -> f64 {
    // One rounding for the product, one for each addition to a lane, five for the fold; a few more
    // for what follows. Each is half a unit in the last place.
    let unit = f64::from(f32::EPSILON) / 2.0;
    let roundings = (dim.div_ceil(kernels::LANES) + 12) as f64;
    let sum = roundings * unit * 1.01;
    let tiny = 1e-18 * (dim as f64).sqrt();
    match metric {
        VectorMetric::Cosine => 3.0 * sum + 4.0 * unit,
        VectorMetric::Euclidean => {
            let distance = f64::from(distance);
            (sum + 4.0 * unit) * distance + unit * query_length * 1.01 + tiny
        }
        VectorMetric::DotProduct | VectorMetric::NormalizedCosine => {
            (sum + 4.0 * unit) * query_length * vector_length + 4.0 * unit + tiny
        }
    }
}

/// A query that passed the door: right length, finite, of a length that f32 can square.
#[derive(Debug)]
pub(crate) struct Query<'q> {
    pub(crate) vector: &'q [f32],
    pub(crate) length: f32,
}

impl<'q> Query<'q> {
    pub(crate) fn check(vector: &'q [f32], metric: VectorMetric, dim: usize) -> Result<Self, SearchError> {
        if vector.len() != dim {
            return Err(SearchError::Dimension {
                expected: dim,
                found: vector.len(),
            });
        }
        let length = vector_length(vector);
        if !length.is_finite() || length > *LENGTHS.end() {
            return Err(SearchError::OutOfRange);
        }
        if metric.ignores_length() && length < *LENGTHS.start() {
            return Err(SearchError::ZeroQuery);
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounded, within the range of f32")]
        let length = length as f32;
        Ok(Self { vector, length })
    }
}

/// The Euclidean length, summed in f64 in a fixed order: the same on every machine.
pub(crate) fn vector_length(vector: &[f32]) -> f64 {
    let sums: [f64; 8] = kernels::in_lanes(vector, |sum, x| *sum += f64::from(x) * f64::from(x));
    sums.iter().sum::<f64>().sqrt()
}

/// What a search reuses from the one before on this thread.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) scratch: Scratch,
    pub(crate) code: Vec<u8>,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// Runs `search` with this thread's notes.
pub(crate) fn with_notes<T>(search: impl FnOnce(&mut Notes) -> T) -> T {
    NOTES.with(|notes| match notes.try_borrow_mut() {
        Ok(mut notes) => search(&mut notes),
        Err(_) => search(&mut Notes::default()),
    })
}

/// Finds the rows nearest to `vector`.
pub(crate) fn search(
    parts: &Parts<'_>,
    vector: &[f32],
    options: &SearchOptions<'_>,
) -> Result<SearchOutcome, SearchError> {
    let query = Query::check(vector, parts.metric, parts.dim)?;
    let rows = usize::try_from(parts.row_count()).unwrap_or(usize::MAX);
    let options = &SearchOptions {
        k: options.k.min(rows),
        ..*options
    };
    if options.k == 0 || parts.node_count() == 0 {
        return Ok(SearchOutcome {
            hits: Vec::new(),
            stats: SearchStats {
                exact: true,
                ..Default::default()
            },
        });
    }
    with_notes(|notes| {
        notes.scratch.nodes_visited = 0;
        notes.scratch.distances = 0;
        match options.allowed {
            Some(allowed) => filtered::search(parts, &query, options, allowed, notes),
            None => unfiltered(parts, &query, options, notes),
        }
    })
}

fn unfiltered(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    notes: &mut Notes,
) -> Result<SearchOutcome, SearchError> {
    let ef = options.ef.max(options.k);
    let exact = match options.way {
        SearchWay::Exact => true,
        SearchWay::Auto => is_exact_cheaper(parts, options.k, ef),
        SearchWay::Codes | SearchWay::Cells | SearchWay::Graph => false,
    };
    if exact || ef >= parts.node_count() as usize {
        let mut decide = Decide::new(parts, query, options);
        for node in 0..parts.node_count() {
            if node.is_multiple_of(1024) {
                Stop(options.stop).check()?;
            }
            decide.node(node, None)?;
        }
        return Ok(decide.finish(&notes.scratch, true));
    }
    let rounding = walk(parts, query, ef, Stop(options.stop), notes)?;
    let mut decide = Decide::new(parts, query, options);
    decide.candidates(notes.scratch.pool.candidates(), rounding, None)?;
    Ok(decide.finish(&notes.scratch, false))
}

/// Algorithm 5: down the layers, then a search of layer 0 with `ef` candidates, left in the pool. Gives how wrong their
/// keys are.
pub(crate) fn walk(
    parts: &Parts<'_>,
    query: &Query<'_>,
    ef: usize,
    stop: Stop<'_>,
    notes: &mut Notes,
) -> Result<Rounding, SearchError> {
    let scratch = &mut notes.scratch;
    with_space(parts, query, &mut notes.code, |space| match space {
        Walk::Codes(space, rounding) => {
            if let Some(cells) = parts.cells
                && enter_nearest_cells(&cells, space, parts.node_count(), ef, scratch)
            {
                go_on(parts.links, space, 0, &EveryNode, stop, scratch)?;
            } else {
                descend(parts.links, space, 0, ef, stop, scratch)?;
                search_layer(parts.links, space, 0, stop, scratch)?;
            }
            Ok(rounding)
        }
        Walk::Floats(space, _) => {
            descend(parts.links, space, 0, ef, stop, scratch)?;
            search_layer(parts.links, space, 0, stop, scratch)?;
            Ok(Rounding::default())
        }
    })
}
