//! The stages of a request: prompts, denoising, and all of it in one call.

use super::{
    denoise::Denoising,
    embeddings::{PromptEmbeddings, Prompts},
    families::EncodeSettings,
    job::Job,
    noise::NoiseStream,
    options::PipelineOptions,
    pipeline::TextToImagePipeline,
    run::Run,
    start::Start,
};
use crate::seed::random_seed;
use aigc_core::{
    CancelToken, Error, Result,
    check::ensure_argument,
    text_to_image::{GeneratedImages, GenerationOptions, ImageRequest, TextToImage},
};
use aigc_diffusion::Denoiser;
use burn::tensor::Tensor;

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
        let says_nothing = request.prompt.trim().is_empty() && options.embeddings.is_none();
        if says_nothing && request.image.is_none() {
            let expected = "a description of the image, or an image to start from";
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
    /// `p`. The prompts of the request are not used, and may be empty; that of the result is the
    /// first one, and the settings of each image have its own.
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
        let first = |texts: Option<&Vec<String>>| texts.and_then(|all| all.first()).cloned();
        request.prompt = first(Some(&prompts.prompt)).unwrap_or_default();
        request.negative_prompt = first(prompts.negative_prompt.as_ref());
        let mut job = self.prepare(&request, options)?;
        let seed = *job.request.seed.get_or_insert_with(random_seed);
        let outcome = Run::new(self, prompts, generation).outcome(&job, seed)?;
        if outcome.images.is_empty() {
            return Err(Error::cancelled("making images from a prompt"));
        }
        let mut result = GeneratedImages::new(outcome.images, job.request.clone(), &self.name);
        result.model_hash = self.model_hash().map(str::to_owned);
        result.settings = self.settings(&job);
        result.warnings = outcome.warnings;
        result.complete = outcome.complete;
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
        for (field, list) in prompts.lists() {
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

    /// [`denoise`](Self::denoise) from latents that another pipeline has left unfinished, such as
    /// those of a base network for its refiner. Options say how far they are
    /// ([`denoising_start`](PipelineOptions::denoising_start)), and no noise is added.
    ///
    /// ```no_run
    /// # use aigc_core::text_to_image::ImageRequest;
    /// # use aigc_pipelines::text_to_image::*;
    /// # fn f(base: &TextToImagePipeline, refiner: &TextToImagePipeline) -> aigc_core::Result<()> {
    /// let request = ImageRequest::new("").with_size(1024, 1024);
    /// let prompts = Prompts::new(["a cat wearing a hat"]);
    /// let mut noise = noise_of_images(NoiseSource::Torch, 7, 0..1);
    /// let mut options = PipelineOptions::default();
    /// options.denoising_end = Some(0.8);
    /// let job = base.prepare(&request, &options)?;
    /// let embeddings = base.encode_prompts(&prompts, &job)?;
    /// let mut denoising = base.denoise(&job, &embeddings, &[0], noise.as_mut())?;
    /// while denoising.step(noise.as_mut())?.is_some() {}
    /// let latents = denoising.into_latents();
    ///
    /// let mut options = PipelineOptions::default();
    /// options.denoising_start = Some(0.8);
    /// let job = refiner.prepare(&request, &options)?;
    /// let embeddings = refiner.encode_prompts(&prompts, &job)?;
    /// let mut denoising = refiner.denoise_from(&job, &embeddings, &[0], latents)?;
    /// while denoising.step(noise.as_mut())?.is_some() {}
    /// let images = refiner.decode(&job, denoising.into_latents())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`denoise`](Self::denoise); [`Error::InvalidArgument`] for latents of another shape, or a
    /// request with an image.
    pub fn denoise_from<'a>(
        &self,
        job: &'a Job,
        embeddings: &PromptEmbeddings,
        prompts: &[usize],
        latents: Tensor<4>,
    ) -> Result<Denoising<'a>> {
        let expected = "no image: the latents are given";
        ensure_argument(job.image.is_none(), "image", "given", expected)?;
        let [channels, height, width] = job.latent_shape;
        let shape = [prompts.len(), channels, height, width];
        let (fits, found) = (latents.dims() == shape, format!("{:?}", latents.dims()));
        ensure_argument(fits, "latents", found, &format!("{shape:?}"))?;
        let start = Start {
            latents,
            inpainting: None,
            unmasked: None,
        };
        self.denoising(job, embeddings, prompts, |_| Ok(start))
    }

    pub(crate) fn denoise_with<'a>(
        &self,
        job: &'a Job,
        embeddings: &PromptEmbeddings,
        prompts: &[usize],
        noise: &mut dyn NoiseStream,
        cancel: &CancelToken,
    ) -> Result<Denoising<'a>> {
        self.denoising(job, embeddings, prompts, |images| {
            let start = self.start(job, images, noise, cancel)?;
            if job.image.is_some() {
                self.used(&self.parts.vae);
            }
            Ok(start)
        })
    }

    /// Images of these prompts before their first step, which begins at what `start` returns for
    /// their number.
    fn denoising<'a>(
        &self,
        job: &'a Job,
        embeddings: &PromptEmbeddings,
        prompts: &[usize],
        start: impl FnOnce(usize) -> Result<Start>,
    ) -> Result<Denoising<'a>> {
        let beyond = prompts.iter().find(|row| **row >= embeddings.len());
        if let Some(row) = beyond.or(prompts.is_empty().then_some(&0)) {
            let expected = format!("numbers below {}, the prompts", embeddings.len());
            return Err(Error::argument("prompts", row, expected));
        }
        let conditions = self.conditions(job, embeddings, prompts)?;
        let start = start(prompts.len())?;
        let network = self.parts.denoiser.get()?;
        let controls = self.controls_of(job)?;
        Ok(Denoising::new(job, network, conditions, controls, start))
    }
}
