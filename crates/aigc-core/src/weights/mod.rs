//! Weights in files: one reader and one writer for every model.
//!
//! [`WeightReader`] opens safetensors, shards with or without their index, PyTorch's pickles (which
//! are never executed), and variants such as `fp16`. It reads one tensor at a time.
//! [`WeightReader::load_into`] loads them into a model; a [`KeyMapping`] gives the name and layout
//! of each parameter. [`save_weights`] writes safetensors with PyTorch's names and layouts.

mod load;
mod loaded;
mod methods;
mod pickle;
mod pretrained;
mod reader;
mod save;

pub use load::{
    KeyMapping, LoadReport, ParamKey, RenamedField, load_weights, load_weights_with_mapping,
    pytorch_key, renamed_key,
};
pub use loaded::Loaded;
#[cfg(feature = "download")]
pub use pretrained::download_pretrained;
pub use pretrained::{load_pretrained, load_pretrained_with_variant, save_pretrained};
#[cfg(feature = "download")]
pub(crate) use reader::weight_files;
pub use reader::{WeightReader, shard_files};
pub use save::{save_tensors, save_weights};
