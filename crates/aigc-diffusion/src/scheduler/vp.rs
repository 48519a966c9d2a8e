//! What schedulers over the times of a variance-preserving process share.

use crate::{clip::Clip, prediction::NoiseLevel, schedule::NoiseScheduleConfig};
use aigc_core::Result;
use serde::{Deserialize, Serialize};

/// Dynamic thresholding, as diffusers writes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholding {
    /// Whether predicted clean samples are thresholded.
    pub thresholding: bool,
    /// See [`Clip::Dynamic`].
    pub dynamic_thresholding_ratio: f64,
    /// See [`Clip::Dynamic`].
    pub sample_max_value: f64,
}

impl Default for Thresholding {
    fn default() -> Self {
        Self {
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
        }
    }
}

impl Thresholding {
    pub(crate) fn clip(&self) -> Result<Clip> {
        let dynamic = Clip::Dynamic {
            ratio: self.dynamic_thresholding_ratio,
            max: self.sample_max_value,
        };
        let clip = if self.thresholding {
            dynamic
        } else {
            Clip::None
        };
        clip.validate()?;
        Ok(clip)
    }
}

/// What is done to predicted clean samples, as diffusers writes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clipping {
    /// Whether predicted clean samples are kept within the range.
    pub clip_sample: bool,
    /// See [`Clip::Range`].
    pub clip_sample_range: f64,
    /// Goes before clipping.
    #[serde(flatten)]
    pub threshold: Thresholding,
}

impl Default for Clipping {
    /// Within `[−1, 1]`.
    fn default() -> Self {
        Self {
            clip_sample: true,
            clip_sample_range: 1.0,
            threshold: Thresholding::default(),
        }
    }
}

impl Clipping {
    /// No clipping.
    pub const NONE: Self = Self {
        clip_sample: false,
        clip_sample_range: 1.0,
        threshold: Thresholding {
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
        },
    };

    pub(crate) fn clip(&self) -> Result<Clip> {
        if self.threshold.thresholding {
            return self.threshold.clip();
        }
        Clip::range_if(self.clip_sample, self.clip_sample_range)
    }
}

/// `ᾱ` at whole times, and before the first.
#[derive(Clone, Debug)]
pub(crate) struct Alphas {
    table: Vec<f64>,
    before: f64,
}

impl Alphas {
    /// `one`: nothing is left of the noise before the first step, else as much as at it.
    pub(crate) fn new(noise: &NoiseScheduleConfig, zero_snr: bool, one: bool) -> Result<Self> {
        let table = if zero_snr {
            noise.alphas_cumprod_zero_snr()?
        } else {
            noise.alphas_cumprod()?
        };
        let before = if one { 1.0 } else { table[0] };
        Ok(Self { table, before })
    }

    #[cfg(test)]
    pub(crate) fn of(table: Vec<f64>) -> Self {
        Self { before: 1.0, table }
    }

    pub(crate) fn at(&self, time: f64) -> f64 {
        if time < 0.0 {
            self.before
        } else {
            self.table[(time as usize).min(self.table.len() - 1)]
        }
    }

    pub(crate) fn level(&self, time: f64) -> NoiseLevel {
        NoiseLevel::variance_preserving(self.at(time))
    }
}
