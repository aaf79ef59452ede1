//! Which candidates become neighbors (Algorithm 4).

use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::distance_computer::{CodeDistances, DistanceComputer, VectorDistances};
use crate::hnsw::graph::vectors::Vectors;
use crate::hnsw::kernels::{CodeMetric, CodeRows, Isa, QueryCode};
use crate::hnsw::metric::VectorMetric;
use crate::hnsw::query_vector::{Query, vector_length};

/// The nodes as points that distances can be taken between.
///
/// The inner product is no distance, but the graph is built with it all the same: every node then links to
/// the long vectors that win, and a beam search is among them at once. Lifting the points onto a sphere, where the
/// order is that of a distance, is neater and finds next to nothing when lengths differ (`docs/design/engine-log.md`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Points<'a> {
    /// Distances between codes: integers, so the same graph on every machine.
    Codes { metric: CodeMetric, codes: CodeRows<'a> },
    /// Distances between the vectors.
    Floats {
        metric: VectorMetric,
        vectors: Vectors<'a>,
    },
}

impl Points<'_> {
    /// Runs `run` with the distances from one node to the others.
    pub(crate) fn around<T>(&self, node: u32, run: impl FnOnce(&PointSpace<'_>) -> T) -> T {
        let isa = Isa::best();
        match *self {
            Self::Codes { metric, codes } => run(&PointSpace::Codes(CodeDistances {
                isa,
                query: QueryCode::new(metric, codes.row(node)),
                codes,
            })),
            Self::Floats { metric, vectors } => {
                let mut vector = vec![0.0; vectors.dim];
                vectors.read(node, &mut vector);
                #[expect(clippy::cast_possible_truncation, reason = "rounded, within the range of f32")]
                let query = Query {
                    vector: &vector,
                    length: vector_length(&vector) as f32,
                };
                run(&PointSpace::Floats(VectorDistances {
                    isa,
                    metric,
                    query: &query,
                    vectors,
                }))
            }
        }
    }
}

/// The distances from one node to the others.
#[derive(Debug)]
pub(crate) enum PointSpace<'a> {
    Codes(CodeDistances<'a>),
    Floats(VectorDistances<'a>),
}

impl DistanceComputer for PointSpace<'_> {
    #[inline]
    fn keys(&self, ids: &[u32], keys: &mut [u32]) {
        match self {
            Self::Codes(computer) => computer.keys(ids, keys),
            Self::Floats(computer) => computer.keys(ids, keys),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Codes(computer) => computer.bytes(),
            Self::Floats(computer) => computer.bytes(),
        }
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        match self {
            Self::Codes(computer) => computer.prefetch(id),
            Self::Floats(computer) => computer.prefetch(id),
        }
    }
}

/// Chooses at most `limit` neighbors from `candidates`, which are sorted, nearest first.
///
/// A candidate is kept if it is nearer to the node than to every neighbor kept before it, so that the
/// links point in different directions. If that leaves fewer than three quarters of `limit`, the nearest of the others
/// fill up (the paper's *keepPrunedConnections*, not to the end).
pub(crate) fn select_neighbors(
    points: &Points<'_>,
    candidates: &[Candidate],
    limit: usize,
    kept: &mut Vec<u32>,
    keys: &mut Vec<u32>,
) {
    kept.clear();
    for candidate in candidates {
        if kept.len() == limit {
            return;
        }
        let diverse = points.around(candidate.node(), |computer| {
            // The nearest were kept first and are the likeliest to stand in the way.
            kept.chunks(8).all(|some| {
                keys.resize(some.len(), 0);
                computer.keys(some, keys);
                keys.iter().all(|&key| key >= candidate.key())
            })
        });
        if diverse {
            kept.push(candidate.node());
        }
    }
    let diverse = kept.len();
    for candidate in candidates {
        if kept.len() >= limit * 3 / 4 {
            return;
        }
        if !kept[..diverse].contains(&candidate.node()) {
            kept.push(candidate.node());
        }
    }
}
