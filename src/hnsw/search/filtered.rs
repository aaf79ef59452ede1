//! Search among the allowed rows only.
//!
//! [`cheapest`] chooses one of four strategies by their estimated cost:
//!
//! - compare the vectors of all allowed rows; the answer is exact;
//! - compare the codes of all allowed rows, and re-rank the nearest by their vectors;
//! - probe the clusters nearest to the query, then search from what they gave over allowed nodes only;
//! - search the graph as if there were no filter, with a longer candidate list, and keep what is allowed. If that
//!   leaves too few candidates, or only far ones, the clusters are probed too.
//!
//! If no more rows are allowed than the candidate list would hold, all of them are compared.

use super::allowed_nodes::{AllowedNodes, nodes_of_rows};
use super::beam_search::beam_search;
use super::context::SearchContext;
use super::cost_model::{cheapest, enough, expected_within, width};
use super::options::{SearchOptions, SearchOutcome, SearchStrategy};
use super::prepare::{SearchOver, with_distances};
use super::probe::ClusterProbe;
use super::probe_budget::{Plan, with_spare};
use super::rerank::Rerank;
use crate::hnsw::clusters::nearest::Nearest;
use crate::hnsw::error::{SearchError, Stop};
use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::distance_computer::{CodeDistances, DistanceComputer};
use crate::hnsw::graph::search_layer::{Scratch, search_among};
use crate::hnsw::kernels::{self, Isa, Ones};
use crate::hnsw::parts::Parts;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::query_vector::Query;
use crate::hnsw::row_set::RowSet;

/// The selectivity in percent from which on the probe is followed by a beam search over allowed nodes. Below it,
/// allowed nodes are hardly ever neighbors.
const CONNECTED: u64 = 1;

/// Finds the nearest allowed rows.
pub(crate) fn search(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    allowed: &RowSet,
    context: &mut SearchContext,
) -> Result<SearchOutcome, SearchError> {
    let nodes = parts.node_count() as usize;
    let ef = options.ef.max(options.k).min(nodes);
    let count = allowed.count();
    let few = usize::try_from(count).unwrap_or(usize::MAX) <= ef || ef == nodes;
    let strategy = match options.strategy {
        SearchStrategy::Auto if few => SearchStrategy::Exact,
        SearchStrategy::Auto => cheapest(parts, count, options.k, ef),
        chosen => chosen,
    };
    if strategy == SearchStrategy::Exact {
        return exact(parts, query, options, allowed, &context.scratch);
    }
    let nodes = &AllowedNodes::new(parts, allowed);
    let mut rerank = Rerank::new(parts, query, options);
    let mut known = Vec::new();
    if strategy == SearchStrategy::Graph {
        let (found, rounding) = search_wider(query, options, ef, nodes, context)?;
        known = found.candidates;
        if found.counts {
            rerank.candidates(&known, rounding, Some(allowed))?;
            return Ok(rerank.finish(&context.scratch, false));
        }
    }
    let kept = ef.max(with_spare(options.k));
    let SearchContext {
        scratch,
        nearest,
        code,
    } = context;
    let in_clusters = parts
        .clusters
        .filter(|_| strategy != SearchStrategy::Codes)
        .map(|clusters| ClusterProbe {
            allowed: nodes,
            clusters,
        });
    let plan =
        |codes: &CodeDistances<'_>| Plan::new(options, ef, strategy == SearchStrategy::Graph, nodes, codes);
    let rounding = with_distances(parts, query, code, |computer| match (computer, in_clusters) {
        (SearchOver::Codes(codes, rounding), Some(clusters)) => {
            probe_clusters(&clusters, codes, codes, plan(codes), &known, nearest, scratch).map(|()| rounding)
        }
        (SearchOver::Codes(codes, rounding), None) => {
            compare_all(codes, nodes, kept, Stop(options.stop), scratch).map(|()| rounding)
        }
        // Distances from the code that is nearest to the query are none from the query, but order clusters much as those do.
        (SearchOver::Floats(rows, Some(codes)), Some(clusters)) => {
            probe_clusters(&clusters, codes, rows, plan(codes), &known, nearest, scratch)
                .map(|()| Rounding::default())
        }
        (SearchOver::Floats(rows, _), _) => {
            compare_all(rows, nodes, kept, Stop(options.stop), scratch).map(|()| Rounding::default())
        }
    })?;
    rerank.candidates(scratch.candidate_list.candidates(), rounding, Some(allowed))?;
    Ok(rerank.finish(scratch, false))
}

