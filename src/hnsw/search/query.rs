//! The steps of answering a query.

use super::beam_search::beam_search;
use super::context::{SearchContext, with_context};
use super::cost_model::is_exact_cheaper;
use super::filtered;
use super::options::{SearchOptions, SearchOutcome, SearchStats, SearchStrategy};
use super::rerank::Rerank;
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
    with_context(|context| {
        context.scratch.nodes_visited = 0;
        context.scratch.distances = 0;
        match options.allowed {
            Some(allowed) => filtered::search(parts, &query, options, allowed, context),
            None => unfiltered(parts, &query, options, context),
        }
    })
}

fn unfiltered(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    context: &mut SearchContext,
) -> Result<SearchOutcome, SearchError> {
    let ef = options.ef.max(options.k);
    let exact = match options.strategy {
        SearchStrategy::Exact => true,
        SearchStrategy::Auto => is_exact_cheaper(parts, options.k, ef),
        SearchStrategy::Codes | SearchStrategy::Clusters | SearchStrategy::Graph => false,
    };
    if exact || ef >= parts.node_count() as usize {
        let mut rerank = Rerank::new(parts, query, options);
        for node in 0..parts.node_count() {
            if node.is_multiple_of(1024) {
                Stop(options.stop).check()?;
            }
            rerank.node(node, None)?;
        }
        return Ok(rerank.finish(&context.scratch, true));
    }
    let rounding = beam_search(parts, query, ef, Stop(options.stop), context)?;
    let mut rerank = Rerank::new(parts, query, options);
    rerank.candidates(context.scratch.candidate_list.candidates(), rounding, None)?;
    Ok(rerank.finish(&context.scratch, false))
}
