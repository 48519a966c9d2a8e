//! Patches of a map as tokens, their positions, and norms with scales and shifts by the conditions.

use aigc_core::{
    nn::{Conv2d, Conv2dConfig},
    ops,
};
use burn::{
    module::{Module, Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};

/// The patches of a map as tokens, and a table of positions if it is stored beside the weights.
#[derive(Module, Debug)]
pub(crate) struct PatchEmbed {
    proj: Conv2d,
    /// `[1, side·side, width]`, not trained.
    pos_embed: Option<Param<Tensor<3>>>,
}

impl PatchEmbed {
    /// `table`: side of the table of positions, and the distance of neighbours in it.
    pub(crate) fn new(
        channels: usize,
        width: usize,
        patch: usize,
        table: Option<(usize, f64)>,
        device: &Device,
    ) -> Self {
        let proj = Conv2dConfig::new([channels, width], patch).with_stride(patch);
        let param = |(side, step): (usize, f64)| {
            Param::uninitialized(
                ParamId::new(),
                move |device: &Device, require_grad| {
                    positions(width, [side; 2], [step; 2], device).set_require_grad(require_grad)
                },
                device.clone(),
                false,
                [1, side * side, width].into(),
            )
        };
        Self {
            proj: proj.init(device),
            pos_embed: table.map(param),
        }
    }

    /// # Shapes
    /// - x: `[batch, channels, height, width]`
    /// - output: `[batch, rows·columns, width]`, and rows and columns
    pub(crate) fn forward(&self, x: Tensor<4>) -> (Tensor<3>, [usize; 2]) {
        let x = self.proj.forward(x);
        let [batch, width, rows, columns] = x.dims();
        let tokens = x.reshape([batch, width, rows * columns]).swap_dims(1, 2);
        (tokens, [rows, columns])
    }

    /// The middle of the table, for a map of this many patches, `[1, rows·columns, width]`.
    ///
    /// # Panics
    /// If there is no table, or it is smaller.
    pub(crate) fn cropped_positions(&self, [rows, columns]: [usize; 2]) -> Tensor<3> {
        let table = self.pos_embed.as_ref().expect("a table of positions").val();
        let [_, count, width] = table.dims();
        let side = count.isqrt();
        assert!(
            rows <= side && columns <= side,
            "{rows} × {columns} patches, more than the {side} a side of the table of positions"
        );
        table
            .reshape([side, side, width])
            .narrow(0, (side - rows) / 2, rows)
            .narrow(1, (side - columns) / 2, columns)
            .reshape([1, rows * columns, width])
    }
}

/// Sines and cosines of columns, then of rows, `[1, rows·columns, width]`. `steps`: the distances
/// of neighbouring rows and columns.
pub(crate) fn positions(
    width: usize,
    [rows, columns]: [usize; 2],
    steps: [f64; 2],
    device: &Device,
) -> Tensor<3> {
    let quarter = width / 4;
    // Of one axis, on the host; the map of both is put together on the device.
    let axis = |count: usize, step: f64| {
        let angle =
            |at: usize, i: usize| at as f64 * step * 10_000f64.powf(-(i as f64) / quarter as f64);
        let numbers = (0..count).flat_map(|at| {
            let angles = (0..quarter).map(move |i| angle(at, i));
            angles.clone().map(f64::sin).chain(angles.map(f64::cos))
        });
        let numbers: Vec<f32> = numbers.map(|number| number as f32).collect();
        Tensor::<2>::from_data(TensorData::new(numbers, [count, 2 * quarter]), device)
    };
    let size = [rows, columns, 2 * quarter];
    let across = axis(columns, steps[1]).unsqueeze_dim::<3>(0).expand(size);
    let down = axis(rows, steps[0]).unsqueeze_dim::<3>(1).expand(size);
    Tensor::cat(vec![across, down], 2).reshape([1, rows * columns, 4 * quarter])
}

/// Tokens of `patch·patch·channels` numbers as a map.
///
/// # Shapes
/// - x: `[batch, rows·columns, patch·patch·channels]`, channels innermost
/// - output: `[batch, channels, rows·patch, columns·patch]`
pub(crate) fn unpatched(x: Tensor<3>, [rows, columns]: [usize; 2], patch: usize) -> Tensor<4> {
    let [batch, _, numbers] = x.dims();
    let channels = numbers / (patch * patch);
    x.reshape([batch, rows, columns, patch, patch, channels])
        .permute([0, 5, 1, 3, 2, 4])
        .reshape([batch, channels, rows * patch, columns * patch])
}

/// `norm(x)·(1 + scale) + shift`, with a norm over the last axis without weights.
///
/// # Shapes
/// - x and output: `[batch, tokens, width]`
/// - scale and shift: `[batch, 1, width]`
pub(crate) fn modulated_norm(
    x: Tensor<3>,
    scale: Tensor<3>,
    shift: Tensor<3>,
    epsilon: f64,
) -> Tensor<3> {
    let [batch, _, width] = x.dims();
    let scale = scale + 1.0;
    if batch == 1 {
        // As the weights of the norm, in one pass.
        let (scale, shift) = (scale.reshape([width]), shift.reshape([width]));
        return ops::layer_norm(x, scale, Some(shift), epsilon);
    }
    let ones = Tensor::ones([width], (&x.device(), x.dtype()));
    ops::layer_norm(x, ones, None, epsilon) * scale + shift
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{device::device, rng::Rng};

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter().collect()
    }

    /// A table that is cropped in its middle has the positions there, to the last digit of 32 bits.
    #[test]
    fn cropped_positions_are_those_of_the_middle() {
        let flex = device("flex").unwrap();
        let patches = PatchEmbed::new(4, 8, 2, Some((7, 0.5)), &flex);
        let cropped = patches.cropped_positions([4, 3]);
        assert_eq!(cropped.dims(), [1, 12, 8]);
        let found = numbers(cropped);
        for (row, column) in [(0, 0), (1, 2), (3, 1)] {
            // One row and two columns are before those in the middle.
            let at = [0.5 * (column + 2) as f64, 0.5 * (row + 1) as f64];
            let expected = at.map(|at| [at, at / 100.0]).map(|angles| {
                let [sines, cosines] = [angles.map(f64::sin), angles.map(f64::cos)];
                [sines, cosines].concat()
            });
            let token = &found[8 * (3 * row + column)..][..8];
            for (a, b) in token.iter().zip(expected.concat()) {
                assert!((f64::from(*a) - b).abs() < 1e-6, "{row}, {column}");
            }
        }
    }

    #[test]
    fn unpatched_tokens_have_channels_innermost() {
        let flex = device("flex").unwrap();
        // One row of two patches of 2 × 2 pixels with 3 channels, numbered in order.
        let x = Tensor::<1>::from_floats(std::array::from_fn::<_, 24, _>(|i| i as f32), &flex);
        let map = unpatched(x.reshape([1, 2, 12]), [1, 2], 2);
        assert_eq!(map.dims(), [1, 3, 2, 4]);
        let expected = (0..3).flat_map(|channel| {
            (0..2).flat_map(move |y| {
                (0..4).map(move |x| 12 * (x / 2) + 6 * y + 3 * (x % 2) + channel)
            })
        });
        let expected: Vec<f32> = expected.map(|number| number as f32).collect();
        assert_eq!(numbers(map), expected);
    }

    /// The fused path of one sample and the broadcast of several agree with the formula.
    #[test]
    fn modulated_norm_matches_its_formula() {
        let flex = device("flex").unwrap();
        let mut rng = Rng::new(1);
        let [x, scale, shift]: [Tensor<3>; 3] =
            [[2, 5, 6], [2, 1, 6], [2, 1, 6]].map(|shape| rng.normal(shape, &flex));
        let together = modulated_norm(x.clone(), scale.clone(), shift.clone(), 1e-6);
        let one = |i| {
            let part = |x: &Tensor<3>| x.clone().narrow(0, i, 1);
            modulated_norm(part(&x), part(&scale), part(&shift), 1e-6)
        };
        let apart = (together.clone() - Tensor::cat(vec![one(0), one(1)], 0)).abs();
        assert!(numbers(apart).into_iter().fold(0.0, f32::max) < 1e-5);
        let (x, found) = (numbers(x), numbers(together));
        let (scale, shift) = (numbers(scale), numbers(shift));
        for (token, row) in x.chunks(6).enumerate() {
            let mean = row.iter().sum::<f32>() / 6.0;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 6.0;
            for (i, value) in row.iter().enumerate() {
                let at = 6 * (token / 5) + i;
                let normed = (value - mean) / (variance + 1e-6).sqrt();
                let expected = normed * (1.0 + scale[at]) + shift[at];
                assert!((found[6 * token + i] - expected).abs() < 1e-4);
            }
        }
    }
}
