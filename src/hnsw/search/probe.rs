//! Looks into cells: the nearest allowed nodes of those groups of nodes that are nearest to the query.

use super::allowed_nodes::AllowedNodes;
use super::probe_budget::Plan;
use crate::hnsw::clusters::inverted_lists::Cells;
use crate::hnsw::clusters::nearest::Nearest;
use crate::hnsw::error::{Damaged, SearchError};
use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::distance_computer::{CodeSpace, Space};
use crate::hnsw::graph::search_layer::Scratch;
use crate::hnsw::kernels::{self, Ones};

/// Cells that are put in order besides those that are expected to be needed.
const FIRST: usize = 16;
/// Codes that are on their way from memory while others are compared.
const BATCH: usize = 48;

/// The cells of an index, and the rows that are looked for in them.
pub(crate) struct AllowedCells<'a> {
    pub(crate) cells: Cells<'a>,
    pub(crate) allowed: &'a AllowedNodes<'a>,
}

impl AllowedCells<'_> {
    /// Leaves the nearest of `known` and of the allowed nodes of the nearest cells in the pool. True if these were all
    /// cells. What is known must be in order. Cells are ordered by their codes, `rows` compares the nodes.
    pub(crate) fn search(
        &self,
        codes: &CodeSpace<'_>,
        rows: &impl Space,
        plan: Plan<'_>,
        known: &[Candidate],
        nearest: &mut Nearest,
        scratch: &mut Scratch,
    ) -> Result<bool, SearchError> {
        kernels::with_instructions(
            codes.isa,
            #[inline(always)]
            || self.look(codes, rows, plan, known, nearest, scratch),
        )
    }

    /// Writes the allowed nodes of a cell to `found`, from place `count` on. Gives where they end, and how many nodes the
    /// cell has.
    #[inline(always)]
    fn allowed_of(
        &self,
        cell: usize,
        node_count: u32,
        found: &mut Vec<u32>,
        mut count: usize,
    ) -> Result<(usize, usize), Damaged> {
        let mut seen = 0;
        for layer in 0..self.cells.layers {
            let range = self.cells.nodes(cell, layer);
            if range.end > node_count {
                return Err(Damaged { section: "cells" });
            }
            seen += range.len();
            count = self.allowed.among(range, found, count);
        }
        Ok((count, seen))
    }

    /// The cells that hold so many allowed nodes, about, if the filter has nothing to do with the query.
    fn cells_for(&self, allowed_nodes: usize) -> usize {
        let nodes = f64::from(self.allowed.parts.node_count());
        let cells = allowed_nodes as f64 / self.allowed.selectivity() * self.cells.count() as f64 / nodes;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, which is meant"
        )]
        let cells = cells as usize;
        cells.min(self.cells.count())
    }

    #[inline(always)]
    fn look(
        &self,
        codes: &CodeSpace<'_>,
        rows: &impl Space,
        plan: Plan<'_>,
        known: &[Candidate],
        nearest: &mut Nearest,
        scratch: &mut Scratch,
    ) -> Result<bool, SearchError> {
        let Scratch {
            pool,
            keys,
            fresh: arriving,
            arrived,
            ..
        } = scratch;
        let first = self.cells_for(plan.patience);
        let compared_cells = self.cells.count();
        arriving.clear();
        arriving.extend((0..).take(compared_cells));
        nearest.fill(&self.cells, codes, FIRST + first + first / 4, arriving);
        pool.reset(plan.ef.max(plan.k));
        known.iter().for_each(|&candidate| pool.push(candidate));
        let (mut compared, mut improved, mut seen, mut reached) = (0, 0, 0, 0);
        let node_count = self.allowed.parts.node_count();
        let (mut coming, mut came) = (0, 0);
        loop {
            let mut last = false;
            while coming < BATCH {
                let Some((place, key)) = nearest.next(codes.isa) else {
                    last = true;
                    break;
                };
                let before = coming;
                let (end, members) = self.allowed_of(place, node_count, arriving, coming)?;
                coming = end;
                seen += members;
                if coming > before {
                    reached = key;
                }
                // Cells that overlap would be looked into for ever.
                if seen > node_count as usize {
                    return Err(Damaged { section: "cells" }.into());
                }
                arriving[before..coming]
                    .iter()
                    .for_each(|&node| rows.prefetch(node));
            }
            keys.resize(keys.len().max(came), 0);
            rows.keys(&arrived[..came], &mut keys[..came]);
            for (nodes, keys) in arrived[..came].chunks(64).zip(keys.chunks(64)) {
                // Hardly any gets in once there are some.
                let limit = pool.threshold().key();
                for place in Ones(kernels::at_most(codes.isa, &keys[..nodes.len()], limit)) {
                    let place = place as usize;
                    let new = Candidate::new(keys[place], nodes[place]);
                    if new < pool.threshold() && known.binary_search(&new).is_err() {
                        if pool.candidates().get(plan.k - 1).is_none_or(|&kth| new < kth) {
                            improved = compared + place + 1;
                        }
                        pool.push(new);
                    }
                }
                compared += nodes.len();
            }
            let all = last && coming == 0;
            let idle = compared - improved;
            let far = |kth: &Candidate| idle >= plan.most || plan.reach.ends(kth.key(), reached);
            if all || idle >= plan.patience && pool.candidates().get(plan.k - 1).is_some_and(far) {
                scratch.distances += (compared_cells + compared) as u64;
                return Ok(all);
            }
            plan.stop.check()?;
            std::mem::swap(arriving, arrived);
            (came, coming) = (coming, 0);
        }
    }
}
