//! A training step of a character-level GPT: 4 layers, 4 heads, width 128, context 64, vocabulary
//! 65, batch 12, no dropout, no biases, tied output; AdamW at 1e-3.

use crate::{
    Clock,
    clock::{adam_w, train},
};
use aigc_core::{
    data::{DataLoader, DataLoaderConfig},
    rng::Rng,
};
use aigc_text::{CausalLmObjective, Gpt2Config, TokenBatch, TokenDataset};
use anyhow::Result;
use burn::tensor::Device;

pub(crate) fn run(device: &Device, clock: Clock) -> Result<()> {
    let config = Gpt2Config::nano(65, 64, [4, 4, 128]);
    let mut rng = Rng::new(0);
    let tokens = (0..256 * 65)
        .map(|_| rng.random_index(config.vocab_size) as u32)
        .collect();
    let windows = TokenDataset::new(tokens, config.n_positions, config.n_positions)?;
    let loader = DataLoader::new(
        windows,
        TokenBatch::collate,
        DataLoaderConfig {
            batch_size: 12,
            ..DataLoaderConfig::default()
        },
    )?;
    train(
        CausalLmObjective::new(),
        config.init(device)?,
        &loader,
        adam_w(),
        clock,
    )
}
