//! Applying several adapters to the parts of a pipeline.

use super::{
    Component, Lora, LoraReport, LoraScales,
    attach::attach,
    layers::{ModelLayers, layers_of},
    names::table,
    plan::{Entry, Plan},
};
use aigc_core::{
    Error, Result,
    weights::{Originals, edit_params, pytorch_key},
};
use burn::module::Module;
use std::{collections::HashMap, sync::Arc};

/// Adapters, to be applied to the parts of a pipeline one after the other. At the end,
/// [`finish`](Self::finish) says what was applied.
#[derive(Debug, Default)]
pub struct LoraStack {
    entries: Vec<Entry>,
}

impl LoraStack {
    /// No adapters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an adapter.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a strength is not finite.
    pub fn with(
        mut self,
        lora: impl Into<Arc<Lora>>,
        scales: impl Into<LoraScales>,
    ) -> Result<Self> {
        let scales = scales.into();
        scales.check()?;
        self.entries.push(Entry::new(lora.into(), scales));
        Ok(self)
    }

    /// Number of adapters.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no adapters.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the changes to the weights of a part, `W + scale · alpha / rank · up · down`, and
    /// returns the weights that were changed, too: with them,
    /// [`restore_params`](aigc_core::weights::restore_params) takes the changes away bit for bit.
    /// A part that an adapter does not fit is not changed; [`finish`](Self::finish) then fails.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model with attached adapters; [`Error::Weights`] or
    /// [`Error::Io`] if tensors cannot be read.
    pub fn merge<M: Module>(&mut self, model: M, component: Component) -> Result<(M, Originals)> {
        let layers = layers_of(&model);
        let Some(plan) = self.plan(&layers, component)? else {
            return Ok((model, Originals::default()));
        };
        let by_name: HashMap<&str, usize> = layers
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| (&layer.name[..], index))
            .collect();
        let mut originals = Originals::default();
        let model = edit_params(model, pytorch_key, &mut originals, |param, weight| {
            let index = param
                .name
                .strip_suffix(".weight")
                .and_then(|name| by_name.get(name));
            let Some((index, changes)) = index.and_then(|index| Some((*index, plan.get(index)?)))
            else {
                return Ok(None);
            };
            let layer = &layers.layers[index];
            let mut sum = weight();
            for change in changes {
                sum = sum + change.dense(layer, &param.device)?;
            }
            Ok(Some(sum))
        })?;
        Ok((model, originals))
    }

    /// Attaches the changes to a part: its weights stay as they are, and the changes are added
    /// whenever a weight is used. [`detach`](super::detach) takes them away.
    /// A part that an adapter does not fit is not changed; [`finish`](Self::finish) then fails.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model with attached adapters, and for changes that are not
    /// products of two factors; [`Error::Weights`] or [`Error::Io`] if tensors cannot be read.
    pub fn attach<M: Module>(&mut self, model: M, component: Component) -> Result<M> {
        let layers = layers_of(&model);
        let Some(plan) = self.plan(&layers, component)? else {
            return Ok(model);
        };
        attach(model, &layers, &plan)
    }

    /// What was applied, for each adapter in the order in which they were added.
    ///
    /// # Errors
    /// [`Error::Weights`] with the file of the first adapter that does not fit a part, naming all
    /// its tensors that do not, or that applies to nothing; then those of all further ones.
    pub fn finish(self) -> Result<Vec<LoraReport>> {
        let (mut reports, mut errors) = (vec![], vec![]);
        for entry in self.entries {
            match entry.report() {
                Ok(report) => reports.push(report),
                Err(error) => errors.push(error),
            }
        }
        match errors.into_iter().reduce(joined) {
            None => Ok(reports),
            Some(error) => Err(error),
        }
    }

    /// The changes of each layer, by its index; `None` if some do not fit.
    fn plan(&mut self, model: &ModelLayers, component: Component) -> Result<Option<Plan<'_>>> {
        if model.adapted {
            return Err(Error::unsupported(
                format!("a {component} with attached adapters"),
                "LoraStack",
                "take them away with `detach`, and apply all adapters at once",
            ));
        }
        let table = table(component, model);
        let mut fits = true;
        for entry in &mut self.entries {
            fits &= entry.resolve(model, component, &table);
        }
        if !fits {
            return Ok(None);
        }
        let mut plan = Plan::new();
        for entry in &self.entries {
            entry.extend(&mut plan, model, component, &table);
        }
        Ok(Some(plan))
    }
}

impl Lora {
    /// Merges this adapter into one model, as [`LoraStack::merge`] does.
    ///
    /// # Errors
    /// As [`LoraStack::merge`] and [`LoraStack::finish`].
    pub fn merge<M: Module>(
        self,
        model: M,
        component: Component,
        scale: f64,
    ) -> Result<(M, Originals, LoraReport)> {
        let mut stack = LoraStack::new().with(self, scale)?;
        let (model, originals) = stack.merge(model, component)?;
        Ok((model, originals, only(stack.finish()?)))
    }

    /// Attaches this adapter to one model, as [`LoraStack::attach`] does.
    ///
    /// # Errors
    /// As [`LoraStack::attach`] and [`LoraStack::finish`].
    pub fn attach<M: Module>(
        self,
        model: M,
        component: Component,
        scale: f64,
    ) -> Result<(M, LoraReport)> {
        let mut stack = LoraStack::new().with(self, scale)?;
        let model = stack.attach(model, component)?;
        Ok((model, only(stack.finish()?)))
    }
}

/// The first error, with the text of the other one.
fn joined(first: Error, other: Error) -> Error {
    match first {
        Error::Weights { path, reason } => Error::weights(path, format!("{reason}; {other}")),
        first => first,
    }
}

fn only(mut reports: Vec<LoraReport>) -> LoraReport {
    reports.pop().expect("one report for each adapter")
}
