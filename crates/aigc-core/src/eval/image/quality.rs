//! Similarity of images to their originals.

use crate::{
    Result,
    eval::perceptual::window::{PlanePair, gaussian_window, plane_pairs},
};
use burn::tensor::Tensor;

/// Peak signal-to-noise ratio of each image in decibels, `10·log₁₀(1 / mean squared error)`;
/// infinite for equal images.
///
/// # Shapes
/// - images and originals: `[batch, channels, height, width]` in `[0, 1]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the shapes differ, there are no
/// images, or a value is not finite.
pub fn psnr(images: &Tensor<4>, originals: &Tensor<4>) -> Result<Vec<f64>> {
    let pairs = plane_pairs(images, originals)?;
    let error = |plane: &PlanePair| {
        let pixels = plane.image.iter().zip(&plane.original);
        pixels.map(|(a, b)| (a - b).powi(2)).sum::<f64>() / plane.image.len() as f64
    };
    let decibels = |error: f64| -10.0 * error.log10();
    Ok(pairs
        .iter()
        .map(|planes| decibels(mean(planes, error)))
        .collect())
}

/// Structural similarity of each image, at most 1 (Wang et al. 2004,
/// <https://doi.org/10.1109/TIP.2003.819861>, equation 13), with `K₁ = 0.01` and `K₂ = 0.03`. The
/// window is a Gaussian of standard deviation 1.5 and 11 pixels, or the largest odd number of
/// pixels that fits the shorter side. The result is the mean over channels and over all positions
/// of the window inside the image.
///
/// # Shapes
/// - images and originals: `[batch, channels, height, width]` in `[0, 1]`
///
/// # Errors
/// As [`psnr`].
pub fn ssim(images: &Tensor<4>, originals: &Tensor<4>) -> Result<Vec<f64>> {
    let pairs = plane_pairs(images, originals)?;
    let [_, _, height, width] = originals.dims();
    let shorter = height.min(width);
    let window = gaussian_window(11.min(shorter - usize::from(shorter.is_multiple_of(2))));
    Ok(pairs
        .iter()
        .map(|planes| mean(planes, |plane| plane.similarity(&window).ssim))
        .collect())
}

/// Mean over the channels of an image.
fn mean(planes: &[PlanePair], of: impl Fn(&PlanePair) -> f64) -> f64 {
    planes.iter().map(of).sum::<f64>() / planes.len() as f64
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// An image that `tests/reference/quality.py` generates, too.
    fn waves(frequency: f64, shift: f64) -> Tensor<4> {
        let value = |i: usize| {
            let (r, c) = ((i / 20) as f64, (i % 20) as f64);
            0.5 + 0.4 * (frequency * r + shift).sin() * (0.7 * frequency * c - shift).cos()
        };
        let values: Vec<f32> = (0..320).map(|i| value(i) as f32).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, 16, 20]), &Device::flex())
    }

    #[test]
    fn psnr_and_ssim_match_scikit_image() {
        let (a, b) = (waves(0.5, 0.0), waves(0.52, 0.1));
        let (p, s) = (psnr(&a, &b).unwrap()[0], ssim(&a, &b).unwrap()[0]);
        assert!(
            (p - PSNR).abs() < 1e-4 && (s - SSIM).abs() < 1e-5,
            "{p} {s}"
        );
    }

    /// Printed by `tests/reference/quality.py` (scikit-image 0.26).
    const PSNR: f64 = 24.992_835;
    const SSIM: f64 = 0.960_426_9;

    #[test]
    fn identical_images_have_best_scores() {
        let x = waves(0.3, 0.2);
        assert_eq!(psnr(&x, &x).unwrap(), [f64::INFINITY]);
        assert!((ssim(&x, &x).unwrap()[0] - 1.0).abs() < 1e-12);
        // A shift of all values by 0.1 is 20 decibels.
        assert!((psnr(&(x.clone() + 0.1), &x).unwrap()[0] - 20.0).abs() < 1e-4);
        // An image smaller than the window.
        let small = Tensor::<4>::zeros([2, 3, 4, 4], &Device::flex());
        assert_eq!(ssim(&small, &small).unwrap().len(), 2);
        assert!(
            psnr(&small, &x)
                .unwrap_err()
                .to_string()
                .contains("`images` is [2, 3, 4, 4]")
        );
        let broken = x.clone() * f32::NAN;
        for result in [psnr(&broken, &x), ssim(&broken, &x)] {
            let text = result.unwrap_err().to_string();
            assert!(text.contains("`images` is NaN"), "{text}");
        }
    }
}
