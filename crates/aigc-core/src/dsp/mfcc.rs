//! Mel-frequency cepstral coefficients.

use super::{
    DecibelReference, FloorMode, Frames, LogStyle, MelConfig, MelPadding, MelSpectrogram, PadMode,
    dct,
};
use crate::{
    Result,
    check::{ensure, non_negative},
};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Settings of [`Mfcc`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MfccConfig {
    /// The log-mel spectrum that is transformed.
    pub mel: MelConfig,
    /// Number of coefficients.
    pub n_mfcc: usize,
    /// Coefficient `n` is multiplied by `1 + L/2·sin(π·(n + 1)/L)`; 0 for no change.
    pub lifter: f64,
}

impl Default for MfccConfig {
    fn default() -> Self {
        Self::new(22_050, 2048, 512, 128)
    }
}

impl MfccConfig {
    /// Twenty coefficients of decibels of power, as `librosa.feature.mfcc` computes them.
    pub fn new(sample_rate: u32, n_fft: usize, hop_length: usize, n_mels: usize) -> Self {
        let mel = MelConfig {
            padding: MelPadding::Center,
            pad_mode: PadMode::Constant,
            power: 2,
            power_floor: 0.0,
            floor: 1e-10,
            floor_mode: FloorMode::Clamp,
            log_style: LogStyle::Decibel {
                reference: DecibelReference::Value(1.0),
                top_db: Some(80.0),
            },
            ..MelConfig::hifi_gan(sample_rate, n_fft, hop_length, n_mels)
        };
        Self {
            mel,
            n_mfcc: 20,
            lifter: 0.0,
        }
    }

    /// Plans the transforms.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if there are no coefficients, more than filters, the
    /// lifter is negative, or the mel spectrum is invalid.
    pub fn init(&self) -> Result<Mfcc> {
        let mel = self.mel.init()?;
        ensure(
            (1..=self.mel.n_mels).contains(&self.n_mfcc),
            "n_mfcc",
            self.n_mfcc,
            &format!("1 to n_mels = {}", self.mel.n_mels),
        )?;
        non_negative("lifter", self.lifter)?;
        let mut matrix = dct::matrix(self.n_mfcc, self.mel.n_mels);
        if self.lifter > 0.0 {
            for (n, row) in matrix.chunks_exact_mut(self.mel.n_mels).enumerate() {
                let phase = PI * (n + 1) as f64 / self.lifter;
                let factor = 1.0 + self.lifter / 2.0 * phase.sin();
                row.iter_mut().for_each(|weight| *weight *= factor);
            }
        }
        Ok(Mfcc {
            config: *self,
            mel,
            matrix,
        })
    }
}

/// Mel-frequency cepstral coefficients (Davis and Mermelstein 1980,
/// <https://doi.org/10.1109/TASSP.1980.1163420>): the orthogonal cosine transform of log-mels.
#[derive(Clone, Debug)]
pub struct Mfcc {
    config: MfccConfig,
    mel: MelSpectrogram,
    /// `[n_mfcc, n_mels]`.
    matrix: Vec<f64>,
}

impl Mfcc {
    /// The settings.
    pub fn config(&self) -> &MfccConfig {
        &self.config
    }

    /// The coefficients of a signal, `[frames, n_mfcc]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are too few samples for
    /// the padding, or for a frame.
    pub fn forward(&self, samples: &[f32]) -> Result<Frames> {
        let log_mel = self.mel.log_mel(samples)?;
        let mut values = Vec::with_capacity(log_mel.len() * self.config.n_mfcc);
        for index in 0..log_mel.len() {
            let frame = log_mel.frame(index);
            let rows = self.matrix.chunks_exact(log_mel.width());
            values.extend(rows.map(|row| -> f64 {
                let products = row.iter().zip(frame);
                products.map(|(weight, value)| weight * value).sum()
            }));
        }
        Ok(Frames::of(values, self.config.n_mfcc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Silence is constant over the filters, so it has only the first coefficient.
    #[test]
    fn silence_has_one_coefficient() {
        let config = MfccConfig::new(8000, 256, 80, 40);
        let mfcc = config.init().unwrap().forward(&[0.0; 800]).unwrap();
        assert_eq!((mfcc.len(), mfcc.width()), (11, 20));
        assert!((mfcc.frame(0)[0] + 100.0 * 40f64.sqrt()).abs() < 1e-9);
        assert!(mfcc.frame(0)[1..].iter().all(|value| value.abs() < 1e-9));
    }

    #[test]
    fn invalid_settings_are_errors() {
        let config = MfccConfig::new(8000, 256, 80, 40);
        let error = |config: MfccConfig| config.init().unwrap_err().to_string();
        assert_eq!(
            error(MfccConfig {
                n_mfcc: 41,
                ..config
            }),
            "config field `n_mfcc` is 41, expected 1 to n_mels = 40"
        );
        assert!(
            error(MfccConfig {
                n_mfcc: 0,
                ..config
            })
            .contains("n_mfcc")
        );
        assert!(
            error(MfccConfig {
                lifter: -1.0,
                ..config
            })
            .contains("lifter")
        );
    }
}
