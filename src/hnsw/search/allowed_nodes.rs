//! A filter in the order of the nodes.
//!
//! Rows that are near each other in space are anywhere in a filter's bits, and which rows a node stands for is one more
//! place in memory. So whether a node is let in costs a cache miss or two, for each of thousands of nodes that a filtered
//! search meets. A filter that is asked for again, by the next query, remembers: nodes that are near each other are
//! neighbours in number, so they are found out 64 at a time. One that is asked for once only does not pay for that.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::allowed_by_cluster::Listed;
use super::cost_model;
use crate::hnsw::clusters::inverted_lists::Cells;
use crate::hnsw::graph::links::{Le32, Parts};
use crate::hnsw::graph::search_layer::NodeFilter;
use crate::hnsw::kernels::{self, Isa};
use crate::hnsw::row_set::RowSet;
use crate::id::RowId;

/// Tells indexes apart while the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexId(u64);

impl IndexId {
    /// One that was not given before.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a filter makes of the nodes of an index, as far as that is known.
#[derive(Debug)]
struct NodeBits {
    /// A bit for each node: whether it is let in.
    words: Vec<AtomicU64>,
    /// A bit for each of the words: whether it is known.
    known: Vec<AtomicU64>,
}

impl NodeBits {
    fn new(parts: &Parts<'_>) -> Self {
        let zeros = |count: usize| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        let words = parts.node_count().div_ceil(64) as usize;
        Self {
            words: zeros(words),
            known: zeros(words.div_ceil(64)),
        }
    }

    /// The bits of the 64 nodes from 64 times `place` on, if they are known.
    #[inline(always)]
    fn get(&self, place: usize) -> Option<u64> {
        let known = self.known.get(place / 64)?.load(Ordering::Acquire) >> (place % 64) & 1 == 1;
        known.then(|| self.words[place].load(Ordering::Relaxed))
    }

    fn set(&self, place: usize, bits: u64) {
        if let (Some(word), Some(known)) = (self.words.get(place), self.known.get(place / 64)) {
            word.store(bits, Ordering::Relaxed);
            known.fetch_or(1 << (place % 64), Ordering::Release);
        }
    }
}

/// What a set of rows remembers of the nodes of the first index that it was asked about, from the second time on. Sets are
/// equal whatever they remember, and one that changes forgets it.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    index: OnceLock<IndexId>,
    bits: OnceLock<NodeBits>,
    /// The nodes of all allowed rows, ascending, once all are asked for; none if they are too many to be remembered.
    listed: OnceLock<Box<[u32]>>,
    /// The same by cell, once cells are looked into; none if the cells are damaged.
    by_cell: OnceLock<Option<Listed>>,
}

impl Memo {
    /// The bits for this index, if it was asked about before.
    fn again(&self, parts: &Parts<'_>) -> Option<&NodeBits> {
        let mut again = true;
        let index = self.index.get_or_init(|| {
            again = false;
            parts.id
        });
        (again && *index == parts.id).then(|| self.bits.get_or_init(|| NodeBits::new(parts)))
    }
}

/// How many nodes are remembered one by one, of a set over so many rows: an eighth, and more if they are few.
fn most_listed(rows: u64) -> u64 {
    (rows / 8).max(16_384).min(rows)
}

/// The same of sets whose nodes are looked for in cells: a quarter.
fn most_by_cell(rows: u64) -> u64 {
    (rows / 4).max(16_384).min(rows)
}

/// The bytes that a set of `count` of so many rows remembers at most: the bits, the lists that are made of so many, and two
/// words for each cell that has some, of which there are fewer than one for 32 rows.
pub(crate) fn most_remembered(rows: u64, count: u64) -> u64 {
    let listed = |most: u64| if count <= most { 4 * count } else { 0 };
    let cells = listed(most_by_cell(rows)).min(rows / 8) * 2;
    rows / 8 + rows / 512 + listed(most_listed(rows)) + listed(most_by_cell(rows)) + cells
}

/// The same of a set of any of so many rows.
pub(crate) fn most_remembered_of_any(rows: u64) -> u64 {
    let most = |count| most_remembered(rows, count);
    most(most_listed(rows)).max(most(most_by_cell(rows)))
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

/// The nodes of the allowed rows, in the order of the rows. A node comes as often as it has allowed rows.
pub(crate) fn nodes_of_rows<'a>(
    parts: &'a Parts<'_>,
    allowed: &'a RowSet,
) -> impl Iterator<Item = (RowId, u32)> + 'a {
    let node = |row: RowId| parts.slot_of(row.get()).filter(|&slot| slot < parts.node_count());
    allowed.iter().filter_map(move |row| Some((row, node(row)?)))
}

/// The nodes of an index that a filter lets in.
pub(crate) struct AllowedNodes<'a> {
    pub(crate) parts: &'a Parts<'a>,
    pub(crate) rows: &'a RowSet,
    /// What is known from searches before.
    bits: Option<&'a NodeBits>,
    isa: Isa,
}

