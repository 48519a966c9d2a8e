//! `UNetSpatioTemporalConditionModel`: the network of Stable Video Diffusion (Blattmann et al.
//! 2023, <https://arxiv.org/abs/2311.15127>). Convolutions and transformers of frames are followed
//! by those over time, and the results are mixed.
//!
//! | file | content |
//! |---|---|
//! | `config` | the configuration |
//! | `mixer` | the mixing |
//! | `resnet`, `transformer` | convolutions over time; attention within and between frames |
//! | `temporal` | both for all layers |

mod config;
mod mixer;
mod resnet;
mod temporal;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod transformer;

pub use config::UNetSpatioTemporalConditionConfig;

use super::{
    CrossDownBlockType,
    attention::PromptTokens,
    blocks::{self, Conditions, DownBlock, MidBlock, Shared, UpBlock},
    motion::{
        LayerHook, UNetLayer, frames, image_shape,
        joined::{joined_network_methods, save, without_field},
    },
    time::{Sinusoids, TimeEmbedding},
    transformer::SpatialTransformer,
    unet2d_condition::same_size,
};
use crate::denoiser::{Conditioning, Denoiser, check_image};
use aigc_core::{
    Error, Result,
    data::SampleShape,
    nn::{Activation, Conv2d, GroupNorm, GroupNormConfig, diffusers::diffusers_key},
    ops,
    weights::{KeyMapping, Loaded, OpenOptions, ParamKey, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use config::GROUPS;
use std::path::Path;
use temporal::{MIDDLE_EPSILON, Mixing, TemporalLayers, UP_EPSILON, down_epsilon};
use transformer::VideoTokens;

/// A U-net over frames with layers over time, conditioned on an image and on numbers about the
/// video.
#[derive(Module, Debug)]
pub struct UNetSpatioTemporalConditionModel {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    add_embedding: TimeEmbedding,
    /// Convolutions; all attention is in `temporal`.
    down_blocks: Vec<DownBlock<SpatialTransformer>>,
    mid_block: MidBlock<SpatialTransformer>,
    up_blocks: Vec<UpBlock<SpatialTransformer>>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    temporal: TemporalLayers,
    #[module(skip)]
    config: UNetSpatioTemporalConditionConfig,
}

impl UNetSpatioTemporalConditionConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<UNetSpatioTemporalConditionModel> {
        self.validate()?;
        let channels = &self.block_out_channels;
        let (first, last) = (channels[0], channels.len() - 1);
        let (time, layers) = (self.time_width(), self.layers_per_block);
        let shared = |epsilon| Shared {
            time,
            groups: GROUPS,
            epsilon,
            activation: Activation::Silu,
            dropout: 0.0,
            scale_shift: false,
            head_width: None,
        };
        let down = |(level, kind): (usize, &CrossDownBlockType)| {
            DownBlock::<SpatialTransformer>::new(
                &shared(down_epsilon(*kind)),
                [channels[level.saturating_sub(1)], channels[level]],
                layers,
                |_| None,
                (level < last).then_some(1),
                device,
            )
        };
        let up = |level: usize| {
            let mut skips = vec![channels[level]; layers];
            skips.push(channels[level.saturating_sub(1)]);
            UpBlock::<SpatialTransformer>::new(
                &shared(UP_EPSILON),
                [channels[(level + 1).min(last)], channels[level]],
                &skips,
                |_| None,
                level > 0,
                device,
            )
        };
        let added = self.projection_class_embeddings_input_dim;
        Ok(UNetSpatioTemporalConditionModel {
            conv_in: same_size([self.in_channels, first], 3, device),
            time_embedding: TimeEmbedding::new(first, time, Activation::Silu, device),
            add_embedding: TimeEmbedding::new(added, time, Activation::Silu, device),
            down_blocks: self.down_block_types.iter().enumerate().map(down).collect(),
            mid_block: MidBlock::new(&shared(MIDDLE_EPSILON), channels[last], None, 1.0, device),
            up_blocks: (0..=last).rev().map(up).collect(),
            conv_norm_out: GroupNormConfig::new(GROUPS, first).init(device),
            conv_out: same_size([first, self.out_channels], 3, device),
            temporal: TemporalLayers::new(self, device),
            config: self.clone(),
        })
    }
}

/// The place of a parameter in files, where the convolutions of a frame have a name of their own.
fn key(key: ParamKey<'_>) -> KeyMapping {
    if key.path.starts_with("temporal.") {
        return diffusers_key(without_field(key, &["temporal"]));
    }
    let split = key.path.split_once(".resnets.");
    let parts = split.and_then(|(block, rest)| Some((block, rest.split_once('.')?)));
    match parts {
        Some((block, (layer, rest))) => diffusers_key(ParamKey {
            path: &format!("{block}.resnets.{layer}.spatial_res_block.{rest}"),
            module: key.module,
        }),
        None => diffusers_key(key),
    }
}

impl UNetSpatioTemporalConditionModel {
    joined_network_methods!(UNetSpatioTemporalConditionConfig, key);

    /// The configuration of the network.
    pub fn config(&self) -> &UNetSpatioTemporalConditionConfig {
        &self.config
    }

    /// Writes the network's directory, as diffusers does, with weights in 32 bits.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        save(self, key, &self.config.to_json(), dir.as_ref())
    }

    /// The embedding that all blocks receive, activated.
    ///
    /// # Shapes
    /// - time: `[batch]`, numbers: `[batch, count]`
    /// - output: `[batch, width]`
    fn embedding(&self, time: Tensor<1>, numbers: Tensor<2>, like: &Tensor<4>) -> Tensor<2> {
        let encode = |width: usize, numbers: Tensor<1>| {
            let sinusoids = Sinusoids {
                width,
                cosines_first: true,
                shift: 0.0,
            };
            ops::cast(sinusoids.of(numbers), like.dtype())
        };
        let width = self.config.addition_time_embed_dim;
        let [batch, count] = numbers.dims();
        assert_eq!(
            count * width,
            self.config.projection_class_embeddings_input_dim,
            "width of {count} encoded numbers (time_ids)"
        );
        let added = encode(width, numbers.reshape([batch * count])).reshape([batch, count * width]);
        let time = encode(self.config.block_out_channels[0], time);
        let sum = self.time_embedding.forward(time) + self.add_embedding.forward(added);
        Activation::Silu.forward(sum)
    }
}

