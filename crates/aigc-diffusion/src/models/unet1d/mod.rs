//! `UNet1DModel`: the U-net over samples of Dance Diffusion
//! (<https://github.com/Harmonai-org/sample-generator>).
//!
//! | file | content |
//! |---|---|
//! | `config` | the configuration |
//! | `blocks` | convolutions and attention at one rate |
//! | `resample` | halving and doubling of the rate |

mod blocks;
mod config;
mod resample;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::{UNet1dConfig, UNet1dDownBlock, UNet1dTimeEmbedding, UNet1dUpBlock};

use super::{files::network_methods, fourier::FourierFeatures, time::Sinusoids};
use crate::denoiser::{Conditioning, Denoiser};
use aigc_core::{
    Result,
    data::SampleShape,
    nn::diffusers::diffusers_key,
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use blocks::Block;
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

impl UNet1dConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<UNet1dModel> {
        self.validate()?;
        let fourier = self.time_embedding_type == UNet1dTimeEmbedding::Fourier;
        let frequencies = self.time_width() / 2;
        let time_proj = || FourierFeatures::new(frequencies, 1.0, self.flip_sin_to_cos, device);
        let all = |blocks: Vec<blocks::BlockConfig>| -> Vec<Block> {
            blocks.into_iter().map(|block| block.init(device)).collect()
        };
        Ok(UNet1dModel {
            time_proj: fourier.then(time_proj),
            down_blocks: all(self.down()),
            mid_block: self.middle().init(device),
            up_blocks: all(self.up()),
            config: self.clone(),
        })
    }
}

/// A U-net over the samples of sounds.
///
/// Networks of Dance Diffusion predict v for times on a cosine schedule
/// ([`IpndmScheduler`](crate::IpndmScheduler)). A network that is trained with this crate predicts
/// what its objective defines; [`UNet1dTimeEmbedding`] has to suit the times of the objective.
#[derive(Module, Debug)]
pub struct UNet1dModel {
    time_proj: Option<FourierFeatures>,
    down_blocks: Vec<Block>,
    mid_block: Block,
    up_blocks: Vec<Block>,
    #[module(skip)]
    config: UNet1dConfig,
}

impl UNet1dModel {
    network_methods!(UNet1dConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &UNet1dConfig {
        &self.config
    }

    /// The prediction for noisy sounds.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, samples]`, a multiple of
    ///   [`length_factor`](UNet1dConfig::length_factor)
    /// - time: `[batch]`
    /// - output: `[batch, out_channels, samples]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(&self, x: Tensor<3>, time: Tensor<1>) -> Tensor<3> {
        let [batch, _, samples] = x.dims();
        let encoded = ops::cast(self.encode(time), x.dtype());
        let width = encoded.dims()[1];
        let encoded = encoded
            .reshape([batch, width, 1])
            .expand([batch, width, samples]);
        let mut x = Tensor::cat(vec![x, encoded], 1);
        let mut skips = Vec::with_capacity(self.down_blocks.len());
        for block in &self.down_blocks {
            x = block.forward(x);
            skips.push(x.clone());
        }
        x = self.mid_block.forward(x);
        for (block, skip) in self.up_blocks.iter().zip(skips.into_iter().rev()) {
            x = block.forward(Tensor::cat(vec![x, skip], 1));
        }
        x
    }

    /// # Shapes
    /// - time: `[batch]`
    /// - output: `[batch, width]`
    fn encode(&self, time: Tensor<1>) -> Tensor<2> {
        match &self.time_proj {
            Some(fourier) => fourier.forward(time),
            None => Sinusoids {
                width: self.config.time_width(),
                cosines_first: self.config.flip_sin_to_cos,
                shift: self.config.freq_shift,
            }
            .of(time),
        }
    }
}

impl Denoiser<3> for UNet1dModel {
    fn predict(&self, x: Tensor<3>, time: Tensor<1>, _: &Conditioning<3>) -> Tensor<3> {
        self.forward(x, time)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check_shape(shape)
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let config = &self.config;
        Some(SampleShape::new(&[config.in_channels, config.sample_size]))
    }
}
