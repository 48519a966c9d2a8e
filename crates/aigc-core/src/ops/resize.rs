//! Resizing images.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Bilinear interpolation between pixel centres, as PyTorch's `interpolate(…, align_corners=False)`
/// does it.
///
/// # Shapes
/// - x: `[batch, channels, height, width]`
/// - output: `[batch, channels, side[0], side[1]]`
///
/// # Panics
/// If a side is 0.
pub fn resize_bilinear(x: Tensor<4>, side: [usize; 2]) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let device = x.device();
    if [height, width] == side {
        return x;
    }
    // Rows and columns are independent: two products with narrow matrices.
    let rows = interpolation(height, side[0], &device);
    let columns = interpolation(width, side[1], &device);
    let x = x.reshape([batch * channels, height, width]);
    let x = rows
        .unsqueeze::<3>()
        .matmul(x)
        .matmul(columns.transpose().unsqueeze::<3>());
    x.reshape([batch, channels, side[0], side[1]])
}

/// Repeats or drops pixels, as PyTorch's `interpolate(…, size=side, mode="nearest")` does it. For
/// whole factors, [`upsample_nearest2d`](super::upsample_nearest2d) is faster.
///
/// # Shapes
/// - x: `[batch, channels, height, width]`
/// - output: `[batch, channels, side[0], side[1]]`
///
/// # Panics
/// If a side is 0.
pub fn resize_nearest(x: Tensor<4>, side: [usize; 2]) -> Tensor<4> {
    let device = x.device();
    [2, 3].into_iter().zip(side).fold(x, |x, (axis, to)| {
        let from = x.dims()[axis];
        if from == to {
            return x;
        }
        // In 32 bits, as PyTorch computes it.
        let scale = from as f32 / to as f32;
        let source = |i: usize| ((i as f32 * scale) as usize).min(from - 1) as i32;
        let sources: Vec<i32> = (0..to).map(source).collect();
        x.select(
            axis,
            Tensor::<1, Int>::from_ints(sources.as_slice(), &device),
        )
    })
}

/// `[to, from]`: each row's weights add up to 1.
fn interpolation(from: usize, to: usize, device: &Device) -> Tensor<2> {
    let mut weights = vec![0.0f32; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        let share = (at - low as f64) as f32;
        row[low] += 1.0 - share;
        row[(low + 1).min(from - 1)] += share;
    }
    Tensor::from_data(TensorData::new(weights, [to, from]), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    /// Values by hand: 2 → 4 pixels puts centres at ¼ and ¾ between the old ones, and repeats the
    /// border.
    #[test]
    fn resize_bilinear_interpolates_between_centres() {
        let device = Device::flex();
        let x = Tensor::<4>::from_floats([[[[0.0, 4.0]]]], &device);
        let got = resize_bilinear(x.clone(), [1, 4])
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        assert_eq!(got, [0.0, 1.0, 3.0, 4.0]);
        let got = resize_bilinear(x, [2, 1])
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        assert_eq!(got, [2.0, 2.0]);
    }

    /// Output pixel i is pixel ⌊i·from/to⌋.
    #[test]
    fn resize_nearest_repeats_and_drops_pixels() {
        let x = Tensor::<4>::from_floats([[[[0.0, 1.0, 2.0]]]], &Device::flex());
        for (side, expected) in [
            ([1, 5], vec![0.0, 0.0, 1.0, 1.0, 2.0]),
            ([1, 7], vec![0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]),
            ([1, 2], vec![0.0, 1.0]),
            ([2, 3], vec![0.0, 1.0, 2.0, 0.0, 1.0, 2.0]),
        ] {
            let found = resize_nearest(x.clone(), side);
            assert_eq!(found.dims(), [1, 1, side[0], side[1]]);
            assert_eq!(found.into_data().try_into_vec::<f32>().unwrap(), expected);
        }
    }
}
