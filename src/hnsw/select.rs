//! Which candidates become neighbours (Algorithm 4).

use super::kernels::{self, CodeMetric, CodeRows, Isa};
use super::query::{FloatSpace, Query, ordered_bits, vector_length};
use super::search::{Candidate, Space};
use crate::hnsw::graph::Vectors;
use crate::hnsw::metric::VectorMetric;

/// The nodes as points that distances can be taken between.
///
/// The inner product is no distance: its nearest point may be far away, and no graph of neighbours leads
/// there. Lifting each point by one more coordinate, `sqrt(longest² - |x|²)`, puts all of them on a sphere
/// where the order by inner product with a query (whose lift is 0) is the order by distance. The graph is
/// built between lifted points, and searched with plain inner products.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Points<'a> {
    /// Distances between codes: integers, so the same graph on every machine.
    Codes {
        metric: CodeMetric,
        codes: CodeRows<'a>,
        /// The lifts in units of the code, for inner products.
        lifts: Option<&'a [u32]>,
    },
    /// Distances between the vectors.
    Floats {
        metric: VectorMetric,
        vectors: Vectors<'a>,
        lifts: Option<&'a [f32]>,
    },
}

impl Points<'_> {
    /// Runs `run` with the distances from one node to the others.
    pub(crate) fn around<T>(&self, node: u32, run: impl FnOnce(&PointSpace<'_>) -> T) -> T {
        let isa = Isa::best();
        match *self {
            Self::Codes { metric, codes, lifts } => run(&PointSpace::Codes {
                isa,
                metric,
                query: codes.row(node),
                codes,
                lift: lifts.map(|lifts| (lifts[node as usize], lifts)),
            }),
            Self::Floats {
                metric,
                vectors,
                lifts,
            } => {
                let mut vector = vec![0.0; vectors.dim];
                vectors.read(node, &mut vector);
                #[expect(clippy::cast_possible_truncation, reason = "rounded, within the range of f32")]
                let query = Query {
                    vector: &vector,
                    length: vector_length(&vector) as f32,
                };
                let space = FloatSpace {
                    isa,
                    metric,
                    query: &query,
                    vectors,
                };
                run(&PointSpace::Floats {
                    space,
                    lift: lifts.map(|lifts| (lifts[node as usize], lifts)),
                })
            }
        }
    }
}

/// The distances from one node to the others.
#[derive(Debug)]
pub(crate) enum PointSpace<'a> {
    Codes {
        isa: Isa,
        metric: CodeMetric,
        query: &'a [u8],
        codes: CodeRows<'a>,
        lift: Option<(u32, &'a [u32])>,
    },
    Floats {
        space: FloatSpace<'a>,
        lift: Option<(f32, &'a [f32])>,
    },
}

impl Space for PointSpace<'_> {
    #[inline]
    fn keys(&self, ids: &[u32], keys: &mut [u32]) {
        match self {
            Self::Codes {
                isa,
                metric,
                query,
                codes,
                lift,
            } => {
                kernels::code_keys(*isa, *metric, query, *codes, ids, keys);
                if let Some((own, lifts)) = lift {
                    let base = 128 * 128 * u32::try_from(codes.stride).expect("a stride is small");
                    for (&id, key) in ids.iter().zip(keys) {
                        *key += base - own * lifts[id as usize];
                    }
                }
            }
            Self::Floats { space, lift: None } => space.keys(ids, keys),
            Self::Floats {
                space,
                lift: Some((own, lifts)),
            } => {
                for (&id, key) in ids.iter().zip(keys) {
                    let distance = space.vectors.distance(space.isa, space.metric, space.query, id);
                    *key = ordered_bits(distance.unwrap_or(f32::NAN) - own * lifts[id as usize]);
                }
            }
        }
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        match self {
            Self::Codes { codes, .. } => kernels::prefetch(codes.row(id)),
            Self::Floats { space, .. } => space.prefetch(id),
        }
    }
}

/// Chooses at most `limit` neighbours from `candidates`, which are sorted, nearest first.
///
/// A candidate is kept if it is nearer to the node than to every neighbour kept before it, so that the
/// links point in different directions.
pub(crate) fn select_neighbours(
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
        let diverse = points.around(candidate.node(), |space| {
            // The nearest were kept first and are the likeliest to stand in the way.
            kept.chunks(8).all(|some| {
                keys.resize(some.len(), 0);
                space.keys(some, keys);
                keys.iter().all(|&key| key >= candidate.key())
            })
        });
        if diverse {
            kept.push(candidate.node());
        }
    }
}
