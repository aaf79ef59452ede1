//! A built index in memory.

use std::borrow::Cow;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::config::{HnswConfig, StoredVectors};
use super::kernels::CodeRows;
use super::metric::VectorMetric;
use crate::hnsw::clusters::inverted_lists::OwnedClusters;
use crate::hnsw::error::SearchError;
use crate::hnsw::graph::links::Links;
use crate::hnsw::graph::node_rows::NodeRows;
use crate::hnsw::graph::owned::Graph;
use crate::hnsw::graph::reachable::reachable;
use crate::hnsw::graph::vectors::Vectors;
use crate::hnsw::ids::{IndexId, Le32};
use crate::hnsw::parts::Parts;
use crate::hnsw::quantize::codebook::Codebook;
use crate::hnsw::search::options::{SearchOptions, SearchOutcome};
use crate::hnsw::search::query;
use crate::id::RowId;

/// The codes of all nodes.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    pub(crate) book: Codebook,
    pub(crate) stride: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Codes {
    /// The codes in another order.
    pub(crate) fn reordered(self, order: &[u32]) -> Self {
        let mut bytes = vec![0; self.bytes.len()];
        bytes
            .par_chunks_mut(self.stride)
            .zip(order)
            .for_each(|(code, &from)| code.copy_from_slice(self.rows().row(from)));
        Self { bytes, ..self }
    }

    pub(crate) fn rows(&self) -> CodeRows<'_> {
        CodeRows {
            bytes: &self.bytes,
            stride: self.stride,
        }
    }
}

/// An index in memory, as [`HnswBuilder`](super::HnswBuilder) leaves it: search it, or write it.
#[derive(Debug)]
pub struct HnswIndex {
    pub(crate) id: IndexId,
    pub(crate) metric: VectorMetric,
    pub(crate) dim: usize,
    pub(crate) config: HnswConfig,
    pub(crate) graph: Graph,
    pub(crate) codes: Option<Codes>,
    pub(crate) clusters: Option<OwnedClusters>,
    pub(crate) node_rows: Vec<Le32>,
    pub(crate) starts: Vec<Le32>,
    pub(crate) row_slots: Vec<Le32>,
    pub(crate) nulls: Vec<Le32>,
    pub(crate) zeros: Vec<Le32>,
    pub(crate) unindexable: Vec<Le32>,
    /// Where in the matrix the vector of each slot lies.
    pub(crate) order: Vec<u32>,
    pub(crate) matrix: Vec<u8>,
    pub(crate) max_norm: f32,
}

impl HnswIndex {
    /// The rows nearest to `query` with their distances, nearest first: at most `k`, found with `ef`
    /// candidates. None if the query is not one that this index can answer; see
    /// [`search_with`](Self::search_with), which says why.
    pub fn search(&self, query: &[f32], k: usize, ef: usize) -> Vec<(RowId, f32)> {
        self.search_with(query, &SearchOptions::new(k).ef(ef))
            .map(|outcome| {
                outcome
                    .hits
                    .into_iter()
                    .map(|hit| (hit.row, hit.distance))
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The rows nearest to `query`.
    ///
    /// # Errors
    ///
    /// If the query has the wrong length, is not finite, or is zero under cosine.
    pub fn search_with(
        &self,
        query: &[f32],
        options: &SearchOptions<'_>,
    ) -> Result<SearchOutcome, SearchError> {
        query::search(&self.parts(), query, options)
    }

    /// Nodes of the graph: distinct vectors.
    pub fn node_count(&self) -> usize {
        self.graph.levels.first().map_or(0, |&count| count as usize)
    }

    /// Rows of the source, those without a vector included.
    pub fn row_count(&self) -> u64 {
        self.row_slots.len() as u64
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The metric.
    pub fn metric(&self) -> VectorMetric {
        self.metric
    }

    /// The settings of the build.
    pub fn config(&self) -> &HnswConfig {
        &self.config
    }

    /// The vector of a row, as it is stored.
    pub fn vector(&self, row: RowId) -> Option<Cow<'_, [f32]>> {
        let parts = self.parts();
        let mut vector = vec![0.0; self.dim];
        parts
            .vectors
            .read(parts.slot_of(row.get())?, &mut vector)
            .then_some(Cow::Owned(vector))
    }

    /// Rows whose vector is NULL, ascending.
    pub fn null_rows(&self) -> impl Iterator<Item = RowId> + '_ {
        rows_of(&self.nulls)
    }

    /// Rows whose vector is zero, under cosine, ascending.
    pub fn zero_rows(&self) -> impl Iterator<Item = RowId> + '_ {
        rows_of(&self.zeros)
    }

    /// Rows whose vector is not finite or too long for f32 arithmetic, ascending.
    pub fn unindexable_rows(&self) -> impl Iterator<Item = RowId> + '_ {
        rows_of(&self.unindexable)
    }

