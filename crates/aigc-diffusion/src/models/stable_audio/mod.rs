//! Stable Audio's networks (Evans et al. 2024, <https://arxiv.org/abs/2407.14358>): a transformer
//! over the frames of latents, and the projection of its conditions.
//!
//! | file | content |
//! |---|---|
//! | `config` | the configurations |
//! | `layers` | attention with rotary embeddings of half a head, and blocks |
//! | `projection` | conditions of text and of seconds |

mod config;
mod layers;
mod projection;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::{StableAudioDitConfig, StableAudioProjectionConfig};
pub use projection::StableAudioProjectionModel;

use super::{files::network_methods, fourier::FourierFeatures};
use crate::denoiser::{Conditioning, Denoiser};
use aigc_core::{
    Result,
    data::SampleShape,
    nn::{
        Conv1d, Conv1dConfig, Linear, LinearConfig, RotaryEmbeddingConfig, diffusers::diffusers_key,
    },
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use layers::{Block, PartialRotary, TwoLayers, through, two_layers};
use std::path::Path;

/// Base of the wavelengths of rotary embeddings.
const THETA: f64 = 10_000.0;

impl StableAudioDitConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<StableAudioDitModel> {
        self.validate()?;
        let (width, channels) = (self.width(), self.in_channels);
        let context = [self.cross_attention_dim, self.num_key_value_attention_heads];
        let conv = || {
            Conv1dConfig::new([channels, channels], 1)
                .with_bias(false)
                .init(device)
        };
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let tokens = [self.cross_attention_input_dim, self.cross_attention_dim];
        let block = |_| Block::new(width, self.num_attention_heads, context, device);
        Ok(StableAudioDitModel {
            time_proj: FourierFeatures::new(self.time_proj_dim / 2, 1.0, true, device),
            timestep_proj: two_layers([self.time_proj_dim, width], true, device),
            global_proj: two_layers([self.global_states_input_dim, width], false, device),
            cross_attention_proj: two_layers(tokens, false, device),
            preprocess_conv: conv(),
            proj_in: linear(channels, width),
            transformer_blocks: (0..self.num_layers).map(block).collect(),
            proj_out: linear(width, channels),
            postprocess_conv: conv(),
            config: self.clone(),
        })
    }
}

/// The transformer of Stable Audio.
#[derive(Module, Debug)]
pub struct StableAudioDitModel {
    time_proj: FourierFeatures,
    timestep_proj: TwoLayers,
    global_proj: TwoLayers,
    cross_attention_proj: TwoLayers,
    preprocess_conv: Conv1d,
    proj_in: Linear,
    transformer_blocks: Vec<Block>,
    proj_out: Linear,
    postprocess_conv: Conv1d,
    #[module(skip)]
    config: StableAudioDitConfig,
}

impl StableAudioDitModel {
    network_methods!(StableAudioDitConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &StableAudioDitConfig {
        &self.config
    }

    /// The prediction for noisy latents.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, frames]`
    /// - time: `[batch]`
    /// - encoder_hidden_states: `[batch, tokens, cross_attention_input_dim]`
    /// - global_hidden_states: `[batch, global_states_input_dim]`
    /// - output: `[batch, out_channels, frames]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(
        &self,
        x: Tensor<3>,
        time: Tensor<1>,
        encoder_hidden_states: Tensor<3>,
        global_hidden_states: Tensor<2>,
    ) -> Tensor<3> {
        let (dtype, device) = (x.dtype(), x.device());
        let [_, _, frames] = x.dims();
        let context = through(
            &self.cross_attention_proj,
            ops::cast(encoder_hidden_states, dtype),
        );
        let encoded = ops::cast(self.time_proj.forward(time), dtype);
        let global = through(&self.global_proj, ops::cast(global_hidden_states, dtype))
            + through(&self.timestep_proj, encoded);
        let x = self.preprocess_conv.forward(x.clone()) + x;
        let x = self.proj_in.forward(ops::contiguous(x.swap_dims(1, 2)));
        // Global condition and time are a token before those of the frames.
        let x = Tensor::cat(vec![global.unsqueeze_dim(1), x], 1);
        let table = RotaryEmbeddingConfig {
            d_head: self.config.rotary_width(),
            max_positions: frames + 1,
            theta: THETA,
        };
        let rotary = PartialRotary {
            table: table.init(&device),
            width: self.config.rotary_width(),
        };
        let x = self
            .transformer_blocks
            .iter()
            .fold(x, |x, block| block.forward(x, context.clone(), &rotary));
        let x = self.proj_out.forward(x.narrow(1, 1, frames));
        let x = ops::contiguous(x.swap_dims(1, 2));
        self.postprocess_conv.forward(x.clone()) + x
    }
}

impl Denoiser<3> for StableAudioDitModel {
    /// The mask of the encoder hidden states is not used, as in diffusers, where the hidden states
    /// of padding are set to zero before.
    ///
    /// # Panics
    /// Without `encoder_hidden_states` or `pooled_projections`.
    fn predict(&self, x: Tensor<3>, time: Tensor<1>, condition: &Conditioning<3>) -> Tensor<3> {
        let tokens = condition.encoder_hidden_states.clone();
        let global = condition.pooled_projections.clone();
        self.forward(
            x,
            time,
            tokens.expect("this network needs encoder hidden states"),
            global.expect("this network needs pooled_projections, its global condition"),
        )
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check_shape(shape)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config.cross_attention_input_dim)
    }

    fn needs_from_pipeline(&self) -> Option<&'static str> {
        Some("pooled_projections")
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let config = &self.config;
        Some(SampleShape::new(&[config.in_channels, config.sample_size]))
    }

    fn component(&self) -> &'static str {
        "transformer"
    }
}
