//! AVX-512 F, BW, VL with VNNI.

use std::arch::x86_64::*;

use super::has_avx2;
use crate::hnsw::kernels::{CodeMetric, CodeRows, FloatMetric, QueryCode, Sums, dot_base};

pub(crate) fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

pub(crate) fn with_avx512<T>(work: impl FnOnce() -> T) -> T {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn compiled<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    // SAFETY: called for `Isa::Avx512` only, which is listed only if `has_avx512`.
    unsafe { compiled(work) }
}

#[inline]
pub(crate) fn avx512_code_keys(query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
    // SAFETY: called for `Isa::Avx512` only, which is listed only if `has_avx512`.
    unsafe {
        match query.metric {
            CodeMetric::Squared => avx512_keys::<false>(query, codes, ids, keys),
            CodeMetric::Dot => avx512_keys::<true>(query, codes, ids, keys),
        }
    }
}

/// Four keys at a time; the last row comes again to fill a four.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_keys<const DOT: bool>(query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
    let (fours, rest) = ids.as_chunks::<4>();
    let (key_fours, key_rest) = keys.as_chunks_mut::<4>();
    for (ids, keys) in fours.iter().zip(key_fours) {
        *keys = avx512_four_keys::<DOT>(query, codes, ids);
    }
    if let Some(&last) = rest.last() {
        let mut ids = [last; 4];
        ids[..rest.len()].copy_from_slice(rest);
        let sums = avx512_four_keys::<DOT>(query, codes, &ids);
        key_rest.copy_from_slice(&sums[..key_rest.len()]);
    }
}

/// The keys of four rows. (Loops, not `map`: that would not be compiled for these instructions.)
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_four_keys<const DOT: bool>(query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32; 4]) -> [u32; 4] {
    let (q_blocks, q_rest) = query.bytes.as_chunks::<64>();
    let [a, b, c, d] = [
        codes.row(ids[0]),
        codes.row(ids[1]),
        codes.row(ids[2]),
        codes.row(ids[3]),
    ];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<64>(), b.as_chunks::<64>());
    let ((c, c_rest), (d, d_rest)) = (c.as_chunks::<64>(), d.as_chunks::<64>());
    let mut sums = [[_mm512_setzero_si512(); 4]; 2];
    for ((((q, a), b), c), d) in q_blocks.iter().zip(a).zip(b).zip(c).zip(d) {
        avx512_add_codes::<DOT>(load(q), [load(a), load(b), load(c), load(d)], &mut sums);
    }
    if !q_rest.is_empty() {
        let rows = [
            load_rest(a_rest),
            load_rest(b_rest),
            load_rest(c_rest),
            load_rest(d_rest),
        ];
        avx512_add_codes::<DOT>(load_rest(q_rest), rows, &mut sums);
    }
    let [first, odds] = sums;
    if !DOT {
        let mut both = first;
        for i in 0..4 {
            both[i] = _mm512_add_epi32(_mm512_slli_epi32::<1>(first[i]), odds[i]);
        }
        return avx512_reduce(both);
    }
    // With a unsigned and b - 128 signed: Σ(a-128)(b-128) = Σa(b-128) - 128 Σ(b-128).
    let base = dot_base(query.bytes.len()) + 128 * i64::from(query.total);
    let mut keys = avx512_reduce(first);
    for key in &mut keys {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 2 base"
        )]
        let small = (base - i64::from(key.cast_signed())) as u32;
        *key = small;
    }
    keys
}

/// Adds what 64 bytes of the query and of four rows give.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_add_codes<const DOT: bool>(q: __m512i, rows: [__m512i; 4], sums: &mut [[__m512i; 4]; 2]) {
    // Where a row's bytes beyond its end are 0, what `q` holds there does not matter.
    let signed = _mm512_xor_si512(q, _mm512_set1_epi8(-128));
    for i in 0..4 {
        if DOT {
            sums[0][i] = _mm512_dpbusd_epi32(sums[0][i], rows[i], signed);
        } else {
            (sums[0][i], sums[1][i]) = avx512_square(q, rows[i], sums[0][i], sums[1][i]);
        }
    }
}

/// The sums of the lanes of four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_reduce([a, b, c, d]: [__m512i; 4]) -> [u32; 4] {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
    let four = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    let mut sums = [0; 4];
    // SAFETY: 16 bytes into an array of 16 bytes.
    unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), four) };
    sums
}