/// What a beam search over all nodes found.
struct Found {
    /// The allowed ones, nearest first.
    candidates: Vec<Candidate>,
    /// Whether the candidates are as many and as near as a filter leaves that is independent of the query.
    counts: bool,
}

/// Searches the graph as if there were no filter, with a longer candidate list.
fn search_wider(
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    ef: usize,
    allowed: &AllowedNodes<'_>,
    context: &mut SearchContext,
) -> Result<(Found, Rounding), SearchError> {
    let (parts, count) = (allowed.parts, allowed.rows.count());
    let width = width(parts, count, options.k, ef).min(parts.node_count() as usize);
    let rounding = beam_search(parts, query, width, Stop(options.stop), context)?;
    let limit = expected_within(parts, count, options.k);
    let (mut candidates, mut near) = (Vec::new(), 0);
    for (rank, candidate) in context.scratch.candidate_list.candidates().iter().enumerate() {
        if allowed.admits(candidate.node()) {
            candidates.push(candidate.unmarked());
            near += usize::from(rank <= limit);
        }
    }
    let counts = candidates.len() >= enough(parts, count, options.k, width) && near >= options.k;
    Ok((Found { candidates, counts }, rounding))
}

/// Leaves near allowed nodes in the candidate list: those of the nearest clusters, and their neighbors. What lies
/// just beyond the edge of a cluster is a neighbor of what lies within.
fn probe_clusters(
    clusters: &ClusterProbe<'_>,
    codes: &CodeDistances<'_>,
    rows: &impl DistanceComputer,
    plan: Plan<'_>,
    known: &[Candidate],
    nearest: &mut Nearest,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let allowed = clusters.allowed;
    let all = clusters.search(codes, rows, plan, known, nearest, scratch)?;
    if all || allowed.rows.count().saturating_mul(100) < allowed.parts.row_count() * CONNECTED {
        return Ok(());
    }
    search_among(allowed.parts.links, rows, 0, allowed, plan.stop, scratch)
}

/// Codes that are prefetched while others are compared.
const BLOCK: usize = 32;

/// Compares all allowed nodes and leaves the nearest in the candidate list.
fn compare_all(
    computer: &impl DistanceComputer,
    allowed: &AllowedNodes<'_>,
    kept: usize,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let parts = allowed.parts;
    let Scratch {
        candidate_list,
        keys,
        visited,
        fresh,
        ..
    } = scratch;
    candidate_list.reset(kept);
    let nodes = if let Some(listed) = allowed.listed() {
        listed
    } else {
        fresh.clear();
        fresh.extend(nodes_of_rows(parts, allowed.rows).map(|(_, node)| node));
        // Only nodes of several rows can come twice.
        if !parts.node_rows.starts.is_empty() {
            visited.reset(parts.node_count());
            let kept = visited.keep_new(fresh);
            fresh.truncate(kept);
        }
        fresh
    };
    let isa = Isa::best();
    keys.resize(keys.len().max(BLOCK), 0);
    let mut blocks = nodes.chunks(BLOCK).peekable();
    nodes.iter().take(BLOCK).for_each(|&node| computer.prefetch(node));
    while let Some(block) = blocks.next() {
        if let Some(next) = blocks.peek() {
            next.iter().for_each(|&node| computer.prefetch(node));
        }
        let keys = &mut keys[..block.len()];
        computer.keys(block, keys);
        // Hardly any gets in once there are some.
        for place in Ones(kernels::at_most(isa, keys, candidate_list.threshold().key())) {
            let place = place as usize;
            candidate_list.push(Candidate::new(keys[place], block[place]));
        }
        stop.check()?;
    }
    scratch.distances += nodes.len() as u64;
    Ok(())
}

/// Compares the vectors of all allowed rows.
fn exact(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    allowed: &RowSet,
    scratch: &Scratch,
) -> Result<SearchOutcome, SearchError> {
    let mut rerank = Rerank::new(parts, query, options);
    let mut block = Vec::with_capacity(BLOCK);
    let mut nodes = nodes_of_rows(parts, allowed);
    loop {
        Stop(options.stop).check()?;
        block.clear();
        block.extend(
            nodes
                .by_ref()
                .take(BLOCK / 4)
                .inspect(|&(_, node)| parts.vectors.prefetch(node)),
        );
        if block.is_empty() {
            return Ok(rerank.finish(scratch, true));
        }
        for &(row, node) in &block {
            rerank.row(row, node);
        }
    }
}
