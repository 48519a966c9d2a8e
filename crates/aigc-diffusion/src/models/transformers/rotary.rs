//! Rotary position embeddings over several axes.

use crate::json;
use aigc_core::{Result, check::ensure, ops};
use burn::tensor::{Device, Tensor, TensorData};

/// Base of the wavelengths.
const THETA: f64 = 10_000.0;
/// Limit on the width of all heads together.
const MAX_WIDTH: usize = 1 << 16;

/// Checks the number and the width of heads whose channels are rotated in pairs.
///
/// # Errors
/// [`Error::Config`](aigc_core::Error::Config) names the field.
pub(crate) fn check_rotary_heads(
    num_attention_heads: usize,
    attention_head_dim: usize,
) -> Result<()> {
    json::check_ranges(&[
        ("num_attention_heads", num_attention_heads, 1 << 10),
        ("attention_head_dim", attention_head_dim, 1 << 10),
    ])?;
    let (field, width) = ("attention_head_dim", attention_head_dim);
    let expected = "an even number, for pairs of channels that are turned";
    ensure(width.is_multiple_of(2), field, width, expected)?;
    let expected = format!("at most {MAX_WIDTH} channels of all heads");
    ensure(
        num_attention_heads * width <= MAX_WIDTH,
        field,
        width,
        &expected,
    )
}

/// Rotary position embeddings (Su et al. 2021, <https://arxiv.org/abs/2104.09864>) of tokens with
/// a position on each of several axes: each axis turns its part of a head's channels, and channels
/// `2i` and `2i + 1` are a pair.
#[derive(Clone, Debug)]
pub(crate) struct RotaryTable {
    /// `[1, tokens, 1 or heads, d/2]`.
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
        let frequencies: [Vec<f64>; AXES] = widths.map(Self::frequencies);
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

    /// Angles of neighbouring positions, for each pair of the channels that an axis turns.
    pub(crate) fn frequencies(width: usize) -> Vec<f64> {
        let frequency = |i: usize| THETA.powf(-2.0 * i as f64 / width as f64);
        (0..width / 2).map(frequency).collect()
    }

    /// The table of the tokens of a grid: frames, then rows, then columns. Angles are computed and
    /// copied to the device for each position on an axis, not for each token.
    ///
    /// `angles`: for each axis those of the pairs at its first position, then at the second, and so
    /// on; axes without angles are left out. `heads`: heads with different angles, or 1. `join`
    /// brings the pairs of the axes, each `[frames, rows, columns, pairs]`, together in the order
    /// of the channels.
    pub(crate) fn of_grid(
        sizes: [usize; 3],
        angles: [Vec<f64>; 3],
        heads: usize,
        join: impl Fn(Vec<Tensor<4>>) -> Tensor<4>,
        device: &Device,
    ) -> Self {
        let [frames, rows, columns] = sizes;
        let tokens = frames * rows * columns;
        let table = |function: fn(f64) -> f64| {
            let axes = angles.iter().enumerate();
            let axes = axes.filter(|(_, angles)| !angles.is_empty());
            let axes = axes.map(|(axis, angles)| {
                let pairs = angles.len() / sizes[axis];
                let mut shape = [1, 1, 1, pairs];
                shape[axis] = sizes[axis];
                let values: Vec<f32> = angles.iter().map(|angle| function(*angle) as f32).collect();
                let values = Tensor::<4>::from_data(TensorData::new(values, shape), device);
                values.expand([frames, rows, columns, pairs])
            });
            let joined = join(axes.collect());
            let pairs = joined.dims()[3] / heads;
            joined.reshape([1, tokens, heads, pairs])
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
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

    /// A grid has the table of its tokens, one by one.
    #[test]
    fn grids_have_the_tables_of_their_tokens() {
        let flex = device("flex").unwrap();
        let (sizes, widths) = ([2, 1, 3], [4, 0, 2]);
        let mut positions = vec![];
        for frame in 0..2 {
            for column in 0..3 {
                positions.push([f64::from(frame), 0.0, f64::from(column)]);
            }
        }
        let expected = RotaryTable::new(&positions, widths, &flex);
        let angles = std::array::from_fn(|axis| {
            let frequencies = RotaryTable::frequencies(widths[axis]);
            let positions = (0..sizes[axis]).map(|at| at as f64);
            let each = positions.flat_map(|at| frequencies.iter().map(move |f| at * f));
            each.collect()
        });
        let join = |axes: Vec<Tensor<4>>| Tensor::cat(axes, 3);
        let found = RotaryTable::of_grid(sizes, angles, 1, join, &flex);
        assert_eq!(numbers(found.cos), numbers(expected.cos));
        assert_eq!(numbers(found.sin), numbers(expected.sin));
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
