//! Applying low-rank adapters to models.

use super::{
    Component, Lora, LoraReport,
    delta::{Delta, LowRankFactors, Reading, Size, rows_of},
    layers::{Layer, LayerKind, ModelLayers, layers_of},
    low_rank::LowRank,
    names::{Naming, Place, Table, table},
};
use aigc_core::{
    Error, Result,
    weights::{Originals, edit_params, pytorch_key},
};
use burn::{
    module::{Module, Param, ParamId, Reparameterizer},
    tensor::{Device, Tensor},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Limit on the names in an error message.
const LISTED: usize = 4096;

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

/// Adapters, to be applied to the parts of a pipeline one after the other. At the end,
/// [`finish`](Self::finish) says what was applied.
#[derive(Debug, Default)]
pub struct LoraStack {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
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
struct Planned<'a> {
    reading: Reading<'a>,
    place: Place,
    rows: usize,
    scale: f64,
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
        let all = scales.components.values().chain([&scales.scale]);
        for scale in all {
            if !scale.is_finite() {
                return Err(Error::argument("scale", scale, "a finite number"));
            }
        }
        self.entries.push(Entry {
            lora: lora.into(),
            scales,
            found: BTreeSet::new(),
            layers: BTreeSet::new(),
            mismatched: vec![],
            repeated: BTreeSet::new(),
        });
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
        let mut adapters = HashMap::new();
        for (index, changes) in &plan {
            let layer = &layers.layers[*index];
            adapters.insert(layer.id, (layer, changes));
        }
        let mut failed = None;
        let attach = Attach {
            adapters,
            failed: &mut failed,
        };
        let model = model.apply_reparameterization(attach);
        match failed {
            Some(error) => Err(error),
            None => Ok(model),
        }
    }

    /// What was applied, for each adapter in the order in which they were added.
    ///
    /// # Errors
    /// [`Error::Weights`] with the file of the first adapter that does not fit a part, naming all
    /// its tensors that do not, or that applies to nothing.
    pub fn finish(self) -> Result<Vec<LoraReport>> {
        self.entries.into_iter().map(Entry::report).collect()
    }

    /// The changes of each layer, by its index; `None` if some do not fit.
    fn plan(
        &mut self,
        model: &ModelLayers,
        component: Component,
    ) -> Result<Option<BTreeMap<usize, Vec<Planned<'_>>>>> {
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
        let mut plan: BTreeMap<usize, Vec<Planned<'_>>> = BTreeMap::new();
        for entry in &self.entries {
            let scale = entry.scales.of(component);
            for (stem, change) in &entry.lora.changes {
                let Some((_, places)) = table.get(stem) else {
                    continue;
                };
                if entry.repeated.contains(stem) {
                    continue;
                }
                let rows = rows_in_file(places, model);
                for place in places {
                    plan.entry(place.layer).or_default().push(Planned {
                        reading: Reading::new(&entry.lora, change),
                        place: place.clone(),
                        rows,
                        scale,
                    });
                }
            }
        }
        Ok(Some(plan))
    }
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
    /// Records which layers of the file are in a part; whether they fit.
    fn resolve(&mut self, model: &ModelLayers, component: Component, table: &Table) -> bool {
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

    fn report(self) -> Result<LoraReport> {
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
            mismatched: vec![],
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

fn only(mut reports: Vec<LoraReport>) -> LoraReport {
    reports.pop().expect("one report for each adapter")
}

impl Planned<'_> {
    fn size<'a>(&self, layer: &'a Layer) -> Size<'a> {
        Size {
            rows: self.rows,
            columns: &layer.columns,
        }
    }

    /// The change of the layer as a matrix with one row for each output.
    fn dense(&self, layer: &Layer, device: &Device) -> Result<Tensor<2>> {
        let delta = self.reading.delta(&self.size(layer), self.scale, device)?;
        Ok(rows_of(delta.dense(), &self.place))
    }

    /// The factors of the change of the layer, `[rows, rank]` and `[rank, columns]`, and the scale.
    fn factors(&self, layer: &Layer, device: &Device) -> Result<(LowRankFactors, f64)> {
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

struct Attach<'a> {
    adapters: HashMap<ParamId, (&'a Layer, &'a Vec<Planned<'a>>)>,
    failed: &'a mut Option<Error>,
}

impl Attach<'_> {
    /// All changes of a layer as one, with the ranks side by side.
    fn low_rank(&self, id: ParamId, device: &Device) -> Result<Option<LowRank>> {
        let Some((layer, changes)) = self.adapters.get(&id) else {
            return Ok(None);
        };
        let factors: Vec<(LowRankFactors, f64)> = changes
            .iter()
            .map(|change| change.factors(layer, device))
            .collect::<Result<_>>()?;
        let scale = match &factors[..] {
            [(_, scale)] => *scale,
            _ => 1.0,
        };
        let (mut ups, mut downs) = (vec![], vec![]);
        for (LowRankFactors { up, down }, own) in factors {
            ups.push(if changes.len() > 1 { up * own } else { up });
            downs.push(down);
        }
        let (up, down) = (Tensor::cat(ups, 1), Tensor::cat(downs, 0));
        let (a, b) = match layer.kind {
            LayerKind::Linear => (down.transpose(), up.transpose()),
            LayerKind::Conv => (up, down),
        };
        let param = |factor| Param::from_tensor(factor).set_require_grad(false);
        Ok(Some(LowRank::new(param(a), param(b), scale)))
    }
}

impl Reparameterizer for Attach<'_> {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        if self.failed.is_some() {
            return (param, None);
        }
        match self.low_rank(param.id, &param.lazy_device()) {
            Ok(adapter) => (param, adapter),
            Err(error) => {
                *self.failed = Some(error);
                (param, None)
            }
        }
    }
}
