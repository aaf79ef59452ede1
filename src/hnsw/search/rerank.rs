//! Re-ranking: the distances of candidates from their full vectors, and the rows that the nodes stand for.

use std::collections::BinaryHeap;

use super::options::{Hit, SearchOptions, SearchOutcome, SearchStats};
use crate::hnsw::config::StoredVectors;
use crate::hnsw::error::{Damaged, SearchError, Stop};
use crate::hnsw::graph::candidate_list::Candidate;
use crate::hnsw::graph::search_layer::Scratch;
use crate::hnsw::graph::vectors::ordered_bits;
use crate::hnsw::kernels::{self, Isa, QueryCode};
use crate::hnsw::parts::Parts;
use crate::hnsw::quantize::codebook::Codebook;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::query_vector::{Query, distance_error};
use crate::hnsw::row_set::RowSet;
use crate::id::RowId;

/// Vectors that are prefetched while others are compared.
const AHEAD: usize = 4;

/// Collects rows with their distances and keeps the nearest.
pub(crate) struct Rerank<'p, 'q> {
    parts: &'p Parts<'p>,
    query: &'q Query<'q>,
    isa: Isa,
    k: usize,
    tie_margin: bool,
    stop: Stop<'q>,
    hits: Vec<Hit>,
    reranked: u64,
    /// The query's code and its scale, when distances are estimated from codes.
    estimate: Option<(Vec<u8>, f32, Codebook)>,
}

impl<'p, 'q> Rerank<'p, 'q> {
    pub(crate) fn new(parts: &'p Parts<'p>, query: &'q Query<'q>, options: &SearchOptions<'q>) -> Self {
        let estimate = match parts.codes {
            Some((codebook, codes)) if parts.vectors.stored == StoredVectors::None => {
                let mut code = vec![0; codes.stride];
                codebook.encode_query(query.vector, &mut code);
                let unit = if parts.metric.ignores_length() {
                    query.length
                } else {
                    1.0
                };
                Some((code, codebook.query_scale(query.vector) / unit, codebook))
            }
            _ => None,
        };
        Self {
            parts,
            query,
            isa: Isa::best(),
            k: options.k,
            tie_margin: options.tie_margin,
            stop: Stop(options.stop),
            hits: Vec::new(),
            reranked: 0,
            estimate,
        }
    }

    fn distance(&mut self, slot: u32) -> f32 {
        self.reranked += 1;
        let parts = self.parts;
        if let (Some((code, scale, codebook)), Some((_, codes))) = (&self.estimate, parts.codes) {
            let mut key = [0];
            let query = QueryCode::new(codebook.metric, code);
            kernels::code_keys(self.isa, query, codes, &[slot], &mut key);
            return codebook.estimate(parts.metric, key[0], codes.stride, *scale);
        }
        parts
            .vectors
            .distance(self.isa, parts.metric, self.query, slot)
            .unwrap_or(f32::INFINITY)
    }

    /// Offers the rows of a node, or those of them that are allowed.
    pub(crate) fn node(&mut self, node: u32, allowed: Option<&RowSet>) -> Result<(), Damaged> {
        let distance = self.distance(node);
        self.rows_at(node, distance, allowed)
    }

    fn rows_at(&mut self, node: u32, distance: f32, allowed: Option<&RowSet>) -> Result<(), Damaged> {
        for &row in self.parts.node_rows.of(node)? {
            let row = RowId::new(u64::from(u32::from_le_bytes(row)));
            if row.get() >= self.parts.row_count() {
                return Err(Damaged { section: "nodes" });
            }
            if allowed.is_none_or(|allowed| allowed.contains(row)) {
                self.hits.push(Hit { row, distance });
            }
        }
        // Keep the memory of an exhaustive search small.
        if self.hits.len() > 4 * self.k + 4096 {
            self.cut();
        }
        Ok(())
    }

    /// Offers the candidates of a beam search, nearest first by their keys. It ends when the next key is
    /// farther than the `k`-th nearest by more than rounding can explain.
    pub(crate) fn candidates(
        &mut self,
        candidates: &[Candidate],
        rounding: Rounding,
        allowed: Option<&RowSet>,
    ) -> Result<(), SearchError> {
        let ahead = |rerank: &Self, place: usize| {
            if let Some(candidate) = candidates.get(place) {
                rerank.parts.vectors.prefetch(candidate.node());
                rerank.parts.node_rows.prefetch(candidate.node());
            }
        };
        (0..AHEAD).for_each(|place| ahead(self, place));
        // Distances and keys of the nearest.
        let mut best = BinaryHeap::with_capacity(self.k + 1);
        for (place, candidate) in candidates.iter().enumerate() {
            if best.len() == self.k && !self.tie_margin {
                let kth = best.peek().map_or(0, |&(_, key)| key);
                if candidate.key() > rounding.limit(kth) {
                    break;
                }
            }
            ahead(self, place + AHEAD);
            if place.is_multiple_of(1024) {
                self.stop.check()?;
            }
            let before = self.hits.len();
            let distance = self.distance(candidate.node());
            self.rows_at(candidate.node(), distance, allowed)?;
            let new = (ordered_bits(distance), candidate.key());
            for _ in before..self.hits.len() {
                if best.len() < self.k || best.peek().is_some_and(|&kth| new < kth) {
                    best.push(new);
                    if best.len() > self.k {
                        best.pop();
                    }
                }
            }
        }
        Ok(())
    }

    /// Offers one row by its slot.
    pub(crate) fn row(&mut self, row: RowId, slot: u32) {
        let distance = self.distance(slot);
        self.hits.push(Hit { row, distance });
        if self.hits.len() > 4 * self.k + 4096 {
            self.cut();
        }
    }

    /// Drops the rows that cannot be in the answer.
    fn cut(&mut self) {
        let nearer = |a: &Hit, b: &Hit| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row));
        if self.hits.len() > self.k {
            self.hits.select_nth_unstable_by(self.k - 1, nearer);
            if self.tie_margin {
                let limit = self.limit(self.hits[self.k - 1].distance);
                let mut place = 0;
                self.hits.retain(|hit| {
                    place += 1;
                    place <= self.k || f64::from(hit.distance) <= limit
                });
            } else {
                self.hits.truncate(self.k);
            }
        }
    }

    /// The distance beyond which a hit cannot truly be nearer than one at `distance`.
    fn limit(&self, distance: f32) -> f64 {
        let query_length = f64::from(self.query.length);
        let vector_length = f64::from(self.parts.max_norm);
        let error = distance_error(
            self.parts.metric,
            self.parts.dim,
            query_length,
            vector_length,
            distance,
        );
        f64::from(distance) + 2.0 * error
    }

    /// The k nearest, sorted.
    pub(crate) fn finish(mut self, scratch: &Scratch, exact: bool) -> SearchOutcome {
        self.cut();
        self.hits
            .sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row)));
        SearchOutcome {
            hits: self.hits,
            stats: SearchStats {
                nodes_visited: scratch.nodes_visited,
                distances: scratch.distances,
                reranked: self.reranked,
                exact,
            },
        }
    }
}
