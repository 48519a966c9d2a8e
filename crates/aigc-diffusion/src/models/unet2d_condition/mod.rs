//! `UNet2DConditionModel`: a U-net with cross-attention, to the vectors of a text encoder for
//! instance (Rombach et al. 2022, <https://arxiv.org/abs/2112.10752>). It is the network of Stable
//! Diffusion 1, 2 and XL, of their inpainting models and upscalers, and of what was distilled from
//! them.
//!
//! | file | content |
//! |---|---|
//! | `types` | values in configurations |
//! | `config` | the configuration |
//! | `validate` | checks of its values |
//! | `embeddings` | embeddings of time, class, guidance scale and sizes |
//! | `build` | the parts of the network, which [ControlNets](super::ControlNetModel) share |

mod build;
mod config;
mod embeddings;
#[cfg(all(test, feature = "flex"))]
pub(super) mod testing;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod types;
mod validate;

pub(super) use build::same_size;
pub use config::UNet2dConditionConfig;
pub(super) use config::usual_fields;
pub use embeddings::guidance_scale_embedding;
pub(super) use embeddings::{ClassEmbedding, Embedder, EncodedTokens};
pub(super) use types::one_number;
pub use types::{
    AdditionEmbedType, CrossDownBlockType, CrossMidBlockType, CrossUpBlockType, EncoderHidDimType,
    PerBlock, TransformerLayers,
};

