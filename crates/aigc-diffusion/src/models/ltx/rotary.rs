//! Rotary positions of LTX-Video, along all channels of all heads.

use aigc_core::ops;
use burn::tensor::{Device, Tensor, TensorData};
use std::f32::consts::PI;

/// Frames, height and width of the videos that positions are relative to.
const BASE: [f32; 3] = [20.0, 2048.0, 2048.0];
/// The highest of the frequencies, of which the lowest is 1.
const THETA: f64 = 10_000.0;

/// Angles by which pairs of channels are turned (Su et al. 2021,
/// <https://arxiv.org/abs/2104.09864>): the frequencies follow each other, each of them for the
/// three axes. Heads have different frequencies.
#[derive(Clone, Debug)]
pub(super) struct LtxRotary {
    /// `[1, tokens, heads, d/2]`
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl LtxRotary {
    /// `positions`: of each token along frames, height and width, as shares of [`BASE`] or as they
    /// are; `heads`: number and even width.
    pub(super) fn new(positions: &[[f32; 3]], heads: [usize; 2], device: &Device) -> Self {
        let [count, width] = heads;
        let pairs = count * width / 2;
        let frequencies = frequencies(count * width / 6);
        // Channels that the axes do not share out are not turned.
        let idle = pairs - 3 * frequencies.len();
        let (mut cos, mut sin) = (vec![], vec![]);
        for position in positions {
            cos.extend(std::iter::repeat_n(1.0f32, idle));
            sin.extend(std::iter::repeat_n(0.0f32, idle));
            for frequency in &frequencies {
                for at in position {
                    // Angles have 32 bits, as in diffusers: the last digits of large ones differ
                    // in 64 bits.
                    let angle = f64::from(frequency * (at * 2.0 - 1.0));
                    cos.push(angle.cos() as f32);
                    sin.push(angle.sin() as f32);
                }
            }
        }
        let shape = [1, positions.len(), count, width / 2];
        let table = |values| Tensor::from_data(TensorData::new(values, shape), device);
        Self {
            cos: table(cos),
            sin: table(sin),
        }
    }

    /// Turns queries or keys. The first channels of all pairs of a head come out before the second
    /// ones: scalar products of queries and keys do not depend on the order of channels.
    ///
    /// # Shapes
    /// - x and output: `[batch, tokens, heads, d]`
    pub(super) fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, tokens, heads, d] = x.dims();
        let pairs = x.reshape([batch, tokens, heads, d / 2, 2]);
        let [a, b] = [0, 1].map(|i| pairs.clone().narrow(4, i, 1).squeeze_dim::<4>(4));
        let [cos, sin] = [&self.cos, &self.sin].map(|table| ops::cast(table.clone(), a.dtype()));
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        Tensor::cat(vec![first, b * cos + a * sin], 3)
    }
}

/// `π/2·θ^(i/(n − 1))`, in 32 bits.
fn frequencies(n: usize) -> Vec<f32> {
    let step = 1.0 / n.saturating_sub(1).max(1) as f32;
    let exponent = |i: usize| match i < n / 2 || n == 1 {
        true => step * i as f32,
        false => 1.0 - step * (n - 1 - i) as f32,
    };
    let frequency = |i| THETA.powf(f64::from(exponent(i))) as f32 * PI / 2.0;
    (0..n).map(frequency).collect()
}

/// Positions of the tokens of a video: frames, then rows, then columns.
///
/// `scale`: distances of neighbouring pixels of a latent map, in seconds and pixels, by which
/// positions become shares of [`BASE`]; `patch`: pixels of a latent map that a token stands for.
pub(super) fn positions(
    sizes: [usize; 3],
    scale: Option<[f64; 3]>,
    patch: [usize; 3],
) -> Vec<[f32; 3]> {
    let place = |axis: usize, at: usize| match scale {
        Some(scale) => at as f32 * scale[axis] as f32 * patch[axis] as f32 / BASE[axis],
        None => at as f32,
    };
    let [frames, rows, columns] = sizes;
    let mut all = vec![];
    for frame in 0..frames {
        for row in 0..rows {
            for column in 0..columns {
                all.push([place(0, frame), place(1, row), place(2, column)]);
            }
        }
    }
    all
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};

    #[test]
    fn frequencies_grow_by_a_factor() {
        let half = |x: f32| x * PI / 2.0;
        assert_close(&frequencies(1), &[half(1.0)], 1e-6);
        let expected = [1.0, 10.0, 100.0, 1000.0, 10_000.0].map(half);
        for (found, expected) in frequencies(5).iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6);
        }
        assert!(frequencies(0).is_empty());
    }

    /// Four of ten channels are not turned; the others are, a pair by each axis.
    #[test]
    fn pairs_are_turned_over_all_heads() {
        let device = Device::flex();
        let table = LtxRotary::new(&[[0.5, 1.0, 0.25]], [1, 10], &device);
        let x =
            Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], &device);
        // One frequency, π/2: angles of 0, π/2 and −π/4.
        let found = values(table.rotate(x.reshape([1, 1, 1, 10])));
        let root = std::f32::consts::FRAC_1_SQRT_2;
        let expected = [1.0, 3.0, 1.0, 0.0, root, 2.0, 4.0, 0.0, 1.0, -root];
        assert_close(&found, &expected, 1e-6);
    }

    #[test]
    fn positions_are_shares_of_the_base() {
        let found = positions([1, 1, 2], Some([0.5, 32.0, 32.0]), [1, 2, 2]);
        assert_eq!(found, [[0.0, 0.0, 0.0], [0.0, 0.0, 64.0 / 2048.0]]);
        let found = positions([2, 1, 1], None, [1, 1, 1]);
        assert_eq!(found, [[0.0; 3], [1.0, 0.0, 0.0]]);
    }
}
