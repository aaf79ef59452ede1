//! A ball around the vectors of a file: none of its rows is nearer to a query than the ball is.
//!
//! Let every vector `x` of the file lie within `r` of the centre `c`, and let `q` be a query.
//!
//! - **L2**: `|q - c| <= |q - x| + |x - c|`, so `|q - x| >= |q - c| - r`.
//! - **Inner product**: the distance is `-q·x = -q·c - q·(x - c)`, and `q·(x - c) <= |q| |x - c|` (Cauchy-Schwarz), so
//!   it is at least `-q·c - |q| r`.
//! - **Cosine**: the ball is around the directions `u = x / |x|`, and `p = q / |q|` is the query's. The distance
//!   `1 - p·u` is at least `1 - p·c - r`, as above. It is also `|p - u|² / 2`, since both have length 1, and so at
//!   least `max(0, |p - c| - r)² / 2`. The greater of the two counts.
//!
//! That is true of real numbers. Sums of up to 65,535 products in f64 are off by less than 1e-11 of the sum of their
//! absolute values, both here and in the distances that SQL computes; [`SLACK`] gives a hundred times that away.

use crate::hnsw::{HnswIndex, StoredVectors, VectorMetric};
use crate::id::RowId;

/// What the bounds give away for rounding, as a part of what was added up.
const SLACK: f64 = 1e-9;

/// Vectors of more numbers have no ball: it would make the footer, which is read whole, too long.
const LONGEST: usize = 4096;

/// The property of a sidecar that holds the ball: the bits of the radius (f64) and then of each number of the centre
/// (f32), in hexadecimal.
pub(super) const BALL: &str = "ball";

/// Holds all vectors that an index links; under cosine, their directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Ball {
    centre: Vec<f32>,
    radius: f64,
}

impl Ball {
    /// A ball around the vectors that the index links, at the mean of them.
    ///
    /// `rounded` says that the file's own vectors are `Float64`, of which the index holds roundings. `None` if the
    /// index links nothing, does not hold `f32`, or its vectors are very long.
    pub fn around(index: &HnswIndex, rounded: bool) -> Option<Self> {
        let dim = index.dim();
        if index.config().stored != StoredVectors::F32 || dim > LONGEST {
            return None;
        }
        let metric = index.metric();
        let mut sums = vec![0.0_f64; dim];
        let mut count = 0_u64;
        for_each_linked(index, |vector| {
            let unit = unit(metric, vector);
            sums.iter_mut()
                .zip(vector)
                .for_each(|(sum, &x)| *sum += f64::from(x) * unit);
            count += 1;
        });
        if count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the ball is around the rounded centre"
        )]
        let centre: Vec<f32> = sums.iter().map(|sum| (sum / count as f64) as f32).collect();
        let mut radius = 0.0_f64;
        for_each_linked(index, |vector| {
            radius = radius.max(reach(metric, &centre, vector, rounded));
        });
        let radius = radius * (1.0 + SLACK)
            + if metric == VectorMetric::Cosine {
                SLACK
            } else {
                0.0
            };
        Some(Self { centre, radius }).filter(Self::is_finite)
    }

    /// A row of the file is at least this far from the query; for the inner product, its negative.
    ///
    /// Less than any distance when nothing can be said.
    pub fn at_least(&self, metric: VectorMetric, query: &[f64]) -> f64 {
        if query.len() != self.centre.len() {
            return f64::NEG_INFINITY;
        }
        let (mut dot, mut apart, mut query_sq, mut centre_sq) = (0.0, 0.0, 0.0, 0.0);
        for (&q, &c) in query.iter().zip(&self.centre) {
            let c = f64::from(c);
            dot += q * c;
            apart += (q - c) * (q - c);
            query_sq += q * q;
            centre_sq += c * c;
        }
        let (length, reach) = (query_sq.sqrt(), centre_sq.sqrt() + self.radius);
        match metric {
            VectorMetric::Euclidean => {
                let apart = apart.sqrt();
                apart - self.radius - SLACK * (apart + self.radius)
            }
            VectorMetric::DotProduct => -dot - length * self.radius - SLACK * length * reach,
            VectorMetric::NormalizedCosine => {
                1.0 - dot - length * self.radius - SLACK * (1.0 + length * reach)
            }
            VectorMetric::Cosine => {
                let cosine = dot / length;
                let straight = 1.0 - cosine - self.radius;
                let chord = ((1.0 - 2.0 * cosine + centre_sq).max(0.0).sqrt() - self.radius).max(0.0);
                straight.max(chord * chord / 2.0) - SLACK * (1.0 + reach * reach)
            }
        }
    }

    /// Whether a vector that an index links lies in the ball, as [`around`](Self::around) promises.
    pub fn holds(&self, metric: VectorMetric, vector: &[f32]) -> bool {
        vector.len() == self.centre.len()
            && reach(metric, &self.centre, vector, false) <= self.radius * (1.0 + SLACK) + SLACK * SLACK
    }

    /// As a property of a sidecar.
    pub fn to_text(&self) -> String {
        let mut text = format!("{:016x}", self.radius.to_bits());
        for x in &self.centre {
            text.push_str(&format!("{:08x}", x.to_bits()));
        }
        text
    }

    /// Reads [`to_text`](Self::to_text) back; `None` for anything else.
    pub fn from_text(text: &str) -> Option<Self> {
        let (radius, centre) = text.split_at_checked(16)?;
        let radius = f64::from_bits(u64::from_str_radix(radius, 16).ok()?);
        let centre = centre.as_bytes().chunks(8).map(|bits| {
            let bits = std::str::from_utf8(bits).ok().filter(|bits| bits.len() == 8)?;
            Some(f32::from_bits(u32::from_str_radix(bits, 16).ok()?))
        });
        let centre = centre.collect::<Option<_>>()?;
        Some(Self { centre, radius }).filter(Self::is_finite)
    }

    fn is_finite(&self) -> bool {
        self.radius >= 0.0 && self.radius.is_finite() && self.centre.iter().all(|x| x.is_finite())
    }
}

