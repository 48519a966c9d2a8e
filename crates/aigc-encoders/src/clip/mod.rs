//! CLIP (Radford et al. 2021, <https://arxiv.org/abs/2103.00020>): encoders of text and images
//! into one space, with the configurations, names of weights and files of transformers.
//!
//! | file | content |
//! |---|---|
//! | `config` | the configurations |
//! | `layers` | attention and MLPs, which both encoders share |
//! | `text`, `vision` | the encoders, with and without projection |
//! | `token_embeddings` | words that are added to a text encoder |
//! | `pair` | both encoders, and the scale of their cosines |
//! | `encoder` | tokenizer and text encoder as a [`TextEncoder`](aigc_core::encoder::TextEncoder) |
//! | `image_processor` | images as the vision encoder takes them |
//! | `safety` | Stable Diffusion's check of images |
//! | `contrastive`, `retrieval` | training of a pair, and its evaluation |
//! | `features` | embeddings as features for evaluation (feature `eval`) |
//! | `files` | directories of models |
//!
//! ```no_run
//! use aigc_encoders::clip::ClipTextEncoder;
//! # use aigc_core::{Result, device::device, encoder::TextEncoder};
//! # fn main() -> Result<()> {
//! let device = device("flex")?;
//! let encoder = ClipTextEncoder::from_pretrained("sd/tokenizer", "sd/text_encoder", &device)?;
//! let embeddings = encoder.encode(&["a cat wearing a hat"], &device)?;
//! # Ok(()) }
//! ```

mod config;
mod contrastive;
mod encoder;
#[cfg(feature = "eval")]
mod features;
mod files;
mod image_processor;
mod layers;
mod pair;
mod retrieval;
mod safety;
mod text;
mod token_embeddings;
mod vision;

pub use crate::layers::Embedding;
pub use config::{ClipConfig, ClipTextConfig, ClipVisionConfig, HiddenAct};
pub use contrastive::{CaptionedImages, ContrastiveObjective, MAX_LOGIT_SCALE, contrastive_loss};
pub use encoder::{ClipSkip, ClipTextEncoder};
#[cfg(feature = "eval")]
pub use features::{ClipFeatures, ClipVisionFeatures};
pub use image_processor::{ClipImageProcessor, ResizeTo, RgbPixels};
pub use pair::{ClipModel, ClipOutput};
pub use retrieval::{RetrievalAccuracy, retrieval_accuracy};
pub use safety::{SafetyCheck, StableDiffusionSafetyChecker};
pub use text::{ClipTextModel, ClipTextOutput};
pub use vision::{ClipVisionModel, ClipVisionOutput};
