//! What adapters change in a model, and what became of their tensors.

use super::{
    Component, Lora, LoraReport, LoraScales,
    delta::{Delta, LowRankFactors, Reading, Size, rows_of},
    layers::{Layer, ModelLayers},
    names::{Naming, Place, Table},
};
use aigc_core::{Error, Result};
use burn::tensor::{Device, Tensor};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Limit on the names in an error message.
const LISTED: usize = 4096;

/// The changes of each layer of a model, by its index.
pub(crate) type Plan<'a> = BTreeMap<usize, Vec<Planned<'a>>>;

/// An adapter, and what of it has a layer in the models so far.
#[derive(Debug)]
pub(crate) struct Entry {
    lora: Arc<Lora>,
    scales: LoraScales,
    /// Names of layers in the file that have a layer in some model.
    found: BTreeSet<String>,
    layers: BTreeSet<(Component, String)>,
    mismatched: Vec<String>,
    /// Names in the naming of the first publication that are in the file under other names too.
    repeated: BTreeSet<String>,
}

/// A change of one layer of a model.
pub(crate) struct Planned<'a> {
    reading: Reading<'a>,
    place: Place,
    rows: usize,
    scale: f64,
}

/// Number of rows of a layer of the file that stands for these places.
fn rows_in_file(places: &[Place], model: &ModelLayers) -> usize {
    let rows = |place: &Place| match &place.rows {
        Some(rows) => rows.len(),
        None => model.layers[place.layer].rows,
    };
    places.iter().map(rows).sum()
}

impl Entry {
    pub(crate) fn new(lora: Arc<Lora>, scales: LoraScales) -> Self {
        Self {
            lora,
            scales,
            found: BTreeSet::new(),
            layers: BTreeSet::new(),
            mismatched: vec![],
            repeated: BTreeSet::new(),
        }
    }

    /// Records which layers of the file are in a part; whether they fit.
    pub(crate) fn resolve(
        &mut self,
        model: &ModelLayers,
        component: Component,
        table: &Table,
    ) -> bool {
        // Files may have the same change under both names of a layer.
        let is_known = |stem: &String| table.get(stem);
        let library: BTreeSet<usize> = self
            .lora
            .changes
            .keys()
            .filter_map(is_known)
            .filter(|(naming, _)| *naming == Naming::Library)
            .flat_map(|(_, places)| places.iter().map(|place| place.layer))
            .collect();
        let mut problems = vec![];
        for (stem, change) in &self.lora.changes {
            let Some((naming, places)) = table.get(stem) else {
                continue;
            };
            let repeats = |place: &Place| library.contains(&place.layer);
            if *naming == Naming::Original && places.iter().any(repeats) {
                self.repeated.insert(stem.clone());
                continue;
            }
            let first = &model.layers[places[0].layer];
            let size = Size {
                rows: rows_in_file(places, model),
                columns: &first.columns,
            };
            problems.extend(Reading::new(&self.lora, change).problems(&size));
            self.found.insert(stem.clone());
            let names = places.iter().map(|place| &model.layers[place.layer].name);
            self.layers
                .extend(names.map(|name| (component, name.clone())));
        }
        let fits = problems.is_empty();
        self.mismatched.extend(problems);
        fits
    }

    /// Adds the changes of the layers of a part, which were [resolved](Self::resolve) and fit.
    pub(crate) fn extend<'a>(
        &'a self,
        plan: &mut Plan<'a>,
        model: &ModelLayers,
        component: Component,
        table: &Table,
    ) {
        let scale = self.scales.of(component);
        for (stem, change) in &self.lora.changes {
            let Some((_, places)) = table.get(stem) else {
                continue;
            };
            if self.repeated.contains(stem) {
                continue;
            }
            let rows = rows_in_file(places, model);
            for place in places {
                plan.entry(place.layer).or_default().push(Planned {
                    reading: Reading::new(&self.lora, change),
                    place: place.clone(),
                    rows,
                    scale,
                });
            }
        }
    }

    /// What was applied.
    ///
    /// # Errors
    /// [`Error::Weights`] naming all tensors that do not fit, or if nothing was applied.
    pub(crate) fn report(self) -> Result<LoraReport> {
        let path = self.lora.path();
        let (mut applied, mut unused) = (vec![], self.lora.others.clone());
        for (stem, change) in &self.lora.changes {
            let to = if self.found.contains(stem) {
                &mut applied
            } else {
                &mut unused
            };
            to.extend(change.tensors.values().cloned());
        }
        if !self.mismatched.is_empty() {
            let reason = format!(
                "the adapter is for another network; size mismatch: {}; tensors without a layer: \
                 {}",
                listed(&self.mismatched),
                listed(&unused),
            );
            return Err(Error::weights(path, reason));
        }
        if applied.is_empty() {
            let reason = format!(
                "the adapter applies to nothing; tensors without a layer: {}",
                listed(&unused)
            );
            return Err(Error::weights(path, reason));
        }
        Ok(LoraReport {
            path: path.into(),
            layers: self.layers,
            applied,
            unused,
        })
    }
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let shown = names[..names.len().min(LISTED)].join(", ");
    match (names.len(), more) {
        (0, _) => "none".into(),
        (_, 0) => shown,
        _ => format!("{shown} and {more} more"),
    }
}

impl Planned<'_> {
    fn size<'a>(&self, layer: &'a Layer) -> Size<'a> {
        Size {
            rows: self.rows,
            columns: &layer.columns,
        }
    }

    /// The change of the layer as a matrix with one row for each output.
    pub(crate) fn dense(&self, layer: &Layer, device: &Device) -> Result<Tensor<2>> {
        let delta = self.reading.delta(&self.size(layer), self.scale, device)?;
        Ok(rows_of(delta.dense(), &self.place))
    }

    /// The factors of the change of the layer, `[rows, rank]` and `[rank, columns]`, and the scale.
    pub(crate) fn factors(&self, layer: &Layer, device: &Device) -> Result<(LowRankFactors, f64)> {
        match self.reading.delta(&self.size(layer), self.scale, device)? {
            Delta::LowRank(LowRankFactors { up, down }, scale) => {
                let up = rows_of(up, &self.place);
                Ok((LowRankFactors { up, down }, scale))
            }
            Delta::Dense(_) => Err(Error::unsupported(
                format!(
                    "a change of {} that is not a product of two factors",
                    layer.name
                ),
                "LoraStack::attach",
                "merge it",
            )),
        }
    }
}
