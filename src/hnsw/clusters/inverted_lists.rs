//! Clusters as an index stores them: their centroids, and which nodes each of them holds.

use std::ops::Range;
use std::sync::OnceLock;

use super::kmeans::{Clustering, means_of_runs};
use crate::hnsw::graph::distance_computer::{CodeDistances, DistanceComputer};
use crate::hnsw::ids::Le32;
use crate::hnsw::kernels::{self, CodeRows};

/// Clusters under one coarse centroid, at least.
const GROUP: usize = 12;
/// With many clusters there are more under one coarse centroid: this fraction of the root of their number.
const GROUPS_FOR_ROOT: usize = 4;
/// Indexes with fewer clusters have no coarse centroids; searches descend through the layers.
const LEAST_GROUPED: usize = 128;

/// The clusters of an index in memory.
#[derive(Clone, Debug)]
pub(crate) struct OwnedClusters {
    pub(crate) centroids: Vec<u8>,
    pub(crate) starts: Vec<Le32>,
    /// The codes of the coarse centroids, each the mean of `group` clusters.
    pub(crate) groups: Vec<u8>,
    /// Clusters under one coarse centroid; 0 if there are no coarse centroids.
    pub(crate) group: u32,
    /// The squared lengths of the centroids, once they were asked for.
    pub(crate) squares: OnceLock<Vec<u32>>,
}

impl OwnedClusters {
    /// Finds where the nodes of each cluster lie. `numbered` is the order of the nodes: by their highest
    /// layer, and by cluster within each layer.
    pub(crate) fn new(clusters: Clustering, stride: usize, numbered: &[u32], levels: &[u32]) -> Self {
        let layers = levels.len();
        let of = |node: usize| clusters.of[numbered[node] as usize] as usize;
        let count = (0..numbered.len()).map(of).max().map_or(0, |last| last + 1);
        let mut starts = vec![0u32; (count + 1) * layers];
        for layer in 0..layers {
            let end = levels[layer] as usize;
            let begin = levels.get(layer + 1).map_or(0, |&count| count as usize);
            let mut node = begin;
            for cluster in 0..=count {
                while node < end && of(node) < cluster {
                    node += 1;
                }
                starts[cluster * layers + layer] = u32::try_from(node).expect("as many as rows at most");
            }
        }
        let group = match count {
            0..LEAST_GROUPED => 0,
            _ => GROUP.max(count.isqrt() / GROUPS_FOR_ROOT),
        };
        let groups = if group == 0 {
            Vec::new()
        } else {
            let bytes = &clusters.centroids;
            means_of_runs(CodeRows { bytes, stride }, group)
        };
        Self {
            groups,
            group: u32::try_from(group).expect("a root of 32 bits"),
            centroids: clusters.centroids,
            starts: starts.into_iter().map(u32::to_le_bytes).collect(),
            squares: OnceLock::new(),
        }
    }

    pub(crate) fn of(&self, stride: usize, layers: usize) -> Clusters<'_> {
        let rows = |bytes| CodeRows { bytes, stride };
        Clusters {
            centroids: rows(&self.centroids),
            starts: &self.starts,
            layers,
            squares: &self.squares,
            groups: (self.group > 0).then(|| Groups {
                centroids: rows(&self.groups),
                size: self.group,
            }),
        }
    }
}

/// The clusters of an index, in memory or in a mapped file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clusters<'a> {
    /// The codes of the clusters' centroids.
    pub(crate) centroids: CodeRows<'a>,
    /// For each cluster, and once more at the end: where its nodes of layer 0 alone begin, where those begin
    /// whose highest layer is 1, and so on. They end where those of the next cluster begin.
    pub(crate) starts: &'a [Le32],
    pub(crate) layers: usize,
    pub(crate) squares: &'a OnceLock<Vec<u32>>,
    /// The coarse centroids, if there are many clusters.
    pub(crate) groups: Option<Groups<'a>>,
}

/// Coarse centroids. Each stands for a run of clusters that follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups<'a> {
    /// The codes of their means.
    pub(crate) centroids: CodeRows<'a>,
    /// Clusters under each; the last may have fewer.
    pub(crate) size: u32,
}

impl Groups<'_> {
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.centroids.bytes.len() / self.centroids.stride).expect("no more than cells")
    }

    /// The clusters under a coarse centroid, of `clusters` in all.
    pub(crate) fn clusters(&self, group: usize, clusters: usize) -> Range<u32> {
        let first = group * self.size as usize;
        let place = |cluster: usize| u32::try_from(cluster.min(clusters)).expect("no more than nodes");
        place(first)..place(first + self.size as usize)
    }
}

impl Clusters<'_> {
    /// The squared lengths of the centroids, see [`code_square`](kernels::code_square).
    pub(crate) fn squares(&self) -> &[u32] {
        let rows = || self.centroids.bytes.chunks_exact(self.centroids.stride);
        self.squares
            .get_or_init(|| rows().map(kernels::code_square).collect())
    }

    pub(crate) fn count(&self) -> usize {
        self.centroids.bytes.len() / self.centroids.stride
    }

    /// Whether every node lies in one cluster, given how many each layer has.
    pub(crate) fn cover(&self, levels: &[u32]) -> bool {
        (0..self.layers).all(|layer| {
            let begin = levels.get(layer + 1).copied().unwrap_or(0);
            let mut end = begin;
            let follows = (0..self.count()).all(|cluster| {
                let nodes = self.nodes(cluster, layer);
                let follows = nodes.start == end && nodes.end >= end;
                end = nodes.end;
                follows
            });
            follows && levels.get(layer) == Some(&end)
        })
    }

    /// The nodes of a cluster whose highest layer this is.
    pub(crate) fn nodes(&self, cluster: usize, layer: usize) -> Range<u32> {
        let start = |cluster| u32::from_le_bytes(self.starts[cluster * self.layers + layer]);
        start(cluster)..start(cluster + 1)
    }
}

/// Compares `ids` with the query. Leaves a word for each in `order`: its key in the upper half, its place among
/// `ids` in the lower.
#[inline(always)]
pub(crate) fn compare(computer: &CodeDistances<'_>, ids: &[u32], keys: &mut Vec<u32>, order: &mut Vec<u64>) {
    keys.resize(keys.len().max(ids.len()), 0);
    let keys = &mut keys[..ids.len()];
    computer.keys(ids, keys);
    order.clear();
    order.extend(
        (0..)
            .zip(keys)
            .map(|(place, key): (u64, _)| u64::from(*key) << 32 | place),
    );
}
