//! Waveforms from mel spectra, without a network.

use super::{Frames, LogStyle, MelConfig, MelSpectrogram, invert};
use crate::{
    Error, Result,
    audio::Vocoder,
    check::{ensure_argument, in_range, non_negative},
    rng::Rng,
};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Limit on the numbers of rounds.
const MAX_ROUNDS: usize = 1 << 20;

/// Settings of [`GriffinLim`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GriffinLimConfig {
    /// The mels that it reads.
    pub mel: MelConfig,
    /// Rounds of [`Stft::griffin_lim`](super::Stft::griffin_lim).
    pub rounds: usize,
    /// Momentum of the rounds; 0 for the algorithm of 1984.
    pub momentum: f64,
    /// Rounds that find magnitudes from a mel spectrum.
    pub mel_rounds: usize,
    /// Seed of the first guess of the angles.
    pub seed: u64,
}

impl Default for GriffinLimConfig {
    fn default() -> Self {
        Self::new(MelConfig::default())
    }
}

impl GriffinLimConfig {
    /// Sixty rounds with a momentum of 0.99 for these mels.
    pub fn new(mel: MelConfig) -> Self {
        Self {
            mel,
            rounds: 60,
            momentum: 0.99,
            mel_rounds: 60,
            seed: 0,
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] if the mels are invalid, there are more than 2²⁰ rounds, or the momentum
    /// is negative.
    pub fn validate(&self) -> Result<()> {
        in_range("rounds", self.rounds, 0..=MAX_ROUNDS)?;
        in_range("mel_rounds", self.mel_rounds, 0..=MAX_ROUNDS)?;
        non_negative("momentum", self.momentum)?;
        self.mel.validate()
    }

    /// Plans the transforms.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self) -> Result<GriffinLim> {
        self.validate()?;
        Ok(GriffinLim {
            config: *self,
            mel: self.mel.init()?,
        })
    }
}

/// A [`Vocoder`] without weights (Griffin and Lim 1984,
/// <https://doi.org/10.1109/TASSP.1984.1164317>): magnitudes without negative values that have
/// nearly the given mels, then angles that fit them. What every trained vocoder has to beat.
///
/// ```
/// use aigc_core::dsp::{GriffinLimConfig, MelConfig};
///
/// # fn main() -> aigc_core::Result<()> {
/// let config = MelConfig::hifi_gan(8000, 256, 64, 40);
/// let tone: Vec<f32> = (0..3200).map(|i| (i as f32 * 0.3).sin()).collect();
/// let log_mel = config.init()?.log_mel(&tone)?;
/// let again = GriffinLimConfig::new(config).init()?.waveform(&log_mel)?;
/// assert_eq!(again.len(), 3200);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct GriffinLim {
    config: GriffinLimConfig,
    mel: MelSpectrogram,
}

impl GriffinLim {
    /// The settings.
    pub fn config(&self) -> &GriffinLimConfig {
        &self.config
    }

    /// Magnitudes `[frames, bins]` without negative values that have nearly these mels.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of filters is not that of the configuration, or a
    /// mel is not finite.
    pub fn magnitudes(&self, log_mel: &Frames) -> Result<Frames> {
        let n_mels = self.config.mel.n_mels;
        ensure_argument(
            log_mel.width() == n_mels,
            "log_mel",
            format!("of {} mels", log_mel.width()),
            &format!("{n_mels}, as the configuration has"),
        )?;
        let logarithm = self.config.mel.logarithm();
        let values = log_mel.values().iter();
        let mut mels: Vec<f64> = values.map(|value| logarithm.inverse(*value)).collect();
        if let Some(index) = mels.iter().position(|value| !value.is_finite()) {
            let value = log_mel.values()[index];
            return Err(Error::argument(
                "log_mel",
                value,
                "logarithms of finite values",
            ));
        }
        if self.config.mel.log_style == LogStyle::Whisper {
            // The style has dropped the last frame: the one before stands for it.
            mels.extend_from_within(mels.len().saturating_sub(n_mels)..);
        }
        let (filters, bins) = (self.mel.filters(), self.mel.stft().bins());
        let mut spectra = invert::spectra(&mels, filters, bins, self.config.mel_rounds);
        if self.config.mel.power == 2 {
            spectra.iter_mut().for_each(|value| *value = value.sqrt());
        }
        Frames::new(spectra, bins)
    }

    /// A waveform with nearly this log-mel spectrum.
    ///
    /// # Errors
    /// As [`magnitudes`](Self::magnitudes); and if there are too few frames for the padding.
    pub fn waveform(&self, log_mel: &Frames) -> Result<Vec<f32>> {
        self.waveform_of_magnitudes(&self.magnitudes(log_mel)?)
    }

