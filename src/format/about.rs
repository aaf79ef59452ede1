//! What a sidecar says about itself.

use super::meta::SidecarMeta;
use super::section::Section;
use super::view::View;
use crate::hnsw::raw::{Le32, rows_of};
use crate::hnsw::{HnswConfig, StoredVectors, VectorMetric};
use crate::id::RowId;

impl<B: AsRef<[u8]>> View<B> {
    /// Whether vectors are stored in full precision, so that [`vector`](Self::vector) gives the source's.
    pub fn has_vectors(&self) -> bool {
        self.header.stored == StoredVectors::F32
    }

    /// What is stored of each vector.
    pub fn stored(&self) -> StoredVectors {
        self.header.stored
    }

    /// What the sidecar says about itself and its source.
    pub fn meta(&self) -> &SidecarMeta {
        &self.meta
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.header.dim as usize
    }

    /// The metric.
    pub fn metric(&self) -> VectorMetric {
        self.header.metric
    }

    /// Rows of the source, those without a vector included.
    pub fn rows(&self) -> u64 {
        self.header.rows
    }

    /// Nodes of the graph: distinct vectors.
    pub fn node_count(&self) -> usize {
        self.header.nodes() as usize
    }

    /// The settings of the build.
    pub fn config(&self) -> &HnswConfig {
        &self.config
    }

    /// Links per node in the upper layers.
    pub fn m(&self) -> usize {
        self.config.m
    }

    /// Candidates kept while a node was inserted.
    pub fn ef_construction(&self) -> usize {
        self.config.ef_construction
    }

    /// The length of the longest linked vector, at most; for [`distance_error`](crate::hnsw::distance_error).
    pub fn max_norm(&self) -> f32 {
        self.header.max_norm
    }

    /// Rows whose vector is NULL or holds a NULL, ascending.
    pub fn null_rows(&self) -> impl ExactSizeIterator<Item = RowId> + '_ {
        rows_of(self.list(0))
    }

    /// Rows whose vector is zero, under cosine (SQL's distance is NULL), ascending.
    pub fn zero_rows(&self) -> impl ExactSizeIterator<Item = RowId> + '_ {
        rows_of(self.list(1))
    }

    /// Rows whose vector is not finite or too long (or, under cosine, too short) for f32 arithmetic,
    /// ascending. They are in no answer of [`search`](Self::search): the caller decides about them.
    pub fn unindexable_rows(&self) -> impl ExactSizeIterator<Item = RowId> + '_ {
        rows_of(self.list(2))
    }

    pub(super) fn list(&self, which: usize) -> &[Le32] {
        let counts =
            [self.header.nulls, self.header.zeros, self.header.unindexable].map(|count| count as usize);
        let begin: usize = counts[..which].iter().sum();
        self.words(Section::Lists)
            .get(begin..begin + counts[which])
            .unwrap_or_default()
    }

    /// Bytes of each section, padding not counted.
    pub fn section_sizes(&self) -> Vec<(&'static str, usize)> {
        Section::ALL
            .into_iter()
            .map(|section| (section.name(), self.section(section).len()))
            .collect()
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> usize {
        self.bytes.as_ref().len()
    }
}
