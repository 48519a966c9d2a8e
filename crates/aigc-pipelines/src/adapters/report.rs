//! What became of the tensors of adapters, and of the vectors of textual inversions.

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

/// Which text encoders have the vectors of a textual inversion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InversionReport {
    /// The token that stands for the vectors in prompts.
    pub token: String,
    /// Text encoders that have the vectors.
    pub applied: Vec<Component>,
    /// Text encoders that do not know the token, and those that the file has vectors for while the
    /// pipeline does not have them.
    pub not_applied: Vec<Component>,
}

impl InversionReport {
    pub(crate) fn new(token: &str) -> Self {
        Self {
            token: token.into(),
            ..Self::default()
        }
    }

    /// Whether all text encoders have the vectors, and all vectors a text encoder.
    pub fn is_complete(&self) -> bool {
        self.not_applied.is_empty()
    }
}

impl fmt::Display for InversionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |components: &[Component]| {
            let names: Vec<&str> = components.iter().map(|each| each.name()).collect();
            names.join(", ")
        };
        write!(f, "{}: applied to {}", self.token, listed(&self.applied))?;
        match self.is_complete() {
            true => Ok(()),
            false => write!(f, "; not applied to {}", listed(&self.not_applied)),
        }
    }
}
