//! Adapters of a pipeline: low-rank changes, and new words.

use super::{
    open::file_name,
    part_models::{AnyTextEncoder, AnyTokenizer, PartModel},
    parts::Part,
    pipeline::TextToImagePipeline,
};
use crate::adapters::{
    Component, InversionReport, Lora, LoraReport, LoraScales, LoraStack, TextualInversion,
};
use aigc_core::{Error, Result};
use aigc_diffusion::Denoiser;
use burn::module::Module;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// How low-rank adapters change a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoraMode {
    /// Their changes are added to the weights: images take no longer than without.
    #[default]
    Merged,
    /// They stay beside the weights, which stay as they are.
    Attached,
}

/// The text encoders by their components.
const TEXT_ENCODERS: [Component; 3] = [
    Component::TextEncoder,
    Component::TextEncoder2,
    Component::TextEncoder3,
];

impl TextToImagePipeline {
    /// Applies a low-rank adapter to the parts that it is for.
    ///
    /// # Errors
    /// As [`load_loras`](Self::load_loras).
    pub fn load_lora(
        &mut self,
        path: impl AsRef<Path>,
        scales: impl Into<LoraScales>,
    ) -> Result<LoraReport> {
        let one = [(path.as_ref().to_path_buf(), scales.into())];
        let mut reports = self.load_loras(&one, LoraMode::default())?;
        Ok(reports.remove(0))
    }

