//! A language model: texts that it generates, and what it says of texts.

use super::{
    FEW, LEAST_CHARACTERS,
    memorisation::memorisation,
    source::{Texts, passages},
};
use crate::{
    Part,
    book::Book,
    interval::{CONFIDENCE, checked, with},
};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Int, Tensor, TensorData},
    eval::{
        Features, bootstrap,
        report::{Aspect, Better, Measure},
        text::MauveConfig,
    },
    rng::Rng,
};
use aigc_examples::Progress;
use aigc_examples_text::{Continuation, continue_text};
use aigc_text::{AnyCausalLm, CausalLm, PretrainedModel, Tokenizer, perplexity, tokenizer};
use std::{f64::consts::LN_2, path::Path};

/// New tokens of a text.
const TOKENS: usize = 200;
/// Pieces of text that losses are computed of.
const PIECES: usize = 64;
/// Their characters: the first number that a text has enough pieces of.
const CHARACTERS: [usize; 3] = [2000, 500, 100];
/// Enough pieces for an interval.
const ENOUGH: usize = 8;
/// Rounds of the intervals.
const ROUNDS: usize = 1000;

/// A language model with its tokenizer.
pub(crate) struct TextModel {
    model: AnyCausalLm,
    tokenizer: Box<dyn Tokenizer>,
    /// The prompt of the run.
    prompt: Option<String>,
    device: Device,
}

/// The losses of a piece of text.
struct Piece {
    nats: f64,
    tokens: usize,
    characters: usize,
}

impl TextModel {
    /// Opens the model in `dir` of a run.
    pub(crate) fn open(run: &Path, dir: &Path, device: &Device, book: &mut Book) -> Result<Self> {
        let loaded = AnyCausalLm::from_pretrained(dir, device)?;
        for line in loaded.warnings() {
            book.warn(line);
        }
        book.fact("Model", "language model");
        Ok(Self {
            model: loaded.into_inner(),
            tokenizer: tokenizer::from_pretrained(dir)?,
            prompt: run_prompt(run),
            device: device.clone(),
        })
    }

    /// Generates `n` texts. They continue the prompts in turn, or that of the run.
    pub(crate) fn draw(
        &self,
        n: usize,
        prompts: Option<Vec<String>>,
        train: &Texts,
        seed: u64,
        stop: &CancelToken,
    ) -> Result<Texts> {
        let prompts = match prompts {
            Some(prompts) if prompts.is_empty() => {
                return Err(Error::argument("--prompts", "empty", "at least one line"));
            }
            Some(prompts) => prompts,
            None => vec![self.usual_prompt(train)],
        };
        let progress = Progress::new("texts", n, stop);
        let mut found = Texts {
            name: "samples".into(),
            texts: Vec::with_capacity(n),
            names: (0..n).map(|i| format!("sample {i}")).collect(),
        };
        for i in 0..n {
            progress.add(0)?;
            let text = Continuation {
                prompt: prompts[i % prompts.len()].clone(),
                tokens: TOKENS,
            };
            let seed = Rng::stream(seed, "texts", i as u64).next_u64();
            let whole = continue_text(&self.model, &*self.tokenizer, &text, seed)?;
            let new = whole.strip_prefix(&text.prompt).unwrap_or(&whole);
            found.texts.push(new.to_string());
            progress.add(1)?;
        }
        Ok(found)
    }

    /// The prompt of the run, a line feed, or the first character of the training text.
    fn usual_prompt(&self, train: &Texts) -> String {
        if let Some(prompt) = &self.prompt {
            return prompt.clone();
        }
        let line_feed = self.tokenizer.encode("\n");
        if line_feed.is_ok_and(|tokens| !tokens.is_empty()) {
            return "\n".into();
        }
        train.texts[0].chars().take(1).collect()
    }

