//! AVX-512: which nodes were met, and which are let in.

use std::arch::x86_64::*;

use super::avx512::ones;
use crate::hnsw::ids::Le32;

/// Writes those of `slots` to `out` that are below `count` and whose bit in `met` is 0. Gives how many,
/// and whether a slot held neither a number below `count` nor [`NO_LINK`](crate::hnsw::ids::NO_LINK).
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
        // SAFETY: lanes of `valid` hold numbers below `count`, whose words lie in `met` as asserted.
        let old = unsafe { set_bits(valid, ids, met.as_ptr().cast()) };
        let new = valid & !old;
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

/// A bit for each of the first 64 of `rows`: whether its own is set in `words`.
#[inline]
pub(crate) fn avx512_contained(rows: &[Le32], words: &[u64]) -> u64 {
    // SAFETY: called for `Isa::Avx512` only, which is listed only if `has_avx512`.
    unsafe { avx512_contained_inner(rows, words) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_contained_inner(rows: &[Le32], words: &[u64]) -> u64 {
    // Places of 32-bit words are signed where they are gathered.
    let bits = u32::try_from(64 * words.len()).unwrap_or(u32::MAX);
    let mut found = 0;
    for (sixteen, place) in rows.chunks(16).zip((0..64).step_by(16)) {
        let mask = low_bits(ones(sixteen.len()));
        // SAFETY: masked lanes are not read, and the mask has a bit for each row.
        let rows = unsafe { _mm512_maskz_loadu_epi32(mask, sixteen.as_ptr().cast()) };
        let valid = _mm512_mask_cmplt_epu32_mask(mask, rows, _mm512_set1_epi32(bits.cast_signed()));
        // SAFETY: lanes of `valid` hold numbers below the number of bits; on this little-endian machine the
        // n-th 32 bits of the words hold the bits from 32 n on.
        let set = unsafe { set_bits(valid, rows, words.as_ptr().cast()) };
        found |= u64::from(set) << place;
    }
    found
}

/// Writes the places of the ones of `bits` to `out`, the lowest being `first`. Gives how many.
#[inline]
pub(crate) fn avx512_ones(bits: u64, first: u32, out: &mut [u32]) -> usize {
    // SAFETY: called for `Isa::Avx512` only, which is listed only if `has_avx512`.
    unsafe { avx512_ones_inner(bits, first, out) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_ones_inner(bits: u64, first: u32, out: &mut [u32]) -> usize {
    let out: &mut [u32; 64] = out.first_chunk_mut().expect("room for 64");
    let steps = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let mut ids = _mm512_add_epi32(_mm512_set1_epi32(first.cast_signed()), steps);
    let mut found = 0;
    for place in (0..64).step_by(16) {
        let sixteen = low_bits(bits >> place);
        // SAFETY: `found` is at most `place`, so 16 of the 64 places follow.
        unsafe {
            _mm512_storeu_si512(
                out.as_mut_ptr().add(found).cast(),
                _mm512_maskz_compress_epi32(sixteen, ids),
            );
        }
        found += sixteen.count_ones() as usize;
        ids = _mm512_add_epi32(ids, _mm512_set1_epi32(16));
    }
    found
}

/// A bit for each of the first 64 of `keys`: whether it is no greater than `limit`.
#[inline]
pub(crate) fn avx512_at_most(keys: &[u32], limit: u32) -> u64 {
    // SAFETY: called for `Isa::Avx512` only, which is listed only if `has_avx512`.
    unsafe { avx512_at_most_inner(keys, limit) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn avx512_at_most_inner(keys: &[u32], limit: u32) -> u64 {
    let limit = _mm512_set1_epi32(limit.cast_signed());
    let mut found = 0;
    for (sixteen, place) in keys.chunks(16).zip((0..64).step_by(16)) {
        let mask = low_bits(ones(sixteen.len()));
        // SAFETY: masked lanes are not read, and the mask has a bit for each key.
        let keys = unsafe { _mm512_maskz_loadu_epi32(mask, sixteen.as_ptr().cast()) };
        found |= u64::from(_mm512_mask_cmple_epu32_mask(mask, keys, limit)) << place;
    }
    found
}

/// Those of the `valid` lanes whose number's bit is set in the words.
///
/// # Safety
///
/// The words have a bit for each number in a valid lane. The other lanes are not read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn set_bits(valid: u16, numbers: __m512i, words: *const i32) -> u16 {
    let places = _mm512_srli_epi32::<5>(numbers);
    // SAFETY: as the caller promises.
    let words = unsafe { _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), valid, places, words) };
    let bits = _mm512_sllv_epi32(
        _mm512_set1_epi32(1),
        _mm512_and_si512(numbers, _mm512_set1_epi32(31)),
    );
    _mm512_mask_test_epi32_mask(valid, words, bits)
}

/// The bits for 16 lanes.
#[inline]
fn low_bits(mask: u64) -> u16 {
    u16::try_from(mask & 0xFFFF).expect("16 bits")
}
