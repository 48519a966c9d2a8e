//! What the network is conditioned on: tokens of the prompt and of start and end, and start and end
//! beside the time.

use super::{job::StableAudioJob, pipeline::StableAudioPipeline};
use aigc_core::{Result, ops};
use burn::tensor::Tensor;

/// Conditions of a prompt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StableAudioConditions {
    /// Keys and values of cross-attention, `[1 or 2, tokens, width]`. With guidance, the first row
    /// is that of the unconditional prediction.
    pub encoder_hidden_states: Tensor<3>,
    /// The global condition, `[1 or 2, 2·width]`.
    pub global_hidden_states: Tensor<2>,
    /// Scale of classifier-free guidance, if there is any.
    pub guidance_scale: Option<f64>,
}

impl StableAudioConditions {
    /// The conditions of `count` sounds: all unconditional ones first.
    pub(super) fn repeated(&self, count: usize) -> (Tensor<3>, Tensor<2>) {
        let [rows, tokens, width] = self.encoder_hidden_states.dims();
        let global_width = self.global_hidden_states.dims()[1];
        let states = (0..rows).map(|row| {
            let row = self.encoder_hidden_states.clone().narrow(0, row, 1);
            row.expand([count, tokens, width])
        });
        let global = (0..rows).map(|row| {
            let row = self.global_hidden_states.clone().narrow(0, row, 1);
            row.expand([count, global_width])
        });
        (
            Tensor::cat(states.collect(), 0),
            Tensor::cat(global.collect(), 0),
        )
    }

    /// The prediction that the scheduler receives.
    ///
    /// # Shapes
    /// - output: `[batch or 2·batch, channels, frames]`
    pub(super) fn guided(&self, output: Tensor<3>) -> Tensor<3> {
        let Some(scale) = self.guidance_scale else {
            return output;
        };
        let batch = output.dims()[0] / 2;
        let none = output.clone().narrow(0, 0, batch);
        let text = output.narrow(0, batch, batch);
        none.clone() + (text - none) * scale
    }
}

impl StableAudioPipeline {
    /// Encodes the prompts of a request, and where its sound begins and ends.
    ///
    /// # Errors
    /// If a prompt cannot be tokenized.
    pub fn encode_prompt(&self, job: &StableAudioJob) -> Result<StableAudioConditions> {
        let request = &job.request;
        let negative = request.negative_prompt.as_deref();
        let negative = negative.filter(|_| job.is_guided());
        let prompts: Vec<&str> = negative
            .into_iter()
            .chain([request.prompt.as_str()])
            .collect();
        let embeddings = self.parts.text_encoder.encode(&prompts, &self.device)?;
        let projection = &self.parts.projection_model;
        let text = projection.text(embeddings.hidden_states);
        let text = match embeddings.attention_mask {
            Some(mask) => {
                let visible = ops::cast(mask.float(), text.dtype());
                text * visible.unsqueeze_dim::<3>(2)
            }
            None => text,
        };
        let [start, end] = job.seconds;
        let seconds = projection.seconds(&[start], &[end], &self.device);
        let rows = prompts.len();
        let [first, last] = seconds.clone().map(|vector| vector.repeat_dim(0, rows));
        let tokens = Tensor::cat(vec![text, first, last], 1);
        let tokens = match (job.is_guided(), negative) {
            // The unconditional prediction has no seconds either.
            (true, None) => Tensor::cat(vec![tokens.zeros_like(), tokens], 0),
            _ => tokens,
        };
        let [rows, _, width] = tokens.dims();
        let global = Tensor::cat(seconds.to_vec(), 2).reshape([1, 2 * width]);
        Ok(StableAudioConditions {
            encoder_hidden_states: tokens,
            global_hidden_states: global.repeat_dim(0, rows),
            guidance_scale: job.is_guided().then_some(request.guidance_scale),
        })
    }
}
