//! A request with all values filled in and checked against a pipeline.

use super::{
    autoencoder::EncodedImages,
    families::{PipelineFamily, Task},
    image::{resized, resized_mask},
    model_defaults::ModelDefaults,
    options::{ControlSettings, PipelineOptions},
    pipeline::TextToImagePipeline,
    schedule::Schedule,
    size::Sizes,
};
use aigc_core::{
    Error, Result,
    check::ensure_argument,
    text_to_image::{ImageRequest, ImageSize},
};
use aigc_diffusion::{AnyDenoiser, ClassifierFreeGuidance, SamplingPlan};
use image::{GrayImage, RgbImage};

/// A request with all values filled in, and the options that it is made with.
#[derive(Clone, Debug)]
pub struct Job {
    /// The request with the values that are used in place of unset fields.
    pub(crate) request: ImageRequest,
    pub(crate) options: PipelineOptions,
    /// At which the network makes the images.
    pub(crate) size: ImageSize,
    /// Of the images of the result.
    pub(crate) output_size: ImageSize,
    /// Channels, height and width of the latents.
    pub(crate) latent_shape: [usize; 3],
    pub(crate) guidance: Option<ClassifierFreeGuidance>,
    /// The guidance scale that the network is told.
    pub(crate) told_guidance: Option<f64>,
    pub(crate) plan: SamplingPlan,
    pub(crate) scheduler: &'static str,
    pub(crate) image: Option<RgbImage>,
    pub(crate) mask: Option<GrayImage>,
    /// The images that ControlNets follow, with their settings.
    pub(crate) controls: Vec<(RgbImage, ControlSettings)>,
    /// Factor of what ControlNets add whose settings have none.
    pub(crate) default_conditioning_scale: f64,
    pub(crate) max_sequence_length: usize,
    pub(crate) encoded: EncodedImages,
    pub(crate) warnings: Vec<String>,
}

impl Job {
    /// The request with the values that are used in place of unset fields.
    pub fn request(&self) -> &ImageRequest {
        &self.request
    }

    /// The calls of the network.
    pub fn plan(&self) -> &SamplingPlan {
        &self.plan
    }

    /// Channels, height and width of the latents.
    pub fn latent_shape(&self) -> [usize; 3] {
        self.latent_shape
    }

    /// Whether the network is also called without the prompt.
    pub fn is_guided(&self) -> bool {
        self.guidance.is_some()
    }

    /// Number of images.
    pub(crate) fn num_images(&self) -> usize {
        self.request.n.unwrap_or(1)
    }

    /// How much of the image to start from is replaced.
    pub(crate) fn strength(&self) -> f64 {
        self.request.strength.unwrap_or(1.0)
    }
}

