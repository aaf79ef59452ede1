//! The end of a build: which rows the nodes stand for, and the vectors as they are kept.

use rayon::prelude::*;

use super::build::Graph;
use super::builder::{HnswBuilder, Kind};
use super::cells::OwnedCells;
use super::config::StoredVectors;
use super::fold::Groups;
use super::graph::{Le32, NO_SLOT, vector_stride};
use super::index::{Codes, HnswIndex};

impl HnswBuilder {
    pub(super) fn assemble(
        mut self,
        groups: &Groups,
        order: Vec<u32>,
        codes: Option<Codes>,
        cells: Option<OwnedCells>,
        graph: Graph,
    ) -> HnswIndex {
        let row_count = self.rows.last().map_or(0, |&(row, ..)| row as usize + 1);
        let mut row_slots = vec![NO_SLOT.to_le_bytes(); row_count];
        let mut node_rows: Vec<Le32> = Vec::new();
        let mut starts: Vec<Le32> = Vec::new();
        let small = |n: usize| u32::try_from(n).expect("as many as rows at most");
        for (node, group) in groups.iter().enumerate() {
            starts.push(small(node_rows.len()).to_le_bytes());
            for &(row, _) in group {
                row_slots[row as usize] = small(node).to_le_bytes();
                node_rows.push(row.to_le_bytes());
            }
        }
        starts.push(small(node_rows.len()).to_le_bytes());
        if node_rows.len() == groups.len() {
            starts.clear();
        }
        let list = |wanted: Kind| -> Vec<Le32> {
            let of_kind = self.rows.iter().filter(|(_, kind, _)| *kind == wanted);
            of_kind.map(|(row, ..)| row.to_le_bytes()).collect()
        };
        let (nulls, zeros, unlinked) = (list(Kind::Null), list(Kind::Zero), list(Kind::Unlinked));
        let with_vector = self
            .rows
            .iter()
            .filter(|(_, kind, _)| matches!(kind, Kind::Zero | Kind::Unlinked));
        for (extra, &(row, ..)) in with_vector.enumerate() {
            row_slots[row as usize] = small(groups.len() + extra).to_le_bytes();
        }
        let longest = self.longest(groups);
        let (matrix, order) = self.store(order);
        HnswIndex {
            metric: self.metric,
            dim: self.dim,
            config: self.config,
            graph,
            codes,
            cells,
            node_rows,
            starts,
            row_slots,
            nulls,
            zeros,
            unlinked,
            order,
            matrix,
            longest,
        }
    }

    /// The length of the longest linked vector, rounded up.
    fn longest(&self, groups: &Groups) -> f32 {
        let stride = 4 * self.dim;
        let longest = (0..groups.len())
            .into_par_iter()
            .map(|node| {
                let bytes = &self.matrix[groups.get(node)[0].1 as usize * stride..][..stride];
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
