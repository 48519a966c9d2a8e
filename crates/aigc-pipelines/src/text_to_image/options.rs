//! Options of a pipeline beyond those of an
//! [`ImageRequest`](aigc_core::text_to_image::ImageRequest).

use super::{embeddings::PromptEmbeddings, preview::PreviewDecoder, prompt::PromptSyntax};
use aigc_core::text_to_image::ImageSize;
use aigc_diffusion::AnyScheduler;
use image::DynamicImage;
use serde::{Deserialize, Serialize};

/// Where noise comes from. Every image of a request has a stream of its own, so that it can be made
/// alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoiseSource {
    /// PyTorch's generator on the CPU: image `k` is that of diffusers with
    /// `generator=torch.Generator("cpu").manual_seed(seed + k)`. A batch is that of a list of such
    /// generators.
    #[default]
    Torch,
    /// PyTorch's generator, one for all images: the images are those of diffusers with
    /// `num_images_per_prompt` and a single generator. They are made in one batch, and none of them
    /// can be made alone.
    TorchBatch,
    /// The generator of this library.
    Native,
}

/// When the parts of a pipeline are in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Residency {
    /// All parts are opened with the pipeline and stay.
    #[default]
    Always,
    /// A part is opened when it is first needed and stays.
    OnDemand,
    /// A part is opened when it is needed and released after it: the text encoders once the prompt
    /// is encoded, the network once all images are denoised. Every request opens them again.
    WhileNeeded,
}

/// Whether large images are encoded and decoded in overlapping tiles, which need less memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Tiling {
    /// Images of more than 1,048,576 pixels (1024×1024).
    #[default]
    Auto,
    /// All images that are larger than a tile.
    Always,
    /// None.
    Never,
}

/// What SDXL's network is told about the sizes of an image, all as height and width (Podell et al.
/// 2023, <https://arxiv.org/abs/2307.01952>, section 2.2). By default, the image was not scaled or
/// cropped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SizeConditions {
    /// Size before scaling; the size of the image by default.
    pub original_size: Option<[u32; 2]>,
    /// What was cropped at the top and left.
    pub crops_coords_top_left: [u32; 2],
    /// Size after cropping; the size of the image by default.
    pub target_size: Option<[u32; 2]>,
    /// As `original_size`, for the unconditional prediction. Has an effect together with
    /// `negative_target_size`.
    pub negative_original_size: Option<[u32; 2]>,
    /// As `crops_coords_top_left`, for the unconditional prediction.
    pub negative_crops_coords_top_left: [u32; 2],
    /// As `target_size`, for the unconditional prediction.
    pub negative_target_size: Option<[u32; 2]>,
    /// Aesthetic scores that refiners are told, of the prompt and of the unconditional prediction;
    /// 6 and 2.5 by default.
    pub aesthetic_scores: Option<[f64; 2]>,
}

impl SizeConditions {
    /// The numbers of the prompt and of the unconditional prediction, for an image of `size`;
    /// refiners have `aesthetic` scores in place of the target size.
    pub(crate) fn numbers(&self, size: ImageSize, aesthetic: bool) -> [Vec<f32>; 2] {
        let own = [size.height, size.width];
        let [original, target] =
            [self.original_size, self.target_size].map(|size| size.unwrap_or(own));
        let crops = self.crops_coords_top_left;
        let positive = (original, crops, target);
        let negative = match (self.negative_original_size, self.negative_target_size) {
            (Some(original), Some(target)) => {
                (original, self.negative_crops_coords_top_left, target)
            }
            _ => positive,
        };
        let [score, negative_score] = self.aesthetic_scores.unwrap_or([6.0, 2.5]);
        let listed = |(original, crops, target): ([u32; 2], [u32; 2], [u32; 2]), score: f64| {
            let first = original.into_iter().chain(crops).map(|side| side as f32);
            match aesthetic {
                true => first.chain([score as f32]).collect(),
                false => first.chain(target.map(|side| side as f32)).collect(),
            }
        };
        [listed(positive, score), listed(negative, negative_score)]
    }
}

/// How a ControlNet takes part.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ControlSettings {
    /// The image that it follows. `None`: that of the request.
    pub image: Option<DynamicImage>,
    /// Factor of what it adds.
    pub conditioning_scale: f64,
    /// It begins at this part of the steps, from 0 to 1.
    pub guidance_start: f64,
    /// It ends at this part of the steps, from 0 to 1.
    pub guidance_end: f64,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            image: None,
            conditioning_scale: 1.0,
            guidance_start: 0.0,
            guidance_end: 1.0,
        }
    }
}

impl ControlSettings {
    /// With this factor of what the ControlNet adds.
    pub fn with_conditioning_scale(mut self, scale: f64) -> Self {
        self.conditioning_scale = scale;
        self
    }

    /// For these parts of the steps, from 0 to 1.
    pub fn with_guidance(mut self, start: f64, end: f64) -> Self {
        (self.guidance_start, self.guidance_end) = (start, end);
        self
    }

