//! In which order nodes lie: near ones near each other.
//!
//! A beam search goes from a node to its neighbors. When these are neighbors in memory too, a hop touches fewer
//! cache lines, pages of the file and entries of the translation buffer.

use super::select_neighbors::Points;
use crate::hnsw::clusters::kmeans::Clustering;
use crate::hnsw::graph::distance_computer::DistanceComputer;
use crate::hnsw::kernels::{CodeMetric, CodeRows};
use crate::hnsw::progress::Watch;

/// Fewer points than this are left as they are.
const LEAF: usize = 12;
/// Points looked at to find two that lie far apart.
const SAMPLE: usize = 64;

/// An order of the points `0..count` in which neighbors are near each other: halved again and again,
/// between two points that lie far apart.
pub(crate) fn by_locality(points: &Points<'_>, count: u32, watch: &Watch<'_>) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..count).collect();
    halve(points, &mut ids, watch);
    ids
}

/// An order of the points in which those of a cluster follow each other and neighboring clusters are near each
/// other. Numbers the clusters anew, in that order.
pub(crate) fn by_clusters(
    points: &Points<'_>,
    clusters: &mut Clustering,
    stride: usize,
    watch: &Watch<'_>,
) -> Vec<u32> {
    let count = u32::try_from(clusters.centroids.len() / stride).expect("fewer than points");
    let centroids = Points::Codes {
        metric: CodeMetric::Squared,
        codes: CodeRows {
            bytes: &clusters.centroids,
            stride,
        },
    };
    let order = by_locality(&centroids, count, watch);
    let mut members = vec![Vec::new(); order.len()];
    for (&cluster, point) in clusters.of.iter().zip(0..) {
        members[cluster as usize].push(point);
    }
    let mut centroids = Vec::with_capacity(clusters.centroids.len());
    let mut ids = Vec::with_capacity(clusters.of.len());
    let mut rank = 0;
    for &cluster in &order {
        let mut members = std::mem::take(&mut members[cluster as usize]);
        if members.is_empty() {
            continue;
        }
        centroids.extend_from_slice(&clusters.centroids[cluster as usize * stride..][..stride]);
        members
            .iter()
            .for_each(|&point| clusters.of[point as usize] = rank);
        rank += 1;
        halve(points, &mut members, watch);
        ids.extend(members);
    }
    clusters.centroids = centroids;
    ids
}

fn halve(points: &Points<'_>, ids: &mut [u32], watch: &Watch<'_>) {
    if ids.len() <= LEAF || !watch.goes_on() {
        return;
    }
    let sample: Vec<u32> = ids.iter().step_by(ids.len().div_ceil(SAMPLE)).copied().collect();
    let one = farthest(points, sample[0], &sample);
    let other = farthest(points, one, &sample);
    let (to_one, to_other) = (keys(points, one, ids), keys(points, other, ids));
    let mut sides: Vec<(i64, u32)> = to_one
        .iter()
        .zip(to_other)
        .zip(&*ids)
        .map(|((&one, other), &id)| (i64::from(one) - i64::from(other), id))
        .collect();
    let middle = sides.len() / 2;
    sides.select_nth_unstable(middle);
    ids.iter_mut()
        .zip(&sides)
        .for_each(|(id, &(_, sorted))| *id = sorted);
    drop(sides);
    let (left, right) = ids.split_at_mut(middle);
    if left.len() > 1000 {
        rayon::join(|| halve(points, left, watch), || halve(points, right, watch));
    } else {
        halve(points, left, watch);
        halve(points, right, watch);
    }
}

fn keys(points: &Points<'_>, from: u32, ids: &[u32]) -> Vec<u32> {
    let mut keys = vec![0; ids.len()];
    points.around(from, |computer| computer.keys(ids, &mut keys));
    keys
}

fn farthest(points: &Points<'_>, from: u32, ids: &[u32]) -> u32 {
    let keys = keys(points, from, ids);
    let farthest = keys.iter().zip(ids).max();
    farthest.map_or(from, |(_, &id)| id)
}
