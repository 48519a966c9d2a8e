//! Strengths of an adapter.

use super::Component;
use aigc_core::{Error, Result};
use std::collections::BTreeMap;

/// Strengths of an adapter: one for all parts, or some of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraScales {
    scale: f64,
    components: BTreeMap<Component, f64>,
}

impl LoraScales {
    /// The same strength for all parts; 1 is that of training.
    pub fn new(scale: f64) -> Self {
        Self {
            scale,
            components: BTreeMap::new(),
        }
    }

    /// Another strength for one part.
    pub fn with_component(mut self, component: Component, scale: f64) -> Self {
        self.components.insert(component, scale);
        self
    }

    /// Fails unless all strengths are finite.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(crate) fn check(&self) -> Result<()> {
        let mut all = self.components.values().chain([&self.scale]);
        match all.find(|scale| !scale.is_finite()) {
            Some(scale) => Err(Error::argument("scale", scale, "a finite number")),
            None => Ok(()),
        }
    }

    /// The strength for a part.
    pub fn of(&self, component: Component) -> f64 {
        self.components
            .get(&component)
            .copied()
            .unwrap_or(self.scale)
    }
}

impl From<f64> for LoraScales {
    fn from(scale: f64) -> Self {
        Self::new(scale)
    }
}
