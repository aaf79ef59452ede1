//! Where the keys of a beam search come from: 8-bit codes, or the vectors themselves.

use super::vectors::{Vectors, ordered_bits};
use crate::hnsw::kernels::{self, CodeRows, Isa, QueryCode};
use crate::hnsw::metric::VectorMetric;
use crate::hnsw::query_vector::Query;

/// Where distances to the query come from. Keys order like the distances: smaller is nearer.
pub(crate) trait DistanceComputer {
    /// The keys of `ids`; as many as `keys` has room for.
    fn keys(&self, ids: &[u32], keys: &mut [u32]);

    /// Bytes that a key is computed from.
    fn bytes(&self) -> usize;

    /// Says that the key of `id` will soon be asked for.
    fn prefetch(&self, id: u32);
}

/// Keys from 8-bit codes.
#[derive(Debug)]
pub(crate) struct CodeDistances<'a> {
    pub(crate) isa: Isa,
    pub(crate) query: QueryCode<'a>,
    pub(crate) codes: CodeRows<'a>,
}

impl DistanceComputer for CodeDistances<'_> {
    #[inline]
    fn keys(&self, ids: &[u32], keys: &mut [u32]) {
        kernels::code_keys(self.isa, self.query, self.codes, ids, keys);
    }

    fn bytes(&self) -> usize {
        self.codes.stride
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        kernels::prefetch(self.codes.row(id));
    }
}

/// Keys from the vectors themselves.
#[derive(Debug)]
pub(crate) struct VectorDistances<'a> {
    pub(crate) isa: Isa,
    pub(crate) metric: VectorMetric,
    pub(crate) query: &'a Query<'a>,
    pub(crate) vectors: Vectors<'a>,
}

impl DistanceComputer for VectorDistances<'_> {
    #[inline]
    fn keys(&self, ids: &[u32], keys: &mut [u32]) {
        for (&id, key) in ids.iter().zip(keys) {
            let distance = self.vectors.distance(self.isa, self.metric, self.query, id);
            *key = ordered_bits(distance.unwrap_or(f32::NAN));
        }
    }

    fn bytes(&self) -> usize {
        self.vectors.stride()
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        self.vectors.prefetch(id);
    }
}
