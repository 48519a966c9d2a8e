//! Encoder and decoder.

use super::{
    cache::{Cache, causal},
    config::AutoencoderKlWanConfig,
    layers::{ChannelRms, MidBlock, ResidualBlock, causal_conv},
    resample::{Resample, averaged, repeated},
};
use aigc_core::nn::{Activation, Conv3d};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Factors by which frames and sides change.
fn factors(temporal: bool, sides: bool) -> [usize; 2] {
    [temporal, sides].map(|changes| if changes { 2 } else { 1 })
}

/// The blocks of a size of an encoder with skips around sizes.
#[derive(Module, Debug)]
struct ResidualDownBlock {
    resnets: Vec<ResidualBlock>,
    downsampler: Option<Resample>,
    /// Channels of the output, and factors of frames and sides, for the skip.
    #[module(skip)]
    skip: (usize, [usize; 2]),
}

/// A part of the encoder. All sizes are in one list.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // There are few of them.
enum DownBlock {
    Residual(ResidualBlock),
    Resample(Resample),
    Size(ResidualDownBlock),
}

impl DownBlock {
    fn forward(&self, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
        match self {
            Self::Residual(block) => block.forward(x, cache),
            Self::Resample(layer) => layer.forward(x, cache),
            Self::Size(block) => {
                let (outputs, factors) = block.skip;
                let skip = averaged(x.clone(), outputs, factors);
                let resnets = block.resnets.iter();
                let x = resnets.fold(x, |x, resnet| resnet.forward(x, cache));
                let x = match &block.downsampler {
                    Some(down) => down.forward(x, cache),
                    None => x,
                };
                x + skip
            }
        }
    }
}

/// From frames to the moments of latents.
#[derive(Module, Debug)]
pub(super) struct Encoder {
    conv_in: Conv3d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    norm_out: ChannelRms,
    conv_out: Conv3d,
}

impl Encoder {
    /// Of a validated configuration.
    pub(super) fn new(config: &AutoencoderKlWanConfig, device: &Device) -> Self {
        let (channels, count) = (config.encoder_channels(), config.num_res_blocks);
        // The first convolution has the channels of the base, without a multiple.
        let mut from = config.base_dim;
        let mut down_blocks = vec![];
        for (level, to) in channels.iter().enumerate() {
            let temporal = config.temperal_downsample.get(level).copied();
            let resnets = ResidualBlock::several([from, *to], count, device);
            let down = temporal.map(|temporal| Resample::down(*to, temporal, device));
            if config.is_residual {
                let skip = factors(temporal.unwrap_or(false), temporal.is_some());
                down_blocks.push(DownBlock::Size(ResidualDownBlock {
                    resnets,
                    downsampler: down,
                    skip: (*to, skip),
                }));
            } else {
                down_blocks.extend(resnets.into_iter().map(DownBlock::Residual));
                down_blocks.extend(down.map(DownBlock::Resample));
            }
            from = *to;
        }
        Self {
            conv_in: causal_conv([config.in_channels, config.base_dim], device),
            down_blocks,
            mid_block: MidBlock::new(from, device),
            norm_out: ChannelRms::new(from, device),
            conv_out: causal_conv([from, 2 * config.z_dim], device),
        }
    }

    /// A chunk: the first frame, then four frames at a time.
    pub(super) fn forward(&self, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
        cache.begin_chunk();
        let x = causal(&self.conv_in, x, cache);
        let blocks = self.down_blocks.iter();
        let x = blocks.fold(x, |x, block| block.forward(x, cache));
        let x = self.mid_block.forward(x, cache);
        let x = Activation::Silu.forward(self.norm_out.forward(x));
        causal(&self.conv_out, x, cache)
    }
}

/// The blocks of a size of the decoder.
#[derive(Module, Debug)]
struct UpBlock {
    resnets: Vec<ResidualBlock>,
    /// One, or none at the largest size and with a skip.
    upsamplers: Vec<Resample>,
    /// That of a block with a skip around it.
    upsampler: Option<Resample>,
    /// Channels of the output, and factors of frames and sides, for a skip.
    #[module(skip)]
    skip: Option<(usize, [usize; 2])>,
}

impl UpBlock {
    fn forward(&self, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
        let first = cache.is_first();
        let skip = self
            .skip
            .map(|(outputs, factors)| repeated(x.clone(), outputs, factors, first));
        let resnets = self.resnets.iter();
        let x = resnets.fold(x, |x, resnet| resnet.forward(x, cache));
        let layers = self.upsamplers.iter().chain(&self.upsampler);
        let x = layers.fold(x, |x, up| up.forward(x, cache));
        match skip {
            Some(skip) => x + skip,
            None => x,
        }
    }
}

/// From latents to frames.
#[derive(Module, Debug)]
pub(super) struct Decoder {
    conv_in: Conv3d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    norm_out: ChannelRms,
    conv_out: Conv3d,
}

impl Decoder {
    /// Of a validated configuration.
    pub(super) fn new(config: &AutoencoderKlWanConfig, device: &Device) -> Self {
        let channels = config.decoder_channels();
        let first = channels[0];
        let mut from = first;
        let mut up_blocks = vec![];
        // From the smallest size on.
        let mut temporal = config.temperal_downsample.iter().rev();
        for to in &channels {
            let count = config.num_res_blocks + 1;
            let resnets = ResidualBlock::several([from, *to], count, device);
            let temporal = temporal.next().copied();
            let outputs = if config.is_residual { *to } else { *to / 2 };
            let up = temporal.map(|temporal| Resample::up([*to, outputs], temporal, device));
            let skip = temporal.map(|temporal| (*to, factors(temporal, true)));
            let (upsampler, upsamplers) = match config.is_residual {
                true => (up, None),
                false => (None, up),
            };
            up_blocks.push(UpBlock {
                resnets,
                upsamplers: upsamplers.into_iter().collect(),
                upsampler,
                skip: skip.filter(|_| config.is_residual),
            });
            from = outputs;
        }
        let last = channels[channels.len() - 1];
        Self {
            conv_in: causal_conv([config.z_dim, first], device),
            mid_block: MidBlock::new(first, device),
            up_blocks,
            norm_out: ChannelRms::new(last, device),
            conv_out: causal_conv([last, config.out_channels], device),
        }
    }

    /// A chunk: the first latent, then any number at a time.
    pub(super) fn forward(&self, z: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
        cache.begin_chunk();
        let x = causal(&self.conv_in, z, cache);
        let x = self.mid_block.forward(x, cache);
        let blocks = self.up_blocks.iter();
        let x = blocks.fold(x, |x, block| block.forward(x, cache));
        let x = Activation::Silu.forward(self.norm_out.forward(x));
        causal(&self.conv_out, x, cache)
    }
}
