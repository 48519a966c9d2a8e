//! `FluxTransformer2DModel`: the transformer of FLUX.1 (Black Forest Labs 2024,
//! <https://github.com/black-forest-labs/flux>): blocks with weights for the image and for the
//! prompt, then blocks with the same weights for both, with rotary positions.

mod config;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::FluxTransformerConfig;

use super::{
    joint::{EPSILON, JointBlock, JointBlockConfig, Modulation, TimeTextEmbedding, scaled},
    latents::{PATCH, image_positions, pack_latents, text_positions, unpack_latents},
    patches::modulated_norm,
    rotary::RotaryTable,
};
use crate::{
    denoiser::{Conditioning, Denoiser},
    models::{
        attention::{Attention, AttentionConfig},
        files::network_methods,
    },
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

/// Times and guidance scales are encoded a thousand times as large.
const SCALE: f64 = 1000.0;

impl FluxTransformerConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<FluxTransformerModel> {
        self.validate()?;
        let fields = self.fields();
        let (width, heads) = (fields.width(), self.num_attention_heads);
        let block = |_| {
            let config = JointBlockConfig {
                width,
                heads,
                qk_norm: true,
                dual_attention: false,
                context_pre_only: false,
            };
            config.init(device)
        };
        let single = |_| SingleBlock::new(width, heads, device);
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Ok(FluxTransformerModel {
            time_text_embed: TimeTextEmbedding::new(
                width,
                self.pooled_projection_dim,
                self.guidance_embeds,
                device,
            ),
            context_embedder: linear(self.joint_attention_dim, width),
            x_embedder: linear(self.in_channels, width),
            transformer_blocks: (0..self.num_layers).map(block).collect(),
            single_transformer_blocks: (0..self.num_single_layers).map(single).collect(),
            norm_out: Modulation::new(width, 2, device),
            proj_out: linear(width, fields.out_channels),
            config: self.clone(),
        })
    }
}

/// Attention of all tokens to each other, and a feed-forward layer beside it (Dehghani et al. 2023,
/// <https://arxiv.org/abs/2302.05442>, section 2).
#[derive(Module, Debug)]
struct SingleBlock {
    norm: Modulation,
    proj_mlp: Linear,
    proj_out: Linear,
    attn: Attention,
}

impl SingleBlock {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        let attention = AttentionConfig {
            qk_norm: true,
            outputs: [false, false],
            ..AttentionConfig::new(width, heads)
        };
        Self {
            norm: Modulation::new(width, 3, device),
            proj_mlp: LinearConfig::new(width, 4 * width).init(device),
            proj_out: LinearConfig::new(5 * width, width).init(device),
            attn: attention.init(device),
        }
    }

    fn forward(&self, x: Tensor<3>, conditions: &Tensor<2>, rotary: &RotaryTable) -> Tensor<3> {
        let [shift, scale, gate] = self.norm.parts(conditions);
        let h = modulated_norm(x.clone(), scale, shift, EPSILON);
        let attended = self.attn.forward(h.clone(), Some(rotary));
        let h = Activation::GeluTanh.forward(self.proj_mlp.forward(h));
        x + self.proj_out.forward(Tensor::cat(vec![attended, h], 2)) * gate
    }
}

/// What [`FluxTransformerModel::forward`] takes besides tokens and time, with the names of
/// diffusers.
#[derive(Clone, Debug)]
pub struct FluxInputs {
    /// Hidden states of the prompt, `[batch, text tokens, joint_attention_dim]`.
    pub encoder_hidden_states: Tensor<3>,
    /// The pooled prompt, `[batch, pooled_projection_dim]`.
    pub pooled_projections: Tensor<2>,
    /// Positions of the image's tokens, `[tokens, 3]`
    /// ([`latent_image_ids`](super::latent_image_ids)).
    pub img_ids: Tensor<2>,
    /// Positions of the prompt's tokens, `[text tokens, 3]` ([`text_ids`](super::text_ids)).
    pub txt_ids: Tensor<2>,
    /// The guidance scale, `[batch]`, of a network with `guidance_embeds`.
    pub guidance: Option<Tensor<1>>,
}

/// The transformer of FLUX.1.
#[derive(Module, Debug)]
pub struct FluxTransformerModel {
    time_text_embed: TimeTextEmbedding,
    context_embedder: Linear,
    x_embedder: Linear,
    transformer_blocks: Vec<JointBlock>,
    single_transformer_blocks: Vec<SingleBlock>,
    norm_out: Modulation,
    proj_out: Linear,
    #[module(skip)]
    config: FluxTransformerConfig,
}