    /// Adds perplexity, bits per character, MAUVE and memorisation.
    pub(crate) fn report(
        &self,
        samples: &Texts,
        real: Option<&[String]>,
        (train, held_out): (&Texts, &Texts),
        seed: u64,
        book: &mut Book,
    ) {
        let stop = book.stop().clone();
        if !book.wants(Part::Quality) && !book.wants(Part::Originality) {
            return;
        }
        // The same length for both texts: tokens with more before them are easier to predict.
        let length = CHARACTERS
            .into_iter()
            .find(|length| passages(held_out, PIECES, *length).len() >= ENOUGH)
            .unwrap_or(CHARACTERS[2]);
        let losses = book.attempt("losses of held-out text", || {
            self.losses(held_out, length, &stop)
        });
        if let Some(losses) = &losses
            && book.wants(Part::Quality)
        {
            book.measures("perplexity", || self.predictions(losses, held_out, seed));
        }
        if book.wants(Part::Quality)
            && let Some(real) = real
        {
            book.measures("MAUVE", || {
                self.mauve(samples, real, (train, held_out), seed, &stop)
            });
        }
        if let Some(losses) = &losses
            && book.wants(Part::Originality)
        {
            book.measures("memorisation", || {
                let of_train = self.losses(train, length, &stop)?;
                let mean = |pieces: &[Piece]| -> Vec<f64> {
                    pieces.iter().map(|p| p.nats / p.tokens as f64).collect()
                };
                let (of_train, losses) = (mean(&of_train), mean(losses));
                let measure = memorisation(&of_train, &losses)?
                    .with_reference(held_out.name.as_str(), losses.len())
                    .with_note(format!("Pieces of {length} characters."));
                Ok(vec![measure])
            });
        }
    }

    /// The losses of pieces of texts, of `length` characters.
    fn losses(&self, texts: &Texts, length: usize, stop: &CancelToken) -> Result<Vec<Piece>> {
        let found = passages(texts, PIECES, length);
        // A short text is one piece.
        let found = match found.is_empty() {
            true => vec![texts.texts.concat()],
            false => found,
        };
        let stride = self.model.max_position_embeddings().div_ceil(2);
        let progress = Progress::new("losses", found.len(), stop);
        let mut pieces = Vec::with_capacity(found.len());
        for text in &found {
            let tokens = self.tokenizer.encode(text)?;
            let losses = perplexity(&self.model, &tokens, stride)?.token_nll;
            pieces.push(Piece {
                nats: losses.iter().map(|nats| f64::from(*nats)).sum(),
                tokens: losses.len(),
                characters: text.chars().count(),
            });
            progress.add(1)?;
        }
        Ok(pieces)
    }

    /// Perplexity and bits per character.
    fn predictions(&self, pieces: &[Piece], held_out: &Texts, seed: u64) -> Result<Vec<Measure>> {
        let sum = |of: fn(&Piece) -> f64, rows: &[usize]| -> f64 {
            rows.iter().map(|row| of(&pieces[*row])).sum()
        };
        let nats = |rows: &[usize]| sum(|piece| piece.nats, rows);
        let per_token = |rows: &[usize]| nats(rows) / sum(|piece| piece.tokens as f64, rows);
        let bits = |rows: &[usize]| nats(rows) / LN_2 / sum(|piece| piece.characters as f64, rows);
        let all: Vec<usize> = (0..pieces.len()).collect();
        let interval = |of: &dyn Fn(&[usize]) -> f64| {
            let mut rng = Rng::stream(seed, "pieces", 0);
            bootstrap(pieces.len(), ROUNDS, CONFIDENCE, &mut rng, |rows| {
                Ok(of(rows))
            })
        };
        let tokens: usize = pieces.iter().map(|piece| piece.tokens).sum();
        // An interval of very few pieces would be far too narrow.
        let bounded = |measure: Measure, (low, high): (f64, f64)| match pieces.len() {
            0..ENOUGH => measure.with_note(format!(
                "No interval: there are fewer than {ENOUGH} pieces."
            )),
            _ => measure.with_interval(low, high),
        };
        let (low, high) = interval(&per_token)?;
        let perplexity = Measure::new(
            Aspect::Quality,
            "Perplexity of held-out text",
            per_token(&all).exp(),
            Better::Lower,
            tokens,
        );
        let perplexity = bounded(perplexity, (low.exp(), high.exp()))
            .with_explanation(
                "How many tokens the model hesitates between; depends on the tokenizer.",
            )
            .with_command("aigc_text::perplexity");
        let (low, high) = interval(&bits)?;
        let characters = pieces.iter().map(|piece| piece.characters).sum();
        let bits_measure = Measure::new(
            Aspect::Quality,
            "Bits per character of held-out text",
            bits(&all),
            Better::Lower,
            characters,
        );
        let bits = bounded(bits_measure, (low, high))
            .with_explanation("Comparable between tokenizers.")
            .with_command("aigc_text::Perplexity::bits_per_character");
        let perplexity = match pieces.len() {
            0..ENOUGH => perplexity.with_warning(format!(
                "the held-out text has {} of the {ENOUGH} pieces that an interval needs: \
                 perplexity and bits per character are rough.",
                pieces.len()
            )),
            _ => perplexity,
        };
        let longest = pieces.iter().map(|piece| piece.characters).max();
        let note = format!(
            "In pieces of up to {} characters, whose first tokens are not predicted; the count is \
             of tokens or characters.",
            longest.unwrap_or(0)
        );
        let finish = |measure: Measure| {
            measure
                .with_reference(held_out.name.as_str(), pieces.len())
                .with_note(note.as_str())
                .with_note("No value of real data: it is of the model, not of its texts.")
        };
        Ok(vec![finish(perplexity), finish(bits)])
    }

