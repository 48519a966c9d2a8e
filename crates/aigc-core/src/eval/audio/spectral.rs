//! Distances of spectra.

use super::{Clips, pairs};
use crate::{Result, check::ensure_argument, dsp::Stft};
use burn::tensor::Tensor;

/// Least squared magnitude, so that silence has a logarithm.
const FLOOR: f64 = 1e-7;

/// Spectral convergence of each clip, `‖|S| − |Ŝ|‖ / ‖|S|‖` over all channels, frames and
/// frequencies of the magnitudes (Arik et al. 2018, <https://arxiv.org/abs/1808.06719>).
/// 0 is best. Squared magnitudes are at least 1e-7, here and in the other distances of spectra.
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the shapes differ, there is no
/// sample, a value is not finite, or the clips are too short for the transform.
pub fn spectral_convergence(
    estimates: &Tensor<3>,
    targets: &Tensor<3>,
    stft: &Stft,
) -> Result<Vec<f64>> {
    distances(estimates, targets, stft, convergence)
}

/// Mean of `|ln |S| − ln |Ŝ||` of each clip over all channels, frames and frequencies (Arik et al.
/// 2018, <https://arxiv.org/abs/1808.06719>).
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// As [`spectral_convergence`].
pub fn log_magnitude_distance(
    estimates: &Tensor<3>,
    targets: &Tensor<3>,
    stft: &Stft,
) -> Result<Vec<f64>> {
    distances(estimates, targets, stft, log_magnitude)
}

/// Log-spectral distance of each clip in decibels: the root mean square over frequencies of
/// `10·log₁₀(|S|² / |Ŝ|²)`, averaged over channels and frames (Gray and Markel 1976,
/// <https://doi.org/10.1109/TASSP.1976.1162849>).
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// As [`spectral_convergence`].
pub fn log_spectral_distance(
    estimates: &Tensor<3>,
    targets: &Tensor<3>,
    stft: &Stft,
) -> Result<Vec<f64>> {
    distances(estimates, targets, stft, |pair| {
        let frames = pair.estimate.chunks_exact(stft.bins());
        let frames = frames.zip(pair.target.chunks_exact(stft.bins()));
        let each = frames.map(|(estimate, target)| {
            let squares = estimate.iter().zip(target);
            let squares = squares.map(|(a, b)| (10.0 * (b / a).log10()).powi(2));
            (squares.sum::<f64>() / stft.bins() as f64).sqrt()
        });
        each.sum::<f64>() / (pair.target.len() / stft.bins()) as f64
    })
}

/// [`spectral_convergence`] plus [`log_magnitude_distance`] of each clip, averaged over
/// `resolutions` (Yamamoto et al. 2020, <https://arxiv.org/abs/1910.11480>), such as those of
/// [`StftLoss::multi_resolution`](crate::dsp::StftLoss::multi_resolution), which is the same over a
/// whole batch, and differentiable.
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// As [`spectral_convergence`]; and if there are no resolutions.
pub fn multi_resolution_stft(
    estimates: &Tensor<3>,
    targets: &Tensor<3>,
    resolutions: &[Stft],
) -> Result<Vec<f64>> {
    ensure_argument(!resolutions.is_empty(), "resolutions", 0, "at least 1")?;
    let clips = pairs(estimates, targets)?;
    let mut sums = vec![0.0; clips.0.len()];
    for stft in resolutions {
        let both = |pair: &Pair| convergence(pair) + log_magnitude(pair);
        let each = distances_of(&clips, stft, both)?;
        for (sum, distance) in sums.iter_mut().zip(each) {
            *sum += distance;
        }
    }
    Ok(sums
        .iter()
        .map(|sum| sum / resolutions.len() as f64)
        .collect())
}

/// Squared magnitudes of a clip: all channels, frames and frequencies.
struct Pair {
    estimate: Vec<f64>,
    target: Vec<f64>,
}

/// `distance` of each pair of clips.
fn distances(
    estimates: &Tensor<3>,
    targets: &Tensor<3>,
    stft: &Stft,
    distance: impl Fn(&Pair) -> f64,
) -> Result<Vec<f64>> {
    distances_of(&pairs(estimates, targets)?, stft, distance)
}

/// [`distances`] of clips on the host.
fn distances_of(
    (estimates, targets): &(Clips, Clips),
    stft: &Stft,
    distance: impl Fn(&Pair) -> f64,
) -> Result<Vec<f64>> {
    let power = |channels: &Vec<Vec<f32>>| -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for samples in channels {
            let power = stft.power(samples)?;
            all.extend(power.values().iter().map(|value| value.max(FLOOR)));
        }
        Ok(all)
    };
    let each = estimates
        .iter()
        .zip(targets)
        .map(|(estimate, target)| -> Result<f64> {
            Ok(distance(&Pair {
                estimate: power(estimate)?,
                target: power(target)?,
            }))
        });
    each.collect()
}

