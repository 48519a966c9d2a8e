//! Learns Chinese poems and writes some, in the form asked for.
//!
//!     cargo run --release --example poems -- --data chinese-poetry
//!
//! The folder has the JSON files of <https://github.com/chinese-poetry/chinese-poetry>, such as
//! `poet.tang.0.json`.

#![forbid(unsafe_code)]

use aigc_core::train::{StartFrom, StopReason, TrainerConfig};
use aigc_examples::{
    RunOptions, say_how_to_go_on, stop_on_ctrl_c,
    text::{Continuation, TextTraining, gpt_trainer},
};
use aigc_text::{
    CharacterTokenizer, GenerationConfig, GenerationState, Gpt2, Gpt2Config, TextGenerator,
    TokenDataset, Tokenizer,
};
use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Learns Chinese poems and writes some, in the form asked for.
#[derive(Debug, Parser)]
struct Args {
    /// A folder with JSON files of poems, each with its `paragraphs`.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// What the poems that are written begin with.
    #[arg(long, default_value = "明月")]
    prompt: String,
    /// Characters of a line.
    #[arg(long, default_value_t = 5)]
    characters: usize,
    /// Lines of a poem.
    #[arg(long, default_value_t = 4)]
    lines: usize,
    /// How many poems to write.
    #[arg(long, default_value_t = 4)]
    poems: usize,
    #[command(flatten)]
    run: RunOptions,
}

const NAME: &str = "poems";

#[derive(Deserialize)]
struct Poem {
    #[serde(default)]
    paragraphs: Vec<String>,
}

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
        say_how_to_go_on(trained.step, &run);
        return Ok(());
    }
    println!();
    for poem in written.write(&trained.model, &tokenizer, args.poems, args.run.seed)? {
        println!("{poem}\n");
    }
    for (name, value) in &trained.metrics {
        println!("{name}: {value:.4}");
    }
    println!(
        "{} steps in {:.0} s",
        trained.steps_run,
        trained.elapsed.as_secs_f64()
    );
    Ok(())
}

/// All poems of all files of a folder, an empty line between them.
fn read(folder: &Path) -> Result<String> {
    let files = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut files: Vec<PathBuf> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|kind| kind == "json"));
    files.sort();
    let mut text = String::new();
    for file in files {
        let json = aigc_text::tokenizer::read_text(&file)?;
        // Files of another form, such as prose, are left out.
        let Ok(poems) = serde_json::from_str::<Vec<Poem>>(&json) else {
            continue;
        };
        for poem in poems.iter().filter(|poem| !poem.paragraphs.is_empty()) {
            text.push_str(&poem.paragraphs.join("\n"));
            text.push_str("\n\n");
        }
    }
    if text.is_empty() {
        bail!(
            "{}: no JSON file with poems, which have `paragraphs`",
            folder.display()
        );
    }
    Ok(text)
}

/// The form of a poem: lines of so many characters, a comma behind the odd ones and a full stop
/// behind the even ones.
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
                "--prompt has {n} characters; 1 to {}, a line's, were expected",
                self.characters
            );
        }
        if self.lines == 0 || self.characters.saturating_add(1).saturating_mul(self.lines) > 60 {
            bail!(
                "{} lines of {} characters: 1 to 60 characters, marks included",
                self.lines,
                self.characters
            );
        }
        tokenizer.encode(&format!("{}{COMMA}{STOP}\n", self.prompt))?;
        Ok(())
    }

    /// The mark at a place of the poem, if a line ends there.
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
        // What may stand inside of a line: characters of the script itself.
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
            .seed(seed)
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
