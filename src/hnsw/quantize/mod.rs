//! 8-bit codes of vectors, and what rounding to them does to distances.
//!
//! In reading order: [`codebook`] turns numbers into codes, [`length_kept`] chooses codes that keep a vector's length,
//! [`rounding`] bounds how wrong distances between codes are.

pub(crate) mod codebook;
pub(crate) mod length_kept;
pub(crate) mod rounding;
