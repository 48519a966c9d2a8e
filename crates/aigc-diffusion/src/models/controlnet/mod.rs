//! `ControlNetModel`: a copy of a U-net's encoder that also receives an image, such as the edges or
//! the depth of what is to be painted. Its maps are added to those of the U-net (Zhang et al. 2023,
//! <https://arxiv.org/abs/2302.05543>).

mod config;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::{ChannelOrder, ControlNetConfig};

use super::{
    blocks::{self, Conditions, DownBlock, MidBlock},
    files::network_methods,
    motion::NoHook,
    time::TimeEmbedding,
    transformer::SpatialTransformer,
    unet2d_condition::{
        ClassEmbedding, Embedder, EncodedTokens, UNet2dConditionConfig, UNet2dConditionModel,
        same_size,
    },
};
use crate::denoiser::{Conditioning, ControlResiduals};
use aigc_core::{
    Error, Result,
    nn::{Activation, Conv2d, Conv2dConfig, Initializer, Linear, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Convolutions from an image to a map of the size of the latents.
#[derive(Module, Debug)]
struct ConditioningEmbedding {
    conv_in: Conv2d,
    /// In pairs; the second one of each halves the sides.
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

/// A convolution that is trained from zero on, so that a new ControlNet changes nothing.
fn zero_convolution(channels: [usize; 2], kernel: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new(channels, kernel)
        .with_padding(kernel / 2)
        .with_initializer(Initializer::ZEROS)
        .init(device)
}

impl ConditioningEmbedding {
    fn new(channels: [usize; 2], hidden: &[usize], device: &Device) -> Self {
        let [from, to] = channels;
        let pair = |pair: &[usize]| {
            let halved = Conv2dConfig::new([pair[0], pair[1]], 3)
                .with_padding(1)
                .with_stride(2)
                .init(device);
            [same_size([pair[0]; 2], 3, device), halved]
        };
        Self {
            conv_in: same_size([from, hidden[0]], 3, device),
            blocks: hidden.windows(2).flat_map(pair).collect(),
            conv_out: zero_convolution([hidden[hidden.len() - 1], to], 3, device),
        }
    }

    fn forward(&self, image: Tensor<4>) -> Tensor<4> {
        let layers = std::iter::once(&self.conv_in).chain(&self.blocks);
        let x = layers.fold(image, |x, conv| Activation::Silu.forward(conv.forward(x)));
        self.conv_out.forward(x)
    }
}

/// A copy of a U-net's encoder that also receives an image.
#[derive(Module, Debug)]
pub struct ControlNetModel {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    encoder_hid_proj: Option<Linear>,
    class_embedding: Option<ClassEmbedding>,
    add_embedding: Option<TimeEmbedding>,
    controlnet_cond_embedding: ConditioningEmbedding,
    down_blocks: Vec<DownBlock<SpatialTransformer>>,
    controlnet_down_blocks: Vec<Conv2d>,
    mid_block: Option<MidBlock<SpatialTransformer>>,
    controlnet_mid_block: Conv2d,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    config: ControlNetConfig,
    /// The configuration as that of a U-net.
    #[module(skip)]
    encoder: UNet2dConditionConfig,
}

impl ControlNetConfig {
    /// The network on `device`, whose output is zero until it is trained.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<ControlNetModel> {
        let (encoder, shared) = self.validate()?;
        let channels = &self.block_out_channels;
        let levels = channels.len();
        let zero = |channels| zero_convolution([channels; 2], 1, device);
        // One for the first map, one for each layer, and one for each map that was halved.
        let mut outputs = vec![zero(channels[0])];
        for (level, channels) in channels.iter().enumerate() {
            let count = self.layers_per_block + usize::from(level + 1 < levels);
            outputs.extend((0..count).map(|_| zero(*channels)));
        }
        Ok(ControlNetModel {
            conv_in: encoder.conv_in(device),
            time_embedding: encoder.time_embedding(&shared, device),
            encoder_hid_proj: encoder.encoder_hid_proj(device),
            class_embedding: encoder.class_embedding(Activation::Silu, device),
            add_embedding: encoder.add_embedding(device),
            controlnet_cond_embedding: ConditioningEmbedding::new(
                [self.conditioning_channels, channels[0]],
                &self.conditioning_embedding_out_channels,
                device,
            ),
            down_blocks: encoder.down_blocks(&shared, device)?,
            controlnet_down_blocks: outputs,
            mid_block: encoder.mid_block(&shared, device)?,
            controlnet_mid_block: zero(channels[levels - 1]),
            activation: shared.activation,
            config: self.clone(),
            encoder,
        })
    }

    /// The network with the weights of a U-net's encoder, for training. The convolutions of images
    /// have initial weights; the last ones are zero, and so is the output.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, or a field that is not as the U-net's;
    /// [`from_unet`](Self::from_unet) makes a configuration that is.
    pub fn init_from_unet(
        &self,
        unet: &UNet2dConditionModel,
        device: &Device,
    ) -> Result<ControlNetModel> {
        if unet.mid_block.is_none() {
            let expected = "blocks at the smallest size, for a ControlNet";
            return Err(Error::config("mid_block_type", "null", expected));
        }
        self.check_unet(unet.config())?;
        let network = self.init(device)?;
        let unet = unet.clone().to_device(device);
        Ok(ControlNetModel {
            conv_in: unet.conv_in,
            // A ControlNet receives no guidance scale.
            time_embedding: unet.time_embedding.without_condition(),
            encoder_hid_proj: unet.encoder_hid_proj,
            class_embedding: unet.class_embedding,
            add_embedding: unet.add_embedding,
            down_blocks: unet.down_blocks,
            mid_block: unet.mid_block,
            ..network
        })
    }
}

impl ControlNetModel {
    network_methods!(ControlNetConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// The layer from hidden states of the encoder to the tokens. diffusers expects tokens here,
    /// even of networks with this layer, so they are recognised by their width.
    fn projection(&self, condition: &Conditioning) -> Option<&Linear> {
        let [.., width] = condition.encoder_hidden_states.as_ref()?.dims();
        let projection = self.encoder_hid_proj.as_ref();
        projection.filter(|_| width != self.config.cross_attention_dim)
    }

    /// What is added to the maps of the U-net.
    ///
    /// In guess mode, maps of the first layers have less effect than those of the last: their
    /// strength rises from a tenth of `conditioning_scale` to `conditioning_scale` in equal ratios.
    /// Networks with `global_pool_conditions` have no guess mode.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`, the input of the U-net
    /// - time: `[batch]`
    /// - image: `[batch, conditioning_channels, …]`, in `[0, 1]`, with sides that are
    ///   [`conditioning_factor`](ControlNetConfig::conditioning_factor) times those of x
    ///
    /// # Panics
    /// If the shapes do not fit, or a condition that the network needs is missing.
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        image: Tensor<4>,
        condition: &Conditioning,
        conditioning_scale: f64,
        guess_mode: bool,
    ) -> ControlResiduals {
        let dtype = x.dtype();
        let image = ops::cast(image, dtype);
        let image = match self.config.controlnet_conditioning_channel_order {
            ChannelOrder::Rgb => image,
            ChannelOrder::Bgr => image.flip([1]),
        };
        let embedder = Embedder {
            config: &self.encoder,
            time: &self.time_embedding,
            class: self.class_embedding.as_ref(),
            addition: self.add_embedding.as_ref(),
            activation: self.activation,
            dtype,
        };
        let embedding = embedder.embed(time, condition, None);
        let tokens = EncodedTokens::new(condition, self.projection(condition), dtype);
        let conditions = Conditions {
            time: &embedding,
            tokens: tokens.as_ref().map(EncodedTokens::tokens),
        };
        let x = self.conv_in.forward(x);
        let image = self.controlnet_cond_embedding.forward(image);
        assert_eq!(image.dims(), x.dims(), "map of the image, for that of x");
        let (x, skips) = blocks::down(x + image, conditions, &self.down_blocks, &NoHook);
        let x = match &self.mid_block {
            Some(middle) => middle.forward(x, conditions, &NoHook),
            None => x,
        };
        self.strengthened(skips, x, conditioning_scale, guess_mode)
    }

    /// The maps through the last convolutions, scaled.
    fn strengthened(
        &self,
        skips: Vec<Tensor<4>>,
        mid: Tensor<4>,
        scale: f64,
        guess_mode: bool,
    ) -> ControlResiduals {
        let pooled = self.config.global_pool_conditions;
        let last = skips.len();
        let strength = |i: usize| match guess_mode && !pooled {
            true => scale * 10f64.powf(i as f64 / last as f64 - 1.0),
            false => scale,
        };
        let output = |(i, (map, conv)): (usize, (Tensor<4>, &Conv2d))| {
            let map = conv.forward(map);
            let map = match pooled {
                true => map.mean_dim(2).mean_dim(3),
                false => map,
            };
            match strength(i) {
                1.0 => map,
                strength => map * strength,
            }
        };
        let convolutions = &self.controlnet_down_blocks;
        ControlResiduals {
            mid: output((last, (mid, &self.controlnet_mid_block))),
            down: skips
                .into_iter()
                .zip(convolutions)
                .enumerate()
                .map(output)
                .collect(),
        }
    }
}
