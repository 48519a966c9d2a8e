//! Mel spectra.

use super::{
    Frames, MelConfig, Stft,
    device::{LEAST_POWER, Matrix},
    mel_filters,
};
use crate::{Result, ops};
use burn::tensor::{DType, Tensor, TensorData};

/// Mel spectra and their logarithms, planned by [`MelConfig::init`].
#[derive(Clone, Debug)]
pub struct MelSpectrogram {
    config: MelConfig,
    stft: Stft,
    filters: Vec<Filter>,
    matrix: Matrix,
    spread: Matrix,
}

/// A filter without the zeros around it.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// First bin whose weight is not 0.
    pub(super) first: usize,
    /// Weights from there to the last that is not 0.
    pub(super) weights: Vec<f64>,
}

impl Filter {
    fn new(weights: &[f64]) -> Self {
        let first = weights.iter().position(|weight| *weight > 0.0);
        let last = weights.iter().rposition(|weight| *weight > 0.0);
        match (first, last) {
            (Some(first), Some(last)) => Self {
                first,
                weights: weights[first..=last].to_vec(),
            },
            _ => Self {
                first: 0,
                weights: Vec::new(),
            },
        }
    }

    /// The weighted sum of a spectrum.
    pub(super) fn sum(&self, spectrum: &[f64]) -> f64 {
        let bins = spectrum[self.first..].iter().zip(&self.weights);
        bins.map(|(value, weight)| value * weight).sum()
    }
}

impl MelSpectrogram {
    pub(super) fn new(config: MelConfig) -> Result<Self> {
        let filters = mel_filters(&config)?;
        let stft = config.stft().init()?;
        Ok(Self {
            filters: filters.chunks_exact(stft.bins()).map(Filter::new).collect(),
            config,
            stft,
            matrix: Matrix::default(),
            spread: Matrix::default(),
        })
    }

    /// The settings.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// The transform whose magnitudes the filters sum.
    pub fn stft(&self) -> &Stft {
        &self.stft
    }

    pub(super) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// The mel spectrum of a signal, `[frames, n_mels]`, before the logarithm. The spectra of all
    /// frames are never held together.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are too few samples for
    /// the padding, or for a frame.
    pub fn mel(&self, samples: &[f32]) -> Result<Frames> {
        let frames = self.stft.frames(samples.len())?;
        let mut values = Vec::with_capacity(frames * self.filters.len());
        let mut spectrum = vec![0.0; self.stft.bins()];
        self.stft.for_each_power(samples, |power| {
            for (value, power) in spectrum.iter_mut().zip(power) {
                let power = power + self.config.power_floor;
                *value = match self.config.power {
                    1 => power.sqrt(),
                    _ => power,
                };
            }
            values.extend(self.filters.iter().map(|filter| filter.sum(&spectrum)));
        })?;
        Ok(Frames::of(values, self.filters.len()))
    }

    /// The log-mel spectrum of a signal, `[frames, n_mels]`.
    ///
    /// # Errors
    /// As [`mel`](Self::mel).
    pub fn log_mel(&self, samples: &[f32]) -> Result<Frames> {
        Ok(self.config.logarithm().forward(&self.mel(samples)?))
    }

    /// [`mel`](Self::mel) of signals on a device, differentiable.
    ///
    /// # Shapes
    /// - samples: `[batch, time]`
    /// - output: `[batch, n_mels, frames]`
    ///
    /// # Panics
    /// If there are too few samples for a frame, which [`Stft::frames`] tells before.
    pub fn mel_tensor(&self, samples: Tensor<2>) -> Tensor<3> {
        self.mel_rows(samples).swap_dims(1, 2)
    }

    /// [`log_mel`](Self::log_mel) of signals on a device, differentiable. A range below the largest
    /// value, as Whisper and decibels have it, is that of each signal.
    ///
    /// # Shapes
    /// - samples: `[batch, time]`
    /// - output: `[batch, n_mels, frames]`
    ///
    /// # Panics
    /// As [`mel_tensor`](Self::mel_tensor); or if Whisper's style leaves no frame.
    pub fn log_mel_tensor(&self, samples: Tensor<2>) -> Tensor<3> {
        let rows = self.mel_rows(samples);
        self.config.logarithm().forward_tensor(rows).swap_dims(1, 2)
    }

