//! What a search is asked, and what it answers.

use std::sync::atomic::AtomicBool;

use crate::hnsw::config::DEFAULT_EF_SEARCH;
use crate::hnsw::row_set::RowSet;
use crate::id::RowId;

/// A row and its distance to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row.
    pub row: RowId,
    /// Its distance, computed in f32; see [`distance_error`](crate::hnsw::distance_error). Smaller is nearer.
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
    /// exactly: those within twice [`distance_error`](crate::hnsw::distance_error) of it. For callers that re-rank in f64.
    pub tie_margin: bool,
    /// How to search.
    pub strategy: SearchStrategy,
    /// Set by the caller, perhaps in another thread, to end the search with [`SearchError::Interrupted`](crate::hnsw::SearchError::Interrupted).
    pub stop: Option<&'a AtomicBool>,
}

impl<'a> SearchOptions<'a> {
    /// The `k` nearest of all rows, with the default `ef`.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            ef: DEFAULT_EF_SEARCH,
            allowed: None,
            tie_margin: false,
            strategy: SearchStrategy::Auto,
            stop: None,
        }
    }

    /// Keeps `ef` candidates: more is slower and finds more of the true neighbors.
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

    /// Searches with this strategy, whatever the cost model says.
    #[must_use]
    pub fn strategy(self, strategy: SearchStrategy) -> Self {
        Self { strategy, ..self }
    }

    /// Ends the search with [`SearchError::Interrupted`](crate::hnsw::SearchError::Interrupted) soon after
    /// the flag is set: a few thousand distances later at most.
    #[must_use]
    pub fn stop(self, stop: &'a AtomicBool) -> Self {
        Self {
            stop: Some(stop),
            ..self
        }
    }

    /// Also returns the rows that rounding may have put behind the k-th.
    #[must_use]
    pub fn tie_margin(self) -> Self {
        Self {
            tie_margin: true,
            ..self
        }
    }
}

/// The work that a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Nodes whose neighbors were looked at.
    pub nodes_visited: u64,
    /// Distances computed between codes (or vectors, if there are no codes) during the beam search.
    pub distances: u64,
    /// Distances computed between full vectors, to rerank.
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

/// How a search finds its candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SearchStrategy {
    /// The strategy that the cost model finds cheapest.
    #[default]
    Auto,
    /// Compares the vector of every row, or of every allowed one; exact.
    Exact,
    /// Compares the codes of all allowed rows. Without codes, the same as [`Graph`](Self::Graph).
    Codes,
    /// Probes the clusters nearest to the query and compares their allowed rows. Without clusters, the same
    /// as [`Graph`](Self::Graph).
    Clusters,
    /// Searches the graph. Like the others it is exact if `ef` is at least the number of nodes.
    Graph,
}
