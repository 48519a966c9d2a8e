//! The parts of a pipeline: opened at once or when they are needed, released, changed by adapters.

use super::options::Residency;
use aigc_core::{
    Error, Result,
    weights::{Loaded, WeightDtype, WeightReader},
};
use aigc_diffusion::{AnyDenoiser, ControlNetModel};
use aigc_encoders::{
    clip::ClipTextModel,
    t5::T5EncoderModel,
    tokenizer::{ClipTokenizer, T5Tokenizer},
};
use aigc_vae::{AutoencoderKl, AutoencoderTiny};
use burn::tensor::{DType, Device};
use serde_json::Value;
use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A model that is made of a configuration and weights.
pub(crate) trait PartModel: Sized {
    fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>>;
}

/// Where a part is opened from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) config: String,
    pub(crate) files: WeightReader,
    pub(crate) dtype: WeightDtype,
    pub(crate) device: Device,
}

impl Source {
    /// Bytes of the weights in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let of = |name: &str| {
            let numbers: usize = self.files.shape(name).unwrap_or_default().iter().product();
            let size = match (self.dtype, self.files.dtype(name)) {
                (WeightDtype::Stored, Some(DType::F16 | DType::BF16)) => 2,
                (WeightDtype::F16 | WeightDtype::BF16, _) => 2,
                _ => 4,
            };
            numbers as u64 * size
        };
        self.files.names().map(of).sum()
    }
}

type Edit<M> = Arc<dyn Fn(M) -> Result<M> + Send + Sync>;

/// A part of a pipeline.
pub(crate) struct Part<M> {
    name: String,
    /// `None`: the model was given, and cannot be released.
    source: Option<Source>,
    state: Mutex<State<M>>,
}

struct State<M> {
    model: Option<Arc<M>>,
    /// Changes of adapters, which are made again whenever the part is opened.
    edits: Vec<Edit<M>>,
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
            .field("in_memory", &self.state().model.is_some())
            .finish_non_exhaustive()
    }
}

impl<M> Part<M> {
    /// A part that is in memory.
    pub(crate) fn given(name: &str, model: M) -> Self {
        Self {
            name: name.into(),
            source: None,
            state: Mutex::new(State::new(Some(Arc::new(model)))),
        }
    }

