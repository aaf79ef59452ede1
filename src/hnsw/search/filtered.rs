//! Search among the allowed rows only.
//!
//! The cheapest way is taken, by a model of costs ([`cheapest`]):
//!
//! - look at the vectors of all allowed rows: the answer is exact;
//! - compare the codes of all allowed rows, and decide among the nearest by their vectors;
//! - compare those in the cells nearest to the query, and walk from the nearest of them to their neighbours,
//!   over allowed nodes only;
//! - walk the graph as if nothing were filtered, but wider, and keep what is allowed. If that leaves too few, or
//!   only far ones, because the query's neighbourhood is not where the allowed rows are, look for more in the cells.
//!
//! If no more rows are allowed than candidates would be kept, each of them is looked at.

use super::allowed_nodes::{AllowedNodes, nodes_of_rows};
use super::beam_search::walk;
use super::context::Notes;
use super::cost_model::{cheapest, enough, expected_within, width};
use super::options::{SearchOptions, SearchOutcome, SearchWay};
use super::prepare::{Walk, with_space};
use super::probe::AllowedCells;
use super::probe_budget::{Plan, with_spare};
use super::rerank::Decide;
use crate::hnsw::clusters::nearest::Nearest;
use crate::hnsw::error::{SearchError, Stop};
use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::distance_computer::{CodeSpace, Space};
use crate::hnsw::graph::search_layer::{Scratch, search_among};
use crate::hnsw::kernels::{self, Isa, Ones};
use crate::hnsw::parts::Parts;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::query_vector::Query;
use crate::hnsw::row_set::RowSet;

/// The fewest rows in a hundred that must be allowed for a walk from allowed row to allowed row.
const CONNECTED: u64 = 1;

/// Finds the nearest allowed rows.
pub(crate) fn search(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    allowed: &RowSet,
    notes: &mut Notes,
) -> Result<SearchOutcome, SearchError> {
    let nodes = parts.node_count() as usize;
    let ef = options.ef.max(options.k).min(nodes);
    let count = allowed.count();
    let few = usize::try_from(count).unwrap_or(usize::MAX) <= ef || ef == nodes;
    let way = match options.way {
        SearchWay::Auto if few => SearchWay::Exact,
        SearchWay::Auto => cheapest(parts, count, options.k, ef),
        chosen => chosen,
    };
    if way == SearchWay::Exact {
        return exact(parts, query, options, allowed, &notes.scratch);
    }
    let nodes = &AllowedNodes::new(parts, allowed);
    let mut decide = Decide::new(parts, query, options);
    let mut known = Vec::new();
    if way == SearchWay::Graph {
        let (found, rounding) = walk_wider(query, options, ef, nodes, notes)?;
        known = found.candidates;
        if found.counts {
            decide.candidates(&known, rounding, Some(allowed))?;
            return Ok(decide.finish(&notes.scratch, false));
        }
    }
    let kept = ef.max(with_spare(options.k));
    let Notes {
        scratch,
        nearest,
        code,
    } = notes;
    let in_cells = parts
        .cells
        .filter(|_| way != SearchWay::Codes)
        .map(|cells| AllowedCells {
            allowed: nodes,
            cells,
        });
    let plan = |codes: &CodeSpace<'_>| Plan::new(options, ef, way == SearchWay::Graph, nodes, codes);
    let rounding = with_space(parts, query, code, |space| match (space, in_cells) {
        (Walk::Codes(codes, rounding), Some(cells)) => {
            look_into_cells(&cells, codes, codes, plan(codes), &known, nearest, scratch).map(|()| rounding)
        }
        (Walk::Codes(codes, rounding), None) => {
            compare_all(codes, nodes, kept, Stop(options.stop), scratch).map(|()| rounding)
        }
        // Distances from the code that is nearest to the query are none from the query, but order cells much as those do.
        (Walk::Floats(rows, Some(codes)), Some(cells)) => {
            look_into_cells(&cells, codes, rows, plan(codes), &known, nearest, scratch)
                .map(|()| Rounding::default())
        }
        (Walk::Floats(rows, _), _) => {
            compare_all(rows, nodes, kept, Stop(options.stop), scratch).map(|()| Rounding::default())
        }
    })?;
    decide.candidates(scratch.pool.candidates(), rounding, Some(allowed))?;
    Ok(decide.finish(scratch, false))
}

/// What a walk through all nodes found.
struct Found {
    /// The allowed ones, nearest first.
    candidates: Vec<Candidate>,
    /// Whether they are as many, and as near, as they would be if the filter had nothing to do with the query.
    counts: bool,
}

/// Walks the graph as if nothing were filtered, but wider.
fn walk_wider(
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    ef: usize,
    allowed: &AllowedNodes<'_>,
    notes: &mut Notes,
) -> Result<(Found, Rounding), SearchError> {
    let (parts, count) = (allowed.parts, allowed.rows.count());
    let width = width(parts, count, options.k, ef).min(parts.node_count() as usize);
    let rounding = walk(parts, query, width, Stop(options.stop), notes)?;
    let limit = expected_within(parts, count, options.k);
    let (mut candidates, mut near) = (Vec::new(), 0);
    for (rank, candidate) in notes.scratch.pool.candidates().iter().enumerate() {
        if allowed.admits(candidate.node()) {
            candidates.push(candidate.unmarked());
            near += usize::from(rank <= limit);
        }
    }
    let counts = candidates.len() >= enough(parts, count, options.k, width) && near >= options.k;
    Ok((Found { candidates, counts }, rounding))
}

/// Leaves near allowed nodes in the pool: those in the nearest cells, and their neighbours. What lies just
/// beyond a cell's edge is a neighbour of what lies within.
fn look_into_cells(
    cells: &AllowedCells<'_>,
    codes: &CodeSpace<'_>,
    rows: &impl Space,
    plan: Plan<'_>,
    known: &[Candidate],
    nearest: &mut Nearest,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let allowed = cells.allowed;
    let all = cells.search(codes, rows, plan, known, nearest, scratch)?;
    if all || allowed.rows.count().saturating_mul(100) < allowed.parts.row_count() * CONNECTED {
        return Ok(());
    }
    search_among(allowed.parts.links, rows, 0, allowed, plan.stop, scratch)
}

/// Codes that are on their way from memory while others are compared.
const BLOCK: usize = 32;

/// Leaves the nearest allowed nodes in the pool.
fn compare_all(
    space: &impl Space,
    allowed: &AllowedNodes<'_>,
    kept: usize,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let parts = allowed.parts;
    let Scratch {
        pool,
        keys,
        visited,
        fresh,
        ..
    } = scratch;
    pool.reset(kept);
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
    nodes.iter().take(BLOCK).for_each(|&node| space.prefetch(node));
    while let Some(block) = blocks.next() {
        if let Some(next) = blocks.peek() {
            next.iter().for_each(|&node| space.prefetch(node));
        }
        let keys = &mut keys[..block.len()];
        space.keys(block, keys);
        // Hardly any gets in once there are some.
        for place in Ones(kernels::at_most(isa, keys, pool.threshold().key())) {
            let place = place as usize;
            pool.push(Candidate::new(keys[place], block[place]));
        }
        stop.check()?;
    }
    scratch.distances += nodes.len() as u64;
    Ok(())
}

/// Looks at the vector of every allowed row.
fn exact(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    allowed: &RowSet,
    scratch: &Scratch,
) -> Result<SearchOutcome, SearchError> {
    let mut decide = Decide::new(parts, query, options);
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
            return Ok(decide.finish(scratch, true));
        }
        for &(row, node) in &block {
            decide.row(row, node);
        }
    }
}
