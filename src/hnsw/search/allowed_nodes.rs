//! A filter over rows as a filter over nodes.
//!
//! A filter is a set of rows, but a search meets nodes. Finding out whether a node is allowed takes a cache miss
//! or two: the row of the node, and the bit of the row. A search meets thousands of nodes. So a filter that is
//! used for a second search remembers a bit for each node. Near nodes have near numbers, so 64 bits are found out
//! at a time. A filter that is used once does not pay for that.

use std::ops::Range;

use crate::hnsw::graph::node_filter::NodeFilter;
use crate::hnsw::ids::Le32;
use crate::hnsw::kernels::{self, Isa};
use crate::hnsw::node_memory::{NodeBits, most_listed};
use crate::hnsw::parts::Parts;
use crate::hnsw::row_set::RowSet;
use crate::id::RowId;

/// The nodes of the allowed rows, in the order of the rows. A node comes once for each of its allowed rows.
pub(crate) fn nodes_of_rows<'a>(
    parts: &'a Parts<'_>,
    allowed: &'a RowSet,
) -> impl Iterator<Item = (RowId, u32)> + 'a {
    let node = |row: RowId| parts.slot_of(row.get()).filter(|&slot| slot < parts.node_count());
    allowed.iter().filter_map(move |row| Some((row, node(row)?)))
}

/// The nodes of an index that a filter allows.
pub(crate) struct AllowedNodes<'a> {
    pub(crate) parts: &'a Parts<'a>,
    pub(crate) rows: &'a RowSet,
    /// What earlier searches found out.
    bits: Option<&'a NodeBits>,
    isa: Isa,
}

impl<'a> AllowedNodes<'a> {
    pub(crate) fn new(parts: &'a Parts<'a>, rows: &'a RowSet) -> Self {
        Self {
            parts,
            rows,
            bits: rows.memory().again(parts.id, parts.node_count()),
            isa: Isa::best(),
        }
    }

    /// The share of rows that are allowed.
    pub(crate) fn selectivity(&self) -> f64 {
        self.parts.selectivity(self.rows.count())
    }

    /// Whether one of a node's rows is allowed. A node without rows is damage; it counts as allowed, so that
    /// re-ranking reports it.
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

    /// The bits of the 64 nodes from `64 * place` on; 0 beyond the last node.
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

    /// Writes the allowed nodes of a range to `found`, from place `count` on, and gives where they end.
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

    /// All allowed nodes, ascending, each once. `None` if the filter is used for the first time or allows
    /// many.
    pub(crate) fn listed(&self) -> Option<&'a [u32]> {
        let few = self.rows.count() <= most_listed(self.parts.row_count());
        (self.bits.is_some() && few).then(|| {
            let listed = self.rows.memory().listed.get_or_init(|| {
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
