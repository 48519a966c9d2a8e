//! Configuration of Encodec, with the fields of transformers.

use super::EncodecModel;
use crate::{
    ResidualQuantizerConfig, VectorQuantizerConfig,
    codec::{codes::hop_length, files::fields_of},
};
use aigc_core::{Error, Result, json, nn::PaddingMode, weights::Loaded};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// The name of the model in transformers.
const MODEL_TYPE: &str = "encodec";

/// Normalisation of the layers of an [`EncodecModel`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EncodecNorm {
    /// Weight norm.
    #[default]
    WeightNorm,
    /// A group norm with one group over channels and time, which cannot be streamed.
    TimeGroupNorm,
}

/// Configuration to create an [`EncodecModel`]; the fields are those of transformers'
/// `EncodecConfig`, but the last three. The default is the causal model of 24 kHz.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EncodecConfig {
    /// Rates in thousands of bits per second, ascending. The last one decides the number of
    /// codebooks.
    pub target_bandwidths: Vec<f64>,
    /// Samples per second.
    pub sampling_rate: u32,
    /// Channels of the sound, 1 or 2.
    pub audio_channels: usize,
    /// Whether sounds are divided by their volume, which is then kept beside the codes.
    pub normalize: bool,
    /// Seconds of a chunk; the whole sound without.
    pub chunk_length_s: Option<f64>,
    /// Share of a chunk that the next one covers as well.
    pub overlap: Option<f64>,
    /// Channels of the latents.
    pub hidden_size: usize,
    /// Channels at the full rate; they are doubled with every ratio.
    pub num_filters: usize,
    /// Residual blocks at each rate.
    pub num_residual_layers: usize,
    /// Factors of the rates in the decoder; the encoder has them in reverse.
    pub upsampling_ratios: Vec<usize>,
    /// Normalisation of the layers.
    pub norm_type: EncodecNorm,
    /// Length of the first kernel.
    pub kernel_size: usize,
    /// Length of the last kernel.
    pub last_kernel_size: usize,
    /// Length of the kernels in residual blocks.
    pub residual_kernel_size: usize,
    /// Factor of the dilation from one residual block to the next.
    pub dilation_growth_rate: usize,
    /// Whether no layer sees what comes later.
    pub use_causal_conv: bool,
    /// How signals are padded at their ends.
    pub pad_mode: PaddingMode,
    /// Divisor of the channels within residual blocks.
    pub compress: usize,
    /// Layers of the recurrent networks.
    pub num_lstm_layers: usize,
    /// Share of the excess of a transposed convolution that is cut off at the end; below 1 only
    /// with `use_causal_conv`.
    pub trim_right_ratio: f64,
    /// Codes of a codebook, a power of two.
    pub codebook_size: usize,
    /// Width of a code, which has to be `hidden_size`.
    pub codebook_dim: Option<usize>,
    /// Whether the shortcut of a residual block is a convolution.
    pub use_conv_shortcut: bool,
    /// Share of the samples of a batch that are quantised by a random number of codebooks in
    /// training. A field of this library, as the following ones.
    pub quantizer_dropout: f64,
    /// Weight of the past in the moving averages of the codes in training.
    pub codebook_decay: f64,
    /// Codes with less than this share of the mean use are replaced in training.
    pub revive_below: f64,
}

impl Default for EncodecConfig {
    fn default() -> Self {
        Self {
            target_bandwidths: vec![1.5, 3.0, 6.0, 12.0, 24.0],
            sampling_rate: 24_000,
            audio_channels: 1,
            normalize: false,
            chunk_length_s: None,
            overlap: None,
            hidden_size: 128,
            num_filters: 32,
            num_residual_layers: 1,
            upsampling_ratios: vec![8, 5, 4, 2],
            norm_type: EncodecNorm::WeightNorm,
            kernel_size: 7,
            last_kernel_size: 7,
            residual_kernel_size: 3,
            dilation_growth_rate: 2,
            use_causal_conv: true,
            pad_mode: PaddingMode::Reflect,
            compress: 2,
            num_lstm_layers: 2,
            trim_right_ratio: 1.0,
            codebook_size: 1024,
            codebook_dim: None,
            use_conv_shortcut: true,
            quantizer_dropout: 0.0,
            codebook_decay: 0.99,
            revive_below: 0.03,
        }
    }
}

/// Fields of this library, which are written where they differ from the default only.
const OWN: [&str; 3] = ["quantizer_dropout", "codebook_decay", "revive_below"];

impl EncodecConfig {
    /// A small causal codec of speech at 8 kHz: 50 frames a second, four codebooks of 256 codes,
    /// 1.6 kbit/s.
    pub fn speech_8khz() -> Self {
        Self {
            target_bandwidths: vec![0.4, 0.8, 1.2, 1.6],
            sampling_rate: 8000,
            hidden_size: 64,
            num_filters: 16,
            upsampling_ratios: vec![8, 5, 4],
            num_lstm_layers: 1,
            codebook_size: 256,
            codebook_decay: 0.9,
            ..Self::default()
        }
    }