impl<'a> AllowedNodes<'a> {
    pub(crate) fn new(parts: &'a Parts<'a>, rows: &'a RowSet) -> Self {
        Self {
            parts,
            rows,
            bits: rows.memo().again(parts),
            isa: Isa::best(),
        }
    }

    /// The share of rows that are allowed.
    pub(crate) fn share(&self) -> f64 {
        cost_model::share(self.parts, self.rows.count())
    }

    /// Whether one of a node's rows is allowed. A node that has no row is, so that whoever asks for it finds out.
    #[inline(always)]
    pub(crate) fn admits(&self, node: u32) -> bool {
        match self.bits {
            Some(bits) => self.word(bits, (node / 64) as usize) >> (node % 64) & 1 == 1,
            None if self.parts.node_rows.starts.is_empty() => {
                let row = self.parts.node_rows.rows.get(node as usize);
                row.is_none_or(|row| self.contains(row))
            }
            None => self.look_up(node..node + 1) == 1,
        }
    }

    fn contains(&self, row: &Le32) -> bool {
        let row = RowId::new(u64::from(u32::from_le_bytes(*row)));
        self.rows.contains(row)
    }

    /// The bits of the 64 nodes from 64 times `place` on; 0 beyond the last node.
    #[inline(always)]
    fn word(&self, bits: &NodeBits, place: usize) -> u64 {
        bits.get(place).unwrap_or_else(|| self.find_out(bits, place))
    }

    #[cold]
    fn find_out(&self, bits: &NodeBits, place: usize) -> u64 {
        let count = self.parts.node_count();
        let first = u32::try_from(64 * place).unwrap_or(count).min(count);
        let found = self.look_up(first..(first + 64).min(count));
        bits.set(place, found);
        found
    }

    /// The bits of 1 to 64 nodes, the first one's lowest.
    fn look_up(&self, nodes: Range<u32>) -> u64 {
        let rows = self.parts.node_rows;
        if rows.starts.is_empty() {
            let rows = rows.rows.get(nodes.start as usize..nodes.end as usize);
            return kernels::contained(self.isa, rows.unwrap_or_default(), self.rows.words());
        }
        nodes.zip(0..64).fold(0, |bits, (node, bit)| {
            let allowed = rows
                .of(node)
                .map_or(true, |rows| rows.iter().any(|row| self.contains(row)));
            bits | u64::from(allowed) << bit
        })
    }

    /// The bits of 1 to 64 nodes, the first one's lowest.
    #[inline(always)]
    fn bits_of(&self, nodes: Range<u32>) -> u64 {
        let Some(bits) = self.bits else {
            return self.look_up(nodes);
        };
        let (place, shift, count) = ((nodes.start / 64) as usize, nodes.start % 64, nodes.len());
        let mut found = self.word(bits, place) >> shift;
        if shift as usize + count > 64 {
            found |= self.word(bits, place + 1) << (64 - shift);
        }
        found & u64::MAX >> (64 - count)
    }

    /// Writes the allowed ones of some nodes to `found`, from place `count` on, and makes room there. Gives where they end.
    #[inline(always)]
    pub(crate) fn among(&self, nodes: Range<u32>, found: &mut Vec<u32>, mut count: usize) -> usize {
        let mut node = nodes.start;
        while node < nodes.end {
            let end = nodes.end.min(node + 64);
            let bits = self.bits_of(node..end);
            if found.len() < count + 64 {
                found.resize(count + 128, 0);
            }
            count += kernels::ones(self.isa, bits, node, &mut found[count..]);
            node = end;
        }
        count
    }

    /// The nodes of all allowed rows, ascending, each once, if the filter was asked about this index before and they are
    /// not too many: by then it pays to remember them in the order in which they lie.
    pub(crate) fn listed(&self) -> Option<&'a [u32]> {
        let few = self.rows.count() <= most_listed(self.parts.row_count());
        (self.bits.is_some() && few).then(|| {
            let listed = self.rows.memo().listed.get_or_init(|| {
                let mut nodes: Vec<u32> = nodes_of_rows(self.parts, self.rows)
                    .map(|(_, node)| node)
                    .collect();
                nodes.sort_unstable();
                nodes.dedup();
                nodes.into_boxed_slice()
            });
            &**listed
        })
    }

    /// The allowed nodes by cell, likewise.
    pub(crate) fn by_cell(&self, cells: &Cells<'_>) -> Option<&'a Listed> {
        let few = self.rows.count() <= most_by_cell(self.parts.row_count());
        let memo = self.bits.filter(|_| few).map(|_| self.rows.memo())?;
        memo.by_cell.get_or_init(|| Listed::new(self, cells)).as_ref()
    }
}

impl NodeFilter for AllowedNodes<'_> {
    #[inline(always)]
    fn keep(&self, nodes: &mut [u32]) -> usize {
        let mut kept = 0;
        for at in 0..nodes.len() {
            let node = nodes[at];
            nodes[kept] = node;
            kept += usize::from(self.admits(node));
        }
        kept
    }
}
