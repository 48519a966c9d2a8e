//! Writes text with a GPT-2.
//!
//!     cargo run --release --example generate -- --model FOLDER --prompt "The quick brown fox jumps over the lazy" \
//!         --max-length 50 --num-beams 5 --no-repeat-ngram-size 2 --top-k 50
//!
//! Without a model it trains a small one on weather reports, which come of a grammar, and counts
//! how many of those it writes are right.

#![forbid(unsafe_code)]

mod forecast;
mod options;
mod weather;

use aigc_core::{burn::tensor::Device, ops::Quantization};
use aigc_examples::{
    RunOptions, stop_on_ctrl_c,
    text::{Typewriter, model_folder},
};
use aigc_text::{
    CausalLm, GeneratedSequence, GenerationConfig, GenerationMode, Gpt2, TextGenerator, Tokenizer,
    perplexity, tokenizer,
};
use anyhow::Result;
use clap::{Parser, ValueEnum};
use options::GenerationOptions;
use std::path::{Path, PathBuf};

/// Writes text with a GPT-2.
#[derive(Debug, Parser)]
struct Args {
    /// A folder of transformers (`config.json`, weights, and the tokenizer's files), or with the
    /// feature `download` a name of the Hugging Face hub, such as `gpt2`.
    #[arg(long, value_name = "FOLDER")]
    model: Option<String>,
    /// What the text begins with; several for a batch.
    #[arg(long)]
    prompt: Vec<String>,
    /// Weights of eight or four bits.
    #[arg(long, value_enum)]
    quantize: Option<Bits>,
    /// A smaller model with the same tokens, which proposes what the model checks.
    #[arg(long, value_name = "FOLDER")]
    assistant: Option<String>,
    /// Say how well the model foretells a text, in windows that are half a context apart, instead
    /// of writing.
    #[arg(long, value_name = "FILE", requires = "model")]
    perplexity: Option<PathBuf>,
    #[command(flatten)]
    generation: GenerationOptions,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bits {
    Int8,
    Int4,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = args.run.device()?;
    match &args.model {
        Some(model) => generate(&args, &model_folder(model)?, &device),
        None => forecast::run(&args.run, &device, stop_on_ctrl_c()),
    }
}

fn generate(args: &Args, folder: &Path, device: &Device) -> Result<()> {
    let (mut model, _) = Gpt2::open(folder, device)?;
    model = match args.quantize {
        Some(Bits::Int8) => model.quantize(Quantization::Int8),
        Some(Bits::Int4) => model.quantize(Quantization::Int4),
        None => model,
    };
    let tokenizer = tokenizer::from_pretrained(folder)?;
    if let Some(text) = &args.perplexity {
        return judge(&model, &*tokenizer, text);
    }
    let (config, _) = GenerationConfig::open(folder)?;
    let config = args.generation.over(config, &*tokenizer)?;
    let prompts = if args.prompt.is_empty() {
        vec![String::new()]
    } else {
        args.prompt.clone()
    };
    let tokens = prompts
        .iter()
        .map(|prompt| tokenizer.encode(prompt))
        .collect::<Result<Vec<_>, _>>()?;
    let assistant = match &args.assistant {
        Some(assistant) => Some(Gpt2::open(model_folder(assistant)?, device)?),
        None => None,
    };

    let mut generator = TextGenerator::new(&model, config.clone())?
        .seed(args.run.seed)
        .tokenizer(&*tokenizer)
        .with_cancel(stop_on_ctrl_c());
    if let Some((assistant, _)) = &assistant {
        generator = generator.with_assistant_model(assistant)?;
    }
    if let Some(pattern) = args
        .generation
        .pattern(&*tokenizer, &config.eos_token_ids())?
    {
        generator = generator.with_logits_processor(pattern);
    }
    let plain = matches!(
        config.generation_mode(),
        GenerationMode::Sample | GenerationMode::Contrastive
    );
    if plain && tokens.len() == 1 && config.num_return_sequences == 1 && !config.output_scores {
        print!("{}", prompts[0]);
        let mut typewriter = Typewriter::new(&*tokenizer);
        generator
            .with_streamer(|tokens| {
                tokens
                    .iter()
                    .flatten()
                    .for_each(|token| typewriter.write(*token))
            })?
            .generate(&tokens)?;
        return Ok(());
    }
    for text in generator.generate(&tokens)? {
        show(&text, &*tokenizer, config.output_scores);
    }
    Ok(())
}

fn judge(model: &Gpt2, tokenizer: &dyn Tokenizer, text: &Path) -> Result<()> {
    let text = tokenizer::read_text(text)?;
    let tokens = tokenizer.encode(&text)?;
    let found = perplexity(model, &tokens, model.max_position_embeddings().div_ceil(2))?;
    let bits = found.bits_per_character(text.chars().count());
    println!(
        "perplexity {:.4} of {} tokens; {bits:.4} bits per character",
        found.perplexity(),
        tokens.len()
    );
    Ok(())
}

fn show(text: &GeneratedSequence, tokenizer: &dyn Tokenizer, each: bool) {
    let score = text
        .score
        .map(|score| format!(" (score {score:.4})"))
        .unwrap_or_default();
    println!("{}{score}\n", tokenizer.decode(&text.tokens));
    for (token, score) in text.new_tokens().iter().zip(&text.scores).filter(|_| each) {
        println!("{score:10.4}  {:?}", tokenizer.decode(&[*token]));
    }
}
