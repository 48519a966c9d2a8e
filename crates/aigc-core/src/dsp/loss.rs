//! Differentiable distances of waveforms.

use super::{MelConfig, MelSpectrogram, Stft, StftConfig};
use crate::{
    Result,
    check::{ensure, positive},
};
use burn::tensor::Tensor;

/// Least sum of squared differences under a root, whose slope at 0 is infinite.
const LEAST_SQUARES: f64 = 1e-16;

/// The distance of waveforms over several resolutions of the short-time Fourier transform (Yamamoto
/// et al. 2020, <https://arxiv.org/abs/1910.11480>): the mean over the resolutions of spectral
/// convergence, `‖S − Ŝ‖ / ‖S‖`, plus the mean of `|ln S − ln Ŝ|`, where `S` are the magnitudes of
/// the targets, over the whole batch. Differentiable with respect to the estimates.
///
/// ```
/// use aigc_core::{burn::tensor::{Device, Tensor}, dsp::StftLoss, rng::Rng};
///
/// # fn main() -> aigc_core::Result<()> {
/// let loss = StftLoss::multi_resolution()?;
/// let wave: Tensor<2> = Rng::new(0).normal([2, 4800], &Device::flex());
/// let distance = loss.forward(wave.clone() * 0.5, wave).into_scalar::<f32>();
/// assert!((distance - 0.5 - 2f32.ln()).abs() < 0.01);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct StftLoss {
    resolutions: Vec<Stft>,
    floor: f64,
}

/// The two terms of [`StftLoss`] at one resolution, `[1]` each.
#[derive(Clone, Debug)]
pub struct StftTerms {
    /// Spectral convergence, `‖S − Ŝ‖ / ‖S‖`.
    pub convergence: Tensor<1>,
    /// Mean of `|ln S − ln Ŝ|`.
    pub magnitude: Tensor<1>,
}

impl StftLoss {
    /// With these resolutions. Squared magnitudes are at least 1e-7.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if there are none, or one is invalid.
    pub fn new(resolutions: &[StftConfig]) -> Result<Self> {
        ensure(
            !resolutions.is_empty(),
            "resolutions",
            "empty",
            "at least one",
        )?;
        let resolutions = resolutions.iter().map(StftConfig::init);
        Ok(Self {
            resolutions: resolutions.collect::<Result<_>>()?,
            floor: 1e-7,
        })
    }

    /// The three resolutions of Parallel WaveGAN for sound of 24,000 samples per second: windows of
    /// 600, 1,200 and 240 samples.
    ///
    /// # Errors
    /// Never: the lengths are valid.
    pub fn multi_resolution() -> Result<Self> {
        let config = |n_fft, win_length, hop_length| {
            StftConfig::new(n_fft, hop_length).with_win_length(win_length)
        };
        Self::new(&[
            config(1024, 600, 120),
            config(2048, 1200, 240),
            config(512, 240, 50),
        ])
    }

    /// Sets the least squared magnitude, by default 1e-7.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if it is not finite and above 0.
    pub fn with_floor(mut self, floor: f64) -> Result<Self> {
        positive("floor", floor)?;
        self.floor = floor;
        Ok(self)
    }

    /// The transforms.
    pub fn resolutions(&self) -> &[Stft] {
        &self.resolutions
    }

    /// The distance.
    ///
    /// # Shapes
    /// - estimates and targets: `[batch, time]`
    /// - output: `[1]`
    ///
    /// # Panics
    /// If the shapes differ, or there are too few samples for a frame of the longest transform,
    /// which [`Stft::frames`] tells before.
    pub fn forward(&self, estimates: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        let terms = self.terms(estimates, targets).into_iter();
        let sums = terms.map(|terms| terms.convergence + terms.magnitude);
        mean(sums.collect())
    }

    /// The terms of every resolution, for logs and other weights.
    ///
    /// # Shapes
    /// - estimates and targets: `[batch, time]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn terms(&self, estimates: Tensor<2>, targets: Tensor<2>) -> Vec<StftTerms> {
        let terms = |stft: &Stft| {
            let (estimates, targets) = (estimates.clone(), targets.clone());
            let (sums, count) = stft.distances(estimates, targets, self.floor);
            let sum = |index| sums.clone().narrow(0, index, 1);
            // The targets are constants, and so is the sum of their squares.
            let squares = sum(0).clamp_min(LEAST_SQUARES) / sum(1).detach();
            StftTerms {
                convergence: squares.sqrt(),
                magnitude: sum(2) / count as f64,
            }
        };
        self.resolutions.iter().map(terms).collect()
    }
}

