//! The grid that outputs of a network are rounded to.

use aigc_core::{Error, Result};
use burn::tensor::Tensor;

/// Grid of logits and of logarithms of scales. Rounding by up to half a step lengthens the code of
/// a black or white pixel by less than 4e-5 nats on average.
pub(super) const LOG_STEP: f64 = 1.0 / 32.0;
/// Grid of means of pixels, in levels.
const LEVEL_STEP: f64 = 1.0 / 32.0;
/// Grid of the coefficients between channels, half a step of which moves a mean by at most a 64th
/// of a level.
pub(super) const COEFFICIENT_STEP: f64 = 1.0 / 4096.0;
/// Grid of means of latents.
pub(super) const LATENT_STEP: f64 = 1.0 / 1024.0;

/// Rounds outputs of a network to multiples of `step`.
pub(super) fn on_grid(name: &str, outputs: &[f32], step: f64) -> Result<Vec<f64>> {
    ensure_finite(name, outputs)?;
    let round = |x: &f32| (f64::from(*x) / step).round() * step;
    Ok(outputs.iter().map(round).collect())
}

/// Fails if an output of a network is not finite.
pub(in crate::compress) fn ensure_finite(name: &str, outputs: &[f32]) -> Result<()> {
    match outputs.iter().find(|x| !x.is_finite()) {
        Some(x) => Err(Error::argument(name, x, "a finite output of the network")),
        None => Ok(()),
    }
}

/// Values of a tensor.
pub(super) fn outputs<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data().iter::<f32>().collect()
}

/// Means in levels, `mean·factor + offset`.
pub(super) fn levels<const D: usize>(
    name: &str,
    means: &Tensor<D>,
    factor: f64,
    offset: f64,
) -> Result<Vec<f64>> {
    let means = on_grid(name, &outputs(means), LEVEL_STEP / factor)?;
    Ok(means.iter().map(|mean| mean * factor + offset).collect())
}

/// Inverse scales in levels, of logarithms of scales in units of `factor` levels.
pub(super) fn inverse_scales<const D: usize>(
    name: &str,
    log_scales: &Tensor<D>,
    factor: f64,
) -> Result<Vec<f64>> {
    let log_scales = on_grid(name, &outputs(log_scales), LOG_STEP)?;
    let inverse = |log_scale: &f64| libm::exp(-log_scale) / factor;
    Ok(log_scales.iter().map(inverse).collect())
}
