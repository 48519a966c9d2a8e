//! Logarithms of mel spectra.

use super::Frames;
use crate::{
    Result,
    check::{ensure, positive},
};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_10;

/// How a floor keeps the argument of a logarithm above 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloorMode {
    /// Smaller values become the floor: `max(x, floor)`.
    #[default]
    Clamp,
    /// The floor is added to every value: `x + floor`.
    Add,
}

/// The value that is 0 decibels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecibelReference {
    /// A fixed one.
    Value(f64),
    /// The largest value of the signal.
    Max,
}

/// The logarithm of a mel spectrum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogStyle {
    /// The natural logarithm, as of HiFi-GAN's and most vocoders' mels.
    #[default]
    HifiGan,
    /// The common logarithm, as of SpeechT5's mels.
    Log10,
    /// Whisper's: the common logarithm `v`, at most 8 below the signal's largest, as `(v + 4) / 4`;
    /// without the last frame.
    Whisper,
    /// Decibels, as `librosa.power_to_db` and `torchaudio.transforms.AmplitudeToDB` compute them.
    Decibel {
        /// The value that is 0 decibels.
        reference: DecibelReference,
        /// Smaller values are this far below the signal's largest.
        top_db: Option<f64>,
    },
}

/// Range and scale of [`LogStyle::Whisper`].
const DECADES: f64 = 8.0;
const SHIFT: f64 = 4.0;

/// A logarithm with its floor: what maps mel spectra to log-mels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Logarithm {
    pub(super) style: LogStyle,
    pub(super) floor: f64,
    pub(super) mode: FloorMode,
    /// Power of the magnitudes: 1 or 2.
    pub(super) power: u32,
}

impl LogStyle {
    pub(super) fn validate(&self) -> Result<()> {
        let LogStyle::Decibel { reference, top_db } = self else {
            return Ok(());
        };
        if let DecibelReference::Value(value) = reference {
            positive("reference", *value)?;
        }
        if let Some(top_db) = top_db {
            ensure(
                *top_db >= 0.0,
                "top_db",
                top_db,
                "a number of decibels, 0 or above",
            )?;
        }
        Ok(())
    }
}

impl Logarithm {
    /// Factor of the natural logarithm.
    fn factor(&self) -> f64 {
        match self.style {
            LogStyle::HifiGan => 1.0,
            LogStyle::Log10 | LogStyle::Whisper => 1.0 / LN_10,
            // Decibels are of power.
            LogStyle::Decibel { .. } => 20.0 / (f64::from(self.power) * LN_10),
        }
    }

    /// How far values may lie below the largest, if that is limited.
    fn range(&self) -> Option<f64> {
        match self.style {
            LogStyle::Whisper => Some(DECADES),
            LogStyle::Decibel { top_db, .. } => top_db,
            _ => None,
        }
    }

    /// A value with its floor. NaN stays NaN, as on a device.
    fn floored(&self, value: f64) -> f64 {
        match self.mode {
            // Not `max`, which maps NaN to the floor.
            FloorMode::Clamp if value < self.floor => self.floor,
            FloorMode::Clamp => value,
            FloorMode::Add => value + self.floor,
        }
    }

    /// The logarithms of a mel spectrum.
    pub(super) fn forward(&self, mel: &Frames) -> Frames {
        let kept = match self.style {
            LogStyle::Whisper => mel.len().saturating_sub(1) * mel.width(),
            _ => mel.values().len(),
        };
        let (mel, width) = (&mel.values()[..kept], mel.width());
        let zero = match self.style {
            LogStyle::Decibel { reference, .. } => {
                let reference = match reference {
                    DecibelReference::Value(value) => value,
                    DecibelReference::Max => mel.iter().copied().fold(0.0, f64::max),
                };
                self.floored(reference).ln()
            }
            _ => 0.0,
        };
        let factor = self.factor();
        let mut values: Vec<f64> = mel
            .iter()
            .map(|value| (self.floored(*value).ln() - zero) * factor)
            .collect();
        if let Some(range) = self.range() {
            let least = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - range;
            let low = values.iter_mut().filter(|x| **x < least);
            low.for_each(|x| *x = least);
        }
        if self.style == LogStyle::Whisper {
            values.iter_mut().for_each(|x| *x = (*x + SHIFT) / SHIFT);
        }
        Frames::of(values, width)
    }

    /// The mel whose logarithm is 0.
    fn zero(&self) -> f64 {
        match self.style {
            LogStyle::Decibel {
                reference: DecibelReference::Value(value),
                ..
            } => self.floored(value),
            _ => 1.0,
        }
    }

    /// The mel spectrum of logarithms, where the floor and the range have not changed it. The
    /// reference of decibels is taken to be 1 if it was the largest value.
    pub(super) fn inverse(&self, log_mel: f64) -> f64 {
        let value = match self.style {
            LogStyle::Whisper => log_mel * SHIFT - SHIFT,
            _ => log_mel,
        };
        let mel = self.zero() * (value / self.factor()).exp();
        match self.mode {
            FloorMode::Clamp => mel,
            FloorMode::Add => (mel - self.floor).max(0.0),
        }
    }

