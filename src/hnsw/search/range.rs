//! All rows within a distance, and many queries at once.

use rayon::prelude::*;

use super::options::{SearchOptions, SearchOutcome};
use super::query::search;
use crate::hnsw::config::DEFAULT_EF_SEARCH;
use crate::hnsw::error::SearchError;
use crate::hnsw::parts::Parts;
use crate::hnsw::row_set::RowSet;

/// Finds the rows within `radius` (inclusive) of the query: the nearest `limit` of them.
///
/// Widens the search until half of the candidates lie outside. `stats.exact` is set if every row that
/// qualifies was looked at.
pub(crate) fn within(
    parts: &Parts<'_>,
    query: &[f32],
    radius: f32,
    limit: usize,
    allowed: Option<&RowSet>,
) -> Result<SearchOutcome, SearchError> {
    let rows = usize::try_from(parts.row_count()).unwrap_or(usize::MAX).max(1);
    let mut ef = DEFAULT_EF_SEARCH;
    loop {
        let options = SearchOptions {
            allowed,
            ..SearchOptions::new(ef).ef(ef)
        };
        let mut outcome = search(parts, query, &options)?;
        outcome.hits.retain(|hit| hit.distance <= radius);
        let within = outcome.hits.len();
        // The last candidates of a beam search are the least sure: half of them must lie outside.
        if within <= ef / 2 || within / 2 >= limit || ef >= rows {
            outcome.hits.truncate(limit);
            return Ok(outcome);
        }
        ef = ef.saturating_mul(4).min(rows);
    }
}

/// Answers many queries, one after the other in `queries`, on all threads of the current candidate list.
pub(crate) fn batch(
    parts: &Parts<'_>,
    queries: &[f32],
    options: &SearchOptions<'_>,
) -> Result<Vec<SearchOutcome>, SearchError> {
    if !queries.len().is_multiple_of(parts.dim) {
        return Err(SearchError::Dimension {
            expected: parts.dim,
            found: queries.len() % parts.dim,
        });
    }
    queries
        .par_chunks(parts.dim)
        .with_min_len(4)
        .map(|query| search(parts, query, options))
        .collect()
}
