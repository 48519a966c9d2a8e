//! `SD3Transformer2DModel`: the transformer of Stable Diffusion 3 and 3.5 (Esser et al. 2024,
//! <https://arxiv.org/abs/2403.03206>).

mod config;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::Sd3TransformerConfig;

use super::{
    joint::{JointBlock, JointBlockConfig, Modulation, TimeTextEmbedding, scaled},
    patches::{PatchEmbed, unpatched},
};
use crate::{
    denoiser::{Conditioning, Denoiser},
    models::files::network_methods,
};
use aigc_core::{
    Result,
    data::SampleShape,
    nn::{Activation, Linear, LinearConfig, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

impl Sd3TransformerConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<Sd3TransformerModel> {
        self.validate()?;
        let fields = self.fields();
        let width = fields.width();
        let block = |i| {
            let config = JointBlockConfig {
                width,
                heads: self.num_attention_heads,
                qk_norm: self.qk_norm.is_some(),
                dual_attention: self.dual_attention_layers.contains(&i),
                context_pre_only: i + 1 == self.num_layers,
            };
            config.init(device)
        };
        let trained = self.sample_size / self.patch_size;
        let table = (
            self.pos_embed_max_size,
            trained as f64 / self.pos_embed_max_size as f64,
        );
        let outputs = self.patch_size * self.patch_size * fields.out_channels;
        Ok(Sd3TransformerModel {
            pos_embed: PatchEmbed::new(
                self.in_channels,
                width,
                self.patch_size,
                Some(table),
                device,
            ),
            time_text_embed: TimeTextEmbedding::new(
                width,
                self.pooled_projection_dim,
                false,
                device,
            ),
            context_embedder: LinearConfig::new(self.joint_attention_dim, width).init(device),
            transformer_blocks: (0..self.num_layers).map(block).collect(),
            norm_out: Modulation::new(width, 2, device),
            proj_out: LinearConfig::new(width, outputs).init(device),
            config: self.clone(),
        })
    }
}

/// The transformer of Stable Diffusion 3 and 3.5.
#[derive(Module, Debug)]
pub struct Sd3TransformerModel {
    pos_embed: PatchEmbed,
    time_text_embed: TimeTextEmbedding,
    context_embedder: Linear,
    transformer_blocks: Vec<JointBlock>,
    norm_out: Modulation,
    proj_out: Linear,
    #[module(skip)]
    config: Sd3TransformerConfig,
}

impl Sd3TransformerModel {
    network_methods!(Sd3TransformerConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &Sd3TransformerConfig {
        &self.config
    }

    /// The prediction for noisy latent maps.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`, multiples of the patch, at most
    ///   `pos_embed_max_size` patches
    /// - time: `[batch]`, 0 to 1000
    /// - encoder_hidden_states: `[batch, tokens, joint_attention_dim]`
    /// - pooled_projections: `[batch, pooled_projection_dim]`
    /// - output: `[batch, out_channels, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        encoder_hidden_states: Tensor<3>,
        pooled_projections: Tensor<2>,
    ) -> Tensor<4> {
        let (x, patches) = self.pos_embed.forward(x);
        let positions = ops::cast(self.pos_embed.cropped_positions(patches), x.dtype());
        let dtype = x.dtype();
        let embedding = self
            .time_text_embed
            .forward(time, None, pooled_projections, dtype);
        let conditions = Activation::Silu.forward(embedding);
        let hidden_states = ops::cast(encoder_hidden_states, dtype);
        let context = self.context_embedder.forward(hidden_states);
        let (x, _) = self
            .transformer_blocks
            .iter()
            .fold((x + positions, context), |(x, context), block| {
                block.forward(x, context, &conditions, None)
            });
        let x = scaled(x, &self.norm_out, &conditions);
        unpatched(self.proj_out.forward(x), patches, self.config.patch_size)
    }
}

impl Denoiser for Sd3TransformerModel {
    /// Padding of the prompt is attended to, as in diffusers: the mask is not used.
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let hidden_states = condition.encoder_hidden_states.clone();
        let hidden_states = hidden_states.expect("this network needs encoder hidden states");
        let pooled = condition.pooled_projections.clone();
        let pooled = pooled.expect("this network needs pooled projections");
        self.forward(x, time, hidden_states, pooled)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, true)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, false)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config.joint_attention_dim)
    }

    fn needs_from_pipeline(&self) -> Option<&'static str> {
        Some("pooled_projections")
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let side = self.config.sample_size;
        Some(SampleShape::new(&[self.config.in_channels, side, side]))
    }

    fn component(&self) -> &'static str {
        "transformer"
    }
}
