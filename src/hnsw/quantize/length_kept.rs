//! Codes of inner products that keep the length of their vector.

use crate::hnsw::kernels::in_lanes;

/// Numbers from here on are whole. Conversions to integers, which saturate, are not done many at a time; additions are.
pub(crate) const WHOLE: f32 = 8_388_608.0;

/// Codes of inner products that keep their vector's length: the product of a vector with its code is that with itself.
///
/// A query's inner product with a code is wrong by its product with what rounding added. Near a vector, a query is that
/// vector and a small difference, and the first part, by far the greater, is what is made 0 here. Under cosine, rows of
/// a small cluster could not be told apart otherwise.
pub(crate) struct LengthKept<'v> {
    vector: &'v [f32],
    /// Codes for each unit.
    inverse: f32,
}

/// Halvings of the range of factors.
const HALVINGS: usize = 14;

impl<'v> LengthKept<'v> {
    pub(crate) fn new(vector: &'v [f32], scale: f32) -> Self {
        Self {
            vector,
            inverse: 1.0 / scale,
        }
    }

    /// The factor to multiply the vector by before it is rounded: the product grows with it.
    #[inline(always)]
    pub(crate) fn stretch(&self) -> f32 {
        let aim = self.sum(|y| y * y);
        let (mut low, mut high) = (15.0 / 16.0, 17.0 / 16.0);
        for _ in 0..HALVINGS {
            let middle = f32::midpoint(low, high);
            let product = self.sum(|y| {
                let code = (y * middle + 128.0).clamp(1.0, 255.0) + WHOLE;
                y * (code - (WHOLE + 128.0))
            });
            if product < aim {
                low = middle;
            } else {
                high = middle;
            }
        }
        f32::midpoint(low, high)
    }

    /// Rounds one number to its other side, if that makes the product better.
    #[inline(always)]
    pub(crate) fn adjust(&self, code: &mut [u8]) {
        let of = |&byte: &u8| f32::from(byte) - 128.0;
        let numbers = || self.vector.iter().map(|x| x * self.inverse);
        let mut off = 0.0;
        for (y, byte) in numbers().zip(&*code) {
            off += y * (of(byte) - y);
        }
        let (mut best, mut flip) = (f32::abs(off), None);
        for (place, (y, byte)) in numbers().zip(&*code).enumerate() {
            let up = of(byte) < y;
            let left = (if up { off + y } else { off - y }).abs();
            if left < best && (up && *byte < 255 || !up && *byte > 1) {
                (best, flip) = (left, Some((place, up)));
            }
        }
        if let Some((place, up)) = flip {
            code[place] = if up { code[place] + 1 } else { code[place] - 1 };
        }
    }

    /// The sum over all numbers, in codes.
    #[inline(always)]
    fn sum(&self, of: impl Fn(f32) -> f32) -> f32 {
        let sums: [f32; 16] = in_lanes(self.vector, |sum, x| *sum += of(x * self.inverse));
        sums.iter().sum()
    }
}
