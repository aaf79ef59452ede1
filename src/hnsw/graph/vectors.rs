//! The stored vectors, and distances to them.

use crate::hnsw::config::StoredVectors;
use crate::hnsw::kernels::{self, FloatMetric, Isa, Sums};
use crate::hnsw::metric::VectorMetric;
use crate::hnsw::query_vector::Query;

/// The vectors themselves, a row for each slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vectors<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) stored: StoredVectors,
    pub(crate) dim: usize,
    /// In which row of `bytes` a slot's vector lies, when not in that of the same number.
    pub(crate) order: Option<&'a [u32]>,
}

impl<'a> Vectors<'a> {
    /// Bytes of a vector.
    pub(crate) fn stride(&self) -> usize {
        vector_stride(self.stored, self.dim)
    }

    /// The stored bytes of a slot's vector; `None` if none are stored.
    #[inline]
    pub(crate) fn row(&self, slot: u32) -> Option<&'a [u8]> {
        if self.stored == StoredVectors::None {
            return None;
        }
        let row = self.order.map_or(slot, |order| order[slot as usize]) as usize;
        Some(&self.bytes[row * self.stride()..][..self.stride()])
    }

    /// Says that a slot's vector will soon be asked for.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        if let Some(row) = self.row(slot) {
            kernels::prefetch(row);
        }
    }

    /// Writes a slot's vector to `out`. False, and `out` untouched, if none are stored.
    pub(crate) fn read(&self, slot: u32, out: &mut [f32]) -> bool {
        let Some(row) = self.row(slot) else { return false };
        if self.stored == StoredVectors::F16 {
            for (x, &half) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                *x = half::f16::from_le_bytes(half).to_f32();
            }
        } else {
            for (x, &bytes) in out.iter_mut().zip(row.as_chunks::<4>().0) {
                *x = f32::from_le_bytes(bytes);
            }
        }
        true
    }

    /// The sums between `query` and a slot's vector; `None` if none are stored.
    #[inline]
    pub(crate) fn sums(&self, isa: Isa, metric: FloatMetric, query: &[f32], slot: u32) -> Option<Sums> {
        let row = self.row(slot)?;
        if self.stored == StoredVectors::F16 {
            let wide: Vec<u8> = row
                .as_chunks::<2>()
                .0
                .iter()
                .flat_map(|&half| half::f16::from_le_bytes(half).to_f32().to_le_bytes())
                .collect();
            Some(kernels::float_sums(isa, metric, query, &wide))
        } else {
            Some(kernels::float_sums(isa, metric, query, row))
        }
    }
}

/// Bytes of one stored vector.
pub(crate) fn vector_stride(stored: StoredVectors, dim: usize) -> usize {
    match stored {
        StoredVectors::F32 => 4 * dim,
        StoredVectors::F16 => 2 * dim,
        StoredVectors::None => 0,
    }
}

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
