//! Small parts of pipelines.

use crate::audio::{AudioRequest, DanceDiffusionPipeline, StableAudioParts, StableAudioPipeline};
use aigc_core::{
    Result,
    data::SampleShape,
    device::device,
    encoder::{Autoencoder, Deterministic, Posterior, TextEmbeddings, TextEncoder},
    rng::InitWeights,
};
use aigc_diffusion::{
    CosineDpmMultistepScheduler, IpndmScheduler,
    models::{StableAudioDitConfig, StableAudioProjectionConfig, UNet1dConfig},
};
use burn::tensor::{Device, Tensor, TensorData};

pub(super) const HOP: usize = 4;
pub(super) const FRAMES: usize = 16;
pub(super) const RATE: u32 = 32;

/// Two tokens of a prompt: its length, and padding.
#[derive(Debug)]
struct Lengths;

impl TextEncoder for Lengths {
    fn encode(&self, prompts: &[&str], device: &Device) -> Result<TextEmbeddings> {
        let rows = prompts.len();
        let token = |prompt: &&str| [prompt.len() as f32 / 10.0, 1.0, 0.5, 5.0, 5.0, 5.0];
        let states: Vec<f32> = prompts.iter().flat_map(token).collect();
        let states = Tensor::from_data(TensorData::new(states, [rows, 2, 3]), device);
        let mask = TensorData::new([true, false].repeat(rows), [rows, 2]);
        Ok(TextEmbeddings::new(states).with_attention_mask(Tensor::from_data(mask, device)))
    }

    fn embed_dim(&self) -> usize {
        3
    }

    fn max_length(&self) -> usize {
        2
    }
}

/// Latents of two channels, of which the first is held for four samples.
#[derive(Debug)]
struct Hold;

impl Autoencoder<3, 3> for Hold {
    fn encode(&self, x: Tensor<3>) -> Box<dyn Posterior<3>> {
        let [batch, _, time] = x.dims();
        let means = x.reshape([batch, 1, time / HOP, HOP]).mean_dim(3);
        let means = means.reshape([batch, 1, time / HOP]);
        Box::new(Deterministic(means.repeat_dim(1, 2)))
    }

    fn decode(&self, z: Tensor<3>) -> Tensor<3> {
        let [batch, _, frames] = z.dims();
        z.narrow(1, 0, 1)
            .reshape([batch, 1, frames, 1])
            .repeat_dim(3, HOP)
            .reshape([batch, 1, frames * HOP])
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[1, FRAMES * HOP])
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[2, FRAMES])
    }
}

pub(super) fn parts() -> StableAudioParts {
    let device = device("flex").unwrap();
    let projection = StableAudioProjectionConfig {
        text_encoder_dim: 3,
        conditioning_dim: 4,
        min_value: 0.0,
        max_value: 5.0,
    };
    let network = StableAudioDitConfig {
        sample_size: FRAMES,
        in_channels: 2,
        out_channels: 2,
        num_layers: 1,
        attention_head_dim: 4,
        num_attention_heads: 2,
        num_key_value_attention_heads: 1,
        cross_attention_dim: 4,
        time_proj_dim: 4,
        global_states_input_dim: 8,
        cross_attention_input_dim: 4,
    };
    StableAudioParts {
        text_encoder: Box::new(Lengths),
        projection_model: projection.init(&device).unwrap().init_weights(1),
        transformer: network.init(&device).unwrap().init_weights(2),
        autoencoder: Box::new(Hold),
        sample_rate: RATE,
        hop_length: HOP,
        scheduler: CosineDpmMultistepScheduler::default().into(),
    }
}

pub(super) fn pipeline() -> StableAudioPipeline {
    StableAudioPipeline::new(parts(), &device("flex").unwrap()).unwrap()
}

pub(super) fn request() -> AudioRequest {
    AudioRequest::new("a bell")
        .with_num_inference_steps(3)
        .with_seed(5)
}

pub(super) fn dance() -> DanceDiffusionPipeline {
    let device = device("flex").unwrap();
    let config = UNet1dConfig {
        sample_rate: Some(RATE),
        ..UNet1dConfig::small(1, 64)
    };
    let unet = config.init(&device).unwrap().init_weights(3);
    DanceDiffusionPipeline::new(unet, IpndmScheduler::default(), &device).unwrap()
}
