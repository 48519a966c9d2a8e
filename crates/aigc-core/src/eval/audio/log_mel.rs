//! Log-mel spectra as features.

use super::{
    clips,
    mel::{MelConfig, MelNorm, MelScale, mel_filters},
    stft::{Padding, Stft},
};
use crate::{
    Result,
    check::{ensure, positive},
    eval::{FeatureExtractor, Features},
};
use burn::tensor::{Tensor, TensorData};

/// Settings of [`LogMel`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogMelConfig {
    /// The filters, and the length of the Fourier transform.
    pub mel: MelConfig,
    /// Length of the Hann window in samples.
    pub win_length: usize,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// What surrounds the signal.
    pub padding: Padding,
    /// Power of the magnitudes that the filters sum: 1 or 2.
    pub power: u32,
    /// Smaller values become this before the logarithm.
    pub floor: f64,
}

impl LogMelConfig {
    /// 80 filters of Slaney's scale, up to half of the sample rate (samples per second), over the
    /// power of windows of 1,024 samples, one every 256; a floor of 1e-10.
    pub fn new(sample_rate: u32) -> Self {
        Self {
            mel: MelConfig {
                sample_rate,
                n_fft: 1024,
                n_mels: 80,
                f_min: 0.0,
                f_max: f64::from(sample_rate) / 2.0,
                scale: MelScale::Slaney,
                norm: MelNorm::Slaney,
            },
            win_length: 1024,
            hop_length: 256,
            padding: Padding::Reflect,
            power: 2,
            floor: 1e-10,
        }
    }
}

/// Natural logarithms of mel spectra. Channels are averaged before.
///
/// As a [`FeatureExtractor`] it gives one row per clip: the mean of each filter over time, then the
/// standard deviations. [`frames`](Self::frames) gives one row per frame. A Fréchet distance of
/// either needs no network, but is no Fréchet audio distance (Kilgour et al. 2019,
/// <https://arxiv.org/abs/1812.08466>), which is defined on VGGish's embeddings: numbers are
/// comparable only among the same settings.
///
/// ```
/// use aigc_core::eval::{
///     FeatureExtractor, FeatureStatistics,
///     audio::{LogMel, LogMelConfig},
/// };
/// use burn::tensor::{Device, Tensor};
///
/// # fn main() -> aigc_core::Result<()> {
/// let log_mel = LogMel::new(LogMelConfig::new(16_000))?;
/// let clips = Tensor::<3>::zeros([2, 1, 16_000], &Device::flex());
/// let mut statistics = FeatureStatistics::new(log_mel.width())?;
/// statistics.add(&log_mel.extract(clips)?)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LogMel {
    config: LogMelConfig,
    stft: Stft,
    /// First bin and weights of each filter, from there to its last one that is not 0.
    filters: Vec<(usize, Vec<f64>)>,
}

impl LogMel {
    /// With these settings.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if one is out of range.
    pub fn new(config: LogMelConfig) -> Result<Self> {
        ensure(
            matches!(config.power, 1 | 2),
            "power",
            config.power,
            "1 (magnitude) or 2 (power)",
        )?;
        positive("floor", config.floor)?;
        let stft = Stft::new(config.mel.n_fft, config.win_length, config.hop_length)?
            .with_padding(config.padding);
        let filters = mel_filters(&config.mel)?;
        let sparse = |filter: &[f64]| {
            let first = filter.iter().position(|weight| *weight > 0.0);
            let last = filter.iter().rposition(|weight| *weight > 0.0);
            match (first, last) {
                (Some(first), Some(last)) => (first, filter[first..=last].to_vec()),
                _ => (0, Vec::new()),
            }
        };
        Ok(Self {
            config,
            filters: filters.chunks_exact(stft.bins()).map(sparse).collect(),
            stft,
        })
    }

    /// The log-mel spectrum of a mono signal, `[frames, n_mels]`, row by row.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are too few samples for a
    /// frame.
    pub fn spectrogram(&self, samples: &[f32]) -> Result<Vec<f64>> {
        let mut rows = Vec::new();
        self.for_each_row(samples, |row| rows.extend_from_slice(row))?;
        Ok(rows)
    }

    /// Calls `each` with the row of every frame, `n_mels` wide.
    fn for_each_row(&self, samples: &[f32], mut each: impl FnMut(&[f64])) -> Result<()> {
        let mut row = vec![0.0; self.filters.len()];
        self.stft.for_each_frame(samples, |frame| {
            for (value, (first, weights)) in row.iter_mut().zip(&self.filters) {
                let bins = frame[*first..].iter().zip(weights);
                let energy: f64 = match self.config.power {
                    1 => bins.map(|(power, weight)| power.sqrt() * weight).sum(),
                    _ => bins.map(|(power, weight)| power * weight).sum(),
                };
                *value = energy.max(self.config.floor).ln();
            }
            each(&row);
        })
    }

