//! Configuration of VITS.

use crate::speech::{duration::DurationSizes, text_encoder::TextEncoderSizes};
use aigc_core::{Error, Result, json, weights::Loaded};
use serde::{Deserialize, Serialize};

/// `model_type` of a `config.json`.
const MODEL_TYPE: &str = "vits";

/// Fields without an effect on the network.
const IDLE: &[&str] = &[
    "architectures",
    "dtype",
    "initializer_range",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "return_dict",
    "torch_dtype",
    "transformers_version",
];

/// Configuration to create a [`VitsModel`](super::VitsModel): the fields of transformers'
/// `VitsConfig`. The default is that of transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VitsConfig {
    /// Number of symbols.
    pub vocab_size: usize,
    /// Width of the text encoder and of the flows' networks.
    pub hidden_size: usize,
    /// Number of layers of the text encoder.
    pub num_hidden_layers: usize,
    /// Number of attention heads; it must divide the width.
    pub num_attention_heads: usize,
    /// Distance up to which relative positions have vectors of their own.
    pub window_size: usize,
    /// Whether the projections of attention have biases.
    pub use_bias: bool,
    /// Inner width of the feed-forward networks.
    pub ffn_dim: usize,
    /// Probability that transformers leaves out a layer in training. Has no effect here.
    pub layerdrop: f64,
    /// Kernel of the feed-forward networks' convolutions.
    pub ffn_kernel_size: usize,
    /// Channels of the latents; an even number.
    pub flow_size: usize,
    /// Bins of the spectrograms that the posterior encoder reads.
    pub spectrogram_bins: usize,
    /// Activation of the feed-forward networks.
    pub hidden_act: String,
    /// Dropout that transformers applies in training. Has no effect here, nor have the next two.
    pub hidden_dropout: f64,
    /// Dropout of attention weights.
    pub attention_dropout: f64,
    /// Dropout in the feed-forward networks.
    pub activation_dropout: f64,
    /// Added to variances in the norms of the text encoder.
    pub layer_norm_eps: f64,
    /// Whether durations are drawn by a flow, instead of estimated.
    pub use_stochastic_duration_prediction: bool,
    /// Number of speakers.
    pub num_speakers: usize,
    /// Width of the speakers' embeddings; 0 for one speaker.
    pub speaker_embedding_size: usize,
    /// Channels before the first upsampling of the decoder.
    pub upsample_initial_channel: usize,
    /// Factor of each upsampling of the decoder. Their product is the number of samples of a frame.
    pub upsample_rates: Vec<usize>,
    /// Kernel of each upsampling.
    pub upsample_kernel_sizes: Vec<usize>,
    /// Kernels of the decoder's residual blocks.
    pub resblock_kernel_sizes: Vec<usize>,
    /// Dilations of each of these blocks.
    pub resblock_dilation_sizes: Vec<Vec<usize>>,
    /// Slope of the decoder's leaky ReLUs.
    pub leaky_relu_slope: f64,
    /// Channels of the flows of durations; an even number.
    pub depth_separable_channels: usize,
    /// Layers of the networks of these flows.
    pub depth_separable_num_layers: usize,
    /// Bins of the splines.
    pub duration_predictor_flow_bins: usize,
    /// The splines map `±bound` to itself; outside, they are the identity.
    pub duration_predictor_tail_bound: f64,
    /// Kernel of the predictor's convolutions; an odd number.
    pub duration_predictor_kernel_size: usize,
    /// Dropout that transformers applies in training. Has no effect here.
    pub duration_predictor_dropout: f64,
    /// Number of splines.
    pub duration_predictor_num_flows: usize,
    /// Width of the plain predictor.
    pub duration_predictor_filter_channels: usize,
    /// Number of coupling layers.
    pub prior_encoder_num_flows: usize,
    /// Layers of the network of each coupling layer.
    pub prior_encoder_num_wavenet_layers: usize,
    /// Layers of the posterior encoder.
    pub posterior_encoder_num_wavenet_layers: usize,
    /// Kernel of these networks; an odd number.
    pub wavenet_kernel_size: usize,
    /// Factor of the dilation from layer to layer.
    pub wavenet_dilation_rate: usize,
    /// Dropout that transformers applies in training. Has no effect here.
    pub wavenet_dropout: f64,
    /// Speed of speech; durations are divided by it.
    pub speaking_rate: f64,
    /// Scale of the noise of the prior.
    pub noise_scale: f64,
    /// Scale of the noise of drawn durations.
    pub noise_scale_duration: f64,
    /// Samples per second.
    pub sampling_rate: u32,
}

