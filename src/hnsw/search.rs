//! The one search loop, and the notes it keeps.

use super::graph::{Damaged, Links};
use super::kernels;

/// Where distances to the query come from. Keys order like the distances: smaller is nearer.
pub(crate) trait Space {
    /// The keys of `ids`; as many as `keys` has room for.
    fn keys(&self, ids: &[u32], keys: &mut [u32]);

    /// Says that the key of `id` will soon be asked for.
    fn prefetch(&self, id: u32);
}

/// A node and its key, in one word: ordered by key, then id. The lowest bit is the pool's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate(u64);

impl Candidate {
    pub(crate) fn new(key: u32, node: u32) -> Self {
        Self(u64::from(key) << 32 | u64::from(node) << 1)
    }

    pub(crate) fn key(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("32 bits")
    }

    pub(crate) fn node(self) -> u32 {
        u32::try_from(self.0 & 0xFFFF_FFFF).expect("32 bits") >> 1
    }
}

/// The nearest candidates found so far, in one sorted array: the paper's *C* and *W* together. A
/// candidate whose neighbours were looked at is marked and stays.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    found: Vec<Candidate>,
    capacity: usize,
    /// All before this are marked.
    cursor: usize,
}

impl Pool {
    pub(crate) fn reset(&mut self, capacity: usize) {
        self.found.clear();
        self.capacity = capacity.max(1);
        self.cursor = 0;
    }

    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.found
    }

    /// Candidates with keys above this cannot get in.
    #[inline]
    pub(crate) fn threshold(&self) -> u32 {
        match self.found.last() {
            Some(last) if self.found.len() == self.capacity => last.key(),
            _ => u32::MAX,
        }
    }

    /// Keeps the candidate if it is among the nearest. True if it is now the next to be looked at.
    #[inline]
    pub(crate) fn push(&mut self, new: Candidate) -> bool {
        if self.found.len() < self.capacity {
            self.found.push(new);
        } else if self.found.last().is_none_or(|last| new >= *last) {
            return false;
        }
        let last = self.found.len() - 1;
        let place = self.found[..last].partition_point(|old| *old < new);
        self.found.copy_within(place..last, place + 1);
        self.found[place] = new;
        let next = place <= self.cursor;
        if next {
            self.cursor = place;
        }
        next
    }

    /// Marks the nearest unmarked candidate and gives its node.
    #[inline]
    fn next(&mut self) -> Option<u32> {
        while let Some(candidate) = self.found.get_mut(self.cursor) {
            self.cursor += 1;
            if candidate.0 & 1 == 0 {
                candidate.0 |= 1;
                return Some(candidate.node());
            }
        }
        None
    }
}

impl Pool {
    /// The node that comes next, if nothing nearer is found before.
    #[inline]
    fn upcoming(&self) -> Option<u32> {
        self.found.get(self.cursor).map(|candidate| candidate.node())
    }
}

/// The nodes already met: a bit for each, cleared through the list of touched words.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Visited {
    /// Forgets everything and makes room for `nodes`.
    pub(crate) fn reset(&mut self, nodes: u32) {
        for word in self.touched.drain(..) {
            self.words[word as usize] = 0;
        }
        let words = nodes.div_ceil(64) as usize;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// True the first time that a node is met.
    #[inline]
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        let word = &mut self.words[(node / 64) as usize];
        let bit = 1u64 << (node % 64);
        if *word & bit != 0 {
            return false;
        }
        if *word == 0 {
            self.touched.push(node / 64);
        }
        *word |= bit;
        true
    }
}

/// The paper's *v*, *C* and *W*, and the neighbours of a hop; reused between searches.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) visited: Visited,
    pub(crate) pool: Pool,
    pub(crate) fresh: Vec<u32>,
    pub(crate) keys: Vec<u32>,
    pub(crate) nodes_visited: u64,
    pub(crate) distances: u64,
}

/// Searches one layer for the `ef` nodes nearest to the query (Algorithm 2), from what the pool holds.
///
/// Leaves them in the pool, nearest first.
///
/// # Errors
///
/// If a list names a node that the layer does not have.
pub(crate) fn search_layer(
    links: Links<'_>,
    space: &impl Space,
    layer: usize,
    scratch: &mut Scratch,
) -> Result<(), Damaged> {
    let count = links.levels.get(layer).copied().unwrap_or(0);
    scratch.visited.reset(count);
    for candidate in scratch.pool.candidates() {
        scratch.visited.insert(candidate.node());
    }
    let Scratch {
        visited,
        pool,
        fresh,
        keys,
        ..
    } = scratch;
    let (mut hops, mut distances) = (0, 0);
    fresh.clear();
    fresh.resize(2 * links.m, 0);
    keys.clear();
    keys.resize(2 * links.m, 0);
    while let Some(node) = pool.next() {
        hops += 1;
        let mut met = 0;
        for neighbour in links.neighbours(node, layer) {
            if neighbour >= count {
                return Err(Damaged {
                    section: if layer == 0 { "links" } else { "upper" },
                });
            }
            if visited.insert(neighbour) {
                space.prefetch(neighbour);
                fresh[met] = neighbour;
                met += 1;
            }
        }
        if let Some(upcoming) = pool.upcoming() {
            kernels::prefetch(links.slots(upcoming, layer).as_flattened());
        }
        let (ids, keys) = (&fresh[..met], &mut keys[..met]);
        space.keys(ids, keys);
        distances += met as u64;
        for (&id, &key) in ids.iter().zip(&*keys) {
            if key <= pool.threshold() && pool.push(Candidate::new(key, id)) {
                kernels::prefetch(links.slots(id, layer).as_flattened());
            }
        }
    }
    scratch.nodes_visited += hops;
    scratch.distances += distances;
    Ok(())
}

/// Descends from the entry point to `layer`, nearest node by nearest node (the first loop of
/// Algorithm 5), and leaves the pool ready for a search of that layer with `ef` candidates.
///
/// # Errors
///
/// If a list names a node that its layer does not have.
pub(crate) fn descend(
    links: Links<'_>,
    space: &impl Space,
    layer: usize,
    ef: usize,
    scratch: &mut Scratch,
) -> Result<(), Damaged> {
    let mut key = [0];
    space.keys(&[0], &mut key);
    scratch.distances += 1;
    let mut nearest = Candidate::new(key[0], 0);
    for layer in (layer + 1..=links.top()).rev() {
        scratch.pool.reset(1);
        scratch.pool.push(nearest);
        search_layer(links, space, layer, scratch)?;
        nearest = scratch.pool.candidates()[0];
    }
    scratch.pool.reset(ef);
    scratch.pool.push(Candidate::new(nearest.key(), nearest.node()));
    Ok(())
}
