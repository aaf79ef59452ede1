//! Where the keys of a walk come from: codes, or the vectors themselves.

use super::links::{Parts, Vectors};
use super::search_layer::Space;
use crate::hnsw::config::StoredVectors;
use crate::hnsw::kernels::{self, CodeRows, FloatMetric, Isa, QueryCode};
use crate::hnsw::metric::VectorMetric;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::search::query::Query;

impl Vectors<'_> {
    /// The distance from a query to a slot's vector; `None` if none are stored.
    #[inline]
    pub(crate) fn distance(
        &self,
        isa: Isa,
        metric: VectorMetric,
        query: &Query<'_>,
        slot: u32,
    ) -> Option<f32> {
        Some(match metric {
            VectorMetric::Cosine => {
                let sums = self.sums(isa, FloatMetric::DotAndSquare, query.vector, slot)?;
                1.0 - sums.first / (query.length * sums.square.sqrt())
            }
            VectorMetric::Euclidean => self
                .sums(isa, FloatMetric::Squared, query.vector, slot)?
                .first
                .sqrt(),
            VectorMetric::DotProduct => 0.0 - self.sums(isa, FloatMetric::Dot, query.vector, slot)?.first,
            VectorMetric::NormalizedCosine => {
                1.0 - self.sums(isa, FloatMetric::Dot, query.vector, slot)?.first
            }
        })
    }
}

/// Orders like the float, NaN last.
pub(crate) fn ordered_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        u32::MAX
    } else if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// Keys from 8-bit codes.
#[derive(Debug)]
pub(crate) struct CodeSpace<'a> {
    pub(crate) isa: Isa,
    pub(crate) query: QueryCode<'a>,
    pub(crate) codes: CodeRows<'a>,
}

impl Space for CodeSpace<'_> {
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
pub(crate) struct FloatSpace<'a> {
    pub(crate) isa: Isa,
    pub(crate) metric: VectorMetric,
    pub(crate) query: &'a Query<'a>,
    pub(crate) vectors: Vectors<'a>,
}

impl Space for FloatSpace<'_> {
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

/// What the walk looks at.
pub(crate) enum Walk<'s> {
    Codes(&'s CodeSpace<'s>, Rounding),
    /// And the code that is nearest to the query, if there are codes, but none near it.
    Floats(&'s FloatSpace<'s>, Option<&'s CodeSpace<'s>>),
}

/// Prepares the query for the walk: over the codes, unless there are none or they would mislead.
pub(crate) fn with_space<T>(
    parts: &Parts<'_>,
    query: &Query<'_>,
    code: &mut Vec<u8>,
    run: impl FnOnce(Walk<'_>) -> T,
) -> T {
    let isa = Isa::best();
    let floats = FloatSpace {
        isa,
        metric: parts.metric,
        query,
        vectors: parts.vectors,
    };
    let Some((codebook, codes)) = parts.codes else {
        return run(Walk::Floats(&floats, None));
    };
    code.resize(codes.stride, 0);
    let fits = codebook.encode_query(query.vector, code);
    let space = CodeSpace {
        isa,
        query: QueryCode::new(codebook.metric, code),
        codes,
    };
    if fits || parts.vectors.stored == StoredVectors::None {
        run(Walk::Codes(&space, Rounding::of(&codebook, query)))
    } else {
        run(Walk::Floats(&floats, Some(&space)))
    }
}
