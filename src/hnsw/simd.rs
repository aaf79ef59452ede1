//! The kernels for the instruction sets that a machine may have.
//!
//! One of the two files with unsafe code. Two things could go wrong here:
//!
//! - *An instruction that the machine lacks.* The public functions of this file are called only for an
//!   [`Isa`](super::kernels::Isa) that [`Isa::available`](super::kernels::Isa::available) lists, which asks
//!   the processor.
//! - *A read outside of a slice.* Every load takes its address from a slice that was cut to the length of
//!   the load just before (`chunks_exact`, `as_chunks`), or is masked to the bytes that remain. No load
//!   needs alignment.
//!
//! Nothing is written through a pointer, except to local arrays.
#![expect(
    unsafe_code,
    reason = "vector instructions; each kernel has a plain twin that tests compare it to"
)]

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{neon_code_keys, neon_float_sums, prefetch};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{
    avx2_code_keys, avx2_float_sums, avx512_code_keys, avx512_float_sums, avx512_unmet, has_avx2, has_avx512,
    prefetch, with_avx2, with_avx512,
};

/// Little-endian f32 as numbers, if they are aligned.
#[cfg(target_endian = "little")]
pub(crate) fn as_floats(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: every four bytes are some f32, and the machine is little-endian as the bytes are.
    match unsafe { bytes.align_to::<f32>() } {
        ([], floats, []) => Some(floats),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use crate::hnsw::graph::Le32;
    use crate::hnsw::kernels::{CodeMetric, CodeRows, FloatMetric, LANES, Sums, dot_base, fold};

    pub(crate) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2")
    }

    pub(crate) fn has_avx512() -> bool {
        has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
    }

    pub(crate) fn with_avx2<T>(work: impl FnOnce() -> T) -> T {
        #[target_feature(enable = "avx2")]
        fn compiled<T>(work: impl FnOnce() -> T) -> T {
            work()
        }
        // SAFETY: called for `Isa::Avx2` only, which is listed only if `has_avx2`.
        unsafe { compiled(work) }
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
    pub(crate) fn prefetch(bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            // SAFETY: a prefetch reads nothing that the program can see, and SSE is always there.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) };
            at += 64;
        }
    }

    #[inline]
    pub(crate) fn avx512_code_keys(
        metric: CodeMetric,
        query: &[u8],
        codes: CodeRows<'_>,
        ids: &[u32],
        keys: &mut [u32],
    ) {
        // SAFETY: called for `Isa::Avx512` only, which is listed only if `has_avx512`.
        unsafe {
            match metric {
                CodeMetric::Squared => avx512_squared_keys(query, codes, ids, keys),
                CodeMetric::Dot => avx512_dot_keys(query, codes, ids, keys),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn avx512_squared_keys(query: &[u8], codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
        let (a_blocks, a_rest) = query.as_chunks::<64>();
        for (ids, keys) in ids.chunks(4).zip(keys.chunks_mut(4)) {
            let mut sums = [_mm512_setzero_si512(); 4];
            for (&id, sum) in ids.iter().zip(&mut sums) {
                let (mut halves, mut odds) = (_mm512_setzero_si512(), _mm512_setzero_si512());
                let (b_blocks, b_rest) = codes.row(id)[..query.len()].as_chunks::<64>();
                for (a, b) in a_blocks.iter().zip(b_blocks) {
                    (halves, odds) = avx512_square(load(a), load(b), halves, odds);
                }
                if !a_rest.is_empty() {
                    (halves, odds) = avx512_square(load_rest(a_rest), load_rest(b_rest), halves, odds);
                }
                *sum = _mm512_add_epi32(_mm512_slli_epi32::<1>(halves), odds);
            }
            keys.copy_from_slice(&avx512_reduce(sums)[..keys.len()]);
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

    /// Writes those of `slots` to `out` that are below `count` and whose bit in `met` is 0. Gives how many,
    /// and whether a slot held neither a number below `count` nor [`NO_LINK`].
    #[inline]
    pub(crate) fn avx512_unmet(slots: &[Le32], met: &[u32], count: u32, out: &mut [u32]) -> (usize, bool) {
        // SAFETY: called for `Isa::Avx512` only, which is listed only if `has_avx512`.
        unsafe { avx512_unmet_inner(slots, met, count, out) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn avx512_unmet_inner(slots: &[Le32], met: &[u32], count: u32, out: &mut [u32]) -> (usize, bool) {
        assert!(
            count as usize <= 32 * met.len() && i32::try_from(met.len()).is_ok(),
            "a bit for each number"
        );
        assert!(
            out.len() >= slots.len().next_multiple_of(16),
            "room for whole vectors"
        );
        let (mut found, mut damaged) = (0, 0);
        for sixteen in slots.chunks(16) {
            let mask = low_bits(ones(sixteen.len()));
            // SAFETY: masked lanes are not read, and the mask has a bit for each slot.
            let ids = unsafe { _mm512_maskz_loadu_epi32(mask, sixteen.as_ptr().cast()) };
            let used = u32::from(_mm512_mask_cmpneq_epi32_mask(mask, ids, _mm512_set1_epi32(-1)));
            // Those before the first unused slot.
            let linked = low_bits(u64::from(used & ((used ^ (used + 1)) >> 1)));
            let valid = _mm512_mask_cmplt_epu32_mask(linked, ids, _mm512_set1_epi32(count.cast_signed()));
            damaged |= linked ^ valid;
            // SAFETY: lanes of `valid` hold numbers below `count`, whose words lie in `met` as asserted;
            // the others are not read.
            let words = unsafe {
                _mm512_mask_i32gather_epi32::<4>(
                    _mm512_setzero_si512(),
                    valid,
                    _mm512_srli_epi32::<5>(ids),
                    met.as_ptr().cast(),
                )
            };
            let bits = _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_and_si512(ids, _mm512_set1_epi32(31)));
            let new = _mm512_mask_testn_epi32_mask(valid, words, bits);
            // SAFETY: `found` is at most the number of slots before these, so 16 places follow, as asserted.
            unsafe {
                _mm512_storeu_si512(
                    out[found..].as_mut_ptr().cast(),
                    _mm512_maskz_compress_epi32(new, ids),
                );
            }
            found += new.count_ones() as usize;
            if linked != u16::MAX {
                break;
            }
        }
        (found, damaged != 0)
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
    fn avx512_dot_keys(query: &[u8], codes: CodeRows<'_>, ids: &[u32], keys: &mut [u32]) {
        let sign = _mm512_set1_epi8(-128);
        // With b - 128 signed and a unsigned: Σ(a-128)(b-128) = Σa(b-128) - 128 Σ(b-128).
        let mut total = _mm512_setzero_si512();
        let (q_blocks, q_rest) = query.as_chunks::<64>();
        for q in q_blocks {
            total = _mm512_dpbusd_epi32(total, _mm512_set1_epi8(1), _mm512_xor_si512(load(q), sign));
        }
        if !q_rest.is_empty() {
            let q = _mm512_xor_si512(load_rest(q_rest), sign);
            total = _mm512_dpbusd_epi32(total, masked(q_rest.len(), _mm512_set1_epi8(1)), q);
        }
        let base = dot_base(query.len()) + 128 * i64::from(_mm512_reduce_add_epi32(total));
        for (ids, keys) in ids.chunks(4).zip(keys.chunks_mut(4)) {
            let mut sums = [_mm512_setzero_si512(); 4];
            for (&id, sum) in ids.iter().zip(&mut sums) {
                let (a_blocks, a_rest) = codes.row(id)[..query.len()].as_chunks::<64>();
                for (a, q) in a_blocks.iter().zip(q_blocks) {
                    *sum = _mm512_dpbusd_epi32(*sum, load(a), _mm512_xor_si512(load(q), sign));
                }
                if !a_rest.is_empty() {
                    // The bytes beyond the end are 0 in `a`, so what `q` holds there does not matter.
                    let q = _mm512_xor_si512(load_rest(q_rest), sign);
                    *sum = _mm512_dpbusd_epi32(*sum, load_rest(a_rest), q);
                }
            }
            for (key, sum) in keys.iter_mut().zip(avx512_reduce(sums)) {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 2 base"
                )]
                let small = (base - i64::from(sum.cast_signed())) as u32;
                *key = small;
            }
        }
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

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn masked(len: usize, x: __m512i) -> __m512i {
        _mm512_maskz_mov_epi8(ones(len), x)
    }

    /// The bits for 16 lanes.
    #[inline]
    fn low_bits(mask: u64) -> u16 {
        u16::try_from(mask & 0xFFFF).expect("16 bits")
    }

    /// The lowest `len` bits; `len` is below 64.
    #[inline]
    fn ones(len: usize) -> u64 {
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

    pub(crate) fn avx2_code_keys(
        metric: CodeMetric,
        query: &[u8],
        codes: CodeRows<'_>,
        ids: &[u32],
        keys: &mut [u32],
    ) {
        for (&id, key) in ids.iter().zip(keys) {
            // SAFETY: called for `Isa::Avx2` only, which is listed only if `has_avx2`.
            *key = unsafe {
                match metric {
                    CodeMetric::Squared => avx2_code_key::<true>(query, codes.row(id)),
                    CodeMetric::Dot => avx2_code_key::<false>(query, codes.row(id)),
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
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use crate::hnsw::kernels::{CodeMetric, CodeRows, FloatMetric, LANES, Sums, dot_base, fold};

    #[inline]
    pub(crate) fn prefetch(bytes: &[u8]) {
        for line in bytes.chunks(64) {
            // SAFETY: a prefetch changes nothing that the program can see.
            unsafe {
                std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) line.as_ptr(), options(nostack, readonly));
            }
        }
    }

    pub(crate) fn neon_code_keys(
        metric: CodeMetric,
        query: &[u8],
        codes: CodeRows<'_>,
        ids: &[u32],
        keys: &mut [u32],
    ) {
        for (&id, key) in ids.iter().zip(keys) {
            *key = match metric {
                CodeMetric::Squared => code_key::<true>(query, codes.row(id)),
                CodeMetric::Dot => code_key::<false>(query, codes.row(id)),
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
}