    /// The frames of all clips as features, `n_mels` wide.
    ///
    /// # Shapes
    /// - waveforms: `[batch, channels, time]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no clip, a value is
    /// not finite, or the clips are too short for a frame.
    pub fn frames(&self, waveforms: &Tensor<3>) -> Result<Features> {
        let mut values = Vec::new();
        for samples in mono(waveforms)? {
            self.for_each_row(&samples, |row| {
                values.extend(row.iter().map(|value| *value as f32));
            })?;
        }
        Features::new(values, self.config.mel.n_mels)
    }
}

/// The mean of the channels of each clip.
fn mono(waveforms: &Tensor<3>) -> Result<Vec<Vec<f32>>> {
    let clips = clips(waveforms, "waveforms")?;
    let mean = |channels: &Vec<Vec<f32>>| -> Vec<f32> {
        let at = |i: usize| channels.iter().map(|c| f64::from(c[i])).sum::<f64>();
        let len = channels[0].len();
        (0..len)
            .map(|i| (at(i) / channels.len() as f64) as f32)
            .collect()
    };
    Ok(clips.iter().map(mean).collect())
}

impl FeatureExtractor<3> for LogMel {
    fn id(&self) -> String {
        format!("log-mel mean and deviation {:?}", self.config)
    }

    fn width(&self) -> usize {
        2 * self.config.mel.n_mels
    }

    fn extract(&self, samples: Tensor<3>) -> Result<Tensor<2>> {
        let n_mels = self.config.mel.n_mels;
        let mut rows: Vec<f32> = Vec::with_capacity(samples.dims()[0] * self.width());
        for clip in mono(&samples)? {
            // Means, and sums of squared deviations from them (Welford 1962).
            let (mut means, mut squares) = (vec![0.0; n_mels], vec![0.0; n_mels]);
            let mut frames = 0.0;
            self.for_each_row(&clip, |row| {
                frames += 1.0;
                for ((mean, square), value) in means.iter_mut().zip(&mut squares).zip(row) {
                    let before = value - *mean;
                    *mean += before / frames;
                    *square += before * (value - *mean);
                }
            })?;
            rows.extend(means.iter().map(|mean| *mean as f32));
            let deviations = squares.iter().map(|square| (square / frames).sqrt() as f32);
            rows.extend(deviations);
        }
        let shape = [samples.dims()[0], self.width()];
        Ok(Tensor::from_data(
            TensorData::new(rows, shape),
            &samples.device(),
        ))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Twice the amplitude adds ln 4 to every mean of log power, and changes no deviation.
    #[test]
    fn loudness_shifts_the_means() {
        let log_mel = LogMel::new(LogMelConfig::new(16_000)).unwrap();
        let quiet = crate::rng::Rng::new(0).normal([2, 2, 3000], &Device::flex()) * 0.1;
        let rows = |x: Tensor<3>| -> Vec<f64> {
            let features = log_mel.extract(x).unwrap();
            assert_eq!(features.dims(), [2, 160]);
            features.to_data().iter::<f64>().collect()
        };
        let (quiet, loud) = (rows(quiet.clone()), rows(quiet * 2.0));
        for (i, (a, b)) in quiet.iter().zip(&loud).enumerate() {
            let expected = if i % 160 < 80 { 4f64.ln() } else { 0.0 };
            assert!((b - a - expected).abs() < 1e-4, "{i}: {a} {b}");
        }
    }

    #[test]
    fn silence_has_the_floor() {
        let log_mel = LogMel::new(LogMelConfig::new(16_000)).unwrap();
        let silence = Tensor::<3>::zeros([2, 1, 1024], &Device::flex());
        let frames = log_mel.frames(&silence).unwrap();
        assert_eq!((frames.len(), frames.width()), (10, 80));
        let floor = 1e-10f64.ln() as f32;
        assert!(frames.values().iter().all(|value| *value == floor));
    }

    #[test]
    fn invalid_settings_and_sounds_are_errors() {
        let config = LogMelConfig::new(16_000);
        for bad in [
            LogMelConfig { power: 3, ..config },
            LogMelConfig {
                floor: 0.0,
                ..config
            },
            LogMelConfig {
                hop_length: 0,
                ..config
            },
            LogMelConfig {
                win_length: 1025,
                ..config
            },
        ] {
            assert!(LogMel::new(bad).is_err(), "{bad:?}");
        }
        let log_mel = LogMel::new(config).unwrap();
        let device = Device::flex();
        let error = |x: Tensor<3>| log_mel.extract(x).unwrap_err().to_string();
        assert_eq!(
            error(Tensor::zeros([1, 1, 100], &device)),
            "argument `samples` is 100, expected at least 513 for frames of 1024"
        );
        assert_eq!(
            error(Tensor::full([1, 1, 2000], f32::NAN, &device)),
            "argument `waveforms` is NaN, expected finite values"
        );
    }
}