use super::{
    blocks::{self, Conditions, DownBlock, MidBlock, UpBlock},
    files::network_methods,
    motion::{HookedUNet, LayerHook, NoHook, UNetLayer, UNetLayout},
    time::TimeEmbedding,
    transformer::SpatialTransformer,
    unet2d::ClassEmbedType,
};
use crate::denoiser::{Conditioning, ControlResiduals, Denoiser};
use aigc_core::{
    Result,
    data::SampleShape,
    nn::{Activation, Conv2d, GroupNorm, GroupNormConfig, Linear, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Number of classes of a network that encodes them as times, if its file has no number.
const NUMBERED_CLASSES: usize = 1000;

impl UNet2dConditionConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<UNet2dConditionModel> {
        let shared = self.validate()?;
        let first = self.block_out_channels[0];
        Ok(UNet2dConditionModel {
            conv_in: self.conv_in(device),
            time_embedding: self.time_embedding(&shared, device),
            encoder_hid_proj: self.encoder_hid_proj(device),
            class_embedding: self.class_embedding(shared.activation, device),
            add_embedding: self.add_embedding(device),
            down_blocks: self.down_blocks(&shared, device)?,
            mid_block: self.mid_block(&shared, device)?,
            up_blocks: self.up_blocks(&shared, device)?,
            conv_norm_out: GroupNormConfig::new(self.norm_num_groups, first)
                .with_epsilon(self.norm_eps)
                .init(device),
            conv_out: same_size([first, self.out_channels], self.conv_out_kernel, device),
            activation: shared.activation,
            config: self.clone(),
        })
    }
}

/// A U-net with cross-attention.
#[derive(Module, Debug)]
pub struct UNet2dConditionModel {
    pub(super) conv_in: Conv2d,
    pub(super) time_embedding: TimeEmbedding,
    pub(super) encoder_hid_proj: Option<Linear>,
    pub(super) class_embedding: Option<ClassEmbedding>,
    pub(super) add_embedding: Option<TimeEmbedding>,
    pub(super) down_blocks: Vec<DownBlock<SpatialTransformer>>,
    pub(super) mid_block: Option<MidBlock<SpatialTransformer>>,
    up_blocks: Vec<UpBlock<SpatialTransformer>>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    config: UNet2dConditionConfig,
}

impl UNet2dConditionModel {
    network_methods!(UNet2dConditionConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &UNet2dConditionConfig {
        &self.config
    }

    /// The prediction for noisy images, by tokens alone.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`
    /// - time: `[batch]`
    /// - tokens: `[batch, tokens, cross_attention_dim]`
    /// - output: `[batch, out_channels, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit, or the network needs further conditions, which
    /// [`predict`](Denoiser::predict) takes.
    pub fn forward(&self, x: Tensor<4>, time: Tensor<1>, tokens: &Tensor<3>) -> Tensor<4> {
        let condition = Conditioning {
            encoder_hidden_states: Some(tokens.clone()),
            ..Conditioning::default()
        };
        self.predict(x, time, &condition)
    }

    /// [`predict`](Denoiser::predict) with an encoded guidance scale, in place of the
    /// [scale](Conditioning::guidance) of the condition.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`
    /// - time: `[batch]`
    /// - timestep_cond: `[batch, time_cond_proj_dim]`, such as a [`guidance_scale_embedding`]
    /// - output: `[batch, out_channels, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit, a condition that the network needs is missing, or there is a
    /// `timestep_cond` that the network does not take.
    pub fn forward_with_timestep_cond(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        condition: &Conditioning,
        timestep_cond: Option<Tensor<2>>,
    ) -> Tensor<4> {
        self.output(x, time, condition, timestep_cond, &NoHook)
    }

    fn output(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        condition: &Conditioning,
        timestep_cond: Option<Tensor<2>>,
        hook: &dyn LayerHook,
    ) -> Tensor<4> {
        let x = match self.config.center_input_sample {
            true => x * 2.0 - 1.0,
            false => x,
        };
        let dtype = x.dtype();
        let embedder = Embedder {
            config: &self.config,
            time: &self.time_embedding,
            class: self.class_embedding.as_ref(),
            addition: self.add_embedding.as_ref(),
            activation: self.activation,
            dtype,
        };
        let embedding = embedder.embed(time, condition, timestep_cond);
        let tokens = EncodedTokens::new(condition, self.encoder_hid_proj.as_ref(), dtype);
        let conditions = Conditions {
            time: &embedding,
            tokens: tokens.as_ref().map(EncodedTokens::tokens),
        };
        let x = hook.after_layer(UNetLayer::Input, self.conv_in.forward(x));
        let (x, skips) = blocks::down(x, conditions, &self.down_blocks, hook);
        let x = match &self.mid_block {
            Some(middle) => middle.forward(x, conditions, hook),
            None => x,
        };
        let (x, skips) = match condition.residuals.clone() {
            Some(residuals) => added(x, skips, residuals),
            None => (x, skips),
        };
        let x = blocks::up(x, conditions, skips, &self.up_blocks, hook);
        self.conv_out.forward(
            self.conv_norm_out
                .forward_with_activation(x, self.activation),
        )
    }
}

/// The last map and the skips, with what a ControlNet adds to them.
fn added(
    x: Tensor<4>,
    skips: Vec<Tensor<4>>,
    residuals: ControlResiduals,
) -> (Tensor<4>, Vec<Tensor<4>>) {
    assert_eq!(
        residuals.down.len(),
        skips.len(),
        "maps of a ControlNet, for those of the U-net"
    );
    let dtype = x.dtype();
    let pairs = skips.into_iter().zip(residuals.down);
    (
        x + ops::cast(residuals.mid, dtype),
        pairs.map(|(a, b)| a + ops::cast(b, dtype)).collect(),
    )
}

impl HookedUNet for UNet2dConditionModel {
    fn predict_hooked(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        condition: &Conditioning,
        hook: &dyn LayerHook,
    ) -> Tensor<4> {
        let scale = self
            .config
            .time_cond_proj_dim
            .zip(condition.guidance.clone());
        let timestep_cond = scale.map(|(width, scale)| guidance_scale_embedding(scale, width));
        self.output(x, time, condition, timestep_cond, hook)
    }

    fn layout(&self) -> UNetLayout {
        let config = &self.config;
        UNetLayout::new(
            &config.block_out_channels,
            config.layers_per_block,
            config.norm_num_groups,
        )
    }
}

impl Denoiser for UNet2dConditionModel {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        self.predict_hooked(x, time, condition, &NoHook)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, true)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.config.check_trainable(shape)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config.tokens_width())
    }

    fn class_embedding_dim(&self) -> Option<usize> {
        match self.config.class_embed_type? {
            ClassEmbedType::Identity => Some(self.config.time_width()),
            ClassEmbedType::Projection | ClassEmbedType::SimpleProjection => {
                self.config.projection_class_embeddings_input_dim
            }
            ClassEmbedType::Timestep => None,
        }
    }

    fn num_classes(&self) -> Option<usize> {
        let given = self.config.num_class_embeds;
        match self.config.class_embed_type {
            None => given,
            Some(ClassEmbedType::Timestep) => given.or(Some(NUMBERED_CLASSES)),
            Some(_) => None,
        }
    }

    fn needs_from_pipeline(&self) -> Option<&'static str> {
        let addition = self.config.addition_embed_type;
        addition.map(|_| "pooled_projections and time_ids")
    }

    fn extra_input_channels(&self) -> usize {
        self.config.extra_input_channels()
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let [height, width] = self.config.sample_size?.sides();
        let channels = self.config.in_channels.min(self.config.out_channels);
        Some(SampleShape::new(&[channels, height, width]))
    }
}
