//! Data, and the slow, obvious answer.

use datafusion_hnsw::hnsw::exact::{TopK, distance_f64};
use datafusion_hnsw::hnsw::{HnswBuilder, HnswConfig, HnswIndex, RowSet, VectorMetric};
use datafusion_hnsw::id::RowId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) type Vectors = Vec<Vec<f32>>;

/// Independent numbers between -1 and 1.
pub(crate) fn uniform(n: usize, dim: usize, seed: u64) -> Vectors {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n)
        .map(|_| (0..dim).map(|_| rng.random_range(-1.0..1.0)).collect())
        .collect()
}

/// Clusters of low intrinsic dimension, plus noise; the centres are fixed by `seed`, the points by `draw`.
pub(crate) fn clustered(n: usize, dim: usize, seed: u64, draw: u64) -> Vectors {
    const CLUSTERS: usize = 30;
    const INTRINSIC: usize = 8;
    let mut fixed = StdRng::seed_from_u64(seed);
    let mut rng = StdRng::seed_from_u64(seed ^ draw.wrapping_mul(0x9E37_79B9));
    let centres = uniform(CLUSTERS, dim, fixed.random());
    let axes = uniform(CLUSTERS * INTRINSIC, dim, fixed.random());
    (0..n)
        .map(|_| {
            let cluster = rng.random_range(0..CLUSTERS);
            let mut vector = centres[cluster].clone();
            for axis in &axes[cluster * INTRINSIC..][..INTRINSIC] {
                let step: f32 = rng.random_range(-0.4..0.4);
                vector.iter_mut().zip(axis).for_each(|(x, a)| *x += step * a);
            }
            vector
                .iter_mut()
                .for_each(|x| *x += rng.random_range(-0.05..0.05));
            vector
        })
        .collect()
}

pub(crate) fn build(vectors: &[Vec<f32>], metric: VectorMetric, config: HnswConfig) -> HnswIndex {
    let mut builder = HnswBuilder::new(vectors[0].len(), metric, config);
    for (row, vector) in vectors.iter().enumerate() {
        builder.insert_slice(RowId::new(row as u64), vector).unwrap();
    }
    builder.build().unwrap()
}

/// The k nearest allowed rows, by looking at all of them.
pub(crate) fn nearest(
    vectors: &[Vec<f32>],
    metric: VectorMetric,
    query: &[f32],
    k: usize,
    allowed: Option<&RowSet>,
) -> Vec<RowId> {
    let query: Vec<f64> = query.iter().map(|&x| f64::from(x)).collect();
    let mut best = TopK::new(k);
    for (row, vector) in vectors.iter().enumerate() {
        let row = RowId::new(row as u64);
        if allowed.is_none_or(|allowed| allowed.contains(row))
            && let Some(distance) = distance_f64(metric, &query, vector)
        {
            best.push(row, distance);
        }
    }
    best.into_sorted()
        .into_iter()
        .map(|neighbour| neighbour.row)
        .collect()
}

/// The share of the true rows among the found.
pub(crate) fn share(found: &[RowId], truth: &[RowId]) -> f64 {
    truth.iter().filter(|row| found.contains(row)).count() as f64 / truth.len().max(1) as f64
}
