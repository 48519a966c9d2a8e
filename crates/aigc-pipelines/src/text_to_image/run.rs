//! A request from beginning to end: batches, progress, cancellation.

use super::{
    autoencoder::OVERFLOW,
    denoise::DenoisingStep,
    embeddings::{PromptEmbeddings, Prompts},
    image::to_images,
    job::Job,
    noise::ImageStreams,
    options::{NoiseSource, Residency},
    parts::Part,
    pipeline::TextToImagePipeline,
};
use aigc_core::{
    CancelToken, Error, Result,
    text_to_image::{GeneratedImage, GenerationOptions, GenerationProgress, GenerationStage},
};
use burn::tensor::Tensor;
use image::DynamicImage;
use std::ops::{ControlFlow, Range};

/// A request that is being fulfilled.
pub(super) struct Run<'p, 'g, 'c> {
    pipeline: &'p TextToImagePipeline,
    prompts: &'p Prompts,
    generation: &'g mut GenerationOptions<'c>,
    /// Number of all images.
    total: usize,
    /// Number of the first image.
    first: usize,
    images: Vec<GeneratedImage>,
    warnings: Vec<String>,
    /// Whether it is to stop: no more is reported then.
    is_stopped: bool,
}

/// What a request has led to.
pub(super) struct Outcome {
    pub(super) images: Vec<GeneratedImage>,
    pub(super) warnings: Vec<String>,
    /// Whether all images were finished.
    pub(super) complete: bool,
}

impl Job {
    /// Number of prompts: of those that are given, or of the embeddings in place of them.
    fn num_prompts(&self, given: usize) -> usize {
        let embeddings = self.options.embeddings.as_ref();
        embeddings.map_or(given, PromptEmbeddings::len)
    }

    /// Images that are made together at most, at least 1.
    pub(super) fn batch(&self, given_prompts: usize) -> usize {
        let total = self.num_prompts(given_prompts) * self.num_images();
        let together = match self.options.noise_source {
            NoiseSource::TorchBatch => total,
            _ => self.options.batch_size.min(total),
        };
        together.max(1)
    }
}

impl<'p, 'g, 'c> Run<'p, 'g, 'c> {
    pub(super) fn new(
        pipeline: &'p TextToImagePipeline,
        prompts: &'p Prompts,
        generation: &'g mut GenerationOptions<'c>,
    ) -> Self {
        Self {
            pipeline,
            prompts,
            generation,
            total: 0,
            first: 0,
            images: vec![],
            warnings: vec![],
            is_stopped: false,
        }
    }

    /// Makes the images; fewer if the request is stopped. Images that are denoised, and wait for
    /// the others to be decoded, are finished then. Parts that are to be released after their use
    /// are released, also if it is stopped or fails.
    ///
    /// # Errors
    /// Of the stages.
    pub(super) fn outcome(mut self, job: &Job, seed: u64) -> Result<Outcome> {
        self.first = job.request.first_image.unwrap_or(0);
        self.warnings = job.warnings.clone();
        let pipeline = self.pipeline;
        let vae = &pipeline.parts.vae;
        let was_wide = vae.is_wide();
        let result = self.run(job, seed);
        if pipeline.residency == Residency::WhileNeeded {
            pipeline.release();
        }
        result?;
        // The image to start from, a preview or the result may have overflowed.
        if !was_wide && vae.is_wide() {
            self.warnings.push(OVERFLOW.into());
        }
        Ok(Outcome {
            complete: self.images.len() == self.total,
            images: self.images,
            warnings: self.warnings,
        })
    }

