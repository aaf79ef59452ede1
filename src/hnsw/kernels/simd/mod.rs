//! The kernels for the instruction sets that a machine may have.
//!
//! This folder and the map have all unsafe code. Two things could go wrong here:
//!
//! - *An instruction that the machine lacks.* The public functions of this folder are called only for an
//!   [`Isa`](crate::hnsw::kernels::Isa) that [`Isa::available`](crate::hnsw::kernels::Isa::available) lists, which asks
//!   the processor.
//! - *A read outside of a slice.* A load takes its address from a slice that was cut to the length of the load
//!   just before (`chunks_exact`, `as_chunks`), or is masked to the bytes that remain. AVX-512's comparisons of
//!   codes take addresses of rows, after asking whether the last of them ends in its slice. No load needs
//!   alignment.
//!
//! Nothing is written through a pointer, except to local arrays.
#![expect(
    unsafe_code,
    reason = "vector instructions; each kernel has a plain twin that tests compare it to"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bits;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{avx2_code_keys, avx2_float_sums, has_avx2, with_avx2};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{avx512_code_keys, avx512_float_sums, has_avx512, with_avx512};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512_bits::{avx512_at_most, avx512_contained, avx512_ones, avx512_unmet};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{neon_code_keys, neon_float_sums, prefetch};

/// Little-endian f32 as numbers, if they are aligned.
#[cfg(target_endian = "little")]
pub(crate) fn as_floats(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: every four bytes are some f32, and the machine is little-endian as the bytes are.
    match unsafe { bytes.align_to::<f32>() } {
        ([], floats, []) => Some(floats),
        _ => None,
    }
}

/// Asks the caches for the lines of `bytes`.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        // SAFETY: a prefetch reads nothing that the program can see, and SSE is always there.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                bytes.as_ptr().wrapping_add(at).cast(),
            )
        };
        at += 64;
    }
}
