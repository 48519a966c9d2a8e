//! The layers shared by all model families.
//!
//! Names, fields and shapes are those of burn-nn, so that burn's weight adapters recognise them.
//! Two things differ: initial weights are drawn on the host (see
//! [`InitWeights`](crate::rng::InitWeights)), and the forward passes call [`ops`](crate::ops), so
//! that a faster kernel does not require changes of models.

mod attention;
mod conv;
pub mod diffusers;
mod init;
mod linear;
mod norm;
mod packed;
mod rms_norm;
mod rotary;
mod spectral;

pub use crate::ops::Activation;
pub use attention::{SelfAttention, SelfAttentionConfig, scaled_dot_product_attention};
pub use burn::nn::{Dropout, DropoutConfig};
pub use conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
pub use init::Initializer;
pub use linear::{Linear, LinearConfig};
pub use norm::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig,
};
pub use packed::QuantizedWeight;
pub use rms_norm::{RmsNorm, RmsNormConfig};
pub use rotary::{RotaryEmbedding, RotaryEmbeddingConfig};
pub use spectral::SpectralNorm;
