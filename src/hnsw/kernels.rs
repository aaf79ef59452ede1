//! The inner loops: distances between 8-bit codes and between f32 vectors.
//!
//! Each exists as a plain twin here and, in `simd`, for the instruction sets that a machine may have;
//! the fastest is chosen once, at run time. Every kernel gives **the same bits** on every machine: the
//! integer ones trivially, the f32 ones because all of them add in the same order, that of 32 lanes
//! (see [`LANES`]). So an index built anywhere is the same file, and searches the same everywhere.

use std::sync::OnceLock;

use super::graph::Le32;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::simd;

/// Partial sums of an f32 kernel: component `i` is added to sum `i % 32`, with a multiplication and
/// an addition rounded separately, and the sums are then folded in halves.
pub(crate) const LANES: usize = 32;

/// What is computed between two codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeMetric {
    /// The sum of squared differences.
    Squared,
    /// A constant minus the inner product of the codes, each taken relative to 128.
    Dot,
}

/// The instruction sets that have kernels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Plain Rust.
    Portable,
    /// AVX2 with FMA-era integer instructions (Haswell, Zen and later).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL with VNNI (Ice Lake, Zen 4 and later).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON, present on every 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// The best that this machine has.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            *Self::available()
                .last()
                .expect("the portable kernels are always there")
        })
    }

    /// All that this machine has, best last.
    pub(crate) fn available() -> Vec<Self> {
        let mut found = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if simd::has_avx2() {
                found.push(Self::Avx2);
            }
            if simd::has_avx512() {
                found.push(Self::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Self::Neon);
        found
    }
}

/// The constant of [`CodeMetric::Dot`]: no inner product of codes of this length is greater.
pub(crate) fn dot_base(stride: usize) -> i64 {
    128 * 128 * stride as i64
}

/// A matrix of 8-bit codes, `stride` bytes a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeRows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) stride: usize,
}

impl<'a> CodeRows<'a> {
    #[inline]
    pub(crate) fn row(&self, id: u32) -> &'a [u8] {
        &self.bytes[id as usize * self.stride..][..self.stride]
    }
}

/// The keys of the rows `ids` seen from `query`: smaller is nearer, comparable with each other.
///
/// `query` has the length of a row.
#[inline]
pub(crate) fn code_keys(
    isa: Isa,
    metric: CodeMetric,
    query: &[u8],
    codes: CodeRows<'_>,
    ids: &[u32],
    keys: &mut [u32],
) {
    match isa {
        Isa::Portable => portable::code_keys(metric, query, codes, ids, keys),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => simd::avx2_code_keys(metric, query, codes, ids, keys),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::avx512_code_keys(metric, query, codes, ids, keys),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => simd::neon_code_keys(metric, query, codes, ids, keys),
    }
}

/// The sums of an f32 distance; which of them are meant depends on the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sums {
    /// `Σ qᵢ xᵢ`, or `Σ (qᵢ - xᵢ)²`.
    pub(crate) first: f32,
    /// `Σ xᵢ²`, where asked for.
    pub(crate) square: f32,
}

/// Which sums an f32 kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatMetric {
    /// `Σ (qᵢ - xᵢ)²`.
    Squared,
    /// `Σ qᵢ xᵢ`.
    Dot,
    /// `Σ qᵢ xᵢ` and `Σ xᵢ²`.
    DotAndSquare,
}

/// The sums between `query` and a row of little-endian f32, which need not be aligned.
///
/// # Panics
///
/// If `row.len() != 4 * query.len()`.
#[inline]
pub(crate) fn float_sums(isa: Isa, metric: FloatMetric, query: &[f32], row: &[u8]) -> Sums {
    assert_eq!(row.len(), 4 * query.len(), "a row of the query's length");
    match isa {
        Isa::Portable => portable::float_sums(metric, query, row),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => simd::avx2_float_sums(metric, query, row),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::avx512_float_sums(metric, query, row),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => simd::neon_float_sums(metric, query, row),
    }
}

