//! How long to look into clusters.
//!
//! A look ends when the last of so many rows that was among the `k` nearest is long past, and clusters have come to be
//! farther than the `k`-th nearest by a margin. Near queries are answered soon, by both; a query that is far from all that
//! is allowed has many rows nearly as far as the nearest, and goes on for longer.

use super::allowed_nodes::AllowedNodes;
use super::options::SearchOptions;
use crate::hnsw::error::Stop;
use crate::hnsw::graph::distance_computer::CodeDistances;
use crate::hnsw::kernels::{CodeMetric, code_square, dot_base};

/// Allowed rows, for each of `ef`, that are compared though none of them improves the answer; and as long as clusters are
/// within reach.
const PATIENCE: usize = 8;
const MOST: f64 = 54.0;
/// Where a smaller share than this is allowed, and fewer nodes than that, there is less to find: [`MOST`] is less, by this
/// power of how much smaller, but not less than that.
const SCARCE: f64 = 0.2;
const SCARCE_NODES: f64 = 40_000.0;
const SCARCER: f64 = 1.2;
const LEAST_MOST: f64 = 16.0;
/// More clusters than this have more that are nearly as far as the nearest: up to [`MOST`] times how many times more.
const MANY_CLUSTERS: f64 = 3125.0;
/// Where a greater share is, the beam search from the nearest that were found finds the others: [`MOST`] in proportion.
const PLENTY: f64 = 0.35;
/// A smaller `ef` counts as this for both.
const LEAST_EF: usize = 48;
/// How far clusters are within reach, by the root of the dimension: the more numbers there are, the less do distances differ.
/// Inner products have no distance of 0: theirs is counted from the greatest product that there could be, from which all are
/// far.
const REACH: f64 = 1.5;
const REACH_OF_PRODUCTS: f64 = 0.75;
/// How many times as far a look goes after a beam search that failed.
const DOUBT: f64 = 2.0;

/// Rows wanted and half as many more, as codes do not order the last of the nearest quite as their vectors do.
pub(crate) fn with_spare(k: usize) -> usize {
    k.saturating_add(k / 2)
}

/// Candidates that a look keeps for an answer as good as that of a beam search of `ef`.
pub(crate) fn kept(ef: usize, k: usize) -> usize {
    (ef / 2).max(with_spare(k))
}

/// The nodes that a look compares at most for each of `ef`, if this share of so many in so many clusters is allowed.
fn most_for_each(share: f64, nodes: u32, clusters: usize) -> f64 {
    let many = (clusters as f64 / MANY_CLUSTERS).max(1.0);
    let scarce = (share / SCARCE).max(share * f64::from(nodes) / SCARCE_NODES);
    let part = scarce.powf(SCARCER).min(many).min(PLENTY / share);
    (MOST * part).max(LEAST_MOST)
}

/// How to look into clusters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'s> {
    /// Rows wanted.
    pub(crate) k: usize,
    /// Candidates kept: fewer than a beam search keeps, unless all are wanted.
    pub(crate) ef: usize,
    /// Allowed nodes compared, after the last that was among the `k` nearest, before the search may end.
    pub(crate) patience: usize,
    /// And before it ends wherever it is.
    pub(crate) most: usize,
    /// How far it must have come to end before that.
    pub(crate) reach: Reach,
    pub(crate) stop: Stop<'s>,
}

impl<'s> Plan<'s> {
    /// For an answer as good as that of `ef` candidates.
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

/// Up to where clusters may hold something near: to a distance in proportion to that of the `k`-th nearest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// The key of a row that no row can be nearer than.
    zero: u32,
    /// By what part of the distance of the `k`-th nearest the centroid of a cluster must be farther from there.
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

    /// Whether a cluster with this key is beyond the reach of a row with that key. None is of a vector's, as its key is that of a
    /// float that is not negative, and greater than those of codes.
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
