//! A classifier of short sounds, and scores of generated sounds by it.
//!
//! ```no_run
//! use aigc_core::{
//!     data::{DataLoader, sound::SoundBatch},
//!     device::device,
//!     eval::sound_classifier::{ClassifierScores, SoundClassifier},
//! };
//!
//! # fn example(train: DataLoader<SoundBatch>, made: DataLoader<SoundBatch>)
//! #     -> aigc_core::Result<()> {
//! let device = device("flex")?;
//! let classifier = SoundClassifier::from_pretrained("digits", &device)?.into_inner();
//! let real = classifier.read(train.iter_once(), &device)?;
//! let generated = classifier.read(made.iter_once(), &device)?;
//! println!("{}", ClassifierScores::new(&real, &generated, 0)?);
//! # Ok(()) }
//! ```

mod config;
mod objective;
mod scores;

pub use config::SoundClassifierConfig;
pub use objective::{SoundAugmentation, SoundClassifierObjective};
pub use scores::{
    ClassifierScores, SoundReadings, am_score, modified_inception_score, split_inception_score,
};

use super::{ClassifierOutput, FeatureExtractor, Features, features::weight_hash};
use crate::{
    Error, Result,
    check::ensure_argument,
    data::{SampleBatch, sound::SoundBatch},
    dsp::MelSpectrogram,
    nn::{Activation, Conv2d, GroupNorm, Linear, PaddingMode},
    ops::{max_pool2d, pad1d},
    weights::{self, Loaded},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Mean and scale of log-mels that the network sees as 0 and 1.
const LOG_MEL: (f64, f64) = (-7.0, 2.0);

/// A convolutional network over log-mel spectra of sounds of one length, such as spoken digits of a
/// second: convolutions of 3×3 with group normalisation and ReLU, the first three followed by
/// maximum pooling of 2×2; the mean over time; a layer of features; logits. On the spoken digits of
/// FSDD it reaches 97 % to 98 % in 600 steps of 32 clips.
#[derive(Module, Debug)]
pub struct SoundClassifier {
    convolutions: Vec<Conv2d>,
    norms: Vec<GroupNorm>,
    hidden: Linear,
    head: Linear,
    #[module(skip)]
    mel: MelSpectrogram,
    #[module(skip)]
    config: SoundClassifierConfig,
}

/// Convolutions that pooling follows.
const POOLED: usize = 3;

impl SoundClassifier {
    /// The settings.
    pub fn config(&self) -> SoundClassifierConfig {
        self.config.clone()
    }

    /// Opens a directory that [`save_pretrained`](Self::save_pretrained) wrote, or the `final` of a
    /// run.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Data`], [`Error::Config`] or [`Error::Weights`], naming the file and
    /// the field, tensor or value.
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        weights::load_pretrained(dir.as_ref(), &[], |config: &SoundClassifierConfig| {
            config.init(device)
        })
    }

    /// Writes `config.json` and `model.safetensors` to a directory.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        weights::save_pretrained(self, &self.config, dir.as_ref())
    }

    /// Features and logits of sounds at the sample rate of the [settings](Self::config). Channels
    /// are averaged; sounds of another length are cut or padded with silence at their end.
    ///
    /// # Shapes
    /// - waves: `[batch, channels, time]` in `[−1, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no channels.
    pub fn classify(&self, waves: Tensor<3>) -> Result<ClassifierOutput> {
        let [batch, channels, time] = waves.dims();
        ensure_argument(
            batch > 0 && channels > 0,
            "waves",
            format!("{batch} × {channels} × {time}"),
            "at least one sound and channel",
        )?;
        let length = self.config.length;
        let waves = match time > length {
            true => waves.narrow(2, 0, length),
            false => pad1d(waves, [0, length - time], PaddingMode::Zeros),
        };
        let mono = waves.mean_dim(1).squeeze_dim::<2>(1);
        let log_mel = self.mel.log_mel_tensor(mono);
        Ok(self.forward((log_mel - LOG_MEL.0) / LOG_MEL.1))
    }

    /// Features and logits of scaled log-mels, `[batch, mels, frames]`.
    fn forward(&self, log_mel: Tensor<3>) -> ClassifierOutput {
        let mut x = log_mel.unsqueeze_dim::<4>(1);
        let layers = self.convolutions.iter().zip(&self.norms);
        for (index, (convolution, norm)) in layers.enumerate() {
            x = norm.forward_with_activation(convolution.forward(x), Activation::Relu);
            if index < POOLED {
                x = max_pool2d(x, 2, 2, 0);
            }
        }
        let x = x.mean_dim(3).flatten::<2>(1, 3);
        let features = Activation::Relu.forward(self.hidden.forward(x));
        ClassifierOutput {
            logits: self.head.forward(features.clone()),
            features,
        }
    }

    /// Features and logits of all sounds of batches, on the host.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no sounds, they have another sample rate than the
    /// [settings](Self::config), or a feature is not finite; errors of the batches.
    pub fn read(
        &self,
        batches: impl IntoIterator<Item = Result<SoundBatch>>,
        device: &Device,
    ) -> Result<SoundReadings> {
        let mut features = Features::empty(self.config.hidden)?;
        let mut logits = Features::empty(self.config.num_classes)?;
        for batch in batches {
            let batch = batch?;
            if batch.is_empty() {
                continue;
            }
            self.check_rate(&batch)?;
            let output = self.classify(batch.to_tensor(device))?;
            features.extend(&output.features)?;
            logits.extend(&output.logits)?;
        }
        if features.is_empty() {
            return Err(Error::argument("sounds", 0, "at least 1"));
        }
        Ok(SoundReadings { features, logits })
    }

    /// Fails if sounds have another sample rate than the spectra.
    fn check_rate(&self, batch: &SoundBatch) -> Result<()> {
        let expected = self.config.mel.sample_rate;
        ensure_argument(
            batch.sample_rate() == expected,
            "sample_rate",
            batch.sample_rate(),
            &format!("{expected}, that of the classifier"),
        )
    }
}

impl FeatureExtractor<3> for SoundClassifier {
    /// Has the hash of the weights, which may change by training.
    fn id(&self) -> String {
        format!("sound classifier {}", weight_hash(self))
    }

    fn width(&self) -> usize {
        self.config.hidden
    }

    fn extract(&self, samples: Tensor<3>) -> Result<Tensor<2>> {
        Ok(self.classify(samples)?.features)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