    /// A waveform with nearly these magnitudes `[frames, bins]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of bins, for magnitudes that are negative or
    /// not finite, or if there are too few frames for the padding.
    pub fn waveform_of_magnitudes(&self, magnitudes: &Frames) -> Result<Vec<f32>> {
        let is_bad = |value: &&f64| !(0.0..=f64::MAX).contains(*value);
        if let Some(value) = magnitudes.values().iter().find(is_bad) {
            let expected = "finite magnitudes, 0 or above";
            return Err(Error::argument("magnitudes", value, expected));
        }
        let count = magnitudes.values().len();
        let phase = Rng::stream(self.config.seed, "griffin-lim", 0).uniform_vec(count, 0.0, 1.0);
        let phase: Vec<f64> = phase.iter().map(|turn| f64::from(*turn) * TAU).collect();
        let (rounds, momentum) = (self.config.rounds, self.config.momentum);
        self.mel
            .stft()
            .griffin_lim(magnitudes, &phase, rounds, momentum, None)
    }
}

impl Vocoder for GriffinLim {
    fn mel_config(&self) -> &MelConfig {
        &self.config.mel
    }

    fn vocode(&self, log_mel: Tensor<3>) -> Result<Tensor<2>> {
        let ([batch, mels, frames], device) = (log_mel.dims(), log_mel.device());
        ensure_argument(
            batch > 0 && mels > 0 && frames > 0,
            "log_mel",
            format!("{:?}", log_mel.dims()),
            "at least one clip, mel and frame",
        )?;
        let rows: Vec<f64> = log_mel.swap_dims(1, 2).to_data().iter::<f64>().collect();
        let mut waves = Vec::new();
        for clip in rows.chunks_exact(frames * mels) {
            waves.extend(self.waveform(&Frames::new(clip.to_vec(), mels)?)?);
        }
        let shape = [batch, waves.len() / batch];
        Ok(Tensor::from_data(TensorData::new(waves, shape), &device))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::dsp::MelPadding;
    use burn::tensor::Device;

    /// Two tones in noise.
    fn sound(len: usize) -> Vec<f32> {
        let noise = Rng::new(1).normal_vec(len);
        let wave = |(i, noise): (usize, &f32)| {
            let time = i as f64 / 8000.0;
            let tones = (TAU * 440.0 * time).sin() + 0.5 * (TAU * 1100.0 * time).sin();
            tones as f32 * 0.4 + noise * 0.1
        };
        noise.iter().enumerate().map(wave).collect()
    }

    #[test]
    fn vocoder_keeps_mels_of_every_padding() {
        let hop = MelConfig::hifi_gan(8000, 256, 64, 40);
        let mut centred = hop;
        (centred.padding, centred.power) = (MelPadding::Center, 2);
        let mut plain = hop;
        plain.padding = MelPadding::None;
        let mut whisper = MelConfig::whisper(40);
        (whisper.sample_rate, whisper.f_max) = (8000, 4000.0);
        for config in [hop, centred, plain, whisper] {
            let mel = config.init().unwrap();
            let vocoder = GriffinLimConfig::new(config).init().unwrap();
            let log_mel = mel.log_mel(&sound(4000)).unwrap();
            let log_mel = log_mel.to_tensor(&Device::flex());
            let [mels, frames] = log_mel.dims();
            let two = Tensor::stack::<3>(vec![log_mel.clone(), log_mel.clone()], 0);
            let again = mel.log_mel_tensor(vocoder.vocode(two).unwrap());
            assert_eq!(again.dims(), [2, mels, frames]);
            let again = again.narrow(0, 1, 1).reshape([mels, frames]);
            let error = (again - log_mel).abs().mean().into_scalar::<f32>();
            assert!(error < 0.3, "{:?}: {error}", config.padding);
            assert_eq!(vocoder.mel_config(), &config);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let config = MelConfig::hifi_gan(8000, 256, 64, 40);
        let vocoder = GriffinLimConfig::new(config).init().unwrap();
        let message = |mel: Frames| vocoder.waveform(&mel).unwrap_err().to_string();
        assert_eq!(
            message(Frames::new(vec![0.0; 80], 80).unwrap()),
            "argument `log_mel` is of 80 mels, expected 40, as the configuration has"
        );
        assert!(message(Frames::new(vec![f64::NAN; 400], 40).unwrap()).contains("NaN"));
        assert!(message(Frames::new(vec![1e6; 400], 40).unwrap()).contains("1000000"));
        let of_magnitude = |value| {
            let frames = Frames::new(vec![value; 129 * 9], 129).unwrap();
            vocoder.waveform_of_magnitudes(&frames)
        };
        assert_eq!(of_magnitude(0.5).unwrap().len(), 9 * 64);
        for value in [-0.1, f64::NAN, f64::INFINITY] {
            let error = of_magnitude(value).unwrap_err().to_string();
            assert!(error.contains("`magnitudes`"), "{error}");
        }
        let none = Tensor::<3>::zeros([1, 41, 4], &Device::flex());
        assert!(vocoder.vocode(none).is_err());
        let mut bad = GriffinLimConfig::new(config);
        bad.momentum = -1.0;
        assert!(bad.init().is_err());
    }
}
