//! Generative models on [burn](https://burn.dev): one dependency for all families.
//!
//! | module | feature | what |
//! |---|---|---|
//! | [`core`] | | devices, data, layers, the trainer, checkpoints, pictures, evaluation |
//! | `vae` | `vae` | variational autoencoders |
//! | `gan` | `gan` | generative adversarial networks |
//! | `diffusion` | `diffusion` | diffusion: diffusers' pipelines, schedulers and networks |
//! | `text` | `text` | language models |
//! | `encoders` | `encoders` | CLIP and T5, their tokenizers, contrastive training |
//! | `pipelines` | `pipelines` | images from a prompt: pipelines of several families, adapters |
//!
//! All families are on by default, with the CPU backend Flex. A program that needs one family
//! compiles faster with that one alone:
//!
//! ```toml
//! [dependencies.aigc]
//! path = "../aigc/crates/aigc"
//! default-features = false
//! features = ["flex", "vae", "image"]
//! ```
//!
//! ```
//! # #[cfg(all(feature = "vae", feature = "flex"))]
//! # fn main() -> aigc::Result<()> {
//! use aigc::{
//!     core::{data::ImageShape, device::device},
//!     vae::{MlpVaeConfig, Vae, VaeConfig, VaeSampler},
//! };
//!
//! let device = device("flex")?;
//! let config = MlpVaeConfig {
//!     hidden_dim: 16,
//!     latent_dim: 2,
//!     ..MlpVaeConfig::new(ImageShape::new(1, 8, 8))
//! };
//! let model = VaeConfig::Mlp(config).init(&device)?;
//! assert_eq!(model.latent_dim(), 2);
//! let samples = VaeSampler::new(&model, &device).sample(3, 0)?;
//! assert_eq!(samples.values.dims(), [3, 1, 8, 8]);
//! # Ok(()) }
//! # #[cfg(not(all(feature = "vae", feature = "flex")))]
//! # fn main() {}
//! ```
#![forbid(unsafe_code)]

pub use aigc_core as core;
#[cfg(feature = "diffusion")]
pub use aigc_diffusion as diffusion;
#[cfg(feature = "encoders")]
pub use aigc_encoders as encoders;
#[cfg(feature = "gan")]
pub use aigc_gan as gan;
#[cfg(feature = "pipelines")]
pub use aigc_pipelines as pipelines;
#[cfg(feature = "text")]
pub use aigc_text as text;
#[cfg(feature = "vae")]
pub use aigc_vae as vae;

pub use aigc_core::{CancelToken, DataFault, Error, Result, burn};
