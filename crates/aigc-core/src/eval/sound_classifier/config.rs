//! Settings of the classifier.

use super::{POOLED, SoundClassifier};
use crate::{
    Result,
    check::{ensure, in_range},
    dsp::MelConfig,
    nn::{Conv2dConfig, GroupNormConfig, LinearConfig},
};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// Groups of the normalisations.
const GROUPS: usize = 8;
/// Limit on the length of a sound: ten minutes at 48 kHz.
const MAX_LENGTH: usize = 28_800_000;

/// Configuration to create a [`SoundClassifier`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SoundClassifierConfig {
    /// The spectra that the network sees.
    pub mel: MelConfig,
    /// Length of a sound in samples.
    pub length: usize,
    /// Number of classes.
    pub num_classes: usize,
    /// Channels of each convolution, at least three of them.
    pub channels: Vec<usize>,
    /// Number of features.
    pub hidden: usize,
}

impl Default for SoundClassifierConfig {
    /// Ten classes of sounds of one second at 8 kHz: 40 mels, one frame every 10 ms.
    fn default() -> Self {
        Self::new(8000, 10)
    }
}

impl SoundClassifierConfig {
    /// Sounds of one second: 40 mels, a window of 32 ms every 10 ms.
    pub fn new(sample_rate: u32, num_classes: usize) -> Self {
        let rate = sample_rate as usize;
        Self {
            mel: MelConfig::hifi_gan(sample_rate, rate * 32 / 1000, rate / 100, 40),
            length: rate,
            num_classes,
            channels: vec![16, 32, 64, 64],
            hidden: 128,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if a number is out of range, or the spectra are too
    /// small to be pooled three times.
    pub fn validate(&self) -> Result<()> {
        self.mel.validate()?;
        in_range("length", self.length, 1..=MAX_LENGTH)?;
        in_range("num_classes", self.num_classes, 2..=65_536)?;
        in_range("hidden", self.hidden, 1..=65_536)?;
        let fits = |width: &usize| (1..=4096).contains(width) && width.is_multiple_of(GROUPS);
        ensure(
            (POOLED..=32).contains(&self.channels.len()) && self.channels.iter().all(fits),
            "channels",
            format!("{:?}", self.channels),
            "3 to 32 multiples of 8, at most 4096",
        )?;
        let least = 1 << POOLED;
        ensure(
            self.mel.n_mels >= least,
            "mel.n_mels",
            self.mel.n_mels,
            &format!("at least {least}"),
        )?;
        let frames = self.mel.stft().init()?.frames(self.length).unwrap_or(0);
        ensure(
            frames > least,
            "length",
            format!("{}, {frames} frames", self.length),
            &format!("more than {least} frames of the spectrum"),
        )
    }

    /// Creates the network on `device`.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<SoundClassifier> {
        self.validate()?;
        let inputs = std::iter::once(&1).chain(&self.channels);
        let layers = inputs.zip(&self.channels);
        let last = self.channels[self.channels.len() - 1];
        Ok(SoundClassifier {
            convolutions: layers
                .map(|(i, o)| Conv2dConfig::new([*i, *o], 3).with_padding(1).init(device))
                .collect(),
            norms: self
                .channels
                .iter()
                .map(|width| GroupNormConfig::new(GROUPS, *width).init(device))
                .collect(),
            hidden: LinearConfig::new(last * (self.mel.n_mels >> POOLED), self.hidden).init(device),
            head: LinearConfig::new(self.hidden, self.num_classes).init(device),
            mel: self.mel.init()?,
            config: self.clone(),
        })
    }
}
