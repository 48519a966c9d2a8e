//! The stages of a request, for tests that look at latents.

use aigc_core::text_to_image::ImageRequest;
use aigc_pipelines::text_to_image::{
    NoiseSource, PipelineOptions, Prompts, TextToImagePipeline, noise_of_images,
};
use burn::tensor::Tensor;

/// The denoised latents of the first image of a request.
pub(crate) fn latents(
    pipeline: &TextToImagePipeline,
    request: &ImageRequest,
    options: &PipelineOptions,
) -> Tensor<4> {
    let job = pipeline.prepare(request, options).unwrap();
    let mut prompts = Prompts::new([request.prompt.clone()]);
    prompts.negative_prompt = request.negative_prompt.clone().map(|text| vec![text]);
    let embeddings = pipeline.encode_prompts(&prompts, &job).unwrap();
    let mut noise = noise_of_images(NoiseSource::Torch, request.seed.expect("a seed"), 0..1);
    let mut denoising = pipeline
        .denoise(&job, &embeddings, &[0], noise.as_mut())
        .unwrap();
    while denoising.step(noise.as_mut()).unwrap().is_some() {}
    denoising.into_latents()
}