/// Runs `work` compiled for an instruction set: what is inlined into it may use its instructions.
#[inline(always)]
pub(crate) fn with_instructions<T>(isa: Isa, work: impl FnOnce() -> T) -> T {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => simd::with_avx2(work),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::with_avx512(work),
        _ => work(),
    }
}

/// Writes those of a list's slots to `out` that are below `count` and whose bit in `met` is 0. Gives how many,
/// and whether a slot held something else than such a number or [`NO_LINK`](super::graph::NO_LINK).
///
/// # Panics
///
/// If `met` has fewer than `count` bits, or `out` fewer places than slots, rounded up to a multiple of 16.
#[inline(always)]
pub(crate) fn unmet(isa: Isa, slots: &[Le32], met: &[u32], count: u32, out: &mut [u32]) -> (usize, bool) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::avx512_unmet(slots, met, count, out),
        _ => portable::unmet(slots, met, count, out),
    }
}

/// Writes `first + i` to `out` for each of `rows` whose bit is set in `words`: the nodes that a filter lets in.
/// Gives how many.
///
/// # Panics
///
/// If `out` has fewer places than rows, rounded up to a multiple of 16.
#[inline(always)]
pub(crate) fn admitted(isa: Isa, rows: &[Le32], words: &[u64], first: u32, out: &mut [u32]) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::avx512_admitted(rows, words, first, out),
        _ => portable::admitted(rows, words, first, out),
    }
}

/// Asks the caches for the lines of `bytes`.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    simd::prefetch(bytes);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = bytes;
}

/// Little-endian f32 as numbers, if they lie so that this machine can read them in place.
pub(crate) fn as_floats(bytes: &[u8]) -> Option<&[f32]> {
    #[cfg(all(
        any(target_arch = "x86_64", target_arch = "aarch64"),
        target_endian = "little"
    ))]
    return simd::as_floats(bytes);
    #[cfg(not(all(
        any(target_arch = "x86_64", target_arch = "aarch64"),
        target_endian = "little"
    )))]
    return bytes.is_empty().then_some(&[]);
}

/// Folds the lanes in halves: 32, 16, 8, 4, 2, 1.
#[inline]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The kernels in plain Rust: the definition of what the others compute.
pub(crate) mod portable {
    use super::{CodeMetric, CodeRows, FloatMetric, LANES, Le32, Sums, dot_base, fold};
    use crate::hnsw::graph::NO_LINK;

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

    #[inline(always)]
    pub(crate) fn admitted(rows: &[Le32], words: &[u64], first: u32, out: &mut [u32]) -> usize {
        let mut found = 0;
        for (&row, node) in rows.iter().zip(first..) {
            let row = u32::from_le_bytes(row);
            let word = words.get((row / 64) as usize).copied().unwrap_or(0);
            out[found] = node;
            found += usize::from(word >> (row % 64) & 1 == 1);
        }
        found
    }

