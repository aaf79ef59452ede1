//! The end of a build: which rows the nodes stand for, and the vectors as they are kept.

use rayon::prelude::*;

use super::builder::HnswBuilder;
use super::duplicates::Groups;
use super::insert::Graph;
use crate::hnsw::clusters::inverted_lists::OwnedCells;
use crate::hnsw::config::StoredVectors;
use crate::hnsw::graph::links::{Le32, NO_SLOT, vector_stride};
use crate::hnsw::index::{Codes, HnswIndex};
use crate::hnsw::search::allowed_nodes::IndexId;

/// Where a row of the source ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the graph.
    Linked,
    /// NULL.
    Null,
    /// A zero vector under cosine: its distance is NULL in SQL.
    Zero,
    /// Not finite, or of a length that f32 sums of squares cannot hold.
    Unlinked,
}

/// Which rows the nodes stand for, and where the vector of each row is, as the file keeps them.
pub(crate) struct RowMap {
    node_rows: Vec<Le32>,
    starts: Vec<Le32>,
    row_slots: Vec<Le32>,
    nulls: Vec<Le32>,
    zeros: Vec<Le32>,
    unlinked: Vec<Le32>,
}

impl RowMap {
    /// Of the rows as they were inserted, sorted, and the groups in the order of the nodes.
    pub(crate) fn new(rows: &[(u32, Kind, u32)], groups: &Groups) -> Self {
        let row_count = rows.last().map_or(0, |&(row, ..)| row as usize + 1);
        let small = |n: usize| u32::try_from(n).expect("as many as rows at most");
        let linked = rows.iter().filter(|(_, kind, _)| *kind == Kind::Linked).count();
        let mut row_slots = vec![NO_SLOT.to_le_bytes(); row_count];
        let mut node_rows: Vec<Le32> = Vec::with_capacity(linked);
        let mut starts: Vec<Le32> = Vec::new();
        for (node, group) in groups.iter().enumerate() {
            if linked > groups.len() {
                starts.push(small(node_rows.len()).to_le_bytes());
            }
            for &(row, _) in group {
                row_slots[row as usize] = small(node).to_le_bytes();
                node_rows.push(row.to_le_bytes());
            }
        }
        if linked > groups.len() {
            starts.push(small(node_rows.len()).to_le_bytes());
        }
        let list = |wanted: Kind| -> Vec<Le32> {
            let of_kind = rows.iter().filter(|(_, kind, _)| *kind == wanted);
            of_kind.map(|(row, ..)| row.to_le_bytes()).collect()
        };
        let with_vector = rows
            .iter()
            .filter(|(_, kind, _)| matches!(kind, Kind::Zero | Kind::Unlinked));
        for (extra, &(row, ..)) in with_vector.enumerate() {
            row_slots[row as usize] = small(groups.len() + extra).to_le_bytes();
        }
        Self {
            node_rows,
            starts,
            row_slots,
            nulls: list(Kind::Null),
            zeros: list(Kind::Zero),
            unlinked: list(Kind::Unlinked),
        }
    }
}

impl HnswBuilder {
    pub(crate) fn assemble(
        mut self,
        map: RowMap,
        order: Vec<u32>,
        codes: Option<Codes>,
        cells: Option<OwnedCells>,
        graph: Graph,
    ) -> HnswIndex {
        let nodes = graph.levels.first().map_or(0, |&nodes| nodes as usize);
        let longest = self.longest(&order[..nodes]);
        let (matrix, order) = self.store(order);
        HnswIndex {
            id: IndexId::next(),
            metric: self.metric,
            dim: self.dim,
            config: self.config,
            graph,
            codes,
            cells,
            node_rows: map.node_rows,
            starts: map.starts,
            row_slots: map.row_slots,
            nulls: map.nulls,
            zeros: map.zeros,
            unlinked: map.unlinked,
            order,
            matrix,
            longest,
        }
    }

    /// The length of the longest linked vector, rounded up.
    fn longest(&self, nodes: &[u32]) -> f32 {
        let stride = 4 * self.dim;
        let longest = nodes
            .par_iter()
            .map(|&place| {
                let bytes = &self.matrix[place as usize * stride..][..stride];
                let squares = bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|&x| f64::from(f32::from_le_bytes(x)).powi(2));
                squares.sum::<f64>().sqrt()
            })
            .reduce(|| 0.0, f64::max);
        #[expect(clippy::cast_possible_truncation, reason = "rounded, within the range of f32")]
        let longest = longest as f32;
        longest.next_up()
    }

    /// The vectors as they will be kept.
    fn store(&mut self, order: Vec<u32>) -> (Vec<u8>, Vec<u32>) {
        match self.config.stored {
            StoredVectors::F32 => (std::mem::take(&mut self.matrix), order),
            StoredVectors::F16 => {
                let mut halves =
                    Vec::with_capacity(order.len() * vector_stride(StoredVectors::F16, self.dim));
                for &place in &order {
                    let row = &self.matrix[place as usize * 4 * self.dim..][..4 * self.dim];
                    halves.extend(
                        row.as_chunks::<4>()
                            .0
                            .iter()
                            .flat_map(|&x| half::f16::from_f32(f32::from_le_bytes(x)).to_le_bytes()),
                    );
                }
                let order = (0..u32::try_from(order.len()).expect("as many as rows at most")).collect();
                (halves, order)
            }
            StoredVectors::None => (Vec::new(), order),
        }
    }
}
