//! The slow, obvious answer: distances in f64 as DataFusion computes them, and the k best of a scan.
//!
//! DataFusion's `cosine_distance`, `array_distance` and `inner_product` widen every number to f64 and
//! add one after the other. Floating-point sums depend on their order, so these functions do the same,
//! in the same order, and give the same bits.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::metric::VectorMetric;
use crate::id::RowId;

/// The distance as DataFusion computes it, to the bit; for the inner product, its negative.
///
/// `None` where SQL gives NULL: under [`VectorMetric::Cosine`], when either vector is zero.
///
/// # Panics
///
/// If the lengths differ.
pub fn distance_f64<T: Copy + Into<f64>>(metric: VectorMetric, query: &[f64], vector: &[T]) -> Option<f64> {
    assert_eq!(query.len(), vector.len(), "query and vector have the same length");
    let pairs = query.iter().copied().zip(vector.iter().map(|&x| x.into()));
    match metric {
        VectorMetric::Cosine => {
            let (mut dot, mut query_sq, mut vector_sq) = (0.0, 0.0, 0.0);
            for (a, b) in pairs {
                dot += a * b;
                query_sq += a * a;
                vector_sq += b * b;
            }
            cosine(dot, query_sq, vector_sq)
        }
        VectorMetric::Euclidean => {
            let mut sum = 0.0;
            for (a, b) in pairs {
                sum += (a - b) * (a - b);
            }
            Some(sum.sqrt())
        }
        VectorMetric::DotProduct | VectorMetric::NormalizedCosine => {
            let mut dot = 0.0;
            for (a, b) in pairs {
                dot += a * b;
            }
            Some(from_dot(metric, dot))
        }
    }
}

fn cosine(dot: f64, query_sq: f64, vector_sq: f64) -> Option<f64> {
    if query_sq == 0.0 || vector_sq == 0.0 {
        None
    } else {
        Some(1.0 - dot / (query_sq.sqrt() * vector_sq.sqrt()))
    }
}

fn from_dot(metric: VectorMetric, dot: f64) -> f64 {
    if metric == VectorMetric::NormalizedCosine {
        1.0 - dot
    } else {
        -dot
    }
}

/// Rows whose sums run side by side in [`distances_f64`]: enough to hide the latency of an addition.
pub const LANES: usize = 8;

/// The distances of many vectors, with the same bits as [`distance_f64`] one by one; in less time where there are
/// [`LANES`] of them or a multiple of it.
///
/// # Panics
///
/// If the lengths differ, or `vectors` and `out` have.
pub fn distances_f64(metric: VectorMetric, query: &[f64], vectors: &[&[f32]], out: &mut [Option<f64>]) {
    assert_eq!(vectors.len(), out.len(), "one distance for each vector");
    let (groups, rest) = vectors.as_chunks::<LANES>();
    let (distances, distances_of_rest) = out.split_at_mut(groups.len() * LANES);
    for (group, distances) in groups.iter().zip(distances.chunks_exact_mut(LANES)) {
        let lanes = group.map(|vector| {
            assert_eq!(query.len(), vector.len(), "query and vector have the same length");
            // Of the query's length for the compiler, too.
            &vector[..query.len()]
        });
        interleaved(metric, query, &lanes, distances);
    }
    for (vector, distance) in rest.iter().zip(distances_of_rest) {
        *distance = distance_f64(metric, query, vector);
    }
}

