//! What a search is asked, and the steps of answering it.

use std::cell::RefCell;
use std::collections::BinaryHeap;

use super::config::{DEFAULT_EF_SEARCH, StoredVectors};
use super::filter::{self, FilterWay};
use super::graph::{Damaged, Parts, Vectors};
use super::kernels::{self, CodeMetric, CodeRows, FloatMetric, Isa};
use super::metric::VectorMetric;
use super::quantize::Codebook;
use super::rowset::RowSet;
use super::search::{Candidate, Scratch, Space, descend, search_layer};
use crate::id::RowId;

/// A row and its distance to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row.
    pub row: RowId,
    /// Its distance, computed in f32; see [`distance_error`]. Smaller is nearer.
    pub distance: f32,
}

/// How to search. Start from [`SearchOptions::new`] and add to it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SearchOptions<'a> {
    /// Rows wanted.
    pub k: usize,
    /// Candidates kept during the search; raised to `k` if less.
    pub ef: usize,
    /// Only these rows may be returned.
    pub allowed: Option<&'a RowSet>,
    /// Also return rows beyond the k-th that could be nearer than it once distances are computed
    /// exactly: those within twice [`distance_error`] of it. For callers that decide in f64.
    pub slack: bool,
    /// How to search when `allowed` is given.
    pub way: FilterWay,
}

impl<'a> SearchOptions<'a> {
    /// The `k` nearest of all rows, with the default `ef`.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            ef: DEFAULT_EF_SEARCH,
            allowed: None,
            slack: false,
            way: FilterWay::Auto,
        }
    }

    /// Keeps `ef` candidates: more is slower and finds more of the true neighbours.
    #[must_use]
    pub fn ef(self, ef: usize) -> Self {
        Self { ef, ..self }
    }

    /// Returns only rows of this set.
    #[must_use]
    pub fn allowed(self, allowed: &'a RowSet) -> Self {
        Self {
            allowed: Some(allowed),
            ..self
        }
    }

    /// Searches among allowed rows in this way, whatever the model says.
    #[must_use]
    pub fn way(self, way: FilterWay) -> Self {
        Self { way, ..self }
    }

    /// Also returns the rows that rounding may have put behind the k-th.
    #[must_use]
    pub fn slack(self) -> Self {
        Self { slack: true, ..self }
    }
}

/// The work that a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Nodes whose neighbours were looked at.
    pub nodes_visited: u64,
    /// Distances computed between codes (or vectors, if there are no codes) during the walk.
    pub distances: u64,
    /// Distances computed between full vectors, to decide.
    pub reranked: u64,
    /// Whether every row that qualifies was looked at, so that nothing was missed.
    pub exact: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchOutcome {
    /// Nearest first, ties by row.
    pub hits: Vec<Hit>,
    /// The work it took.
    pub stats: SearchStats,
}

/// Why a search has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The query has another length than the index.
    #[error("the query has {found} numbers but the index holds vectors of {expected}")]
    Dimension {
        /// The index's dimension.
        expected: usize,
        /// The query's length.
        found: usize,
    },
    /// NaN, infinite, or so long that squares overflow an f32.
    #[error("the query holds a number that is not finite or too large for 32-bit arithmetic")]
    OutOfRange,
    /// The cosine distance from a zero vector (or one too short for 32-bit arithmetic) is undefined.
    #[error("the query is a zero vector, whose cosine distance is undefined")]
    ZeroQuery,
    /// The bytes of the index contradict themselves.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// The longest vector, and the shortest under cosine, that f32 sums of squares can hold with room to
/// spare. Vectors beyond are listed, not linked.
pub(crate) const LENGTHS: std::ops::RangeInclusive<f64> = 1e-15..=1e15;

/// By how much a [`Hit`]'s distance may differ from the real number it stands for, at most.
///
/// `query_length` is the query's Euclidean length and `distance` the hit's. Rounding the query to f32 is
/// included; rounding the index's vectors to f32 (or f16) is not. For the inner product give the
/// greatest length of a vector as `vector_length`; the others do not need it.
pub fn distance_error(
    metric: VectorMetric,
    dim: usize,
    query_length: f64,
    vector_length: f64,
    distance: f32,
) -> f64 {
    // One rounding for the product, one for each addition to a lane, five for the fold; a few more
    // for what follows. Each is half a unit in the last place.
    let unit = f64::from(f32::EPSILON) / 2.0;
    let roundings = (dim.div_ceil(kernels::LANES) + 12) as f64;
    let sum = roundings * unit * 1.01;
    let tiny = 1e-18 * (dim as f64).sqrt();
    match metric {
        VectorMetric::Cosine => 3.0 * sum + 4.0 * unit,
        VectorMetric::Euclidean => {
            let distance = f64::from(distance);
            (sum + 4.0 * unit) * distance + unit * query_length * 1.01 + tiny
        }
        VectorMetric::DotProduct | VectorMetric::NormalizedCosine => {
            (sum + 4.0 * unit) * query_length * vector_length + 4.0 * unit + tiny
        }
    }
}

