//! The one search loop, and the notes it keeps.

use super::graph::{Damaged, Links, NO_LINK};
use super::kernels::{self, Isa};
pub(crate) use super::pool::{Candidate, Pool};

/// Where distances to the query come from. Keys order like the distances: smaller is nearer.
pub(crate) trait Space {
    /// The keys of `ids`; as many as `keys` has room for.
    fn keys(&self, ids: &[u32], keys: &mut [u32]);

    /// Says that the key of `id` will soon be asked for.
    fn prefetch(&self, id: u32);
}

/// The nodes already met: a bit for each, cleared through the list of touched words.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    words: Vec<u64>,
    /// Places of the words that are not 0, and one more place, which may hold anything.
    touched: Vec<u32>,
    touched_len: usize,
}

impl Visited {
    /// Forgets everything and makes room for `nodes`, and one more: number `nodes` counts as met.
    pub(crate) fn reset(&mut self, nodes: u32) {
        for word in &self.touched[..self.touched_len] {
            self.words[*word as usize] = 0;
        }
        self.touched_len = 0;
        let words = nodes as usize / 64 + 1;
        if self.words.len() < words {
            self.words.resize(words, 0);
            self.touched.resize(words + 1, 0);
        }
        self.insert(nodes);
    }

    /// True the first time that a node is met.
    #[inline(always)]
    pub(crate) fn insert(&mut self, node: u32) -> bool {
        // No branch: whether a node is new is a toss-up.
        let word = &mut self.words[(node / 64) as usize];
        let bit = 1u64 << (node % 64);
        let new = *word & bit == 0;
        self.touched[self.touched_len] = node / 64;
        self.touched_len += usize::from(*word == 0);
        *word |= bit;
        new
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

/// Nodes whose neighbours are looked at together, so that waiting for one's codes is waiting for all.
const TOGETHER: usize = 2;

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
    kernels::with_instructions(Isa::best(), #[inline(always)] || walk_layer(links, space, layer, scratch))
}

#[inline(always)]
fn walk_layer(
    links: Links<'_>,
    space: &impl Space,
    layer: usize,
    scratch: &mut Scratch,
) -> Result<(), Damaged> {
    let count = links.levels.get(layer).copied().unwrap_or(0);
    let Scratch {
        visited,
        pool,
        fresh,
        keys,
        ..
    } = scratch;
    visited.reset(count);
    for candidate in pool.candidates() {
        visited.insert(candidate.node());
    }
    let (mut hops, mut distances, mut damaged) = (0, 0, false);
    let most = 4 * 2 * links.m;
    if fresh.len() < most + 1 {
        fresh.resize(most + 1, 0);
        keys.resize(most, 0);
    }
    static W: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| std::env::var("W").ok().and_then(|x| x.parse().ok()).unwrap_or(1));
    let w = *W;
    loop {
        let mut met = 0;
        let mut taken = 0;
        let w = if pool.is_full() { w } else { 1 };
        while taken < w && let Some(node) = pool.next() {
            taken += 1;
            for eight in links.slots(node, layer).chunks(8) {
                if eight[0] == NO_LINK.to_le_bytes() {
                    break;
                }
                for &slot in eight {
                    let id = u32::from_le_bytes(slot);
                    damaged |= id >= count && id != NO_LINK;
                    let id = id.min(count);
                    fresh[met] = id;
                    met += usize::from(visited.insert(id));
                }
            }
        }
        if taken == 0 {
            break;
        }
        let (ids, keys) = (&fresh[..met], &mut keys[..met]);
        for &id in ids {
            space.prefetch(id);
        }
        for place in 0..w {
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
            if new < pool.threshold() {
                if pool.insert(new) {
                    kernels::prefetch(links.slots(id, layer).as_flattened());
                }
            }
        }
    }
    scratch.nodes_visited += hops;
    scratch.distances += distances;
    if damaged {
        return Err(Damaged {
            section: if layer == 0 { "links" } else { "upper" },
        });
    }
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
