//! DiffAugment (Zhao et al. 2020, <https://arxiv.org/abs/2006.10738>).

use super::warp::{Beyond, IDENTITY, warp};
use aigc_core::{Result, check, rng::Rng};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Differentiable augmentation of every image, with independent random numbers per image: colour,
/// then translation, then cutout. Ranges are those of the authors' code for images in `[−1, 1]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiffAugment {
    /// Whether brightness, saturation (of RGB images) and contrast are changed.
    pub color: bool,
    /// Largest translation, as a fraction of the side; 1/8 in the paper. The border is filled with
    /// black (grey in the authors' code).
    pub translation: f64,
    /// Side of the square that is set to grey, as a fraction of the image's side; 1/2 in the paper,
    /// 0 for none.
    pub cutout: f64,
}

impl Default for DiffAugment {
    fn default() -> Self {
        Self {
            color: true,
            translation: 0.125,
            cutout: 0.5,
        }
    }
}

impl DiffAugment {
    pub(super) fn validate(&self) -> Result<()> {
        check::fraction("augment.diff_augment.translation", self.translation)?;
        check::fraction("augment.diff_augment.cutout", self.cutout)
    }

    pub(super) fn apply(&self, mut x: Tensor<4>, rng: &mut Rng) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let device = x.device();
        if self.color {
            x = x + per_image(rng.uniform_vec(batch, -0.5, 0.5), &device);
            if channels == 3 {
                let grey = x.clone().mean_dim(1);
                x = (x - grey.clone()) * per_image(rng.uniform_vec(batch, 0.0, 2.0), &device)
                    + grey;
            }
            let mean = x
                .clone()
                .reshape([batch, channels * height * width])
                .mean_dim(1)
                .reshape([batch, 1, 1, 1]);
            x = (x - mean.clone()) * per_image(rng.uniform_vec(batch, 0.5, 1.5), &device) + mean;
        }
        if self.translation > 0.0 {
            let mut shift = |side: usize| {
                let most = (side as f64 * self.translation + 0.5) as usize;
                rng.random_index(2 * most + 1) as f64 - most as f64
            };
            let maps: Vec<_> = (0..batch)
                .map(|_| {
                    let mut map = IDENTITY;
                    (map[0][2], map[1][2]) = (shift(width), shift(height));
                    map
                })
                .collect();
            x = warp(x, &maps, Beyond::Black);
        }
        if self.cutout > 0.0 {
            let mut keep = vec![1.0f32; batch * height * width];
            for picture in keep.chunks_exact_mut(height * width) {
                let mut span = |side: usize| {
                    let cut = (side as f64 * self.cutout + 0.5) as usize;
                    // The centre of the square is anywhere in the image, so the square may extend
                    // beyond the border.
                    let start = rng.random_index(side + 1 - cut % 2) as i64 - (cut / 2) as i64;
                    start.max(0) as usize..(start + cut as i64).clamp(0, side as i64) as usize
                };
                let (rows, columns) = (span(height), span(width));
                for row in rows {
                    picture[row * width..][columns.clone()].fill(0.0);
                }
            }
            let keep =
                Tensor::<4>::from_data(TensorData::new(keep, [batch, 1, height, width]), &device);
            x = x * keep;
        }
        x
    }
}

/// One number per image, `[batch, 1, 1, 1]`.
pub(super) fn per_image(values: Vec<f32>, device: &Device) -> Tensor<4> {
    let batch = values.len();
    Tensor::from_data(TensorData::new(values, [batch, 1, 1, 1]), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::Device;

    const NONE: DiffAugment = DiffAugment {
        color: false,
        translation: 0.0,
        cutout: 0.0,
    };

    #[test]
    fn cutout_and_translation_have_their_sizes() {
        let device = Device::flex();
        let x = Tensor::<4>::ones([200, 1, 16, 16], &device);
        let cut = DiffAugment {
            cutout: 0.5,
            ..NONE
        }
        .apply(x.clone(), &mut Rng::new(1));
        for picture in values(cut).chunks_exact(256) {
            let zeros = picture.iter().filter(|v| **v == 0.0).count();
            // From a quarter of the 8×8 square, in a corner, to all of it.
            assert!((16..=64).contains(&zeros), "{zeros}");
            assert!(picture.iter().all(|v| *v == 0.0 || *v == 1.0));
        }
        let moved = DiffAugment {
            translation: 0.125,
            ..NONE
        }
        .apply(x, &mut Rng::new(1));
        let black: Vec<usize> = values(moved)
            .chunks_exact(256)
            .map(|p| p.iter().filter(|v| **v == -1.0).count())
            .collect();
        // At most 2 of 16 rows and columns; all five shifts in both directions occur.
        assert_eq!(black.iter().max(), Some(&(256 - 14 * 14)));
        assert_eq!(black.iter().min(), Some(&0));
    }

    #[test]
    fn color_of_grey_images_is_affine() {
        let device = Device::flex();
        let x: Tensor<4> = Rng::new(2).uniform([8, 1, 4, 4], -1.0, 1.0, &device);
        let y = values(
            DiffAugment {
                color: true,
                ..NONE
            }
            .apply(x.clone(), &mut Rng::new(3)),
        );
        for (a, b) in values(x).chunks_exact(16).zip(y.chunks_exact(16)) {
            let contrast = (b[1] - b[0]) / (a[1] - a[0]);
            assert!((0.5..1.5).contains(&contrast), "{contrast}");
            let shift = b[0] - contrast * a[0];
            // Brightness changes the mean, contrast does not.
            let mean = |p: &[f32]| p.iter().sum::<f32>() / 16.0;
            assert!((mean(b) - mean(a)).abs() <= 0.5);
            assert!(
                a.iter()
                    .zip(b)
                    .all(|(a, b)| (contrast * a + shift - b).abs() < 1e-4)
            );
        }
    }

    #[test]
    fn diff_augment_is_differentiable() {
        let device = Device::flex().autodiff();
        let x = Tensor::<4>::zeros([4, 3, 8, 8], &device).require_grad();
        // Only cutout is applied: the gradient is 1 outside the square and 0 inside.
        let cut = DiffAugment {
            cutout: 0.5,
            ..NONE
        };
        let gradients = cut.apply(x.clone(), &mut Rng::new(4)).sum().backward();
        let slope = values(x.grad(&gradients).unwrap());
        assert!(
            slope.contains(&1.0)
                && slope.contains(&0.0)
                && slope.iter().all(|g| *g == 0.0 || *g == 1.0)
        );
        let gradients = DiffAugment::default()
            .apply(x.clone(), &mut Rng::new(4))
            .sum()
            .backward();
        assert!(
            values(x.grad(&gradients).unwrap())
                .iter()
                .any(|g| *g != 0.0)
        );
    }
}
