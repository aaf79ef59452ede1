//! Where a walk of layer 0 begins: among the nodes of the cells nearest to the query.
//!
//! The paper descends from layer to layer, a cache miss or two for each node it meets, and a query that lands in the
//! wrong cluster stays there. Centres of cells lie side by side in memory and no node is met twice: many more of them
//! are compared in less time, and the walk begins with candidates that are near already.

use super::inverted_lists::{Cells, Groups, compare};
use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::distance_computer::{CodeSpace, Space};
use crate::hnsw::graph::search_layer::Scratch;
use crate::hnsw::kernels;

/// Nearest groups whose cells are compared, unless fewer hold an eighth of all cells; and candidates for each more.
const GROUPS: usize = 4;
const EF_A_GROUP: usize = 8;
/// Nearest cells that the walk begins in, and candidates for each more.
const CELLS: usize = 2;
const EF_A_CELL: usize = 32;
/// The most nodes of a cell and a layer that are compared, evenly spread over those that there are: from a few
/// of them a walk is at the others in a step.
const NODES: usize = 16;

/// Leaves near nodes in the pool, which holds `ef`; all that were compared are met. False if the cells are too few to be
/// in groups: then a descent is as good.
pub(crate) fn enter_nearest_cells(
    cells: &Cells<'_>,
    space: &CodeSpace<'_>,
    nodes: u32,
    ef: usize,
    scratch: &mut Scratch,
) -> bool {
    let Some(groups) = cells.groups else { return false };
    kernels::with_instructions(
        space.isa,
        #[inline(always)]
        || enter(cells, groups, space, nodes, ef, scratch),
    )
}

#[inline(always)]
fn enter(
    cells: &Cells<'_>,
    groups: Groups<'_>,
    space: &CodeSpace<'_>,
    nodes: u32,
    ef: usize,
    scratch: &mut Scratch,
) -> bool {
    let Scratch {
        visited,
        pool,
        fresh,
        arrived,
        keys,
        order,
        distances,
        ..
    } = scratch;
    let among = |codes| CodeSpace { codes, ..*space };
    fresh.clear();
    fresh.extend(0..groups.count());
    compare(&among(groups.centres), fresh, keys, order);
    *distances += order.len() as u64;
    fresh.clear();
    for _ in 0..GROUPS + ef / EF_A_GROUP {
        if fresh.len() * 8 >= cells.count() {
            break;
        }
        let Some(group) = take_nearest(order) else { break };
        fresh.extend(groups.cells(group, cells.count()));
    }
    compare(&among(cells.centres), fresh, keys, order);
    *distances += order.len() as u64;
    arrived.clear();
    for _ in 0..CELLS + ef / EF_A_CELL {
        let Some(place) = take_nearest(order) else { break };
        let cell = fresh[place] as usize;
        for layer in 0..cells.layers {
            let range = cells.nodes(cell, layer);
            let range = range.start..range.end.min(nodes);
            let step = range.len().div_ceil(NODES).max(1);
            arrived.extend(range.step_by(step));
        }
    }
    std::mem::swap(fresh, arrived);
    for &node in &*fresh {
        space.prefetch(node);
    }
    visited.reset(nodes);
    let met = visited.keep_new(fresh);
    fresh.truncate(met);
    keys.resize(keys.len().max(met), 0);
    space.keys(fresh, &mut keys[..met]);
    *distances += met as u64;
    pool.reset(ef);
    for (&node, &key) in fresh.iter().zip(&*keys) {
        pool.push(Candidate::new(key, node));
    }
    met > 0
}

/// The place of the nearest that was not yet taken.
#[inline(always)]
fn take_nearest(order: &mut [u64]) -> Option<usize> {
    let nearest = order.iter().copied().fold(u64::MAX, u64::min);
    let place = usize::try_from(nearest & u64::from(u32::MAX)).ok()?;
    *order.get_mut(place)? = u64::MAX;
    Some(place)
}
