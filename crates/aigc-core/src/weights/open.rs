//! Opening models in the layouts of other libraries.

use super::{KeyMapping, Loaded, ParamKey, WeightDtype, WeightReader};
use crate::{Result, json};
use burn::module::Module;
use std::path::Path;

/// File of a model's configuration.
pub(super) const CONFIG: &str = "config.json";

/// How a pretrained model is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Variant of the weights: `fp16` opens `STEM.fp16.safetensors`. `None` opens the weights
    /// without a variant, or the only variant.
    pub variant: Option<String>,
    /// Type of the parameters in memory.
    pub dtype: WeightDtype,
}

impl OpenOptions {
    /// With a variant of the weights.
    pub fn with_variant(self, variant: impl Into<String>) -> Self {
        Self {
            variant: Some(variant.into()),
            ..self
        }
    }

    /// With a type for the parameters in memory.
    pub fn with_dtype(self, dtype: WeightDtype) -> Self {
        Self { dtype, ..self }
    }
}

/// Opens a model's directory: `config.json`, of whose text `create` creates the model, and the
/// weights for the first of `stems` that has any ([`WeightReader::from_dir_with_variant`]), with
/// the names and layouts of `mapping`.
///
/// For a configuration and weights in other places, use [`WeightReader::load`].
///
/// # Errors
/// Errors of `create`, as [`Error::Data`](crate::Error::Data) with the file;
/// [`Error::Io`](crate::Error::Io) for a missing file, [`Error::Weights`](crate::Error::Weights)
/// with the tensors that do not fit.
pub fn open_model<M: Module>(
    dir: &Path,
    stems: &[&str],
    options: &OpenOptions,
    create: impl FnOnce(&str) -> Result<Loaded<M>>,
    mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
) -> Result<Loaded<M>> {
    let created = json::read_file(&dir.join(CONFIG), create)?;
    let files = WeightReader::from_dir_with_variant(dir, stems, options.variant.as_deref())?;
    files.load(created, options.dtype, mapping)
}