/// Each row's sums are sequential, as they must be; the rows run beside each other.
fn interleaved(metric: VectorMetric, query: &[f64], rows: &[&[f32]; LANES], out: &mut [Option<f64>]) {
    let mut sum = [0.0f64; LANES];
    match metric {
        VectorMetric::Cosine => {
            let mut square = [0.0f64; LANES];
            let mut query_sq = 0.0;
            for (i, &a) in query.iter().enumerate() {
                query_sq += a * a;
                for lane in 0..LANES {
                    let b = f64::from(rows[lane][i]);
                    sum[lane] += a * b;
                    square[lane] += b * b;
                }
            }
            for lane in 0..LANES {
                out[lane] = cosine(sum[lane], query_sq, square[lane]);
            }
        }
        VectorMetric::Euclidean => {
            for (i, &a) in query.iter().enumerate() {
                for lane in 0..LANES {
                    let difference = a - f64::from(rows[lane][i]);
                    sum[lane] += difference * difference;
                }
            }
            for lane in 0..LANES {
                out[lane] = Some(sum[lane].sqrt());
            }
        }
        VectorMetric::DotProduct | VectorMetric::NormalizedCosine => {
            for (i, &a) in query.iter().enumerate() {
                for lane in 0..LANES {
                    sum[lane] += a * f64::from(rows[lane][i]);
                }
            }
            for lane in 0..LANES {
                out[lane] = Some(from_dot(metric, sum[lane]));
            }
        }
    }
}

/// A distance and its row; ordered by distance, ties by row. NaN is farther than everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// The distance.
    pub distance: f64,
    /// The row.
    pub row: RowId,
}

impl Eq for Neighbour {}

impl PartialOrd for Neighbour {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Neighbour {
    fn cmp(&self, other: &Self) -> Ordering {
        // A NaN of either sign is farthest, as in DataFusion's ascending sort.
        match (self.distance.is_nan(), other.distance.is_nan()) {
            (false, false) => self.distance.total_cmp(&other.distance),
            (a, b) => a.cmp(&b),
        }
        .then(self.row.cmp(&other.row))
    }
}

/// The k nearest of the rows pushed so far; with [`with_ties`](Self::with_ties), also every row as near
/// as the k-th.
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    ties: bool,
    heap: BinaryHeap<Neighbour>,
    /// Rows as far as the heap's top, kept only when ties are asked for.
    tied: Vec<Neighbour>,
}

impl TopK {
    /// Keeps the `k` nearest; ties go to the lower row.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            ties: false,
            heap: BinaryHeap::new(),
            tied: Vec::new(),
        }
    }

    /// Keeps the `k` nearest and every further row at the distance of the k-th.
    pub fn with_ties(k: usize) -> Self {
        Self {
            ties: true,
            ..Self::new(k)
        }
    }

    /// Offers a row.
    pub fn push(&mut self, row: RowId, distance: f64) {
        // -0 and 0 are one distance.
        let new = Neighbour {
            distance: distance + 0.0,
            row,
        };
        if self.k == 0 {
            return;
        }
        if self.heap.len() < self.k {
            self.heap.push(new);
            return;
        }
        let farthest = *self.heap.peek().expect("k rows are held and k is not 0");
        if new < farthest {
            self.heap.pop();
            self.heap.push(new);
            self.keep_tie(farthest);
        } else {
            self.keep_tie(new);
        }
    }

    /// Holds on to a row that is out of the heap but as far as the heap's top.
    fn keep_tie(&mut self, out: Neighbour) {
        if !self.ties {
            return;
        }
        let top = self.threshold();
        let same =
            |n: &Neighbour| n.distance.to_bits() == top.to_bits() || (n.distance.is_nan() && top.is_nan());
        if self.tied.first().is_some_and(|n| !same(n)) {
            self.tied.clear();
        }
        if same(&out) {
            self.tied.push(out);
        }
    }

    /// The distance of the k-th nearest so far: rows farther than this cannot get in. Infinite until
    /// k rows are held.
    pub fn threshold(&self) -> f64 {
        match self.heap.peek() {
            Some(farthest) if self.heap.len() >= self.k => farthest.distance,
            _ => f64::INFINITY,
        }
    }

    /// How many rows are held, ties not counted.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no row is held.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Takes in all that `other` holds.
    pub fn merge(&mut self, other: Self) {
        for neighbor in other.heap.into_iter().chain(other.tied) {
            self.push(neighbor.row, neighbor.distance);
        }
    }

    /// The rows held, nearest first, ties by row.
    pub fn into_sorted(self) -> Vec<Neighbour> {
        let mut all = self.heap.into_vec();
        all.extend(self.tied);
        all.sort_unstable();
        all
    }
}
