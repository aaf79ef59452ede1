//! Finds compact clusters of nodes by k-means over their codes (Lloyd's algorithm), in two steps: coarse clusters
//! of a sample, then clusters within each of them.
//!
//! All sums are sums of integers, so the clusters do not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::hnsw::kernels::{CodeMetric, CodeRows, Isa, QueryCode, code_keys};
use crate::hnsw::progress::Watch;

/// Nodes of a cluster on average, as long as there are at most 4,096 clusters.
const SIZE: u32 = 64;
/// An index with fewer nodes has no clusters: comparing all codes is as quick.
const LEAST: u32 = 512;
/// Rounds of Lloyd's algorithm in each step.
const ROUNDS: usize = 4;
/// Rounds over all nodes at the end.
const LAST_ROUNDS: usize = 2;
/// In those rounds a node looks for its cluster under so many coarse centroids.
const GROUPS: usize = 4;
/// Centroids that are compared at a time.
const BLOCK: usize = 64;
/// Nodes in the sample of the first step, for each coarse cluster.
const SAMPLE: u32 = 256;

/// Which cluster each node belongs to.
#[derive(Debug)]
pub(crate) struct Clustering {
    /// The cluster of each node.
    pub(crate) of: Vec<u32>,
    /// The codes of the clusters' centroids, one after the other.
    pub(crate) centroids: Vec<u8>,
}

/// Clusters the nodes `0..count`. `None` if they are few. The result is meaningless once `watch` has stopped.
pub(crate) fn cluster(codes: CodeRows<'_>, count: u32, watch: &Watch<'_>) -> Option<Clustering> {
    if count < LEAST {
        return None;
    }
    // A query is compared with all centroids: beyond 4,096 clusters their number grows with the root.
    let clusters = u64::from(count / SIZE).min((u64::from(count) * u64::from(SIZE)).isqrt());
    let groups = u32::try_from(clusters.isqrt()).expect("a root of 32 bits");
    let size = count / u32::try_from(clusters).expect("fewer than nodes");
    let step = (count / (groups * SAMPLE)).max(1);
    let sample: Vec<u32> = (0..count).step_by(step as usize).collect();
    let tops = Centroids::lloyd(codes, &sample, groups as usize, watch);

    let nodes: Vec<u32> = (0..count).collect();
    let group_of: Vec<u32> = nodes
        .par_iter()
        .map(|&node| {
            if watch.goes_on() {
                tops.nearest(codes.row(node))
            } else {
                0
            }
        })
        .collect();
    let mut members = vec![Vec::new(); groups as usize];
    for (&group, node) in group_of.iter().zip(0..) {
        members[group as usize].push(node);
    }
    drop(group_of);
    let parts: Vec<Centroids> = members
        .par_iter()
        .map(|members| Centroids::lloyd(codes, members, members.len().div_ceil(size as usize), watch))
        .collect();
    drop(members);
    let starts: Vec<usize> = parts
        .iter()
        .scan(0, |end, part| Some(std::mem::replace(end, *end + part.count())))
        .collect();
    let bytes = parts.iter().flat_map(|part| part.bytes.iter().copied()).collect();
    let mut clusters = Centroids::new(bytes, codes.stride);
    let ranges: Vec<Range<usize>> = starts
        .iter()
        .zip(&parts)
        .map(|(&start, part)| start..start + part.count())
        .collect();
    let mut of = Vec::new();
    for _ in 0..LAST_ROUNDS {
        of = nodes
            .par_iter()
            .map(|&node| {
                if !watch.goes_on() {
                    return 0;
                }
                let code = codes.row(node);
                let mut near = Vec::with_capacity(tops.count());
                tops.keys_of(code, 0..tops.count(), |key, id| near.push((key, id)));
                let last = GROUPS.min(near.len()) - 1;
                near.select_nth_unstable(last);
                near.truncate(GROUPS);
                let cluster = near
                    .iter()
                    .filter_map(|&(_, group)| clusters.nearest_of(code, ranges[group as usize].clone()))
                    .min();
                cluster.map_or(0, |(_, cluster)| cluster)
            })
            .collect();
        clusters.move_to_means(codes, &nodes, &of);
    }
    Some(Clustering {
        of,
        centroids: clusters.bytes,
    })
}

/// The means of runs of `size` codes that follow each other, as codes; the last run may be shorter.
pub(crate) fn means_of_runs(codes: CodeRows<'_>, size: usize) -> Vec<u8> {
    let ids: Vec<u32> = (0..).take(codes.bytes.len() / codes.stride).collect();
    let of: Vec<u32> = (0..)
        .flat_map(|run| std::iter::repeat_n(run, size))
        .take(ids.len())
        .collect();
    let bytes = vec![0; ids.len().div_ceil(size) * codes.stride];
    let mut means = Centroids::new(bytes, codes.stride);
    means.move_to_means(codes, &ids, &of);
    means.bytes
}

