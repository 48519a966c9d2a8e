//! Multi-scale structural similarity.

use super::window::{PlanePair, gaussian_window, plane_pairs};
use crate::{Error, Result};
use burn::tensor::Tensor;

/// Pixels of the window.
const WINDOW: usize = 11;

/// Limit on the number of scales.
const MAX_SCALES: usize = 16;

/// What happens to terms that are not above 0, which have no real power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsSsimNormalize {
    /// Negative terms become 0, and so does the result: torchmetrics' default.
    #[default]
    Relu,
    /// `(term + 1) / 2`; the results are then not those of the paper.
    Simple,
    /// Nothing: negative terms are an error.
    None,
}

/// Configuration of [`ms_ssim`].
#[derive(Clone, Debug, PartialEq)]
pub struct MsSsimConfig {
    /// Exponents of the scales, full size first; each scale has half the side of the one before.
    pub betas: Vec<f64>,
    /// Treatment of negative terms.
    pub normalize: MsSsimNormalize,
}

impl Default for MsSsimConfig {
    /// The five scales of the paper.
    fn default() -> Self {
        Self {
            betas: vec![0.0448, 0.2856, 0.3001, 0.2363, 0.1333],
            normalize: MsSsimNormalize::default(),
        }
    }
}

impl MsSsimConfig {
    /// The smallest side of an image for these scales, in pixels: 176 for the five of the paper.
    pub fn smallest_side(&self) -> usize {
        let scales = self.betas.len().clamp(1, MAX_SCALES);
        let divisor = scales.saturating_sub(1).max(1).pow(2);
        // torchmetrics' two conditions; then the window fits every scale but the last, and less
        // than half of it reaches over the border of the last.
        let mut least = (1 << scales).max(WINDOW * divisor);
        least = least.max((WINDOW / 2 + 1) << (scales - 1));
        match scales {
            1 => least,
            _ => least.max(WINDOW << (scales - 2)),
        }
    }

    fn validate(&self) -> Result<()> {
        let is_valid = |beta: &f64| beta.is_finite() && *beta >= 0.0;
        if (1..=MAX_SCALES).contains(&self.betas.len()) && self.betas.iter().all(is_valid) {
            return Ok(());
        }
        Err(Error::config(
            "betas",
            format!("{:?}", self.betas),
            format!("1 to {MAX_SCALES} finite exponents, none below 0"),
        ))
    }
}

/// Multi-scale structural similarity of each image, at most 1 (Wang, Simoncelli and Bovik 2003,
/// <https://doi.org/10.1109/ACSSC.2003.1292216>, equation 7), with `K₁ = 0.01`, `K₂ = 0.03` and a
/// Gaussian window of standard deviation 1.5 and 11 pixels.
///
/// It follows torchmetrics' `multiscale_structural_similarity_index_measure(…, data_range=1.0)`:
/// terms are averaged over channels and positions before the powers; the last scale, the only one
/// with the means, is mirrored at its border, and the others are not.
///
/// # Shapes
/// - images and originals: `[batch, channels, height, width]` in `[0, 1]`
///
/// # Errors
/// [`Error::InvalidArgument`] if the shapes differ, a value is not finite, a side is below
/// [`smallest_side`](MsSsimConfig::smallest_side), or a term is negative and not normalised;
/// [`Error::Config`] for exponents out of range.
pub fn ms_ssim(
    images: &Tensor<4>,
    originals: &Tensor<4>,
    config: &MsSsimConfig,
) -> Result<Vec<f64>> {
    config.validate()?;
    let pairs = plane_pairs(images, originals)?;
    let [_, _, height, width] = originals.dims();
    let least = config.smallest_side();
    if height.min(width) < least {
        return Err(Error::argument(
            "images",
            format!("{:?}", images.dims()),
            format!(
                "sides of at least {least} pixels for {} scales",
                config.betas.len()
            ),
        ));
    }
    let each = pairs.into_iter().enumerate();
    each.map(|(index, planes)| of_image(index, planes, config))
        .collect()
}

