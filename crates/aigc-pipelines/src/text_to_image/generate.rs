//! Requests from beginning to end.

use super::{
    conditions::Conditions,
    denoise::{Denoising, DenoisingStep},
    embeddings::{PromptEmbeddings, Prompts},
    families::EncodeSettings,
    image::to_images,
    job::Job,
    noise::{ImageStreams, NoiseStream},
    options::{NoiseSource, PipelineOptions, Residency},
    pipeline::TextToImagePipeline,
    prompt::PromptSyntax,
};
use aigc_core::{
    CancelToken, Error, Result,
    text_to_image::{
        GeneratedImage, GeneratedImages, GenerationOptions, GenerationProgress, GenerationStage,
        ImageRequest, TextToImage,
    },
};
use aigc_diffusion::Denoiser;
use burn::tensor::Tensor;
use image::DynamicImage;
use std::{
    hash::{BuildHasher, Hasher},
    ops::{ControlFlow, Range},
};

impl TextToImage for TextToImagePipeline {
    fn model_name(&self) -> &str {
        &self.name
    }

    fn generate_with(
        &self,
        request: &ImageRequest,
        options: &mut GenerationOptions<'_>,
    ) -> Result<GeneratedImages> {
        self.generate_with_options(request, &self.options, options)
    }
}

impl TextToImagePipeline {
    /// [`generate_with`](TextToImage::generate_with) with other options of the pipeline.
    ///
    /// # Errors
    /// As [`generate_with`](TextToImage::generate_with).
    pub fn generate_with_options(
        &self,
        request: &ImageRequest,
        options: &PipelineOptions,
        generation: &mut GenerationOptions<'_>,
    ) -> Result<GeneratedImages> {
        if request.prompt.trim().is_empty() && options.embeddings.is_none() {
            let expected = "a description of the image";
            return Err(Error::argument(
                "prompt",
                format!("{:?}", request.prompt),
                expected,
            ));
        }
        let one = |text: &Option<String>| text.clone().map(|text| vec![text]);
        let mut prompts = Prompts::new([request.prompt.clone()])
            .with_further_prompts(one(&options.prompt_2), one(&options.prompt_3))
            .with_further_negative_prompts(
                one(&options.negative_prompt_2),
                one(&options.negative_prompt_3),
            );
        prompts.negative_prompt = one(&request.negative_prompt);
        self.generate_prompts(&prompts, request, options, generation)
    }

    /// Makes the images of several prompts, `n` of each: image `p·n + k` is the `k`-th of prompt
    /// `p`. The prompts of the request are not used, and may be empty.
    ///
    /// # Errors
    /// As [`generate_with`](TextToImage::generate_with).
    pub fn generate_prompts(
        &self,
        prompts: &Prompts,
        request: &ImageRequest,
        options: &PipelineOptions,
        generation: &mut GenerationOptions<'_>,
    ) -> Result<GeneratedImages> {
        let mut request = request.clone();
        if let Some(negative) = prompts.negative_prompt.as_ref().and_then(|all| all.first()) {
            request
                .negative_prompt
                .get_or_insert_with(|| negative.clone());
        }
        let mut job = self.prepare(&request, options)?;
        let seed = *job.request.seed.get_or_insert_with(random_seed);
        let first = job.request.first_image.unwrap_or(0);
        let mut run = Run {
            pipeline: self,
            generation,
            total: 0,
            first,
            images: vec![],
            warnings: job.warnings.clone(),
        };
        run.run(&job, prompts, seed)?;
        let Run {
            images,
            warnings,
            total,
            ..
        } = run;
        if images.is_empty() {
            return Err(Error::cancelled("making images from a prompt"));
        }
        let mut result = GeneratedImages::new(images, job.request.clone(), &self.name);
        result.model_hash = self.model_hash().map(str::to_owned);
        result.settings = settings(&job);
        result.warnings = warnings;
        result.complete = result.images.len() == total;
        Ok(result)
    }

    /// Encodes prompts. The result can be kept, and used for several requests
    /// ([`PipelineOptions::embeddings`]).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for lists of different lengths; [`Error::Unsupported`] if the
    /// pipeline was opened without a text encoder.
    pub fn encode_prompts(&self, prompts: &Prompts, job: &Job) -> Result<PromptEmbeddings> {
        let count = prompts.len();
        let lists = [
            ("prompt", Some(&prompts.prompt)),
            ("prompt_2", prompts.prompt_2.as_ref()),
            ("prompt_3", prompts.prompt_3.as_ref()),
            ("negative_prompt", prompts.negative_prompt.as_ref()),
            ("negative_prompt_2", prompts.negative_prompt_2.as_ref()),
            ("negative_prompt_3", prompts.negative_prompt_3.as_ref()),
        ];
        for (field, list) in lists {
            if let Some(list) = list.filter(|list| list.len() != count || list.is_empty()) {
                let expected = format!("{} texts, one for each prompt", count.max(1));
                return Err(Error::argument(
                    field,
                    format!("{} texts", list.len()),
                    expected,
                ));
            }
        }
        let settings = EncodeSettings {
            guided: job.is_guided(),
            syntax: job.options.prompt_syntax,
            clip_skip: job.options.clip_skip,
            max_sequence_length: job.max_sequence_length,
            force_zeros_for_empty_prompt: self.force_zeros_for_empty_prompt,
            width: self.network.cross_attention_dim(),
        };
        let encoded = self
            .family
            .encode(&self.parts, prompts, &settings, &self.device)?;
        self.parts
            .encoders
            .iter()
            .flatten()
            .for_each(|part| self.used(part));
        Ok(encoded)
    }

