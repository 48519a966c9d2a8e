//! Rotary position embeddings.

use burn::tensor::{Device, Tensor, TensorData};

/// Configuration to create a [`RotaryEmbedding`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotaryEmbeddingConfig {
    /// Width of a head; even.
    pub d_head: usize,
    /// Number of positions.
    pub max_positions: usize,
    /// Base of the wavelengths (`rope_theta`).
    pub theta: f64,
}

/// Rotary position embeddings (Su et al. 2021, <https://arxiv.org/abs/2104.09864>): channel `i` and
/// channel `i + d/2` of a head are rotated by the angle `position · θ^(−2i/d)`, so that scalar
/// products of queries and keys depend on the difference of their positions. The pairs are those of
/// transformers' `rotate_half`.
#[derive(Clone, Debug)]
pub struct RotaryEmbedding {
    /// `[max_positions, d/2]`.
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl RotaryEmbeddingConfig {
    /// The tables of cosines and sines on `device`.
    ///
    /// # Panics
    /// If `d_head` is odd or a size is 0.
    pub fn init(&self, device: &Device) -> RotaryEmbedding {
        let (d, n) = (self.d_head, self.max_positions);
        assert!(
            d > 0 && d.is_multiple_of(2) && n > 0,
            "rotary embeddings of {n} positions and heads of width {d}"
        );
        let angle = |position: usize, i: usize| {
            position as f64 * self.theta.powf(-2.0 * i as f64 / d as f64)
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..n)
                .flat_map(|position| (0..d / 2).map(move |i| f(angle(position, i)) as f32))
                .collect();
            Tensor::from_data(TensorData::new(values, [n, d / 2]), device)
        };
        RotaryEmbedding {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }
}

impl RotaryEmbedding {
    /// Rotates queries or keys at the positions from `first` on.
    ///
    /// # Shapes
    /// - x and output: `[batch, heads, time, d_head]`
    ///
    /// # Panics
    /// If `first + time` exceeds the number of positions, or the last axis is not `d_head`.
    pub fn forward(&self, x: Tensor<4>, first: usize) -> Tensor<4> {
        let [.., time, d] = x.dims();
        let part = |table: &Tensor<2>| table.clone().narrow(0, first, time).unsqueeze::<4>();
        let (cos, sin) = (part(&self.cos), part(&self.sin));
        let (a, b) = (x.clone().narrow(3, 0, d / 2), x.narrow(3, d / 2, d / 2));
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        Tensor::cat(vec![first, b * cos + a * sin], 3)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{rng::Rng, testing::values};

    #[test]
    fn rotary_embedding_rotates_pairs_of_channels() {
        let device = Device::flex();
        let rotary = RotaryEmbeddingConfig {
            d_head: 4,
            max_positions: 8,
            theta: 100.0,
        }
        .init(&device);
        let x = Tensor::<4>::from_floats([[[[1.0, 2.0, 3.0, 4.0]]]], &device);
        // Angles at position 5: 5·100^0 and 5·100^(-1/2).
        let (a, b) = (5.0f32, 0.5f32);
        let expected = [
            a.cos() - 3.0 * a.sin(),
            2.0 * b.cos() - 4.0 * b.sin(),
            3.0 * a.cos() + a.sin(),
            4.0 * b.cos() + 2.0 * b.sin(),
        ];
        let got = values(rotary.forward(x, 5));
        let apart = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-5, "{got:?}");
    }

    /// Scalar products depend only on the distance between positions.
    #[test]
    fn rotary_embedding_is_relative() {
        let device = Device::flex();
        let rotary = RotaryEmbeddingConfig {
            d_head: 6,
            max_positions: 32,
            theta: 10_000.0,
        }
        .init(&device);
        let mut rng = Rng::new(1);
        let [q, k]: [Tensor<4>; 2] = std::array::from_fn(|_| rng.normal([1, 1, 1, 6], &device));
        let product = |at_q, at_k| {
            let (q, k) = (
                rotary.forward(q.clone(), at_q),
                rotary.forward(k.clone(), at_k),
            );
            values((q * k).sum_dim(3))[0]
        };
        let near = product(7, 4);
        assert!((near - product(30, 27)).abs() < 1e-4);
        assert!((near - product(7, 5)).abs() > 1e-3);
    }
}