impl TextToImagePipeline {
    /// Fills in the values of a request that are not set, and checks all of them. The prompt may be
    /// empty.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names a field that the pipeline cannot fulfil, with what it can;
    /// [`Error::Config`] an option of the scheduler.
    pub fn prepare(&self, request: &ImageRequest, options: &PipelineOptions) -> Result<Job> {
        self.check_request(request, options)?;
        self.check_options(options)?;
        self.check_controlnets()?;
        let task = match (&request.image, &request.mask_image) {
            (None, _) => Task::Text,
            (Some(_), None) => Task::Image,
            (Some(_), Some(_)) => Task::Mask,
        };
        let has_controlnet = !self.parts.controlnets.is_empty();
        let defaults = self.family.defaults(&self.class, task, has_controlnet);

        let mut request = request.clone();
        request.n.get_or_insert(1);
        let Sizes { output, made } = self.sizes(&request, options)?;
        let latent_shape = self.latent_shape(made)?;
        request.size = Some(output);
        if task != Task::Text && options.denoising_start.is_none() {
            request.strength.get_or_insert(defaults.strength);
        }
        let given_scale = request.guidance_scale.or(options.guidance_scale);
        let own = ModelDefaults::of_options(options).or(self.model_defaults);
        let steps = own
            .num_inference_steps
            .unwrap_or(defaults.num_inference_steps);
        let steps = *request.num_inference_steps.get_or_insert(steps);
        ensure_argument(steps > 0, "num_inference_steps", steps, "at least 1")?;
        let scale = own.guidance_scale.unwrap_or(defaults.guidance_scale);
        let scale = *request.guidance_scale.get_or_insert(scale);
        let fits = scale >= 0.0 && scale.is_finite();
        let expected = "a finite number, 0 or above";
        ensure_argument(fits, "guidance_scale", scale, expected)?;

        let schedule = Schedule {
            family: self.family,
            scheduler: options.scheduler.as_ref().unwrap_or(&self.scheduler),
            eta: options.eta,
            tokens: latent_shape[1] / 2 * (latent_shape[2] / 2),
            denoising: [options.denoising_start, options.denoising_end],
        };
        let plan = schedule.plan(steps, request.strength)?;
        let (guidance, told_guidance) = self.guidance(&request, options, scale)?;
        let mut warnings = self.unused_options(&request, options, guidance.is_some());
        // FLUX.1 has `true_cfg_scale` instead; consistency models are distilled with a scale.
        let guides = !matches!(
            self.family,
            PipelineFamily::Flux | PipelineFamily::LatentConsistency
        );
        if given_scale.is_some_and(|scale| scale > 1.0) && !guides && told_guidance.is_none() {
            warnings.push(
                "`guidance_scale` has no effect: the network is not told it, and needs no guidance"
                    .into(),
            );
        }
        if options.eta != 0.0 && !schedule.has_eta() {
            let class = schedule.scheduler.class();
            warnings.push(format!("`eta` has no effect with {class}"));
        }
        let image = request.image.as_ref().map(|image| resized(image, made));
        let mask = request
            .mask_image
            .as_ref()
            .map(|mask| resized_mask(mask, made));
        Ok(Job {
            controls: self.controls(&request, options, made)?,
            default_conditioning_scale: defaults.conditioning_scale,
            options: options.clone(),
            size: made,
            output_size: output,
            latent_shape,
            guidance,
            told_guidance,
            plan,
            scheduler: schedule.scheduler.class(),
            image: image.transpose()?,
            mask: mask.transpose()?,
            max_sequence_length: options
                .max_sequence_length
                .unwrap_or(defaults.max_sequence_length),
            encoded: EncodedImages::default(),
            warnings,
            request,
        })
    }

    /// How the predictions with and without the prompt are combined, and the guidance scale that
    /// the network is told.
    fn guidance(
        &self,
        request: &ImageRequest,
        options: &PipelineOptions,
        scale: f64,
    ) -> Result<(Option<ClassifierFreeGuidance>, Option<f64>)> {
        let embeds_scale = match &self.network {
            AnyDenoiser::UNet2dCondition(unet) => unet.config().time_cond_proj_dim.is_some(),
            AnyDenoiser::FluxTransformer(network) => network.config().guidance_embeds,
            _ => false,
        };
        let negative = request.negative_prompt.is_some()
            || options.negative_prompt_2.is_some()
            || options
                .embeddings
                .as_ref()
                .is_some_and(|e| e.negative.is_some());
        let free = |scale: f64| {
            let mut guidance = ClassifierFreeGuidance::new(scale);
            guidance.guidance_rescale = options.guidance_rescale;
            guidance
                .validate()
                .map(|()| (scale > 1.0).then_some(guidance))
        };
        Ok(match (self.family, embeds_scale) {
            (PipelineFamily::Flux, embeds) => {
                let true_scale = if negative {
                    options.true_cfg_scale
                } else {
                    1.0
                };
                (free(true_scale)?, embeds.then_some(scale))
            }
            // `w` of the papers, one less than the scale.
            (_, true) => (None, Some(scale - 1.0)),
            (PipelineFamily::LatentConsistency, false) => (None, None),
            (_, false) => (free(scale)?, None),
        })
    }

    /// The images of the ControlNets, and their settings.
    fn controls(
        &self,
        request: &ImageRequest,
        options: &PipelineOptions,
        size: ImageSize,
    ) -> Result<Vec<(RgbImage, ControlSettings)>> {
        let control = |which: usize| {
            let settings = options.control.get(which).cloned().unwrap_or_default();
            let image = settings.image.as_ref().or(request.control_image.as_ref());
            let Some(image) = image else {
                let expected = format!("an image for ControlNet {which}");
                return Err(Error::argument("control_image", "not given", expected));
            };
            Ok((resized(image, size)?, settings))
        };
        (0..self.parts.controlnets.len()).map(control).collect()
    }
}
