//! The distance of mel spectra.

use super::pairs;
use crate::{Result, check::ensure_argument, dsp::MelSpectrogram};
use burn::tensor::Tensor;

/// Mean absolute difference of the log-mels of each clip, averaged over the channels and over
/// `scales` of mels; a codec is measured by several (Kumar et al. 2023,
/// <https://arxiv.org/abs/2306.06546>). [`MelLoss`](crate::dsp::MelLoss) is the same over a whole
/// batch, and differentiable. 0 is best.
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the shapes differ, there is no
/// sample, a value is not finite, the clips are too short for a frame, or there are no scales.
pub fn mel_distance(
    estimates: &Tensor<3>,
    targets: &Tensor<3>,
    scales: &[MelSpectrogram],
) -> Result<Vec<f64>> {
    ensure_argument(!scales.is_empty(), "scales", 0, "at least 1")?;
    let (estimates, targets) = pairs(estimates, targets)?;
    let clips = estimates.iter().zip(&targets);
    let each = clips.map(|(estimate, target)| {
        let (mut sum, mut count) = (0.0, 0);
        for (estimate, target) in estimate.iter().zip(target) {
            for mel in scales {
                let (found, expected) = (mel.log_mel(estimate)?, mel.log_mel(target)?);
                let pairs = found.values().iter().zip(expected.values());
                let differences: f64 = pairs.map(|(a, b)| (a - b).abs()).sum();
                sum += differences / expected.values().len() as f64;
                count += 1;
            }
        }
        Ok(sum / f64::from(count))
    });
    each.collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        dsp::{MelConfig, MelLoss},
        rng::Rng,
        testing::values,
    };
    use burn::tensor::Device;

    /// Half of the amplitude is ln 2 in the logarithm of the magnitude, in every mel.
    #[test]
    fn distances_of_scaled_sound_are_known() {
        // So loud that no magnitude is below the floor.
        let target = Rng::new(1).normal([2, 2, 800], &Device::flex()) * 1e4;
        let scales = [64, 256].map(|n_fft| MelConfig::hifi_gan(8000, n_fft, n_fft / 4, 8));
        let scales = scales.map(|mel| mel.init().unwrap());
        let half = target.clone() * 0.5;
        for distance in mel_distance(&half, &target, &scales).unwrap() {
            assert!((distance - 2f64.ln()).abs() < 1e-5, "{distance}");
        }
        assert_eq!(mel_distance(&target, &target, &scales).unwrap(), [0.0; 2]);
    }

    #[test]
    fn distance_is_the_loss_of_a_batch() {
        let device = Device::flex();
        let [a, b] = [1, 2].map(|seed| Rng::new(seed).normal::<3>([1, 1, 800], &device) * 0.1);
        let mels = [64, 256].map(|n_fft| MelConfig::hifi_gan(8000, n_fft, n_fft / 4, 8));
        let loss = MelLoss::new(&mels).unwrap();
        let expected = loss.forward(a.clone().squeeze_dim(1), b.clone().squeeze_dim(1));
        let found = mel_distance(&a, &b, loss.scales()).unwrap()[0];
        assert!(
            (found - f64::from(values(expected)[0])).abs() < 1e-4,
            "{found}"
        );
    }

    #[test]
    fn unusable_clips_are_errors() {
        let device = Device::flex();
        let mel = MelConfig::hifi_gan(8000, 64, 16, 8).init().unwrap();
        let zeros = |time| Tensor::<3>::zeros([1, 1, time], &device);
        let error = |a: &Tensor<3>, b: &Tensor<3>, scales: &[MelSpectrogram]| {
            mel_distance(a, b, scales).unwrap_err().to_string()
        };
        let mels = [mel];
        assert!(error(&zeros(800), &zeros(800), &[]).contains("`scales`"));
        assert!(error(&zeros(800), &zeros(900), &mels).contains("`estimates`"));
        assert!(mel_distance(&zeros(1), &zeros(1), &mels).is_err());
    }
}