    /// Images of these prompts, numbers of rows of the embeddings, before their first step.
    ///
    /// # Errors
    /// Of the files; [`Error::InvalidArgument`] for embeddings that do not fit the network.
    pub fn denoise<'a>(
        &self,
        job: &'a Job,
        embeddings: &PromptEmbeddings,
        prompts: &[usize],
        noise: &mut dyn NoiseStream,
    ) -> Result<Denoising<'a>> {
        self.denoise_with(job, embeddings, prompts, noise, &CancelToken::new())
    }

    fn denoise_with<'a>(
        &self,
        job: &'a Job,
        embeddings: &PromptEmbeddings,
        prompts: &[usize],
        noise: &mut dyn NoiseStream,
        cancel: &CancelToken,
    ) -> Result<Denoising<'a>> {
        let beyond = prompts.iter().find(|row| **row >= embeddings.len());
        if let Some(row) = beyond.or(prompts.is_empty().then_some(&0)) {
            let expected = format!("numbers below {}, the prompts", embeddings.len());
            return Err(Error::argument("prompts", row, expected));
        }
        let conditions: Conditions = self.conditions(job, embeddings, prompts)?;
        let start = self.start(job, prompts.len(), noise, cancel)?;
        if job.image.is_some() {
            self.used(&self.parts.vae);
        }
        let network = self.parts.denoiser.get()?;
        Ok(Denoising::new(
            job,
            network,
            conditions,
            self.controls_of(job)?,
            start,
        ))
    }
}

/// A request that is being fulfilled.
struct Run<'p, 'g, 'c> {
    pipeline: &'p TextToImagePipeline,
    generation: &'g mut GenerationOptions<'c>,
    /// Number of all images.
    total: usize,
    /// Number of the first image.
    first: usize,
    images: Vec<GeneratedImage>,
    warnings: Vec<String>,
}