    /// Magnitudes that are smooth over frequency and have about these log-mels, differentiable: a
    /// rough inverse without iterations, unlike `librosa.feature.inverse.mel_to_stft`. Each filter
    /// estimates the magnitude of a flat spectrum that has its mel, or its power for mels of
    /// powers. A bin is the mean of the estimates of its filters, weighted by their sums and their
    /// values there.
    ///
    /// Flat spectra are exact if the logarithm has lost nothing: no value was below its floor or
    /// too far below the largest, and decibels have a fixed reference. A bin that no filter reaches
    /// is 0, for mels of powers 1e-12. The result has 32 bits.
    ///
    /// # Shapes
    /// - log_mel: `[batch, n_mels, frames]`
    /// - output: `[batch, bins, frames]`
    ///
    /// # Panics
    /// If the number of mels is not that of the configuration.
    pub fn smooth_magnitudes(&self, log_mel: Tensor<3>) -> Tensor<3> {
        let ([batch, n_mels, frames], bins) = (log_mel.dims(), self.stft.bins());
        assert_eq!(n_mels, self.filters.len(), "mels of a frame");
        let log_mel = ops::cast(log_mel, DType::F32);
        let mel = self.config.logarithm().inverse_tensor(log_mel);
        let rows = mel.swap_dims(1, 2).reshape([batch * frames, n_mels]);
        let matrix = self.spread.get(&rows.device(), || {
            let mut sums = vec![0.0; bins];
            for filter in &self.filters {
                let total: f64 = filter.weights.iter().sum();
                for (i, weight) in filter.weights.iter().enumerate() {
                    sums[filter.first + i] += weight * total;
                }
            }
            let mut matrix = vec![0.0f32; n_mels * bins];
            for (mel, filter) in self.filters.iter().enumerate() {
                for (i, weight) in filter.weights.iter().enumerate() {
                    let bin = filter.first + i;
                    if sums[bin] > 0.0 {
                        matrix[mel * bins + bin] = (weight / sums[bin]) as f32;
                    }
                }
            }
            TensorData::new(matrix, [n_mels, bins])
        });
        let found = rows.matmul(matrix);
        let found = match self.config.power {
            // The slope of the root at 0 is infinite.
            2 => found.clamp_min(LEAST_POWER).sqrt(),
            _ => found,
        };
        found.reshape([batch, frames, bins]).swap_dims(1, 2)
    }

    /// Mel spectra `[batch, frames, n_mels]`.
    fn mel_rows(&self, samples: Tensor<2>) -> Tensor<3> {
        let power = self.stft.powers(samples);
        let ([batch, frames, bins], n_mels) = (power.dims(), self.filters.len());
        let mut values = power.reshape([batch * frames, bins]);
        if self.config.power_floor > 0.0 {
            values = values + self.config.power_floor;
        }
        if self.config.power == 1 {
            // The slope of the root at 0 is infinite.
            values = values.clamp_min(LEAST_POWER).sqrt();
        }
        let matrix = self.matrix.get(&values.device(), || {
            let mut matrix = vec![0.0f32; bins * n_mels];
            for (mel, filter) in self.filters.iter().enumerate() {
                for (i, weight) in filter.weights.iter().enumerate() {
                    matrix[(filter.first + i) * n_mels + mel] = *weight as f32;
                }
            }
            TensorData::new(matrix, [bins, n_mels])
        });
        values.matmul(matrix).reshape([batch, frames, n_mels])
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        dsp::{DecibelReference, FloorMode, LogStyle, MelPadding},
        rng::Rng,
        testing::{assert_close, values},
    };
    use burn::tensor::Device;

    fn configs() -> Vec<MelConfig> {
        let decibel = |reference, top_db| LogStyle::Decibel { reference, top_db };
        let vocoder = MelConfig::hifi_gan(8000, 256, 64, 20);
        let mut added = vocoder;
        (added.power_floor, added.floor_mode) = (0.0, FloorMode::Add);
        let mut plain = vocoder;
        (plain.padding, plain.log_style) = (MelPadding::None, LogStyle::Log10);
        let mut top = vocoder;
        top.log_style = decibel(DecibelReference::Max, Some(30.0));
        let mut power = vocoder;
        (power.padding, power.power) = (MelPadding::Center, 2);
        power.log_style = decibel(DecibelReference::Value(2.0), None);
        vec![vocoder, added, plain, top, power, MelConfig::whisper(20)]
    }

