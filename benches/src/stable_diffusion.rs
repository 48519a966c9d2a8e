//! The networks of Stable Diffusion 1.5 with random weights, for an image of 512×512.

use crate::Clock;
use aigc_core::{
    encoder::Autoencoder,
    rng::{InitWeights, Rng},
    text_to_image::{ImageRequest, TextToImage},
};
use aigc_diffusion::{
    ClassifierFreeGuidance, Conditioning, Denoiser, UNet2dConditionConfig, models::PerBlock,
};
use aigc_encoders::clip::ClipTextConfig;
use aigc_pipelines::text_to_image::{PipelineOpenOptions, TextToImagePipeline};
use aigc_vae::{AutoencoderKlConfig, DownEncoderBlockType, UpDecoderBlockType};
use anyhow::{Context, Result};
use burn::tensor::{Device, Int, Tensor};

/// One guided step: the network on latents of 64×64, with and without the prompt.
pub(crate) fn unet_step(device: &Device, mut clock: Clock) -> Result<()> {
    let config = UNet2dConditionConfig {
        sample_size: Some(64.into()),
        cross_attention_dim: 768,
        attention_head_dim: PerBlock::One(8),
        ..UNet2dConditionConfig::default()
    };
    let network = config.init(device)?.init_weights(0);
    let mut rng = Rng::new(0);
    let x: Tensor<4> = rng.normal([1, 4, 64, 64], device);
    let condition = Conditioning {
        encoder_hidden_states: Some(rng.normal([2, 77, 768], device)),
        ..Conditioning::default()
    };
    let guidance = ClassifierFreeGuidance::new(7.5);
    loop {
        let both = Tensor::cat(vec![x.clone(), x.clone()], 0);
        let output = network.predict(both, Tensor::full([2], 500.0, device), &condition);
        let guided = guidance.combine(output.clone().narrow(0, 1, 1), output.narrow(0, 0, 1));
        guided.mean().into_scalar::<f32>();
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// The decoder, from latents of 64×64.
pub(crate) fn vae_decode(device: &Device, mut clock: Clock) -> Result<()> {
    let config = AutoencoderKlConfig {
        sample_size: 512.into(),
        down_block_types: vec![DownEncoderBlockType::DownEncoderBlock2D; 4],
        up_block_types: vec![UpDecoderBlockType::UpDecoderBlock2D; 4],
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        ..AutoencoderKlConfig::default()
    };
    let model = config.init(device)?.init_weights(0);
    let latents: Tensor<4> = Rng::new(0).normal([1, 4, 64, 64], device);
    loop {
        let images = Autoencoder::decode(&model, latents.clone());
        images.mean().into_scalar::<f32>();
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// The text encoder of a prompt of 77 tokens.
pub(crate) fn clip_text(device: &Device, mut clock: Clock) -> Result<()> {
    let config = ClipTextConfig {
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        ..ClipTextConfig::default()
    };
    let model = config.init(device)?.init_weights(0);
    let ids: Tensor<2, Int> = Tensor::<1, Int>::arange(0..77, device).reshape([1, 77]);
    loop {
        let states = model.forward(ids.clone(), None).last_hidden_state;
        states.mean().into_scalar::<f32>();
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// A request of 512×512 with two steps, from the pipeline in the directory `AIGC_SD15`, opened as
/// `options` say.
pub(crate) fn request(
    options: &PipelineOpenOptions,
    device: &Device,
    mut clock: Clock,
) -> Result<()> {
    let dir = std::env::var_os("AIGC_SD15")
        .context("AIGC_SD15 must name the directory that benches/peer/sd15_folder.py writes")?;
    let pipeline = TextToImagePipeline::from_pretrained_with(dir, options, device)?.into_inner();
    let request = ImageRequest::new("A cat wearing a hat")
        .with_num_inference_steps(2)
        .with_seed(0);
    loop {
        pipeline.generate(&request)?;
        if !clock.tick() {
            return Ok(());
        }
    }
}
