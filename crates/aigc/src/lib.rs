//! Generative models on [burn](https://burn.dev): one dependency for all families.
//!
//! | module | feature | what |
//! |---|---|---|
//! | [`core`] | | devices, data, layers, the trainer, checkpoints, pictures, evaluation |
//! | `vae` | `vae` | variational autoencoders |
//! | `gan` | `gan` | generative adversarial networks |
//! | `diffusion` | `diffusion` | diffusion: diffusers' pipelines, schedulers and networks |
//! | `text` | `text` | language models |
//!
//! All families are on by default, with the CPU backend Flex. A program that needs one family
//! compiles faster with that one alone:
//!
//! ```toml
//! aigc = { version = "0.1", default-features = false, features = ["flex", "vae", "image"] }
//! ```
#![forbid(unsafe_code)]

pub use aigc_core as core;
#[cfg(feature = "diffusion")]
pub use aigc_diffusion as diffusion;
#[cfg(feature = "gan")]
pub use aigc_gan as gan;
#[cfg(feature = "text")]
pub use aigc_text as text;
#[cfg(feature = "vae")]
pub use aigc_vae as vae;

pub use aigc_core::{CancelToken, DataFault, Error, Result, burn};
