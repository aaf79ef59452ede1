//! The layer in which a node is highest: drawn from the seed and the node's row, so that it depends on
//! nothing else.

use crate::hnsw::ids::MAX_LEVELS;

/// The highest layer of the node that stands for `row`: layer `l` or higher with probability `m^-l`.
///
/// Compares integers, since logarithms differ between machines.
pub(crate) fn draw_layer(seed: u64, row: u64, m: usize) -> usize {
    let draw = mix(seed ^ mix(row));
    let mut threshold = u64::MAX;
    for layer in 0..MAX_LEVELS - 1 {
        threshold /= m as u64;
        if draw >= threshold {
            return layer;
        }
    }
    MAX_LEVELS - 1
}

/// A number that looks random and is not (splitmix64).
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