fn convergence(pair: &Pair) -> f64 {
    let differences = pair.estimate.iter().zip(&pair.target);
    let error: f64 = differences
        .map(|(a, b)| (b.sqrt() - a.sqrt()).powi(2))
        .sum();
    (error / pair.target.iter().sum::<f64>()).sqrt()
}

fn log_magnitude(pair: &Pair) -> f64 {
    let ratios = pair.estimate.iter().zip(&pair.target);
    // Half of the logarithm of the power is that of the magnitude.
    let sum: f64 = ratios.map(|(a, b)| 0.5 * (b / a).ln().abs()).sum();
    sum / pair.target.len() as f64
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        dsp::{PadMode, StftConfig},
        rng::Rng,
    };
    use burn::tensor::Device;

    /// A factor of amplitude is the same distance at every frequency.
    #[test]
    fn distances_of_scaled_sound_are_known() {
        // So loud that no power is below the floor.
        let target = Rng::new(1).normal([2, 2, 800], &Device::flex()) * 1e4;
        let half = target.clone() * 0.5;
        let config = StftConfig::new(128, 32);
        let stft = config.init().unwrap();
        let near = |found: Vec<f64>, expected: f64| {
            assert_eq!(found.len(), 2);
            for value in found {
                assert!((value - expected).abs() < 1e-5, "{value} {expected}");
            }
        };
        let (ln_2, decibels) = (std::f64::consts::LN_2, 20.0 * 2f64.log10());
        near(spectral_convergence(&half, &target, &stft).unwrap(), 0.5);
        near(log_magnitude_distance(&half, &target, &stft).unwrap(), ln_2);
        near(
            log_spectral_distance(&half, &target, &stft).unwrap(),
            decibels,
        );
        let zeros = config.with_pad_mode(PadMode::Constant).init().unwrap();
        let two = [stft, zeros];
        near(
            multi_resolution_stft(&half, &target, &two).unwrap(),
            0.5 + ln_2,
        );
        near(multi_resolution_stft(&target, &target, &two).unwrap(), 0.0);
    }

    /// The formulas over frames and frequencies, for sounds that have nothing in common.
    #[test]
    fn distances_of_unrelated_sounds_match_their_formulas() {
        let device = Device::flex();
        let [estimate, target] =
            [1, 2].map(|seed| Rng::new(seed).normal::<3>([1, 1, 800], &device) * 0.1);
        let stft = StftConfig::new(128, 32).init().unwrap();
        let power = |x: &Tensor<3>| {
            let samples: Vec<f32> = x.to_data().iter::<f32>().collect();
            stft.power(&samples).unwrap()
        };
        let (a, b) = (power(&estimate), power(&target));
        let (mut error, mut energy, mut logs, mut levels) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
        for frame in 0..b.len() {
            let mut squares = 0.0f64;
            for (a, b) in a.frame(frame).iter().zip(b.frame(frame)) {
                let (a, b) = (a.max(1e-7).sqrt(), b.max(1e-7).sqrt());
                error += (b - a).powi(2);
                energy += b * b;
                logs += (b.ln() - a.ln()).abs();
                squares += (20.0 * (b / a).log10()).powi(2);
            }
            levels += (squares / b.width() as f64).sqrt();
        }
        let (frames, values) = (b.len() as f64, b.values().len() as f64);
        for (found, expected) in [
            (
                spectral_convergence(&estimate, &target, &stft),
                (error / energy).sqrt(),
            ),
            (
                log_magnitude_distance(&estimate, &target, &stft),
                logs / values,
            ),
            (
                log_spectral_distance(&estimate, &target, &stft),
                levels / frames,
            ),
        ] {
            let found = found.unwrap()[0];
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn invalid_pairs_are_errors() {
        let device = Device::flex();
        let stft = StftConfig::new(128, 32).init().unwrap();
        let (a, b) = (
            Tensor::<3>::zeros([1, 1, 800], &device),
            Tensor::<3>::zeros([1, 2, 800], &device),
        );
        assert_eq!(
            spectral_convergence(&a, &b, &stft).unwrap_err().to_string(),
            "argument `estimates` is [1, 1, 800], expected [1, 2, 800], like the targets"
        );
        let none = Tensor::<3>::zeros([0, 1, 800], &device);
        assert!(log_spectral_distance(&none, &none, &stft).is_err());
        assert!(multi_resolution_stft(&a, &a, &[]).is_err());
        let short = Tensor::<3>::zeros([1, 1, 64], &device);
        assert!(log_magnitude_distance(&short, &short, &stft).is_err());
    }
}
