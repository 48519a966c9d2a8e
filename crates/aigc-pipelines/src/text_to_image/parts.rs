//! The parts of a pipeline: opened at once or when they are needed, released, changed by adapters.

use super::{
    options::Residency,
    part_models::{AnyAutoencoder, AnyTextEncoder, AnyTokenizer, PartModel},
};
use aigc_core::{
    Error, Result,
    weights::{Loaded, WeightDtype, WeightReader},
};
use aigc_diffusion::{AnyDenoiser, ControlNetModel};
use burn::tensor::{DType, Device};
use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Where a part is opened from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) config: String,
    pub(crate) files: WeightReader,
    pub(crate) dtype: WeightDtype,
    pub(crate) device: Device,
}

impl Source {
    /// Number of numbers of a tensor.
    pub(crate) fn numel(&self, name: &str) -> u64 {
        let sides = self.files.shape(name).unwrap_or_default().iter();
        sides.fold(1, |all: u64, side| all.saturating_mul(*side as u64))
    }

    /// Bytes of the weights in memory, opened as `dtype`.
    fn bytes(&self, dtype: WeightDtype) -> u64 {
        let of = |name: &str| {
            let size = match (dtype, self.files.dtype(name)) {
                (WeightDtype::Stored, Some(DType::F16 | DType::BF16)) => 2,
                (WeightDtype::F16 | WeightDtype::BF16, _) => 2,
                _ => 4,
            };
            self.numel(name).saturating_mul(size)
        };
        self.files.names().map(of).fold(0, u64::saturating_add)
    }
}

/// Where a part comes from.
enum Origin {
    /// It can be opened again.
    Files(Box<Source>),
    /// It was given, with this configuration, and cannot be released.
    Given(String),
}

type Edit<M> = Arc<dyn Fn(M) -> Result<M> + Send + Sync>;

/// A change that is made again whenever the model is opened again.
struct Change<M> {
    again: Edit<M>,
    /// Bytes that it adds to the weights in memory.
    bytes: u64,
}

/// A part of a pipeline.
pub(crate) struct Part<M> {
    name: String,
    origin: Origin,
    state: Mutex<State<M>>,
}

struct State<M> {
    model: Option<Arc<M>>,
    /// Whether the weights are opened in 32 bits, whatever the source says.
    is_wide: bool,
    /// Changes of adapters, which are made again whenever the part is opened.
    edits: Vec<Change<M>>,
    /// Whether the last change may be undone, and a model that was given as it was before.
    is_tentative: bool,
    before: Option<Arc<M>>,
    /// Reports of the first opening.
    report: Option<Loaded<()>>,
}

impl<M> State<M> {
    fn new(model: Option<Arc<M>>) -> Self {
        Self {
            model,
            is_wide: false,
            edits: vec![],
            is_tentative: false,
            before: None,
            report: None,
        }
    }
}

impl<M> Debug for Part<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part")
            .field("name", &self.name)
            .field("in_memory", &self.is_in_memory())
            .finish_non_exhaustive()
    }
}

impl<M> Part<M> {
    /// A part that is in memory, with its configuration.
    pub(crate) fn given(name: &str, config: String, model: M) -> Self {
        Self {
            name: name.into(),
            origin: Origin::Given(config),
            state: Mutex::new(State::new(Some(Arc::new(model)))),
        }
    }

    /// A part that is opened when it is needed.
    pub(crate) fn unopened(name: &str, source: Source) -> Self {
        Self {
            name: name.into(),
            origin: Origin::Files(Box::new(source)),
            state: Mutex::new(State::new(None)),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that the part is opened from, if it was not given.
    pub(crate) fn source(&self) -> Option<&Source> {
        match &self.origin {
            Origin::Files(source) => Some(source),
            Origin::Given(_) => None,
        }
    }

    /// The text of the configuration.
    pub(crate) fn config(&self) -> &str {
        match &self.origin {
            Origin::Files(source) => &source.config,
            Origin::Given(config) => config,
        }
    }

    /// Whether the model is in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.state().model.is_some()
    }

    /// Whether the weights are opened as 32-bit floats, because a result overflowed in 16 bits.
    pub(crate) fn is_wide(&self) -> bool {
        self.state().is_wide
    }

    /// Releases the model, if it can be opened again.
    pub(crate) fn release(&self) {
        if self.source().is_some() {
            self.state().model = None;
        }
    }
}

impl<M: PartModel + Clone> Part<M> {
    /// The model, which is opened if it is not in memory.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn get(&self) -> Result<Arc<M>> {
        self.open(&mut self.state())
    }

    fn open(&self, state: &mut State<M>) -> Result<Arc<M>> {
        if let Some(model) = &state.model {
            return Ok(model.clone());
        }
        let source = self.source();
        let Source {
            config,
            files,
            dtype,
            device,
        } = source.expect("a part without files is in memory");
        let dtype = match state.is_wide {
            true => WeightDtype::F32,
            false => *dtype,
        };
        let mut loaded = Loaded::new(());
        let opened = M::from_weights(config, files, dtype, device)
            .map_err(|error| in_part(&self.name, error))?;
        let mut model = loaded.merge(opened);
        let named = |names: &mut Vec<String>| {
            names
                .iter_mut()
                .for_each(|name| *name = format!("{}: {name}", self.name));
        };
        named(&mut loaded.unused_fields);
        named(&mut loaded.unused_tensors);
        named(&mut loaded.notes);
        for change in &state.edits {
            model = (change.again)(model)?;
        }
        state.report.get_or_insert(loaded);
        Ok(state.model.insert(Arc::new(model)).clone())
    }

