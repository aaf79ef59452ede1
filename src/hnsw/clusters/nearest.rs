//! Ranks clusters by the distance of their centroids to a query, a few at a time.

use super::inverted_lists::Clusters;
use crate::hnsw::graph::distance_computer::CodeDistances;
use crate::hnsw::kernels::{self, CodeMetric, Isa, Ones, QueryCode, dot_base};

/// Keys that are sampled to find a limit.
const SAMPLE: usize = 128;
/// Keys that are compared with a limit at a time.
const BLOCK: usize = 64;
/// Buckets of the counting sort.
const PARTS: usize = 512;
/// Steps of the insertion sort for each cluster, at most. Where one outlier puts most others into one bucket, an
/// ordinary sort takes over.
const STEPS: usize = 8;

/// Clusters in the order of their keys, ties by number.
///
/// They are sorted a part at a time, because most of them are never asked for. The order of some does not depend
/// on which others are compared.
#[derive(Debug, Default)]
pub(crate) struct Nearest {
    /// The keys of all clusters.
    keys: Vec<u32>,
    /// Some of them, sorted.
    sample: Vec<u32>,
    /// Keys and clusters between the last limit and the next.
    found: Vec<u64>,
    /// The same, sorted.
    order: Vec<u64>,
    /// How many of them were given.
    given: usize,
    /// All clusters with smaller keys were sorted.
    limit: u64,
    /// About how many clusters are sorted next.
    more: usize,
}

impl Nearest {
    /// The bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.keys.capacity() + self.sample.capacity())
            + 8 * (self.found.capacity() + self.order.capacity())
    }

    /// Compares these centroids with the query. The caller will ask for about `first` of them.
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        clusters: &Clusters<'_>,
        computer: &CodeDistances<'_>,
        first: usize,
        ids: &[u32],
    ) {
        self.keys.resize(ids.len(), 0);
        let keys = &mut self.keys[..];
        match computer.query.metric {
            CodeMetric::Dot => {
                kernels::code_keys(computer.isa, computer.query, clusters.centroids, ids, keys)
            }
            CodeMetric::Squared => {
                // (q - c)² is q² + c² - 2 q c, and products are the cheaper ones. The sum fits whatever its parts do.
                let bytes = computer.query.bytes;
                kernels::code_keys(
                    computer.isa,
                    QueryCode::new(CodeMetric::Dot, bytes),
                    clusters.centroids,
                    ids,
                    keys,
                );
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "below 2^30"
                )]
                let base = dot_base(bytes.len()) as u32;
                let all = kernels::code_square(bytes).wrapping_sub(2 * base);
                let squares = clusters.squares();
                let complete = |key: &mut u32, square: u32| {
                    *key = key.wrapping_mul(2).wrapping_add(all).wrapping_add(square);
                };
                if ids.len() == squares.len() {
                    keys.iter_mut()
                        .zip(squares)
                        .for_each(|(key, &square)| complete(key, square));
                } else {
                    keys.iter_mut()
                        .zip(ids)
                        .for_each(|(key, &id)| complete(key, squares[id as usize]));
                }
            }
        }
        let step = self.keys.len().div_ceil(SAMPLE).max(1);
        self.sample.clear();
        self.sample.extend(self.keys.iter().step_by(step));
        self.sample.sort_unstable();
        self.order.clear();
        (self.given, self.limit, self.more) = (0, 0, first.max(1));
    }

    /// The place of the next cluster among those that were compared, and the key of its centroid.
    #[inline(always)]
    pub(crate) fn next(&mut self, isa: Isa) -> Option<(usize, u32)> {
        while self.given == self.order.len() {
            if self.limit > u64::from(u32::MAX) {
                return None;
            }
            self.put_in_order(isa);
        }
        let word = self.order[self.given];
        self.given += 1;
        let cluster = usize::try_from(word & u64::from(u32::MAX)).ok()?;
        Some((cluster, u32::try_from(word >> 32).expect("32 bits")))
    }

    /// Raises the limit by help of the sample, and sorts the clusters between the old limit and the new one.
    #[inline(always)]
    fn put_in_order(&mut self, isa: Isa) {
        let before = self.sample.partition_point(|&key| u64::from(key) < self.limit);
        let further = (self.more * self.sample.len()).div_ceil(self.keys.len().max(1));
        self.more = self.more.saturating_mul(2);
        let low = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let high = self
            .sample
            .get(before.saturating_add(further))
            .copied()
            .unwrap_or(u32::MAX);
        self.limit = u64::from(high) + 1;
        self.found.clear();
        for (block, first) in self.keys.chunks(BLOCK).zip((0u64..).step_by(BLOCK)) {
            let mut within = kernels::at_most(isa, block, high);
            if low > 0 && within != 0 {
                within &= !kernels::at_most(isa, block, low - 1);
            }
            for place in Ones(within) {
                let (key, cluster) = (block[place as usize], first + u64::from(place));
                self.found.push(u64::from(key) << 32 | cluster);
            }
        }
        self.sort_by_parts();
    }

    /// A counting sort by key, then an insertion sort within the buckets.
    #[inline(always)]
    fn sort_by_parts(&mut self) {
        let found = &self.found;
        let keys = || found.iter().map(|word| word >> 32);
        let (nearest, farthest) = (keys().min().unwrap_or(0), keys().max().unwrap_or(0));
        let bits = u64::BITS - (farthest - nearest).leading_zeros();
        let shift = bits.saturating_sub(PARTS.ilog2());
        let part = |word: u64| {
            usize::try_from(((word >> 32) - nearest) >> shift).expect("below the number of parts")
        };
        let mut ends = [0; PARTS + 1];
        found.iter().for_each(|&word| ends[part(word) + 1] += 1);
        for i in 0..PARTS {
            ends[i + 1] += ends[i];
        }
        self.order.clear();
        self.order.resize(found.len(), 0);
        for &word in found {
            let end = &mut ends[part(word)];
            self.order[*end] = word;
            *end += 1;
        }
        sort_nearly_sorted(&mut self.order);
        self.given = 0;
    }
}

