//! What became of the tensors of an adapter.

use super::Component;
use std::{collections::BTreeSet, fmt, path::PathBuf};

/// What became of the tensors of an adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoraReport {
    /// The file.
    pub path: PathBuf,
    /// Layers that it changed, by their names in diffusers' and transformers' files.
    pub layers: BTreeSet<(Component, String)>,
    /// Tensors that were applied.
    pub applied: Vec<String>,
    /// Tensors without a layer in the models, or whose layer other tensors of the file change.
    pub unused: Vec<String>,
}

impl LoraReport {
    /// Whether every tensor was applied.
    pub fn is_complete(&self) -> bool {
        self.unused.is_empty()
    }
}

impl fmt::Display for LoraReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, layers) = (self.path.display(), self.layers.len());
        write!(
            f,
            "{path}: {} tensors changed {layers} layers",
            self.applied.len()
        )?;
        match self.unused.is_empty() {
            true => Ok(()),
            false => write!(f, "; not applied: {}", self.unused.join(", ")),
        }
    }
}
