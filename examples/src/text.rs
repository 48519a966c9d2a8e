//! What the examples with language models share.

use aigc_core::{
    CancelToken, Error, Result,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, Dataset},
    train::{LrSchedule, OptimizerConfig, ParamGroupConfig, TrainOutput, TrainerConfig},
};
#[cfg(feature = "download")]
use aigc_core::{data::download::bar, hub::Hub};
use aigc_text::{
    CausalLm, CausalLmObjective, DecodeStream, GenerationConfig, Gpt2, TextGenerator, TokenBatch,
    TokenDataset, Tokenizer, evaluate_loss,
};
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

use crate::RunOptions;

/// Windows that are judged at once.
const JUDGED: usize = 32;

/// Settings of a GPT that learns from its beginning, as nanoGPT has them: AdamW with weight decay
/// on matrices alone, half a cosine down to a tenth, gradients of norm 1 at most.
pub fn gpt_trainer(steps: usize, seed: u64) -> TrainerConfig {
    let optimizer = OptimizerConfig::adam_w(0.9, 0.99, 0.1);
    TrainerConfig {
        seed,
        learning_rate: 1e-3,
        lr_schedule: LrSchedule {
            min_lr_ratio: 0.1,
            ..LrSchedule::cosine(100.min(steps / 10))
        },
        param_groups: vec![ParamGroupConfig::no_weight_decay_for_1d(&optimizer)],
        optimizer,
        max_grad_norm: Some(1.0),
        eval_steps: 500,
        preview_steps: 500,
        ..TrainerConfig::new(steps)
    }
}

/// How a text is gone on with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Continuation {
    /// What it begins with.
    pub prompt: String,
    /// Tokens to add.
    pub tokens: usize,
}

/// A model that learns to go on with texts.
pub struct TextTraining<'a> {
    /// Turns texts into tokens and back.
    pub tokenizer: &'a dyn Tokenizer,
    /// What it learns from.
    pub learned: TokenDataset,
    /// What it is judged by.
    pub held_out: TokenDataset,
    /// Windows of a step.
    pub batch: usize,
    /// What is shown of it as it learns.
    pub shown: Continuation,
}

impl TextTraining<'_> {
    /// Trains, and leaves the model in the run's `model` folder, for `generate --model` and for
    /// transformers; its adapters, if it has some, are merged there, and alone in the `adapters`
    /// folder.
    ///
    /// # Errors
    /// Whatever settings, text and disk report.
    pub fn run(
        self,
        model: Gpt2,
        trainer: TrainerConfig,
        options: &RunOptions,
        stop: CancelToken,
        settings: &(impl Serialize + serde::de::DeserializeOwned),
        run: &RunDir,
    ) -> Result<TrainOutput<Gpt2>> {
        let Self {
            tokenizer,
            learned,
            held_out,
            batch,
            shown,
        } = self;
        let (tokens, judged) = (learned.num_tokens(), held_out.num_tokens());
        let per_token = characters_per_token(&held_out, tokenizer)?;
        println!(
            "{tokens} tokens to learn from, {judged} held out, {} parameters; everything goes to {}",
            aigc_core::burn::module::Module::num_params(&model),
            run.path().display()
        );
        let config = DataLoaderConfig {
            batch_size: batch,
            shuffle_seed: Some(trainer.seed),
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(learned, TokenBatch::collate, config)?;
        let seed = trainer.seed;
        let mut trained = options
            .trainer(trainer, stop, 10)
            .with_model_config(model.config())?
            .with_data_config(settings)?
            .with_evaluation(|model| {
                let loss = evaluate_loss(model, &held_out, JUDGED)?;
                let bits = loss / std::f64::consts::LN_2 / per_token;
                Ok(vec![
                    ("loss of held-out text".into(), loss),
                    ("perplexity".into(), loss.exp()),
                    ("bits per character".into(), bits),
                ])
            })
            .with_preview(|model, at| {
                let text = go_on(model, tokenizer, &shown, seed)?;
                let path = at.run.sample_path(at.step, "txt");
                std::fs::write(&path, text).map_err(|source| Error::Io { path, source })
            })
            .fit(CausalLmObjective::new(), model, &loader, run)?;
        let folder = run.path().join("model");
        tokenizer.save(&folder)?;
        if trained.model.lora().is_some() {
            trained.model.save_lora(run.path().join("adapters"))?;
            trained.model = trained.model.merge_lora();
        }
        trained.model.save(&folder)?;
        Ok(trained)
    }
}

/// Characters of what windows foretell, for each of its tokens.
fn characters_per_token(windows: &TokenDataset, tokenizer: &dyn Tokenizer) -> Result<f64> {
    let begins = |byte: &u8| byte & 0xc0 != 0x80;
    let (mut tokens, mut characters) = (0, 0);
    for index in 0..windows.len() {
        for token in &windows.get(index)?[1..] {
            tokens += 1;
            characters += tokenizer
                .token_bytes(*token)
                .iter()
                .filter(|byte| begins(byte))
                .count();
        }
    }
    Ok(characters as f64 / tokens as f64)
}

/// A text and what the model makes of it, drawn with a seed. Beyond the model's context it goes on
/// from the later half.
///
/// # Errors
/// Names a prompt that has no tokens.
pub fn go_on<M: CausalLm>(
    model: &M,
    tokenizer: &dyn Tokenizer,
    text: &Continuation,
    seed: u64,
) -> Result<String> {
    let mut tokens = tokenizer.encode(&text.prompt)?;
    let (context, end) = (model.max_position_embeddings(), tokens.len() + text.tokens);
    while tokens.len() < end {
        let prompt = tokens.split_off(tokens.len() - tokens.len().min(context / 2));
        let room = (context - prompt.len()).min(end - tokens.len() - prompt.len());
        let config = GenerationConfig {
            max_new_tokens: Some(room),
            do_sample: true,
            temperature: 0.8,
            ..GenerationConfig::default()
        };
        let drawn = TextGenerator::new(model, config)?
            .seed(seed ^ tokens.len() as u64)
            .generate(&[prompt])?;
        tokens.extend_from_slice(&drawn[0].tokens);
    }
    Ok(tokenizer.decode(&tokens))
}

/// Writes tokens to the terminal as they come.
pub struct Typewriter<'a>(Option<DecodeStream<'a>>);

impl<'a> Typewriter<'a> {
    /// Nothing is written yet.
    pub fn new(tokenizer: &'a dyn Tokenizer) -> Self {
        Self(Some(DecodeStream::new(tokenizer)))
    }

    /// One more token.
    pub fn write(&mut self, token: u32) {
        if let Some(stream) = &mut self.0 {
            print!("{}", stream.step(token));
            // A closed terminal is no reason to stop.
            let _ = std::io::stdout().flush();
        }
    }
}

impl Drop for Typewriter<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            println!("{}", stream.finish());
        }
    }
}

/// The folder of a model: a folder as it is, or what the Hugging Face hub has under a name, fetched
/// with the feature `download`.
///
/// # Errors
/// If there is no such folder and the model cannot be fetched.
pub fn model_folder(model: &str) -> anyhow::Result<PathBuf> {
    if Path::new(model).is_dir() {
        return Ok(model.into());
    }
    #[cfg(feature = "download")]
    return Ok(Gpt2::fetch(&Hub::from_env()?, model, "main", &mut bar())?);
    #[cfg(not(feature = "download"))]
    anyhow::bail!(
        "there is no folder {model}; models of the Hugging Face hub are fetched by name with `--features download`"
    )
}
