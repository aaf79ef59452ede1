//! A query vector that was checked, and how wrong an f32 distance to it can be.

use super::error::SearchError;
use super::kernels;
use super::metric::VectorMetric;

/// The longest vector, and the shortest under cosine, that f32 sums of squares can hold with room to
/// spare. Vectors beyond are listed, not linked.
pub(crate) const LENGTHS: std::ops::RangeInclusive<f64> = 1e-15..=1e15;

/// By how much a [`Hit`](crate::hnsw::Hit)'s distance may differ from the real number it stands for, at most.
///
/// `query_length` is the query's Euclidean length and `distance` the hit's. Rounding the query to f32 is
/// included; rounding the index's vectors to f32 (or f16) is not. For the inner product give the
/// greatest length of a vector as `vector_length`; the others do not need it.
pub fn distance_error(
    metric: VectorMetric,
    dim: usize,
    query_length: f64,
    vector_length: f64,
    distance: f32,
) -> f64 {
    // One rounding for the product, one for each addition to a lane, five for the fold; a few more
    // for what follows. Each is half a unit in the last place.
    let unit = f64::from(f32::EPSILON) / 2.0;
    let roundings = (dim.div_ceil(kernels::LANES) + 12) as f64;
    let sum = roundings * unit * 1.01;
    let tiny = 1e-18 * (dim as f64).sqrt();
    match metric {
        VectorMetric::Cosine => 3.0 * sum + 4.0 * unit,
        VectorMetric::Euclidean => {
            let distance = f64::from(distance);
            (sum + 4.0 * unit) * distance + unit * query_length * 1.01 + tiny
        }
        VectorMetric::DotProduct | VectorMetric::NormalizedCosine => {
            (sum + 4.0 * unit) * query_length * vector_length + 4.0 * unit + tiny
        }
    }
}

/// A query that passed the door: right length, finite, of a length that f32 can square.
#[derive(Debug)]
pub(crate) struct Query<'q> {
    pub(crate) vector: &'q [f32],
    pub(crate) length: f32,
}

impl<'q> Query<'q> {
    pub(crate) fn check(vector: &'q [f32], metric: VectorMetric, dim: usize) -> Result<Self, SearchError> {
        if vector.len() != dim {
            return Err(SearchError::Dimension {
                expected: dim,
                found: vector.len(),
            });
        }
        let length = vector_length(vector);
        if !length.is_finite() || length > *LENGTHS.end() {
            return Err(SearchError::OutOfRange);
        }
        if metric.ignores_length() && length < *LENGTHS.start() {
            return Err(SearchError::ZeroQuery);
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounded, within the range of f32")]
        let length = length as f32;
        Ok(Self { vector, length })
    }
}

/// The Euclidean length, summed in f64 in a fixed order: the same on every machine.
pub(crate) fn vector_length(vector: &[f32]) -> f64 {
    let sums: [f64; 8] = kernels::in_lanes(vector, |sum, x| *sum += f64::from(x) * f64::from(x));
    sums.iter().sum::<f64>().sqrt()
}
