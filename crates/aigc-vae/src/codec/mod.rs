//! Codecs of sound, which are read, trained and streamed.
//!
//! | model | latents | files |
//! |---|---|---|
//! | [`EncodecModel`] | a residual quantiser of moving averages | transformers |
//! | [`DacModel`] | a residual quantiser in factorised, normalised spaces | transformers |
//! | [`AutoencoderOobleck`] | Gaussian, those of Stable Audio | diffusers |
//!
//! The first two are [`AudioCodec`](aigc_core::audio::AudioCodec)s, which models of tokens take.
//! As [`TrainableCodec`]s they are trained by [`CodecObjective`], or against a discriminator by
//! [`AdversarialCodecObjective`]; [`CodecUsage`] watches how much of every codebook is used.
//! [`EncodecModel::encode_stream`] and [`EncodecModel::decode_stream`] process sound of any length
//! in pieces.
//!
//! | file | content |
//! |---|---|
//! | `encodec` | SEANet with a recurrent layer |
//! | `waves` | the convolutional encoder and decoder of DAC and Oobleck |
//! | `dac`, `oobleck` | their latents |
//! | `files` | weight norm in files |
//! | `codes` | checks of codes and sounds |
//! | `objective` | training |

mod codes;
mod dac;
mod encodec;
mod files;
mod objective;
mod oobleck;
mod waves;

pub use dac::{DacConfig, DacModel, DacOutput, DacQuantizer, DacResidualQuantizer};
pub use encodec::{
    EncodecConfig, EncodecDecodeStream, EncodecEncodeStream, EncodecFrames, EncodecModel,
    EncodecNorm,
};
pub use objective::{
    AdversarialCodec, AdversarialCodecConfig, AdversarialCodecObjective, CodecLossConfig,
    CodecObjective, CodecUsage, Reconstruction, TrainableCodec,
};
pub use oobleck::{AutoencoderOobleck, AutoencoderOobleckConfig};