    /// Applies low-rank adapters, files with their strengths, to the parts that they are for, and
    /// reports what was applied. Parts that are released and opened again are changed again.
    ///
    /// # Errors
    /// [`Error::Weights`] if an adapter is for another network, naming all its tensors that do not
    /// fit, or applies to nothing; [`Error::Io`] if a file cannot be read. No part is changed then.
    pub fn load_loras(
        &mut self,
        files: &[(PathBuf, LoraScales)],
        mode: LoraMode,
    ) -> Result<Vec<LoraReport>> {
        let stack = Arc::new(Mutex::new(stack(files)?));
        let files: Arc<[(PathBuf, LoraScales)]> = files.into();
        let network = match self.network.component() {
            "transformer" => Component::Transformer,
            _ => Component::Unet,
        };
        let result = (|| {
            change(&self.parts.denoiser, &stack, &files, move |stack, model| {
                apply(stack, model, network, mode)
            })?;
            for (encoder, component) in self.parts.encoders.iter().zip(TEXT_ENCODERS) {
                let Some(encoder) = encoder else { continue };
                change(encoder, &stack, &files, move |stack, model| match model {
                    AnyTextEncoder::Clip(model) => {
                        let model = Arc::unwrap_or_clone(model);
                        let model = apply(stack, model, component, mode)?;
                        Ok(AnyTextEncoder::Clip(Arc::new(model)))
                    }
                    AnyTextEncoder::T5(model) => {
                        let model = Arc::unwrap_or_clone(model);
                        let model = apply(stack, model, component, mode)?;
                        Ok(AnyTextEncoder::T5(Arc::new(model)))
                    }
                })?;
            }
            let mut stack = stack.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *stack).finish()
        })();
        let encoders = || self.parts.encoders.iter().flatten();
        match &result {
            Ok(_) => {
                self.parts.denoiser.keep_change();
                encoders().for_each(Part::keep_change);
                self.adapters.extend(files.iter().map(|(path, scales)| {
                    let value = format!("{}: {}", file_name(path), scales.of(network));
                    ("lora".to_owned(), value)
                }));
            }
            Err(_) => {
                self.parts.denoiser.undo_change();
                encoders().for_each(Part::undo_change);
            }
        }
        self.used(&self.parts.denoiser);
        encoders().for_each(|part| self.used(part));
        result
    }

    /// Adds the token of a textual inversion to the tokenizers, and its vectors to the text
    /// encoders that have their width. In prompts, the token then stands for them. The report says
    /// which text encoders are without.
    ///
    /// # Errors
    /// [`Error::Weights`] if no text encoder has the width of the vectors, or if those that are for
    /// one of the text encoders have another width; [`Error::InvalidArgument`] if a tokenizer has
    /// the token already. Nothing is changed then.
    pub fn load_textual_inversion(
        &mut self,
        inversion: &TextualInversion,
    ) -> Result<InversionReport> {
        let encoders = || self.parts.encoders.iter().flatten();
        let result = self.add_inversion(inversion);
        match &result {
            Ok(_) => encoders().for_each(Part::keep_change),
            Err(_) => encoders().for_each(Part::undo_change),
        }
        encoders().for_each(|part| self.used(part));
        let (tokenizers, report) = result?;
        self.parts.tokenizers = tokenizers;
        let entry = ("textual_inversion".to_owned(), inversion.token().to_owned());
        self.adapters.push(entry);
        Ok(report)
    }

    /// Changes the text encoders that have the width of the vectors, and returns the tokenizers
    /// with the token. The changes can be undone.
    fn add_inversion(
        &self,
        inversion: &TextualInversion,
    ) -> Result<([Option<AnyTokenizer>; 3], InversionReport)> {
        let mut tokenizers = self.parts.tokenizers.clone();
        let mut report = InversionReport::new(inversion.token());
        let mut first_error = None;
        // Vectors that no encoder is named for are for all, of which most have another width.
        let names_encoders = !TEXT_ENCODERS.iter().all(|each| inversion.has(*each));
        for (which, component) in TEXT_ENCODERS.into_iter().enumerate() {
            let is_named = names_encoders && inversion.has(component);
            let tokenizer = self.parts.tokenizers[which]
                .as_ref()
                .and_then(|t| t.as_clip());
            let encoder = self.parts.encoders[which].as_ref();
            let (Some(before), Some(encoder)) = (tokenizer, encoder) else {
                // T5, or vectors for an encoder that is not there.
                if encoder.is_some() || is_named {
                    report.not_applied.push(component);
                }
                continue;
            };
            // So that errors of its files are not taken for those of the vectors.
            drop(encoder.get()?);
            let before = before.clone();
            let inversion = inversion.clone();
            let after = Arc::new(Mutex::new(before.clone()));
            let extended = after.clone();
            let edit = move |model: AnyTextEncoder| {
                let model = Arc::unwrap_or_clone(model.clip()?);
                let mut tokenizer = before.clone();
                let model = inversion.add_to(component, &mut tokenizer, model)?;
                *extended.lock().unwrap_or_else(PoisonError::into_inner) = tokenizer;
                Ok(AnyTextEncoder::Clip(Arc::new(model)))
            };
            let edit = Arc::new(edit);
            let again = edit.clone();
            match encoder.edit(|model| edit(model), Arc::new(move |model| again(model))) {
                Ok(()) => {
                    let tokenizer = after.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    tokenizers[which] = Some(AnyTokenizer::Clip(tokenizer));
                    report.applied.push(component);
                }
                // The vectors of another encoder.
                Err(error @ Error::Weights { .. }) if !is_named => {
                    report.not_applied.push(component);
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match (report.applied.is_empty(), first_error) {
            (false, _) => Ok((tokenizers, report)),
            (true, Some(error)) => Err(error),
            (true, None) => Err(Error::unsupported(
                "textual inversion without a text encoder of CLIP",
                "TextToImagePipeline",
                "",
            )),
        }
    }

    /// Takes all low-rank adapters and textual inversions away: the parts are opened again when
    /// they are needed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for parts that were given, and not opened from files.
    pub fn unload_adapters(&mut self) -> Result<()> {
        self.parts.denoiser.reset()?;
        for encoder in self.parts.encoders.iter().flatten() {
            encoder.reset()?;
        }
        self.parts.tokenizers = self.original_tokenizers.clone();
        self.adapters.clear();
        Ok(())
    }
}

/// The adapters of some files.
fn stack(files: &[(PathBuf, LoraScales)]) -> Result<LoraStack> {
    files
        .iter()
        .try_fold(LoraStack::new(), |stack, (path, scales)| {
            stack.with(Lora::open(path)?, scales.clone())
        })
}

fn apply<M: Module>(
    stack: &mut LoraStack,
    model: M,
    component: Component,
    mode: LoraMode,
) -> Result<M> {
    match mode {
        LoraMode::Merged => stack.merge(model, component).map(|(model, _)| model),
        LoraMode::Attached => stack.attach(model, component),
    }
}

/// Changes a part by `apply`: now with `stack`, which reports what was applied, and with the same
/// files whenever the part is opened again.
fn change<M: PartModel + Clone + 'static>(
    part: &Part<M>,
    stack: &Mutex<LoraStack>,
    files: &Arc<[(PathBuf, LoraScales)]>,
    apply: impl Fn(&mut LoraStack, M) -> Result<M> + Send + Sync + Clone + 'static,
) -> Result<()> {
    let (files, again) = (files.clone(), apply.clone());
    let now = |model| {
        let mut stack = stack.lock().unwrap_or_else(PoisonError::into_inner);
        apply(&mut stack, model)
    };
    part.edit(
        now,
        Arc::new(move |model| again(&mut self::stack(&files)?, model)),
    )
}
