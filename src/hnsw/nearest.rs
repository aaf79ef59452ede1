//! The cells of an index, nearest to a query first.

use super::cells::Cells;
use super::kernels::{self, CodeMetric, Isa, Ones, QueryCode, dot_base};
use super::spaces::CodeSpace;

/// Keys that are looked at to find a limit.
const SAMPLE: usize = 128;
/// Keys that are compared with a limit at a time.
const BLOCK: usize = 64;
/// Parts of the range of keys that are put in order: cells of one part come in any order, as which of two cells about as
/// near is looked into first makes no difference.
const PARTS: usize = 64;

/// Cells, nearly in the order of their distance: a part of them at a time, since most are never asked for.
#[derive(Debug, Default)]
pub(crate) struct Nearest {
    /// The keys of all cells.
    keys: Vec<u32>,
    /// Some of them, sorted.
    sample: Vec<u32>,
    /// Keys and cells from one limit up to the next.
    found: Vec<u64>,
    /// The same in order, and how many of them were given.
    order: Vec<u64>,
    given: usize,
    /// All cells with smaller keys were put in order.
    limit: u64,
    /// How many cells will be put in order next, about.
    more: usize,
}

impl Nearest {
    /// Compares all centres with the query. About `first` of the cells will be asked for.
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        cells: &Cells<'_>,
        space: &CodeSpace<'_>,
        first: usize,
        ids: &mut Vec<u32>,
    ) {
        ids.clear();
        ids.extend((0..).take(cells.count()));
        self.keys.resize(ids.len(), 0);
        let keys = &mut self.keys[..];
        match space.query.metric {
            CodeMetric::Dot => kernels::code_keys(space.isa, space.query, cells.centres, ids, keys),
            CodeMetric::Squared => {
                // (q - c)² is q² + c² - 2 q c, and products are the cheaper ones. The sum fits whatever its parts do.
                let bytes = space.query.bytes;
                kernels::code_keys(
                    space.isa,
                    QueryCode::new(CodeMetric::Dot, bytes),
                    cells.centres,
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
                for (key, &square) in keys.iter_mut().zip(cells.squares()) {
                    *key = key.wrapping_mul(2).wrapping_add(all).wrapping_add(square);
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

    /// The next cell, and the key of its centre.
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
        let cell = usize::try_from(word & u64::from(u32::MAX)).ok()?;
        Some((cell, u32::try_from(word >> 32).expect("32 bits")))
    }

    /// Raises the limit, by the sample, and finds the cells below it that were not below it before.
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
                let (key, cell) = (block[place as usize], first + u64::from(place));
                self.found.push(u64::from(key) << 32 | cell);
            }
        }
        self.sort_by_parts();
    }

    /// Puts what was found in order, by counting how much of it falls into each part.
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
        self.given = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hnsw::kernels::CodeRows;
    use crate::hnsw::levels::mix;
    use std::sync::OnceLock;

    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        (0..count as u64)
            .map(|i| mix(seed ^ mix(i)).to_le_bytes()[0])
            .collect()
    }

    #[test]
    fn every_cell_comes_once_with_its_key_and_hardly_out_of_order() {
        const DIM: usize = 40;
        for (count, metric) in [1, 15, 129, 1000]
            .into_iter()
            .flat_map(|count| [(count, CodeMetric::Squared), (count, CodeMetric::Dot)])
        {
            let (centres, query) = (bytes(count * DIM, 1), bytes(DIM, 2));
            let rows = CodeRows {
                bytes: &centres,
                stride: DIM,
            };
            let squares = OnceLock::new();
            let cells = Cells {
                centres: rows,
                starts: &[],
                layers: 1,
                squares: &squares,
                groups: None,
            };
            let space = CodeSpace {
                isa: Isa::best(),
                query: QueryCode::new(metric, &query),
                codes: rows,
            };
            let ids: Vec<u32> = (0..).take(count).collect();
            let mut wanted = vec![0; count];
            kernels::code_keys(Isa::Portable, space.query, rows, &ids, &mut wanted);
            for first in [1, 20, 5000] {
                let mut nearest = Nearest::default();
                nearest.fill(&cells, &space, first, &mut Vec::new());
                let found: Vec<(usize, u32)> = std::iter::from_fn(|| nearest.next(Isa::best())).collect();
                let mut seen = vec![false; count];
                for &(cell, key) in &found {
                    assert_eq!(key, wanted[cell]);
                    assert!(
                        !std::mem::replace(&mut seen[cell], true),
                        "cell {cell} comes twice"
                    );
                }
                assert!(seen.iter().all(|&seen| seen));
                // Of each limit's keys, a part is twice their range by the number of parts at most.
                let range = wanted.iter().max().expect("some") - wanted.iter().min().expect("some");
                let part = range / 32 + 1;
                let mut farthest = 0;
                for (_, key) in found {
                    assert!(key + part > farthest, "{key} comes after {farthest}");
                    farthest = farthest.max(key);
                }
            }
        }
    }
}