impl Default for VitsConfig {
    fn default() -> Self {
        Self {
            vocab_size: 38,
            hidden_size: 192,
            num_hidden_layers: 6,
            num_attention_heads: 2,
            window_size: 4,
            use_bias: true,
            ffn_dim: 768,
            layerdrop: 0.1,
            ffn_kernel_size: 3,
            flow_size: 192,
            spectrogram_bins: 513,
            hidden_act: "relu".into(),
            hidden_dropout: 0.1,
            attention_dropout: 0.1,
            activation_dropout: 0.1,
            layer_norm_eps: 1e-5,
            use_stochastic_duration_prediction: true,
            num_speakers: 1,
            speaker_embedding_size: 0,
            upsample_initial_channel: 512,
            upsample_rates: vec![8, 8, 2, 2],
            upsample_kernel_sizes: vec![16, 16, 4, 4],
            resblock_kernel_sizes: vec![3, 7, 11],
            resblock_dilation_sizes: vec![vec![1, 3, 5]; 3],
            leaky_relu_slope: 0.1,
            depth_separable_channels: 2,
            depth_separable_num_layers: 3,
            duration_predictor_flow_bins: 10,
            duration_predictor_tail_bound: 5.0,
            duration_predictor_kernel_size: 3,
            duration_predictor_dropout: 0.5,
            duration_predictor_num_flows: 4,
            duration_predictor_filter_channels: 256,
            prior_encoder_num_flows: 4,
            prior_encoder_num_wavenet_layers: 4,
            posterior_encoder_num_wavenet_layers: 16,
            wavenet_kernel_size: 5,
            wavenet_dilation_rate: 1,
            wavenet_dropout: 0.0,
            speaking_rate: 1.0,
            noise_scale: 0.667,
            noise_scale_duration: 0.8,
            sampling_rate: 16_000,
        }
    }
}

impl VitsConfig {
    /// Reads the fields of transformers' `config.json`; missing ones have defaults. The report
    /// lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value that
    /// is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        if let Some(other) = fields.get("model_type").filter(|kind| *kind != MODEL_TYPE) {
            return Err(Error::config("model_type", other, MODEL_TYPE));
        }
        fields.retain(|field, _| !IDLE.contains(&field.as_str()));
        let config: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json`, which transformers opens.
    ///
    /// # Panics
    /// Never: the fields are plain values.
    pub fn to_json(&self) -> String {
        let mut fields = json::to_map(self);
        fields.insert("model_type".into(), MODEL_TYPE.into());
        fields.insert("architectures".into(), vec!["VitsModel"].into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Samples of a frame of latents.
    pub fn hop_length(&self) -> usize {
        let rates = self.upsample_rates.iter();
        rates.fold(1, |product, rate| product.saturating_mul(*rate))
    }

    pub(super) fn text_encoder(&self) -> Result<TextEncoderSizes> {
        Ok(TextEncoderSizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            window: self.window_size,
            ffn_dim: self.ffn_dim,
            ffn_kernel: self.ffn_kernel_size,
            bias: self.use_bias,
            activation: self.activation()?,
            epsilon: self.layer_norm_eps,
            dropout: 0.0,
            outputs: 2 * self.flow_size,
        })
    }

    pub(super) fn duration(&self) -> DurationSizes {
        DurationSizes {
            hidden_size: self.hidden_size,
            filter_channels: self.duration_predictor_filter_channels,
            kernel: self.duration_predictor_kernel_size,
            dropout: 0.0,
            epsilon: self.layer_norm_eps,
            condition: self.speaker_embedding_size,
        }
    }
}
