//! A request with all values filled in and checked against a pipeline.

use super::{
    autoencoder::EncodedImages,
    families::PipelineFamily,
    image::{floored, resized, resized_mask},
    options::{ControlSettings, PipelineOptions},
    pipeline::TextToImagePipeline,
    prompt::PromptSyntax,
    schedule,
};
use aigc_core::{
    Error, Result, check,
    data::SampleShape,
    text_to_image::{ImageRequest, ImageSize},
};
use aigc_diffusion::{AnyDenoiser, ClassifierFreeGuidance, Denoiser, SamplingPlan};
use image::{GrayImage, RgbImage};

/// Limit on the side of an image, in pixels.
const MAX_SIDE: u32 = 1 << 14;

/// A request with all values filled in, and the options that it is made with.
#[derive(Clone, Debug)]
pub struct Job {
    /// The request with the values that are used in place of unset fields.
    pub(crate) request: ImageRequest,
    pub(crate) options: PipelineOptions,
    pub(crate) size: ImageSize,
    /// Channels, height and width of the latents.
    pub(crate) latent_shape: [usize; 3],
    pub(crate) guidance: Option<ClassifierFreeGuidance>,
    /// The guidance scale that the network is told.
    pub(crate) told_guidance: Option<f64>,
    pub(crate) plan: SamplingPlan,
    pub(crate) scheduler: &'static str,
    pub(crate) draws_every_call: bool,
    pub(crate) image: Option<RgbImage>,
    pub(crate) mask: Option<GrayImage>,
    /// The images that ControlNets follow, with their settings.
    pub(crate) controls: Vec<(RgbImage, ControlSettings)>,
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
        let defaults = self.family.defaults(&self.class);
        let mut request = request.clone();
        let mut warnings = vec![];
        self.check_count(&mut request, options)?;
        self.check_options(options)?;
        self.check_images(&request, options)?;

        let size = self.size(&request)?;
        let latent_shape = self.latent_shape(size)?;
        request.size = Some(size);
        let strength = match (&request.image, &request.mask_image) {
            (None, _) => None,
            (Some(_), None) => Some(defaults.strength[0]),
            (Some(_), Some(_)) => Some(defaults.strength[1]),
        };
        request.strength = request.strength.or(strength);
        let steps = *request
            .num_inference_steps
            .get_or_insert(defaults.num_inference_steps);
        check_argument(steps > 0, "num_inference_steps", steps, "at least 1")?;
        let scale = *request
            .guidance_scale
            .get_or_insert(defaults.guidance_scale);
        let expected = "a finite number, 0 or above";
        check_argument(
            scale >= 0.0 && scale.is_finite(),
            "guidance_scale",
            scale,
            expected,
        )?;

