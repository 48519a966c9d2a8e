//! Training of a speaker.

use super::{Speaker, SpeechBatch};
use crate::speech::{
    layers::{length_mask, repeat},
    monotonic_alignment,
};
use aigc_core::{
    Result,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Device, Tensor, TensorData};

/// Standard deviation of the noise that is left in a spectrogram at the end of the flow.
const LAST_NOISE: f64 = 1e-4;

/// Trains a [`Speaker`] from spectrograms and symbols without marks in time (Mehta et al. 2024,
/// <https://arxiv.org/abs/2309.03199>). The loss is the sum of three terms, which are its metrics:
///
/// - `prior`: `−log p` of the spectrogram under normal distributions of variance 1 around the means
///   of the symbols, in nats a value; symbols get the frames for which it is least
/// - `duration`: squared error of the logarithms of these numbers of frames
/// - `flow`: squared error of the velocity from noise to the spectrogram (Lipman et al. 2023,
///   <https://arxiv.org/abs/2210.02747>)
#[derive(Clone, Copy, Debug, Default)]
pub struct SpeechObjective;

impl SpeechObjective {
    /// The objective; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl Objective for SpeechObjective {
    type Model = Speaker;
    type Batch = SpeechBatch;

    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the first field in which the spectrograms
    /// are others than the model's; [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument)
    /// for ids or speakers that the model does not have, or an item with more symbols than frames.
    fn losses(
        &mut self,
        model: &Speaker,
        batch: &SpeechBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let (config, device) = (model.config(), context.device.clone());
        let mels = config.mel.n_mels;
        if let Some(item) = batch.items().iter().find(|item| item.mel != config.mel) {
            config.mel.check_same(&item.mel)?;
        }
        let speaker = model.speaker(&batch.speakers(), &device)?;
        let (tokens, lengths) = model.tokens(&batch.ids(), &device)?;
        let token_mask = length_mask(&lengths, tokens.dims()[1], &device);
        let frames = batch.frames();
        let log_mel = batch.log_mel(&device);
        let [size, _, most] = log_mel.dims();
        let mask = length_mask(&frames, most, &device);
        let y = (log_mel - config.mel_mean) * (1.0 / config.mel_std) * mask.clone();

        let (hidden, means) = model
            .text_encoder
            .forward(tokens, &token_mask, speaker.clone());
        let likelihood = log_likelihood(means.clone().detach(), y.clone());
        let durations = monotonic_alignment(likelihood, &lengths, &frames)?.durations;

        let (predicted, target) = (
            model.duration_predictor.forward(hidden, &token_mask, None),
            log_durations(&durations, &device),
        );
        let count =
            |lengths: &[usize], each: usize| (lengths.iter().sum::<usize>() * each).max(1) as f64;
        let duration = square_sum((predicted - target) * token_mask) / count(&lengths, 1);

        let mean = repeat(means, &durations, most);
        let values = count(&frames, mels);
        let constant = 0.5 * (2.0 * std::f64::consts::PI).ln();
        let prior = square_sum(y.clone() - mean.clone()) * (0.5 / values) + constant;

        let noise: Tensor<3> = context.rng.normal([size, mels, most], &device);
        let time: Tensor<2> = context.rng.uniform([size, 1], 0.0, 1.0, &device);
        let at = time.clone().reshape([size, 1, 1]);
        let rest = at.clone() * (LAST_NOISE - 1.0) + 1.0;
        let x = (noise.clone() * rest + y.clone() * at) * mask.clone();
        let velocity = (y - noise * (1.0 - LAST_NOISE)) * mask.clone();
        let found = model
            .decoder
            .forward(x, &mean, &mask, time, speaker.as_ref());
        let flow = square_sum(found - velocity) / values;

        let loss = prior.clone() + duration.clone() + flow.clone();
        Ok(LossOutput::new(loss)
            .with_metric("prior", prior)
            .with_metric("duration", duration)
            .with_metric("flow", flow))
    }
}

fn square_sum(x: Tensor<3>) -> Tensor<1> {
    (x.clone() * x).sum()
}

/// `−½‖y − mean‖²` for every symbol and frame, up to what is the same for all symbols of a frame.
///
/// # Shapes
/// - means: `[batch, mels, tokens]`, y: `[batch, mels, frames]`
/// - output: `[batch, tokens, frames]`
fn log_likelihood(means: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
    let means = means.swap_dims(1, 2);
    let squares = (means.clone() * means.clone()).sum_dim(2) * 0.5;
    means.matmul(y) - squares
}

/// Logarithms of durations, `[batch, 1, tokens]`; 0 for padding.
fn log_durations(durations: &[Vec<usize>], device: &Device) -> Tensor<3> {
    let log = |duration: &usize| (*duration).max(1) as f32;
    let values: Vec<f32> = durations.iter().flatten().map(|d| log(d).ln()).collect();
    let shape = [durations.len(), 1, durations.first().map_or(0, Vec::len)];
    Tensor::from_data(TensorData::new(values, shape), device)
}