/// Sorts by insertion while words are near their places, and like any other words if they are not.
#[inline(always)]
fn sort_nearly_sorted(words: &mut [u64]) {
    let mut steps = STEPS * words.len();
    for place in 1..words.len() {
        let word = words[place];
        let mut at = place;
        while at > 0 && words[at - 1] > word {
            words[at] = words[at - 1];
            at -= 1;
        }
        words[at] = word;
        steps = steps.saturating_sub(place - at);
        if steps == 0 {
            return words.sort_unstable();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hnsw::build::levels::mix;
    use crate::hnsw::kernels::CodeRows;
    use std::sync::OnceLock;

    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        (0..count as u64)
            .map(|i| mix(seed ^ mix(i)).to_le_bytes()[0])
            .collect()
    }

    #[test]
    fn cells_come_in_order_and_others_do_not_change_it() {
        const DIM: usize = 40;
        for (count, metric) in [1, 15, 129, 1000]
            .into_iter()
            .flat_map(|count| [(count, CodeMetric::Squared), (count, CodeMetric::Dot)])
        {
            let (mut centroids, query) = (bytes(count * DIM, 1), bytes(DIM, 2));
            // Some are at the same place, and one is far from all others.
            let (first, rest) = centroids.split_at_mut(DIM);
            rest.chunks_exact_mut(DIM)
                .step_by(5)
                .for_each(|centroid| centroid.copy_from_slice(first));
            centroids[(count - 1) * DIM..].fill(if query[0] < 128 { 255 } else { 0 });
            let rows = CodeRows {
                bytes: &centroids,
                stride: DIM,
            };
            let squares = OnceLock::new();
            let clusters = Clusters {
                centroids: rows,
                starts: &[],
                layers: 1,
                squares: &squares,
                groups: None,
            };
            let computer = CodeDistances {
                isa: Isa::best(),
                query: QueryCode::new(metric, &query),
                codes: rows,
            };
            for ids in [1, 3].map(|step| {
                (0..)
                    .step_by(step)
                    .take(count.div_ceil(step))
                    .collect::<Vec<u32>>()
            }) {
                let mut keys = vec![0; ids.len()];
                kernels::code_keys(Isa::Portable, computer.query, rows, &ids, &mut keys);
                let mut wanted: Vec<(u32, usize)> = keys.into_iter().zip(0..).collect();
                wanted.sort_unstable();
                for first in [1, 20, 5000] {
                    let mut nearest = Nearest::default();
                    nearest.fill(&clusters, &computer, first, &ids);
                    let next = || nearest.next(Isa::best()).map(|(place, key)| (key, place));
                    let found: Vec<(u32, usize)> = std::iter::from_fn(next).collect();
                    assert_eq!(
                        found,
                        wanted,
                        "{metric:?}, {} of {count}, {first} at first",
                        ids.len()
                    );
                }
            }
        }
    }

    #[test]
    fn words_are_sorted_however_far_they_have_to_go() {
        for count in [0, 1, 2, 100, 3000] {
            let words: Vec<u64> = (0..count).map(|i| mix(i) % 1000).collect();
            let mut wanted = words.clone();
            wanted.sort_unstable();
            let mut nearly = wanted.clone();
            nearly.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            for mut words in [words, nearly, wanted.iter().rev().copied().collect()] {
                sort_nearly_sorted(&mut words);
                assert_eq!(words, wanted);
            }
        }
    }
}
