//! `UNetMotionModel`: AnimateDiff's network, a U-net with cross-attention and motion modules.

use super::{
    joined::{joined_network_methods, save, without_field},
    unet_config::UNetMotionConfig,
    with_motion::WithMotion,
};
use crate::models::UNet2dConditionModel;
use aigc_core::{
    Result,
    nn::diffusers::diffusers_key,
    weights::{KeyMapping, Loaded, OpenOptions, ParamKey, WeightDtype, WeightReader, open_model},
};
use burn::tensor::Device;
use std::path::Path;

/// AnimateDiff's network (Guo et al. 2023, <https://arxiv.org/abs/2307.04725>): a U-net with
/// cross-attention whose layers are followed by motion modules. It is opened from one directory, as
/// diffusers saves its `UNetMotionModel`, or [joined](WithMotion::new) of its two parts.
pub type UNetMotionModel = WithMotion<UNet2dConditionModel>;

impl UNetMotionConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range, or motion modules that
    /// do not fit the image network.
    pub fn init(&self, device: &Device) -> Result<UNetMotionModel> {
        WithMotion::new(self.unet.init(device)?, self.motion.init(device)?)
    }
}

/// The place of a parameter in the file of both parts, or in those of its part.
fn key(key: ParamKey<'_>) -> KeyMapping {
    diffusers_key(without_field(key, &["unet", "motion"]))
}

impl UNetMotionModel {
    joined_network_methods!(UNetMotionConfig, key);

    /// The configuration of the network.
    pub fn config(&self) -> UNetMotionConfig {
        UNetMotionConfig {
            unet: self.unet.config().clone(),
            motion: self.motion.config().clone(),
        }
    }

    /// Writes the directory of the whole network, as diffusers does, with weights in 32 bits. Its
    /// [parts](WithMotion::into_parts) have directories of their own.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for an image network that diffusers' class does
    /// not have; [`Error::Io`](aigc_core::Error::Io) or
    /// [`Error::Weights`](aigc_core::Error::Weights) if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        save(self, key, &self.config().to_json()?, dir.as_ref())
    }
}
