//! `UNet2DModel`: the network of DDPM (Ho et al. 2020, appendix B), optionally class-conditional.

mod classes;
mod config;
#[cfg(test)]
mod tests;

pub(super) use classes::Embedding;
pub use config::{
    ClassEmbedType, DownBlockType, TimeEmbeddingType, TimeScaleShift, UNet2dConfig, UpBlockType,
};

use super::{
    blocks::{self, Conditions, DownBlock, MidBlock, UpBlock},
    fourier::FourierFeatures,
    motion::{HookedUNet, LayerHook, NoHook, UNetLayer, UNetLayout},
    time::{Sinusoids, TimeEmbedding},
};
use crate::denoiser::{Conditioning, Denoiser, with_self_cond};
use aigc_core::{
    Error, Result,
    data::SampleShape,
    nn::{
        Activation, Conv2d, Conv2dConfig, GroupNorm, GroupNormConfig, diffusers::SpatialAttention,
    },
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use classes::ClassEmbedding;

/// Number of classes of a network that encodes them as times, if its file has no number.
const NUMBERED_CLASSES: usize = 1000;

impl UNet2dConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<UNet2dModel> {
        let shared = self.validate()?;
        let channels = &self.block_out_channels;
        let (levels, layers) = (channels.len(), self.layers_per_block);
        let (first, last) = (channels[0], channels[levels - 1]);
        let fourier = self.time_embedding_type == TimeEmbeddingType::Fourier;
        let encoded = if fourier { 2 * first } else { first };
        // With scale_shift the attention in the middle has no norm of its own by default.
        let attention_groups = match self.resnet_time_scale_shift {
            TimeScaleShift::Default => {
                Some(self.attn_norm_num_groups.unwrap_or(self.norm_num_groups))
            }
            TimeScaleShift::ScaleShift => self.attn_norm_num_groups,
        };
        let groups = Some(self.norm_num_groups);
        let conv = |from, to| {
            Conv2dConfig::new([from, to], 3)
                .with_padding(1)
                .init(device)
        };
        let attend = |channels, groups, scale| shared.attention(channels, groups, scale, device);
        let middle = self
            .add_attention
            .then(|| attend(last, attention_groups, self.mid_block_scale_factor));
        let down = |(i, kind): (usize, &DownBlockType)| {
            let from = if i == 0 { first } else { channels[i - 1] };
            let padding = (i + 1 < levels).then_some(self.downsample_padding);
            let attention = |_| {
                (*kind == DownBlockType::AttnDownBlock2D).then(|| attend(channels[i], groups, 1.0))
            };
            DownBlock::new(
                &shared,
                [from, channels[i]],
                layers,
                attention,
                padding,
                device,
            )
        };
        let up = |(i, kind): (usize, &UpBlockType)| {
            // From the smallest size on.
            let level = levels - 1 - i;
            let from = channels[(level + 1).min(levels - 1)];
            let mut skips = vec![channels[level]; layers];
            skips.push(channels[level.saturating_sub(1)]);
            let attention = |_| {
                (*kind == UpBlockType::AttnUpBlock2D).then(|| attend(channels[level], groups, 1.0))
            };
            UpBlock::new(
                &shared,
                [from, channels[level]],
                &skips,
                attention,
                level > 0,
                device,
            )
        };
        Ok(UNet2dModel {
            conv_in: conv(self.in_channels, first),
            // Sines are first in any case: diffusers does not pass `flip_sin_to_cos` on to them.
            time_proj: fourier.then(|| FourierFeatures::new(first, 16.0, false, device)),
            time_embedding: TimeEmbedding::new(encoded, shared.time, Activation::Silu, device),
            class_embedding: match (self.class_embed_type, self.num_class_embeds) {
                (Some(ClassEmbedType::Timestep), _) => {
                    Some(ClassEmbedding::of_number(encoded, shared.time, device))
                }
                (None, Some(count)) => Some(ClassEmbedding::table(count, shared.time, device)),
                // The others are no types of this network.
                (Some(_), _) | (None, None) => None,
            },
            down_blocks: self.down_block_types.iter().enumerate().map(down).collect(),
            mid_block: MidBlock::new(&shared, last, middle, self.mid_block_scale_factor, device),
            up_blocks: self.up_block_types.iter().enumerate().map(up).collect(),
            conv_norm_out: GroupNormConfig::new(self.norm_num_groups, first)
                .with_epsilon(self.norm_eps)
                .init(device),
            conv_out: conv(first, self.out_channels),
            activation: shared.activation,
            config: self.clone(),
        })
    }
}

/// The network of DDPM.
#[derive(Module, Debug)]
pub struct UNet2dModel {
    conv_in: Conv2d,
    /// Of the logarithm of the time.
    time_proj: Option<FourierFeatures>,
    time_embedding: TimeEmbedding,
    class_embedding: Option<ClassEmbedding>,
    down_blocks: Vec<DownBlock<SpatialAttention>>,
    mid_block: MidBlock<SpatialAttention>,
    up_blocks: Vec<UpBlock<SpatialAttention>>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    config: UNet2dConfig,
}

