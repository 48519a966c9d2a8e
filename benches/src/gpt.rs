//! A step of a character-level GPT: 4 layers, 4 heads, width 128, context 64, vocabulary 65, batch 12, no dropout, no
//! biases, tied output; AdamW at 1e-3.

use crate::{Clock, clock::train};
use aigc_core::{
    data::{Loader, LoaderConfig},
    rng::Rng,
    train::{OptimizerConfig, TrainerConfig},
};
use aigc_text::{Gpt2Config, NextToken, TokenBatch, TokenWindows};
use anyhow::Result;
use burn::tensor::Device;

pub(crate) fn run(device: &Device, clock: Clock) -> Result<()> {
    let config = Gpt2Config::nano(65, 64, [4, 4, 128]);
    let mut rng = Rng::new(0);
    let tokens = (0..256 * 65).map(|_| rng.below(config.vocab_size) as u32).collect();
    let windows = TokenWindows::new(tokens, config.n_positions, config.n_positions)?;
    let loader = Loader::new(windows, TokenBatch::collate, LoaderConfig { batch_size: 12, ..LoaderConfig::default() })?;
    let trainer = TrainerConfig { optimizer: OptimizerConfig::adam_w(0.9, 0.999, 0.01), ..TrainerConfig::new(0) };
    train(NextToken::new(), config.init(device)?, &loader, trainer, clock)
}
