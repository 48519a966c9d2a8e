//! The layers that all families share.
//!
//! Names, fields and shapes are burn-nn's, so that burn's weight adapters know them. Two things are
//! ours: initial weights are drawn on the host (see [`InitWeights`](crate::rng::InitWeights)), and
//! every forward goes through one line here, so a faster kernel changes one file and no model.

mod attention;
mod conv;
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
