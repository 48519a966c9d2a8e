//! Trains on Chinese poems and generates poems of a given form.
//!
//!     cargo run --release --example poems -- --data chinese-poetry
//!
//! The directory contains JSON files like those of
//! <https://github.com/chinese-poetry/chinese-poetry>, such as `poet.tang.0.json`: arrays of poems
//! with `paragraphs` (or `content`), or one poem per line.

#![forbid(unsafe_code)]

use aigc_core::{
    Error,
    train::{StartFrom, StopReason, TrainerConfig},
};
use aigc_examples::{RunOptions, outln, print_resume_hint, stop_on_ctrl_c};
use aigc_examples_text::{Continuation, TextTraining, gpt_trainer, write_stdout};
use aigc_text::{
    CharacterTokenizer, GenerationConfig, GenerationState, Gpt2, Gpt2Config, TextGenerator,
    TokenDataset, Tokenizer, tokenizer::read_text,
};
use anyhow::{Result, bail};
use clap::Parser;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Trains on Chinese poems and generates poems of a given form.
#[derive(Debug, Parser)]
struct Args {
    /// A directory with JSON files of poems, each with its `paragraphs`.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Beginning of the generated poems.
    #[arg(long, allow_hyphen_values = true, default_value = "明月")]
    prompt: String,
    /// Number of characters per line.
    #[arg(long, default_value_t = 5)]
    characters: usize,
    /// Number of lines per poem.
    #[arg(long, default_value_t = 4)]
    lines: usize,
    /// Number of poems to generate.
    #[arg(long, default_value_t = 4)]
    poems: usize,
    #[command(flatten)]
    run: RunOptions,
}

const NAME: &str = "poems";

fn main() -> Result<()> {
    let args = Args::parse();
    let device = args.run.device()?;
    let text = read(&args.data)?;
    let tokenizer = CharacterTokenizer::from_text(&text);
    let written = Form {
        prompt: &args.prompt,
        characters: args.characters,
        lines: args.lines,
    };
    written.check(&tokenizer)?;

    let model = Gpt2Config::nano(tokenizer.vocab_size(), 64, [4, 4, 192]);
    let windows = TokenDataset::new(tokenizer.encode(&text)?, model.n_positions, 1)?;
    let (learned, held_out) = windows.split(0.95)?;
    let trainer = TrainerConfig {
        eval_steps: 1000,
        ..gpt_trainer(3000, args.run.seed)
    };
    let trainer = args.run.config(trainer)?;
    let run = match args.run.start() {
        StartFrom::Fresh => args.run.run(NAME)?,
        _ => args.run.existing_run(NAME)?,
    };
    let shown = Continuation {
        prompt: args.prompt.clone(),
        tokens: 100,
    };
    let training = TextTraining {
        tokenizer: &tokenizer,
        learned,
        held_out,
        batch: 16,
        shown,
    };
    let trained = training.run(
        model.init(&device)?,
        trainer,
        &args.run,
        stop_on_ctrl_c(),
        &(),
        &run,
    )?;
    if trained.stop_reason == StopReason::Interrupted {
        print_resume_hint(trained.step, &run);
        return Ok(());
    }
    for poem in written.write(&trained.model, &tokenizer, args.poems, args.run.seed)? {
        write_stdout(&format!("\n{poem}\n"));
    }
    write_stdout("\n");
    for (name, value) in &trained.metrics {
        outln!("{name}: {value:.4}");
    }
    outln!(
        "{} steps in {:.0} s",
        trained.steps_run,
        trained.elapsed.as_secs_f64()
    );
    Ok(())
}

/// Reads all poems in the files of a directory and its subdirectories, separated by empty lines.
/// Skipped files are reported.
fn read(dir: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
    let (mut text, mut keys) = (String::new(), BTreeSet::new());
    for file in &files {
        let poems = match poems(file) {
            Ok(poems) => poems,
            Err(error) => {
                eprintln!("skipped: {error}");
                continue;
            }
        };
        let mut bad = 0;
        for poem in &poems {
            if let Value::Object(fields) = poem {
                keys.extend(fields.keys().cloned());
            }
            match paragraphs(poem) {
                Some(lines) => {
                    text.push_str(&lines);
                    text.push_str("\n\n");
                }
                None => bad += 1,
            }
        }
        if bad > 0 {
            eprintln!(
                "{}: {bad} of {} entries have no paragraphs and are skipped",
                file.display(),
                poems.len()
            );
        }
    }
    if text.is_empty() {
        let keys: Vec<String> = keys.into_iter().collect();
        let keys = match keys.is_empty() {
            true => "no entries were found".into(),
            false => format!("the entries have the keys {}", keys.join(", ")),
        };
        bail!(
            "{}: no JSON file with poems, which have `paragraphs` or `content`; {} files, {keys}",
            dir.display(),
            files.len()
        );
    }
    Ok(text)
}

/// Collects the JSON files below a directory. Hidden files and directories are skipped.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    for entry in entries {
        let entry = entry.map_err(Error::io(dir))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Links to directories are not followed: they may form loops.
        if entry.file_type().map_err(Error::io(&path))?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| {
            ["json", "jsonl", "ndjson"].contains(&&*extension.to_string_lossy().to_lowercase())
        }) {
            files.push(path);
        }
    }
    Ok(())
}