        let schedule = schedule::Schedule {
            family: self.family,
            scheduler: options.scheduler.as_ref().unwrap_or(&self.scheduler),
            eta: options.eta,
            tokens: latent_shape[1] / 2 * (latent_shape[2] / 2),
        };
        let plan = schedule.plan(steps, request.strength)?;
        let (guidance, told_guidance) = self.guidance(&request, options, scale)?;
        if guidance.is_none()
            && request
                .negative_prompt
                .as_ref()
                .is_some_and(|n| !n.is_empty())
        {
            warnings.push("the negative prompt has no effect without guidance".into());
        }
        if options.eta != 0.0 && !schedule.has_eta() {
            warnings.push(format!(
                "eta has no effect with {}",
                schedule.scheduler.class()
            ));
        }
        let image = request
            .image
            .as_ref()
            .map(|image| resized(image, size))
            .transpose()?;
        let mask = request
            .mask_image
            .as_ref()
            .map(|mask| resized_mask(mask, size))
            .transpose()?;
        Ok(Job {
            controls: self.controls(&request, options, size)?,
            options: options.clone(),
            size,
            latent_shape,
            guidance,
            told_guidance,
            plan,
            scheduler: schedule.scheduler.class(),
            draws_every_call: schedule.draws_every_call(),
            image,
            mask,
            max_sequence_length: options
                .max_sequence_length
                .unwrap_or(defaults.max_sequence_length),
            encoded: EncodedImages::default(),
            warnings,
            request,
        })
    }

    fn check_count(&self, request: &mut ImageRequest, options: &PipelineOptions) -> Result<()> {
        let n = *request.n.get_or_insert(1);
        let limit = options.max_images.max(1);
        check_argument((1..=limit).contains(&n), "n", n, format!("1 to {limit}"))?;
        check_argument(options.batch_size > 0, "batch_size", 0, "at least 1")
    }

    fn check_options(&self, options: &PipelineOptions) -> Result<()> {
        if options.prompt_syntax != PromptSyntax::Plain && !self.family.reads_weights() {
            return Err(Error::argument(
                "prompt_syntax",
                format!("{:?}", options.prompt_syntax),
                "Plain: the network attends to the tokens of T5, which have no weights",
            ));
        }
        if let Some(length) = options.max_sequence_length {
            let fits = (1..=512).contains(&length);
            let expected = "1 to 512";
            check_argument(fits, "max_sequence_length", length, expected)?;
            let expected = "none: the pipeline has no prompt of T5";
            let has = self.family.has_sequence_length();
            check_argument(has, "max_sequence_length", length, expected)?;
        }
        check::fraction("eta", options.eta)?;
        let true_scale = options.true_cfg_scale;
        let expected = "a finite number, 0 or above";
        let fits = true_scale >= 0.0 && true_scale.is_finite();
        check_argument(fits, "true_cfg_scale", true_scale, expected)?;
        for control in &options.control {
            let (start, end) = (control.guidance_start, control.guidance_end);
            let fits = 0.0 <= start && start < end && end <= 1.0;
            let value = format!("{start} to {end}");
            check_argument(fits, "control.guidance", value, "a part of 0 to 1")?;
            let scale = control.conditioning_scale;
            let expected = "a finite number";
            check_argument(
                scale.is_finite(),
                "control.conditioning_scale",
                scale,
                expected,
            )?;
        }
        Ok(())
    }

    /// Which images the request has, and how large they are.
    fn check_images(&self, request: &ImageRequest, options: &PipelineOptions) -> Result<()> {
        let extent = |width, height| ImageSize::new(width, height);
        if let Some(image) = &request.image {
            let size = extent(image.width(), image.height());
            check_argument(size.width > 0 && size.height > 0, "image", size, "an image")?;
            if let Some(mask) = &request.mask_image {
                let found = extent(mask.width(), mask.height());
                let expected = format!("{size}, the size of `image`");
                check_argument(found == size, "mask_image", found, expected)?;
            }
        } else {
            let given = request.mask_image.is_some();
            let expected = "no mask without `image`, the image that is painted";
            check_argument(!given, "mask_image", "given", expected)?;
            if let Some(strength) = request.strength {
                let expected = "no strength without `image`, the image to start from";
                return Err(Error::argument("strength", strength, expected));
            }
        }
        if let Some(strength) = request.strength {
            let fits = strength > 0.0 && strength <= 1.0;
            check_argument(fits, "strength", strength, "more than 0, at most 1")?;
        }
        let for_masks = self.network.extra_input_channels() > 0;
        if for_masks && request.mask_image.is_none() {
            let expected = "`image` and `mask_image`: the network paints masked parts of images";
            return Err(Error::argument("mask_image", "not given", expected));
        }
        let nets = self.parts.controlnets.len();
        let own = options
            .control
            .iter()
            .any(|control| control.image.is_some());
        if nets == 0 && (request.control_image.is_some() || !options.control.is_empty()) {
            let expected = "none: the pipeline has no ControlNet; add one with `with_controlnet`";
            return Err(Error::argument("control_image", "given", expected));
        }
        if nets > 0 && request.control_image.is_none() && !own {
            let expected = "an image for the ControlNet";
            return Err(Error::argument("control_image", "not given", expected));
        }
        let given = options.control.len();
        let expected = format!("at most {nets}, the ControlNets of the pipeline");
        check_argument(given <= nets, "control", given, expected)
    }

    /// The size of the images: that of the request, of its image, or of the network.
    fn size(&self, request: &ImageRequest) -> Result<ImageSize> {
        if let Some(size) = request.size {
            return Ok(size);
        }
        let scale = self.latents.scale as u32;
        let factor = scale * self.latent_factor() as u32;
        let given = request.image.as_ref().or(request.control_image.as_ref());
        if let Some(image) = given {
            let size = floored(ImageSize::new(image.width(), image.height()), factor);
            let found = ImageSize::new(image.width(), image.height());
            let fits = size.width > 0 && size.height > 0;
            let expected = format!("an image of at least {factor}x{factor} pixels");
            check_argument(fits, "image", found, expected)?;
            return Ok(size);
        }
        let side = self.family.defaults(&self.class).latent_side;
        let sides = self
            .network
            .sample_shape()
            .and_then(|shape| shape.as_image());
        let [height, width] = sides.map_or([side; 2], |shape| [shape.height, shape.width]);
        Ok(ImageSize::new(width as u32 * scale, height as u32 * scale))
    }

    /// Shape of the latents of images of this size.
    fn latent_shape(&self, size: ImageSize) -> Result<[usize; 3]> {
        let scale = self.latents.scale as u32;
        let of = |size: ImageSize| {
            let side = |side: u32| (side / scale) as usize;
            [self.latents.channels, side(size.height), side(size.width)]
        };
        let fits = |size: ImageSize| {
            let whole = size.width.is_multiple_of(scale) && size.height.is_multiple_of(scale);
            let within = size.width.max(size.height) <= MAX_SIDE && size.width.min(size.height) > 0;
            whole
                && within
                && self
                    .network
                    .check_shape(SampleShape::new(&of(size)))
                    .is_ok()
        };
        if fits(size) {
            return Ok(of(size));
        }
        let factor = scale * self.latent_factor() as u32;
        let largest = ImageSize::new(MAX_SIDE, MAX_SIDE);
        let expected = match nearest(size, factor, largest, fits) {
            Some(near) => format!("sides that are multiples of {factor}, such as {near}"),
            None => match self.network.check_shape(SampleShape::new(&of(size))) {
                Err(error) => format!("a size that the network makes ({error})"),
                Ok(()) => format!("sides of {factor} to {MAX_SIDE} pixels"),
            },
        };
        Err(Error::argument("size", size, expected))
    }

    /// What the sides of latents have to be multiples of.
    fn latent_factor(&self) -> usize {
        let channels = self.latents.channels;
        let fits = |side: usize| {
            let shape = |a, b| SampleShape::new(&[channels, a, b]);
            [2, 3].iter().all(|k| {
                let [a, b] = [side * k, side * (k + 1)];
                self.network.check_shape(shape(a, b)).is_ok()
            })
        };
        (0..8)
            .map(|power| 1 << power)
            .find(|side| fits(*side))
            .unwrap_or(1)
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

/// The size nearest to `size` that `fits`: sides that are multiples of `factor`, at most `largest`.
fn nearest(
    size: ImageSize,
    factor: u32,
    largest: ImageSize,
    fits: impl Fn(ImageSize) -> bool,
) -> Option<ImageSize> {
    let multiples = |side: u32, largest: u32| {
        let low = (side / factor * factor).max(factor);
        [low, low.saturating_add(factor)].map(|side| side.min(largest / factor * factor))
    };
    let candidates = multiples(size.width, largest.width)
        .into_iter()
        .flat_map(|width| {
            let heights = multiples(size.height, largest.height);
            heights.map(|height| ImageSize::new(width, height))
        });
    let distance = |other: &ImageSize| {
        u64::from(other.width.abs_diff(size.width)) + u64::from(other.height.abs_diff(size.height))
    };
    candidates.filter(|size| fits(*size)).min_by_key(distance)
}

fn check_argument(
    holds: bool,
    argument: &str,
    value: impl ToString,
    expected: impl AsRef<str>,
) -> Result<()> {
    check::ensure_argument(holds, argument, value, expected.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_sizes_fit() {
        let largest = ImageSize::new(1024, 1024);
        let near = |width, height| nearest(ImageSize::new(width, height), 64, largest, |_| true);
        assert_eq!(near(500, 512), Some(ImageSize::new(512, 512)));
        assert_eq!(near(1, 90), Some(ImageSize::new(64, 64)));
        assert_eq!(near(5000, 100), Some(ImageSize::new(1024, 128)));
        let only = |size: ImageSize| size.width == 128;
        let near = nearest(ImageSize::new(64, 64), 64, largest, only);
        assert_eq!(near, Some(ImageSize::new(128, 64)));
    }
}
