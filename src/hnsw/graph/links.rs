//! The graph as bytes, and everything else that a search reads.
//!
//! Nodes are numbered so that those of the higher layers come first: layer `l` holds the nodes
//! `0..levels[l]`, its neighbour lists lie at a fixed stride, and node 0 is the entry point. The graph
//! under construction has the same layout as the mapped file, so one struct and one search serve both.

use crate::hnsw::clusters::inverted_lists::Cells;
use crate::hnsw::config::StoredVectors;
use crate::hnsw::kernels::{self, CodeRows, FloatMetric, Isa, Sums};
use crate::hnsw::metric::VectorMetric;
use crate::hnsw::quantize::codebook::Codebook;
use crate::hnsw::search::allowed_nodes::IndexId;

/// Marks an unused slot; the list ends there.
pub(crate) const NO_LINK: u32 = u32::MAX;
/// Stands in the row map for a row without a vector.
pub(crate) const NO_SLOT: u32 = u32::MAX;
/// The greatest number of layers.
pub(crate) const MAX_LEVELS: usize = 32;

/// A little-endian u32 at any address.
pub(crate) type Le32 = [u8; 4];

/// Something in the bytes of an index contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {section} section of the index is damaged; rebuild the index")]
pub struct Damaged {
    /// The section that holds the contradiction.
    pub section: &'static str,
}

/// Neighbour lists of all layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links<'a> {
    /// Nodes in each layer, layer 0 first; not increasing.
    pub(crate) levels: &'a [u32],
    /// Slots of a list in the upper layers.
    pub(crate) m: usize,
    /// Lists of layer 0, `2 m` slots each.
    pub(crate) base: &'a [Le32],
    /// Lists of layer 1, then of layer 2, and so on, `m` slots each.
    pub(crate) upper: &'a [Le32],
}

impl<'a> Links<'a> {
    pub(crate) fn node_count(&self) -> u32 {
        self.count(0)
    }

    /// Nodes of a layer; 0 above the highest.
    pub(crate) fn count(&self, layer: usize) -> u32 {
        self.levels.get(layer).copied().unwrap_or(0)
    }

    /// The highest layer.
    pub(crate) fn top(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// The slots of a node's list; the list ends before the first [`NO_LINK`].
    #[inline]
    pub(crate) fn slots(&self, node: u32, layer: usize) -> &'a [Le32] {
        let node = node as usize;
        if layer == 0 {
            let width = 2 * self.m;
            &self.base[node * width..][..width]
        } else {
            let before: usize = self.levels[1..layer].iter().map(|&count| count as usize).sum();
            &self.upper[(before + node) * self.m..][..self.m]
        }
    }

    /// The neighbours of a node.
    #[inline]
    pub(crate) fn neighbours(&self, node: u32, layer: usize) -> impl Iterator<Item = u32> + 'a {
        self.slots(node, layer)
            .iter()
            .map(|&slot| u32::from_le_bytes(slot))
            .take_while(|&id| id != NO_LINK)
    }
}

/// The vectors themselves, a row for each slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vectors<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) stored: StoredVectors,
    pub(crate) dim: usize,
    /// In which row of `bytes` a slot's vector lies, when not in that of the same number.
    pub(crate) order: Option<&'a [u32]>,
}

impl<'a> Vectors<'a> {
    /// Bytes of a vector.
    pub(crate) fn stride(&self) -> usize {
        vector_stride(self.stored, self.dim)
    }

