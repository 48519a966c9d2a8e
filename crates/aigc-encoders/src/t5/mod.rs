//! T5's encoder (Raffel et al. 2020, <https://arxiv.org/abs/1910.10683>): transformers'
//! `T5EncoderModel`, with its configuration, names of weights and files.
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

pub use config::T5Config;
pub use model::T5EncoderModel;
pub use text_encoder::T5TextEncoder;
