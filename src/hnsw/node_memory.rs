//! What a set of rows remembers of the nodes of an index, so that the next search with the same filter need not find it
//! out again.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ids::IndexId;

/// What a filter makes of the nodes of an index, as far as that is known.
#[derive(Debug)]
pub(crate) struct NodeBits {
    /// A bit for each node: whether it is let in.
    words: Vec<AtomicU64>,
    /// A bit for each of the words: whether it is known.
    known: Vec<AtomicU64>,
}

impl NodeBits {
    fn new(node_count: u32) -> Self {
        let zeros = |count: usize| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        let words = node_count.div_ceil(64) as usize;
        Self {
            words: zeros(words),
            known: zeros(words.div_ceil(64)),
        }
    }

    /// The bits of the 64 nodes from 64 times `place` on, if they are known.
    #[inline(always)]
    pub(crate) fn get(&self, place: usize) -> Option<u64> {
        let known = self.known.get(place / 64)?.load(Ordering::Acquire) >> (place % 64) & 1 == 1;
        known.then(|| self.words[place].load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, place: usize, bits: u64) {
        if let (Some(word), Some(known)) = (self.words.get(place), self.known.get(place / 64)) {
            word.store(bits, Ordering::Relaxed);
            known.fetch_or(1 << (place % 64), Ordering::Release);
        }
    }
}

/// What a set of rows remembers of the nodes of the first index that it was asked about, from the second time on. Sets are
/// equal whatever they remember, and one that changes forgets it.
#[derive(Debug, Default)]
pub(crate) struct NodeMemory {
    index: OnceLock<IndexId>,
    bits: OnceLock<NodeBits>,
    /// The nodes of all allowed rows, ascending, once all are asked for; none if they are too many to be remembered.
    pub(crate) listed: OnceLock<Box<[u32]>>,
}

impl NodeMemory {
    /// The bits for this index, if it was asked about before.
    pub(crate) fn again(&self, index: IndexId, node_count: u32) -> Option<&NodeBits> {
        let mut again = true;
        let first = self.index.get_or_init(|| {
            again = false;
            index
        });
        (again && *first == index).then(|| self.bits.get_or_init(|| NodeBits::new(node_count)))
    }
}

/// How many nodes are remembered one by one, of a set over so many rows: an eighth, and more if they are few.
pub(crate) fn most_listed(rows: u64) -> u64 {
    (rows / 8).max(16_384).min(rows)
}

/// The bytes that a set of `count` of so many rows remembers at most: the bits, and the list if they are few.
pub(crate) fn most_remembered(rows: u64, count: u64) -> u64 {
    let listed = if count <= most_listed(rows) { 4 * count } else { 0 };
    rows / 8 + rows / 512 + listed
}

/// The same of a set of any of so many rows.
pub(crate) fn most_remembered_of_any(rows: u64) -> u64 {
    most_remembered(rows, most_listed(rows))
}

impl Clone for NodeMemory {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for NodeMemory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for NodeMemory {}
