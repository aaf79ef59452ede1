//! Search among the allowed rows only.
//!
//! The cheaper of two ways is taken, by a model of costs ([`cheaper`]):
//!
//! - compare the codes of all allowed rows, and decide among the nearest by their vectors;
//! - walk the graph as if nothing were filtered, but wider, and keep what is allowed. If that leaves too
//!   few, because the query's neighbourhood is not where the allowed rows are, compare their codes after
//!   all.
//!
//! If no more rows are allowed than candidates would be kept, each of them is looked at: the answer is exact.

use super::graph::Parts;
use super::cells::{Ordered, Plan, admits};
use super::decide::Decide;
use super::query::{Notes, Query, SearchError, SearchOptions, SearchOutcome, walk};
use super::rowset::RowSet;
use super::search::{Candidate, Scratch, Space, search_among};
use super::spaces::{CodeSpace, Walk, with_space};
use crate::id::RowId;

/// How to search among allowed rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterWay {
    /// The cheapest by the model of costs.
    #[default]
    Auto,
    /// Look at the vector of every allowed row; exact.
    Exact,
    /// Compare the codes of all allowed rows.
    Codes,
    /// Compare the codes of the allowed rows that are in the cells nearest to the query.
    Cells,
    /// Walk the graph.
    Graph,
}

/// What a candidate of a walk costs, in comparisons of one allowed row's code. Fitted on 200,000 x 128 and
/// 12,000 x 384; the data of the fit are in `docs/ENGINE.md`.
const CANDIDATE: f64 = 28.0;
/// How much wider than `ef / share` a walk must be so that as many of the true neighbours are found: less,
/// since a walk that is wide anyway finds nearly all of them.
const WIDER: f64 = 0.7;
/// A walk that finds fewer allowed candidates than `ef` divided by this has looked in the wrong place.
const TOO_FEW: usize = 2;

/// The width of a walk that finds about `ef` allowed candidates.
fn width(parts: &Parts<'_>, count: u64, ef: usize) -> usize {
    let share = count as f64 / parts.row_count().max(1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, which is meant"
    )]
    let wide = (ef as f64 / share * WIDER) as usize;
    wide.max(ef)
}

/// Which way is cheaper for `count` allowed rows.
fn cheaper(parts: &Parts<'_>, count: u64, ef: usize) -> FilterWay {
    let walk = width(parts, count, ef) as f64 * CANDIDATE;
    if count as f64 <= walk {
        FilterWay::Codes
    } else {
        FilterWay::Graph
    }
}

/// Finds the nearest allowed rows.
pub(crate) fn search(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    allowed: &RowSet,
    notes: &mut Notes,
) -> Result<SearchOutcome, SearchError> {
    let ef = options.ef.max(options.k);
    let count = allowed.count();
    let few = usize::try_from(count).unwrap_or(usize::MAX) <= ef || ef >= parts.node_count() as usize;
    let way = match options.way {
        FilterWay::Auto if few => FilterWay::Exact,
        FilterWay::Auto => cheaper(parts, count, ef),
        chosen => chosen,
    };
    match way {
        FilterWay::Exact => return Ok(exact(parts, query, options, allowed, &notes.scratch)),
        FilterWay::Graph | FilterWay::Auto => {
            walk(parts, query, width(parts, count, ef), notes)?;
            let mut found = Vec::with_capacity(ef);
            for candidate in notes.scratch.pool.candidates() {
                if admits(parts, allowed, candidate.node()) {
                    found.push(*candidate);
                }
            }
            if found.len() >= (ef / TOO_FEW).max(options.k) {
                let mut decide = Decide::new(parts, query, options);
                decide.candidates(&found, Some(allowed))?;
                return Ok(decide.finish(&notes.scratch, false));
            }
        }
        FilterWay::Codes | FilterWay::Cells => {}
    }
    if way != FilterWay::Codes && let Some(cells) = parts.cells {
        let Notes { scratch, code } = notes;
        let ordered = Ordered { parts, cells, allowed };
        let found = with_space(parts, query, code, |space| match space {
            Walk::Codes(space) => Some(by_cells(parts, space, &ordered, options, scratch)),
            Walk::Floats(_) => None,
        });
        if let Some(found) = found {
            found?;
            let mut decide = Decide::new(parts, query, options);
            decide.candidates(scratch.pool.candidates(), Some(allowed))?;
            return Ok(decide.finish(scratch, false));
        }
    }
    let Notes { scratch, code } = notes;
    with_space(parts, query, code, |space| match space {
        Walk::Codes(space) => compare_all(parts, space, allowed, ef, scratch),
        Walk::Floats(space) => compare_all(parts, space, allowed, ef, scratch),
    });
    let mut decide = Decide::new(parts, query, options);
    decide.candidates(scratch.pool.candidates(), Some(allowed))?;
    Ok(decide.finish(scratch, false))
}

fn number(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).ok().and_then(|t| t.parse().ok()).unwrap_or(otherwise)
}

fn by_cells(
    parts: &Parts<'_>,
    space: &CodeSpace<'_>,
    ordered: &Ordered<'_>,
    options: &SearchOptions<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let allowed = ordered.allowed;
    let share = allowed.count() as f64 / parts.row_count().max(1) as f64;
    let nearby = ordered.share_nearby(space, scratch)?;
    let elsewhere = nearby < share * 0.5;
    let walks = share >= number("WALK", 0.15);
    let ef = options.ef.max(options.k);
    let patience = ef as f64 * match (walks, elsewhere) {
        (true, false) => number("P1", 6.0),
        (true, true) => number("P2", 25.0),
        (false, false) => number("P3", 25.0),
        (false, true) => number("P4", 40.0),
    };
    let wide = (ef as f64 * if elsewhere { number("E2", 4.0) } else { number("E1", 1.0) }) as usize;
    let plan = Plan { k: options.k, ef: wide, patience: patience as usize };
    let all = ordered.search(space, plan, scratch)?;
    if !all && (walks || elsewhere) {
        search_among(parts.links, space, 0, |node| admits(parts, allowed, node), scratch)?;
    }
    Ok(())
}

/// The nodes of the allowed rows, in the order of the rows. A node comes as often as it has allowed rows.
fn nodes<'a>(parts: &'a Parts<'_>, allowed: &'a RowSet) -> impl Iterator<Item = (RowId, u32)> + 'a {
    let node = |row: RowId| parts.slot_of(row.get()).filter(|&slot| slot < parts.node_count());
    allowed.iter().filter_map(move |row| Some((row, node(row)?)))
}

/// Codes that are on their way from memory while others are compared.
const BLOCK: usize = 32;

/// Leaves the nearest allowed nodes in the pool.
fn compare_all(parts: &Parts<'_>, space: &impl Space, allowed: &RowSet, ef: usize, scratch: &mut Scratch) {
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
            return;
        }
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
) -> SearchOutcome {
    let mut decide = Decide::new(parts, query, options);
    let mut block = Vec::with_capacity(BLOCK);
    let mut nodes = nodes(parts, allowed);
    loop {
        block.clear();
        block.extend(
            nodes
                .by_ref()
                .take(BLOCK / 4)
                .inspect(|&(_, node)| parts.vectors.prefetch(node)),
        );
        if block.is_empty() {
            return decide.finish(scratch, true);
        }
        for &(row, node) in &block {
            decide.row(row, node);
        }
    }
}
