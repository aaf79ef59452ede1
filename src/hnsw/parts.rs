//! All that a search reads of an index, whether it was built in memory or lies in a mapped file.

use super::clusters::inverted_lists::Clusters;
use super::graph::links::Links;
use super::graph::node_rows::NodeRows;
use super::graph::vectors::Vectors;
use super::ids::{IndexId, Le32};
use super::kernels::CodeRows;
use super::metric::VectorMetric;
use super::quantize::codebook::Codebook;

/// All that a search reads, borrowed from a built index or from the bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) id: IndexId,
    pub(crate) metric: VectorMetric,
    pub(crate) dim: usize,
    pub(crate) links: Links<'a>,
    /// The 8-bit codes of the nodes, unless the beam search goes over the vectors.
    pub(crate) codes: Option<(Codebook, CodeRows<'a>)>,
    /// Groups of near nodes, if the nodes are many and have codes.
    pub(crate) clusters: Option<Clusters<'a>>,
    pub(crate) node_rows: NodeRows<'a>,
    /// The slot of each row, or [`NO_SLOT`](crate::hnsw::ids::NO_SLOT). A slot below the node count is that node's.
    pub(crate) row_slots: &'a [Le32],
    pub(crate) vectors: Vectors<'a>,
    /// Slots: the nodes, then the rows that have a vector but no node.
    pub(crate) slots: u32,
    /// No linked vector is longer.
    pub(crate) max_norm: f32,
}

impl Parts<'_> {
    pub(crate) fn node_count(&self) -> u32 {
        self.links.node_count()
    }

    pub(crate) fn row_count(&self) -> u64 {
        self.row_slots.len() as u64
    }

    /// The share of rows that `count` of them are, from 0 to 1.
    pub(crate) fn selectivity(&self, count: u64) -> f64 {
        count as f64 / self.row_count().max(1) as f64
    }

    /// The slot of a row's vector, if it has one.
    pub(crate) fn slot_of(&self, row: u64) -> Option<u32> {
        let slot = u32::from_le_bytes(*self.row_slots.get(usize::try_from(row).ok()?)?);
        (slot < self.slots).then_some(slot)
    }
}
