//! What each strategy of a search costs. The unit is one comparison of a row's code.
//!
//! The model only has to order the strategies. Its constants were fitted on 200,000 x 128 and 12,000 x 384;
//! `docs/design/engine-log.md` has the data, and `benches/engine` (`-- filters`) shows each strategy beside what
//! the model takes.

use super::options::SearchStrategy;
use super::probe_budget::{kept, with_spare};
use crate::hnsw::config::StoredVectors;
use crate::hnsw::parts::Parts;

/// A candidate of a beam search with a short candidate list, most of which lies in the caches.
const CANDIDATE: f64 = 38.0;
/// A candidate of a beam search with a long candidate list, for each square root of its length. Longer lists wait
/// for memory and move more candidates at each insertion.
const CANDIDATE_OF_WIDE: f64 = 1.8;
/// A candidate whose vector is compared when the answer is re-ranked.
const RERANKED: f64 = 18.0;
/// A cluster whose centroid is compared and that is not probed.
const CLUSTER: f64 = 0.4;
/// A candidate of a probe, for each cube root of the rows per allowed row.
const CANDIDATE_IN_CLUSTERS: f64 = 5.8;
/// A row of the answer of a probe, because a probe goes on until no row improves the answer.
const FOUND_IN_CLUSTERS: f64 = 45.0;
/// Bytes of code that are compared in the time that it takes to find an allowed row.
const FINDING: f64 = 300.0;
/// An allowed row of a probe that compares most of them.
const ROW_IN_CLUSTERS: f64 = 4.0;
/// An insertion into the candidate list, for each candidate that is in it.
const MAKING_WAY: f64 = 0.06;
/// The candidate list of a filtered beam search, as a multiple of `ef / selectivity`. Less than 1, because a long
/// list finds nearly all true neighbors anyway.
const WIDER: f64 = 0.55;
/// The same as a multiple of `k / selectivity`, so that it hardly ever finds fewer than `k` allowed rows.
const ENOUGH: f64 = 1.2;

/// The chance that a filtered beam search finds too little and a probe has to follow, for each share of rows that
/// is forbidden. It is set higher than that chance, so that queries far from all allowed rows do not pay twice.
const WASTED: f64 = 1.5;

/// Standard deviations by which the `k`-th allowed candidate may rank later than expected before a beam search
/// counts as failed.
const DEVIATIONS: f64 = 1.25;

/// A comparison of a full vector.
fn vector(parts: &Parts<'_>) -> f64 {
    match parts.vectors.stored {
        StoredVectors::F32 => 10.0,
        StoredVectors::F16 => 20.0,
        StoredVectors::None => 5.0,
    }
}

/// A beam search with a candidate list of this length, of which so many are re-ranked.
fn beam_search(width: f64, reranked: f64) -> f64 {
    width * CANDIDATE.max(CANDIDATE_OF_WIDE * width.sqrt()) + reranked * RERANKED
}

/// Whether comparing every vector costs no more than a beam search with `ef` candidates. It is exact as well.
pub(crate) fn is_exact_cheaper(parts: &Parts<'_>, k: usize, ef: usize) -> bool {
    f64::from(parts.node_count()) * vector(parts) <= beam_search(ef as f64, k as f64)
}

/// The fewest allowed candidates with which a beam search counts as successful: three quarters of those that a
/// filter leaves which is independent of the query. Fewer mean that the allowed rows are elsewhere.
pub(crate) fn enough(parts: &Parts<'_>, count: u64, k: usize, width: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no more than the width"
    )]
    let usual = (width as f64 * parts.selectivity(count)) as usize;
    (usual - usual / 4).max(k)
}

/// The rank among all candidates that the `k`-th nearest allowed one has at most, if the filter is independent of
/// the query.
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

/// The length of the candidate list with which a beam search finds about `ef` allowed candidates, and `k` of them
/// nearly always.
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
