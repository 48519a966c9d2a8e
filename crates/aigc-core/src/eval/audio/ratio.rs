//! Ratios of a signal to its error.

use super::pairs;
use crate::Result;
use burn::tensor::Tensor;

/// Added to both energies of a ratio, as in torchmetrics: silence and exact estimates have finite
/// values.
const EPSILON: f64 = f32::EPSILON as f64;

/// Signal-to-noise ratio of each clip in decibels, `10·log₁₀(Σ t² / Σ (t − x)²)`, averaged over
/// channels. Conventions are those of `torchmetrics.functional.audio.signal_noise_ratio`.
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the shapes differ, there is no
/// sample, or a value is not finite.
pub fn snr(estimates: &Tensor<3>, targets: &Tensor<3>) -> Result<Vec<f64>> {
    ratios(estimates, targets, |estimate, target| {
        let error = target.iter().zip(estimate).map(|(t, x)| t - x);
        decibels(energy(target.iter().copied()), energy(error))
    })
}

/// Scale-invariant signal-to-distortion ratio of each clip in decibels (Le Roux et al. 2019,
/// <https://arxiv.org/abs/1811.02508>), averaged over channels: the target is scaled to
/// be nearest to the estimate. Conventions are those of
/// `torchmetrics.functional.audio.scale_invariant_signal_distortion_ratio` without `zero_mean`.
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// As [`snr`].
pub fn si_sdr(estimates: &Tensor<3>, targets: &Tensor<3>) -> Result<Vec<f64>> {
    ratios(estimates, targets, scale_invariant)
}

/// Scale-invariant signal-to-noise ratio of each clip in decibels: [`si_sdr`] of signals whose
/// means are taken off.
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// As [`snr`].
pub fn si_snr(estimates: &Tensor<3>, targets: &Tensor<3>) -> Result<Vec<f64>> {
    let centred = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        x.iter().map(|value| value - mean).collect()
    };
    ratios(estimates, targets, |estimate, target| {
        scale_invariant(&centred(estimate), &centred(target))
    })
}

fn scale_invariant(estimate: &[f64], target: &[f64]) -> f64 {
    let product: f64 = estimate.iter().zip(target).map(|(x, t)| x * t).sum();
    let scale = (product + EPSILON) / (energy(target.iter().copied()) + EPSILON);
    let error = target.iter().zip(estimate).map(|(t, x)| scale * t - x);
    decibels(energy(target.iter().map(|t| scale * t)), energy(error))
}

fn energy(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

fn decibels(signal: f64, noise: f64) -> f64 {
    10.0 * ((signal + EPSILON) / (noise + EPSILON)).log10()
}

/// The mean of `ratio(estimate, target)` over the channels of each clip.
fn ratios(
    estimates: &Tensor<3>,
    targets: &Tensor<3>,
    ratio: impl Fn(&[f64], &[f64]) -> f64,
) -> Result<Vec<f64>> {
    let (estimates, targets) = pairs(estimates, targets)?;
    let double = |x: &[f32]| -> Vec<f64> { x.iter().map(|value| f64::from(*value)).collect() };
    let clips = estimates.iter().zip(&targets).map(|(estimate, target)| {
        let channels = estimate.iter().zip(target);
        let sum: f64 = channels.map(|(x, t)| ratio(&double(x), &double(t))).sum();
        sum / target.len() as f64
    });
    Ok(clips.collect())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// A square wave of amplitude 1, plus a tenth of another that is orthogonal to it: 20 decibels.
    #[test]
    fn ratios_of_orthogonal_waves_are_known() {
        let device = Device::flex();
        let wave = |period: usize| {
            let sign = |i: usize| {
                if i % period < period / 2 {
                    1.0f32
                } else {
                    -1.0
                }
            };
            let values: Vec<f32> = (0..512).map(sign).collect();
            Tensor::<3>::from_data(TensorData::new(values, [1, 1, 512]), &device)
        };
        let target = wave(8);
        let estimate = target.clone() + wave(16) * 0.1;
        let near = |found: Vec<f64>, expected: f64| {
            assert!((found[0] - expected).abs() < 1e-4, "{found:?} {expected}");
        };
        near(snr(&estimate, &target).unwrap(), 20.0);
        near(si_sdr(&estimate, &target).unwrap(), 20.0);
        // Scale matters to the first only, an offset to all but the last.
        let tripled = estimate.clone() * 3.0;
        near(si_sdr(&tripled, &target).unwrap(), 20.0);
        assert!(snr(&tripled, &target).unwrap()[0] < 0.0);
        let shifted = estimate + 0.5;
        near(si_snr(&shifted, &target).unwrap(), 20.0);
        assert!(si_sdr(&shifted, &target).unwrap()[0] < 10.0);
    }

    #[test]
    fn silence_and_exact_estimates_are_finite() {
        let device = Device::flex();
        let silence = Tensor::<3>::zeros([1, 2, 64], &device);
        let tone = Tensor::<3>::ones([1, 2, 64], &device);
        for (estimate, target) in [(&silence, &silence), (&tone, &tone), (&tone, &silence)] {
            for ratio in [snr, si_sdr, si_snr] {
                assert!(ratio(estimate, target).unwrap()[0].is_finite());
            }
        }
        let bad = Tensor::<3>::full([1, 2, 64], f32::INFINITY, &device);
        assert_eq!(
            snr(&bad, &tone).unwrap_err().to_string(),
            "argument `estimates` is inf, expected finite values"
        );
    }
}
