//! Configuration of a speaker.

use crate::speech::{
    VitsTokenizer, VitsTokenizerConfig, duration::DurationSizes, text_encoder::TextEncoderSizes,
};
use aigc_core::{
    Result,
    check::{self, ensure},
    dsp::MelConfig,
    nn::Activation,
};
use serde::{Deserialize, Serialize};

/// Added to variances in norms.
const EPSILON: f64 = 1e-5;

/// Configuration to create a [`Speaker`](super::Speaker). It holds everything that a text needs to
/// become a spectrogram: the symbols, and what the spectrograms are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpeakerConfig {
    /// The symbols of texts.
    pub tokenizer: VitsTokenizerConfig,
    /// What the spectrograms are; a vocoder has to read the same.
    pub mel: MelConfig,
    /// Mean of all values of the spectrograms. It is subtracted from those that the network
    /// receives; [`mel_statistics`](super::SpeechDataset::mel_statistics) computes it.
    pub mel_mean: f64,
    /// Standard deviation of all values of the spectrograms, by which they are divided.
    pub mel_std: f64,
    /// Number of speakers.
    pub num_speakers: usize,
    /// Width of the text encoder.
    pub hidden_size: usize,
    /// Number of layers of the text encoder.
    pub num_hidden_layers: usize,
    /// Number of attention heads; it must divide the width.
    pub num_attention_heads: usize,
    /// Distance up to which relative positions have vectors of their own.
    pub window_size: usize,
    /// Inner width of the feed-forward networks.
    pub ffn_dim: usize,
    /// Kernel of the feed-forward networks' convolutions.
    pub ffn_kernel_size: usize,
    /// Width of the predictor of durations.
    pub duration_filter_channels: usize,
    /// Width of the decoder; an even number.
    pub decoder_channels: usize,
    /// Dilation of the convolution of each of the decoder's blocks.
    pub decoder_dilations: Vec<usize>,
    /// Kernel of these convolutions; an odd number.
    pub decoder_kernel_size: usize,
    /// Dropout of the text encoder and of the predictor of durations.
    pub dropout: f64,
}

impl Default for SpeakerConfig {
    fn default() -> Self {
        Self {
            tokenizer: VitsTokenizerConfig::default(),
            mel: MelConfig::hifi_gan(8000, 256, 64, 40),
            mel_mean: -5.5,
            mel_std: 2.5,
            num_speakers: 1,
            hidden_size: 96,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            window_size: 4,
            ffn_dim: 192,
            ffn_kernel_size: 3,
            duration_filter_channels: 96,
            decoder_channels: 96,
            decoder_dilations: vec![1, 2, 4, 8, 1, 2, 4, 8],
            decoder_kernel_size: 3,
            dropout: 0.1,
        }
    }
}

impl SpeakerConfig {
    /// A small network for the symbols of a tokenizer and for these spectrograms. The lexicon of
    /// the tokenizer is not kept.
    pub fn new(tokenizer: &VitsTokenizer, mel: MelConfig) -> Self {
        Self {
            tokenizer: tokenizer.config().clone(),
            mel,
            ..Self::default()
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        const WIDTH: usize = 1 << 13;
        check::sizes(&[
            ("num_speakers", self.num_speakers, 1 << 20),
            ("hidden_size", self.hidden_size, WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 8),
            ("num_attention_heads", self.num_attention_heads, WIDTH),
            ("window_size", self.window_size, 1 << 12),
            ("ffn_dim", self.ffn_dim, WIDTH),
            ("ffn_kernel_size", self.ffn_kernel_size, 1 << 8),
            (
                "duration_filter_channels",
                self.duration_filter_channels,
                WIDTH,
            ),
            ("decoder_channels", self.decoder_channels, WIDTH),
            ("decoder_dilations", self.decoder_dilations.len(), 1 << 8),
            ("decoder_kernel_size", self.decoder_kernel_size, 1 << 8),
        ])?;
        for dilation in &self.decoder_dilations {
            check::sizes(&[("decoder_dilations", *dilation, 1 << 12)])?;
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let expected = format!("a divisor of hidden_size, {hidden}");
        ensure(
            hidden.is_multiple_of(heads),
            "num_attention_heads",
            heads,
            &expected,
        )?;
        let channels = self.decoder_channels;
        ensure(
            channels.is_multiple_of(2),
            "decoder_channels",
            channels,
            "an even number",
        )?;
        let kernel = self.decoder_kernel_size;
        ensure(
            !kernel.is_multiple_of(2),
            "decoder_kernel_size",
            kernel,
            "an odd number",
        )?;
        ensure(
            self.mel_mean.is_finite(),
            "mel_mean",
            self.mel_mean,
            "a finite number",
        )?;
        check::positive("mel_std", self.mel_std)?;
        let dropout = self.dropout;
        ensure(
            (0.0..1.0).contains(&dropout),
            "dropout",
            dropout,
            "0 or above, below 1",
        )?;
        self.mel.validate()?;
        self.tokenizer.validate()
    }

    pub(super) fn text_encoder(&self) -> TextEncoderSizes {
        let ids = self.tokenizer.vocab.values();
        TextEncoderSizes {
            vocab_size: ids.max().map_or(1, |id| *id as usize + 1),
            hidden_size: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            window: self.window_size,
            ffn_dim: self.ffn_dim,
            ffn_kernel: self.ffn_kernel_size,
            bias: true,
            activation: Activation::Gelu,
            epsilon: EPSILON,
            dropout: self.dropout,
            outputs: self.mel.n_mels,
        }
    }

    pub(super) fn duration(&self) -> DurationSizes {
        DurationSizes {
            hidden_size: self.hidden_size,
            filter_channels: self.duration_filter_channels,
            kernel: 3,
            dropout: self.dropout,
            epsilon: EPSILON,
            condition: 0,
        }
    }
}