impl UNet2dModel {
    /// The configuration of the network.
    pub fn config(&self) -> &UNet2dConfig {
        &self.config
    }

    #[cfg(test)]
    pub(crate) fn conv_out_bias(&self) -> Tensor<1> {
        self.conv_out
            .bias
            .as_ref()
            .expect("built with a bias")
            .val()
    }

    /// The encoding of times, or of class numbers, before the embedding layers.
    ///
    /// # Shapes
    /// - time: `[batch]`
    /// - output: `[batch, width]`
    fn encode(&self, time: Tensor<1>) -> Tensor<2> {
        let config = &self.config;
        match &self.time_proj {
            Some(fourier) => fourier.forward(time.log()),
            None => Sinusoids {
                width: config.block_out_channels[0],
                cosines_first: config.flip_sin_to_cos,
                shift: config.freq_shift,
            }
            .of(time),
        }
    }

    /// The prediction for noisy images.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`, sides divisible by 2 for each size but the
    ///   smallest
    /// - time: `[batch]`
    /// - class: `[batch]`, for a network with classes
    /// - output: `[batch, out_channels, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class is missing; and if the network takes class embeddings,
    /// which are a condition of [`predict`](Denoiser::predict).
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        class: Option<Tensor<1, Int>>,
    ) -> Tensor<4> {
        self.output(x, time, self.embedded(class), &NoHook)
    }

    fn embedded(&self, class: Option<Tensor<1, Int>>) -> Option<Tensor<2>> {
        self.class_embedding.as_ref().map(|classes| {
            let class = class.expect("a class-conditional network needs class labels");
            classes.forward(class, |number| self.encode(number))
        })
    }

    /// The prediction for noisy images, with a vector for each that is added to the time embedding,
    /// `[batch, time_embedding_dim]`.
    fn output(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        class: Option<Tensor<2>>,
        hook: &dyn LayerHook,
    ) -> Tensor<4> {
        let config = &self.config;
        let x = if config.center_input_sample {
            x * 2.0 - 1.0
        } else {
            x
        };
        let mut embedding = self.time_embedding.forward(self.encode(time.clone()));
        if self.class_embedding_dim().is_some() {
            let found = class.as_ref().map(Tensor::dims);
            let found = found.expect("a network with identity embeddings needs class embeddings");
            assert_eq!(found, embedding.dims(), "shape of the class embeddings");
        }
        if let Some(class) = class {
            embedding = embedding + class;
        }
        // Every block begins with the same activation of it.
        let embedding = self.activation.forward(embedding);
        let conditions = Conditions {
            time: &embedding,
            tokens: None,
        };
        let x = hook.after_layer(UNetLayer::Input, self.conv_in.forward(x));
        let (x, skips) = blocks::down(x, conditions, &self.down_blocks, hook);
        let x = self.mid_block.forward(x, conditions, hook);
        let x = blocks::up(x, conditions, skips, &self.up_blocks, hook);
        let output = self.conv_out.forward(
            self.conv_norm_out
                .forward_with_activation(x, Activation::Silu),
        );
        match self.time_proj {
            Some(_) => output / time.reshape([-1, 1, 1, 1]),
            None => output,
        }
    }
}

impl HookedUNet for UNet2dModel {
    fn predict_hooked(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        condition: &Conditioning,
        hook: &dyn LayerHook,
    ) -> Tensor<4> {
        let x = with_self_cond(x, self.config.in_channels, condition);
        let class = match self.class_embedding_dim() {
            None => self.embedded(condition.class_labels.clone()),
            Some(_) => condition.class_embeddings.clone(),
        };
        self.output(x, time, class, hook)
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

impl Denoiser for UNet2dModel {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        self.predict_hooked(x, time, condition, &NoHook)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, true)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, false)
    }

    fn check_min_time(&self, min: f64) -> Result<()> {
        if self.config.time_embedding_type != TimeEmbeddingType::Fourier || min > 0.0 {
            return Ok(());
        }
        Err(Error::config(
            "time_embedding_type",
            "fourier",
            format!(
                "positional, for times down to {min}: fourier encodes ln t, so t must exceed 0"
            ),
        ))
    }

    fn class_embedding_dim(&self) -> Option<usize> {
        let identity = self.config.class_embed_type == Some(ClassEmbedType::Identity);
        identity.then(|| self.config.time_width())
    }

    fn num_classes(&self) -> Option<usize> {
        let given = self.config.num_class_embeds;
        match self.config.class_embed_type {
            None => given,
            Some(ClassEmbedType::Timestep) => given.or(Some(NUMBERED_CLASSES)),
            Some(_) => None,
        }
    }

    fn null_class(&self) -> Option<u32> {
        self.config.null_class
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        self.config.in_channels == 2 * channels
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let [height, width] = self.config.sample_size?.sides();
        let channels = self.config.in_channels.min(self.config.out_channels);
        Some(SampleShape::new(&[channels, height, width]))
    }
}
