//! The inner loops: distances between 8-bit codes and between f32 vectors.
//!
//! Each exists as a plain twin here and, in `simd`, for the instruction sets that a machine may have;
//! the fastest is chosen once, at run time. Every kernel gives **the same bits** on every machine: the
//! integer ones trivially, the f32 ones because all of them add in the same order, that of 32 lanes
//! (see [`LANES`]). So an index built anywhere is the same file, and searches the same everywhere.

mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod simd;
mod types;

use std::sync::OnceLock;

pub(crate) use portable::Ones;
pub(crate) use types::{CodeMetric, CodeRows, FloatMetric, LANES, QueryCode, Sums, dot_base};

use super::ids::Le32;

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

impl<'a> QueryCode<'a> {
    #[inline]
    pub(crate) fn new(metric: CodeMetric, bytes: &'a [u8]) -> Self {
        #[cfg(target_arch = "x86_64")]
        let total = match metric {
            CodeMetric::Squared => 0,
            CodeMetric::Dot => with_instructions(
                Isa::best(),
                #[inline(always)]
                || bytes.iter().map(|&byte| i32::from(byte) - 128).sum(),
            ),
        };
        Self {
            metric,
            bytes,
            #[cfg(target_arch = "x86_64")]
            total,
        }
    }
}

/// The keys of the rows `ids` seen from `query`: smaller is nearer, comparable with each other.
#[inline]
pub(crate) fn code_keys(isa: Isa, query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
    match isa {
        Isa::Portable => portable::code_keys(query, codes, ids, keys),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => simd::avx2_code_keys(query, codes, ids, keys),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::avx512_code_keys(query, codes, ids, keys),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => simd::neon_code_keys(query, codes, ids, keys),
    }
}

/// The squared length of a code, its bytes taken relative to 128.
pub(crate) fn code_square(code: &[u8]) -> u32 {
    with_instructions(
        Isa::best(),
        #[inline(always)]
        || {
            code.iter()
                .map(|&byte| i32::from(byte) - 128)
                .map(|x| (x * x).cast_unsigned())
                .sum()
        },
    )
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
/// and whether a slot held something else than such a number or [`NO_LINK`](crate::hnsw::ids::NO_LINK).
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

/// A bit for each of up to 64 `rows`: whether its own is set in `words`.
#[inline]
pub(crate) fn contained(isa: Isa, rows: &[Le32], words: &[u64]) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::avx512_contained(rows, words),
        _ => portable::contained(rows, words),
    }
}

/// Writes the places of the ones of `bits` to `out`, the lowest being `first`. Gives how many.
///
/// # Panics
///
/// If `out` has fewer than 64 places.
#[inline(always)]
pub(crate) fn ones(isa: Isa, bits: u64, first: u32, out: &mut [u32]) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::avx512_ones(bits, first, out),
        _ => portable::ones(bits, first, out),
    }
}

/// A bit for each of up to 64 `keys`: whether it is no greater than `limit`.
#[inline(always)]
pub(crate) fn at_most(isa: Isa, keys: &[u32], limit: u32) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => simd::avx512_at_most(keys, limit),
        _ => portable::at_most(keys, limit),
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

/// Adds number `i` to lane `i % N`, compiled for this machine; in the same order on every machine.
#[inline(always)]
pub(crate) fn in_lanes<const N: usize, T: Copy + Default>(
    numbers: &[f32],
    add: impl Fn(&mut T, f32),
) -> [T; N] {
    with_instructions(
        Isa::best(),
        #[inline(always)]
        || {
            let mut lanes = [T::default(); N];
            let (blocks, rest) = numbers.as_chunks::<N>();
            for block in blocks {
                for (lane, &x) in lanes.iter_mut().zip(block) {
                    add(lane, x);
                }
            }
            for (lane, &x) in lanes.iter_mut().zip(rest) {
                add(lane, x);
            }
            lanes
        },
    )
}

#[cfg(test)]
mod tests;
