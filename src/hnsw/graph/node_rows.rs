//! Which rows each node stands for.

use crate::hnsw::error::Damaged;
use crate::hnsw::ids::Le32;
use crate::hnsw::kernels;

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
