//! GPT-2 with 124 million parameters and random weights: greedy decoding of 64 tokens after a
//! prompt of 32, beam search with five beams, and the prefill of a prompt of 512.

use crate::Clock;
use aigc_core::{
    ops::Quantization,
    rng::{InitWeights, Rng},
};
use aigc_text::{GenerationConfig, Gpt2, Gpt2Config, PretrainedModel, TextGenerator};
use anyhow::Result;
use burn::tensor::Device;

fn model(device: &Device) -> Result<Gpt2> {
    Ok(Gpt2Config::small().init(device)?.init_weights(0))
}

/// Generates from a random prompt of `prompt` tokens until the clock ends.
fn generate(prompt: usize, config: GenerationConfig, device: &Device, clock: Clock) -> Result<()> {
    generate_with(model(device)?, prompt, config, clock)
}

fn generate_with(
    model: Gpt2,
    prompt: usize,
    config: GenerationConfig,
    mut clock: Clock,
) -> Result<()> {
    let mut rng = Rng::new(0);
    let prompt: Vec<u32> = (0..prompt)
        .map(|_| rng.random_index(50_257) as u32)
        .collect();
    let new = config.max_new_tokens.unwrap_or(0);
    loop {
        let texts =
            TextGenerator::new(&model, config.clone())?.generate(std::slice::from_ref(&prompt))?;
        assert_eq!(texts[0].new_tokens().len(), new);
        if !clock.tick() {
            return Ok(());
        }
    }
}

fn greedy_config() -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(64),
        ..GenerationConfig::default()
    }
}

pub(crate) fn greedy(device: &Device, clock: Clock) -> Result<()> {
    generate(32, greedy_config(), device, clock)
}

/// With quantised weights; PyTorch's are not quantised.
pub(crate) fn quantized(quantization: Quantization, device: &Device, clock: Clock) -> Result<()> {
    generate_with(
        model(device)?.quantize(quantization),
        32,
        greedy_config(),
        clock,
    )
}

pub(crate) fn beam5(device: &Device, clock: Clock) -> Result<()> {
    let config = GenerationConfig {
        max_new_tokens: Some(32),
        num_beams: 5,
        no_repeat_ngram_size: 2,
        ..GenerationConfig::default()
    };
    generate(32, config, device, clock)
}

pub(crate) fn prefill(device: &Device, clock: Clock) -> Result<()> {
    generate(
        512,
        GenerationConfig {
            max_new_tokens: Some(1),
            ..GenerationConfig::default()
        },
        device,
        clock,
    )
}