    fn run(&mut self, job: &Job, seed: u64) -> Result<()> {
        let pipeline = self.pipeline;
        let given = self.prompts.len();
        let rows: Vec<usize> = (0..job.num_prompts(given))
            .flat_map(|row| vec![row; job.num_images()])
            .collect();
        self.total = rows.len();
        let all = 0..self.total;
        if job.options.noise_source == NoiseSource::TorchBatch && self.first > 0 {
            let expected = "0: with one generator for all images, none can be made alone";
            return Err(Error::argument("first_image", self.first, expected));
        }
        let batch = job.batch(given);

        if job.options.embeddings.is_none() {
            let encoders = || pipeline.parts.encoders.iter().flatten();
            let is_ready = encoders().all(Part::is_in_memory);
            let open = || encoders().try_for_each(|part| part.get().map(drop));
            if self.load(all.clone(), is_ready, open)?.is_break() {
                return Ok(());
            }
        }
        if self
            .report(GenerationStage::Encoding, all.clone(), [0, 1], None)
            .is_break()
        {
            return Ok(());
        }
        let embeddings = match &job.options.embeddings {
            Some(embeddings) => embeddings.clone(),
            None => pipeline.encode_prompts(self.prompts, job)?,
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
        let controlnets = &pipeline.parts.controlnets;
        controlnets.iter().for_each(|part| pipeline.used(part));
        // Most of their time is spent, so they are finished even if the request is stopped.
        for (images, latents) in denoised {
            let stage = GenerationStage::Decoding;
            let _ = self.load_autoencoder(images.clone())?;
            let _ = self.report(stage, images.clone(), [0, 1], None);
            self.finish(job, images.clone(), latents, &CancelToken::new())?;
            let _ = self.report(stage, images, [1, 1], None);
        }
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
        if self.load_denoiser(job, images.clone())?.is_break() {
            return Ok(None);
        }
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
        if self.load_autoencoder(images.clone())?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if self.report(stage, images.clone(), [0, 1], None).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let cancel = self.generation.cancel.clone();
        match self.finish(job, images.clone(), latents, &cancel) {
            Err(Error::Cancelled { .. }) => return Ok(ControlFlow::Break(())),
            other => other?,
        }
        Ok(self.report(stage, images, [1, 1], None))
    }

    /// Decodes and checks a batch, and adds it to the images.
    fn finish(
        &mut self,
        job: &Job,
        images: Range<usize>,
        latents: Tensor<4>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let pixels = to_images(self.pipeline.decode_with(job, latents, cancel)?);
        if let Some(safety) = &self.pipeline.safety {
            let found = safety.check(&pixels, &self.pipeline.device)?;
            for (k, result) in images.clone().zip(found) {
                self.warnings.extend(result.warning(self.first + k));
            }
        }
        for (k, pixels) in images.zip(pixels) {
            let image = DynamicImage::ImageRgb8(pixels);
            let mut image = GeneratedImage::new(image, self.first + k);
            image.settings = self.prompts.settings(k / job.num_images());
            self.images.push(image);
        }
        Ok(())
    }

    /// Opens what a batch is denoised with. An image to start from is encoded before: if parts are
    /// not in memory together, the network is opened only after it.
    fn load_denoiser(&mut self, job: &Job, images: Range<usize>) -> Result<ControlFlow<()>> {
        let pipeline = self.pipeline;
        let parts = &pipeline.parts;
        let (network, controls) = (&parts.denoiser, &parts.controlnets);
        let encodes = job.needs_autoencoder();
        let is_ready = network.is_in_memory()
            && controls.iter().all(Part::is_in_memory)
            && (!encodes || parts.vae.is_in_memory());
        self.load(images, is_ready, || {
            if encodes {
                return parts.vae.get().map(drop);
            }
            network.get()?;
            controls.iter().try_for_each(|part| part.get().map(drop))
        })
    }

    fn load_autoencoder(&mut self, images: Range<usize>) -> Result<ControlFlow<()>> {
        let pipeline = self.pipeline;
        let vae = &pipeline.parts.vae;
        self.load(images, vae.is_in_memory(), || vae.get().map(drop))
    }

    /// Reports that parts are opened, and opens them, unless they are ready; `Break` if the request
    /// was stopped before.
    fn load(
        &mut self,
        images: Range<usize>,
        is_ready: bool,
        open: impl FnOnce() -> Result<()>,
    ) -> Result<ControlFlow<()>> {
        if is_ready {
            return Ok(ControlFlow::Continue(()));
        }
        let flow = self.report(GenerationStage::Loading, images, [0, 1], None);
        if flow.is_continue() {
            open()?;
        }
        Ok(flow)
    }

    fn report(
        &mut self,
        stage: GenerationStage,
        images: Range<usize>,
        [step, num_steps]: [usize; 2],
        preview: Option<&dyn Fn() -> Vec<DynamicImage>>,
    ) -> ControlFlow<()> {
        if self.is_stopped {
            return ControlFlow::Break(());
        }
        let flow = self.generation.report(&GenerationProgress {
            stage,
            images,
            total: self.total,
            step,
            num_steps,
            preview,
        });
        self.is_stopped = flow.is_break();
        flow
    }
}