    pub(crate) fn code_keys(
        metric: CodeMetric,
        query: &[u8],
        codes: CodeRows<'_>,
        ids: &[u32],
        keys: &mut [u32],
    ) {
        for (&id, key) in ids.iter().zip(keys) {
            *key = code_key(metric, query, codes.row(id));
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hnsw::levels::mix;

    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        (0..count as u64)
            .map(|i| mix(seed ^ mix(i)).to_le_bytes()[0])
            .collect()
    }

    fn floats(count: usize, seed: u64) -> Vec<f32> {
        let unit = |i: u64| (mix(seed ^ mix(i)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        (0..count as u64)
            .map(|i| unit(i) * 10f32.powi((i % 7) as i32 - 3))
            .collect()
    }

    fn keys(isa: Isa, metric: CodeMetric, query: &[u8], codes: &[u8]) -> Vec<u32> {
        let rows = CodeRows {
            bytes: codes,
            stride: query.len(),
        };
        let ids: Vec<u32> = (0..).take(codes.len() / query.len()).collect();
        let mut keys = vec![0; ids.len()];
        code_keys(isa, metric, query, rows, &ids, &mut keys);
        keys
    }

    #[test]
    fn every_code_kernel_agrees_with_its_plain_twin() {
        for dim in 1..=1100 {
            for offset in [0, 1, 7] {
                let (query, codes) = (bytes(dim + offset, 1), bytes(3 * dim + offset, 2));
                let (query, codes) = (&query[offset..], &codes[offset..]);
                for metric in [CodeMetric::Squared, CodeMetric::Dot] {
                    let plain = keys(Isa::Portable, metric, query, codes);
                    for isa in Isa::available() {
                        assert_eq!(
                            keys(isa, metric, query, codes),
                            plain,
                            "{isa:?} {metric:?} dim {dim}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_kernel_finds_the_same_unmet_nodes() {
        let count = 1000;
        let met: Vec<u32> = (0..32)
            .map(|i| u32::try_from(mix(i) >> 32).expect("32 bits"))
            .collect();
        for length in 0..=80 {
            for (used, stray) in [
                (length, None),
                (length / 2, None),
                (length, Some(count)),
                (length, Some(3)),
            ] {
                let mut slots: Vec<Le32> = (0..length as u64)
                    .map(|i| {
                        u32::try_from(mix(length as u64 ^ mix(i)) % u64::from(count))
                            .expect("below 1000")
                            .to_le_bytes()
                    })
                    .collect();
                slots[used..].fill([0xFF; 4]);
                if let (Some(id), Some(last)) = (stray, slots.last_mut()) {
                    *last = u32::to_le_bytes(id);
                }
                let run = |isa| {
                    let mut out = vec![0; length.next_multiple_of(16)];
                    let (found, damaged) = unmet(isa, &slots, &met, count, &mut out);
                    (out[..found].to_vec(), damaged)
                };
                for isa in Isa::available() {
                    assert_eq!(
                        run(isa),
                        run(Isa::Portable),
                        "{isa:?}, {length} slots, {used} used"
                    );
                }
            }
        }
    }

    #[test]
    fn every_kernel_lets_in_the_same_nodes() {
        let words: Vec<u64> = (0..10).map(mix).collect();
        for length in 0..=80 {
            let rows: Vec<Le32> = (0..length as u64)
                .map(|i| u32::to_le_bytes((mix(length as u64 ^ mix(i)) % 700) as u32))
                .chain([u32::MAX.to_le_bytes()])
                .collect();
            let run = |isa| {
                let mut out = vec![0; rows.len().next_multiple_of(16)];
                let found = admitted(isa, &rows, &words, 7, &mut out);
                out[..found].to_vec()
            };
            for isa in Isa::available() {
                assert_eq!(run(isa), run(Isa::Portable), "{isa:?}, {length} rows");
            }
        }
    }

    #[test]
    fn code_kernels_do_not_overflow_at_the_longest_dimension() {
        let dim = crate::hnsw::MAX_CODE_DIM;
        for (a, b) in [(0, 255), (255, 255), (0, 0), (1, 254)] {
            for metric in [CodeMetric::Squared, CodeMetric::Dot] {
                let plain = keys(Isa::Portable, metric, &vec![a; dim], &vec![b; dim]);
                for isa in Isa::available() {
                    assert_eq!(
                        keys(isa, metric, &vec![a; dim], &vec![b; dim]),
                        plain,
                        "{isa:?} {metric:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_float_kernel_has_the_bits_of_its_plain_twin() {
        for dim in 1..=1100 {
            for offset in [0, 1, 3] {
                let query = floats(dim + 1, 3);
                let row: Vec<u8> = floats(dim, 4).iter().flat_map(|x| x.to_le_bytes()).collect();
                let row = [vec![0; offset], row].concat();
                let (query, row) = (&query[1..], &row[offset..]);
                for metric in [FloatMetric::Squared, FloatMetric::Dot, FloatMetric::DotAndSquare] {
                    let plain = float_sums(Isa::Portable, metric, query, row);
                    for isa in Isa::available() {
                        let sums = float_sums(isa, metric, query, row);
                        let bits = |sums: Sums| (sums.first.to_bits(), sums.square.to_bits());
                        assert_eq!(bits(sums), bits(plain), "{isa:?} {metric:?} dim {dim}");
                    }
                }
            }
        }
    }
}
