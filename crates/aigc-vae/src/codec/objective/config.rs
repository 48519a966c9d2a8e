//! The terms of the loss of a codec, and their weights.

use aigc_core::{
    Result,
    adversarial::AdversarialLoss,
    check::{self, ensure},
    dsp::MelConfig,
};
use serde::{Deserialize, Serialize};

/// Lengths of the shortest and the longest frame of [`CodecLossConfig::new`] in seconds, about.
const FRAME_SECONDS: [f64; 2] = [0.008, 0.128];

/// Configuration of a [`CodecObjective`](super::CodecObjective).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodecLossConfig {
    /// Weight of the mean absolute difference of samples.
    pub l1_weight: f64,
    /// Weight of the mean absolute difference of log-mels.
    pub mel_weight: f64,
    /// Weight of the quantiser's losses: commitment, and that of the codes where they are trained
    /// by gradients.
    pub quantizer_weight: f64,
    /// The log-mels, over which the difference is averaged.
    pub mels: Vec<MelConfig>,
    /// Whether the terms are balanced: the gradient of each with respect to the decoded sound is
    /// divided by a moving average of its norm, so that its weight is its share of the whole
    /// gradient, whatever its scale (Défossez et al. 2022, <https://arxiv.org/abs/2210.13438>,
    /// §3.4). The quantiser's losses are apart.
    pub balance: bool,
}

impl CodecLossConfig {
    /// Weights of 1 and log-mels of five lengths, each twice that of the one before, for sounds of
    /// `sample_rate` samples per second; without balancing.
    pub fn new(sample_rate: u32) -> Self {
        let [shortest, longest] = FRAME_SECONDS.map(|seconds| {
            let samples = (seconds * f64::from(sample_rate)).round() as usize;
            samples.max(16).next_power_of_two()
        });
        let lengths = std::iter::successors(Some(shortest), |length| Some(2 * length));
        let lengths = lengths.take_while(|length| *length <= longest);
        let mel = |length: usize| {
            MelConfig::hifi_gan(sample_rate, length, length / 4, (length / 8).min(80))
        };
        Self {
            l1_weight: 1.0,
            mel_weight: 1.0,
            quantizer_weight: 1.0,
            mels: lengths.map(mel).collect(),
            balance: false,
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::non_negative("l1_weight", self.l1_weight)?;
        check::non_negative("mel_weight", self.mel_weight)?;
        check::non_negative("quantizer_weight", self.quantizer_weight)?;
        let expected = "above 0, or another mel_weight";
        let has_terms = self.l1_weight + self.mel_weight > 0.0;
        ensure(has_terms, "l1_weight", self.l1_weight, expected)?;
        let found = format!("{} mels", self.mels.len());
        ensure(
            (1..=16).contains(&self.mels.len()),
            "mels",
            found,
            "1 to 16 mels",
        )?;
        self.mels.iter().try_for_each(MelConfig::validate)
    }
}

/// Configuration of an [`AdversarialCodecObjective`](super::AdversarialCodecObjective).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialCodecConfig {
    /// The terms without a discriminator.
    pub loss: CodecLossConfig,
    /// Losses of the discriminator, and of the codec against it.
    pub adversarial: AdversarialLoss,
    /// Weight of the adversarial term.
    pub adversarial_weight: f64,
    /// Weight of the difference of the discriminator's features.
    pub feature_weight: f64,
    /// First step with a discriminator. Before it, the codec is trained without one, and the
    /// discriminator is not trained.
    pub start_step: usize,
}

impl AdversarialCodecConfig {
    /// The weights of Encodec (Défossez et al. 2022, <https://arxiv.org/abs/2210.13438>, §3.4, as
    /// published with its code): 0.1 for samples, 2 for mels, 4 for the adversarial term, 4 for
    /// features, balanced; the hinge loss, from the first step on.
    pub fn new(sample_rate: u32) -> Self {
        Self {
            loss: CodecLossConfig {
                l1_weight: 0.1,
                mel_weight: 2.0,
                balance: true,
                ..CodecLossConfig::new(sample_rate)
            },
            adversarial: AdversarialLoss::Hinge,
            adversarial_weight: 4.0,
            feature_weight: 4.0,
            start_step: 0,
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        self.loss.validate()?;
        check::non_negative("adversarial_weight", self.adversarial_weight)?;
        check::non_negative("feature_weight", self.feature_weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_mels_follow_the_sample_rate() {
        for (rate, expected) in [
            (8000, vec![64, 128, 256, 512, 1024]),
            (24_000, vec![256, 512, 1024, 2048, 4096]),
        ] {
            let config = CodecLossConfig::new(rate);
            config.validate().unwrap();
            let lengths: Vec<usize> = config.mels.iter().map(|mel| mel.n_fft).collect();
            assert_eq!(lengths, expected);
        }
        AdversarialCodecConfig::new(8000).validate().unwrap();
        let config = CodecLossConfig {
            mels: vec![],
            ..CodecLossConfig::new(8000)
        };
        let message = config.validate().unwrap_err().to_string();
        assert!(
            message.contains("`mels` is 0 mels, expected 1 to 16"),
            "{message}"
        );
    }
}
