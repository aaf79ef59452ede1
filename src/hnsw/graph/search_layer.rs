//! The beam search of one layer (Algorithm 2), and the memory that it reuses.

use super::candidate_list::{Candidate, CandidateList};
use super::distance_computer::DistanceComputer;
use super::links::Links;
use super::node_filter::{EveryNode, NodeFilter};
use super::visited::Visited;
use crate::hnsw::error::{Damaged, SearchError, Stop};
use crate::hnsw::kernels::{self, Isa};

/// The paper's *v*, *C* and *W*, the neighbors of a hop and the entry points of a layer, reused between searches.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) visited: Visited,
    pub(crate) candidate_list: CandidateList,
    pub(crate) fresh: Vec<u32>,
    pub(crate) arrived: Vec<u32>,
    pub(crate) keys: Vec<u32>,
    /// A word for each of some clusters, see [`compare`](crate::hnsw::clusters::inverted_lists::compare).
    pub(crate) order: Vec<u64>,
    entries: Vec<Candidate>,
    pub(crate) nodes_visited: u64,
    pub(crate) distances: u64,
}

impl Scratch {
    /// The bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        let numbers = self.fresh.capacity() + self.arrived.capacity() + self.keys.capacity();
        let words = self.order.capacity() + self.entries.capacity();
        self.visited.bytes() + self.candidate_list.bytes() + 4 * numbers + 8 * words
    }
}

/// Candidates whose neighbors are collected and compared together, once `ef` candidates are found. Their codes
/// are then on their way from memory at the same time, and nearly all of these candidates would be expanded
/// anyway.
const TOGETHER: usize = 3;
/// Cache lines of codes for each neighbor that may be on their way at a time. Longer codes mean fewer candidates
/// together.
const LINES: usize = 8;
/// Entry points that a layer hands down, at most. With one, a descent ends in the wrong cluster now and then.
const ENTRIES: usize = 8;
/// Nodes of the layer for each entry point.
const NODES_AN_ENTRY: u32 = 1500;

/// Rounds of a beam search after which it asks whether to stop. A round computes up to 100 distances.
const CHECKED: u32 = 64;

/// Searches one layer for the `ef` nodes nearest to the query (Algorithm 2), beginning with what the candidate
/// list holds, and leaves them there.
///
/// # Errors
///
/// If a list names a node that the layer does not have, or the caller asked to stop.
pub(crate) fn search_layer(
    links: Links<'_>,
    computer: &impl DistanceComputer,
    layer: usize,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    search_among(links, computer, layer, &EveryNode, stop, scratch)
}

/// [`search_layer`] over the nodes that `filter` allows; it does not pass through others.
///
/// # Errors
///
/// If a list names a node that the layer does not have, or the caller asked to stop.
pub(crate) fn search_among(
    links: Links<'_>,
    computer: &impl DistanceComputer,
    layer: usize,
    filter: &impl NodeFilter,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    scratch.visited.reset(links.count(layer));
    for candidate in scratch.candidate_list.candidates() {
        scratch.visited.insert(candidate.node());
    }
    go_on(links, computer, layer, filter, stop, scratch)
}

/// The rest of [`search_among`], after the candidates were marked as visited.
///
/// # Errors
///
/// If a list names a node that the layer does not have, or the caller asked to stop.
pub(crate) fn go_on(
    links: Links<'_>,
    computer: &impl DistanceComputer,
    layer: usize,
    filter: &impl NodeFilter,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let isa = Isa::best();
    kernels::with_instructions(
        isa,
        #[inline(always)]
        || search_layer_over(isa, links, computer, layer, filter, stop, scratch),
    )
}

#[inline(always)]
fn search_layer_over(
    isa: Isa,
    links: Links<'_>,
    computer: &impl DistanceComputer,
    layer: usize,
    filter: &impl NodeFilter,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let count = links.count(layer);
    let Scratch {
        visited,
        candidate_list,
        fresh,
        keys,
        ..
    } = scratch;
    let (mut hops, mut distances, mut damaged, mut rounds) = (0, 0, false, 0u32);
    let together = (LINES / computer.bytes().div_ceil(64)).clamp(1, TOGETHER);
    let most = together * (2 * links.m).next_multiple_of(16);
    fresh.resize(fresh.len().max(most), 0);
    keys.resize(keys.len().max(most), 0);
    loop {
        let mut met = 0;
        let mut taken = 0;
        let wanted = if candidate_list.is_full() { together } else { 1 };
        while taken < wanted
            && let Some(node) = candidate_list.next()
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
            if candidate_list.is_full() || count == 0 || !visited.insert(0) || filter.keep(&mut [0]) == 0 {
                break;
            }
            computer.keys(&[0], &mut keys[..1]);
            distances += 1;
            candidate_list.push(Candidate::new(keys[0], 0));
            continue;
        }
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(CHECKED) {
            stop.check()?;
        }
        let (ids, keys) = (&fresh[..met], &mut keys[..met]);
        for &id in ids {
            computer.prefetch(id);
        }
        for place in 0..together {
            if let Some(upcoming) = candidate_list.upcoming(place) {
                kernels::prefetch(links.slots(upcoming, layer).as_flattened());
            }
        }
        hops += taken as u64;
        computer.keys(ids, keys);
        distances += met as u64;
        candidate_list.reserve(met);
        for (&id, &key) in ids.iter().zip(&*keys) {
            let new = Candidate::new(key, id);
            if new < candidate_list.threshold() && candidate_list.insert(new) {
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

/// Descends from the entry point to `layer` (the first loop of Algorithm 5) and leaves the candidate list ready for a
/// search of that layer with `ef` candidates.
///
/// # Errors
///
/// If a list names a node that its layer does not have, or the caller asked to stop.
pub(crate) fn descend(
    links: Links<'_>,
    computer: &impl DistanceComputer,
    layer: usize,
    ef: usize,
    stop: Stop<'_>,
    scratch: &mut Scratch,
) -> Result<(), SearchError> {
    let mut key = [0];
    computer.keys(&[0], &mut key);
    scratch.distances += 1;
    scratch.candidate_list.reset(1);
    scratch.candidate_list.push(Candidate::new(key[0], 0));
    for above in (layer + 1..=links.top()).rev() {
        let entries = (links.levels[above] / NODES_AN_ENTRY) as usize;
        enter(scratch, entries.clamp(1, ENTRIES));
        search_layer(links, computer, above, stop, scratch)?;
    }
    enter(scratch, ef);
    Ok(())
}

/// Makes what the candidate list holds the entry points of a search with `ef` candidates.
fn enter(scratch: &mut Scratch, ef: usize) {
    let Scratch {
        candidate_list,
        entries,
        ..
    } = scratch;
    entries.clear();
    entries.extend_from_slice(candidate_list.candidates());
    candidate_list.reset(ef);
    for entry in &*entries {
        candidate_list.push(Candidate::new(entry.key(), entry.node()));
    }
}
