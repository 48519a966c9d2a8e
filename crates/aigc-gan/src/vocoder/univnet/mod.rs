//! UnivNet: a waveform from noise, shaped by convolutions whose kernels a log-mel spectrogram
//! predicts.
//!
//! | file | content |
//! |---|---|
//! | `config` | configuration |
//! | `kernels` | the network that predicts kernels, and the convolution with them |
//! | `network` | the generator |

mod config;
mod kernels;
mod network;

pub use config::UnivNetConfig;
pub use kernels::{
    UnivNetKernelPredictor, UnivNetKernelPredictorResidualBlock, location_variable_convolution,
};
pub use network::{UnivNet, UnivNetLvcBlock, UnivNetLvcResidualBlock};
