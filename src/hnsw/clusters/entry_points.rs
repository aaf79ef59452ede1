//! Where a beam search of layer 0 begins: among the nodes of the clusters nearest to the query.
//!
//! The paper descends from layer to layer. That costs a cache miss or two for each node, and a query that lands
//! in the wrong cluster stays there. Centroids lie side by side in memory, so many of them are compared in less
//! time, and the beam search begins with candidates that are near already.

use super::inverted_lists::{Clusters, Groups, compare};
use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::distance_computer::{CodeDistances, DistanceComputer};
use crate::hnsw::graph::search_layer::Scratch;
use crate::hnsw::kernels;

/// Coarse centroids whose clusters are compared, at least. Fewer if these hold an eighth of all clusters.
const GROUPS: usize = 4;
/// Candidates for each further coarse centroid.
const EF_A_GROUP: usize = 8;
/// Clusters whose nodes become the first candidates, at least.
const CLUSTERS: usize = 2;
/// Candidates for each further cluster.
const EF_A_CLUSTER: usize = 32;
/// Nodes of a cluster and a layer that are compared, at most. They are spread evenly: one step of the beam search
/// leads from a few of them to the others.
const NODES: usize = 16;

/// Leaves nodes near the query in the candidate list, whose length is `ef`, and marks them as visited.
///
/// False if the index has no coarse centroids: then the search descends through the layers instead.
pub(crate) fn enter_nearest_clusters(
    clusters: &Clusters<'_>,
    computer: &CodeDistances<'_>,
    nodes: u32,
    ef: usize,
    scratch: &mut Scratch,
) -> bool {
    let Some(groups) = clusters.groups else {
        return false;
    };
    kernels::with_instructions(
        computer.isa,
        #[inline(always)]
        || enter(clusters, groups, computer, nodes, ef, scratch),
    )
}

#[inline(always)]
fn enter(
    clusters: &Clusters<'_>,
    groups: Groups<'_>,
    computer: &CodeDistances<'_>,
    nodes: u32,
    ef: usize,
    scratch: &mut Scratch,
) -> bool {
    let Scratch {
        visited,
        candidate_list,
        fresh,
        arrived,
        keys,
        order,
        distances,
        ..
    } = scratch;
    let among = |codes| CodeDistances { codes, ..*computer };
    fresh.clear();
    fresh.extend(0..groups.count());
    compare(&among(groups.centroids), fresh, keys, order);
    *distances += order.len() as u64;
    fresh.clear();
    for _ in 0..GROUPS + ef / EF_A_GROUP {
        if fresh.len() * 8 >= clusters.count() {
            break;
        }
        let Some(group) = take_nearest(order) else { break };
        fresh.extend(groups.clusters(group, clusters.count()));
    }
    compare(&among(clusters.centroids), fresh, keys, order);
    *distances += order.len() as u64;
    arrived.clear();
    for _ in 0..CLUSTERS + ef / EF_A_CLUSTER {
        let Some(place) = take_nearest(order) else { break };
        let cluster = fresh[place] as usize;
        for layer in 0..clusters.layers {
            let range = clusters.nodes(cluster, layer);
            let range = range.start..range.end.min(nodes);
            let step = range.len().div_ceil(NODES).max(1);
            arrived.extend(range.step_by(step));
        }
    }
    std::mem::swap(fresh, arrived);
    for &node in &*fresh {
        computer.prefetch(node);
    }
    visited.reset(nodes);
    let met = visited.keep_new(fresh);
    fresh.truncate(met);
    keys.resize(keys.len().max(met), 0);
    computer.keys(fresh, &mut keys[..met]);
    *distances += met as u64;
    candidate_list.reset(ef);
    for (&node, &key) in fresh.iter().zip(&*keys) {
        candidate_list.push(Candidate::new(key, node));
    }
    met > 0
}

/// The place of the nearest that was not taken before.
#[inline(always)]
fn take_nearest(order: &mut [u64]) -> Option<usize> {
    let nearest = order.iter().copied().fold(u64::MAX, u64::min);
    let place = usize::try_from(nearest & u64::from(u32::MAX)).ok()?;
    *order.get_mut(place)? = u64::MAX;
    Some(place)
}
