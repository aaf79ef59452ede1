//! What a set of rows remembers about the nodes of an index, so that the next search with the same filter is
//! quicker.
//!
//! It is plain data that knows nothing of searches, so a set of rows can own it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ids::IndexId;

/// Which nodes of an index a filter allows, as far as that was found out.
#[derive(Debug)]
pub(crate) struct NodeBits {
    /// A bit for each node: whether it is allowed.
    words: Vec<AtomicU64>,
    /// A bit for each of the words: whether it was found out.
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

/// What a set of rows remembers of the first index that it was used for, from the second search on.
///
/// Two sets are equal whatever they remember. A set that changes forgets everything.
#[derive(Debug, Default)]
pub(crate) struct NodeMemory {
    index: OnceLock<IndexId>,
    bits: OnceLock<NodeBits>,
    /// The nodes of all allowed rows, ascending, if they are few.
    pub(crate) listed: OnceLock<Box<[u32]>>,
}

impl NodeMemory {
    /// The bits for this index, if the set was used for it before.
    pub(crate) fn again(&self, index: IndexId, node_count: u32) -> Option<&NodeBits> {
        let mut again = true;
        let first = self.index.get_or_init(|| {
            again = false;
            index
        });
        (again && *first == index).then(|| self.bits.get_or_init(|| NodeBits::new(node_count)))
    }
}

/// The most nodes that are remembered as a list: an eighth of the rows, or 16,384.
pub(crate) fn most_listed(rows: u64) -> u64 {
    (rows / 8).max(16_384).min(rows)
}

/// The bytes that a set of `count` of `rows` rows remembers at most.
pub(crate) fn most_remembered(rows: u64, count: u64) -> u64 {
    let listed = if count <= most_listed(rows) { 4 * count } else { 0 };
    rows / 8 + rows / 512 + listed
}

/// The same for any set of so many rows.
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
