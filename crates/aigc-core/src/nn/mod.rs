//! The layers shared by all model families.
//!
//! Names, fields and shapes are those of burn-nn, so that burn's weight adapters recognise them.
//! Two things differ: initial weights are drawn on the host (see
//! [`InitWeights`](crate::rng::InitWeights)), and the forward passes call [`ops`](crate::ops), so
//! that a faster kernel does not require changes of models.

mod attention;
mod conv;
mod conv1d;
mod conv3d;
pub mod diffusers;
mod init;
mod linear;
mod lstm;
mod names;
mod norm;
mod packed;
mod rms_norm;
mod rotary;
mod snake;
mod spectral;
mod weight_norm;

pub use crate::ops::{Activation, PaddingMode};
pub use attention::{SelfAttention, SelfAttentionConfig, scaled_dot_product_attention};
pub use burn::nn::{Dropout, DropoutConfig};
pub use conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
pub use conv1d::{Conv1d, Conv1dConfig, ConvTranspose1d, ConvTranspose1dConfig};
pub use conv3d::{Conv3d, Conv3dConfig};
pub use init::Initializer;
pub use linear::{Linear, LinearConfig};
pub use lstm::{Lstm, LstmCell, LstmConfig, LstmLayer, LstmState};
pub use names::{layer_key, weight_norm_key};
pub use norm::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig,
};
pub use packed::QuantizedWeight;
pub use rms_norm::{RmsNorm, RmsNormConfig};
pub use rotary::{RotaryEmbedding, RotaryEmbeddingConfig};
pub use snake::{Snake, SnakeConfig};
pub use spectral::SpectralNorm;
pub use weight_norm::WeightNorm;
