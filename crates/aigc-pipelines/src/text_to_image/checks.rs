//! Checks of requests and options against a pipeline.

use super::{
    families::PipelineFamily,
    options::{PipelineOptions, SizeConditions},
    pipeline::TextToImagePipeline,
    prompt::PromptSyntax,
};
use aigc_core::{
    Error, Result,
    check::{self, ensure, ensure_argument},
    text_to_image::{ImageRequest, ImageSize},
};
use aigc_diffusion::{AnyDenoiser, ControlNetConfig, Denoiser};

/// Limit on the number of the first image.
const LAST_IMAGE: usize = u32::MAX as usize;

impl TextToImagePipeline {
    /// Fails for numbers and images that do not fit each other or the pipeline.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(crate) fn check_request(
        &self,
        request: &ImageRequest,
        options: &PipelineOptions,
    ) -> Result<()> {
        let (n, limit) = (request.n.unwrap_or(1), options.max_images.max(1));
        ensure_argument((1..=limit).contains(&n), "n", n, &format!("1 to {limit}"))?;
        let first = request.first_image.unwrap_or(0);
        let expected = format!("at most {LAST_IMAGE}");
        ensure_argument(first <= LAST_IMAGE, "first_image", first, &expected)?;
        ensure_argument(options.batch_size > 0, "batch_size", 0, "at least 1")?;
        self.check_images(request)?;
        self.check_control(request, options)
    }

    /// Which images the request has, and how large they are.
    fn check_images(&self, request: &ImageRequest) -> Result<()> {
        if let Some(image) = &request.image {
            let size = ImageSize::new(image.width(), image.height());
            let has_pixels = size.width > 0 && size.height > 0;
            ensure_argument(has_pixels, "image", size, "an image with pixels")?;
            if let Some(mask) = &request.mask_image {
                let found = ImageSize::new(mask.width(), mask.height());
                let expected = format!("{size}, the size of `image`");
                ensure_argument(found == size, "mask_image", found, &expected)?;
            }
        } else {
            let given = request.mask_image.is_some();
            let expected = "no mask without `image`, the image that is painted";
            ensure_argument(!given, "mask_image", "given", expected)?;
            if let Some(strength) = request.strength {
                let expected = "no strength without `image`, the image to start from";
                return Err(Error::argument("strength", strength, expected));
            }
        }
        if let Some(strength) = request.strength {
            let fits = strength > 0.0 && strength <= 1.0;
            ensure_argument(fits, "strength", strength, "more than 0, at most 1")?;
        }
        let for_masks = self.network.extra_input_channels() > 0;
        if for_masks && request.mask_image.is_none() {
            let expected = "`image` and `mask_image`: the network paints masked parts of images";
            return Err(Error::argument("mask_image", "not given", expected));
        }
        Ok(())
    }

    /// Whether ControlNets and their images are there.
    fn check_control(&self, request: &ImageRequest, options: &PipelineOptions) -> Result<()> {
        let nets = self.parts.controlnets.len();
        if nets == 0 && (request.control_image.is_some() || !options.control.is_empty()) {
            let expected = "none: the pipeline has no ControlNet; add one with `with_controlnet`";
            return Err(Error::argument("control_image", "given", expected));
        }
        let own = |which: usize| {
            let control = options.control.get(which);
            control.and_then(|control| control.image.as_ref())
        };
        let images = (0..nets).map(|which| own(which).or(request.control_image.as_ref()));
        for (which, image) in images.enumerate() {
            let expected = format!("an image with pixels for ControlNet {which}");
            let Some(image) = image else {
                return Err(Error::argument("control_image", "not given", expected));
            };
            let size = ImageSize::new(image.width(), image.height());
            let has_pixels = size.width > 0 && size.height > 0;
            ensure_argument(has_pixels, "control_image", size, &expected)?;
        }
        let given = options.control.len();
        let expected = format!("at most {nets}, the ControlNets of the pipeline");
        ensure_argument(given <= nets, "control", given, &expected)
    }

    /// Fails for options out of range, or that the family cannot have.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]; [`Error::Config`].
    pub(crate) fn check_options(&self, options: &PipelineOptions) -> Result<()> {
        if options.prompt_syntax != PromptSyntax::Plain && !self.family.reads_weights() {
            return Err(Error::argument(
                "prompt_syntax",
                format!("{:?}", options.prompt_syntax),
                "Plain: the network attends to the tokens of T5, which have no weights",
            ));
        }
        if let Some(length) = options.max_sequence_length {
            let fits = (1..=512).contains(&length);
            ensure_argument(fits, "max_sequence_length", length, "1 to 512")?;
            let expected = "none: the pipeline has no prompt of T5";
            let has = self.family.has_sequence_length();
            ensure_argument(has, "max_sequence_length", length, expected)?;
        }
        check::fraction("eta", options.eta)?;
        let true_scale = options.true_cfg_scale;
        let fits = true_scale >= 0.0 && true_scale.is_finite();
        let expected = "a finite number, 0 or above";
        ensure_argument(fits, "true_cfg_scale", true_scale, expected)?;
        self.check_parts_of_process(options)?;
        for control in &options.control {
            let (start, end) = (control.guidance_start, control.guidance_end);
            let fits = 0.0 <= start && start < end && end <= 1.0;
            let value = format!("{start} to {end}");
            ensure_argument(fits, "control.guidance", value, "a part of 0 to 1")?;
            let scale = control.conditioning_scale.unwrap_or(1.0);
            let field = "control.conditioning_scale";
            ensure_argument(scale.is_finite(), field, scale, "a finite number")?;
        }
        Ok(())
    }

    fn check_parts_of_process(&self, options: &PipelineOptions) -> Result<()> {
        let (start, end) = (options.denoising_start, options.denoising_end);
        for (field, part) in [("denoising_start", start), ("denoising_end", end)] {
            let Some(part) = part else { continue };
            let can = self.family == PipelineFamily::StableDiffusionXl;
            let expected = "none: only Stable Diffusion XL has networks for parts of the process";
            ensure_argument(can, field, part, expected)?;
            let fits = part > 0.0 && part < 1.0;
            ensure_argument(fits, field, part, "above 0, below 1")?;
        }
        if let (Some(start), Some(end)) = (start, end) {
            let expected = format!("below {end}, `denoising_end`");
            ensure_argument(start < end, "denoising_start", start, &expected)?;
        }
        Ok(())
    }

    /// Fails for ControlNets of other networks.
    ///
    /// # Errors
    /// [`Error::Config`] names the field of the ControlNet's configuration.
    pub(crate) fn check_controlnets(&self) -> Result<()> {
        for part in &self.parts.controlnets {
            let config = ControlNetConfig::from_json(part.config())?.into_inner();
            let AnyDenoiser::UNet2dCondition(unet) = &self.network else {
                return Err(Error::unsupported(
                    format!("a ControlNet for {}", AnyDenoiser::class(&self.network)),
                    "TextToImagePipeline",
                    "ControlNets are for U-nets",
                ));
            };
            let unet = unet.config();
            for (field, has_classes) in [
                ("class_embed_type", config.class_embed_type.is_some()),
                ("num_class_embeds", config.num_class_embeds.is_some()),
            ] {
                let field = format!("controlnet: {field}");
                ensure(
                    !has_classes,
                    &field,
                    "given",
                    "null: prompts have no classes",
                )?;
            }
            let widths = [
                config.addition_time_embed_dim,
                config.projection_class_embeddings_input_dim,
            ];
            let known = [
                unet.addition_time_embed_dim,
                unet.projection_class_embeddings_input_dim,
            ];
            let fits = unet.addition_embed_type.is_some() && widths == known;
            ensure(
                config.addition_embed_type.is_none() || fits,
                "controlnet: addition_embed_type",
                "text_time",
                "null, or text_time with the widths of the network of the pipeline",
            )?;
            let [own, expected] = [&config.block_out_channels, &unet.block_out_channels]
                .map(|channels| format!("{channels:?}"));
            let numbers = [
                ("in_channels", config.in_channels, self.latents.channels),
                (
                    "layers_per_block",
                    config.layers_per_block,
                    unet.layers_per_block,
                ),
                (
                    "cross_attention_dim",
                    config.encoder_hid_dim.unwrap_or(config.cross_attention_dim),
                    unet.encoder_hid_dim.unwrap_or(unet.cross_attention_dim),
                ),
                (
                    "conditioning_embedding_out_channels",
                    config.conditioning_factor(),
                    self.latents.scale,
                ),
            ];
            let numbers = numbers.map(|(field, a, b)| (field, a.to_string(), b.to_string()));
            let all = [("block_out_channels", own, expected)]
                .into_iter()
                .chain(numbers);
            for (field, own, expected) in all {
                if own != expected {
                    let expected = format!("{expected}, for the network of the pipeline");
                    return Err(Error::config(format!("controlnet: {field}"), own, expected));
                }
            }
        }
        Ok(())
    }

    /// Warnings of what has no effect with this pipeline and request, except for the guidance
    /// scale.
    pub(crate) fn unused_options(
        &self,
        request: &ImageRequest,
        options: &PipelineOptions,
        is_guided: bool,
    ) -> Vec<String> {
        let encoders = self.family.num_encoders();
        let is_flux = self.family == PipelineFamily::Flux;
        let is_xl = self.family == PipelineFamily::StableDiffusionXl;
        let without = |encoder: usize| encoders < encoder;
        let negative = request.negative_prompt.as_ref();
        let has_negative = negative.is_some() || options.negative_prompt_2.is_some();
        let other_sizes = options.size_conditions != SizeConditions::default();
        let sizes = &options.size_conditions;
        let targets = sizes.target_size.is_some() || sizes.negative_target_size.is_some();
        let is_refiner = self.requires_aesthetics_score;
        let with_start = request.strength.is_some() && options.denoising_start.is_some();
        let unused = [
            ("prompt_2", options.prompt_2.is_some() && without(2)),
            ("prompt_3", options.prompt_3.is_some() && without(3)),
            (
                "negative_prompt_2",
                options.negative_prompt_2.is_some() && without(2),
            ),
            (
                "negative_prompt_3",
                options.negative_prompt_3.is_some() && without(3),
            ),
            (
                "clip_skip",
                options.clip_skip.is_some() && !self.family.has_clip_skip(),
            ),
            ("size_conditions", other_sizes && !is_xl),
            (
                "guess_mode",
                options.guess_mode && self.parts.controlnets.is_empty(),
            ),
        ];
        let unused = unused.iter().filter(|(_, is_unused)| *is_unused);
        let mut warnings: Vec<String> = unused
            .map(|(name, _)| format!("`{name}` has no effect with {}", self.class))
            .collect();
        let mut warn = |holds: bool, text: &str| {
            if holds {
                warnings.push(text.to_owned());
            }
        };
        let says_something = negative.is_some_and(|text| !text.is_empty());
        warn(
            says_something && !is_guided,
            "the negative prompt has no effect without guidance",
        );
        warn(
            options.guidance_rescale != 0.0 && !is_guided,
            "`guidance_rescale` has no effect without guidance",
        );
        let true_scale = options.true_cfg_scale != 1.0;
        warn(
            true_scale && !is_flux,
            "`true_cfg_scale` has an effect with FLUX.1 only; others have `guidance_scale`",
        );
        warn(
            true_scale && is_flux && !has_negative && options.embeddings.is_none(),
            "`true_cfg_scale` has no effect without a negative prompt",
        );
        warn(
            is_xl && self.force_zeros_for_empty_prompt && negative.is_none() && has_negative,
            "`negative_prompt_2` has no effect without `negative_prompt`",
        );
        warn(
            is_xl && !is_refiner && sizes.aesthetic_scores.is_some(),
            "`size_conditions.aesthetic_scores` has no effect: only refiners are told scores",
        );
        warn(
            is_xl && is_refiner && targets,
            "target sizes of `size_conditions` have no effect: refiners are told scores instead",
        );
        warn(
            with_start,
            "`strength` has no effect with `denoising_start`",
        );
        warnings
    }
}
