//! How many clusters a filtered search probes.
//!
//! A probe ends when two things hold. The last `patience` allowed rows that were compared did not improve the
//! answer. And the centroid of the next cluster is farther than the `k`-th nearest row by a margin. A query near
//! allowed rows meets both soon. A query far from all allowed rows has many rows at nearly the same distance and
//! goes on for longer.

use super::allowed_nodes::AllowedNodes;
use super::options::SearchOptions;
use crate::hnsw::error::Stop;
use crate::hnsw::graph::distance_computer::CodeDistances;
use crate::hnsw::kernels::{CodeMetric, code_square, dot_base};

/// Allowed rows that are compared without an improvement before a probe may end, for each of `ef`. More raise
/// recall and time.
const PATIENCE: usize = 8;
/// The most allowed rows that are compared without an improvement, for each of `ef`, however near the next
/// cluster is. It trades recall of queries that are far from all allowed rows against their time;
/// `benches/engine` shows both (`-- filters`).
const MOST: f64 = 54.0;
/// A selectivity below which the limit [`MOST`] shrinks, because fewer rows are there to be found.
const SCARCE: f64 = 0.2;
/// A number of allowed nodes below which the limit shrinks as well.
const SCARCE_NODES: f64 = 40_000.0;
/// The power by which the limit shrinks.
const SCARCER: f64 = 1.2;
/// The limit never shrinks below this.
const LEAST_MOST: f64 = 16.0;
/// A number of clusters beyond which the limit grows in proportion, because more clusters are nearly as far as
/// the nearest.
const MANY_CLUSTERS: f64 = 3125.0;
/// A selectivity above which the limit shrinks in inverse proportion: the beam search that follows finds the
/// rest.
const PLENTY: f64 = 0.35;
/// A smaller `ef` counts as this in both limits.
const LEAST_EF: usize = 48;
/// The margin between the `k`-th nearest row and the next centroid, as a share of the distance, times the root of
/// the dimension. Distances of longer vectors differ less, so the margin is smaller for them.
const REACH: f64 = 1.5;
/// The same under the inner product, whose distances are counted from the greatest product that is possible.
const REACH_OF_PRODUCTS: f64 = 0.75;
/// How many times the margin is wider after a beam search that found too little.
const DOUBT: f64 = 2.0;

/// The rows wanted and half as many more. Codes rank the last of the nearest rows less reliably than vectors do.
pub(crate) fn with_spare(k: usize) -> usize {
    k.saturating_add(k / 2)
}

/// The length of the candidate list of a probe that is as good as a beam search with `ef` candidates.
pub(crate) fn kept(ef: usize, k: usize) -> usize {
    (ef / 2).max(with_spare(k))
}

/// The most nodes that a probe compares without an improvement, for each of `ef`, at this selectivity of so many
/// nodes in so many clusters.
fn most_for_each(share: f64, nodes: u32, clusters: usize) -> f64 {
    let many = (clusters as f64 / MANY_CLUSTERS).max(1.0);
    let scarce = (share / SCARCE).max(share * f64::from(nodes) / SCARCE_NODES);
    let part = scarce.powf(SCARCER).min(many).min(PLENTY / share);
    (MOST * part).max(LEAST_MOST)
}

/// When a probe ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'s> {
    /// Rows wanted.
    pub(crate) k: usize,
    /// The length of the candidate list. Shorter than that of a beam search, unless every node is wanted.
    pub(crate) ef: usize,
    /// Allowed nodes that must be compared without an improvement of the `k` nearest before the probe may
    /// end.
    pub(crate) patience: usize,
    /// Allowed nodes without an improvement after which the probe ends in any case.
    pub(crate) most: usize,
    /// How far the next centroid must be for the probe to end before that.
    pub(crate) reach: Reach,
    pub(crate) stop: Stop<'s>,
}

