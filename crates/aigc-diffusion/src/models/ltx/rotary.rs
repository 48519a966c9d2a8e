//! Rotary positions of LTX-Video, along all channels of all heads.

use crate::models::transformers::RotaryTable;
use burn::tensor::{Device, Tensor};
use std::f32::consts::PI;

/// Frames, height and width of the videos that positions are relative to.
const BASE: [f32; 3] = [20.0, 2048.0, 2048.0];
/// The highest of the frequencies, of which the lowest is 1.
const THETA: f64 = 10_000.0;

/// The table of the tokens of a video: the frequencies follow each other, each of them for the
/// three axes. Heads have different frequencies.
///
/// `scale`: distances of neighbouring pixels of a latent map, in seconds and pixels, by which
/// positions become shares of [`BASE`]; `patch`: pixels of a latent map that a token stands for;
/// `heads`: number and even width.
pub(super) fn rotary(
    sizes: [usize; 3],
    scale: Option<[f64; 3]>,
    patch: [usize; 3],
    [heads, width]: [usize; 2],
    device: &Device,
) -> RotaryTable {
    let frequencies = frequencies(heads * width / 6);
    let count = frequencies.len();
    // Pairs that the axes do not share out are not turned. They come first.
    let idle = heads * width / 2 - 3 * count;
    let angles = std::array::from_fn(|axis| {
        let mut angles = vec![];
        for at in 0..sizes[axis] {
            let position = position(axis, at, scale, patch) * 2.0 - 1.0;
            angles.extend(std::iter::repeat_n(0.0, idle));
            // Angles have 32 bits, as in diffusers: the last digits of large ones differ in 64
            // bits.
            angles.extend(frequencies.iter().map(|f| f64::from(f * position)));
        }
        angles
    });
    let join = |axes: Vec<Tensor<4>>| {
        let [frames, rows, columns, _] = axes[0].dims();
        let first = (idle > 0).then(|| axes[0].clone().narrow(3, 0, idle));
        let turned = (count > 0).then(|| {
            let axes = axes.iter().map(|axis| axis.clone().narrow(3, idle, count));
            let turned = Tensor::stack::<5>(axes.collect(), 4);
            turned.reshape([frames, rows, columns, 3 * count])
        });
        Tensor::cat(first.into_iter().chain(turned).collect(), 3)
    };
    RotaryTable::of_grid(sizes, angles, heads, join, device)
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

/// The position of a token on an axis.
fn position(axis: usize, at: usize, scale: Option<[f64; 3]>, patch: [usize; 3]) -> f32 {
    match scale {
        Some(scale) => at as f32 * scale[axis] as f32 * patch[axis] as f32 / BASE[axis],
        None => at as f32,
    }
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

    /// Two of five pairs are not turned; the others are, a pair by each axis.
    #[test]
    fn pairs_are_turned_over_all_heads() {
        let device = Device::flex();
        let table = rotary([2, 2, 1], None, [1; 3], [1, 10], &device);
        let x =
            Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], &device);
        let x = x.reshape([1, 1, 1, 10]).repeat_dim(1, 4);
        let found = values(table.rotate(x));
        // One frequency, π/2: angles of −π/2 at the first position of an axis, and of π/2 at the
        // second.
        for (token, turned) in [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
            .into_iter()
            .enumerate()
        {
            let [frame, row] = turned;
            let expected = [1.0, 3.0, 0.0, 0.0, 0.0, 2.0, 4.0, frame, row, -1.0];
            assert_close(&found[10 * token..10 * token + 10], &expected, 1e-6);
        }
    }

    /// Pairs that are fewer than the axes are not turned.
    #[test]
    fn few_pairs_are_left_as_they_are() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1.0, 2.0], &device).reshape([1, 1, 1, 2]);
        let table = rotary([1, 1, 2], None, [1; 3], [1, 2], &device);
        let found = values(table.rotate(x.repeat_dim(1, 2)));
        assert_eq!(found, [1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn positions_are_shares_of_the_base() {
        let found = position(2, 1, Some([0.5, 32.0, 32.0]), [1, 2, 2]);
        assert_eq!(found, 64.0 / 2048.0);
        assert_eq!(position(0, 1, None, [1, 1, 1]), 1.0);
    }
}
