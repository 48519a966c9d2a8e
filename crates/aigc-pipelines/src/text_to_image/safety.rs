//! Checks of finished images.

use super::{index::Index, options::Residency, parts::Part, pipeline::TextToImagePipeline};
use aigc_core::{
    DataFault, Error, Result,
    weights::{Loaded, OpenOptions},
};
use aigc_encoders::clip::{
    ClipConfig, ClipImageProcessor, ResizeTo, RgbPixels, StableDiffusionSafetyChecker,
};
use burn::tensor::{Device, Tensor};
use image::RgbImage;
use std::path::Path;

const CHECKER: &str = "safety_checker";
const PROCESSOR: &str = "feature_extractor";

/// The safety checker of a pipeline: it says which images are near unwanted concepts, and leaves
/// them as they are.
#[derive(Debug)]
pub(crate) struct SafetyCheck {
    processor: ClipImageProcessor,
    checker: Part<StableDiffusionSafetyChecker>,
}

/// What the check of an image found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SafetyResult {
    /// Whether the image is near a concept.
    pub is_flagged: bool,
    /// How much nearer each concept is than its limit; positive ones flag the image.
    pub concept_scores: Vec<f32>,
}

impl SafetyResult {
    /// A warning about image `number`, if it is flagged.
    pub(crate) fn warning(&self, number: usize) -> Option<String> {
        let near = self
            .concept_scores
            .iter()
            .enumerate()
            .filter(|(_, score)| **score > 0.0);
        let near: Vec<String> = near
            .map(|(i, score)| format!("{i} ({score:+.3})"))
            .collect();
        self.is_flagged.then(|| {
            format!(
                "the safety checker flags image {number}, by its concepts {}",
                near.join(", ")
            )
        })
    }
}

impl SafetyCheck {
    /// The checker of a directory; `None` if there is none, or it is left out.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn open(
        index: &Index,
        options: &OpenOptions,
        device: &Device,
    ) -> Result<Option<Self>> {
        let Some((dir, class)) = index.part(CHECKER) else {
            return Ok(None);
        };
        if class != "StableDiffusionSafetyChecker" {
            let reason = Error::config(CHECKER, class, "StableDiffusionSafetyChecker");
            return Err(Error::data(dir, DataFault::Mismatch(reason.to_string())));
        }
        let source = index.safety_checker(&dir, options, device)?;
        let config = ClipConfig::from_json(&source.config)
            .map_err(|error| Error::data(&dir, DataFault::Mismatch(error.to_string())))?;
        let side = config.value.vision_config.image_size;
        let processor = match index.part(PROCESSOR) {
            Some((dir, _)) => {
                let processor = ClipImageProcessor::from_pretrained(&dir)?.into_inner();
                check_side(&processor, side).map_err(|error| {
                    let fault = DataFault::Mismatch(error.to_string());
                    Error::data(dir.join("preprocessor_config.json"), fault)
                })?;
                processor
            }
            None => ClipImageProcessor::square(side),
        };
        let checker = Part::unopened(CHECKER, source);
        Ok(Some(Self { processor, checker }))
    }

    pub(crate) fn open_if(&self, residency: Residency) -> Result<Loaded<()>> {
        self.checker.open_if(residency)
    }

    pub(crate) fn checker(&self) -> &Part<StableDiffusionSafetyChecker> {
        &self.checker
    }

    pub(crate) fn save_pretrained(&self, dir: &Path) -> Result<()> {
        self.checker.get()?.save_pretrained(dir.join(CHECKER))?;
        self.processor.save_pretrained(dir.join(PROCESSOR))
    }

    /// Checks images.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn check(&self, images: &[RgbImage], device: &Device) -> Result<Vec<SafetyResult>> {
        let checker = self.checker.get()?;
        let pixels = images.iter().map(|image| {
            let pixels = RgbPixels {
                pixels: image.as_raw(),
                height: image.height() as usize,
                width: image.width() as usize,
            };
            self.processor.preprocess(&[pixels], device)
        });
        let pixels = Tensor::cat(pixels.collect::<Result<Vec<_>>>()?, 0);
        let found = checker.check(pixels);
        let each = found.flags.into_iter().zip(found.concept_scores);
        Ok(each
            .map(|(is_flagged, concept_scores)| SafetyResult {
                is_flagged,
                concept_scores,
            })
            .collect())
    }
}

/// Fails unless images become squares of this side.
fn check_side(processor: &ClipImageProcessor, side: usize) -> Result<()> {
    let made = processor.crop_size.or(match processor.size {
        Some(ResizeTo::Exact(sides)) => Some(sides),
        _ => None,
    });
    if made == Some([side; 2]) {
        return Ok(());
    }
    let made = made.map_or("none".into(), |[height, width]| {
        format!("{height} × {width}")
    });
    let expected = format!("{side} × {side}, the images of the safety checker");
    Err(Error::config("crop_size", made, expected))
}

impl TextToImagePipeline {
    /// Whether the pipeline has a safety checker.
    pub fn has_safety_checker(&self) -> bool {
        self.safety.is_some()
    }

    /// Checks images with the safety checker of the pipeline; `None` without one. Images that the
    /// pipeline makes are checked, and flagged ones named in the warnings of the result.
    ///
    /// # Errors
    /// Of the files.
    pub fn check_safety(&self, images: &[RgbImage]) -> Result<Option<Vec<SafetyResult>>> {
        let check = self
            .safety
            .as_ref()
            .map(|safety| safety.check(images, &self.device));
        check.transpose()
    }

    /// Without the safety checker.
    pub fn without_safety_checker(mut self) -> Self {
        self.safety = None;
        self
    }
}
