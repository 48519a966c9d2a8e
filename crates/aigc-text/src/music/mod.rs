//! Sound as several streams of tokens, one for each codebook of a codec.
//!
//! A [`MultiStreamLm`] predicts the next code of every codebook at once. The streams are shifted
//! against each other by a [`DelayPattern`], so that a code may depend on those of the codebooks
//! before it. [`MusicgenDecoder`] opens the folders of MusicGen and is trained from scratch too: a
//! [`MultiStreamObjective`] trains it on the codes of any
//! [`AudioCodec`](aigc_core::audio::AudioCodec), with a text, classes, both or nothing as the
//! condition.
//!
//! ```no_run
//! # use aigc_core::{device::device, encoder::TextEmbeddings};
//! # use aigc_text::GenerationConfig;
//! # use aigc_text::music::{ConditionInputs, MultiStreamGenerator, MultiStreamLm, MusicgenDecoder};
//! # fn example(text: TextEmbeddings) -> aigc_core::Result<()> {
//! let device = device("flex")?;
//! let model = MusicgenDecoder::from_pretrained("musicgen-small", &device)?.into_inner();
//! let condition = model.encode_condition(&ConditionInputs::text(text))?;
//! let config = GenerationConfig {
//!     do_sample: true,
//!     top_k: 250,
//!     max_new_tokens: Some(model.delay_pattern().steps(500)), // ten seconds
//!     ..Default::default()
//! };
//! let generator = MultiStreamGenerator::new(&model, config)?.with_guidance_scale(3.0)?;
//! let codes = generator.generate(1, condition.as_ref())?;
//! let codes = codes.to_tensor(&device)?; // [1, 4, 500]
//! # Ok(()) }
//! ```
//!
//! | file | content |
//! |---|---|
//! | `pattern` | the delays of the streams |
//! | `lm`, `condition` | the interface of models, and their conditions |
//! | `config`, `layers`, `model`, `files` | MusicGen's decoder |
//! | `generate` | greedy search and sampling, frame by frame |
//! | `batch`, `objective` | training |

mod batch;
mod condition;
mod config;
mod files;
mod generate;
mod layers;
mod lm;
mod model;
mod objective;
mod pattern;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use batch::{CodesBatch, CodesItem};
pub use condition::{Condition, ConditionInputs};
pub use config::MusicgenDecoderConfig;
pub use generate::{GeneratedCodes, MultiStreamGenerator, MultiStreamSampling};
pub use lm::{ConditionCache, MultiStreamLm, StreamCache};
pub use model::MusicgenDecoder;
pub use objective::{MultiStreamObjective, multi_stream_loss};
pub use pattern::DelayPattern;
