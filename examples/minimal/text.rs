//! A small GPT learns a text, character by character, and continues it.
use aigc_core::data::{DataLoader, DataLoaderConfig};
use aigc_core::train::{ProgressBar, Trainer, TrainerConfig};
use aigc_core::{checkpoint::RunDir, device::device};
use aigc_text::{CausalLmObjective, CharacterTokenizer, GenerationConfig, Gpt2Config};
use aigc_text::{TextGenerator, TokenBatch, TokenDataset, Tokenizer, tokenizer::read_text};

fn main() -> aigc_core::Result<()> {
    let device = device("auto")?;
    let text = read_text(std::env::args().nth(1).unwrap_or("README.md".into()))?;
    let tokenizer = CharacterTokenizer::from_text(&text);
    let windows = TokenDataset::new(tokenizer.encode(&text)?, 64, 1)?;
    let batches = DataLoader::new(windows, TokenBatch::collate, DataLoaderConfig::default())?;
    let model = Gpt2Config::nano(tokenizer.vocab_size(), 64, [3, 4, 96]).init(&device)?;
    let run = RunDir::create_next("runs/minimal-text")?;
    let trainer = Trainer::new(TrainerConfig::new(500)).with_callback(ProgressBar::new());
    let trained = trainer.fit(CausalLmObjective::new(), model, &batches, &run)?;
    let mut config = GenerationConfig::default();
    (config.do_sample, config.max_new_tokens) = (true, Some(200));
    let prompt = tokenizer.encode("The ")?;
    let texts = TextGenerator::new(&trained.model, config)?.generate(&[prompt])?;
    println!("{}", tokenizer.decode(&texts[0].tokens));
    Ok(())
}