    #[test]
    fn device_and_host_agree() {
        let x: Tensor<2> = Rng::new(1).normal([2, 1000], &Device::flex()) * 0.1;
        for config in configs() {
            let mel = config.init().unwrap();
            let (plain, log) = (mel.mel_tensor(x.clone()), mel.log_mel_tensor(x.clone()));
            for clip in 0..2 {
                let samples = values(x.clone().narrow(0, clip, 1));
                let near = |found: &Tensor<3>, expected: Frames| {
                    let row = found.clone().narrow(0, clip, 1);
                    assert_eq!(row.dims(), [1, expected.width(), expected.len()]);
                    let expected: Vec<f32> =
                        expected.transposed().iter().map(|x| *x as f32).collect();
                    assert_close(&values(row), &expected, 2e-4);
                };
                near(&plain, mel.mel(&samples).unwrap());
                near(&log, mel.log_mel(&samples).unwrap());
            }
        }
    }

    /// Digital silence has the floor, and a gradient of 0.
    #[test]
    fn silence_is_finite() {
        for config in configs() {
            let mel = config.init().unwrap();
            let x = Tensor::<2>::zeros([1, 800], &Device::flex().autodiff()).require_grad();
            let log_mel = mel.log_mel_tensor(x.clone());
            let grads = log_mel.clone().sum().backward();
            assert!(values(log_mel).iter().all(|value| value.is_finite()));
            let grad = values(x.grad(&grads).unwrap());
            assert!(grad.iter().all(|value| value.is_finite()), "{config:?}");
        }
        let floor = MelConfig::whisper(20).init().unwrap();
        let silence = floor.log_mel(&[0.0; 800]).unwrap();
        assert!(silence.values().iter().all(|x| (x + 1.5).abs() < 1e-12));
    }

    /// The spectrum of a pulse is flat: its magnitudes are found exactly in every style with a
    /// fixed reference.
    #[test]
    fn magnitudes_of_flat_spectra_are_exact() {
        let mut samples = vec![0.0f32; 700];
        samples[350] = 0.7;
        let samples = Tensor::<1>::from_floats(samples.as_slice(), &Device::flex());
        let samples: Tensor<2> = samples.unsqueeze_dim(0);
        for config in configs() {
            if matches!(
                config.log_style,
                LogStyle::Whisper
                    | LogStyle::Decibel {
                        reference: DecibelReference::Max,
                        ..
                    }
            ) {
                continue;
            }
            let mel = config.init().unwrap();
            let (exact, found) = (
                mel.stft().magnitude(samples.clone(), 0.0),
                mel.smooth_magnitudes(mel.log_mel_tensor(samples.clone())),
            );
            assert_eq!(exact.dims(), found.dims());
            let inner = |x: Tensor<3>| values(x.narrow(1, 2, mel.stft().bins() - 4));
            let pairs = inner(found).into_iter().zip(inner(exact));
            // Other frames are silent, and have the floor of the logarithm.
            let heard: Vec<(f32, f32)> = pairs.filter(|(_, exact)| *exact > 0.1).collect();
            assert!(heard.len() > 200, "{}", heard.len());
            for (found, exact) in heard {
                assert!((found - exact).abs() < 1e-3, "{found} {exact} {config:?}");
            }
        }
    }

    /// Twice the amplitude adds ln 2 to every value.
    #[test]
    fn loudness_shifts_the_logarithm() {
        let config = MelConfig {
            power_floor: 0.0,
            ..MelConfig::hifi_gan(8000, 256, 64, 20)
        };
        let mel = config.init().unwrap();
        let quiet = Rng::new(2).normal_vec(1000);
        let loud: Vec<f32> = quiet.iter().map(|x| 2.0 * x).collect();
        let (quiet, loud) = (mel.log_mel(&quiet).unwrap(), mel.log_mel(&loud).unwrap());
        assert_eq!(quiet.len(), 1000 / 64);
        for (a, b) in quiet.values().iter().zip(loud.values()) {
            assert!((b - a - 2f64.ln()).abs() < 1e-6);
        }
        assert!(mel.mel(&[0.0; 90]).is_err());
    }
}