/// A query that passed the door: right length, finite, of a length that f32 can square.
#[derive(Debug)]
pub(crate) struct Query<'q> {
    pub(crate) vector: &'q [f32],
    pub(crate) length: f32,
}

impl<'q> Query<'q> {
    pub(crate) fn check(vector: &'q [f32], metric: VectorMetric, dim: usize) -> Result<Self, SearchError> {
        if vector.len() != dim {
            return Err(SearchError::Dimension {
                expected: dim,
                found: vector.len(),
            });
        }
        let length = vector_length(vector);
        if !length.is_finite() || length > *LENGTHS.end() {
            return Err(SearchError::OutOfRange);
        }
        if metric.ignores_length() && length < *LENGTHS.start() {
            return Err(SearchError::ZeroQuery);
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounded, within the range of f32")]
        let length = length as f32;
        Ok(Self { vector, length })
    }
}

/// The Euclidean length, summed in f64 in a fixed order: the same on every machine.
pub(crate) fn vector_length(vector: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (blocks, rest) = vector.as_chunks::<8>();
    for block in blocks {
        sums.iter_mut()
            .zip(block)
            .for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    sums.iter_mut()
        .zip(rest)
        .for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    sums.iter().sum::<f64>().sqrt()
}

impl Vectors<'_> {
    /// The distance from a query to a slot's vector; `None` if none are stored.
    #[inline]
    pub(crate) fn distance(
        &self,
        isa: Isa,
        metric: VectorMetric,
        query: &Query<'_>,
        slot: u32,
    ) -> Option<f32> {
        Some(match metric {
            VectorMetric::Cosine => {
                let sums = self.sums(isa, FloatMetric::DotAndSquare, query.vector, slot)?;
                1.0 - sums.first / (query.length * sums.square.sqrt())
            }
            VectorMetric::Euclidean => self
                .sums(isa, FloatMetric::Squared, query.vector, slot)?
                .first
                .sqrt(),
            VectorMetric::DotProduct => 0.0 - self.sums(isa, FloatMetric::Dot, query.vector, slot)?.first,
            VectorMetric::NormalizedCosine => {
                1.0 - self.sums(isa, FloatMetric::Dot, query.vector, slot)?.first
            }
        })
    }
}

/// Orders like the float, NaN last.
pub(crate) fn ordered_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        u32::MAX
    } else if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// Keys from 8-bit codes.
#[derive(Debug)]
pub(crate) struct CodeSpace<'a> {
    pub(crate) isa: Isa,
    pub(crate) metric: CodeMetric,
    pub(crate) query: &'a [u8],
    pub(crate) codes: CodeRows<'a>,
}

impl Space for CodeSpace<'_> {
    #[inline]
    fn keys(&self, ids: &[u32], keys: &mut [u32]) {
        kernels::code_keys(self.isa, self.metric, self.query, self.codes, ids, keys);
    }

    fn bytes(&self) -> usize {
        self.codes.stride
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        kernels::prefetch(self.codes.row(id));
    }
}

/// Keys from the vectors themselves.
#[derive(Debug)]
pub(crate) struct FloatSpace<'a> {
    pub(crate) isa: Isa,
    pub(crate) metric: VectorMetric,
    pub(crate) query: &'a Query<'a>,
    pub(crate) vectors: Vectors<'a>,
}

impl Space for FloatSpace<'_> {
    #[inline]
    fn keys(&self, ids: &[u32], keys: &mut [u32]) {
        for (&id, key) in ids.iter().zip(keys) {
            let distance = self.vectors.distance(self.isa, self.metric, self.query, id);
            *key = ordered_bits(distance.unwrap_or(f32::NAN));
        }
    }

    fn bytes(&self) -> usize {
        self.vectors.stride()
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        self.vectors.prefetch(id);
    }
}

/// What a search reuses from the one before on this thread.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) scratch: Scratch,
    pub(crate) code: Vec<u8>,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// Runs `search` with this thread's notes.
pub(crate) fn with_notes<T>(search: impl FnOnce(&mut Notes) -> T) -> T {
    NOTES.with(|notes| match notes.try_borrow_mut() {
        Ok(mut notes) => search(&mut notes),
        Err(_) => search(&mut Notes::default()),
    })
}

/// Finds the rows nearest to `vector`.
pub(crate) fn search(
    parts: &Parts<'_>,
    vector: &[f32],
    options: &SearchOptions<'_>,
) -> Result<SearchOutcome, SearchError> {
    let query = Query::check(vector, parts.metric, parts.dim)?;
    if options.k == 0 || parts.node_count() == 0 {
        return Ok(SearchOutcome {
            hits: Vec::new(),
            stats: SearchStats {
                exact: true,
                ..Default::default()
            },
        });
    }
    with_notes(|notes| {
        notes.scratch.nodes_visited = 0;
        notes.scratch.distances = 0;
        match options.allowed {
            Some(allowed) => filter::search(parts, &query, options, allowed, notes),
            None => unfiltered(parts, &query, options, notes),
        }
    })
}

