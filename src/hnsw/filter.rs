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

use super::cells::{AllowedCells, Plan, admits};
use super::cost::{cheapest, enough, expected_within, width};
use super::decide::Decide;
use super::graph::Parts;
use super::query::{Notes, Query, SearchError, SearchOptions, SearchOutcome, Stop, walk};
use super::rounding::Rounding;
use super::rowset::RowSet;
use super::search::{Candidate, Scratch, Space, search_among};
use super::spaces::{CodeSpace, Walk, with_space};
use crate::id::RowId;

/// How to search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SearchWay {
    /// The cheapest by a model of costs.
    #[default]
    Auto,
    /// Look at the vector of every row, or of every allowed one; exact.
    Exact,
    /// Compare the codes of all allowed rows; without such, as [`Graph`](Self::Graph).
    Codes,
    /// Compare the codes of the allowed rows that are in the cells nearest to the query; without such, as
    /// [`Graph`](Self::Graph).
    Cells,
    /// Walk the graph. Like the others it is exact if `ef` is as many as there are nodes.
    Graph,
}

/// Allowed rows of cells, for each of `ef`, that are compared though none of them improves the answer.
const PATIENCE: usize = 16;
/// The same where a walk found enough rows, but hardly near ones; and where it found too few: the query is far from the
/// rows that are allowed, and many of them are nearly as far as the nearest.
const PATIENCE_DOUBT: usize = 32;
const PATIENCE_FAR: usize = 80;
/// A filtered walk begins in as many cells as one of so many candidates, at least: what is allowed may be in any of those
/// that are about as near.
const ENTERS: usize = 224;
/// The fewest rows in a hundred that must be allowed for a walk from allowed row to allowed row.
const CONNECTED: u64 = 4;

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
    let stop = Stop(options.stop);
    let way = match options.way {
        SearchWay::Auto if few => SearchWay::Exact,
        SearchWay::Auto => cheapest(parts, count, options.k, ef),
        chosen => chosen,
    };
    let (mut patience, mut known) = (PATIENCE, Vec::new());
    match way {
        SearchWay::Exact => return exact(parts, query, options, allowed, &notes.scratch),
        SearchWay::Graph | SearchWay::Auto => {
            let width = width(parts, count, options.k, ef).min(nodes);
            let rounding = walk(parts, query, width, width.max(ENTERS), stop, notes)?;
            let mut near = 0;
            let limit = expected_within(parts, count, options.k);
            for (rank, candidate) in notes.scratch.pool.candidates().iter().enumerate() {
                if admits(parts, allowed, candidate.node()) {
                    known.push(candidate.unmarked());
                    near += usize::from(rank <= limit);
                }
            }
            let many = known.len() >= enough(parts, count, options.k, width);
            if many && near >= options.k {
                let mut decide = Decide::new(parts, query, options);
                decide.candidates(&known, rounding, Some(allowed))?;
                return Ok(decide.finish(&notes.scratch, false));
            }
            patience = if many { PATIENCE_DOUBT } else { PATIENCE_FAR };
        }
        SearchWay::Codes | SearchWay::Cells => {}
    }
    let Notes { scratch, code } = notes;
    let rounding = with_space(parts, query, code, |space| match (space, parts.cells) {
        (Walk::Codes(space, rounding), Some(cells)) if way != SearchWay::Codes => {
            let cells = AllowedCells {
                parts,
                cells,
                allowed,
            };
            let plan = Plan {
                k: options.k,
                ef: ef.saturating_add(ef / 2),
                patience: ef.saturating_mul(patience),
                stop,
            };
            look_into_cells(&cells, space, plan, &known, scratch).map(|()| rounding)
        }
        (Walk::Codes(space, rounding), _) => {
            compare_all(parts, space, allowed, ef, stop, scratch).map(|()| rounding)
        }
        (Walk::Floats(space), _) => {
            compare_all(parts, space, allowed, ef, stop, scratch).map(|()| Rounding::default())
        }
    })?;
    let mut decide = Decide::new(parts, query, options);
    decide.candidates(scratch.pool.candidates(), rounding, Some(allowed))?;
    Ok(decide.finish(scratch, false))
}

/// Leaves near allowed nodes in the pool: those in the nearest cells, and their neighbours. What lies just
/// beyond a cell's edge is a neighbour of what lies within.
fn look_into_cells(
    cells: &AllowedCells<'_>,
    space: &CodeSpace<'_>,
    plan: Plan<'_>,
    known: &[Candidate],
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let (parts, allowed) = (cells.parts, cells.allowed);
    let all = cells.search(space, plan, known, scratch)?;
    if all || allowed.count().saturating_mul(100) < parts.row_count() * CONNECTED {
        return Ok(());
    }
    search_among(
        parts.links,
        space,
        0,
        |node| admits(parts, allowed, node),
        plan.stop,
        scratch,
    )
}

/// The nodes of the allowed rows, in the order of the rows. A node comes as often as it has allowed rows.
fn nodes<'a>(parts: &'a Parts<'_>, allowed: &'a RowSet) -> impl Iterator<Item = (RowId, u32)> + 'a {
    let node = |row: RowId| parts.slot_of(row.get()).filter(|&slot| slot < parts.node_count());
    allowed.iter().filter_map(move |row| Some((row, node(row)?)))
}

/// Codes that are on their way from memory while others are compared.
const BLOCK: usize = 32;

/// Leaves the nearest allowed nodes in the pool.
fn compare_all(
    parts: &Parts<'_>,
    space: &impl Space,
    allowed: &RowSet,
    ef: usize,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let Scratch {
        pool, keys, visited, ..
    } = scratch;
    pool.reset(ef);
    // Only nodes of several rows can come twice.
    let twice = !parts.node_rows.starts.is_empty();
    if twice {
        visited.reset(parts.node_count());
    }
    keys.clear();
    keys.resize(BLOCK, 0);
    let (mut arriving, mut arrived) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
    let mut nodes = nodes(parts, allowed)
        .map(|(_, node)| node)
        .filter(|&node| !twice || visited.insert(node));
    loop {
        arriving.clear();
        for node in nodes.by_ref().take(BLOCK) {
            space.prefetch(node);
            arriving.push(node);
        }
        let keys = &mut keys[..arrived.len()];
        space.keys(&arrived, keys);
        scratch.distances += arrived.len() as u64;
        for (&node, &key) in arrived.iter().zip(&*keys) {
            pool.push(Candidate::new(key, node));
        }
        if arriving.is_empty() {
            return Ok(());
        }
        stop.check()?;
        std::mem::swap(&mut arriving, &mut arrived);
    }
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
    let mut nodes = nodes(parts, allowed);
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
