//! Trains a small model on weather reports, and counts how many of the reports it generates are
//! valid.

use crate::weather;
use aigc_core::{
    CancelToken,
    burn::tensor::Device,
    checkpoint::RunDir,
    train::{StartFrom, StopReason, TrainerConfig},
};
use aigc_examples::{RunOptions, outln, print_resume_hint};
use aigc_examples_text::{Continuation, TextTraining, Typewriter, gpt_trainer};
use aigc_text::{
    BpeTokenizer, GenerationConfig, Gpt2, Gpt2Config, TextGenerator, TokenDataset, Tokenizer,
};
use anyhow::{Result, bail};
use std::collections::HashSet;

/// Number of reports for training.
const REPORTS: usize = 40_000;
/// Number of generated reports that are checked.
const COUNTED: usize = 1000;
const NAME: &str = "generate";

pub(crate) fn run(options: &RunOptions, device: &Device, stop: CancelToken) -> Result<()> {
    let known = weather::corpus(REPORTS, 0);
    let text: String = known.iter().map(|report| format!("{report}\n")).collect();
    // A part of the reports is enough to find frequent pairs.
    let tokenizer = BpeTokenizer::train(known.iter().take(2000), 512)?;
    let model = Gpt2Config::nano(tokenizer.vocab_size(), 64, [4, 4, 128]);
    let windows = TokenDataset::new(tokenizer.encode(&text)?, model.n_positions, 1)?;
    let (learned, held_out) = windows.split(0.99)?;
    let trainer = TrainerConfig {
        eval_steps: 0,
        learning_rate: 4e-3,
        ..gpt_trainer(2500, options.seed)
    };
    let trainer = options.config(trainer)?;
    let run: RunDir = match options.start() {
        StartFrom::Fresh => options.run(NAME)?,
        _ => options.existing_run(NAME)?,
    };
    let shown = Continuation {
        prompt: "\n".into(),
        tokens: 120,
    };
    let training = TextTraining {
        tokenizer: &tokenizer,
        learned,
        held_out,
        batch: 12,
        shown,
    };
    let trained = training.run(model.init(device)?, trainer, options, stop, &(), &run)?;
    if trained.stop_reason == StopReason::Interrupted {
        print_resume_hint(trained.step, &run);
        return Ok(());
    }

    outln!("\nSome generated reports:\n");
    for seed in 0..5 {
        let mut typewriter = Typewriter::new(&tokenizer);
        let end = end(&tokenizer)?;
        for token in TextGenerator::new(&trained.model, config(end))?
            .with_seed(seed)
            .stream(&[end])?
        {
            let token = token?;
            if token != end {
                typewriter.write(token);
            }
        }
    }
    let reports = reports(&trained.model, &tokenizer)?;
    std::fs::write(run.path().join("reports.txt"), reports.join("\n"))?;
    count(&reports, &known.into_iter().collect());
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
        "\ngenerate with: cargo run --release --example generate -- --model {} --prompt \"Oslo, 24 December:\"",
        dir.display()
    );
    Ok(())
}

/// The token between reports.
fn end(tokenizer: &BpeTokenizer) -> Result<u32> {
    match tokenizer.encode("\n")?[..] {
        [end] => Ok(end),
        ref others => bail!("the end of a line is {} tokens", others.len()),
    }
}

/// Sampling at a low temperature.
fn config(end: u32) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(60),
        do_sample: true,
        temperature: 0.8,
        top_k: 0,
        eos_token_id: Some(aigc_text::generate::TokenIds::One(end)),
        ..GenerationConfig::default()
    }
}

fn reports(model: &Gpt2, tokenizer: &BpeTokenizer) -> Result<Vec<String>> {
    let end = end(tokenizer)?;
    let config = GenerationConfig {
        num_return_sequences: 100,
        ..config(end)
    };
    let mut reports = Vec::new();
    for seed in 0..COUNTED / 100 {
        let texts = TextGenerator::new(model, config.clone())?
            .with_seed(1000 + seed as u64)
            .generate(&[vec![end]])?;
        reports.extend(
            texts
                .iter()
                .map(|text| tokenizer.decode(text.new_tokens()).trim_end().to_string()),
        );
    }
    Ok(reports)
}

fn count(reports: &[String], known: &HashSet<String>) {
    let faults: Vec<(&String, String)> = reports
        .iter()
        .filter_map(|report| weather::fault(report).map(|fault| (report, fault)))
        .collect();
    let percent = |n: usize| 100.0 * n as f64 / reports.len() as f64;
    let novel = reports
        .iter()
        .filter(|report| !known.contains(*report))
        .count();
    let different: HashSet<&String> = reports.iter().collect();
    outln!(
        "\nof {} reports {:.1} % are valid by the grammar",
        reports.len(),
        percent(reports.len() - faults.len())
    );
    outln!(
        "{:.1} % are not in the training data, {:.1} % are distinct",
        percent(novel),
        percent(different.len())
    );
    for (report, fault) in faults.iter().take(3) {
        outln!("wrong: {fault}\n  in {report}");
    }
}
