//! Denoising networks, with diffusers' names.

pub(crate) mod any;
mod attention;
mod blocks;
mod config_methods;
mod controlnet;
mod dit;
mod files;
mod fourier;
mod ltx;
mod motion;
mod spatio_temporal;
mod stable_audio;
mod time;
mod transformer;
mod transformers;
mod unet1d;
mod unet2d;
mod unet2d_condition;
mod unet3d;
mod wan;

pub use aigc_core::nn::diffusers::SampleSize;
pub use any::AnyDenoiser;
pub use controlnet::{ChannelOrder, ControlNetConfig, ControlNetModel};
pub use dit::{DitConfig, DitModel};
pub use ltx::{LtxVideoInputs, LtxVideoTransformer3dConfig, LtxVideoTransformer3dModel};
pub use motion::{
    HookedUNet, LayerHook, MotionAdapter, MotionAdapterConfig, UNetLayer, UNetLayout,
    UNetMotionConfig, UNetMotionModel, WithMotion,
};
pub use spatio_temporal::{UNetSpatioTemporalConditionConfig, UNetSpatioTemporalConditionModel};
pub use stable_audio::{
    StableAudioDitConfig, StableAudioDitModel, StableAudioProjectionConfig,
    StableAudioProjectionModel,
};
pub use transformers::{
    FluxInputs, FluxTransformerConfig, FluxTransformerModel, PixArtTransformerConfig,
    PixArtTransformerModel, Sd3TransformerConfig, Sd3TransformerModel, latent_image_ids,
    pack_latents, text_ids, unpack_latents,
};
pub use unet1d::{UNet1dConfig, UNet1dDownBlock, UNet1dModel, UNet1dTimeEmbedding, UNet1dUpBlock};
pub use unet2d::{
    ClassEmbedType, DownBlockType, TimeEmbeddingType, TimeScaleShift, UNet2dConfig, UNet2dModel,
    UpBlockType,
};
pub use unet2d_condition::{
    AdditionEmbedType, CrossDownBlockType, CrossMidBlockType, CrossUpBlockType, EncoderHidDimType,
    PerBlock, TransformerLayers, UNet2dConditionConfig, UNet2dConditionModel,
    guidance_scale_embedding,
};
pub use unet3d::{UNet3dConditionConfig, UNet3dConditionModel};
pub use wan::{WanTransformer3dConfig, WanTransformer3dModel};