    /// The stored bytes of a slot's vector; `None` if none are stored.
    #[inline]
    pub(crate) fn row(&self, slot: u32) -> Option<&'a [u8]> {
        if self.stored == StoredVectors::None {
            return None;
        }
        let row = self.order.map_or(slot, |order| order[slot as usize]) as usize;
        Some(&self.bytes[row * self.stride()..][..self.stride()])
    }

    /// Says that a slot's vector will soon be asked for.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        if let Some(row) = self.row(slot) {
            kernels::prefetch(row);
        }
    }

    /// Writes a slot's vector to `out`. False, and `out` untouched, if none are stored.
    pub(crate) fn read(&self, slot: u32, out: &mut [f32]) -> bool {
        let Some(row) = self.row(slot) else { return false };
        if self.stored == StoredVectors::F16 {
            for (x, &half) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                *x = half::f16::from_le_bytes(half).to_f32();
            }
        } else {
            for (x, &bytes) in out.iter_mut().zip(row.as_chunks::<4>().0) {
                *x = f32::from_le_bytes(bytes);
            }
        }
        true
    }

    /// The sums between `query` and a slot's vector; `None` if none are stored.
    #[inline]
    pub(crate) fn sums(&self, isa: Isa, metric: FloatMetric, query: &[f32], slot: u32) -> Option<Sums> {
        let row = self.row(slot)?;
        if self.stored == StoredVectors::F16 {
            let wide: Vec<u8> = row
                .as_chunks::<2>()
                .0
                .iter()
                .flat_map(|&half| half::f16::from_le_bytes(half).to_f32().to_le_bytes())
                .collect();
            Some(kernels::float_sums(isa, metric, query, &wide))
        } else {
            Some(kernels::float_sums(isa, metric, query, row))
        }
    }
}

/// Bytes of one stored vector.
pub(crate) fn vector_stride(stored: StoredVectors, dim: usize) -> usize {
    match stored {
        StoredVectors::F32 => 4 * dim,
        StoredVectors::F16 => 2 * dim,
        StoredVectors::None => 0,
    }
}

/// Which rows a node stands for: more than one when their vectors are identical.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeRows<'a> {
    /// The rows of node 0, then those of node 1, and so on; ascending within a node.
    pub(crate) rows: &'a [Le32],
    /// Where the rows of each node begin, and the end. Empty if every node has one row.
    pub(crate) starts: &'a [Le32],
}

impl<'a> NodeRows<'a> {
    /// Says that a node's rows will soon be asked for.
    #[inline]
    pub(crate) fn prefetch(&self, node: u32) {
        let slots = if self.starts.is_empty() {
            self.rows
        } else {
            self.starts
        };
        if let Some(slot) = slots.get(node as usize) {
            kernels::prefetch(slot);
        }
    }

    /// The rows of a node.
    #[inline]
    pub(crate) fn of(&self, node: u32) -> Result<&'a [Le32], Damaged> {
        let node = node as usize;
        let range = if self.starts.is_empty() {
            node..node + 1
        } else {
            u32::from_le_bytes(self.starts[node]) as usize..u32::from_le_bytes(self.starts[node + 1]) as usize
        };
        self.rows
            .get(range)
            .filter(|rows| !rows.is_empty())
            .ok_or(Damaged { section: "nodes" })
    }
}

/// All that a search reads, borrowed from a built index or from the bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) id: IndexId,
    pub(crate) metric: VectorMetric,
    pub(crate) dim: usize,
    pub(crate) links: Links<'a>,
    /// The 8-bit codes of the nodes, unless the walk goes over the vectors.
    pub(crate) codes: Option<(Codebook, CodeRows<'a>)>,
    /// Groups of near nodes, if the nodes are many and have codes.
    pub(crate) cells: Option<Cells<'a>>,
    pub(crate) node_rows: NodeRows<'a>,
    /// The slot of each row, or [`NO_SLOT`]. A slot below the node count is that node's.
    pub(crate) row_slots: &'a [Le32],
    pub(crate) vectors: Vectors<'a>,
    /// Slots: the nodes, then the rows that have a vector but no node.
    pub(crate) slots: u32,
    /// No linked vector is longer.
    pub(crate) longest: f32,
}

impl Parts<'_> {
    pub(crate) fn node_count(&self) -> u32 {
        self.links.node_count()
    }

    pub(crate) fn row_count(&self) -> u64 {
        self.row_slots.len() as u64
    }

    /// The slot of a row's vector, if it has one.
    pub(crate) fn slot_of(&self, row: u64) -> Option<u32> {
        let slot = u32::from_le_bytes(*self.row_slots.get(usize::try_from(row).ok()?)?);
        (slot < self.slots).then_some(slot)
    }
}
