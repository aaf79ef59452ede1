//! The kernels in plain Rust: the definition of what the others compute.

use super::types::{CodeMetric, CodeRows, FloatMetric, LANES, QueryCode, Sums, dot_base, fold};
use crate::hnsw::ids::{Le32, NO_LINK};

#[inline(always)]
pub(crate) fn unmet(slots: &[Le32], met: &[u32], count: u32, out: &mut [u32]) -> (usize, bool) {
    let (mut found, mut damaged) = (0, false);
    for &slot in slots {
        let id = u32::from_le_bytes(slot);
        if id >= count {
            damaged |= id != NO_LINK;
            break;
        }
        // No branch: whether a node was met is a toss-up.
        out[found] = id;
        found += usize::from(met[(id / 32) as usize] >> (id % 32) & 1 == 0);
    }
    (found, damaged)
}

pub(crate) fn contained(rows: &[Le32], words: &[u64]) -> u64 {
    rows.iter().take(64).enumerate().fold(0, |bits, (place, &row)| {
        let row = u32::from_le_bytes(row);
        let word = words.get((row / 64) as usize).copied().unwrap_or(0);
        bits | (word >> (row % 64) & 1) << place
    })
}

#[inline(always)]
pub(crate) fn ones(bits: u64, first: u32, out: &mut [u32]) -> usize {
    let count = bits.count_ones() as usize;
    for (place, bit) in out[..count].iter_mut().zip(Ones(bits)) {
        *place = first + bit;
    }
    count
}

/// The places of the ones of a word, ascending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ones(pub(crate) u64);

impl Iterator for Ones {
    type Item = u32;

    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        let bit = self.0.trailing_zeros();
        (self.0 != 0).then(|| {
            self.0 &= self.0 - 1;
            bit
        })
    }
}

#[inline(always)]
pub(crate) fn at_most(keys: &[u32], limit: u32) -> u64 {
    // Most often there is none, which is found out for many keys at once.
    if !keys.iter().fold(false, |any, &key| any | (key <= limit)) {
        return 0;
    }
    keys.iter()
        .zip(0..64)
        .fold(0, |bits, (&key, place)| bits | u64::from(key <= limit) << place)
}

pub(crate) fn code_keys(query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
    for (&id, key) in ids.iter().zip(keys) {
        *key = code_key(query.metric, query.bytes, codes.row(id));
    }
}

fn code_key(metric: CodeMetric, a: &[u8], b: &[u8]) -> u32 {
    let pairs = a.iter().zip(b).map(|(&a, &b)| (i32::from(a), i32::from(b)));
    match metric {
        CodeMetric::Squared => pairs.map(|(a, b)| (a - b) * (a - b)).sum::<i32>().cast_unsigned(),
        CodeMetric::Dot => {
            let dot: i32 = pairs.map(|(a, b)| (a - 128) * (b - 128)).sum();
            u32::try_from(dot_base(a.len()) - i64::from(dot)).expect("between 0 and twice the base")
        }
    }
}

pub(crate) fn float_sums(metric: FloatMetric, query: &[f32], row: &[u8]) -> Sums {
    let (mut first, mut square) = ([0.0; LANES], [0.0; LANES]);
    let (row, _) = row.as_chunks::<4>();
    for (query, row) in query.chunks(LANES).zip(row.chunks(LANES)) {
        for (lane, (&q, &x)) in query.iter().zip(row).enumerate() {
            let x = f32::from_le_bytes(x);
            match metric {
                FloatMetric::Squared => first[lane] += (q - x) * (q - x),
                FloatMetric::Dot => first[lane] += q * x,
                FloatMetric::DotAndSquare => {
                    first[lane] += q * x;
                    square[lane] += x * x;
                }
            }
        }
    }
    Sums {
        first: fold(first),
        square: fold(square),
    }
}
