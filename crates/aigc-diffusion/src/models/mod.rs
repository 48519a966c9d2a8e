//! Denoising networks, with diffusers' names.

pub(crate) mod any;
mod attention;
mod blocks;
mod controlnet;
mod dit;
mod files;
mod time;
mod transformer;
mod transformers;
mod unet2d;
mod unet2d_condition;

pub use aigc_core::nn::diffusers::SampleSize;
pub use any::AnyDenoiser;
pub use controlnet::{ChannelOrder, ControlNetConfig, ControlNetModel};
pub use dit::{DitConfig, DitModel};
pub use transformers::{
    FluxInputs, FluxTransformerConfig, FluxTransformerModel, PixArtTransformerConfig,
    PixArtTransformerModel, Sd3TransformerConfig, Sd3TransformerModel, latent_image_ids,
    pack_latents, text_ids, unpack_latents,
};
pub use unet2d::{
    ClassEmbedType, DownBlockType, TimeEmbeddingType, TimeScaleShift, UNet2dConfig, UNet2dModel,
    UpBlockType,
};
pub use unet2d_condition::{
    AdditionEmbedType, CrossDownBlockType, CrossMidBlockType, CrossUpBlockType, EncoderHidDimType,
    PerBlock, TransformerLayers, UNet2dConditionConfig, UNet2dConditionModel,
    guidance_scale_embedding,
};
