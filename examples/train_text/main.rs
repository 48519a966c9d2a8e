//! Learns to write like a text of yours.
//!
//!     cargo run --release --example train_text -- --text shakespeare.txt
//!
//! Without other options this is nanoGPT's recipe for a CPU (4 layers, 4 heads, width 128, context
//! 64, batch 12, 2,000 steps) at three times its learning rate; `--learning-rate 0.001` is the
//! recipe itself.

#![forbid(unsafe_code)]

use aigc_core::{
    burn::tensor::Device,
    checkpoint::RunDir,
    train::{StartFrom, StopReason, TrainerConfig},
};
use aigc_examples::{
    RunOptions, say_how_to_go_on, stop_on_ctrl_c,
    text::{Continuation, TextTraining, go_on, gpt_trainer, model_folder},
};
use aigc_text::{
    BpeTokenizer, CharacterTokenizer, Gpt2, Gpt2Config, LoraConfig, TokenDataset, Tokenizer,
    read_lines, tokenize_file, tokenizer,
};
use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Learns to write like a text of yours.
#[derive(Debug, Parser)]
struct Args {
    /// The text to learn from, in UTF-8; it may be larger than memory.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["resume", "resume_at"])]
    text: Option<PathBuf>,
    /// What a token is.
    #[arg(long, value_enum, default_value = "characters")]
    tokens: TokenIds,
    /// Number of tokens, for byte pairs.
    #[arg(long, default_value_t = 4096)]
    vocabulary: usize,
    /// Fine-tune this GPT-2, a folder of transformers or with the feature `download` a name of the
    /// Hugging Face hub, with its own tokens; sizes are its own, too.
    #[arg(long, value_name = "FOLDER")]
    from: Option<String>,
    /// Fine-tune adapters of this rank (LoRA) in place of the model itself.
    #[arg(long, value_name = "RANK", requires = "from")]
    lora: Option<usize>,
    #[arg(long, default_value_t = 4)]
    layers: usize,
    #[arg(long, default_value_t = 4)]
    heads: usize,
    #[arg(long, default_value_t = 128)]
    width: usize,
    /// Tokens that the model sees at once.
    #[arg(long)]
    context: Option<usize>,
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Windows of a step.
    #[arg(long, default_value_t = 12)]
    batch: usize,
    /// 0.003, or 0.00003 to fine-tune, 0.0002 with adapters.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// What the texts that are shown begin with.
    #[arg(long, default_value = "\n")]
    prompt: String,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TokenIds {
    /// A character.
    Characters,
    /// Bytes that often come together, as GPT-2's are.
    BytePairs,
}

/// What a run's `config.json` says of it; a resumed run takes it from there.
#[derive(Deserialize)]
struct Settings {
    model: Gpt2Config,
    trainer: TrainerConfig,
    data: Data,
}

#[derive(Clone, Serialize, Deserialize)]
struct Data {
    /// The model that was fine-tuned.
    from: Option<PathBuf>,
    /// Its adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora: Option<LoraConfig>,
    context: usize,
    batch: usize,
    shown: Continuation,
}

const NAME: &str = "train-text";
/// The tokens of the text, in the run's folder.
const TOKENS: &str = "tokens.bin";

fn main() -> Result<()> {
    let args = Args::parse();
    let device = args.run.device()?;
    let (run, settings, tokenizer) = match args.run.start() {
        StartFrom::Fresh => begin(&args, &device)?,
        _ => {
            let run = args.run.existing_run(NAME)?;
            let settings = run.config()?;
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
        Some(folder) => Gpt2::open(folder, &device)?.0,
        None => model.init(&device)?,
    };
    let network = match &data.lora {
        Some(lora) => network.with_lora(lora.clone())?,
        None => network,
    };
    let windows = TokenDataset::open(run.path().join(TOKENS), data.context, 1)?;
    // The last tenth judges.
    let (learned, held_out) = windows.split(0.9)?;
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
        say_how_to_go_on(trained.step, &run);
        return Ok(());
    }
    println!(
        "\n{}\n",
        go_on(&trained.model, &*tokenizer, &data.shown, seed)?.trim()
    );
    for (name, value) in &trained.metrics {
        println!("{name}: {value:.4}");
    }
    println!(
        "{} steps in {:.0} s",
        trained.steps_run,
        trained.elapsed.as_secs_f64()
    );
    let folder = run.path().join("model");
    println!(
        "\ngo on with: cargo run --release --example generate -- --model {} --do-sample",
        folder.display()
    );
    Ok(())
}

/// A new run: its tokens and their tokenizer, in its folder.
fn begin(args: &Args, device: &Device) -> Result<(RunDir, Settings, Box<dyn Tokenizer>)> {
    let text = args.text.as_deref().context("--text FILE is missing")?;
    let from = args.from.as_deref().map(model_folder).transpose()?;
    // What cannot be read is named when its tokens are written.
    let readable = read_lines(text)?.map_while(Result::ok);
    let tokenizer: Box<dyn Tokenizer> = match (&from, args.tokens) {
        (Some(folder), _) => tokenizer::from_pretrained(folder)?,
        (None, TokenIds::Characters) => Box::new(CharacterTokenizer::train(readable)),
        (None, TokenIds::BytePairs) => Box::new(BpeTokenizer::train(readable, args.vocabulary)?),
    };
    let model = match &from {
        Some(folder) => {
            aigc_core::json::read_file(&folder.join("config.json"), Gpt2Config::from_json)?.0
        }
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
    // `alpha` and learning rate of the paper's GPT-2.
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
        // No vector is trained, and so none needs a group.
        trainer.param_groups.clear();
        model.init(device)?.with_lora(lora.clone())?;
    }
    // A mistake leaves no folder behind.
    let trainer = args.run.config(trainer)?;
    tokenizer.encode(&args.prompt)?;
    let context = args.context.unwrap_or(64).min(model.n_positions);
    let shown = Continuation {
        prompt: args.prompt.clone(),
        tokens: 500,
    };
    let data = Data {
        from,
        lora,
        context,
        batch: args.batch,
        shown,
    };
    let run = args.run.run(NAME)?;
    tokenizer.save(&run.path().join("model"))?;
    let bytes = std::fs::metadata(text).map_or(0, |about| about.len());
    let bar = indicatif::ProgressBar::new(bytes).with_prefix("tokens");
    tokenize_file(text, &*tokenizer, run.path().join(TOKENS), |read| {
        bar.set_position(read)
    })?;
    bar.finish_and_clear();
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
