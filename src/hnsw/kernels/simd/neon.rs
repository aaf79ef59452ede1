//! NEON, part of every 64-bit ARM.

use std::arch::aarch64::*;

use crate::hnsw::kernels::types::{
    CodeMetric, CodeRows, FloatMetric, LANES, QueryCode, Sums, dot_base, fold,
};

#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        // SAFETY: a prefetch changes nothing that the program can see.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) line.as_ptr(), options(nostack, readonly));
        }
    }
}

pub(crate) fn neon_code_keys(query: QueryCode<'_>, codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
    for (&id, key) in ids.iter().zip(keys) {
        *key = match query.metric {
            CodeMetric::Squared => code_key::<true>(query.bytes, codes.row(id)),
            CodeMetric::Dot => code_key::<false>(query.bytes, codes.row(id)),
        };
    }
}

fn code_key<const SQUARED: bool>(query: &[u8], row: &[u8]) -> u32 {
    let (a_blocks, a_rest) = query.as_chunks::<16>();
    let (b_blocks, b_rest) = row[..query.len()].as_chunks::<16>();
    // SAFETY: NEON is part of every aarch64; each load takes 16 bytes from a reference to 16 bytes.
    let mut sum: i64 = unsafe {
        if SQUARED {
            let mut sum = vdupq_n_u32(0);
            for (a, b) in a_blocks.iter().zip(b_blocks) {
                let d = vabdq_u8(vld1q_u8(a.as_ptr()), vld1q_u8(b.as_ptr()));
                sum = vpadalq_u16(sum, vmull_u8(vget_low_u8(d), vget_low_u8(d)));
                sum = vpadalq_u16(sum, vmull_high_u8(d, d));
            }
            i64::from(vaddvq_u32(sum))
        } else {
            let sign = vdupq_n_u8(0x80);
            let mut sum = vdupq_n_s32(0);
            for (a, b) in a_blocks.iter().zip(b_blocks) {
                let a = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(a.as_ptr()), sign));
                let b = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(b.as_ptr()), sign));
                sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
                sum = vpadalq_s16(sum, vmull_high_s8(a, b));
            }
            i64::from(vaddvq_s32(sum))
        }
    };
    for (&a, &b) in a_rest.iter().zip(b_rest) {
        let (a, b) = (i64::from(a), i64::from(b));
        sum += if SQUARED {
            (a - b) * (a - b)
        } else {
            (a - 128) * (b - 128)
        };
    }
    let key = if SQUARED { sum } else { dot_base(query.len()) - sum };
    u32::try_from(key).expect("sums of this length fit")
}

pub(crate) fn neon_float_sums(metric: FloatMetric, query: &[f32], row: &[u8]) -> Sums {
    match metric {
        FloatMetric::Squared => floats::<0>(query, row),
        FloatMetric::Dot => floats::<1>(query, row),
        FloatMetric::DotAndSquare => floats::<2>(query, row),
    }
}

/// `KIND` is the [`FloatMetric`]: 0 squared, 1 dot, 2 dot and square.
fn floats<const KIND: u8>(query: &[f32], row: &[u8]) -> Sums {
    let (mut first, mut square) = ([0.0; LANES], [0.0; LANES]);
    let (q_blocks, q_rest) = query.as_chunks::<LANES>();
    let (x_blocks, x_rest) = row.as_chunks::<{ 4 * LANES }>();
    // SAFETY: NEON is part of every aarch64; each load takes the i-th of eight times 16 bytes from a
    // block of 128 bytes, and each store 16 bytes into an array of as many.
    unsafe {
        let mut sums = [vdupq_n_f32(0.0); 8];
        let mut squares = [vdupq_n_f32(0.0); 8];
        for (q, x) in q_blocks.iter().zip(x_blocks) {
            for i in 0..8 {
                let q = vld1q_f32(q.as_ptr().add(4 * i));
                let x = vreinterpretq_f32_u8(vld1q_u8(x.as_ptr().add(16 * i)));
                // Multiplied and added apart: a fused instruction would round once.
                if KIND == 0 {
                    let d = vsubq_f32(q, x);
                    sums[i] = vaddq_f32(sums[i], vmulq_f32(d, d));
                } else {
                    sums[i] = vaddq_f32(sums[i], vmulq_f32(q, x));
                    if KIND == 2 {
                        squares[i] = vaddq_f32(squares[i], vmulq_f32(x, x));
                    }
                }
            }
        }
        for i in 0..8 {
            vst1q_f32(first.as_mut_ptr().add(4 * i), sums[i]);
            vst1q_f32(square.as_mut_ptr().add(4 * i), squares[i]);
        }
    }
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
