//! Colours of latents without a decoder: each latent becomes a pixel, by a linear map that fits an
//! autoencoder best.

use aigc_core::{Result, ops::resize_bilinear, rng::Rng};
use burn::tensor::{Device, Tensor, TensorData};

/// Images that the map is fitted to, and the side of their latents.
const IMAGES: usize = 16;
const SIDE: usize = 8;

/// A linear map from the channels of latents to colours.
#[derive(Clone, Debug)]
pub(crate) struct LatentColors {
    /// `[latent channels + 1, colours]`: the last row is added.
    weights: Vec<f32>,
    colors: usize,
}

impl LatentColors {
    /// Fits the map to what `decode` makes of smooth noise: latents with as much variance between
    /// images as within them. It costs as much as decoding a small image.
    ///
    /// # Errors
    /// Of `decode`.
    pub(crate) fn fit(
        channels: usize,
        device: &Device,
        decode: impl FnOnce(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<Self> {
        let mut rng = Rng::new(0);
        let level: Tensor<4> = rng.normal([IMAGES, channels, 1, 1], device);
        let coarse: Tensor<4> = rng.normal([IMAGES, channels, SIDE / 2, SIDE / 2], device);
        let latents = resize_bilinear(coarse, [SIDE; 2]) + level;
        let images = decode(latents.clone())?.clamp(0.0, 1.0);
        let [_, colors, height, width] = images.dims();
        // The mean of the pixels that a latent stands for.
        let (rows, columns) = (height / SIDE, width / SIDE);
        let pixels: Tensor<4> = images
            .reshape([IMAGES * colors * SIDE, rows, SIDE, columns])
            .mean_dim(1)
            .mean_dim(3)
            .reshape([IMAGES, colors, SIDE, SIDE]);
        let table = |x: Tensor<4>| -> Vec<f64> {
            x.permute([0, 2, 3, 1]).into_data().iter::<f64>().collect()
        };
        let weights = least_squares(&table(latents), channels, &table(pixels), colors);
        Ok(Self {
            weights: weights.into_iter().map(|weight| weight as f32).collect(),
            colors,
        })
    }

    /// Images in `[0, 1]` and around it, a pixel for each latent.
    ///
    /// # Shapes
    /// - latents: `[batch, channels, height, width]`, as the network has them
    /// - output: `[batch, colours, height, width]`
    pub(crate) fn images(&self, latents: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = latents.dims();
        let device = latents.device();
        let weights = TensorData::new(self.weights.clone(), [channels + 1, self.colors]);
        let weights = Tensor::<2>::from_data(weights, &device);
        let rows: Tensor<2> = latents
            .permute([0, 2, 3, 1])
            .reshape([batch * height * width, channels]);
        let pixels =
            rows.matmul(weights.clone().narrow(0, 0, channels)) + weights.narrow(0, channels, 1);
        let pixels: Tensor<4> = pixels.reshape([batch, height, width, self.colors]);
        pixels.permute([0, 3, 1, 2])
    }
}

/// The affine map `[inputs + 1, outputs]` from rows of `x` to rows of `y` with the least squared
/// error, by the normal equations.
fn least_squares(x: &[f64], inputs: usize, y: &[f64], outputs: usize) -> Vec<f64> {
    let size = inputs + 1;
    // The equations, and their right sides behind them.
    let width = size + outputs;
    let mut table = vec![0.0; size * width];
    for (row, target) in x.chunks_exact(inputs).zip(y.chunks_exact(outputs)) {
        let row: Vec<f64> = row.iter().copied().chain([1.0]).collect();
        for (i, a) in row.iter().enumerate() {
            for (j, b) in row.iter().chain(target).enumerate() {
                table[i * width + j] += a * b;
            }
        }
    }
    // Without it, channels that depend on each other would have no single solution.
    let trace: f64 = (0..size).map(|i| table[i * width + i]).sum();
    (0..size).for_each(|i| table[i * width + i] += 1e-9 * trace);
    // The matrix is positive definite, so every pivot is above 0.
    for pivot in 0..size {
        let scale = table[pivot * width + pivot];
        (0..width).for_each(|j| table[pivot * width + j] /= scale);
        for i in (0..size).filter(|i| *i != pivot) {
            let factor = table[i * width + pivot];
            (0..width).for_each(|j| {
                table[i * width + j] -= factor * table[pivot * width + j];
            });
        }
    }
    let solutions = table.chunks_exact(width).flat_map(|row| &row[size..]);
    solutions.copied().collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};

    #[test]
    fn linear_colours_are_found() {
        let device = Device::flex();
        let mut rng = Rng::new(3);
        let x: Tensor<4> = rng.normal([2, 4, 5, 3], &device);
        let known = LatentColors {
            weights: (0..15).map(|i| (i as f32 - 7.0) / 10.0).collect(),
            colors: 3,
        };
        let y = known.images(x.clone());
        assert_eq!(y.dims(), [2, 3, 5, 3]);
        // The first pixel by hand.
        let (latents, pixels) = (values(x.clone()), values(y.clone()));
        let first = (0..4).map(|c| latents[15 * c] * known.weights[3 * c]);
        let first = first.sum::<f32>() + known.weights[12];
        assert!((pixels[0] - first).abs() < 1e-5);
        let table = |x: Tensor<4>| -> Vec<f64> {
            x.permute([0, 2, 3, 1]).into_data().iter::<f64>().collect()
        };
        let found = least_squares(&table(x), 4, &table(y), 3);
        let found: Vec<f32> = found.into_iter().map(|weight| weight as f32).collect();
        assert_close(&found, &known.weights, 1e-4);
    }

    /// Channels that are always equal have no single solution, and a finite one.
    #[test]
    fn dependent_channels_have_a_solution() {
        let x = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0];
        let found = least_squares(&x, 2, &[2.0, 4.0, 6.0], 1);
        assert!((found[0] + found[1] - 2.0).abs() < 1e-3, "{found:?}");
        assert!(found[2].abs() < 1e-3, "{found:?}");
    }
}
