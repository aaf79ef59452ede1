//! What EXPLAIN ANALYZE shows of a search.

use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, Time};

use crate::hnsw::SearchStats;

/// Counters and times of one scan.
#[derive(Clone, Debug)]
pub(crate) struct SearchMetrics {
    /// Nodes whose neighbors were looked at.
    pub nodes_visited: Count,
    /// Distances computed, between codes or vectors.
    pub distances: Count,
    /// Rows whose distance was computed again, from the full vectors.
    pub reranked: Count,
    /// Rows fetched.
    pub rows_fetched: Count,
    /// Bytes of Parquet read.
    pub bytes_read: Count,
    /// Files whose filter had been evaluated before.
    pub filter_cache_hits: Count,
    /// Rows whose vectors were decoded because a filter computes with them.
    pub filter_vectors: Count,
    /// Files whose index was not searched, because all of their rows are too far.
    pub files_skipped: Count,
    /// Files answered exactly because their index failed while it was searched.
    pub fallbacks: Count,
    /// 1 if the whole table was passed on, because the query vector can only be judged by DataFusion's functions.
    pub passed_through: Count,
    /// Finding and opening sidecars.
    pub load_time: Time,
    /// Evaluating filters.
    pub filter_time: Time,
    /// Searching graphs and comparing vectors.
    pub search_time: Time,
    /// Fetching rows.
    pub fetch_time: Time,
}

impl SearchMetrics {
    pub(crate) fn new(metrics: &ExecutionPlanMetricsSet) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, 0);
        let time = |name: &'static str| MetricBuilder::new(metrics).subset_time(name, 0);
        Self {
            nodes_visited: count("nodes_visited"),
            distances: count("distance_computations"),
            reranked: count("rows_reranked"),
            rows_fetched: count("rows_fetched"),
            bytes_read: count("bytes_read"),
            filter_cache_hits: count("filter_cache_hits"),
            filter_vectors: count("filter_vectors_decoded"),
            files_skipped: count("files_skipped"),
            fallbacks: count("index_fallbacks"),
            passed_through: count("passed_through"),
            load_time: time("load_time"),
            filter_time: time("filter_time"),
            search_time: time("search_time"),
            fetch_time: time("fetch_time"),
        }
    }

    /// Adds the work of one search.
    pub(crate) fn count(&self, stats: &SearchStats) {
        let add = |count: &Count, n: u64| count.add(usize::try_from(n).unwrap_or(usize::MAX));
        add(&self.nodes_visited, stats.nodes_visited);
        add(&self.distances, stats.distances);
        add(&self.reranked, stats.reranked);
    }
}
