//! Every node can be reached: links to those that the finished graph does not lead to.
//!
//! HNSW chooses neighbors for each node alone, so a node may be in nobody's list: one of many equal vectors, or one
//! that every neighbor gave up for a nearer one. A search then never meets it, whatever its `ef_search`.

use std::ops::ControlFlow;

use super::insert::OWN_LINKS;
use super::select_neighbors::Points;
use crate::hnsw::config::BuildError;
use crate::hnsw::error::Stop;
use crate::hnsw::graph::links::Links;
use crate::hnsw::graph::owned::Graph;
use crate::hnsw::graph::reachable::follow;
use crate::hnsw::graph::search_layer::{Scratch, descend, search_layer};
use crate::hnsw::ids::NO_LINK;

/// How many nodes are mended between two looks at whether to go on.
const STEP: u32 = 1024;

/// Makes every node reachable from the entry point at layer 0: an orphan gets a link from the nearest node that is
/// reached and has a slot for it, or one whose link is not needed to reach another.
///
/// `progress` is called with how many nodes were looked at.
pub(crate) fn repair(
    graph: &mut Graph,
    points: &Points<'_>,
    ef: usize,
    progress: &dyn Fn(u64) -> ControlFlow<()>,
) -> Result<(), BuildError> {
    let mut tree = Tree::of(graph.links());
    if tree.parents.iter().all(|&parent| parent != NO_LINK) {
        return Ok(());
    }
    let mut incoming = in_degrees(graph.links());
    let mut scratch = Scratch::default();
    let mut mended = 0;
    for orphan in 0..graph.links().node_count() {
        if tree.holds(orphan) {
            continue;
        }
        points.around(orphan, |computer| {
            let links = graph.links();
            descend(links, computer, 0, ef, Stop::default(), &mut scratch).expect(OWN_LINKS);
            search_layer(links, computer, 0, Stop::default(), &mut scratch).expect(OWN_LINKS);
        });
        let found = scratch
            .candidate_list
            .candidates()
            .iter()
            .map(|found| found.node());
        let reached: Vec<u32> = found.filter(|&node| tree.holds(node)).collect();
        let parent = tree.adopt(graph, &reached, orphan, &mut incoming);
        // What the orphan leads to is reached with it.
        tree.grow(graph.links(), orphan, parent);
        mended += 1;
        if mended % STEP == 0 && progress(u64::from(orphan)).is_break() {
            return Err(BuildError::Cancelled);
        }
    }
    Ok(())
}

/// One way from the entry point to each node that is reached. While its links stay, everything stays reached.
struct Tree {
    /// From which node each is reached; [`NO_LINK`] if it is not. The entry point is reached from itself.
    parents: Vec<u32>,
}

impl Tree {
    fn of(links: Links<'_>) -> Self {
        let mut tree = Self {
            parents: vec![NO_LINK; links.node_count() as usize],
        };
        if !tree.parents.is_empty() {
            tree.grow(links, 0, 0);
        }
        tree
    }

    fn holds(&self, node: u32) -> bool {
        self.parents[node as usize] != NO_LINK
    }

    /// Takes in a node and everything that it leads to.
    fn grow(&mut self, links: Links<'_>, node: u32, parent: u32) {
        self.parents[node as usize] = parent;
        follow(links, node, |from, to| {
            let parent = &mut self.parents[to as usize];
            let is_new = *parent == NO_LINK;
            if is_new {
                *parent = from;
            }
            is_new
        });
    }

    /// Links `orphan` from one of `reached`, which are sorted by distance, or from one that they lead to; gives it.
    fn adopt(&self, graph: &mut Graph, reached: &[u32], orphan: u32, incoming: &mut [u32]) -> u32 {
        let limit = graph.limit(0);
        let links = graph.links();
        let has_slot = |node: &u32| links.neighbors(*node, 0).count() < limit;
        // Whether one of its links is not needed. A node without such a link is the parent of all its neighbors.
        let can_spare = |node: u32| {
            links
                .neighbors(node, 0)
                .any(|to| self.parents[to as usize] != node)
        };
        let parent = reached
            .iter()
            .copied()
            .find(has_slot)
            .or_else(|| reached.iter().copied().find(|&node| can_spare(node)))
            .unwrap_or_else(|| {
                // Down the tree: its leaves need none of their links.
                let mut node = reached.first().copied().unwrap_or(0);
                while !has_slot(&node) && !can_spare(node) {
                    node = links.neighbors(node, 0).next().expect("a full list");
                }
                node
            });
        let mut neighbors: Vec<u32> = links.neighbors(parent, 0).collect();
        if neighbors.len() < limit {
            neighbors.push(orphan);
        } else {
            // The one that has the most other links to it.
            let place = (0..neighbors.len())
                .filter(|&at| self.parents[neighbors[at] as usize] != parent)
                .max_by_key(|&at| incoming[neighbors[at] as usize])
                .expect("it can spare one");
            incoming[neighbors[place] as usize] -= 1;
            neighbors[place] = orphan;
        }
        incoming[orphan as usize] += 1;
        graph.set(parent, 0, &neighbors);
        parent
    }
}

fn in_degrees(links: Links<'_>) -> Vec<u32> {
    let mut degrees = vec![0; links.node_count() as usize];
    for node in 0..links.node_count() {
        for to in links.neighbors(node, 0) {
            degrees[to as usize] += 1;
        }
    }
    degrees
}
