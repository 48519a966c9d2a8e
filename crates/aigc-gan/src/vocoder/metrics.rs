//! How far resynthesised sound is from the original.

use aigc_core::{
    Error, Result,
    audio::{Vocoder, Waveform},
    check::ensure_argument,
    dsp::{MelConfig, MelLoss, StftConfig, StftLoss},
};
use burn::tensor::{Device, Tensor};

/// Distances of sounds from their originals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VocoderScores {
    /// Mean absolute difference of log-mels.
    pub mel: f64,
    /// Multi-resolution distance of spectra ([`StftLoss`]).
    pub stft: f64,
}

/// Measures [`VocoderScores`].
#[derive(Clone, Debug)]
pub struct VocoderMetrics {
    config: MelConfig,
    mel: MelLoss,
    stft: StftLoss,
}

impl VocoderMetrics {
    /// For vocoders of these spectrograms, with the three resolutions of Parallel WaveGAN, windows
    /// of 600, 1,200 and 240 samples.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid.
    pub fn new(config: MelConfig) -> Result<Self> {
        Ok(Self {
            mel: MelLoss::new(&[config])?,
            stft: StftLoss::multi_resolution()?,
            config,
        })
    }

    /// With other resolutions.
    ///
    /// # Errors
    /// [`Error::Config`] if there are none, or one is invalid.
    pub fn with_resolutions(self, resolutions: &[StftConfig]) -> Result<Self> {
        Ok(Self {
            stft: StftLoss::new(resolutions)?,
            ..self
        })
    }

    /// The distances of a sound from the original. A longer one is cut to the length of the other.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another sample rate, more than one channel, or too few
    /// samples.
    pub fn compare(
        &self,
        estimate: &Waveform,
        target: &Waveform,
        device: &Device,
    ) -> Result<VocoderScores> {
        self.check(estimate, "estimate")?;
        self.check(target, "target")?;
        self.distances(estimate.to_tensor(device), target.to_tensor(device))
    }

    /// The distances of what a vocoder makes of the spectrograms of `waves` from these, averaged
    /// over them. [`GriffinLim`](aigc_core::dsp::GriffinLim) is a vocoder too, the one to beat.
    ///
    /// # Errors
    /// [`Error::Config`] if the vocoder's spectrograms are others than these, naming the field;
    /// [`Error::InvalidArgument`] if there are no waves, or as [`compare`](Self::compare); those of
    /// the vocoder.
    pub fn evaluate(
        &self,
        vocoder: &dyn Vocoder,
        waves: &[Waveform],
        device: &Device,
    ) -> Result<VocoderScores> {
        vocoder.mel_config().check_same(&self.config)?;
        ensure_argument(!waves.is_empty(), "waves", "empty", "at least one")?;
        let mel = self.config.init()?;
        let (mut sums, count) = ([0.0; 2], waves.len() as f64);
        for wave in waves {
            self.check(wave, "waves")?;
            mel.stft().frames(wave.len())?;
            let target = wave.to_tensor(device);
            let estimate = vocoder.vocode(mel.log_mel_tensor(target.clone()))?;
            let scores = self.distances(estimate, target)?;
            sums = [sums[0] + scores.mel, sums[1] + scores.stft];
        }
        let [mel, stft] = sums.map(|sum| sum / count);
        Ok(VocoderScores { mel, stft })
    }

    fn check(&self, wave: &Waveform, argument: &str) -> Result<()> {
        let (rate, channels) = (self.config.sample_rate, wave.num_channels());
        let expected = format!("sound with {rate} samples per second");
        ensure_argument(
            wave.sample_rate() == rate,
            argument,
            wave.sample_rate(),
            &expected,
        )?;
        let found = format!("sound with {channels} channels");
        ensure_argument(channels == 1, argument, found, "sound with one channel")
    }

    /// The distances of `[1, time]`.
    fn distances(&self, estimate: Tensor<2>, target: Tensor<2>) -> Result<VocoderScores> {
        let len = estimate.dims()[1].min(target.dims()[1]);
        let mels = self.mel.scales().iter().map(|mel| mel.stft());
        for stft in mels.chain(self.stft.resolutions()) {
            stft.frames(len)?;
        }
        let [estimate, target] = [estimate, target].map(|wave| wave.narrow(1, 0, len));
        let value = |distance: Tensor<1>, name: &str| {
            let value = f64::from(distance.into_scalar::<f32>());
            match value.is_finite() {
                true => Ok(value),
                false => Err(Error::argument(
                    name,
                    value,
                    "a finite distance of finite sounds",
                )),
            }
        };
        Ok(VocoderScores {
            mel: value(self.mel.forward(estimate.clone(), target.clone()), "mel")?,
            stft: value(self.stft.forward(estimate, target), "stft")?,
        })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;

    fn tone(len: usize, amplitude: f32) -> Waveform {
        let noise = Rng::new(1).normal_vec(len);
        let samples = noise
            .iter()
            .enumerate()
            .map(|(i, noise)| amplitude * (0.5 * (0.3 * i as f32).sin() + 0.01 * noise));
        Waveform::mono(samples.collect(), 8000).unwrap()
    }

    #[test]
    fn distances_have_known_values() {
        let device = Device::flex();
        let metrics = VocoderMetrics::new(MelConfig::hifi_gan(8000, 256, 64, 20)).unwrap();
        let wave = tone(4000, 1.0);
        let same = metrics.compare(&wave, &wave, &device).unwrap();
        assert!(same.mel == 0.0 && same.stft < 1e-3, "{same:?}");
        // Half of the amplitude: ln 2 in every mel, and a half plus ln 2.
        let half = metrics.compare(&tone(4100, 0.5), &wave, &device).unwrap();
        assert!((half.mel - 2f64.ln()).abs() < 0.01, "{half:?}");
        assert!((half.stft - 0.5 - 2f64.ln()).abs() < 0.05, "{half:?}");
    }

    #[test]
    fn other_sounds_are_refused() {
        let device = Device::flex();
        let metrics = VocoderMetrics::new(MelConfig::hifi_gan(8000, 256, 64, 20)).unwrap();
        let wave = tone(4000, 1.0);
        let other = Waveform::silence(1, 4000, 16_000).unwrap();
        let stereo = Waveform::silence(2, 4000, 8000).unwrap();
        for (estimate, target) in [(&other, &wave), (&wave, &stereo), (&tone(50, 1.0), &wave)] {
            assert!(metrics.compare(estimate, target, &device).is_err());
        }
    }
}
