//! Log-mel spectra as features.

use super::clips;
use crate::{
    Result,
    dsp::{MelConfig, MelPadding, MelSpectrogram},
    eval::{FeatureExtractor, Features},
};
use burn::tensor::{Tensor, TensorData};

/// Log-mel spectra of clips. Channels are averaged before.
///
/// As a [`FeatureExtractor`] it gives one row per clip: the mean of each filter over time, then the
/// standard deviations. [`frames`](Self::frames) gives one row per frame. A Fréchet distance of
/// either needs no network, but is no Fréchet audio distance (Kilgour et al. 2019,
/// <https://arxiv.org/abs/1812.08466>), which is defined on VGGish's embeddings: numbers are
/// comparable only among the same settings.
///
/// ```
/// use aigc_core::eval::{FeatureExtractor, FeatureStatistics, audio::LogMel};
/// use burn::tensor::{Device, Tensor};
///
/// # fn main() -> aigc_core::Result<()> {
/// let log_mel = LogMel::with_sample_rate(16_000)?;
/// let clips = Tensor::<3>::zeros([2, 1, 16_000], &Device::flex());
/// let mut statistics = FeatureStatistics::new(log_mel.width())?;
/// statistics.add(&log_mel.extract(clips)?)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LogMel {
    mel: MelSpectrogram,
}

impl LogMel {
    /// With these mels.
    ///
    /// # Errors
    /// As [`MelConfig::validate`].
    pub fn new(config: &MelConfig) -> Result<Self> {
        Ok(Self {
            mel: config.init()?,
        })
    }

    /// Natural logarithms of 80 filters of Slaney's scale, up to half of the sample rate (samples
    /// per second), over the power of windows of 1,024 samples, one every 256; a floor of 1e-10.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the sample rate is 0.
    pub fn with_sample_rate(sample_rate: u32) -> Result<Self> {
        Self::new(&MelConfig {
            padding: MelPadding::Center,
            power: 2,
            power_floor: 0.0,
            floor: 1e-10,
            ..MelConfig::hifi_gan(sample_rate, 1024, 256, 80)
        })
    }

    /// The settings.
    pub fn config(&self) -> &MelConfig {
        self.mel.config()
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
            let frames = self.mel.log_mel(&samples)?;
            values.extend(frames.values().iter().map(|value| *value as f32));
        }
        Features::new(values, self.config().n_mels)
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
        format!("log-mel mean and deviation {:?}", self.config())
    }

    fn width(&self) -> usize {
        2 * self.config().n_mels
    }

    fn extract(&self, samples: Tensor<3>) -> Result<Tensor<2>> {
        let n_mels = self.config().n_mels;
        let mut rows: Vec<f32> = Vec::with_capacity(samples.dims()[0] * self.width());
        for clip in mono(&samples)? {
            let frames = self.mel.log_mel(&clip)?;
            // Means, and sums of squared deviations from them (Welford 1962).
            let (mut means, mut squares) = (vec![0.0; n_mels], vec![0.0; n_mels]);
            for (before, row) in frames.values().chunks_exact(n_mels).enumerate() {
                for ((mean, square), value) in means.iter_mut().zip(&mut squares).zip(row) {
                    let deviation = value - *mean;
                    *mean += deviation / (before + 1) as f64;
                    *square += deviation * (value - *mean);
                }
            }
            let count = frames.len() as f64;
            rows.extend(means.iter().map(|mean| *mean as f32));
            let deviations = squares.iter().map(|square| (square / count).sqrt() as f32);
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

    fn log_mel() -> LogMel {
        LogMel::with_sample_rate(16_000).unwrap()
    }

    /// Twice the amplitude adds ln 4 to every mean of log power, and changes no deviation.
    #[test]
    fn loudness_shifts_the_means() {
        let log_mel = log_mel();
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

    /// A row has the mean and the standard deviation of each filter over the frames.
    #[test]
    fn rows_are_moments_of_frames() {
        let log_mel = log_mel();
        let clip = crate::rng::Rng::new(1).normal::<3>([1, 1, 3000], &Device::flex()) * 0.1;
        let frames = log_mel.frames(&clip).unwrap();
        let features = log_mel.extract(clip).unwrap();
        let row: Vec<f64> = features.to_data().iter::<f64>().collect();
        let count = frames.len() as f64;
        let (means, deviations) = row.split_at(80);
        for (filter, found) in means.iter().zip(deviations).enumerate() {
            let values = frames.rows().map(|frame| f64::from(frame[filter]));
            let values: Vec<f64> = values.collect();
            let mean = values.iter().sum::<f64>() / count;
            let squares = values.iter().map(|value| (value - mean).powi(2));
            let deviation = (squares.sum::<f64>() / count).sqrt();
            assert!((found.0 - mean).abs() < 1e-4, "{filter}: {found:?} {mean}");
            assert!(
                (found.1 - deviation).abs() < 1e-4,
                "{filter}: {found:?} {deviation}"
            );
        }
    }

    #[test]
    fn silence_has_the_floor() {
        let silence = Tensor::<3>::zeros([2, 1, 1024], &Device::flex());
        let frames = log_mel().frames(&silence).unwrap();
        assert_eq!((frames.len(), frames.width()), (10, 80));
        let floor = 1e-10f64.ln() as f32;
        assert!(frames.values().iter().all(|value| *value == floor));
    }

    #[test]
    fn invalid_settings_and_sounds_are_errors() {
        let log_mel = log_mel();
        let power = MelConfig {
            power: 3,
            ..*log_mel.config()
        };
        assert!(LogMel::new(&power).is_err());
        assert!(LogMel::with_sample_rate(0).is_err());
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