    /// A configuration from the text of transformers' `config.json`. Missing fields have the
    /// defaults of transformers. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value that
    /// is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let fields = fields_of(text, MODEL_TYPE)?;
        let config: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json`, which transformers opens.
    pub fn to_json(&self) -> String {
        let (mut fields, default) = (json::to_map(self), json::to_map(&Self::default()));
        fields.retain(|name, value| {
            !OWN.contains(&name.as_str()) || default.get(name) != Some(&*value)
        });
        if self.pad_mode == PaddingMode::Zeros {
            fields.insert("pad_mode".into(), "constant".into());
        }
        fields.insert("model_type".into(), MODEL_TYPE.into());
        fields.insert("architectures".into(), vec!["EncodecModel"].into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Samples that a frame of codes stands for.
    pub fn hop_length(&self) -> usize {
        hop_length(&self.upsampling_ratios)
    }

    /// Frames per second, rounded up.
    pub fn frame_rate(&self) -> usize {
        (self.sampling_rate as usize).div_ceil(self.hop_length())
    }

    /// Thousands of bits per second of one codebook.
    pub(super) fn codebook_bandwidth(&self) -> f64 {
        self.frame_rate() as f64 * (self.codebook_size as f64).log2() / 1000.0
    }

    /// Number of codebooks: as many as fit into the last of the `target_bandwidths`.
    pub fn num_quantizers(&self) -> usize {
        let last = self.target_bandwidths.last().copied().unwrap_or(0.0);
        whole_parts(last, self.codebook_bandwidth())
    }

    /// Number of codebooks of one of the `target_bandwidths`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another bandwidth.
    pub fn num_quantizers_for(&self, bandwidth: f64) -> Result<usize> {
        if !self.target_bandwidths.contains(&bandwidth) {
            let expected = format!("one of {:?} kbit/s", self.target_bandwidths);
            return Err(Error::argument("bandwidth", bandwidth, expected));
        }
        let count = whole_parts(bandwidth, self.codebook_bandwidth());
        Ok(count.clamp(1, self.num_quantizers()))
    }

    /// Samples of a chunk.
    pub fn chunk_length(&self) -> Option<usize> {
        let seconds = self.chunk_length_s?;
        Some((seconds * f64::from(self.sampling_rate)) as usize)
    }

    /// Samples from the start of a chunk to that of the next.
    pub fn chunk_stride(&self) -> Option<usize> {
        let length = self.chunk_length()?;
        let stride = ((1.0 - self.overlap?) * length as f64) as usize;
        Some(stride.max(1))
    }

    /// The quantiser of the latents. Its losses have the weight 1; the objective weighs them.
    pub(super) fn quantizer(&self) -> ResidualQuantizerConfig {
        let stage = VectorQuantizerConfig {
            decay: self.codebook_decay,
            commitment_weight: 1.0,
            revive_below: self.revive_below,
            ..VectorQuantizerConfig::new(self.codebook_size, self.hidden_size)
        };
        ResidualQuantizerConfig {
            dropout: self.quantizer_dropout,
            ..ResidualQuantizerConfig::new(self.num_quantizers(), stage)
        }
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<EncodecModel> {
        EncodecModel::new(self, self.norm_type == EncodecNorm::WeightNorm, device)
    }
}

/// How often `part` fits into `whole`. Rates are decimal fractions: half a millionth is rounding.
fn whole_parts(whole: f64, part: f64) -> usize {
    (whole / part + 5e-7).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_paper() {
        let config = EncodecConfig::default();
        assert_eq!((config.hop_length(), config.frame_rate()), (320, 75));
        let counts = config.target_bandwidths.iter();
        let counts: Vec<usize> = counts
            .map(|rate| config.num_quantizers_for(*rate).unwrap())
            .collect();
        assert_eq!(counts, [2, 4, 8, 16, 32]);
        let message = config.num_quantizers_for(2.0).unwrap_err().to_string();
        assert!(
            message.contains("one of [1.5, 3.0, 6.0, 12.0, 24.0]"),
            "{message}"
        );
        let speech = EncodecConfig::speech_8khz();
        speech.validate().unwrap();
        assert_eq!((speech.hop_length(), speech.frame_rate()), (160, 50));
        let counts = speech.target_bandwidths.iter();
        let counts: Vec<usize> = counts
            .map(|rate| speech.num_quantizers_for(*rate).unwrap())
            .collect();
        assert_eq!(counts, [1, 2, 3, 4]);
    }

    #[test]
    fn configurations_are_written_as_they_are_read() {
        let config = EncodecConfig {
            pad_mode: PaddingMode::Zeros,
            chunk_length_s: Some(1.0),
            overlap: Some(0.01),
            quantizer_dropout: 0.5,
            ..EncodecConfig::default()
        };
        let text = config.to_json();
        assert!(
            text.contains("\"constant\"") && !text.contains("codebook_decay"),
            "{text}"
        );
        assert_eq!(
            EncodecConfig::from_json(&text).unwrap(),
            Loaded::new(config)
        );
        let text = r#"{"model_type": "encodec", "dtype": "float32", "colour": "red"}"#;
        assert_eq!(
            EncodecConfig::from_json(text).unwrap().unused_fields,
            ["colour"]
        );
    }
}