impl<'s> Plan<'s> {
    /// The budget of a probe that is as good as a beam search with `ef` candidates.
    pub(crate) fn new(
        options: &SearchOptions<'s>,
        ef: usize,
        beam_search_failed: bool,
        allowed: &AllowedNodes<'_>,
        computer: &CodeDistances<'_>,
    ) -> Self {
        let doubt = if beam_search_failed { DOUBT } else { 1.0 };
        let counted = ef.max(LEAST_EF);
        let clusters = allowed.parts.clusters.map_or(0, |clusters| clusters.count());
        let most = most_for_each(allowed.selectivity(), allowed.parts.node_count(), clusters);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, which is meant"
        )]
        let most = (counted as f64 * most) as usize;
        Self {
            k: options.k,
            ef: if ef == allowed.parts.node_count() as usize {
                ef
            } else {
                kept(ef, options.k)
            },
            patience: counted.saturating_mul(PATIENCE),
            most,
            reach: Reach::new(doubt, allowed, computer),
            stop: Stop(options.stop),
        }
    }
}

/// The distance beyond which a cluster holds nothing near, in proportion to the distance of the `k`-th nearest
/// row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// The least key that any row could have.
    zero: u32,
    /// The margin, as a share of the distance of the `k`-th nearest row.
    further: f64,
}

impl Reach {
    fn new(times: f64, allowed: &AllowedNodes<'_>, computer: &CodeDistances<'_>) -> Self {
        let parts = allowed.parts;
        let root = (parts.dim as f64).sqrt();
        let (CodeMetric::Dot, Some((codebook, codes))) = (computer.query.metric, parts.codes) else {
            return Self {
                zero: 0,
                further: times * REACH / root,
            };
        };
        let (max_norm, reach) = if parts.metric.ignores_length() {
            (1.0, REACH)
        } else {
            (f64::from(parts.max_norm), REACH_OF_PRODUCTS)
        };
        let query = f64::from(code_square(computer.query.bytes)).sqrt();
        let greatest = query * max_norm / f64::from(codebook.scale);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, which is meant"
        )]
        let zero = (dot_base(codes.stride) as f64 - greatest) as u32;
        Self {
            zero,
            further: times * reach / root,
        }
    }

    /// Whether a centroid with the key `cluster` is too far away, given the key `kth` of the `k`-th nearest
    /// row.
    ///
    /// Where the search compares vectors, `kth` is the bit pattern of a positive float. That is greater than
    /// every key of a code, so the answer is no and only the number of compared rows ends the probe.
    pub(crate) fn ends(self, kth: u32, cluster: u32) -> bool {
        let from_zero = |key: u32| f64::from(key.saturating_sub(self.zero));
        from_zero(cluster) > from_zero(kth) * (1.0 + self.further)
    }
}

#[cfg(test)]
mod tests {
    use super::{LEAST_MOST, MOST, most_for_each};

    #[test]
    fn looks_go_on_for_longer_the_more_nodes_are_allowed() {
        let (small, large) = ((200_000, 3_125), (1_000_000, 8_000));
        let most = |share: f64, (nodes, clusters)| most_for_each(share, nodes, clusters);
        // A fifth of the small set; of the large one as many are a small share.
        assert!((most(0.2, small) - MOST).abs() < 1e-9);
        assert!((most(0.04, large) - MOST).abs() < 1e-9);
        assert!((most(0.02, large) - most(0.1, small)).abs() < 1e-9);
        // More of them lie in more clusters that are nearly as far, but not without end.
        assert!((most(0.1, large) - MOST * 2.56).abs() < 1e-9);
        assert!((most(0.13, large) - most(0.1, large)).abs() < 1e-9);
        // Of few nodes a fifth is few, and all the same much of what there is.
        assert!((most(0.2, (12_000, 188)) - MOST).abs() < 1e-9);
        // Where hardly any are allowed, and where nearly all are.
        assert!((most(0.001, large) - LEAST_MOST).abs() < 1e-9);
        assert!(most(0.7, small) < 0.6 * MOST);
    }
}
