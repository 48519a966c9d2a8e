//! Denoising networks, with diffusers' names.

pub(crate) mod any;
mod blocks;
mod dit;
mod time;
mod transformer;
mod unet2d;
mod unet2d_condition;

pub use aigc_core::nn::diffusers::SampleSize;
pub use any::AnyDenoiser;
pub use dit::{DitConfig, DitModel};
pub use unet2d::{
    ClassEmbedType, DownBlockType, TimeEmbeddingType, TimeScaleShift, UNet2dConfig, UNet2dModel,
    UpBlockType,
};
pub use unet2d_condition::{
    CrossDownBlockType, CrossUpBlockType, PerBlock, UNet2dConditionConfig, UNet2dConditionModel,
};
