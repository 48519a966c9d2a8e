//! Stable Diffusion's check of images for unwanted content.

use super::{
    ClipConfig,
    files::{self, clip_methods},
    layers::projection,
    pair::unit_length,
    vision::VisionTransformer,
};
use crate::layers::widened;
#[cfg(doc)]
use aigc_core::Error;
use aigc_core::{
    Result,
    nn::{Initializer, Linear},
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, pytorch_key},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Number of concepts, and of those that make the check stricter.
const CONCEPTS: usize = 17;
const SPECIAL: usize = 3;

/// Added to all further scores of an image that is near a special concept.
const STRICTER: f32 = 0.01;

/// diffusers' `StableDiffusionSafetyChecker`: compares the embedding of an image with those of
/// concepts that are not published. It reports scores and flags, and leaves images as they are;
/// what is done with a flagged image is for the caller to decide.
#[derive(Module, Debug)]
pub struct StableDiffusionSafetyChecker {
    vision_model: VisionTransformer,
    visual_projection: Linear,
    concept_embeds: Param<Tensor<2>>,
    special_care_embeds: Param<Tensor<2>>,
    concept_embeds_weights: Param<Tensor<1>>,
    special_care_embeds_weights: Param<Tensor<1>>,
    #[module(skip)]
    config: ClipConfig,
}

/// What a [`StableDiffusionSafetyChecker`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SafetyCheck {
    /// Whether each image is near a concept.
    pub flags: Vec<bool>,
    /// Scores of the concepts for each image: the cosine minus the concept's limit, rounded to
    /// thousandths. Positive ones flag the image.
    pub concept_scores: Vec<Vec<f32>>,
    /// Scores of the special concepts. They flag no image, but after a positive one all others are
    /// higher by 0.01.
    pub special_scores: Vec<Vec<f32>>,
    /// Cosines with the concepts, `[batch, 17]`.
    pub concept_cosines: Tensor<2>,
    /// Cosines with the special concepts, `[batch, 3]`.
    pub special_cosines: Tensor<2>,
    /// Embeddings of the images, `[batch, projection_dim]`.
    pub image_embeds: Tensor<2>,
}

impl StableDiffusionSafetyChecker {
    /// The check with these sizes, without concepts yet. Of the configuration, the vision encoder
    /// and `projection_dim` are used.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn new(config: &ClipConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let (width, d) = (config.vision_config.hidden_size, config.projection_dim);
        let embeds = |count| Initializer::ONES.param([count, d], 1, 1, device);
        let limits = |count| Initializer::ONES.param([count], 1, 1, device);
        Ok(Self {
            vision_model: VisionTransformer::new(&config.vision_config, device),
            visual_projection: projection([width, d], config.initializer_factor, device),
            concept_embeds: embeds(CONCEPTS),
            special_care_embeds: embeds(SPECIAL),
            concept_embeds_weights: limits(CONCEPTS),
            special_care_embeds_weights: limits(SPECIAL),
            config: config.clone(),
        })
    }

    /// Configuration of the network.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Checks images.
    ///
    /// # Shapes
    /// - pixel_values: `[batch, 3, image_size, image_size]`, as a
    ///   [`ClipImageProcessor`](super::ClipImageProcessor) returns them
    ///
    /// # Panics
    /// If the images have another shape.
    pub fn check(&self, pixel_values: Tensor<4>) -> SafetyCheck {
        self.check_with(pixel_values, 0.0)
    }

    /// [`check`](Self::check) with `adjustment` added to every score: a positive one makes the
    /// check stricter.
    ///
    /// # Panics
    /// If the images have another shape.
    pub fn check_with(&self, pixel_values: Tensor<4>, adjustment: f32) -> SafetyCheck {
        let pooled = self.vision_model.forward(pixel_values).pooler_output;
        let image_embeds = self.visual_projection.forward(pooled);
        let cosines = |concepts: &Param<Tensor<2>>| {
            let concepts = unit_length(widened(concepts.val()));
            unit_length(image_embeds.clone()).matmul(concepts.transpose())
        };
        let concept_cosines = cosines(&self.concept_embeds);
        let special_cosines = cosines(&self.special_care_embeds);
        let rows = |cosines: &Tensor<2>| -> Vec<Vec<f32>> {
            let [_, count] = cosines.dims();
            let values: Vec<f32> = cosines.to_data().iter().collect();
            values.chunks_exact(count).map(<[f32]>::to_vec).collect()
        };
        let limits = |limits: &Param<Tensor<1>>| -> Vec<f32> {
            widened(limits.val()).into_data().iter().collect()
        };
        let concept_limits = limits(&self.concept_embeds_weights);
        let special_limits = limits(&self.special_care_embeds_weights);
        let (mut special_scores, mut concept_scores) = (vec![], vec![]);
        for (special, concepts) in rows(&special_cosines)
            .into_iter()
            .zip(rows(&concept_cosines))
        {
            let mut added = adjustment;
            let scored = special.iter().zip(&special_limits).map(|(cosine, limit)| {
                let score = thousandths(cosine - limit + added);
                if score > 0.0 {
                    added = adjustment + STRICTER;
                }
                score
            });
            special_scores.push(scored.collect());
            let scored = concepts.iter().zip(&concept_limits);
            let scored = scored.map(|(cosine, limit)| thousandths(cosine - limit + added));
            concept_scores.push(scored.collect());
        }
        let is_near = |scores: &Vec<f32>| scores.iter().any(|score| *score > 0.0);
        SafetyCheck {
            flags: concept_scores.iter().map(is_near).collect(),
            concept_scores,
            special_scores,
            concept_cosines,
            special_cosines,
            image_embeds,
        }
    }

    fn load(
        config: Loaded<ClipConfig>,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let created = config.try_map(|config| Self::new(&config, device))?;
        files::load(files, created, dtype, |key| {
            let mapping = pytorch_key(key);
            // The published files have the encoder within a model of its own.
            let name = mapping.candidates[0].clone();
            match name.starts_with("vision_model.") {
                true => mapping.or(format!("vision_model.{name}")),
                false => mapping,
            }
        })
    }

    fn to_json(&self) -> String {
        self.config.to_json_of("StableDiffusionSafetyChecker")
    }

    clip_methods!(ClipConfig);
}

/// Rounded to thousandths, halves to even ones.
fn thousandths(x: f32) -> f32 {
    (x * 1000.0).round_ties_even() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_rounded_before_they_are_compared() {
        assert_eq!(thousandths(0.0004), 0.0);
        assert_eq!(thousandths(0.0006), 0.001);
        assert_eq!(thousandths(-0.0123), -0.012);
    }
}
