//! The allowed nodes of a filter that is asked for again, cell by cell.
//!
//! A look into cells finds out of each cell which of its nodes are allowed, in bits, layer by layer; and compares the query
//! with the centres of cells that have none. Where allowed nodes are few, that takes longer than comparing them. So it is
//! written down once, in the order in which a look would come upon them.

use super::allowed_nodes::AllowedNodes;
use crate::hnsw::clusters::inverted_lists::Cells;

/// The allowed nodes of the cells that have some.
#[derive(Debug)]
pub(crate) struct Listed {
    nodes: Box<[u32]>,
    /// The cells, ascending.
    cells: Box<[u32]>,
    /// Where the nodes of each begin, and the end of the last.
    starts: Box<[u32]>,
}

impl Listed {
    /// None if the cells are damaged: whoever looks into them will come upon that.
    pub(crate) fn new(allowed: &AllowedNodes<'_>, cells: &Cells<'_>) -> Option<Self> {
        let node_count = allowed.parts.node_count();
        let (mut nodes, mut count, mut seen) = (Vec::new(), 0, 0);
        let (mut some, mut starts) = (Vec::new(), vec![0]);
        for cell in 0..cells.count() {
            let before = count;
            for layer in 0..cells.layers {
                let range = cells.nodes(cell, layer);
                seen += range.len();
                if range.end > node_count || seen > node_count as usize {
                    return None;
                }
                count = allowed.among(range, &mut nodes, count);
            }
            if count > before {
                some.push(u32::try_from(cell).ok()?);
                starts.push(u32::try_from(count).ok()?);
            }
        }
        nodes.truncate(count);
        Some(Self {
            nodes: nodes.into_boxed_slice(),
            cells: some.into_boxed_slice(),
            starts: starts.into_boxed_slice(),
        })
    }

    /// The cells that have some, ascending.
    pub(crate) fn cells(&self) -> &[u32] {
        &self.cells
    }

    /// Those of the cell at this place of [`cells`](Self::cells), in the order of the layers.
    #[inline(always)]
    pub(crate) fn of(&self, place: usize) -> &[u32] {
        &self.nodes[self.starts[place] as usize..self.starts[place + 1] as usize]
    }
}
