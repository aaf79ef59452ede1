//! Probes clusters: compares the allowed nodes of the clusters nearest to a query.

use super::allowed_nodes::AllowedNodes;
use super::probe_budget::Plan;
use crate::hnsw::clusters::inverted_lists::Clusters;
use crate::hnsw::clusters::nearest::Nearest;
use crate::hnsw::error::{Damaged, SearchError};
use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::distance_computer::{CodeDistances, DistanceComputer};
use crate::hnsw::graph::search_layer::Scratch;
use crate::hnsw::kernels::{self, Ones};

/// Clusters that are ranked besides those that will probably be needed.
const FIRST: usize = 16;
/// Codes that are prefetched while others are compared.
const BATCH: usize = 48;

/// The clusters of an index, and the nodes that may be found in them.
pub(crate) struct ClusterProbe<'a> {
    pub(crate) clusters: Clusters<'a>,
    pub(crate) allowed: &'a AllowedNodes<'a>,
}

impl ClusterProbe<'_> {
    /// Leaves the nearest of `known` and of the allowed nodes of the nearest clusters in the candidate list.
    /// True if every cluster was probed.
    ///
    /// `known` must be sorted. Clusters are ranked by their codes; `rows` compares the nodes.
    pub(crate) fn search(
        &self,
        codes: &CodeDistances<'_>,
        rows: &impl DistanceComputer,
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

    /// Writes the allowed nodes of a cluster to `found`, from place `count` on. Gives where they end and how
    /// many nodes the cluster has.
    #[inline(always)]
    fn allowed_of(
        &self,
        cluster: usize,
        node_count: u32,
        found: &mut Vec<u32>,
        mut count: usize,
    ) -> Result<(usize, usize), Damaged> {
        let mut seen = 0;
        for layer in 0..self.clusters.layers {
            let range = self.clusters.nodes(cluster, layer);
            if range.end > node_count {
                return Err(Damaged { section: "cells" });
            }
            seen += range.len();
            count = self.allowed.among(range, found, count);
        }
        Ok((count, seen))
    }

    /// About how many clusters hold so many allowed nodes, if the filter is independent of the query.
    fn clusters_for(&self, allowed_nodes: usize) -> usize {
        let nodes = f64::from(self.allowed.parts.node_count());
        let clusters =
            allowed_nodes as f64 / self.allowed.selectivity() * self.clusters.count() as f64 / nodes;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, which is meant"
        )]
        let clusters = clusters as usize;
        clusters.min(self.clusters.count())
    }

    #[inline(always)]
    fn look(
        &self,
        codes: &CodeDistances<'_>,
        rows: &impl DistanceComputer,
        plan: Plan<'_>,
        known: &[Candidate],
        nearest: &mut Nearest,
        scratch: &mut Scratch,
    ) -> Result<bool, SearchError> {
        let Scratch {
            candidate_list,
            keys,
            fresh: arriving,
            arrived,
            ..
        } = scratch;
        let first = self.clusters_for(plan.patience);
        let compared_clusters = self.clusters.count();
        arriving.clear();
        arriving.extend((0..).take(compared_clusters));
        nearest.fill(&self.clusters, codes, FIRST + first + first / 4, arriving);
        candidate_list.reset(plan.ef.max(plan.k));
        known.iter().for_each(|&candidate| candidate_list.push(candidate));
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
                // Clusters that overlap would be looked into for ever.
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
                let limit = candidate_list.threshold().key();
                for place in Ones(kernels::at_most(codes.isa, &keys[..nodes.len()], limit)) {
                    let place = place as usize;
                    let new = Candidate::new(keys[place], nodes[place]);
                    if new < candidate_list.threshold() && known.binary_search(&new).is_err() {
                        if candidate_list
                            .candidates()
                            .get(plan.k - 1)
                            .is_none_or(|&kth| new < kth)
                        {
                            improved = compared + place + 1;
                        }
                        candidate_list.push(new);
                    }
                }
                compared += nodes.len();
            }
            let all = last && coming == 0;
            let idle = compared - improved;
            let far = |kth: &Candidate| idle >= plan.most || plan.reach.ends(kth.key(), reached);
            if all || idle >= plan.patience && candidate_list.candidates().get(plan.k - 1).is_some_and(far) {
                scratch.distances += (compared_clusters + compared) as u64;
                return Ok(all);
            }
            plan.stop.check()?;
            std::mem::swap(arriving, arrived);
            (came, coming) = (coming, 0);
        }
    }
}
