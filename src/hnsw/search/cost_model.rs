//! What a search costs, by strategy, in comparisons of one row's code.
//!
//! The model only has to order the strategies: it was fitted on 200,000 x 128 and 12,000 x 384, and the data of the fit are
//! in `docs/ENGINE.md`.

use super::options::SearchStrategy;
use super::probe_budget::{kept, with_spare};
use crate::hnsw::config::StoredVectors;
use crate::hnsw::parts::Parts;

/// A candidate of a narrow beam search, which finds most of what it looks at in the caches; and of a wide one, for each
/// square root of its width, as memory is waited for and the sorted candidates make way for each other.
const CANDIDATE: f64 = 38.0;
const CANDIDATE_OF_WIDE: f64 = 1.8;
/// A candidate whose vector is looked at in the end.
const RERANKED: f64 = 18.0;
/// A cluster that is not looked into.
const CLUSTER: f64 = 0.4;
/// A candidate that is looked for in clusters, for each cube root of the rows for one that is allowed; and a row of the
/// answer, as clusters are looked into until none improves it. Both if codes are long, as finding a row takes as long as
/// comparing so many bytes.
const CANDIDATE_IN_CLUSTERS: f64 = 5.8;
const FOUND_IN_CLUSTERS: f64 = 45.0;
const FINDING: f64 = 300.0;
/// An allowed row, if most are looked for.
const ROW_IN_CLUSTERS: f64 = 4.0;
/// A code that gets among the nearest makes way for itself: for each of those.
const MAKING_WAY: f64 = 0.06;
/// How much wider than `ef / share` a beam search must be so that as many of the true neighbors are found: less,
/// since a beam search that is wide anyway finds nearly all of them.
const WIDER: f64 = 0.55;
/// How much wider than `k / share` it must be so that it hardly ever finds fewer than `k` allowed rows.
const ENOUGH: f64 = 1.2;

/// The more rows are forbidden, the likelier it is that a beam search is for nothing: how likely, for all of them. More than it is
/// by chance, as queries that are far from all that is allowed should not pay twice.
const WASTED: f64 = 1.5;

/// Deviations by which the `k`-th nearest allowed candidate may come later than expected before a beam search is not believed.
const DEVIATIONS: f64 = 1.25;

/// What looking at one vector costs.
fn vector(parts: &Parts<'_>) -> f64 {
    match parts.vectors.stored {
        StoredVectors::F32 => 10.0,
        StoredVectors::F16 => 20.0,
        StoredVectors::None => 5.0,
    }
}

/// What a beam search costs.
fn beam_search(width: f64, reranked: f64) -> f64 {
    width * CANDIDATE.max(CANDIDATE_OF_WIDE * width.sqrt()) + reranked * RERANKED
}

/// Whether looking at every vector costs less than a beam search of `ef` candidates; the more so as its answer is exact.
pub(crate) fn is_exact_cheaper(parts: &Parts<'_>, k: usize, ef: usize) -> bool {
    f64::from(parts.node_count()) * vector(parts) <= beam_search(ef as f64, k as f64)
}

/// The fewest allowed candidates of a beam search of this width for its answer to count: fewer than three quarters of what a
/// filter that has nothing to do with the query leaves mean that the beam search looked in the wrong place.
pub(crate) fn enough(parts: &Parts<'_>, count: u64, k: usize, width: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no more than the width"
    )]
    let usual = (width as f64 * parts.selectivity(count)) as usize;
    (usual - usual / 4).max(k)
}

/// The rank among all candidates of the `k`-th nearest allowed one that a filter without any relation to the query leaves,
/// and some deviations more.
pub(crate) fn expected_within(parts: &Parts<'_>, count: u64, k: usize) -> usize {
    let (share, k) = (parts.selectivity(count), k as f64);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, which is meant"
    )]
    let rank = ((k + DEVIATIONS * (k * (1.0 - share)).sqrt()) / share) as usize;
    rank
}

/// The width of a beam search that finds about `ef` allowed candidates, and `k` of them nearly always.
pub(crate) fn width(parts: &Parts<'_>, count: u64, k: usize, ef: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, which is meant"
    )]
    let wide = ((ef as f64 * WIDER).max(k as f64 * ENOUGH) / parts.selectivity(count)) as usize;
    wide.max(ef)
}

/// Which strategy is cheapest for `count` allowed rows.
pub(crate) fn cheapest(parts: &Parts<'_>, count: u64, k: usize, ef: usize) -> SearchStrategy {
    let (rows, wanted) = (count as f64, ef as f64);
    let making_way = |kept: usize| {
        let kept = kept as f64;
        kept * kept * (1.0 + (rows / kept).max(1.0).ln()) * MAKING_WAY
    };
    let exact = rows * vector(parts);
    let codes = rows + making_way(ef.max(with_spare(k)));
    let clusters = parts.clusters.map_or(f64::INFINITY, |clusters| {
        let bytes = clusters.centroids.stride as f64;
        let candidate = CANDIDATE_IN_CLUSTERS / parts.selectivity(count).cbrt();
        let found = (wanted * candidate + k as f64 * FOUND_IN_CLUSTERS) * (1.0 + FINDING / bytes);
        let looks = found.min(rows * ROW_IN_CLUSTERS);
        let kept = kept(ef, k) as f64;
        clusters.count() as f64 * CLUSTER + looks + kept * kept * MAKING_WAY
    });
    let otherwise = if clusters.is_finite() { clusters } else { codes };
    let wasted = WASTED * (1.0 - parts.selectivity(count)).max(0.0) * otherwise;
    let graph = beam_search(width(parts, count, k, ef) as f64, k as f64) + wasted;
    let strategies = [
        (exact, SearchStrategy::Exact),
        (codes, SearchStrategy::Codes),
        (clusters, SearchStrategy::Clusters),
        (graph, SearchStrategy::Graph),
    ];
    let (_, strategy) = strategies
        .into_iter()
        .min_by(|(one, _), (other, _)| one.total_cmp(other))
        .expect("four ways");
    strategy
}