    /// A part that is opened when it is needed.
    pub(crate) fn unopened(name: &str, source: Source) -> Self {
        Self {
            name: name.into(),
            source: Some(source),
            state: Mutex::new(State::new(None)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Releases the model, if it can be opened again.
    pub(crate) fn release(&self) {
        if self.source.is_some() {
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
        let mut state = self.state();
        if let Some(model) = &state.model {
            return Ok(model.clone());
        }
        let Source {
            config,
            files,
            dtype,
            device,
        } = self
            .source
            .as_ref()
            .expect("a part without a source is in memory");
        let mut loaded = Loaded::new(());
        let opened = M::from_weights(config, files, *dtype, device)
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
        for edit in &state.edits {
            model = edit(model)?;
        }
        state.report.get_or_insert(loaded);
        Ok(state.model.insert(Arc::new(model)).clone())
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
        let model = match self.source {
            // If the change fails, the model is opened again: so it need not be there twice.
            Some(_) => Arc::unwrap_or_clone(state.model.take().expect("opened above")),
            None => {
                state.before = state.model.clone();
                state.model.as_deref().expect("given").clone()
            }
        };
        state.model = Some(Arc::new(now(model)?));
        state.edits.push(again);
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
        if self.source.is_none() {
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
fn in_part(name: &str, error: Error) -> Error {
    match error {
        Error::Config {
            field,
            value,
            expected,
        } => Error::config(format!("{name}: {field}"), value, expected),
        other => other,
    }
}

/// A tokenizer.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A pipeline has three.
pub(crate) enum AnyTokenizer {
    Clip(ClipTokenizer),
    T5(Arc<T5Tokenizer>),
}

impl AnyTokenizer {
    pub(crate) fn as_clip(&self) -> Option<&ClipTokenizer> {
        match self {
            Self::Clip(tokenizer) => Some(tokenizer),
            Self::T5(_) => None,
        }
    }

    pub(crate) fn as_t5(&self) -> Option<&T5Tokenizer> {
        match self {
            Self::T5(tokenizer) => Some(tokenizer),
            Self::Clip(_) => None,
        }
    }

    pub(crate) fn save_pretrained(&self, dir: &std::path::Path) -> Result<()> {
        match self {
            Self::Clip(tokenizer) => tokenizer.save_pretrained(dir),
            Self::T5(tokenizer) => tokenizer.save_pretrained(dir),
        }
    }

    /// The class in transformers.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Clip(_) => "CLIPTokenizer",
            Self::T5(_) => "T5Tokenizer",
        }
    }
}

/// A text encoder.
#[derive(Clone, Debug)]
pub(crate) enum AnyTextEncoder {
    Clip(Arc<ClipTextModel>),
    T5(Arc<T5EncoderModel>),
}

impl AnyTextEncoder {
    /// CLIP's encoder.
    ///
    /// # Errors
    /// [`Error::Config`] if it is another one.
    pub(crate) fn clip(&self) -> Result<Arc<ClipTextModel>> {
        match self {
            Self::Clip(model) => Ok(model.clone()),
            Self::T5(_) => Err(Error::config(
                "text_encoder",
                "T5EncoderModel",
                "CLIPTextModel",
            )),
        }
    }

    /// T5's encoder.
    ///
    /// # Errors
    /// [`Error::Config`] if it is another one.
    pub(crate) fn t5(&self) -> Result<Arc<T5EncoderModel>> {
        match self {
            Self::T5(model) => Ok(model.clone()),
            Self::Clip(_) => Err(Error::config(
                "text_encoder",
                "CLIPTextModel",
                "T5EncoderModel",
            )),
        }
    }

    /// The class in transformers.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Clip(model) if model.config().with_projection => "CLIPTextModelWithProjection",
            Self::Clip(_) => "CLIPTextModel",
            Self::T5(_) => "T5EncoderModel",
        }
    }

    pub(crate) fn save_pretrained(&self, dir: &std::path::Path) -> Result<()> {
        match self {
            Self::Clip(model) => model.save_pretrained(dir),
            Self::T5(model) => model.save_pretrained(dir),
        }
    }
}

impl PartModel for AnyTextEncoder {
    fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let fields = aigc_core::json::parse_object(config)?;
        match fields.get("model_type").and_then(Value::as_str) {
            Some("t5" | "umt5") => Ok(T5EncoderModel::from_weights(config, files, dtype, device)?
                .map(|model| Self::T5(Arc::new(model)))),
            _ => Ok(ClipTextModel::from_weights(config, files, dtype, device)?
                .map(|model| Self::Clip(Arc::new(model)))),
        }
    }
}

/// An autoencoder of images.
#[derive(Clone, Debug)]
pub(crate) enum AnyAutoencoder {
    Kl(Arc<AutoencoderKl>),
    Tiny(Arc<AutoencoderTiny>),
}

impl AnyAutoencoder {
    /// The class in diffusers.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Kl(_) => "AutoencoderKL",
            Self::Tiny(_) => "AutoencoderTiny",
        }
    }

    pub(crate) fn save_pretrained(&self, dir: &std::path::Path) -> Result<()> {
        match self {
            Self::Kl(model) => model.save_pretrained(dir),
            Self::Tiny(model) => model.save_pretrained(dir),
        }
    }
}

impl PartModel for AnyAutoencoder {
    fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let fields = aigc_core::json::parse_object(config)?;
        match fields.get("_class_name").and_then(Value::as_str) {
            Some("AutoencoderTiny") => {
                Ok(AutoencoderTiny::from_weights(config, files, dtype, device)?
                    .map(|model| Self::Tiny(Arc::new(model))))
            }
            _ => Ok(AutoencoderKl::from_weights(config, files, dtype, device)?
                .map(|model| Self::Kl(Arc::new(model)))),
        }
    }
}

macro_rules! part_models {
    ($($model:ty),*) => {
        $(impl PartModel for $model {
            fn from_weights(
                config: &str,
                files: &WeightReader,
                dtype: WeightDtype,
                device: &Device,
            ) -> Result<Loaded<Self>> {
                <$model>::from_weights(config, files, dtype, device)
            }
        })*
    };
}

part_models!(AnyDenoiser, ControlNetModel);

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
