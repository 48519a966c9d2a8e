//! Similarity of images to their originals.

use crate::{Error, Result};
use burn::tensor::Tensor;

/// Peak signal-to-noise ratio of each image in decibels, `10·log₁₀(1 / mean squared error)`;
/// infinite for equal images.
///
/// # Shapes
/// - images and originals: `[batch, channels, height, width]` in `[0, 1]`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes differ.
pub fn psnr(images: &Tensor<4>, originals: &Tensor<4>) -> Result<Vec<f64>> {
    let (a, b, _) = pair(images, originals)?;
    let decibels = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        let error = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64;
        -10.0 * error.log10()
    };
    Ok(a.iter().zip(&b).map(decibels).collect())
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
/// [`Error::InvalidArgument`] if the shapes differ.
pub fn ssim(images: &Tensor<4>, originals: &Tensor<4>) -> Result<Vec<f64>> {
    let (a, b, [_, channels, height, width]) = pair(images, originals)?;
    let shorter = height.min(width);
    let side = 11.min(shorter - usize::from(shorter.is_multiple_of(2)));
    let weights: Vec<f64> = (0..side)
        .map(|i| (-0.5 * ((i as f64 - (side / 2) as f64) / 1.5).powi(2)).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    let of = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        let plane = |channel: usize| channel * height * width..(channel + 1) * height * width;
        let each = (0..channels).map(|c| similarity(&a[plane(c)], &b[plane(c)], width, &weights));
        each.sum::<f64>() / channels as f64
    };
    Ok(a.iter().zip(&b).map(of).collect())
}

/// Structural similarity of one channel.
fn similarity(a: &[f64], b: &[f64], width: usize, weights: &[f64]) -> f64 {
    const C1: f64 = 0.01 * 0.01;
    const C2: f64 = 0.03 * 0.03;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).collect::<Vec<f64>>();
    let blur = |x: &[f64]| blurred(x, width, weights);
    let (mean_a, mean_b) = (blur(a), blur(b));
    let (aa, bb, ab) = (
        blur(&product(a, a)),
        blur(&product(b, b)),
        blur(&product(a, b)),
    );
    let at = |i: usize| {
        let (m, n) = (mean_a[i], mean_b[i]);
        let (variance_a, variance_b, covariance) = (aa[i] - m * m, bb[i] - n * n, ab[i] - m * n);
        ((2.0 * m * n + C1) * (2.0 * covariance + C2))
            / ((m * m + n * n + C1) * (variance_a + variance_b + C2))
    };
    (0..mean_a.len()).map(at).sum::<f64>() / mean_a.len() as f64
}

/// Weighted means along rows, then columns, at positions where the window is inside.
fn blurred(x: &[f64], width: usize, weights: &[f64]) -> Vec<f64> {
    let (side, height) = (weights.len(), x.len() / width);
    let (wide, high) = (width + 1 - side, height + 1 - side);
    let rows: Vec<f64> = (0..height)
        .flat_map(|r| (0..wide).map(move |c| (r, c)))
        .map(|(r, c)| {
            x[r * width + c..][..side]
                .iter()
                .zip(weights)
                .map(|(x, w)| x * w)
                .sum()
        })
        .collect();
    (0..high)
        .flat_map(|r| (0..wide).map(move |c| (r, c)))
        .map(|(r, c)| {
            weights
                .iter()
                .enumerate()
                .map(|(k, w)| rows[(r + k) * wide + c] * w)
                .sum()
        })
        .collect()
}

type Rows = Vec<Vec<f64>>;

fn pair(images: &Tensor<4>, originals: &Tensor<4>) -> Result<(Rows, Rows, [usize; 4])> {
    let dims = originals.dims();
    if images.dims() != dims || dims.contains(&0) {
        return Err(Error::argument(
            "images",
            format!("{:?}", images.dims()),
            format!("{dims:?}, like the originals"),
        ));
    }
    let rows = |x: &Tensor<4>| {
        let values: Vec<f64> = x.to_data().iter::<f64>().collect();
        values
            .chunks_exact(values.len() / dims[0])
            .map(<[f64]>::to_vec)
            .collect()
    };
    Ok((rows(images), rows(originals), dims))
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
    }
}