    /// MAUVE of samples and held-out passages in the model's own features.
    fn mauve(
        &self,
        samples: &Texts,
        real: &[String],
        (train, held_out): (&Texts, &Texts),
        seed: u64,
        stop: &CancelToken,
    ) -> Result<Vec<Measure>> {
        let config = MauveConfig::default();
        let features = self.features(real, stop)?;
        let found = config.compute(&self.features(&samples.texts, stop)?, &features)?;
        // As long as the held-out passages.
        let length = samples.usual_length().max(LEAST_CHARACTERS);
        let others = passages(train, real.len(), length);
        let floor = config.compute(&self.features(&others, stop)?, &features)?;
        let n = samples.texts.len();
        let (p, q) = (&found.p_counts, &found.q_counts);
        let mut rng = Rng::stream(seed, "MAUVE", 0);
        let interval = config.interval_from_counts(p, q, ROUNDS, CONFIDENCE, &mut rng);
        let interval = checked(n.min(real.len()), interval);
        let measure = Measure::new(Aspect::Quality, "MAUVE", found.mauve, Better::Higher, n)
            .with_floor(floor.mauve)
            .with_reference(held_out.name.as_str(), real.len())
            .with_explanation(
                "How far the samples cover the held-out text and the reverse, 0 to 1.",
            )
            .with_command("eval::text::MauveConfig::compute")
            .with_note(
                "In the last hidden state of the judged model itself: comparable only with itself. \
                 Real data: training passages. The interval is for these clusters; how they would \
                 differ for other texts is left out.",
            );
        let measure = with(measure, interval);
        Ok(vec![match n.min(real.len()) < 10 * FEW {
            true => measure.with_warning(format!(
                "{n} texts give a noisy value; published ones are of 5,000."
            )),
            false => measure,
        }])
    }

    /// The last hidden state of each text, at its last token within the model's context.
    fn features(&self, texts: &[String], stop: &CancelToken) -> Result<Features> {
        let progress = Progress::new("features of texts", texts.len(), stop);
        let mut all: Option<Features> = None;
        for text in texts {
            let mut tokens = self.tokenizer.encode(text)?;
            tokens.truncate(self.model.max_position_embeddings());
            let n = tokens.len();
            if n == 0 {
                return Err(Error::argument(
                    "texts",
                    "an empty text",
                    "texts with tokens",
                ));
            }
            let ids: Vec<i32> = tokens.into_iter().map(|token| token as i32).collect();
            let data = TensorData::new(ids, [1, n]);
            let input = Tensor::<2, Int>::from_data(data, &self.device);
            let mut cache = self.model.new_cache(1, n);
            let hidden = self.model.forward_cached(input, &mut *cache);
            let width = hidden.dims()[2];
            let last = hidden.narrow(1, n - 1, 1).reshape([1, width]);
            match &mut all {
                Some(all) => all.extend(&last)?,
                None => all = Some(Features::from_tensor(&last)?),
            }
            progress.add(1)?;
        }
        all.ok_or_else(|| Error::argument("texts", 0, "at least one text"))
    }
}

/// The prompt of the previews of a run, by its `config.json`.
fn run_prompt(run: &Path) -> Option<String> {
    let text = std::fs::read_to_string(run.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    config["data"]["shown"]["prompt"].as_str().map(String::from)
}