    /// With an image of its own.
    pub fn with_image(mut self, image: DynamicImage) -> Self {
        self.image = Some(image);
        self
    }

    /// The factor at call `step` of `steps`, 0 outside its part.
    pub(crate) fn scale_at(&self, step: usize, steps: usize) -> f64 {
        let steps = steps as f64;
        let (start, end) = (step as f64 / steps, (step + 1) as f64 / steps);
        let outside = start < self.guidance_start || end > self.guidance_end;
        if outside {
            0.0
        } else {
            self.conditioning_scale
        }
    }
}

/// Options of a [`TextToImagePipeline`](super::TextToImagePipeline). Names and defaults are those
/// of diffusers' pipelines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PipelineOptions {
    /// The scheduler, in place of the pipeline's own.
    pub scheduler: Option<AnyScheduler>,
    /// Noise of DDIM's steps, from 0 to 1.
    pub eta: f64,
    /// See [`guidance_rescale`](aigc_diffusion::ClassifierFreeGuidance::guidance_rescale).
    pub guidance_rescale: f64,
    /// Layers that are left out at the end of CLIP's text encoders.
    pub clip_skip: Option<usize>,
    /// How prompts are read.
    pub prompt_syntax: PromptSyntax,
    /// The prompt of the second text encoder; that of the first by default.
    pub prompt_2: Option<String>,
    /// The prompt of the third text encoder.
    pub prompt_3: Option<String>,
    /// The negative prompt of the second text encoder.
    pub negative_prompt_2: Option<String>,
    /// The negative prompt of the third text encoder.
    pub negative_prompt_3: Option<String>,
    /// Embeddings in place of those of the prompts, from
    /// [`encode_prompts`](super::TextToImagePipeline::encode_prompts). They are used again for
    /// every request.
    pub embeddings: Option<PromptEmbeddings>,
    /// Scale of classifier-free guidance for networks that are told a guidance scale (FLUX.1);
    /// above 1, and with a negative prompt, the network is called twice.
    pub true_cfg_scale: f64,
    /// Tokens of T5's prompts; 256 for Stable Diffusion 3, 512 for FLUX.1, 120 or 300 for PixArt by
    /// default.
    pub max_sequence_length: Option<usize>,
    /// What SDXL's network is told about sizes.
    pub size_conditions: SizeConditions,
    /// Settings of the ControlNets, in their order; missing ones are the defaults.
    pub control: Vec<ControlSettings>,
    /// ControlNets recognise the content of their image without a prompt: they act on the
    /// conditional prediction alone, stronger on deep layers.
    pub guess_mode: bool,
    /// Where noise comes from.
    pub noise_source: NoiseSource,
    /// Images that are made together. One needs the least memory.
    pub batch_size: usize,
    /// Limit on the images of a request.
    pub max_images: usize,
    /// Whether images are encoded and decoded in tiles.
    pub tiling: Tiling,
    /// How previews are made.
    pub preview: PreviewDecoder,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            scheduler: None,
            eta: 0.0,
            guidance_rescale: 0.0,
            clip_skip: None,
            prompt_syntax: PromptSyntax::Plain,
            prompt_2: None,
            prompt_3: None,
            negative_prompt_2: None,
            negative_prompt_3: None,
            embeddings: None,
            true_cfg_scale: 1.0,
            max_sequence_length: None,
            size_conditions: SizeConditions::default(),
            control: vec![],
            guess_mode: false,
            noise_source: NoiseSource::default(),
            batch_size: 1,
            max_images: 64,
            tiling: Tiling::default(),
            preview: PreviewDecoder::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_conditions_default_to_the_image() {
        let size = ImageSize::new(64, 32);
        let [positive, negative] = SizeConditions::default().numbers(size, false);
        assert_eq!(positive, [32.0, 64.0, 0.0, 0.0, 32.0, 64.0]);
        assert_eq!(negative, positive);
        let given = SizeConditions {
            crops_coords_top_left: [1, 2],
            negative_original_size: Some([5, 6]),
            negative_target_size: Some([7, 8]),
            ..SizeConditions::default()
        };
        let [positive, negative] = given.numbers(size, false);
        assert_eq!(positive, [32.0, 64.0, 1.0, 2.0, 32.0, 64.0]);
        assert_eq!(negative, [5.0, 6.0, 0.0, 0.0, 7.0, 8.0]);
        let [positive, negative] = given.numbers(size, true);
        assert_eq!(positive, [32.0, 64.0, 1.0, 2.0, 6.0]);
        assert_eq!(negative, [5.0, 6.0, 0.0, 0.0, 2.5]);
    }

    #[test]
    fn control_acts_in_its_part_of_the_steps() {
        let control = ControlSettings::default()
            .with_conditioning_scale(0.5)
            .with_guidance(0.2, 0.7);
        let scales: Vec<f64> = (0..6).map(|step| control.scale_at(step, 6)).collect();
        assert_eq!(scales, [0.0, 0.0, 0.5, 0.5, 0.0, 0.0]);
        let always = ControlSettings::default();
        assert!((0..7).all(|step| always.scale_at(step, 7) == 1.0));
    }
}