fn unfiltered(
    parts: &Parts<'_>,
    query: &Query<'_>,
    options: &SearchOptions<'_>,
    notes: &mut Notes,
) -> Result<SearchOutcome, SearchError> {
    let ef = options.ef.max(options.k);
    if ef >= parts.node_count() as usize {
        let mut decide = Decide::new(parts, query, options);
        for node in 0..parts.node_count() {
            decide.node(node, None)?;
        }
        return Ok(decide.finish(&notes.scratch, true));
    }
    walk(parts, query, ef, notes)?;
    let mut decide = Decide::new(parts, query, options);
    decide.candidates(notes.scratch.pool.candidates(), None)?;
    Ok(decide.finish(&notes.scratch, false))
}

/// Algorithm 5: down the layers, then a search of layer 0 with `ef` candidates, left in the pool.
pub(crate) fn walk(
    parts: &Parts<'_>,
    query: &Query<'_>,
    ef: usize,
    notes: &mut Notes,
) -> Result<(), SearchError> {
    with_space(parts, query, &mut notes.code, |space| match space {
        Walk::Codes(space) => {
            descend(parts.links, space, 0, ef, &mut notes.scratch)?;
            search_layer(parts.links, space, 0, &mut notes.scratch)
        }
        Walk::Floats(space) => {
            descend(parts.links, space, 0, ef, &mut notes.scratch)?;
            search_layer(parts.links, space, 0, &mut notes.scratch)
        }
    })?;
    Ok(())
}

/// Candidates whose distance is computed though none of them improves the answer, besides a quarter of k.
const PATIENCE: usize = 4;
/// Vectors asked for ahead of their turn.
const AHEAD: usize = 4;

/// What the walk looks at.
pub(crate) enum Walk<'s> {
    Codes(&'s CodeSpace<'s>),
    Floats(&'s FloatSpace<'s>),
}

/// Prepares the query for the walk: over the codes, unless there are none or they would mislead.
pub(crate) fn with_space<T>(
    parts: &Parts<'_>,
    query: &Query<'_>,
    code: &mut Vec<u8>,
    run: impl FnOnce(Walk<'_>) -> T,
) -> T {
    let isa = Isa::best();
    if let Some((codebook, codes)) = parts.codes {
        code.resize(codes.stride, 0);
        let fits = codebook.encode_query(query.vector, code);
        if fits || parts.vectors.stored == StoredVectors::None {
            return run(Walk::Codes(&CodeSpace {
                isa,
                metric: codebook.metric,
                query: code,
                codes,
            }));
        }
    }
    run(Walk::Floats(&FloatSpace {
        isa,
        metric: parts.metric,
        query,
        vectors: parts.vectors,
    }))
}

/// Turns nodes into rows with their distances, and keeps the nearest.
pub(crate) struct Decide<'p, 'q> {
    parts: &'p Parts<'p>,
    query: &'q Query<'q>,
    isa: Isa,
    k: usize,
    slack: bool,
    hits: Vec<Hit>,
    reranked: u64,
    /// The query's code and its scale, when distances are estimated from codes.
    estimate: Option<(Vec<u8>, f32, Codebook)>,
}

impl<'p, 'q> Decide<'p, 'q> {
    pub(crate) fn new(parts: &'p Parts<'p>, query: &'q Query<'q>, options: &SearchOptions<'_>) -> Self {
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
            slack: options.slack,
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
            kernels::code_keys(self.isa, codebook.metric, code, codes, &[slot], &mut key);
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

    /// Offers the nodes that a walk found, nearest by their keys first, until so many in a row did not get
    /// among the k nearest that the codes will hardly have hidden another.
    pub(crate) fn candidates(
        &mut self,
        candidates: &[Candidate],
        allowed: Option<&RowSet>,
    ) -> Result<(), Damaged> {
        let patience = PATIENCE + self.k / 4;
        let ahead = |decide: &Self, place: usize| {
            if let Some(candidate) = candidates.get(place) {
                decide.parts.vectors.prefetch(candidate.node());
                decide.parts.node_rows.prefetch(candidate.node());
            }
        };
        (0..AHEAD).for_each(|place| ahead(self, place));
        let (mut best, mut futile) = (BinaryHeap::with_capacity(self.k + 1), 0);
        for (place, candidate) in candidates.iter().enumerate() {
            ahead(self, place + AHEAD);
            let before = self.hits.len();
            let distance = self.distance(candidate.node());
            self.rows_at(candidate.node(), distance, allowed)?;
            let key = ordered_bits(distance);
            futile += 1;
            for _ in before..self.hits.len() {
                if best.len() < self.k || best.peek().is_some_and(|&worst| key < worst) {
                    best.push(key);
                    if best.len() > self.k {
                        best.pop();
                    }
                    futile = 0;
                }
            }
            if futile >= patience && best.len() == self.k && !self.slack {
                break;
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

    /// Drops what cannot be among the answer.
    fn cut(&mut self) {
        let nearer = |a: &Hit, b: &Hit| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row));
        if self.hits.len() > self.k {
            self.hits.select_nth_unstable_by(self.k - 1, nearer);
            if self.slack {
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
        let vector_length = f64::from(self.parts.longest);
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