/// The entries of a file: a JSON array, one object, or one object per line.
fn poems(file: &Path) -> Result<Vec<Value>> {
    let json = read_text(file)?;
    let whole = match serde_json::from_str(&json) {
        Ok(Value::Array(poems)) => return Ok(poems),
        Ok(poem) => return Ok(vec![poem]),
        Err(error) => error,
    };
    let lines = json.lines().filter(|line| !line.trim().is_empty());
    let lines: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
    match lines {
        Ok(poems) if poems.iter().all(Value::is_object) => Ok(poems),
        _ => bail!("{}: not JSON: {whole}", file.display()),
    }
}

/// The lines of a poem with Chinese punctuation; `None` if it has no lines.
fn paragraphs(poem: &Value) -> Option<String> {
    let lines = ["paragraphs", "content"]
        .iter()
        .find_map(|key| match &poem[*key] {
            Value::Array(lines) => lines.iter().map(Value::as_str).collect::<Option<Vec<_>>>(),
            Value::String(text) => Some(text.lines().collect()),
            _ => None,
        })?;
    let lines: Vec<String> = lines
        .iter()
        .map(|line| line.trim().chars().map(full_width).collect())
        .filter(|line: &String| !line.is_empty())
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The Chinese punctuation mark for an ASCII one.
fn full_width(c: char) -> char {
    match c {
        ',' => COMMA,
        '.' => STOP,
        '!' => '！',
        '?' => '？',
        ';' => '；',
        ':' => '：',
        other => other,
    }
}

/// The form of a poem: lines of `characters` characters, with a comma after odd lines and a full
/// stop after even ones.
struct Form<'a> {
    prompt: &'a str,
    characters: usize,
    lines: usize,
}

const COMMA: char = '，';
const STOP: char = '。';

impl Form<'_> {
    fn check(&self, tokenizer: &CharacterTokenizer) -> Result<()> {
        let n = self.prompt.chars().count();
        if n == 0 || n > self.characters {
            bail!(
                "--prompt has {n} characters, expected 1 to {}, the length of a line",
                self.characters
            );
        }
        if self.lines == 0 || self.characters.saturating_add(1).saturating_mul(self.lines) > 60 {
            bail!(
                "{} lines of {} characters, expected 1 to 60 characters in all, including punctuation",
                self.lines,
                self.characters
            );
        }
        tokenizer.encode(&format!("{}{COMMA}{STOP}\n", self.prompt))?;
        Ok(())
    }

    /// The punctuation mark at a position of the poem, if a line ends there.
    fn mark(&self, at: usize) -> Option<char> {
        let width = self.characters + 1;
        (at % width == self.characters).then_some(if (at / width).is_multiple_of(2) {
            COMMA
        } else {
            STOP
        })
    }

    fn write(
        &self,
        model: &Gpt2,
        tokenizer: &CharacterTokenizer,
        poems: usize,
        seed: u64,
    ) -> Result<Vec<String>> {
        let token = |c: char| tokenizer.encode(&c.to_string()).map(|tokens| tokens[0]);
        let marks = [(COMMA, token(COMMA)?), (STOP, token(STOP)?)];
        // Within a line only Chinese characters are allowed.
        let inside: Vec<bool> = tokenizer
            .characters()
            .iter()
            .map(|c| matches!(*c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}'))
            .collect();
        let plan: Vec<Option<u32>> = (0..(self.characters + 1) * self.lines)
            .map(|at| {
                self.mark(at).and_then(|mark| {
                    marks
                        .iter()
                        .find(|(c, _)| *c == mark)
                        .map(|(_, token)| *token)
                })
            })
            .collect();
        let prompt = tokenizer.encode(self.prompt)?;
        let config = GenerationConfig {
            max_length: Some(plan.len()),
            do_sample: true,
            temperature: 0.9,
            top_p: 0.95,
            num_return_sequences: poems,
            ..GenerationConfig::default()
        };
        let form = move |row: GenerationState<'_>, scores: &mut [f32]| {
            match plan[row.tokens.len()] {
                Some(mark) => scores
                    .iter_mut()
                    .enumerate()
                    .filter(|(t, _)| *t != mark as usize)
                    .for_each(|(_, s)| *s = f32::NEG_INFINITY),
                None => scores
                    .iter_mut()
                    .zip(&inside)
                    .filter(|(_, inside)| !**inside)
                    .for_each(|(s, _)| *s = f32::NEG_INFINITY),
            }
            Ok(())
        };
        let texts = TextGenerator::new(model, config)?
            .with_seed(seed)
            .with_logits_processor(form)
            .generate(&[prompt])?;
        let lines = |text: String| {
            text.replace(STOP, &format!("{STOP}\n"))
                .trim_end()
                .to_string()
        };
        Ok(texts
            .iter()
            .map(|text| lines(tokenizer.decode(&text.tokens)))
            .collect())
    }
}