    /// [`inverse`](Self::inverse) on a device, differentiable.
    pub(super) fn inverse_tensor(&self, log_mel: Tensor<3>) -> Tensor<3> {
        let values = match self.style {
            LogStyle::Whisper => log_mel * SHIFT - SHIFT,
            _ => log_mel,
        };
        let mel = (values / self.factor()).exp() * self.zero();
        match self.mode {
            FloorMode::Clamp => mel,
            FloorMode::Add => (mel - self.floor).clamp_min(0.0),
        }
    }

    /// [`forward`](Self::forward) on a device, differentiable: `[batch, frames, n_mels]`.
    pub(super) fn forward_tensor(&self, mel: Tensor<3>) -> Tensor<3> {
        let [_, frames, _] = mel.dims();
        let floored = |x: Tensor<3>| match self.mode {
            FloorMode::Clamp => x.clamp_min(self.floor),
            FloorMode::Add => x + self.floor,
        };
        let largest = |x: &Tensor<3>| x.clone().max_dim(1).max_dim(2);
        let mel = match self.style {
            LogStyle::Whisper => mel.narrow(1, 0, frames - 1),
            _ => mel,
        };
        let zero = match self.style {
            LogStyle::Decibel {
                reference: DecibelReference::Max,
                ..
            } => Some(floored(largest(&mel)).log()),
            _ => None,
        };
        let mut values = floored(mel).log();
        if let Some(zero) = zero {
            values = values - zero;
        }
        if let LogStyle::Decibel {
            reference: DecibelReference::Value(value),
            ..
        } = self.style
        {
            values = values - self.floored(value).ln();
        }
        let mut values = values * self.factor();
        if let Some(range) = self.range() {
            let least = (largest(&values) - range).expand(values.dims());
            values = values.max_pair(least);
        }
        match self.style {
            LogStyle::Whisper => (values + SHIFT) / SHIFT,
            _ => values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logarithm(style: LogStyle, mode: FloorMode, power: u32) -> Logarithm {
        Logarithm {
            style,
            floor: 1e-6,
            mode,
            power,
        }
    }

    #[test]
    fn inverse_undoes_every_style() {
        let mel = Frames::new(vec![0.1, 0.5, 2.0, 1.5], 2).unwrap();
        let decibel = LogStyle::Decibel {
            reference: DecibelReference::Value(0.5),
            top_db: None,
        };
        for style in [LogStyle::HifiGan, LogStyle::Log10, decibel] {
            for mode in [FloorMode::Clamp, FloorMode::Add] {
                for power in [1, 2] {
                    let log = logarithm(style, mode, power);
                    let values = log.forward(&mel);
                    for (value, expected) in values.values().iter().zip(mel.values()) {
                        assert!((log.inverse(*value) - expected).abs() < 1e-12, "{log:?}");
                    }
                    #[cfg(feature = "flex")]
                    {
                        let device = burn::tensor::Device::flex();
                        let tensor = values.to_tensor(&device).unsqueeze_dim(0);
                        let found = crate::testing::values(log.inverse_tensor(tensor));
                        let expected = mel.transposed();
                        let expected: Vec<f32> = expected.iter().map(|x| *x as f32).collect();
                        crate::testing::assert_close(&found, &expected, 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn styles_have_known_values() {
        let mel = Frames::new(vec![1.0, 100.0, 0.0, 1e-3], 2).unwrap();
        let near = |style, power, expected: &[f64]| {
            let found = logarithm(style, FloorMode::Clamp, power).forward(&mel);
            assert_eq!(found.values().len(), expected.len());
            for (a, b) in found.values().iter().zip(expected) {
                assert!((a - b).abs() < 1e-12, "{style:?}: {a} {b}");
            }
        };
        near(LogStyle::Log10, 2, &[0.0, 2.0, -6.0, -3.0]);
        near(LogStyle::Whisper, 2, &[1.0, 1.5]);
        let decibel = |reference, top_db| LogStyle::Decibel { reference, top_db };
        let one = DecibelReference::Value(1.0);
        near(decibel(one, None), 2, &[0.0, 20.0, -60.0, -30.0]);
        near(decibel(one, None), 1, &[0.0, 40.0, -120.0, -60.0]);
        let top = decibel(DecibelReference::Max, Some(30.0));
        near(top, 2, &[-20.0, 0.0, -30.0, -30.0]);
    }

    /// A broken value must not look like silence.
    #[test]
    fn nan_is_not_hidden() {
        let mel = Frames::new(vec![f64::NAN, 1.0], 2).unwrap();
        let decibel = LogStyle::Decibel {
            reference: DecibelReference::Max,
            top_db: Some(30.0),
        };
        for style in [LogStyle::HifiGan, LogStyle::Log10, decibel] {
            for mode in [FloorMode::Clamp, FloorMode::Add] {
                let found = logarithm(style, mode, 2).forward(&mel);
                assert!(found.values()[0].is_nan(), "{style:?}");
                assert!(found.values()[1].is_finite(), "{style:?}");
            }
        }
    }
}
