//! T5's encoder (Raffel et al. 2020, <https://arxiv.org/abs/1910.10683>) and UMT5's (Chung et al.
//! 2023, <https://arxiv.org/abs/2304.09151>): transformers' `T5EncoderModel` and
//! `UMT5EncoderModel`, with their configurations, names of weights and files.
//!
//! | file | content |
//! |---|---|
//! | `config` | the configuration |
//! | `position` | the bias of attention by relative position |
//! | `blocks` | attention, feed-forward network, blocks |
//! | `model` | the encoder |
//! | `files` | opening and saving |
//! | `text_encoder` | tokenizer and encoder as a [`TextEncoder`](aigc_core::encoder::TextEncoder) |

mod blocks;
mod config;
mod files;
mod model;
mod position;
mod text_encoder;

pub use config::{T5Config, T5ModelType};
pub use model::T5EncoderModel;
pub use text_encoder::T5TextEncoder;
