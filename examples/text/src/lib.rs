//! Code that the examples with language models share.
#![forbid(unsafe_code)]

use aigc_core::{
    CancelToken, Error, Result,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, Dataset},
    train::{LrSchedule, OptimizerConfig, ParamGroupConfig, TrainOutput, TrainerConfig},
    weights::Loaded,
};
#[cfg(feature = "download")]
use aigc_core::{data::download::progress_bar, hub::Hub};
#[cfg(feature = "download")]
use aigc_text::AnyCausalLm;
use aigc_text::{
    CausalLm, CausalLmObjective, DecodeStream, GenerationConfig, Gpt2, PretrainedModel,
    TextGenerator, TokenBatch, TokenDataset, Tokenizer, evaluate_loss,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub use aigc_examples::write_stdout;
use aigc_examples::{RunOptions, outln};

/// Batch size of evaluations.
const EVAL_BATCH: usize = 32;

/// Settings to train a GPT from scratch, those of nanoGPT: AdamW with weight decay on matrices
/// only, half a cosine down to a tenth, gradients clipped to norm 1.
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

/// A prompt, and the number of tokens to continue it with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Continuation {
    /// The prompt.
    pub prompt: String,
    /// Number of new tokens.
    pub tokens: usize,
}

/// Training of a language model on texts.
pub struct TextTraining<'a> {
    /// Tokenizer of the texts.
    pub tokenizer: &'a dyn Tokenizer,
    /// Training windows.
    pub learned: TokenDataset,
    /// Windows for evaluation.
    pub held_out: TokenDataset,
    /// Batch size.
    pub batch: usize,
    /// Text that is generated as a preview during training.
    pub shown: Continuation,
}

impl TextTraining<'_> {
    /// Trains, and writes the model to the run's `model` directory, which `generate --model` and
    /// transformers can open. Adapters are merged into this model, and also written separately to
    /// the `adapters` directory.
    ///
    /// # Errors
    /// Errors of settings, text and files.
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
        let (tokens, evaluated) = (learned.num_tokens(), held_out.num_tokens());
        let per_token = characters_per_token(&held_out, tokenizer)?;
        outln!(
            "{tokens} training tokens, {evaluated} held out, {} parameters; run directory: {}",
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
                let loss = evaluate_loss(model, &held_out, EVAL_BATCH)?;
                let bits = loss / std::f64::consts::LN_2 / per_token;
                Ok(vec![
                    ("loss of held-out text".into(), loss),
                    ("perplexity".into(), loss.exp()),
                    ("bits per character".into(), bits),
                ])
            })
            .with_preview(|model, at| {
                let text = continue_text(model, tokenizer, &shown, seed)?;
                let path = at.run.sample_path(at.step, "txt");
                std::fs::write(&path, text).map_err(|source| Error::Io { path, source })
            })
            .fit(CausalLmObjective::new(), model, &loader, run)?;
        let dir = run.path().join("model");
        tokenizer.save_pretrained(&dir)?;
        if trained.model.lora().is_some() {
            trained.model.save_lora(run.path().join("adapters"))?;
            trained.model = trained.model.merge_lora();
        }
        trained.model.save_pretrained(&dir)?;
        Ok(trained)
    }
}

/// Mean number of characters per token that the windows predict.
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

/// Continues a prompt by sampling with a seed. If the text exceeds the model's context, its last
/// half is the prompt of the next part.
///
/// # Errors
/// Errors of tokenizer and generator, for example for a prompt without tokens.
pub fn continue_text<M: CausalLm>(
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
            .with_seed(seed ^ tokens.len() as u64)
            .generate(&[prompt])?;
        tokens.extend_from_slice(&drawn[0].tokens);
    }
    Ok(tokenizer.decode(&tokens))
}

/// Writes tokens to standard output as they are generated.
pub struct Typewriter<'a>(Option<DecodeStream<'a>>);

impl<'a> Typewriter<'a> {
    /// Starts a new text.
    pub fn new(tokenizer: &'a dyn Tokenizer) -> Self {
        Self(Some(DecodeStream::new(tokenizer)))
    }

    /// Writes one more token.
    pub fn write(&mut self, token: u32) {
        if let Some(stream) = &mut self.0 {
            write_stdout(&stream.step(token));
        }
    }
}

impl Drop for Typewriter<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            write_stdout(&format!("{}\n", stream.finish()));
        }
    }
}

/// The directory of a model: a local directory, or with the feature `download` that of a model on
/// the Hugging Face hub, which is downloaded by its name.
///
/// # Errors
/// If the directory does not exist and the model cannot be downloaded.
pub fn model_dir(model: &str) -> anyhow::Result<PathBuf> {
    if Path::new(model).is_dir() {
        return Ok(model.into());
    }
    #[cfg(feature = "download")]
    return Ok(AnyCausalLm::snapshot(
        &Hub::from_env()?,
        model,
        "main",
        &mut progress_bar(),
    )?);
    #[cfg(not(feature = "download"))]
    anyhow::bail!(
        "there is no directory {model}; with `--features download` models of the Hugging Face hub are \
         downloaded by name"
    )
}

/// Prints the report of opening a model or its options.
pub fn print_warnings<T>(loaded: &Loaded<T>) {
    for line in loaded.warnings() {
        eprintln!("{line}");
    }
}
