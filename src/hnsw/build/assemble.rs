//! The end of a build: which rows the nodes stand for, and the vectors as they are kept.

use rayon::prelude::*;

use super::builder::HnswBuilder;
use super::row_map::RowMap;
use crate::hnsw::clusters::inverted_lists::OwnedClusters;
use crate::hnsw::config::StoredVectors;
use crate::hnsw::graph::owned::Graph;
use crate::hnsw::graph::vectors::vector_stride;
use crate::hnsw::ids::IndexId;
use crate::hnsw::index::{Codes, HnswIndex};

impl HnswBuilder {
    pub(crate) fn assemble(
        mut self,
        map: RowMap,
        order: Vec<u32>,
        codes: Option<Codes>,
        clusters: Option<OwnedClusters>,
        graph: Graph,
    ) -> HnswIndex {
        let nodes = graph.levels.first().map_or(0, |&nodes| nodes as usize);
        let max_norm = self.max_norm(&order[..nodes]);
        let (matrix, order) = self.store(order);
        HnswIndex {
            id: IndexId::next(),
            metric: self.metric,
            dim: self.dim,
            config: self.config,
            graph,
            codes,
            clusters,
            node_rows: map.node_rows,
            starts: map.starts,
            row_slots: map.row_slots,
            nulls: map.nulls,
            zeros: map.zeros,
            unindexable: map.unindexable,
            order,
            matrix,
            max_norm,
        }
    }

    /// The length of the longest linked vector, rounded up.
    fn max_norm(&self, nodes: &[u32]) -> f32 {
        let stride = 4 * self.dim;
        let max_norm = nodes
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
        let max_norm = max_norm as f32;
        max_norm.next_up()
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