    /// The model with weights in 32 bits, which replaces the one with fewer; `None` if it has no
    /// fewer, or was given.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn widened(&self) -> Result<Option<Arc<M>>> {
        let mut state = self.state();
        let narrow = self
            .source()
            .is_some_and(|source| source.dtype != WeightDtype::F32);
        if !narrow || state.is_wide {
            return Ok(None);
        }
        (state.is_wide, state.model) = (true, None);
        self.open(&mut state).map(Some)
    }

    /// Bytes of the weights in memory, or of those that will be once the part is opened.
    pub(crate) fn num_bytes(&self) -> u64 {
        let state = self.state();
        match (&self.origin, &state.model) {
            (Origin::Files(source), _) => {
                let dtype = match state.is_wide {
                    true => WeightDtype::F32,
                    false => source.dtype,
                };
                let added = state.edits.iter().map(|change| change.bytes);
                source.bytes(dtype) + added.sum::<u64>()
            }
            (Origin::Given(_), Some(model)) => model.num_bytes(),
            (Origin::Given(_), None) => 0,
        }
    }

    /// Whether the part was given, or has been opened once.
    pub(crate) fn was_opened(&self) -> bool {
        self.source().is_none() || self.state().report.is_some()
    }

    /// What the files held that was not used; empty if the part was not opened yet.
    pub(crate) fn report(&self) -> Loaded<()> {
        self.state().report.clone().unwrap_or_default()
    }

    /// Changes the model: `now`, and by `again` whenever it is opened again. The change can be
    /// [undone](Self::undo_change) until it is [kept](Self::keep_change).
    ///
    /// # Errors
    /// Of the change; the model then is as it was before.
    pub(crate) fn edit(&self, now: impl FnOnce(M) -> Result<M>, again: Edit<M>) -> Result<()> {
        drop(self.get()?);
        let mut state = self.state();
        let model = match self.source() {
            // If the change fails, the model is opened again: so it need not be there twice.
            Some(_) => Arc::unwrap_or_clone(state.model.take().expect("opened above")),
            None => {
                state.before = state.model.clone();
                state.model.as_deref().expect("given").clone()
            }
        };
        let before = model.num_bytes();
        let model = now(model)?;
        let bytes = model.num_bytes().saturating_sub(before);
        state.model = Some(Arc::new(model));
        state.edits.push(Change { again, bytes });
        state.is_tentative = true;
        Ok(())
    }

    /// Keeps the last change.
    pub(crate) fn keep_change(&self) {
        let mut state = self.state();
        (state.before, state.is_tentative) = (None, false);
    }

    /// Undoes the last change, unless it is kept.
    pub(crate) fn undo_change(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_tentative) {
            state.edits.pop();
            state.model = state.before.take();
        }
    }

    /// Undoes all changes: the model is opened again when it is needed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model was given and changed.
    pub(crate) fn reset(&self) -> Result<()> {
        let mut state = self.state();
        if state.edits.is_empty() {
            return Ok(());
        }
        if self.source().is_none() {
            return Err(Error::unsupported(
                format!("undoing the changes of {}", self.name),
                "TextToImagePipeline",
                "keep the model that was given, and make a new pipeline of it",
            ));
        }
        state.edits.clear();
        state.model = None;
        Ok(())
    }

    /// Opens the part if it is to be in memory from the beginning.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn open_if(&self, residency: Residency) -> Result<Loaded<()>> {
        if residency == Residency::Always {
            self.get()?;
        }
        Ok(self.report())
    }
}

/// Names the part in an error of its configuration.
pub(crate) fn in_part(name: &str, error: Error) -> Error {
    match error {
        Error::Config {
            field,
            value,
            expected,
        } => Error::config(format!("{name}: {field}"), value, expected),
        other => other,
    }
}

/// All parts of a pipeline.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) tokenizers: [Option<AnyTokenizer>; 3],
    pub(crate) encoders: [Option<Part<AnyTextEncoder>>; 3],
    pub(crate) denoiser: Part<AnyDenoiser>,
    pub(crate) vae: Part<AnyAutoencoder>,
    pub(crate) controlnets: Vec<Part<ControlNetModel>>,
}

impl Parts {
    /// Opens all parts that are to be in memory from the beginning; reports what their files held
    /// that was not used.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn open(&self, residency: Residency, report: &mut Loaded<()>) -> Result<()> {
        for encoder in self.encoders.iter().flatten() {
            report.merge(encoder.open_if(residency)?);
        }
        report.merge(self.denoiser.open_if(residency)?);
        report.merge(self.vae.open_if(residency)?);
        for controlnet in &self.controlnets {
            report.merge(controlnet.open_if(residency)?);
        }
        Ok(())
    }
}
