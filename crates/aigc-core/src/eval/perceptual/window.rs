//! Local statistics of pairs of images under a Gaussian window, in 64 bits: what the variants of
//! SSIM share.

use crate::{Error, Result};
use burn::tensor::Tensor;

/// Constants `(K₁)²` and `(K₂)²` of SSIM for values in `[0, 1]`.
const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;

/// One channel of an image and of its original, row-major.
pub(in crate::eval) struct PlanePair {
    pub(in crate::eval) image: Vec<f64>,
    pub(in crate::eval) original: Vec<f64>,
    pub(in crate::eval) height: usize,
    pub(in crate::eval) width: usize,
}

/// SSIM and its factor without the means, averaged over the positions of the window.
pub(in crate::eval) struct Similarity {
    pub(in crate::eval) ssim: f64,
    pub(in crate::eval) contrast: f64,
}

/// The values of a tensor, or an error that names the first one that is not finite.
pub(in crate::eval) fn finite_values(argument: &str, x: &Tensor<4>) -> Result<Vec<f64>> {
    let values: Vec<f64> = x.to_data().iter::<f64>().collect();
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(value) => Err(Error::argument(argument, value, "finite values")),
    }
}

/// The channels of each pair of images.
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes differ, a batch is empty, or a value is not finite.
pub(in crate::eval) fn plane_pairs(
    images: &Tensor<4>,
    originals: &Tensor<4>,
) -> Result<Vec<Vec<PlanePair>>> {
    let dims = originals.dims();
    if images.dims() != dims || dims.contains(&0) {
        let expected = format!("{dims:?}, like the originals, and not empty");
        return Err(Error::argument(
            "images",
            format!("{:?}", images.dims()),
            expected,
        ));
    }
    let [_, channels, height, width] = dims;
    let a = finite_values("images", images)?;
    let b = finite_values("originals", originals)?;
    let (plane, image) = (height * width, channels * height * width);
    let of_image = |(a, b): (&[f64], &[f64])| -> Vec<PlanePair> {
        let planes = a.chunks_exact(plane).zip(b.chunks_exact(plane));
        let of_plane = |(a, b): (&[f64], &[f64])| PlanePair {
            image: a.to_vec(),
            original: b.to_vec(),
            height,
            width,
        };
        planes.map(of_plane).collect()
    };
    Ok(a.chunks_exact(image)
        .zip(b.chunks_exact(image))
        .map(of_image)
        .collect())
}