/// The codes of some centroids.
#[derive(Debug)]
struct Centroids {
    bytes: Vec<u8>,
    stride: usize,
    /// Their squared lengths, components taken relative to 128.
    squares: Vec<u64>,
}

impl Centroids {
    fn new(bytes: Vec<u8>, stride: usize) -> Self {
        let squares = bytes.chunks_exact(stride).map(square).collect();
        Self {
            bytes,
            stride,
            squares,
        }
    }

    /// `count` centroids of `nodes`: evenly spread nodes, moved to the means of those nearest to them.
    fn lloyd(codes: CodeRows<'_>, nodes: &[u32], count: usize, watch: &Watch<'_>) -> Self {
        let first = (0..count).map(|i| codes.row(nodes[i * nodes.len() / count]));
        let mut centroids = Self::new(first.flatten().copied().collect(), codes.stride);
        for _ in 0..ROUNDS {
            let of: Vec<u32> = nodes
                .par_iter()
                .with_min_len(1024)
                .map(|&node| {
                    if watch.goes_on() {
                        centroids.nearest(codes.row(node))
                    } else {
                        0
                    }
                })
                .collect();
            centroids.move_to_means(codes, nodes, &of);
        }
        centroids
    }

    fn count(&self) -> usize {
        self.bytes.len() / self.stride
    }

    /// Calls `each` with the key and the number of some centroids, compared with a code.
    ///
    /// Clusters are to be compact under every metric, so the keys order like squared differences. `|x - c|²`
    /// is `|c|² - 2 x c` plus a term that depends on the code alone, so a product and a stored square
    /// suffice.
    fn keys_of(&self, code: &[u8], range: Range<usize>, mut each: impl FnMut(u64, u32)) {
        let query = QueryCode::new(CodeMetric::Dot, code);
        let rows = CodeRows {
            bytes: &self.bytes,
            stride: self.stride,
        };
        let (mut ids, mut keys) = ([0; BLOCK], [0; BLOCK]);
        for start in range.clone().step_by(BLOCK) {
            let count = BLOCK.min(range.end - start);
            for (id, centroid) in ids[..count].iter_mut().zip(start..) {
                *id = u32::try_from(centroid).expect("fewer than nodes");
            }
            let keys = &mut keys[..count];
            code_keys(Isa::best(), query, rows, &ids[..count], keys);
            for ((&key, &square), id) in keys.iter().zip(&self.squares[start..]).zip(ids) {
                each(square + 2 * u64::from(key), id);
            }
        }
    }

    /// The nearest of some centroids, with its key.
    fn nearest_of(&self, code: &[u8], range: Range<usize>) -> Option<(u64, u32)> {
        let mut nearest = None;
        self.keys_of(code, range, |key, id| {
            if nearest.is_none_or(|nearest| (key, id) < nearest) {
                nearest = Some((key, id));
            }
        });
        nearest
    }

    fn nearest(&self, code: &[u8]) -> u32 {
        self.nearest_of(code, 0..self.count()).map_or(0, |(_, id)| id)
    }

    /// Moves each centroid to the mean of its nodes; one without nodes stays.
    fn move_to_means(&mut self, codes: CodeRows<'_>, nodes: &[u32], of: &[u32]) {
        let mut sums = vec![0u64; self.bytes.len()];
        let mut counts = vec![0u64; self.count()];
        for (&node, &centroid) in nodes.iter().zip(of) {
            counts[centroid as usize] += 1;
            sums[centroid as usize * self.stride..][..self.stride]
                .iter_mut()
                .zip(codes.row(node))
                .for_each(|(sum, &code)| *sum += u64::from(code));
        }
        for (((centroid, sums), &count), square_of) in self
            .bytes
            .chunks_exact_mut(self.stride)
            .zip(sums.chunks_exact(self.stride))
            .zip(&counts)
            .zip(&mut self.squares)
            .filter(|((_, count), _)| **count > 0)
        {
            for (byte, &sum) in centroid.iter_mut().zip(sums) {
                *byte = u8::try_from((sum + count / 2) / count).expect("a mean of bytes");
            }
            *square_of = square(centroid);
        }
    }
}

/// The squared length of a code, components taken relative to 128.
fn square(code: &[u8]) -> u64 {
    code.iter()
        .map(|&byte| u64::from(byte.abs_diff(128)).pow(2))
        .sum()
}