impl Denoiser<5> for UNetSpatioTemporalConditionModel {
    /// # Panics
    /// Without `encoder_hidden_states`, or without `time_ids`: frame rate, motion and strength of
    /// the noise of the image.
    fn predict(&self, x: Tensor<5>, time: Tensor<1>, condition: &Conditioning<5>) -> Tensor<5> {
        let numbers = condition.time_ids.clone();
        let numbers = numbers.expect("this network needs numbers about the videos (time_ids)");
        let states = condition.encoder_hidden_states.clone();
        let states = states.expect("cross-attention needs encoder hidden states");
        let (x, count) = frames::into_batch(x);
        let of_frames = frames::conditions(condition, count).encoder_hidden_states;
        let cast = |states| PromptTokens::new(ops::cast(states, x.dtype()), None);
        let tokens = VideoTokens {
            of_frames: cast(of_frames.expect("given above")),
            of_samples: cast(states),
        };
        let embedding = self.embedding(time, numbers, &x);
        let rows = frames::rows(embedding.dims()[0], count, &embedding.device());
        let embedding = embedding.select(0, rows);
        let conditions = Conditions {
            time: &embedding,
            tokens: None,
        };
        let hook = Mixing {
            layers: &self.temporal,
            frames: count,
            time: &embedding,
            tokens: &tokens,
        };
        let x = hook.after_layer(UNetLayer::Input, self.conv_in.forward(x));
        let (x, skips) = blocks::down(x, conditions, &self.down_blocks, &hook);
        let x = self.mid_block.forward(x, conditions, &hook);
        let x = blocks::up(x, conditions, skips, &self.up_blocks, &hook);
        let x = self
            .conv_norm_out
            .forward_with_activation(x, Activation::Silu);
        frames::out_of_batch(self.conv_out.forward(x), count)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        let image = image_shape(shape)?;
        let config = &self.config;
        let channels = config.in_channels - self.extra_input_channels();
        if channels != shape.channels() {
            let expected = format!("{}, the channels of the latents", shape.channels());
            return Err(Error::config("in_channels", config.in_channels, expected));
        }
        check_image(image, [channels, config.out_channels], 1, false)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config.cross_attention_dim)
    }

    fn needs_from_pipeline(&self) -> Option<&'static str> {
        Some("time_ids")
    }

    fn extra_input_channels(&self) -> usize {
        let config = &self.config;
        config.in_channels.saturating_sub(config.out_channels)
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let [height, width] = self.config.sample_size?.sides();
        let channels = self.config.in_channels.min(self.config.out_channels);
        Some(SampleShape::new(&[
            channels,
            self.config.num_frames,
            height,
            width,
        ]))
    }
}
