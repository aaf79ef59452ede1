//! Eight-bit codes: what the beam search looks at instead of the vectors.
//!
//! One scale serves all components, so the distance between two codes is an integer sum and needs no
//! table. For squared distances the code is `(x - offset) / scale`; for inner products it is relative
//! to 128, so that the middle of the range is 0.

use rayon::prelude::*;

use super::length_kept::{LengthKept, WHOLE};
use crate::hnsw::kernels::{
    CodeMetric, CodeRows, FloatMetric, Isa, QueryCode, code_keys, dot_base, float_sums, in_lanes,
    with_instructions,
};
use crate::hnsw::metric::VectorMetric;

/// Shorter vectors are searched as they are: they fill one cache line, and a code no less.
pub(crate) const LEAST_DIM: usize = 17;

/// How numbers become codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Codebook {
    pub(crate) metric: CodeMetric,
    /// The number that code 0 stands for (`Squared`); unused for `Dot`, where code 128 is 0.
    pub(crate) offset: f32,
    /// The width of one step; positive and finite.
    pub(crate) scale: f32,
}

/// The share of components, on either side, that may fall outside the range of the codes.
const CLIPPED: f64 = 0.0001;
/// Components looked at to find the range.
const SAMPLE: usize = 1 << 20;

impl Codebook {
    /// What is compared between codes under this metric.
    pub(crate) fn code_metric(metric: VectorMetric) -> CodeMetric {
        if metric == VectorMetric::Euclidean {
            CodeMetric::Squared
        } else {
            CodeMetric::Dot
        }
    }

    /// The code that adds nothing to any distance, for the bytes that pad a row.
    pub(crate) fn padding(&self) -> u8 {
        match self.metric {
            CodeMetric::Squared => 0,
            CodeMetric::Dot => 128,
        }
    }

    /// Finds the range of the components of `vector(0..count)`, which fill `dim` numbers each.
    pub(crate) fn fit(
        metric: VectorMetric,
        dim: usize,
        count: u32,
        mut vector: impl FnMut(u32, &mut [f32]),
    ) -> Self {
        let step = (count as usize * dim).div_ceil(SAMPLE).max(1);
        let (mut sample, mut row) = (Vec::new(), vec![0.0; dim]);
        for id in (0..count).step_by(step) {
            vector(id, &mut row);
            sample.extend_from_slice(&row);
        }
        let code_metric = Self::code_metric(metric);
        let (low, high) = match code_metric {
            CodeMetric::Squared => quantiles(&mut sample),
            CodeMetric::Dot => {
                sample.iter_mut().for_each(|x| *x = x.abs());
                // The longest vectors win inner products: their components must not be clipped.
                let high = if metric.ignores_length() {
                    quantiles(&mut sample).1
                } else {
                    longest_component(dim, count, &mut vector)
                };
                (0.0, high)
            }
        };
        let steps = if code_metric == CodeMetric::Squared {
            255.0
        } else {
            127.0
        };
        let scale = (high - low) / steps;
        let usable = scale.is_finite() && scale >= f32::MIN_POSITIVE;
        Self {
            metric: code_metric,
            offset: low,
            scale: if usable { scale } else { 1.0 },
        }
    }

    /// Encodes a vector; `code` is as long or longer and the rest is padded.
    pub(crate) fn encode(&self, vector: &[f32], code: &mut [u8]) {
        with_instructions(
            Isa::best(),
            #[inline(always)]
            || match self.metric {
                CodeMetric::Squared => self.encode_stretched(vector, 1.0, code),
                CodeMetric::Dot => {
                    let length = LengthKept::new(vector, self.scale);
                    self.encode_stretched(vector, length.stretch(), code);
                    length.adjust(code);
                }
            },
        );
    }

