//! `UNet3DConditionModel`: a U-net with cross-attention over the frames, and convolutions and
//! attention over time after its layers (Wang et al. 2023, ModelScope's text-to-video,
//! <https://arxiv.org/abs/2308.06571>).
//!
//! | file | content |
//! |---|---|
//! | `config` | the configuration |
//! | `temporal` | the layers over time |

mod config;
mod temporal;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::UNet3dConditionConfig;

use super::{
    UNet2dConditionModel,
    motion::{
        HookedUNet, frames, image_shape,
        joined::{joined_network_methods, save, without_field},
    },
};
use crate::denoiser::{Conditioning, Denoiser};
use aigc_core::{
    Result,
    data::SampleShape,
    nn::diffusers::diffusers_key,
    weights::{KeyMapping, Loaded, OpenOptions, ParamKey, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;
use temporal::TemporalLayers;

impl UNet3dConditionConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<UNet3dConditionModel> {
        self.validate()?;
        let unet = self.frames().init(device)?;
        Ok(UNet3dConditionModel {
            unet,
            temporal: TemporalLayers::new(self, device),
            config: self.clone(),
        })
    }
}

/// A U-net with cross-attention and layers over time.
#[derive(Module, Debug)]
pub struct UNet3dConditionModel {
    unet: UNet2dConditionModel,
    temporal: TemporalLayers,
    #[module(skip)]
    config: UNet3dConditionConfig,
}

/// The place of a parameter in files.
fn key(key: ParamKey<'_>) -> KeyMapping {
    diffusers_key(without_field(key, &["unet", "temporal"]))
}

impl UNet3dConditionModel {
    joined_network_methods!(UNet3dConditionConfig, key);

    /// The configuration of the network.
    pub fn config(&self) -> &UNet3dConditionConfig {
        &self.config
    }

    /// Writes the network's directory, as diffusers does, with weights in 32 bits.
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if a
    /// file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        save(self, key, &self.config.to_json(), dir.as_ref())
    }
}

impl Denoiser<5> for UNet3dConditionModel {
    fn predict(&self, x: Tensor<5>, time: Tensor<1>, condition: &Conditioning<5>) -> Tensor<5> {
        let (x, count) = frames::into_batch(x);
        let time = frames::times(time, count);
        let condition = frames::conditions(condition, count);
        let hook = self.temporal.hook(count);
        let output = self.unet.predict_hooked(x, time, &condition, &hook);
        frames::out_of_batch(output, count)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.unet.check_shape(image_shape(shape)?)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.unet.check_trainable(image_shape(shape)?)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        self.unet.cross_attention_dim()
    }

    fn extra_input_channels(&self) -> usize {
        self.unet.extra_input_channels()
    }
}
