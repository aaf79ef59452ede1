//! The beam search of a whole index: where it begins, and the layers that it descends.

use super::context::Notes;
use super::prepare::{Walk, with_space};
use crate::hnsw::clusters::entry_points::enter_nearest_cells;
use crate::hnsw::error::{SearchError, Stop};
use crate::hnsw::graph::node_filter::EveryNode;
use crate::hnsw::graph::search_layer::{descend, go_on, search_layer};
use crate::hnsw::parts::Parts;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::query_vector::Query;

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
