//! What the network is conditioned on, for the images of a batch.

use super::{
    embeddings::{PromptEmbeddings, rows},
    families::PipelineFamily,
    job::Job,
    pipeline::TextToImagePipeline,
};
use aigc_core::{Error, Result, encoder::TextEmbeddings};
use aigc_diffusion::{AnyDenoiser, ClassifierFreeGuidance, Conditioning, Denoiser};
use burn::tensor::{Tensor, TensorData};

/// The conditions of a batch: those of unconditional predictions first, if there is guidance.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    pub(crate) all: Conditioning,
    /// Those with the prompt alone, for ControlNets in guess mode.
    pub(crate) prompt: Conditioning,
    pub(crate) guidance: Option<ClassifierFreeGuidance>,
    /// Whether the prediction of a single step is the result.
    pub(crate) takes_prediction: bool,
}

impl TextToImagePipeline {
    /// The conditions of images with these prompts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for embeddings that do not fit the network, or are missing.
    pub(crate) fn conditions(
        &self,
        job: &Job,
        embeddings: &PromptEmbeddings,
        prompts: &[usize],
    ) -> Result<Conditions> {
        self.check_embeddings(job, embeddings)?;
        let negative = job.guidance.and(embeddings.negative.as_ref());
        let build = |negative| {
            let text = rows(&embeddings.prompt, negative, prompts);
            let count = text.hidden_states.dims()[0];
            let device = text.hidden_states.device();
            let told = |scale| Tensor::<1>::full([count], scale, &device);
            let numbers = self.numbers(job, count, negative.is_some()).map(|numbers| {
                let each = numbers.len() / count;
                Tensor::from_data(TensorData::new(numbers, [count, each]), &device)
            });
            Conditioning {
                encoder_hidden_states: Some(text.hidden_states),
                encoder_attention_mask: text.attention_mask,
                pooled_projections: text.pooled,
                time_ids: numbers,
                guidance: job.told_guidance.map(told),
                ..Conditioning::default()
            }
        };
        Ok(Conditions {
            all: build(negative),
            prompt: build(None),
            guidance: job.guidance,
            takes_prediction: self.class == "PixArtAlphaPipeline",
        })
    }

    /// What the network is told about sizes, for `count` images, of which the first half is
    /// unconditional if `guided`.
    fn numbers(&self, job: &Job, count: usize, guided: bool) -> Option<Vec<f32>> {
        let size = job.size;
        match (&self.network, self.family) {
            (_, PipelineFamily::StableDiffusionXl) => {
                let aesthetic = self.requires_aesthetics_score;
                let sizes = &job.options.size_conditions;
                let from_image = job.image.is_some() || job.options.denoising_start.is_some();
                let [prompt, negative] = sizes.numbers(size, aesthetic, from_image);
                let unconditional = if guided { count / 2 } else { 0 };
                let row = |k: usize| {
                    if k < unconditional {
                        &negative
                    } else {
                        &prompt
                    }
                };
                Some((0..count).flat_map(|k| row(k).clone()).collect())
            }
            (AnyDenoiser::PixArtTransformer(network), _) if network.config().takes_sizes() => {
                let [height, width] = [size.height, size.width].map(|side| side as f32);
                Some([height, width, height / width].repeat(count))
            }
            _ => None,
        }
    }

    fn check_embeddings(&self, job: &Job, embeddings: &PromptEmbeddings) -> Result<()> {
        let states = embeddings.prompt.hidden_states.dims();
        if let Some(width) = self
            .network
            .cross_attention_dim()
            .filter(|width| *width != states[2])
        {
            let expected = format!("{width}, the width that the network attends to");
            return Err(Error::argument("embeddings.prompt", states[2], expected));
        }
        let needs_pooled = matches!(
            self.family,
            PipelineFamily::StableDiffusionXl
                | PipelineFamily::StableDiffusion3
                | PipelineFamily::Flux
        );
        let all = embeddings.negative.iter().chain([&embeddings.prompt]);
        if needs_pooled && all.clone().any(|part| part.pooled.is_none()) {
            let expected = "given: the network needs pooled embeddings";
            return Err(Error::argument("embeddings.pooled", "missing", expected));
        }
        for part in all {
            self.check_pooled(part)?;
        }
        if job.guidance.is_none() {
            return Ok(());
        }
        let Some(negative) = &embeddings.negative else {
            let expected = "given, or a guidance scale of 1";
            return Err(Error::argument("embeddings.negative", "missing", expected));
        };
        let found = negative.hidden_states.dims();
        if found != states {
            let expected = format!("{states:?}, the shape of `embeddings.prompt`");
            return Err(Error::argument(
                "embeddings.negative",
                format!("{found:?}"),
                expected,
            ));
        }
        Ok(())
    }

    /// Fails for pooled embeddings of another width than the network's.
    fn check_pooled(&self, embeddings: &TextEmbeddings) -> Result<()> {
        let Some(pooled) = &embeddings.pooled else {
            return Ok(());
        };
        let [rows, width] = pooled.dims();
        let expected = match &self.network {
            AnyDenoiser::Sd3Transformer(network) => network.config().pooled_projection_dim,
            AnyDenoiser::FluxTransformer(network) => network.config().pooled_projection_dim,
            AnyDenoiser::UNet2dCondition(unet) if unet.config().addition_embed_type.is_some() => {
                let numbers = if self.requires_aesthetics_score { 5 } else { 6 };
                let found = unet.config().num_time_ids(width);
                if found != Some(numbers) {
                    let expected = format!(
                        "a width with which the network receives {numbers} numbers about sizes \
                         (5 if `requires_aesthetics_score`, else 6)"
                    );
                    return Err(Error::argument("embeddings.pooled", width, expected));
                }
                width
            }
            _ => width,
        };
        let tokens = embeddings.hidden_states.dims()[0];
        if (rows, width) != (tokens, expected) {
            let found = format!("{rows} vectors of {width}");
            let expected = format!("{tokens} vectors of {expected}, as the network receives");
            return Err(Error::argument("embeddings.pooled", found, expected));
        }
        Ok(())
    }
}