impl FluxTransformerModel {
    network_methods!(FluxTransformerConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &FluxTransformerConfig {
        &self.config
    }

    /// The prediction for [packed](super::pack_latents) noisy latent maps.
    ///
    /// # Shapes
    /// - hidden_states: `[batch, tokens, in_channels]`
    /// - timestep: `[batch]`, 0 to 1
    /// - output: `[batch, tokens, out_channels]`
    ///
    /// # Panics
    /// If the shapes do not fit, or the network takes a guidance scale and there is none.
    pub fn forward(
        &self,
        hidden_states: Tensor<3>,
        timestep: Tensor<1>,
        inputs: &FluxInputs,
    ) -> Tensor<3> {
        let positions = [&inputs.txt_ids, &inputs.img_ids]
            .into_iter()
            .flat_map(|ids| {
                let ids: Vec<f64> = ids.to_data().iter::<f64>().collect();
                let tokens = ids.chunks_exact(3);
                tokens.map(|at| [at[0], at[1], at[2]]).collect::<Vec<_>>()
            });
        let rotary = self.rotary(positions, &hidden_states.device());
        self.with_positions(
            hidden_states,
            timestep,
            inputs.guidance.clone(),
            Prompt {
                hidden_states: inputs.encoder_hidden_states.clone(),
                pooled: inputs.pooled_projections.clone(),
            },
            &rotary,
        )
    }

    fn rotary(&self, positions: impl Iterator<Item = [f64; 3]>, device: &Device) -> RotaryTable {
        let positions: Vec<[f64; 3]> = positions.collect();
        RotaryTable::new(&positions, self.config.axes_dims_rope, device)
    }

    fn with_positions(
        &self,
        x: Tensor<3>,
        timestep: Tensor<1>,
        guidance: Option<Tensor<1>>,
        prompt: Prompt,
        rotary: &RotaryTable,
    ) -> Tensor<3> {
        let embedding = self.time_text_embed.forward(
            timestep * SCALE,
            guidance.map(|scale| scale * SCALE),
            prompt.pooled,
            x.dtype(),
        );
        let conditions = Activation::Silu.forward(embedding);
        let hidden_states = ops::cast(prompt.hidden_states, x.dtype());
        let x = self.x_embedder.forward(x);
        let context = self.context_embedder.forward(hidden_states);
        let (tokens, others) = (x.dims()[1], context.dims()[1]);
        let (x, context) = self
            .transformer_blocks
            .iter()
            .fold((x, context), |(x, context), block| {
                block.forward(x, context, &conditions, Some(rotary))
            });
        let both = self
            .single_transformer_blocks
            .iter()
            .fold(Tensor::cat(vec![context, x], 1), |both, block| {
                block.forward(both, &conditions, rotary)
            });
        let x = scaled(both.narrow(1, others, tokens), &self.norm_out, &conditions);
        self.proj_out.forward(x)
    }
}

/// A prompt's hidden states, and its pooled vector.
struct Prompt {
    hidden_states: Tensor<3>,
    pooled: Tensor<2>,
}

impl Denoiser for FluxTransformerModel {
    /// Times are those of the schedulers, 0 to 1000.
    ///
    /// Padding of the prompt is attended to, as in diffusers: the mask is not used.
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let hidden_states = condition.encoder_hidden_states.clone();
        let hidden_states = hidden_states.expect("this network needs encoder hidden states");
        let pooled = condition.pooled_projections.clone();
        let pooled = pooled.expect("this network needs pooled projections");
        let [_, _, height, width] = x.dims();
        let patches = [height / PATCH, width / PATCH];
        let positions = text_positions(hidden_states.dims()[1]).chain(image_positions(patches));
        let rotary = self.rotary(positions, &x.device());
        let prompt = Prompt {
            hidden_states,
            pooled,
        };
        // Divided here and multiplied again there: the last digit is that of diffusers.
        let (time, guidance) = (time / SCALE, condition.guidance.clone());
        let tokens = self.with_positions(pack_latents(x), time, guidance, prompt, &rotary);
        unpack_latents(tokens, patches)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.config.check_trainable(shape)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config.joint_attention_dim)
    }

    fn needs_from_pipeline(&self) -> Option<&'static str> {
        Some("pooled_projections")
    }

    /// What FLUX.1 Fill, Depth and Canny are conditioned on.
    fn extra_input_channels(&self) -> usize {
        self.config.extra_input_channels()
    }

    fn component(&self) -> &'static str {
        "transformer"
    }
}
