//! Building the graph (Algorithm 1), in parallel and always the same.
//!
//! Nodes are inserted in batches. All nodes of a batch are searched for in the graph as it was before the
//! batch, side by side; then the links back to them are added, sorted by the node that receives them. So
//! the graph depends on the data and the seed, and not on the threads.

use std::ops::ControlFlow;

use rayon::prelude::*;

use super::levels::mix;
use super::select_neighbors::{Points, select_neighbors};
use crate::hnsw::config::BuildError;
use crate::hnsw::error::Stop;
use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::distance_computer::DistanceComputer;
use crate::hnsw::graph::owned::Graph;
use crate::hnsw::graph::search_layer::{Scratch, descend, search_layer};

/// A batch grows with the graph up to this share of all nodes. Its nodes do not see each other: larger ones
/// cost recall.
const LARGEST_BATCH: usize = 200;
/// A batch is at most this share of the graph before it.
const BATCH_GROWTH: usize = 16;

/// What a thread of the build reuses.
#[derive(Default)]
struct Workbench {
    scratch: Scratch,
    kept: Vec<u32>,
    keys: Vec<u32>,
    union: Vec<u32>,
    sorted: Vec<Candidate>,
}

/// The neighbors chosen for a new node in one layer.
struct Chosen {
    node: u32,
    layer: usize,
    neighbors: Vec<u32>,
}

/// A link back to a new node, in the order in which links are added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Back {
    layer: u32,
    to: u32,
    from: u32,
}

/// The order of insertion: the entry point, then layer by layer from the top, shuffled within each. Sorted in place:
/// what a sort by cached keys takes would stay with the allocator, at the peak of a build.
pub(crate) fn sequence(levels: &[u32], seed: u64) -> Vec<u32> {
    let nodes = levels.first().copied().unwrap_or(0);
    let mut sequence: Vec<u32> = (0..nodes).collect();
    let mut first = 1.min(nodes) as usize;
    for &count in levels.iter().rev() {
        let layer = &mut sequence[first.min(count as usize)..count as usize];
        layer.sort_unstable_by_key(|&node| (mix(seed.wrapping_add(1) ^ mix(u64::from(node))), node));
        first = count as usize;
    }
    sequence
}

/// Links all nodes of `graph`, in the order `sequence`, whose first node is 0.
pub(crate) fn link_all(
    graph: &mut Graph,
    points: &Points<'_>,
    sequence: &[u32],
    ef_construction: usize,
    progress: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
) -> Result<(), BuildError> {
    let mut done = 1.min(sequence.len());
    while done < sequence.len() {
        let most = (sequence.len() / LARGEST_BATCH).max(1);
        let size = (done / BATCH_GROWTH).clamp(1, most).min(sequence.len() - done);
        let mut batch = sequence[done..done + size].to_vec();
        // Nodes with near numbers are near in space, so their searches meet the same nodes, which are still cached.
        batch.sort_unstable();
        insert_batch(graph, points, &batch, ef_construction);
        done += size;
        if progress(done as u64).is_break() {
            return Err(BuildError::Cancelled);
        }
    }
    Ok(())
}

fn insert_batch(graph: &mut Graph, points: &Points<'_>, batch: &[u32], ef_construction: usize) {
    let frozen = &*graph;
    let chosen: Vec<Chosen> = batch
        .par_iter()
        .with_min_len(4)
        .map_init(Workbench::default, |bench, &node| {
            choose(frozen, points, node, ef_construction, bench)
        })
        .flatten_iter()
        .collect();
    let mut backs: Vec<Back> = chosen
        .iter()
        .flat_map(|c| {
            let layer = u32::try_from(c.layer).expect("few layers");
            c.neighbors.iter().map(move |&to| Back {
                layer,
                to,
                from: c.node,
            })
        })
        .collect();
    for c in &chosen {
        graph.set(c.node, c.layer, &c.neighbors);
    }
    backs.par_sort_unstable();
    let groups: Vec<&[Back]> = backs
        .chunk_by(|a, b| (a.layer, a.to) == (b.layer, b.to))
        .collect();
    let frozen = &*graph;
    let lists: Vec<Chosen> = groups
        .par_iter()
        .with_min_len(16)
        .map_init(Workbench::default, |bench, group| {
            receive(frozen, points, group, bench)
        })
        .collect();
    for list in &lists {
        graph.set(list.node, list.layer, &list.neighbors);
    }
}

/// Searches for a new node, layer by layer, and chooses its neighbors.
///
/// Of `ef_construction` candidates only the nearest two fifths are expanded. Expanding the others takes a quarter
/// of a build and gains little (`docs/design/engine-log.md`).
fn choose(
    graph: &Graph,
    points: &Points<'_>,
    node: u32,
    ef_construction: usize,
    bench: &mut Workbench,
) -> Vec<Chosen> {
    let links = graph.links();
    let highest = graph.highest_layer(node);
    let mut chosen = Vec::with_capacity(highest + 1);
    points.around(node, |computer| {
        descend(
            links,
            computer,
            highest,
            ef_construction,
            Stop::default(),
            &mut bench.scratch,
        )
        .expect(OWN_LINKS);
        for layer in (0..=highest).rev() {
            bench
                .scratch
                .candidate_list
                .look_at((ef_construction * 2 / 5).max(2 * graph.m));
            search_layer(links, computer, layer, Stop::default(), &mut bench.scratch).expect(OWN_LINKS);
            let found = bench.scratch.candidate_list.candidates();
            select_neighbors(points, found, graph.m, &mut bench.kept, &mut bench.keys);
            chosen.push(Chosen {
                node,
                layer,
                neighbors: bench.kept.clone(),
            });
            let nearest = found[0];
            bench.scratch.candidate_list.reset(ef_construction);
            bench
                .scratch
                .candidate_list
                .push(Candidate::new(nearest.key(), nearest.node()));
        }
    });
    chosen
}

pub(crate) const OWN_LINKS: &str = "the builder links only nodes that exist";

/// Adds links back to new nodes to one list, choosing again if it overflows.
fn receive(graph: &Graph, points: &Points<'_>, group: &[Back], bench: &mut Workbench) -> Chosen {
    let (node, layer) = (group[0].to, group[0].layer as usize);
    let limit = graph.limit(layer);
    bench.union.clear();
    bench.union.extend(graph.links().neighbors(node, layer));
    bench.union.extend(group.iter().map(|back| back.from));
    if bench.union.len() > limit {
        let Workbench {
            union,
            keys,
            sorted,
            kept,
            ..
        } = bench;
        points.around(node, |computer| {
            keys.resize(union.len(), 0);
            computer.keys(union, keys);
        });
        sorted.clear();
        sorted.extend(
            union
                .iter()
                .zip(keys.iter())
                .map(|(&id, &key)| Candidate::new(key, id)),
        );
        sorted.sort_unstable();
        select_neighbors(points, sorted, limit, kept, keys);
        return Chosen {
            node,
            layer,
            neighbors: kept.clone(),
        };
    }
    Chosen {
        node,
        layer,
        neighbors: bench.union.clone(),
    }
}