/// What a vector is multiplied by before it is put into the ball.
fn unit(metric: VectorMetric, vector: &[f32]) -> f64 {
    match metric {
        VectorMetric::Cosine => 1.0 / length(vector),
        _ => 1.0,
    }
}

fn length(vector: &[f32]) -> f64 {
    vector
        .iter()
        .map(|&x| f64::from(x) * f64::from(x))
        .sum::<f64>()
        .sqrt()
}

/// How far a vector is from the centre, and its `Float64` original, if it is a rounding of one.
///
/// Rounding moves each number by at most half a unit in its last place, or by next to nothing near zero, where the
/// unit stops shrinking; it turns a direction by twice the part of its length that a vector moves.
fn reach(metric: VectorMetric, centre: &[f32], vector: &[f32], rounded: bool) -> f64 {
    let unit = unit(metric, vector);
    let apart = vector.iter().zip(centre).map(|(&x, &c)| {
        let apart = f64::from(x) * unit - f64::from(c);
        apart * apart
    });
    let apart = apart.sum::<f64>().sqrt();
    if !rounded {
        return apart;
    }
    let moved = f64::from(f32::EPSILON) * length(vector) + 1e-30;
    apart + 2.0 * moved * unit
}

fn for_each_linked(index: &HnswIndex, mut each: impl FnMut(&[f32])) {
    // All three lists are ascending.
    let mut others: Vec<RowId> = index
        .null_rows()
        .chain(index.zero_rows())
        .chain(index.unindexable_rows())
        .collect();
    others.sort_unstable();
    for row in (0..index.row_count()).map(RowId::new) {
        if others.binary_search(&row).is_err()
            && let Some(vector) = index.vector(row)
        {
            each(&vector);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hnsw::exact::distance_f64;
    use crate::hnsw::{HnswBuilder, HnswConfig};

    const METRICS: [VectorMetric; 3] = [
        VectorMetric::Cosine,
        VectorMetric::Euclidean,
        VectorMetric::DotProduct,
    ];

    /// Numbers of very different sizes, ties and signs.
    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            -1.0..1.0_f64,
            prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 0.5, 1e-7, 3.0e4, -3.0e4]),
            (-30..30_i32, -1.0..1.0_f64).prop_map(|(power, x)| x * 2.0_f64.powi(power)),
        ]
    }

    /// A far centre and vectors near it, around it or everywhere; and queries among them.
    fn cloud() -> impl Strategy<Value = (Vec<Vec<f64>>, Vec<f64>)> {
        (1..20_usize).prop_flat_map(|dim| {
            let vector = move || prop::collection::vec(number(), dim);
            let spread = prop::sample::select(vec![0.0, 1e-9, 1e-3, 1.0, 1e3]);
            let vectors = prop::collection::vec(vector(), 1..12);
            (vector(), spread, vectors, vector(), any::<bool>()).prop_map(
                |(centre, spread, vectors, query, near)| {
                    let around = |vector: Vec<f64>| -> Vec<f64> {
                        vector.iter().zip(&centre).map(|(x, c)| c + spread * x).collect()
                    };
                    let query = if near { around(query) } else { query };
                    (vectors.into_iter().map(around).collect(), query)
                },
            )
        })
    }

    fn build(metric: VectorMetric, vectors: &[Vec<f64>]) -> HnswIndex {
        let mut builder = HnswBuilder::new(vectors[0].len(), metric, HnswConfig::default());
        for (row, vector) in vectors.iter().enumerate() {
            #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
            let vector: Vec<f32> = vector.iter().map(|&x| x as f32).collect();
            builder
                .insert_slice(RowId::new(row as u64), &vector)
                .expect("of one length");
        }
        builder.build().expect("a small index")
    }

    fn linked(index: &HnswIndex, row: usize) -> bool {
        let row = RowId::new(row as u64);
        !index
            .zero_rows()
            .chain(index.unindexable_rows())
            .any(|other| other == row)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

        #[test]
        fn no_row_is_nearer_than_its_ball((vectors, query) in cloud()) {
            for metric in METRICS {
                let index = build(metric, &vectors);
                for rounded in [false, true] {
                    let Some(ball) = Ball::around(&index, rounded) else { continue };
                    let at_least = ball.at_least(metric, &query);
                    for row in (0..vectors.len()).filter(|&row| linked(&index, row)) {
                        let stored = index.vector(RowId::new(row as u64)).expect("linked");
                        prop_assert!(ball.holds(metric, &stored));
                        let distance = if rounded {
                            distance_f64(metric, &query, &vectors[row])
                        } else {
                            distance_f64(metric, &query, &stored)
                        };
                        if let Some(distance) = distance {
                            prop_assert!(distance >= at_least, "{metric}: {distance} < {at_least}, {ball:?}");
                        }
                    }
                }
            }
        }

        #[test]
        fn any_text_is_a_ball_or_none(text in "[0-9a-fA-F]{0,60}|.{0,40}") {
            if let Some(ball) = Ball::from_text(&text) {
                prop_assert_eq!(Ball::from_text(&ball.to_text()), Some(ball));
            }
        }
    }

    fn cases() -> u32 {
        std::env::var("HNSW_FUZZ_CASES")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(512)
    }

    /// A bound that is far too low would be sound and useless.
    #[test]
    fn the_bound_of_a_small_ball_is_close_to_the_distances() {
        let vectors: Vec<Vec<f64>> = (0..9)
            .map(|row| vec![3.0, 4.0 + f64::from(row) * 1e-4, 0.0])
            .collect();
        let query = [-4.0, 3.0, 1.0];
        for metric in METRICS {
            let index = build(metric, &vectors);
            let ball = Ball::around(&index, false).expect("linked vectors");
            let distances = vectors.iter().filter_map(|v| distance_f64(metric, &query, v));
            let nearest = distances.fold(f64::INFINITY, f64::min);
            let at_least = ball.at_least(metric, &query);
            assert!(nearest - at_least < 0.02, "{metric}: {nearest} {at_least}");
        }
    }

    #[test]
    fn a_ball_reads_back_and_damage_is_none() {
        let index = build(VectorMetric::Cosine, &[vec![1.0, 2.0], vec![-2.0, 0.5]]);
        let ball = Ball::around(&index, false).expect("linked vectors");
        let text = ball.to_text();
        assert_eq!(Ball::from_text(&text), Some(ball.clone()));
        for damaged in ["", "0", &text[..20], &format!("{text}0"), &text.replace('3', "x")] {
            assert_eq!(Ball::from_text(damaged), None, "{damaged}");
        }
        let endless = Ball {
            radius: f64::INFINITY,
            ..ball
        };
        assert_eq!(Ball::from_text(&endless.to_text()), None);
        assert_eq!(endless.at_least(VectorMetric::Cosine, &[1.0]), f64::NEG_INFINITY);
    }
}
