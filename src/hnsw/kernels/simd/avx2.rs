//! AVX2.

use std::arch::x86_64::*;

use crate::hnsw::kernels::types::{
    CodeMetric, CodeRows, FloatMetric, LANES, QueryCode, Sums, dot_base, fold,
};

pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
}

pub(crate) fn with_avx2<T>(work: impl FnOnce() -> T) -> T {
    #[target_feature(enable = "avx2")]
    fn compiled<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    // SAFETY: called for `Isa::Avx2` only, which is listed only if `has_avx2`.
    unsafe { compiled(work) }
}

pub(crate) fn avx2_code_keys(query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
    for (&id, key) in ids.iter().zip(keys) {
        // SAFETY: called for `Isa::Avx2` only, which is listed only if `has_avx2`.
        *key = unsafe {
            match query.metric {
                CodeMetric::Squared => avx2_code_key::<true>(query.bytes, codes.row(id)),
                CodeMetric::Dot => avx2_code_key::<false>(query.bytes, codes.row(id)),
            }
        };
    }
}

#[target_feature(enable = "avx2")]
fn avx2_code_key<const SQUARED: bool>(query: &[u8], row: &[u8]) -> u32 {
    let mut sum = _mm256_setzero_si256();
    let (a_blocks, a_rest) = query.as_chunks::<16>();
    let (b_blocks, b_rest) = row[..query.len()].as_chunks::<16>();
    let middle = _mm256_set1_epi16(128);
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        // SAFETY: 16 bytes each, from references to 16 bytes.
        let (a, b) = unsafe {
            (
                _mm_loadu_si128(a.as_ptr().cast()),
                _mm_loadu_si128(b.as_ptr().cast()),
            )
        };
        let (a, b) = (_mm256_cvtepu8_epi16(a), _mm256_cvtepu8_epi16(b));
        let products = if SQUARED {
            let d = _mm256_sub_epi16(a, b);
            _mm256_madd_epi16(d, d)
        } else {
            _mm256_madd_epi16(_mm256_sub_epi16(a, middle), _mm256_sub_epi16(b, middle))
        };
        sum = _mm256_add_epi32(sum, products);
    }
    let mut lanes = [0i32; 8];
    // SAFETY: 32 bytes into an array of 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
    let mut sum: i32 = lanes.iter().sum();
    for (&a, &b) in a_rest.iter().zip(b_rest) {
        let (a, b) = (i32::from(a), i32::from(b));
        sum += if SQUARED {
            (a - b) * (a - b)
        } else {
            (a - 128) * (b - 128)
        };
    }
    if SQUARED {
        sum.cast_unsigned()
    } else {
        u32::try_from(dot_base(query.len()) - i64::from(sum)).expect("between 0 and twice the base")
    }
}

pub(crate) fn avx2_float_sums(metric: FloatMetric, query: &[f32], row: &[u8]) -> Sums {
    // SAFETY: called for `Isa::Avx2` only, which is listed only if `has_avx2`.
    unsafe {
        match metric {
            FloatMetric::Squared => avx2_floats::<0>(query, row),
            FloatMetric::Dot => avx2_floats::<1>(query, row),
            FloatMetric::DotAndSquare => avx2_floats::<2>(query, row),
        }
    }
}

/// `KIND` is the [`FloatMetric`]: 0 squared, 1 dot, 2 dot and square.
#[target_feature(enable = "avx2")]
fn avx2_floats<const KIND: u8>(query: &[f32], row: &[u8]) -> Sums {
    let mut first = [_mm256_setzero_ps(); 4];
    let mut square = [_mm256_setzero_ps(); 4];
    let (q_blocks, q_rest) = query.as_chunks::<LANES>();
    let (x_blocks, x_rest) = row.as_chunks::<{ 4 * LANES }>();
    for (q, x) in q_blocks.iter().zip(x_blocks) {
        for i in 0..4 {
            // SAFETY: the i-th of four times 32 bytes, in blocks of 128 bytes.
            let (q, x) = unsafe {
                (
                    _mm256_loadu_ps(q.as_ptr().add(8 * i)),
                    _mm256_loadu_ps(x.as_ptr().add(32 * i).cast()),
                )
            };
            if KIND == 0 {
                let d = _mm256_sub_ps(q, x);
                first[i] = _mm256_add_ps(first[i], _mm256_mul_ps(d, d));
            } else {
                first[i] = _mm256_add_ps(first[i], _mm256_mul_ps(q, x));
                if KIND == 2 {
                    square[i] = _mm256_add_ps(square[i], _mm256_mul_ps(x, x));
                }
            }
        }
    }
    let (mut first, mut square) = (avx2_lanes(first), avx2_lanes(square));
    for (lane, (&q, &x)) in q_rest.iter().zip(x_rest.as_chunks::<4>().0).enumerate() {
        let x = f32::from_le_bytes(x);
        first[lane] += if KIND == 0 { (q - x) * (q - x) } else { q * x };
        square[lane] += if KIND == 2 { x * x } else { 0.0 };
    }
    Sums {
        first: fold(first),
        square: fold(square),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn avx2_lanes(sums: [__m256; 4]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (eight, sum) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
        // SAFETY: 32 bytes into an array of 32 bytes.
        unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), sum) };
    }
    lanes
}
