//! Rotary position embeddings over several axes.

use aigc_core::ops;
use burn::tensor::{Device, Tensor, TensorData};

/// Base of the wavelengths.
const THETA: f64 = 10_000.0;

/// Rotary position embeddings (Su et al. 2021, <https://arxiv.org/abs/2104.09864>) of tokens with
/// a position on each of several axes: each axis turns its part of a head's channels, and channels
/// `2i` and `2i + 1` are a pair.
#[derive(Clone, Debug)]
pub(crate) struct RotaryTable {
    /// `[1, tokens, 1, d/2]`.
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl RotaryTable {
    /// `positions`: of each token on each axis; `widths`: channels that each axis turns, even.
    pub(crate) fn new<const AXES: usize>(
        positions: &[[f64; AXES]],
        widths: [usize; AXES],
        device: &Device,
    ) -> Self {
        let frequencies: [Vec<f64>; AXES] = widths.map(|width| {
            let frequency = |i: usize| THETA.powf(-2.0 * i as f64 / width as f64);
            (0..width / 2).map(frequency).collect()
        });
        let pairs = frequencies.iter().map(Vec::len).sum::<usize>();
        let (mut cos, mut sin) = (vec![], vec![]);
        for token in positions {
            for (at, frequencies) in token.iter().zip(&frequencies) {
                for frequency in frequencies {
                    let (s, c) = (at * frequency).sin_cos();
                    cos.push(c as f32);
                    sin.push(s as f32);
                }
            }
        }
        let shape = [1, positions.len(), 1, pairs];
        let table = |values| Tensor::from_data(TensorData::new(values, shape), device);
        Self {
            cos: table(cos),
            sin: table(sin),
        }
    }

    /// Turns queries or keys. The first channels of all pairs come out before the second ones:
    /// scalar products of queries and keys do not depend on the order of channels.
    ///
    /// # Shapes
    /// - x and output: `[batch, tokens, heads, d]`
    pub(crate) fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, tokens, heads, d] = x.dims();
        let pairs = x.reshape([batch, tokens, heads, d / 2, 2]);
        let [a, b] = [0, 1].map(|i| pairs.clone().narrow(4, i, 1).squeeze_dim::<4>(4));
        let [cos, sin] = [&self.cos, &self.sin].map(|table| ops::cast(table.clone(), a.dtype()));
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        Tensor::cat(vec![first, b * cos + a * sin], 3)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{device::device, rng::Rng};

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter().collect()
    }

    #[test]
    fn pairs_of_channels_are_turned_by_their_axis() {
        let flex = device("flex").unwrap();
        let table = RotaryTable::new(&[[3.0, 5.0]], [2, 4], &flex);
        let x = Tensor::<4>::from_floats([[[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]]], &flex);
        let found = numbers(table.rotate(x));
        // The first axis turns one pair, the second one pair by its position and one by a
        // hundredth of it.
        let angles = [3.0f64, 5.0, 0.05];
        for (i, (angle, [a, b])) in angles
            .into_iter()
            .zip([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
            .enumerate()
        {
            let expected = [
                a * angle.cos() - b * angle.sin(),
                b * angle.cos() + a * angle.sin(),
            ];
            assert!((f64::from(found[i]) - expected[0]).abs() < 1e-5);
            assert!((f64::from(found[3 + i]) - expected[1]).abs() < 1e-5);
        }
    }

    /// Scalar products depend on the distance on each axis alone.
    #[test]
    fn products_depend_on_distances() {
        let flex = device("flex").unwrap();
        let mut rng = Rng::new(1);
        let [q, k]: [Tensor<4>; 2] = std::array::from_fn(|_| rng.normal([1, 1, 1, 16], &flex));
        let product = |a: [f64; 3], b: [f64; 3]| {
            let turned =
                |x: &Tensor<4>, at| RotaryTable::new(&[at], [4, 6, 6], &flex).rotate(x.clone());
            numbers((turned(&q, a) * turned(&k, b)).sum_dim(3))[0]
        };
        let near = product([0.0, 7.0, 2.0], [0.0, 4.0, 9.0]);
        assert!((near - product([1.0, 13.0, 0.0], [1.0, 10.0, 7.0])).abs() < 1e-4);
        assert!((near - product([0.0, 7.0, 2.0], [0.0, 4.0, 8.0])).abs() > 1e-3);
    }
}
