//! Generates text with a language model.
//!
//!     cargo run --release --example generate -- --model DIR \
//!         --prompt "The quick brown fox jumps over the lazy" --max-length 50 --num-beams 5 \
//!         --no-repeat-ngram-size 2 --top-k 50
//!
//! Without `--model` it trains a small GPT on weather reports that follow a grammar, and counts how
//! many of the reports it generates are valid.

#![forbid(unsafe_code)]

mod forecast;
mod options;
mod weather;

use aigc_core::{burn::tensor::Device, ops::Quantization};
use aigc_examples::{RunOptions, stop_on_ctrl_c};
use aigc_examples_text::{Typewriter, model_dir, print_warnings, write_stdout};
use aigc_text::{
    AnyCausalLm, CausalLm, GeneratedSequence, GenerationConfig, GenerationMode, PretrainedModel,
    TextGenerator, Tokenizer, perplexity, tokenizer,
};
use anyhow::Result;
use clap::{Parser, ValueEnum};
use options::GenerationOptions;
use std::path::{Path, PathBuf};

/// Generates text with a language model.
#[derive(Debug, Parser)]
#[command(allow_negative_numbers = true)]
struct Args {
    /// Model directory of transformers (`config.json`, weights and tokenizer files), or with the
    /// feature `download` the name of a model on the Hugging Face hub, such as `gpt2`.
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// Prompt; give it several times for a batch.
    #[arg(long, allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// Quantise the weights to 8 or 4 bits.
    #[arg(long, value_enum)]
    quantize: Option<Bits>,
    /// Smaller model with the same vocabulary for speculative decoding.
    #[arg(long, value_name = "DIR")]
    assistant: Option<String>,
    /// Print the perplexity of a text instead of generating, in windows that begin half a context
    /// apart.
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
        Some(model) => generate(&args, &model_dir(model)?, &device),
        None => forecast::run(&args.run, &device, stop_on_ctrl_c()),
    }
}

fn generate(args: &Args, dir: &Path, device: &Device) -> Result<()> {
    let loaded = AnyCausalLm::from_pretrained(dir, device)?;
    print_warnings(&loaded);
    let model = loaded.into_inner();
    let model = match args.quantize {
        Some(Bits::Int8) => model.quantize(Quantization::Int8),
        Some(Bits::Int4) => model.quantize(Quantization::Int4),
        None => model,
    };
    let tokenizer = tokenizer::from_pretrained(dir)?;
    if let Some(text) = &args.perplexity {
        return print_perplexity(&model, &*tokenizer, text);
    }
    let usual = GenerationConfig::from_pretrained(dir)?;
    print_warnings(&usual);
    let config = args.generation.over(usual.into_inner(), &*tokenizer)?;
    let inactive = config.inactive_options();
    if !inactive.is_empty() {
        eprintln!(
            "without do_sample these options have no effect: {}",
            inactive.join(", ")
        );
    }
    let prompts = if args.prompt.is_empty() {
        vec![String::new()]
    } else {
        args.prompt.clone()
    };
    let tokens = prompts
        .iter()
        .map(|prompt| tokenizer.encode_prompt(prompt))
        .collect::<Result<Vec<_>, _>>()?;
    let assistant = match &args.assistant {
        Some(assistant) => {
            let loaded = AnyCausalLm::from_pretrained(model_dir(assistant)?, device)?;
            print_warnings(&loaded);
            Some(loaded.into_inner())
        }
        None => None,
    };

    let mut generator = TextGenerator::new(&model, config.clone())?
        .with_seed(args.run.seed)
        .with_tokenizer(&*tokenizer)
        .with_cancel(stop_on_ctrl_c());
    if let Some(assistant) = &assistant {
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
        write_stdout(&prompts[0]);
        let mut typewriter = Typewriter::new(&*tokenizer);
        generator
            .with_streamer(|tokens| {
                tokens
                    .iter()
                    .flatten()
                    .for_each(|token| typewriter.write(*token))
            })
            .generate(&tokens)?;
        return Ok(());
    }
    for text in generator.generate(&tokens)? {
        show(&text, &*tokenizer, config.output_scores);
    }
    Ok(())
}

fn print_perplexity(model: &AnyCausalLm, tokenizer: &dyn Tokenizer, text: &Path) -> Result<()> {
    let text = tokenizer::read_text(text)?;
    let tokens = tokenizer.encode(&text)?;
    let found = perplexity(model, &tokens, model.max_position_embeddings().div_ceil(2))?;
    let bits = found.bits_per_character(text.chars().count());
    write_stdout(&format!(
        "perplexity {:.4} of {} tokens; {bits:.4} bits per character\n",
        found.perplexity(),
        tokens.len()
    ));
    Ok(())
}

fn show(text: &GeneratedSequence, tokenizer: &dyn Tokenizer, each: bool) {
    let score = text
        .score
        .map(|score| format!(" (score {score:.4})"))
        .unwrap_or_default();
    // Special tokens before the prompt are not shown.
    let first = text
        .tokens
        .iter()
        .take_while(|token| tokenizer.is_special(**token))
        .count();
    let shown = tokenizer.decode(&text.tokens[first..]);
    write_stdout(&format!("{shown}{score}\n\n"));
    for (token, score) in text.new_tokens().iter().zip(&text.scores).filter(|_| each) {
        write_stdout(&format!(
            "{score:10.4}  {:?}\n",
            tokenizer.decode(&[*token])
        ));
    }
}