    /// Nodes that the links of layer 0 do not lead to; the build leaves none.
    pub fn unreachable_nodes(&self) -> usize {
        reachable(self.graph.links()).iter().filter(|&&is| !is).count()
    }

    /// An index that owns a copy of all parts; `lists` are the NULL, zero and unindexable rows.
    pub(crate) fn from_parts(parts: &Parts<'_>, config: HnswConfig, lists: [Vec<Le32>; 3]) -> Self {
        let [nulls, zeros, unindexable] = lists;
        Self {
            id: IndexId::next(),
            metric: parts.metric,
            dim: parts.dim,
            graph: Graph {
                levels: parts.links.levels.to_vec(),
                m: parts.links.m,
                base: parts.links.base.to_vec(),
                upper: parts.links.upper.to_vec(),
            },
            config,
            codes: parts.codes.map(|(book, rows)| Codes {
                book,
                stride: rows.stride,
                bytes: rows.bytes.to_vec(),
            }),
            clusters: parts.clusters.map(|clusters| OwnedClusters {
                centroids: clusters.centroids.bytes.to_vec(),
                starts: clusters.starts.to_vec(),
                groups: clusters
                    .groups
                    .map_or_else(Vec::new, |groups| groups.centroids.bytes.to_vec()),
                group: clusters.groups.map_or(0, |groups| groups.size),
                squares: OnceLock::new(),
            }),
            node_rows: parts.node_rows.rows.to_vec(),
            starts: parts.node_rows.starts.to_vec(),
            row_slots: parts.row_slots.to_vec(),
            nulls,
            zeros,
            unindexable,
            order: (0..parts.slots).collect(),
            matrix: parts.vectors.bytes.to_vec(),
            max_norm: parts.max_norm,
        }
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            id: self.id,
            metric: self.metric,
            dim: self.dim,
            links: Links {
                levels: &self.graph.levels,
                m: self.graph.m,
                base: &self.graph.base,
                upper: &self.graph.upper,
            },
            codes: self.codes.as_ref().map(|codes| {
                (
                    codes.book,
                    CodeRows {
                        bytes: &codes.bytes,
                        stride: codes.stride,
                    },
                )
            }),
            clusters: self
                .codes
                .as_ref()
                .zip(self.clusters.as_ref())
                .map(|(codes, clusters)| clusters.of(codes.stride, self.graph.levels.len())),
            node_rows: NodeRows {
                rows: &self.node_rows,
                starts: &self.starts,
            },
            row_slots: &self.row_slots,
            vectors: self.vectors(),
            slots: u32::try_from(self.order.len()).expect("as many as rows at most"),
            max_norm: self.max_norm,
        }
    }

    pub(crate) fn vectors(&self) -> Vectors<'_> {
        Vectors {
            bytes: &self.matrix,
            stored: self.config.stored,
            dim: self.dim,
            order: (self.config.stored == StoredVectors::F32).then_some(&self.order),
        }
    }
}

/// The rows of a list.
pub(crate) fn rows_of(list: &[Le32]) -> impl ExactSizeIterator<Item = RowId> + '_ {
    list.iter()
        .map(|&row| RowId::new(u64::from(u32::from_le_bytes(row))))
}
