//! The one search loop, and the notes it keeps.

use super::candidate_list::{Candidate, Pool};
use super::distance_computer::Space;
use super::links::Links;
use super::node_filter::{EveryNode, NodeFilter};
use super::visited::Visited;
use crate::hnsw::error::{Damaged, SearchError, Stop};
use crate::hnsw::kernels::{self, Isa};

/// The paper's *v*, *C* and *W*, the neighbours of a hop and the entries to a layer; reused between searches.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) visited: Visited,
    pub(crate) pool: Pool,
    pub(crate) fresh: Vec<u32>,
    pub(crate) arrived: Vec<u32>,
    pub(crate) keys: Vec<u32>,
    /// A word for each of some cells or groups, see [`compare`](crate::hnsw::clusters::inverted_lists::compare).
    pub(crate) order: Vec<u64>,
    entries: Vec<Candidate>,
    pub(crate) nodes_visited: u64,
    pub(crate) distances: u64,
}

/// Nodes whose neighbours are looked at together once `ef` candidates are found: what they are compared by is
/// waited for once, and nearly all of them would have their turn anyway. Fewer, if their cache lines would
/// queue up.
const TOGETHER: usize = 3;
/// Cache lines of codes that are on their way at a time are enough at so many for each neighbour.
const LINES: usize = 8;
/// Candidates that a layer hands down, at most: one leads to the wrong cluster now and then.
const ENTRIES: usize = 8;
/// Nodes of the layer for each of them.
const NODES_AN_ENTRY: u32 = 1500;

/// Rounds of a walk, of up to 100 distances each, after which it asks whether to stop.
const CHECKED: u32 = 64;

/// Searches one layer for the `ef` nodes nearest to the query (Algorithm 2), from what the pool holds.
///
/// Leaves them in the pool, nearest first.
///
/// # Errors
///
/// If a list names a node that the layer does not have, or the caller asked to stop.
pub(crate) fn search_layer(
    links: Links<'_>,
    space: &impl Space,
    layer: usize,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    search_among(links, space, layer, &EveryNode, stop, scratch)
}

/// [`search_layer`] over those nodes alone that `filter` lets in; the others are not gone through.
///
/// # Errors
///
/// If a list names a node that the layer does not have, or the caller asked to stop.
pub(crate) fn search_among(
    links: Links<'_>,
    space: &impl Space,
    layer: usize,
    filter: &impl NodeFilter,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    scratch.visited.reset(links.count(layer));
    for candidate in scratch.pool.candidates() {
        scratch.visited.insert(candidate.node());
    }
    go_on(links, space, layer, filter, stop, scratch)
}

/// The rest of [`search_among`], where the nodes that were met are noted already.
///
/// # Errors
///
/// If a list names a node that the layer does not have, or the caller asked to stop.
pub(crate) fn go_on(
    links: Links<'_>,
    space: &impl Space,
    layer: usize,
    filter: &impl NodeFilter,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let isa = Isa::best();
    kernels::with_instructions(
        isa,
        #[inline(always)]
        || walk_layer(isa, links, space, layer, filter, stop, scratch),
    )
}

#[inline(always)]
fn walk_layer(
    isa: Isa,
    links: Links<'_>,
    space: &impl Space,
    layer: usize,
    filter: &impl NodeFilter,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let count = links.count(layer);
    let Scratch {
        visited,
        pool,
        fresh,
        keys,
        ..
    } = scratch;
    let (mut hops, mut distances, mut damaged, mut rounds) = (0, 0, false, 0u32);
    let together = (LINES / space.bytes().div_ceil(64)).clamp(1, TOGETHER);
    let most = together * (2 * links.m).next_multiple_of(16);
    fresh.resize(fresh.len().max(most), 0);
    keys.resize(keys.len().max(most), 0);
    loop {
        let mut met = 0;
        let mut taken = 0;
        let wanted = if pool.is_full() { together } else { 1 };
        while taken < wanted
            && let Some(node) = pool.next()
        {
            taken += 1;
            let slots = links.slots(node, layer);
            let (unmet, bad) = kernels::unmet(isa, slots, &visited.words, count, &mut fresh[met..]);
            damaged |= bad;
            let admitted = filter.keep(&mut fresh[met..met + unmet]);
            met += visited.keep_new(&mut fresh[met..met + admitted]);
        }
        if taken == 0 {
            // Short of candidates: the entry point leads to what links from here do not lead back to.
            if pool.is_full() || count == 0 || !visited.insert(0) || filter.keep(&mut [0]) == 0 {
                break;
            }
            space.keys(&[0], &mut keys[..1]);
            distances += 1;
            pool.push(Candidate::new(keys[0], 0));
            continue;
        }
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(CHECKED) {
            stop.check()?;
        }
        let (ids, keys) = (&fresh[..met], &mut keys[..met]);
        for &id in ids {
            space.prefetch(id);
        }
        for place in 0..together {
            if let Some(upcoming) = pool.upcoming(place) {
                kernels::prefetch(links.slots(upcoming, layer).as_flattened());
            }
        }
        hops += taken as u64;
        space.keys(ids, keys);
        distances += met as u64;
        pool.reserve(met);
        for (&id, &key) in ids.iter().zip(&*keys) {
            let new = Candidate::new(key, id);
            if new < pool.threshold() && pool.insert(new) {
                kernels::prefetch(links.slots(id, layer).as_flattened());
            }
        }
    }
    scratch.nodes_visited += hops;
    scratch.distances += distances;
    if damaged {
        let section = if layer == 0 { "links" } else { "upper" };
        return Err(Damaged { section }.into());
    }
    Ok(())
}

/// Descends from the entry point to `layer` (the first loop of Algorithm 5) and leaves the pool ready for a
/// search of that layer with `ef` candidates.
///
/// # Errors
///
/// If a list names a node that its layer does not have, or the caller asked to stop.
pub(crate) fn descend(
    links: Links<'_>,
    space: &impl Space,
    layer: usize,
    ef: usize,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let mut key = [0];
    space.keys(&[0], &mut key);
    scratch.distances += 1;
    scratch.pool.reset(1);
    scratch.pool.push(Candidate::new(key[0], 0));
    for above in (layer + 1..=links.top()).rev() {
        let entries = (links.levels[above] / NODES_AN_ENTRY) as usize;
        enter(scratch, entries.clamp(1, ENTRIES));
        search_layer(links, space, above, stop, scratch)?;
    }
    enter(scratch, ef);
    Ok(())
}

/// Makes what the pool holds the entries of a search with `ef` candidates.
fn enter(scratch: &mut Scratch, ef: usize) {
    let Scratch { pool, entries, .. } = scratch;
    entries.clear();
    entries.extend_from_slice(pool.candidates());
    pool.reset(ef);
    for entry in &*entries {
        pool.push(Candidate::new(entry.key(), entry.node()));
    }
}