    #[inline(always)]
    fn encode_stretched(&self, vector: &[f32], stretch: f32, code: &mut [u8]) {
        let (body, rest) = code.split_at_mut(vector.len());
        let inverse = stretch / self.scale;
        match self.metric {
            CodeMetric::Squared => {
                for (c, &x) in body.iter_mut().zip(vector) {
                    *c = round_to_code((x - self.offset) * inverse, 0.0);
                }
            }
            CodeMetric::Dot => {
                for (c, &x) in body.iter_mut().zip(vector) {
                    *c = round_to_code(x * inverse + 128.0, 1.0);
                }
            }
        }
        rest.fill(self.padding());
    }

    /// Encodes a query. Only the direction of a query matters to an inner product, so there it gets the
    /// scale that suits it.
    ///
    /// False if the query lies so far outside of the codes' range that they would mislead the beam search.
    pub(crate) fn encode_query(&self, query: &[f32], code: &mut [u8]) -> bool {
        match self.metric {
            CodeMetric::Dot => {
                let own = Self {
                    scale: self.query_scale(query),
                    ..*self
                };
                with_instructions(
                    Isa::best(),
                    #[inline(always)]
                    || own.encode_stretched(query, 1.0, code),
                );
                true
            }
            CodeMetric::Squared => {
                self.encode(query, code);
                let outside = self.outside(query);
                outside == 0.0 || {
                    let middle = self.offset + 127.5 * self.scale;
                    let all: f32 = query.iter().map(|x| (x - middle) * (x - middle)).sum();
                    outside <= 0.01 * all
                }
            }
        }
    }

    /// The squared length of what of a query lies outside of the codes' range (`Squared`).
    pub(crate) fn outside(&self, query: &[f32]) -> f32 {
        let (low, high) = (self.offset, self.offset + 255.0 * self.scale);
        let sums: [f32; 16] = in_lanes(query, |sum, x| {
            let clipped = x - x.clamp(low, high);
            *sum += clipped * clipped;
        });
        sums.iter().sum()
    }

    /// The distance that a key between two codes stands for. For inner products only if both were
    /// encoded with this codebook's scale.
    pub(crate) fn estimate(&self, metric: VectorMetric, key: u32, stride: usize, query_scale: f32) -> f32 {
        #[expect(clippy::cast_possible_truncation, reason = "an estimate")]
        let dot =
            || ((dot_base(stride) - i64::from(key)) as f64 * f64::from(self.scale * query_scale)) as f32;
        match metric {
            VectorMetric::Euclidean => (key as f32).sqrt() * self.scale,
            VectorMetric::DotProduct => -dot(),
            VectorMetric::Cosine | VectorMetric::NormalizedCosine => 1.0 - dot(),
        }
    }

    /// The scale that [`encode_query`](Self::encode_query) uses.
    pub(crate) fn query_scale(&self, query: &[f32]) -> f32 {
        let longest: [f32; 16] = in_lanes(query, |longest: &mut f32, x| *longest = longest.max(x.abs()));
        let longest = longest.into_iter().fold(0.0, f32::max);
        if longest > 0.0 { longest / 127.0 } else { 1.0 }
    }
}

#[inline(always)]
fn round_to_code(x: f32, least: f32) -> u8 {
    // The lowest byte of the bits is the number's.
    (x.clamp(least, 255.0) + WHOLE).to_bits().to_le_bytes()[0]
}

/// Points among which the codes are tried, and points whose neighbors are looked for.
const TRIED: u32 = 8192;
const TRIALS: usize = 48;
/// Neighbors looked for, and the candidates among which the codes must put them.
const WANTED: usize = 10;
const GIVEN: usize = 30;
/// The share of the neighbors that must be there.
const FAITHFUL: f64 = 0.95;

