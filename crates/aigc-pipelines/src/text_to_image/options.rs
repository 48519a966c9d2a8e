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
    /// generators, except that diffusers encodes the image of an inpainting with the first
    /// generator alone.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SizeConditions {
    /// Size before scaling; the size of the image by default.
    pub original_size: Option<[u32; 2]>,
    /// What was cropped at the top and left.
    pub crops_coords_top_left: [u32; 2],
    /// Size after cropping; the size of the image by default.
    pub target_size: Option<[u32; 2]>,
    /// As `original_size`, for the unconditional prediction; by default, `original_size`. Without
    /// an image to start from, it has an effect together with `negative_target_size` only.
    pub negative_original_size: Option<[u32; 2]>,
    /// As `crops_coords_top_left`, for the unconditional prediction. With an image to start from,
    /// only refiners use it.
    pub negative_crops_coords_top_left: [u32; 2],
    /// As `target_size`, for the unconditional prediction.
    pub negative_target_size: Option<[u32; 2]>,
    /// Aesthetic scores that refiners are told, of the prompt and of the unconditional prediction;
    /// 6 and 2.5 by default.
    pub aesthetic_scores: Option<[f64; 2]>,
}

impl SizeConditions {
    /// The numbers of the prompt and of the unconditional prediction, for an image of `size`;
    /// refiners have `aesthetic` scores in place of the target size. diffusers' pipelines that
    /// start `from_image` fill in negative sizes one by one.
    pub(crate) fn numbers(
        &self,
        size: ImageSize,
        aesthetic: bool,
        from_image: bool,
    ) -> [Vec<f32>; 2] {
        let own = [size.height, size.width];
        let [original, target] =
            [self.original_size, self.target_size].map(|size| size.unwrap_or(own));
        let crops = self.crops_coords_top_left;
        let negative_crops = self.negative_crops_coords_top_left;
        let positive = (original, crops, target);
        let negative = match (self.negative_original_size, self.negative_target_size) {
            (negative_original, negative_target) if aesthetic || from_image => (
                negative_original.unwrap_or(original),
                if aesthetic { negative_crops } else { crops },
                negative_target.unwrap_or(target),
            ),
            (Some(original), Some(target)) => (original, negative_crops, target),
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ControlSettings {
    /// The image that it follows. `None`: that of the request. It is not written to files.
    #[serde(skip)]
    pub image: Option<DynamicImage>,
    /// Factor of what it adds; by default 1, and less where diffusers' pipelines from images and
    /// with masks have less.
    pub conditioning_scale: Option<f64>,
    /// It begins at this part of the steps, from 0 to 1.
    pub guidance_start: f64,
    /// It ends at this part of the steps, from 0 to 1.
    pub guidance_end: f64,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            image: None,
            conditioning_scale: None,
            guidance_start: 0.0,
            guidance_end: 1.0,
        }
    }
}

impl ControlSettings {
    /// With this factor of what the ControlNet adds.
    pub fn with_conditioning_scale(mut self, scale: f64) -> Self {
        self.conditioning_scale = Some(scale);
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

    /// Whether it takes part in call `step` of `steps`.
    pub(crate) fn acts_at(&self, step: usize, steps: usize) -> bool {
        let steps = steps as f64;
        let (start, end) = (step as f64 / steps, (step + 1) as f64 / steps);
        start >= self.guidance_start && end <= self.guidance_end
    }
}

/// Options of a [`TextToImagePipeline`](super::TextToImagePipeline). Names and defaults are those
/// of diffusers' pipelines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PipelineOptions {
    /// The scheduler, in place of the pipeline's own.
    pub scheduler: Option<AnyScheduler>,
    /// The guidance scale of requests that have none. `None`: that of the model, if its directory
    /// has one (`_default_guidance_scale` in `model_index.json`), else that of diffusers' pipeline.
    pub guidance_scale: Option<f64>,
    /// The steps of requests that have no number of them. `None`: those of the model, if its
    /// directory has one (`_default_num_inference_steps`), else those of diffusers' pipeline.
    pub num_inference_steps: Option<usize>,
    /// Noise of the steps of DDIM and TCD, from 0 to 1.
    pub eta: f64,
    /// Stable Diffusion XL alone: begin after this part of the steps, above 0 and below 1. The
    /// image of the request is encoded and used without noise; for latents that another pipeline
    /// has left, see [`denoise_from`](super::TextToImagePipeline::denoise_from). `strength` then
    /// has no effect.
    pub denoising_start: Option<f64>,
    /// Stable Diffusion XL alone: end after this part of the steps, above 0 and below 1, and leave
    /// the rest to a refiner.
    pub denoising_end: Option<f64>,
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
    /// PixArt alone: whether images of a size that the network was not trained at are made at the
    /// nearest one, then resized and cut.
    pub use_resolution_binning: bool,
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
            guidance_scale: None,
            num_inference_steps: None,
            eta: 0.0,
            denoising_start: None,
            denoising_end: None,
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
            use_resolution_binning: true,
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
        let [positive, negative] = SizeConditions::default().numbers(size, false, false);
        assert_eq!(positive, [32.0, 64.0, 0.0, 0.0, 32.0, 64.0]);
        assert_eq!(negative, positive);
        let given = SizeConditions {
            crops_coords_top_left: [1, 2],
            negative_original_size: Some([5, 6]),
            negative_target_size: Some([7, 8]),
            ..SizeConditions::default()
        };
        let [positive, negative] = given.numbers(size, false, false);
        assert_eq!(positive, [32.0, 64.0, 1.0, 2.0, 32.0, 64.0]);
        assert_eq!(negative, [5.0, 6.0, 0.0, 0.0, 7.0, 8.0]);
        let [positive, negative] = given.numbers(size, true, true);
        assert_eq!(positive, [32.0, 64.0, 1.0, 2.0, 6.0]);
        assert_eq!(negative, [5.0, 6.0, 0.0, 0.0, 2.5]);
    }

    /// diffusers' pipelines from text take negative sizes together, those from images one by one.
    #[test]
    fn negative_sizes_depend_on_the_start() {
        let size = ImageSize::new(64, 32);
        let one = SizeConditions {
            crops_coords_top_left: [1, 2],
            negative_original_size: Some([5, 6]),
            negative_crops_coords_top_left: [3, 4],
            ..SizeConditions::default()
        };
        let [positive, negative] = one.numbers(size, false, false);
        assert_eq!(negative, positive);
        let [_, negative] = one.numbers(size, false, true);
        assert_eq!(negative, [5.0, 6.0, 1.0, 2.0, 32.0, 64.0]);
        let [_, negative] = one.numbers(size, true, true);
        assert_eq!(negative, [5.0, 6.0, 3.0, 4.0, 2.5]);
    }

    #[test]
    fn control_acts_in_its_part_of_the_steps() {
        let control = ControlSettings::default().with_guidance(0.2, 0.7);
        let acts: Vec<bool> = (0..6).map(|step| control.acts_at(step, 6)).collect();
        assert_eq!(acts, [false, false, true, true, false, false]);
        let always = ControlSettings::default();
        assert!((0..7).all(|step| always.acts_at(step, 7)));
    }
}