/// The similarity of one image.
fn of_image(index: usize, mut planes: Vec<PlanePair>, config: &MsSsimConfig) -> Result<f64> {
    let window = gaussian_window(WINDOW);
    let channels = planes.len() as f64;
    let mut product = 1.0;
    for (scale, beta) in config.betas.iter().enumerate() {
        let is_last = scale + 1 == config.betas.len();
        let of_plane = |plane: &PlanePair| match is_last {
            true => plane.reflected(WINDOW / 2).similarity(&window).ssim,
            false => plane.similarity(&window).contrast,
        };
        let term = planes.iter().map(of_plane).sum::<f64>() / channels;
        let term = match config.normalize {
            MsSsimNormalize::Relu => term.max(0.0),
            MsSsimNormalize::Simple => (term + 1.0) / 2.0,
            MsSsimNormalize::None if term >= 0.0 => term,
            MsSsimNormalize::None => {
                return Err(Error::argument(
                    "images",
                    format!("so unlike the originals that image {index} has the term {term}"),
                    format!("terms of at least 0 at scale {scale}, or another `normalize`"),
                ));
            }
        };
        product *= term.powf(*beta);
        if !is_last {
            planes = planes.iter().map(PlanePair::halved).collect();
        }
    }
    Ok(product)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn image(height: usize, width: usize, sign: f64) -> Tensor<4> {
        let value = |i: usize| {
            let (r, c) = ((i / width) as f64, (i % width) as f64);
            (0.5 + sign * 0.4 * (0.9 * r).sin() * (0.7 * c).cos()) as f32
        };
        let values: Vec<f32> = (0..height * width).map(value).collect();
        let data = TensorData::new(values, [1, 1, height, width]);
        Tensor::from_data(data, &Device::flex())
    }

    fn two_scales(normalize: MsSsimNormalize) -> MsSsimConfig {
        MsSsimConfig {
            betas: vec![0.4, 0.6],
            normalize,
        }
    }

    #[test]
    fn equal_images_have_similarity_one() {
        let x = image(24, 30, 1.0);
        for normalize in [
            MsSsimNormalize::Relu,
            MsSsimNormalize::Simple,
            MsSsimNormalize::None,
        ] {
            let found = ms_ssim(&x, &x, &two_scales(normalize)).unwrap();
            assert!((found[0] - 1.0).abs() < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn negative_terms_are_normalised_or_refused() {
        let (x, y) = (image(24, 24, 1.0), image(24, 24, -1.0));
        let found = |normalize| ms_ssim(&x, &y, &two_scales(normalize));
        assert_eq!(found(MsSsimNormalize::Relu).unwrap(), [0.0]);
        assert!(found(MsSsimNormalize::Simple).unwrap()[0] < 0.5);
        let text = found(MsSsimNormalize::None).unwrap_err().to_string();
        assert!(text.contains("image 0 has the term -"), "{text}");
    }

    #[test]
    fn smallest_side_is_named() {
        assert_eq!(MsSsimConfig::default().smallest_side(), 176);
        let x = image(175, 180, 1.0);
        let text = ms_ssim(&x, &x, &MsSsimConfig::default()).unwrap_err();
        let text = text.to_string();
        assert!(
            text.contains("sides of at least 176 pixels for 5 scales"),
            "{text}"
        );
        // Each smallest side works.
        for scales in 1..=3 {
            let config = MsSsimConfig {
                betas: vec![0.5; scales],
                ..MsSsimConfig::default()
            };
            let x = image(config.smallest_side(), 50, 1.0);
            assert!((ms_ssim(&x, &x, &config).unwrap()[0] - 1.0).abs() < 1e-12);
        }
        let many = MsSsimConfig {
            betas: vec![0.5; 99],
            ..MsSsimConfig::default()
        };
        assert!(many.smallest_side() >= 1 << 16);
        assert!(ms_ssim(&x, &x, &many).is_err());
        let config = MsSsimConfig {
            betas: vec![],
            ..MsSsimConfig::default()
        };
        let text = ms_ssim(&x, &x, &config).unwrap_err().to_string();
        assert!(text.contains("`betas` is []"), "{text}");
    }
}
