//! Wan (Wan Team 2025, <https://arxiv.org/abs/2503.20314>): a transformer over the latents of all
//! frames, with prompts encoded by UMT5, and a causal autoencoder that decodes a few frames at a
//! time.
//!
//! | file | content |
//! |---|---|
//! | `open` | opening directories |
//! | `request` | values of a request, checked |
//! | `pipeline` | the parts, prompts |
//! | `denoise` | denoising and decoding |

mod denoise;
mod open;
mod pipeline;
mod request;

pub use pipeline::WanPipeline;