/// Weights of a Gaussian window of standard deviation 1.5 and `side` pixels, an odd number; they
/// add up to 1.
pub(in crate::eval) fn gaussian_window(side: usize) -> Vec<f64> {
    let centre = (side / 2) as f64;
    let weights: Vec<f64> = (0..side)
        .map(|i| (-0.5 * ((i as f64 - centre) / 1.5).powi(2)).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

impl PlanePair {
    /// Structural similarity at the positions where the window is inside.
    pub(in crate::eval) fn similarity(&self, window: &[f64]) -> Similarity {
        let (a, b) = (&self.image, &self.original);
        let product =
            |x: &[f64], y: &[f64]| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x * y).collect() };
        let blur = |x: &[f64]| blurred(x, self.width, window);
        let (mean_a, mean_b) = (blur(a), blur(b));
        let aa = blur(&product(a, a));
        let bb = blur(&product(b, b));
        let ab = blur(&product(a, b));
        let (mut ssim, mut contrast) = (0.0, 0.0);
        for (i, (m, n)) in mean_a.iter().zip(&mean_b).enumerate() {
            // Rounding may leave a variance below 0.
            let variances = (aa[i] - m * m).max(0.0) + (bb[i] - n * n).max(0.0);
            let term = (2.0 * (ab[i] - m * n) + C2) / (variances + C2);
            contrast += term;
            ssim += (2.0 * m * n + C1) / (m * m + n * n + C1) * term;
        }
        let count = mean_a.len() as f64;
        Similarity {
            ssim: ssim / count,
            contrast: contrast / count,
        }
    }

    /// Means of 2×2 pixels; a last odd row or column is left out.
    pub(super) fn halved(&self) -> Self {
        let (height, width) = (self.height / 2, self.width / 2);
        let half = |x: &[f64]| {
            let mut means = Vec::with_capacity(height * width);
            for row in x.chunks_exact(2 * self.width).take(height) {
                let (upper, lower) = row.split_at(self.width);
                let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
                means.extend(pairs.map(|(u, l)| (u[0] + u[1] + l[0] + l[1]) / 4.0));
            }
            means
        };
        Self {
            image: half(&self.image),
            original: half(&self.original),
            height,
            width,
        }
    }

    /// With `pad` more pixels on every side, mirrored at the border pixels; the sides must be
    /// longer than `pad`.
    pub(super) fn reflected(&self, pad: usize) -> Self {
        let (height, width) = (self.height + 2 * pad, self.width + 2 * pad);
        // Index before the padding, along an axis of `length`.
        let source = |i: usize, length: usize| match i.checked_sub(pad) {
            None => pad - i,
            Some(i) if i < length => i,
            Some(i) => 2 * (length - 1) - i,
        };
        let reflect = |x: &[f64]| {
            let mut padded = Vec::with_capacity(height * width);
            for row in 0..height {
                let row = &x[source(row, self.height) * self.width..][..self.width];
                padded.extend((0..width).map(|column| row[source(column, self.width)]));
            }
            padded
        };
        Self {
            image: reflect(&self.image),
            original: reflect(&self.original),
            height,
            width,
        }
    }
}

/// Weighted means along rows, then columns, at positions where the window is inside.
fn blurred(x: &[f64], width: usize, window: &[f64]) -> Vec<f64> {
    let side = window.len();
    let (height, wide) = (x.len() / width, width + 1 - side);
    // Whole rows at a time: the compiler vectorises these loops.
    let add = |sums: &mut [f64], x: &[f64], weight: f64| {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x * weight;
        }
    };
    let mut rows = vec![0.0; height * wide];
    for (sums, row) in rows.chunks_exact_mut(wide).zip(x.chunks_exact(width)) {
        for (k, weight) in window.iter().enumerate() {
            add(sums, &row[k..], *weight);
        }
    }
    let mut means = vec![0.0; (height + 1 - side) * wide];
    for (r, sums) in means.chunks_exact_mut(wide).enumerate() {
        for (k, weight) in window.iter().enumerate() {
            add(sums, &rows[(r + k) * wide..], *weight);
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(image: Vec<f64>, width: usize) -> PlanePair {
        PlanePair {
            original: image.clone(),
            height: image.len() / width,
            image,
            width,
        }
    }

    #[test]
    fn halving_drops_odd_rows_and_columns() {
        let x: Vec<f64> = (0..15).map(f64::from).collect();
        let half = pair(x, 5).halved();
        assert_eq!((half.height, half.width), (1, 2));
        assert_eq!(half.image, [3.0, 5.0]);
    }

    #[test]
    fn reflection_does_not_repeat_the_border() {
        let padded = pair(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3).reflected(1);
        assert_eq!((padded.height, padded.width), (4, 5));
        assert_eq!(padded.image[..5], [5.0, 4.0, 5.0, 6.0, 5.0]);
        assert_eq!(padded.image[5..10], [2.0, 1.0, 2.0, 3.0, 2.0]);
    }

    /// A window of one impulse moves the image; its weights add up to 1.
    #[test]
    fn blur_is_weighted_mean() {
        let x: Vec<f64> = (0..12).map(f64::from).collect();
        assert_eq!(blurred(&x, 4, &[0.0, 0.0, 1.0]), [10.0, 11.0]);
        let window = gaussian_window(11);
        assert!((window.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let constant = blurred(&[0.3; 12 * 11], 11, &window);
        assert!(constant.len() == 2 && constant.iter().all(|v| (v - 0.3).abs() < 1e-12));
    }
}
