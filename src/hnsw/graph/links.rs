//! Neighbor lists of all layers, as bytes.
//!
//! Nodes are numbered so that those of the higher layers come first: layer `l` holds the nodes `0..levels[l]`, its
//! neighbor lists lie at a fixed stride, and node 0 is the entry point. The graph under construction has the same layout
//! as the mapped file, so one struct and one search serve both.

use crate::hnsw::ids::{Le32, NO_LINK};

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

    /// The neighbors of a node.
    #[inline]
    pub(crate) fn neighbors(&self, node: u32, layer: usize) -> impl Iterator<Item = u32> + 'a {
        self.slots(node, layer)
            .iter()
            .map(|&slot| u32::from_le_bytes(slot))
            .take_while(|&id| id != NO_LINK)
    }
}
