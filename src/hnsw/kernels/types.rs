//! What kernels take and give.

/// Partial sums of an f32 kernel: component `i` is added to sum `i % 32`, with a multiplication and
/// an addition rounded separately, and the sums are then folded in halves.
pub(crate) const LANES: usize = 32;

/// What is computed between two codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeMetric {
    /// The sum of squared differences.
    Squared,
    /// A constant minus the inner product of the codes, each taken relative to 128.
    Dot,
}

/// The constant of [`CodeMetric::Dot`]: no inner product of codes of this length is greater.
pub(crate) fn dot_base(stride: usize) -> i64 {
    128 * 128 * stride as i64
}

/// A matrix of 8-bit codes, `stride` bytes a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeRows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) stride: usize,
}

impl<'a> CodeRows<'a> {
    #[inline]
    pub(crate) fn row(&self, id: u32) -> &'a [u8] {
        &self.bytes[id as usize * self.stride..][..self.stride]
    }
}

/// The code that others are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryCode<'a> {
    pub(crate) metric: CodeMetric,
    /// As long as a row.
    pub(crate) bytes: &'a [u8],
    /// The sum of the bytes, each relative to 128; some kernels multiply with bytes that are not.
    #[cfg(target_arch = "x86_64")]
    pub(crate) total: i32,
}

/// The sums of an f32 distance; which of them are meant depends on the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sums {
    /// `Σ qᵢ xᵢ`, or `Σ (qᵢ - xᵢ)²`.
    pub(crate) first: f32,
    /// `Σ xᵢ²`, where asked for.
    pub(crate) square: f32,
}

/// Which sums an f32 kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatMetric {
    /// `Σ (qᵢ - xᵢ)²`.
    Squared,
    /// `Σ qᵢ xᵢ`.
    Dot,
    /// `Σ qᵢ xᵢ` and `Σ xᵢ²`.
    DotAndSquare,
}

/// Folds the lanes in halves: 32, 16, 8, 4, 2, 1.
#[inline]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}
