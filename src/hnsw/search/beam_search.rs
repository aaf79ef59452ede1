//! The beam search of a whole index: where it begins, and the layers that it descends.

use super::context::SearchContext;
use super::prepare::{SearchOver, with_distances};
use crate::hnsw::clusters::entry_points::enter_nearest_clusters;
use crate::hnsw::error::{SearchError, Stop};
use crate::hnsw::graph::node_filter::EveryNode;
use crate::hnsw::graph::search_layer::{descend, go_on, search_layer};
use crate::hnsw::parts::Parts;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::query_vector::Query;

/// Algorithm 5: finds entry points, then searches layer 0 with `ef` candidates and leaves them in the candidate
/// list. Gives how wrong their keys may be.
pub(crate) fn beam_search(
    parts: &Parts<'_>,
    query: &Query<'_>,
    ef: usize,
    stop: Stop<'_>,
    context: &mut SearchContext,
) -> Result<Rounding, SearchError> {
    let scratch = &mut context.scratch;
    with_distances(parts, query, &mut context.code, |computer| match computer {
        SearchOver::Codes(computer, rounding) => {
            if let Some(clusters) = parts.clusters
                && enter_nearest_clusters(&clusters, computer, parts.node_count(), ef, scratch)
            {
                go_on(parts.links, computer, 0, &EveryNode, stop, scratch)?;
            } else {
                descend(parts.links, computer, 0, ef, stop, scratch)?;
                search_layer(parts.links, computer, 0, stop, scratch)?;
            }
            Ok(rounding)
        }
        SearchOver::Floats(computer, _) => {
            descend(parts.links, computer, 0, ef, stop, scratch)?;
            search_layer(parts.links, computer, 0, stop, scratch)?;
            Ok(Rounding::default())
        }
    })
}