/// The mean absolute difference of log-mels, averaged over configurations: one for a vocoder (Kong
/// et al. 2020, <https://arxiv.org/abs/2010.05646>), several of different lengths for a codec
/// (Kumar et al. 2023, <https://arxiv.org/abs/2306.06546>). Differentiable with respect to the
/// estimates.
#[derive(Clone, Debug)]
pub struct MelLoss {
    scales: Vec<MelSpectrogram>,
}

impl MelLoss {
    /// With these mels.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if there are none, or one is invalid.
    pub fn new(scales: &[MelConfig]) -> Result<Self> {
        ensure(!scales.is_empty(), "scales", "empty", "at least one")?;
        let scales = scales.iter().map(MelConfig::init);
        Ok(Self {
            scales: scales.collect::<Result<_>>()?,
        })
    }

    /// The mels.
    pub fn scales(&self) -> &[MelSpectrogram] {
        &self.scales
    }

    /// The distance.
    ///
    /// # Shapes
    /// - estimates and targets: `[batch, time]`
    /// - output: `[1]`
    ///
    /// # Panics
    /// If the shapes differ, or there are too few samples for a frame.
    pub fn forward(&self, estimates: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        let targets = targets.detach();
        assert_eq!(
            estimates.dims(),
            targets.dims(),
            "shapes of estimates and targets"
        );
        let distance = |mel: &MelSpectrogram| {
            let found = mel.log_mel_tensor(estimates.clone());
            let expected = mel.log_mel_tensor(targets.clone());
            (found - expected).abs().mean()
        };
        mean(self.scales.iter().map(distance).collect())
    }
}

/// The mean of the elements.
fn mean(values: Vec<Tensor<1>>) -> Tensor<1> {
    Tensor::cat(values, 0).mean()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        rng::Rng,
        testing::{assert_close, values},
    };
    use burn::tensor::Device;

    fn waves(seed: u64) -> Tensor<2> {
        Rng::new(seed).normal([2, 900], &Device::flex())
    }

    fn small() -> StftLoss {
        let short = StftConfig::new(128, 32).with_win_length(100);
        StftLoss::new(&[StftConfig::new(256, 64), short]).unwrap()
    }

    /// A factor of amplitude is the same distance at every frequency.
    #[test]
    fn distances_of_scaled_sound_are_known() {
        // So loud that no power is below the floor.
        let wave = waves(1) * 1e3;
        let near =
            |found: Tensor<1>, expected: f32| assert_close(&values(found), &[expected], 1e-4);
        let loss = small();
        near(
            loss.forward(wave.clone() * 0.5, wave.clone()),
            0.5 + 2f32.ln(),
        );
        near(loss.forward(wave.clone(), wave.clone()), 0.0);
        let mels = MelConfig::hifi_gan(8000, 256, 64, 20);
        let loss = MelLoss::new(&[mels, MelConfig { n_mels: 10, ..mels }]).unwrap();
        near(loss.forward(wave.clone() * 0.5, wave), 2f32.ln());
    }

    /// Silence and equal sounds have a gradient.
    #[test]
    fn gradients_are_finite() {
        let silence = Tensor::<2>::zeros([2, 900], &Device::flex().autodiff()).require_grad();
        let mel = MelLoss::new(&[MelConfig::hifi_gan(8000, 256, 64, 20)]).unwrap();
        for target in [silence.clone().detach(), waves(5)] {
            let stft = small().forward(silence.clone(), target.clone());
            let grads = (stft + mel.forward(silence.clone(), target)).backward();
            let grad = values(silence.grad(&grads).unwrap());
            assert!(grad.iter().all(|value| value.is_finite()));
        }
    }

    /// A loss of NaN stays one: training has to notice it.
    #[test]
    fn nan_is_not_hidden() {
        let broken = Tensor::<2>::full([2, 900], f32::NAN, &Device::flex());
        assert!(values(small().forward(broken, waves(6)))[0].is_nan());
    }

    #[test]
    fn invalid_settings_are_errors() {
        assert!(StftLoss::new(&[]).is_err());
        assert!(StftLoss::new(&[StftConfig::new(0, 1)]).is_err());
        assert!(small().with_floor(0.0).is_err());
        assert!(MelLoss::new(&[]).is_err());
        assert_eq!(StftLoss::multi_resolution().unwrap().resolutions().len(), 3);
    }
}
