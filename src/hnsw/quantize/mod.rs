//! 8-bit codes of vectors ([`codebook`]), and what rounding to them does to distances ([`rounding`]).

pub(crate) mod codebook;
pub(crate) mod rounding;
