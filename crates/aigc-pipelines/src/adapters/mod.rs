//! Changes to trained models that are published as small files: low-rank adapters and textual
//! inversion.
//!
//! A [`Lora`] is a file of low-rank adapters for some parts of a pipeline. A [`LoraStack`] applies
//! several, each with its [strengths](LoraScales), to the parts one after the other: merged into
//! the weights, or attached to them. At the end it [reports](LoraReport) which tensors were
//! applied, and fails if an adapter is for another network or applies to nothing.
//! [`add_adapter`] attaches new adapters for training, and [`LoraWriter`] writes them.
//!
//! A [`TextualInversion`] is a file of vectors for new tokens. An [`InversionReport`] says which
//! text encoders have them.

mod attach;
mod component;
mod delta;
mod layers;
mod lora_file;
mod low_rank;
mod metadata;
mod names;
mod originals;
mod plan;
mod report;
mod scales;
mod stack;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod textual_inversion;
mod train;
mod writer;

pub use aigc_core::lora::LoraConfig;
pub use component::Component;
pub use lora_file::{Lora, LoraForm};
pub use low_rank::detach;
pub use report::{InversionReport, LoraReport};
pub use scales::LoraScales;
pub use stack::LoraStack;
pub use textual_inversion::{TextualInversion, expand_prompt};
pub use train::add_adapter;
pub use writer::LoraWriter;