impl Codebook {
    /// Whether codes find the nearest of a sample. They do not when clusters are far apart and small: then
    /// all points of a cluster have one code, and the beam search must use the vectors.
    pub(crate) fn passes_fidelity_check(
        &self,
        dim: usize,
        count: u32,
        vector: impl Fn(u32, &mut [f32]) + Sync,
    ) -> bool {
        let sampled: Vec<u32> = (0..count).step_by((count / TRIED).max(1) as usize).collect();
        if sampled.len() <= GIVEN + 1 {
            // A search of so few looks at all of them.
            return true;
        }
        let stride = code_stride(dim);
        let (mut rows, mut codes) = (vec![0; 4 * dim * sampled.len()], vec![0; stride * sampled.len()]);
        rows.par_chunks_mut(4 * dim)
            .zip(codes.par_chunks_mut(stride))
            .zip(&sampled)
            .for_each(|((row, code), &id)| {
                let mut point = vec![0.0; dim];
                vector(id, &mut point);
                self.encode(&point, code);
                row.as_chunks_mut()
                    .0
                    .iter_mut()
                    .zip(&point)
                    .for_each(|(out, x)| *out = x.to_le_bytes());
            });
        let (isa, codes) = (
            Isa::best(),
            CodeRows {
                bytes: &codes,
                stride,
            },
        );
        let ids: Vec<u32> = (0..).take(sampled.len()).collect();
        let every = (sampled.len() / TRIALS).max(1);
        let trials: Vec<usize> = (0..sampled.len()).step_by(every).collect();
        let found: usize = trials
            .par_iter()
            .map(|&trial| {
                let mut query = vec![0.0; dim];
                vector(sampled[trial], &mut query);
                let mut keys = vec![0; ids.len()];
                code_keys(
                    isa,
                    QueryCode::new(self.metric, codes.row(ids[trial])),
                    codes,
                    &ids,
                    &mut keys,
                );
                let squared = self.metric == CodeMetric::Squared;
                let sums = if squared {
                    FloatMetric::Squared
                } else {
                    FloatMetric::Dot
                };
                let mut truth: Vec<(f32, usize)> = rows
                    .chunks_exact(4 * dim)
                    .map(|row| float_sums(isa, sums, &query, row).first)
                    .map(|sum| if squared { sum } else { -sum })
                    .zip(0..)
                    .filter(|&(_, other)| other != trial)
                    .collect();
                truth.select_nth_unstable_by(WANTED, |a, b| a.0.total_cmp(&b.0));
                let mut sorted = keys.clone();
                // Itself, and the given; a tie that does not fit among them counts as not found.
                let limit = *sorted.select_nth_unstable(GIVEN + 1).1;
                truth[..WANTED]
                    .iter()
                    .filter(|&&(_, other)| keys[other] < limit)
                    .count()
            })
            .sum();
        let share = found as f64 / (trials.len() * WANTED) as f64;
        tracing::debug!(dim, share, "nearest of a sample that the codes find");
        share >= FAITHFUL
    }
}

/// The components below and above which [`CLIPPED`] of them lie.
fn quantiles(sample: &mut [f32]) -> (f32, f32) {
    let Some(last) = sample.len().checked_sub(1) else {
        return (0.0, 0.0);
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below the length"
    )]
    let cut = (sample.len() as f64 * CLIPPED) as usize;
    let low = *sample.select_nth_unstable_by(cut, f32::total_cmp).1;
    let high = *sample.select_nth_unstable_by(last - cut, f32::total_cmp).1;
    (low, high)
}

fn longest_component(dim: usize, count: u32, vector: &mut impl FnMut(u32, &mut [f32])) -> f32 {
    let mut row = vec![0.0; dim];
    (0..count).fold(0.0, |longest, id| {
        vector(id, &mut row);
        row.iter().fold(longest, |longest, x| longest.max(x.abs()))
    })
}

/// Bytes between the codes of two nodes. A whole number of cache lines where that wastes little, so
/// that a code touches as few of them as it can.
pub(crate) fn code_stride(dim: usize) -> usize {
    let lines = dim.next_multiple_of(64);
    if lines - dim <= dim / 4 {
        lines
    } else {
        dim.next_multiple_of(16)
    }
}