/// Adds the squared differences. The instruction multiplies an unsigned by a signed byte, so a
/// difference `d = 2h + o` is squared as `2(d h) + d o`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_square(a: __m512i, b: __m512i, halves: __m512i, odds: __m512i) -> (__m512i, __m512i) {
    let d = _mm512_or_si512(_mm512_subs_epu8(a, b), _mm512_subs_epu8(b, a));
    let h = _mm512_and_si512(_mm512_srli_epi16::<1>(d), _mm512_set1_epi8(0x7F));
    let o = _mm512_and_si512(d, _mm512_set1_epi8(1));
    (_mm512_dpbusd_epi32(halves, d, h), _mm512_dpbusd_epi32(odds, d, o))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn load(block: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes from a reference to 64 bytes.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

/// The first bytes from `rest`, zeros behind.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn load_rest(rest: &[u8]) -> __m512i {
    // SAFETY: masked bytes are not read, and the mask has a bit for each byte of `rest`.
    unsafe { _mm512_maskz_loadu_epi8(ones(rest.len()), rest.as_ptr().cast()) }
}

/// The lowest `len` bits; `len` is below 64.
#[inline]
pub(super) fn ones(len: usize) -> u64 {
    (1u64 << len) - 1
}

pub(crate) fn avx512_float_sums(metric: FloatMetric, query: &[f32], row: &[u8]) -> Sums {
    // SAFETY: called for `Isa::Avx512` only, which is listed only if `has_avx512`.
    unsafe {
        match metric {
            FloatMetric::Squared => avx512_floats::<0>(query, row),
            FloatMetric::Dot => avx512_floats::<1>(query, row),
            FloatMetric::DotAndSquare => avx512_floats::<2>(query, row),
        }
    }
}

/// `KIND` is the [`FloatMetric`]: 0 squared, 1 dot, 2 dot and square.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_floats<const KIND: u8>(query: &[f32], row: &[u8]) -> Sums {
    let mut first = [_mm512_setzero_ps(); 2];
    let mut square = [_mm512_setzero_ps(); 2];
    let (q_blocks, q_rest) = query.as_chunks::<16>();
    let (x_blocks, x_rest) = row.as_chunks::<64>();
    for (i, (q, x)) in q_blocks.iter().zip(x_blocks).enumerate() {
        // SAFETY: 64 bytes each, from references to 64 bytes.
        let (q, x) = unsafe { (_mm512_loadu_ps(q.as_ptr()), _mm512_loadu_ps(x.as_ptr().cast())) };
        avx512_add::<KIND>(q, x, &mut first[i % 2], &mut square[i % 2]);
    }
    if !q_rest.is_empty() {
        #[expect(clippy::cast_possible_truncation, reason = "fewer than 16 numbers remain")]
        let mask = ones(q_rest.len().min(x_rest.len() / 4)) as u16;
        // SAFETY: masked numbers are not read, and the mask has a bit for each number that remains.
        let (q, x) = unsafe {
            (
                _mm512_maskz_loadu_ps(mask, q_rest.as_ptr()),
                _mm512_maskz_loadu_ps(mask, x_rest.as_ptr().cast()),
            )
        };
        let i = q_blocks.len() % 2;
        avx512_add::<KIND>(q, x, &mut first[i], &mut square[i]);
    }
    Sums {
        first: avx512_fold(_mm512_add_ps(first[0], first[1])),
        square: if KIND == 2 {
            avx512_fold(_mm512_add_ps(square[0], square[1]))
        } else {
            0.0
        },
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_add<const KIND: u8>(q: __m512, x: __m512, first: &mut __m512, square: &mut __m512) {
    // A fused multiply-add would round once where the other kernels round twice.
    if KIND == 0 {
        let d = _mm512_sub_ps(q, x);
        *first = _mm512_add_ps(*first, _mm512_mul_ps(d, d));
    } else {
        *first = _mm512_add_ps(*first, _mm512_mul_ps(q, x));
        if KIND == 2 {
            *square = _mm512_add_ps(*square, _mm512_mul_ps(x, x));
        }
    }
}

/// Folds 16 lanes in halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_fold(x: __m512) -> f32 {
    let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)));
    let eight = _mm256_add_ps(_mm512_castps512_ps256(x), upper);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
