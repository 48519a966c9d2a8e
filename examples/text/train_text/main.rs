//! Trains a GPT on a text.
//!
//!     cargo run --release --example train_text -- --text shakespeare.txt
//!
//! Without other options this is nanoGPT's configuration for CPUs (4 layers, 4 heads, width 128,
//! context 64, batch 12, 2,000 steps) with three times its learning rate; `--learning-rate 0.001`
//! gives nanoGPT's.

#![forbid(unsafe_code)]

use aigc_core::{
    burn::tensor::Device,
    checkpoint::RunDir,
    train::{StartFrom, StopReason, TrainerConfig},
};
use aigc_examples::{RunOptions, outln, print_resume_hint, stop_on_ctrl_c};
use aigc_examples_text::{
    Continuation, TextTraining, continue_text, gpt_trainer, model_dir, print_warnings, write_stdout,
};
use aigc_text::{
    BpeTokenizer, CharacterTokenizer, Gpt2, Gpt2Config, LoraConfig, PretrainedModel, TokenDataset,
    Tokenizer, read_lines, tokenize_file, tokenizer,
};
use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Trains a GPT on a text.
#[derive(Debug, Parser)]
#[command(allow_negative_numbers = true)]
struct Args {
    /// The training text, in UTF-8; it may be larger than memory.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["resume", "resume_at"])]
    text: Option<PathBuf>,
    /// Kind of tokens.
    #[arg(long, value_enum, default_value = "characters")]
    tokens: TokenKind,
    /// Vocabulary size, for byte pairs.
    #[arg(long, default_value_t = 4096)]
    vocabulary: usize,
    /// GPT-2 model to fine-tune: a directory of transformers, or with the feature `download` the
    /// name of a model on the Hugging Face hub. Its tokenizer and sizes are used.
    #[arg(long, value_name = "DIR")]
    from: Option<String>,
    /// Fine-tune adapters of this rank (LoRA) instead of the whole model.
    #[arg(long, value_name = "RANK", requires = "from")]
    lora: Option<usize>,
    #[arg(long, default_value_t = 4)]
    layers: usize,
    #[arg(long, default_value_t = 4)]
    heads: usize,
    #[arg(long, default_value_t = 128)]
    width: usize,
    /// Context length, in tokens.
    #[arg(long)]
    context: Option<usize>,
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Batch size.
    #[arg(long, default_value_t = 12)]
    batch: usize,
    /// Learning rate; 0.003 by default, 0.00003 to fine-tune, 0.0002 with adapters.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Prompt of the previews; by default a line feed, or the first character of a text without
    /// one.
    #[arg(long, allow_hyphen_values = true)]
    prompt: Option<String>,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TokenKind {
    /// One token per character.
    Characters,
    /// Byte-pair encoding, as in GPT-2.
    BytePairs,
}

/// Settings in the `config.json` of a run, which a resumed run uses.
#[derive(Deserialize)]
struct Settings {
    model: Gpt2Config,
    trainer: TrainerConfig,
    data: Data,
}

#[derive(Clone, Serialize, Deserialize)]
struct Data {
    /// Directory of the model to fine-tune.
    from: Option<PathBuf>,
    /// Adapters of that model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora: Option<LoraConfig>,
    context: usize,
    batch: usize,
    shown: Continuation,
}

const NAME: &str = "train-text";
/// Fraction of the text for training; the rest is for evaluation.
const TRAIN_FRACTION: f64 = 0.9;
/// File with the tokens of the text, in the run directory.
const TOKENS: &str = "tokens.bin";

fn main() -> Result<()> {
    let args = Args::parse();
    let device = args.run.device()?;
    let (run, settings, tokenizer) = match args.run.start() {
        StartFrom::Fresh => begin(&args, &device)?,
        _ => {
            let run = args.run.existing_run(NAME)?;
            let settings: Settings = run.config()?;
            refuse_other_settings(&args, &settings)?;
            let tokenizer = tokenizer::from_pretrained(run.path().join("model"))?;
            (run, settings, tokenizer)
        }
    };
    let Settings {
        model,
        trainer,
        data,
    } = settings;
    let trainer = args.run.config(trainer)?;
    let network = match &data.from {
        Some(dir) => {
            let loaded = Gpt2::from_pretrained(dir, &device)?;
            print_warnings(&loaded);
            loaded.into_inner()
        }
        None => model.init(&device)?,
    };
    let network = match &data.lora {
        Some(lora) => network.with_lora(lora.clone())?,
        None => network,
    };
    let windows = TokenDataset::open(run.path().join(TOKENS), data.context, 1)?;
    let (learned, held_out) = windows.split(TRAIN_FRACTION)?;
    let seed = trainer.seed;
    let training = TextTraining {
        tokenizer: &*tokenizer,
        learned,
        held_out,
        batch: data.batch,
        shown: data.shown.clone(),
    };
    let trained = training.run(network, trainer, &args.run, stop_on_ctrl_c(), &data, &run)?;
    if trained.stop_reason == StopReason::Interrupted {
        print_resume_hint(trained.step, &run);
        return Ok(());
    }
    let text = continue_text(&trained.model, &*tokenizer, &data.shown, seed)?;
    write_stdout(&format!("\n{}\n\n", text.trim()));
    for (name, value) in &trained.metrics {
        outln!("{name}: {value:.4}");
    }
    outln!(
        "{} steps in {:.0} s",
        trained.steps_run,
        trained.elapsed.as_secs_f64()
    );
    let dir = run.path().join("model");
    outln!(
        "\ngenerate with: cargo run --release --example generate -- --model {} --do-sample",
        dir.display()
    );
    Ok(())
}

/// Creates a new run, with the tokens and the tokenizer in its directory.
fn begin(args: &Args, device: &Device) -> Result<(RunDir, Settings, Box<dyn Tokenizer>)> {
    let text = args.text.as_deref().context("--text FILE is missing")?;
    let from = args.from.as_deref().map(model_dir).transpose()?;
    // The tokenizer is trained on an iterator of lines; the first error ends it and is reported.
    let mut failed = None;
    let mut lines = read_lines(text)?;
    let readable = std::iter::from_fn(|| match lines.next()? {
        Ok(line) => Some(line),
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let tokenizer: Box<dyn Tokenizer> = match (&from, args.tokens) {
        (Some(dir), _) => tokenizer::from_pretrained(dir)?,
        (None, TokenKind::Characters) => Box::new(CharacterTokenizer::train(readable)),
        (None, TokenKind::BytePairs) => Box::new(BpeTokenizer::train(readable, args.vocabulary)?),
    };
    if let Some(error) = failed {
        return Err(error.into());
    }
    let first = first_character(text)?;
    let model = match &from {
        Some(dir) => aigc_core::json::read_file(&dir.join("config.json"), Gpt2Config::from_json)?
            .into_inner(),
        None => {
            let sizes = [args.layers, args.heads, args.width];
            let dropout = args.dropout;
            Gpt2Config {
                resid_pdrop: dropout,
                embd_pdrop: dropout,
                attn_pdrop: dropout,
                ..Gpt2Config::nano(tokenizer.vocab_size(), args.context.unwrap_or(64), sizes)
            }
        }
    };
    model.validate()?;
    // `alpha` and learning rate of the LoRA paper's GPT-2.
    let lora = args.lora.map(|rank| LoraConfig {
        rank,
        alpha: 32.0,
        ..LoraConfig::default()
    });
    let mut trainer = gpt_trainer(args.run.steps.unwrap_or(2000), args.run.seed);
    let usual = match (&from, &lora) {
        (_, Some(_)) => 2e-4,
        (Some(_), None) => 3e-5,
        (None, None) => 3e-3,
    };
    trainer.learning_rate = args.learning_rate.unwrap_or(usual);
    if let Some(lora) = &lora {
        // Only matrices are trained, so groups for vectors would not match.
        trainer.param_groups.clear();
        model.init(device)?.with_lora(lora.clone())?;
    }
    // Checked first, so that an error leaves no run directory behind.
    let trainer = args.run.config(trainer)?;
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None if tokenizer.encode("\n").is_ok() => "\n".into(),
        None => first.into(),
    };
    if tokenizer.encode(&prompt)?.is_empty() {
        bail!("--prompt is empty, expected at least one character");
    }
    let context = args.context.unwrap_or(64).min(model.n_positions);
    let shown = Continuation {
        prompt,
        tokens: 500,
    };
    let data = Data {
        from,
        lora,
        context,
        batch: args.batch,
        shown,
    };
    let existed = args.run.out.as_ref().is_some_and(|out| out.exists());
    let run = args.run.run(NAME)?;
    let context = data.context;
    let prepare = || -> Result<()> {
        tokenizer.save_pretrained(&run.path().join("model"))?;
        let bytes = std::fs::metadata(text).map_or(0, |about| about.len());
        let bar = indicatif::ProgressBar::new(bytes).with_prefix("tokens");
        let tokens = run.path().join(TOKENS);
        tokenize_file(text, &*tokenizer, &tokens, |read| bar.set_position(read))?;
        bar.finish_and_clear();
        TokenDataset::open(tokens, context, 1)?.split(TRAIN_FRACTION)?;
        Ok(())
    };
    if let Err(error) = prepare() {
        // Training has not begun: a directory created here contains nothing to keep.
        if !existed {
            let _ = std::fs::remove_dir_all(run.path());
        }
        return Err(error);
    }
    Ok((
        run,
        Settings {
            model,
            trainer,
            data,
        },
        tokenizer,
    ))
}

/// The first character of a text.
fn first_character(text: &Path) -> Result<char> {
    let line = read_lines(text)?.next().transpose()?;
    line.and_then(|line| line.chars().next())
        .with_context(|| format!("{}: the file is empty", text.display()))
}

/// A resumed run uses its saved settings; different ones on the command line are errors.
fn refuse_other_settings(args: &Args, settings: &Settings) -> Result<()> {
    let Settings {
        model,
        trainer,
        data,
    } = settings;
    let usual = Args::parse_from(["train_text", "--resume"]);
    let differs = |name: &str, given: String, run: String| match given == run {
        true => Ok(()),
        false => bail!(
            "--{name} {given}: the run was started with {run}, and a resumed run keeps its \
             settings; leave the option out"
        ),
    };
    if let Some(rate) = args.learning_rate {
        differs(
            "learning-rate",
            rate.to_string(),
            trainer.learning_rate.to_string(),
        )?;
    }
    if args.run.seed != usual.run.seed {
        differs("seed", args.run.seed.to_string(), trainer.seed.to_string())?;
    }
    for (name, given, default, run) in [
        ("layers", args.layers, usual.layers, model.n_layer),
        ("heads", args.heads, usual.heads, model.n_head),
        ("width", args.width, usual.width, model.n_embd),
        ("batch", args.batch, usual.batch, data.batch),
    ] {
        if given != default {
            differs(name, given.to_string(), run.to_string())?;
        }
    }
    if args.dropout != usual.dropout {
        differs(
            "dropout",
            args.dropout.to_string(),
            model.resid_pdrop.to_string(),
        )?;
    }
    if let Some(context) = args.context {
        differs("context", context.to_string(), data.context.to_string())?;
    }
    if let Some(prompt) = &args.prompt {
        differs(
            "prompt",
            format!("{prompt:?}"),
            format!("{:?}", data.shown.prompt),
        )?;
    }
    if let Some(rank) = args.lora {
        let run = data.lora.as_ref().map_or(0, |lora| lora.rank);
        differs("lora", rank.to_string(), run.to_string())?;
    }
    Ok(())
}
