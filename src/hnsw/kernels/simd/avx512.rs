//! AVX-512 F, BW, VL with VNNI.

use std::arch::x86_64::*;

use super::avx2::has_avx2;
use crate::hnsw::kernels::types::{CodeMetric, CodeRows, FloatMetric, QueryCode, Sums, dot_base};

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

/// Four keys at a time; the greatest id comes again to fill a four. The rows are found by their addresses once the greatest
/// id was looked at: to ask for each took a fifteenth of a look into clusters.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_keys<const DOT: bool>(query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
    let (stride, bytes) = (codes.stride, codes.bytes);
    let most = ids.iter().fold(0, |most, &id| most.max(id));
    let end = if ids.is_empty() {
        0
    } else {
        (most as usize + 1) * stride
    };
    assert!(end <= bytes.len(), "a row for each id");
    assert!(query.bytes.len() == stride, "a query as long as a row");
    let (whole, rest) = (stride - stride % 64, ones(stride % 64));
    let query_at = query.bytes.as_ptr();
    // With a unsigned and b - 128 signed: Σ(a-128)(b-128) = Σa(b-128) - 128 Σ(b-128).
    let base = if DOT {
        dot_base(stride) + 128 * i64::from(query.total)
    } else {
        0
    };
    let (fours, others) = ids.as_chunks::<4>();
    let (key_fours, other_keys) = keys.as_chunks_mut::<4>();
    let other = |i: usize| others.get(i).copied().unwrap_or(most);
    let filled = [other(0), other(1), other(2), most];
    for place in 0..ids.len().div_ceil(4) {
        let ids = fours.get(place).unwrap_or(&filled);
        // SAFETY: rows up to the greatest, which ends in the bytes as asserted.
        let row = |i: usize| unsafe { bytes.as_ptr().add(ids[i] as usize * stride) };
        let rows = [row(0), row(1), row(2), row(3)];
        let (mut sums, mut differences) = ([_mm512_setzero_si512(); 4], _mm512_setzero_si512());
        let mut at = 0;
        while at < whole {
            // SAFETY: a row and the query have 64 bytes here, as `at` is a multiple of 64 before `whole`.
            let (q, x) = unsafe { (_mm512_loadu_si512(query_at.add(at).cast()), blocks_at(rows, at)) };
            avx512_add_codes::<DOT>(q, x, &mut sums, &mut differences);
            at += 64;
        }
        if rest != 0 {
            // SAFETY: masked bytes are not read, and the mask has a bit for each byte from `whole` on.
            let (q, x) = unsafe {
                let q = _mm512_maskz_loadu_epi8(rest, query_at.add(whole).cast());
                (q, rests_at(rows, whole, rest))
            };
            avx512_add_codes::<DOT>(q, x, &mut sums, &mut differences);
        }
        let mut found = avx512_reduce(sums);
        if DOT {
            for key in &mut found {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 2 base"
                )]
                let small = (base - i64::from(key.cast_signed())) as u32;
                *key = small;
            }
        } else if _mm512_movepi8_mask(differences) != 0 {
            found = avx512_four_far_keys(query, codes, ids);
        }
        match key_fours.get_mut(place) {
            Some(keys) => *keys = found,
            None => other_keys
                .iter_mut()
                .zip(found)
                .for_each(|(key, found)| *key = found),
        }
    }
}

/// 64 bytes of each row, `at` bytes from where it begins.
///
/// # Safety
///
/// The rows have these bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn blocks_at([a, b, c, d]: [*const u8; 4], at: usize) -> [__m512i; 4] {
    // SAFETY: as the caller promises.
    unsafe {
        [
            _mm512_loadu_si512(a.add(at).cast()),
            _mm512_loadu_si512(b.add(at).cast()),
            _mm512_loadu_si512(c.add(at).cast()),
            _mm512_loadu_si512(d.add(at).cast()),
        ]
    }
}

/// The bytes of each row for which the mask has a bit, `at` bytes from where it begins; zeros else.
///
/// # Safety
///
/// The rows have these bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rests_at([a, b, c, d]: [*const u8; 4], at: usize, mask: u64) -> [__m512i; 4] {
    // SAFETY: as the caller promises.
    unsafe {
        [
            _mm512_maskz_loadu_epi8(mask, a.add(at).cast()),
            _mm512_maskz_loadu_epi8(mask, b.add(at).cast()),
            _mm512_maskz_loadu_epi8(mask, c.add(at).cast()),
            _mm512_maskz_loadu_epi8(mask, d.add(at).cast()),
        ]
    }
}

/// Adds what 64 bytes of the query and of four rows give. The instruction multiplies an unsigned by a signed byte, so squares
/// are right if no difference is 128 or more, which their highest bits tell.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_add_codes<const DOT: bool>(
    q: __m512i,
    rows: [__m512i; 4],
    sums: &mut [__m512i; 4],
    differences: &mut __m512i,
) {
    // Where a row's bytes beyond its end are 0, what `q` holds there does not matter.
    let signed = _mm512_xor_si512(q, _mm512_set1_epi8(-128));
    for i in 0..4 {
        if DOT {
            sums[i] = _mm512_dpbusd_epi32(sums[i], rows[i], signed);
        } else {
            let d = avx512_difference(q, rows[i]);
            *differences = _mm512_or_si512(*differences, d);
            sums[i] = _mm512_dpbusd_epi32(sums[i], d, d);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_difference(a: __m512i, b: __m512i) -> __m512i {
    _mm512_or_si512(_mm512_subs_epu8(a, b), _mm512_subs_epu8(b, a))
}

/// The squared differences of four rows, however great: `d = 2h + o` is squared as `2(d h) + d o`. (Loops, not `map`: that
/// would not be compiled for these instructions.)
#[cold]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_four_far_keys(query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32; 4]) -> [u32; 4] {
    let (q_blocks, q_rest) = query.bytes.as_chunks::<64>();
    let mut both = [_mm512_setzero_si512(); 4];
    for i in 0..4 {
        let (blocks, rest) = codes.row(ids[i]).as_chunks::<64>();
        let (mut halves, mut odds) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for (q, x) in q_blocks.iter().zip(blocks) {
            (halves, odds) = avx512_square(load(q), load(x), halves, odds);
        }
        if !q_rest.is_empty() {
            (halves, odds) = avx512_square(load_rest(q_rest), load_rest(rest), halves, odds);
        }
        both[i] = _mm512_add_epi32(_mm512_slli_epi32::<1>(halves), odds);
    }
    avx512_reduce(both)
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
    let d = avx512_difference(a, b);
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
pub(crate) fn ones(len: usize) -> u64 {
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
