//! The steps of answering a query.

use super::beam_search::walk;
use super::context::{Notes, with_notes};
use super::cost_model::is_exact_cheaper;
use super::filtered;
use super::options::{SearchOptions, SearchOutcome, SearchStats, SearchWay};
use super::rerank::Decide;
use crate::hnsw::error::{SearchError, Stop};
use crate::hnsw::parts::Parts;
use crate::hnsw::query_vector::Query;

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