impl Run<'_, '_, '_> {
    /// Makes the images; fewer if the request is stopped.
    fn run(&mut self, job: &Job, prompts: &Prompts, seed: u64) -> Result<()> {
        let pipeline = self.pipeline;
        let count = job
            .options
            .embeddings
            .as_ref()
            .map_or(prompts.len(), PromptEmbeddings::len);
        let rows: Vec<usize> = (0..count)
            .flat_map(|row| vec![row; job.num_images()])
            .collect();
        self.total = rows.len();
        let all = 0..self.total;
        let batch = match job.options.noise_source {
            NoiseSource::TorchBatch if self.first > 0 => {
                let expected = "0: with one generator for all images, none can be made alone";
                return Err(Error::argument("first_image", self.first, expected));
            }
            NoiseSource::TorchBatch => self.total.max(1),
            _ => job.options.batch_size,
        };

        if self
            .report(GenerationStage::Encoding, all.clone(), [0, 1], None)
            .is_break()
        {
            return Ok(());
        }
        let embeddings = match &job.options.embeddings {
            Some(embeddings) => embeddings.clone(),
            None => pipeline.encode_prompts(prompts, job)?,
        };
        self.warnings.extend(embeddings.warnings.iter().cloned());
        if self
            .report(GenerationStage::Encoding, all.clone(), [1, 1], None)
            .is_break()
        {
            return Ok(());
        }

        // Parts that are released after their use are opened once for all images.
        let decodes_last = pipeline.residency == Residency::WhileNeeded;
        let mut denoised: Vec<(Range<usize>, Tensor<4>)> = vec![];
        for start in all.step_by(batch) {
            let images = start..(start + batch).min(self.total);
            let numbers = self.first + images.start..self.first + images.end;
            let mut noise = ImageStreams::new(job.options.noise_source, seed, numbers);
            let prompts = &rows[images.clone()];
            let latents = self.denoise(job, &embeddings, prompts, images.clone(), &mut noise)?;
            let Some(latents) = latents else {
                break;
            };
            if decodes_last {
                denoised.push((images, latents));
            } else if self.decode(job, images, latents)?.is_break() {
                break;
            }
        }
        pipeline.used(&pipeline.parts.denoiser);
        pipeline
            .parts
            .controlnets
            .iter()
            .for_each(|part| pipeline.used(part));
        for (images, latents) in denoised {
            if self.decode(job, images, latents)?.is_break() {
                break;
            }
        }
        pipeline.used(&pipeline.parts.vae);
        Ok(())
    }

    /// Denoises a batch; `None` if the request was stopped.
    fn denoise(
        &mut self,
        job: &Job,
        embeddings: &PromptEmbeddings,
        prompts: &[usize],
        images: Range<usize>,
        noise: &mut ImageStreams,
    ) -> Result<Option<Tensor<4>>> {
        let (pipeline, steps) = (self.pipeline, job.plan.len());
        if self
            .report(GenerationStage::Denoising, images.clone(), [0, steps], None)
            .is_break()
        {
            return Ok(None);
        }
        let cancel = self.generation.cancel.clone();
        let started = pipeline.denoise_with(job, embeddings, prompts, noise, &cancel);
        let mut denoising = match started {
            Err(Error::Cancelled { .. }) => return Ok(None),
            other => other?,
        };
        while let Some(step) = denoising.step(noise)? {
            let DenoisingStep {
                index,
                pred_original_sample,
                ..
            } = step;
            let decoder = &job.options.preview;
            let preview = || pipeline.preview(decoder, pred_original_sample.clone());
            let done = [index + 1, steps];
            let stage = GenerationStage::Denoising;
            if self
                .report(stage, images.clone(), done, Some(&preview))
                .is_break()
            {
                return Ok(None);
            }
        }
        Ok(Some(denoising.into_latents()))
    }

    /// Decodes a batch; `Break` if the request was stopped before it was finished.
    fn decode(
        &mut self,
        job: &Job,
        images: Range<usize>,
        latents: Tensor<4>,
    ) -> Result<ControlFlow<()>> {
        let stage = GenerationStage::Decoding;
        if self.report(stage, images.clone(), [0, 1], None).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let cancel = self.generation.cancel.clone();
        let decoded = match self.pipeline.decode_with(job, latents, &cancel) {
            Err(Error::Cancelled { .. }) => return Ok(ControlFlow::Break(())),
            other => other?,
        };
        if let Some(warning) = decoded.warning.filter(|new| !self.warnings.contains(new)) {
            self.warnings.push(warning);
        }
        let pixels = to_images(decoded.images);
        if let Some(safety) = &self.pipeline.safety {
            let found = safety.check(&pixels, &self.pipeline.device)?;
            for (k, result) in images.clone().zip(found) {
                self.warnings.extend(result.warning(self.first + k));
            }
        }
        for (k, pixels) in images.clone().zip(pixels) {
            let image = DynamicImage::ImageRgb8(pixels);
            self.images.push(GeneratedImage::new(image, self.first + k));
        }
        Ok(self.report(stage, images, [1, 1], None))
    }

    fn report(
        &mut self,
        stage: GenerationStage,
        images: Range<usize>,
        [step, num_steps]: [usize; 2],
        preview: Option<&dyn Fn() -> Vec<DynamicImage>>,
    ) -> ControlFlow<()> {
        self.generation.report(&GenerationProgress {
            stage,
            images,
            total: self.total,
            step,
            num_steps,
            preview,
        })
    }
}

/// A seed that cannot be predicted, of the 32 bits that PyTorch's generator uses.
fn random_seed() -> u64 {
    let state = std::collections::hash_map::RandomState::new();
    state.build_hasher().finish() & 0xffff_ffff
}

/// Settings of a job beyond those of a request.
fn settings(job: &Job) -> Vec<(String, String)> {
    let options = &job.options;
    let mut settings = vec![("scheduler".to_owned(), job.scheduler.to_owned())];
    let mut add = |name: &str, value: Option<String>| {
        settings.extend(value.map(|value| (name.to_owned(), value)));
    };
    let number = |value: f64, default: f64| (value != default).then(|| value.to_string());
    add("noise_source", name(&options.noise_source));
    add(
        "prompt_syntax",
        name(&options.prompt_syntax).filter(|_| options.prompt_syntax != PromptSyntax::Plain),
    );
    add("eta", number(options.eta, 0.0));
    add("guidance_rescale", number(options.guidance_rescale, 0.0));
    add("true_cfg_scale", number(options.true_cfg_scale, 1.0));
    add("clip_skip", options.clip_skip.map(|skip| skip.to_string()));
    add(
        "max_sequence_length",
        options.max_sequence_length.map(|length| length.to_string()),
    );
    add("prompt_2", options.prompt_2.clone());
    add("prompt_3", options.prompt_3.clone());
    add("negative_prompt_2", options.negative_prompt_2.clone());
    add("negative_prompt_3", options.negative_prompt_3.clone());
    settings
}

/// The name of a choice in files.
fn name(choice: &impl serde::Serialize) -> Option<String> {
    let value = serde_json::to_value(choice).ok()?;
    value.as_str().map(str::to_owned)
}
