//! Quality and diversity of texts without a model.

use super::source::Texts;
use crate::{Part, book::Book};
use aigc_core::{
    Result,
    eval::{
        Proportion, centred_bootstrap,
        report::{Aspect, Better, Measure},
        text::{SelfBleu, Tokenizer, corpus_distinct_n, end_loop_share, rep_diversity, seq_rep_n},
    },
    rng::Rng,
};
use std::collections::HashMap;

/// The texts that are compared.
pub(crate) struct Judged<'a> {
    pub(crate) samples: &'a Texts,
    /// Held-out passages of the same length.
    pub(crate) real: Option<&'a [String]>,
    /// Name of the held-out texts.
    pub(crate) held_out: &'a str,
    pub(crate) seed: u64,
}

/// Texts from which on there are intervals.
const LEAST: usize = 5;
/// Words that all rounds of a bootstrap read, about.
const WORK: usize = 5_000_000;

/// Shortest part and number of repeats of a text that ends in a loop (Holtzman et al. 2020).
const LOOP: (usize, usize) = (2, 3);

impl Judged<'_> {
    /// Adds repetition, distinct n-grams and self-BLEU.
    pub(crate) fn report(&self, book: &mut Book) {
        // Numbers for words, which are faster to compare.
        let mut known = HashMap::new();
        let mut words = |texts: &[String]| -> Vec<Vec<usize>> {
            let mut number = |word: String| {
                let next = known.len();
                *known.entry(word).or_insert(next)
            };
            let mut of = |text: &String| {
                let words = Tokenizer::Words.tokenize(text).into_iter();
                words.map(&mut number).collect()
            };
            texts.iter().map(&mut of).collect()
        };
        let samples = words(&self.samples.texts);
        let real = self.real.map(words);
        let both = |value: Value<'_>| -> Result<(f64, Option<f64>)> {
            let all = |texts: &[Vec<usize>]| {
                let texts: Vec<&[usize]> = texts.iter().map(Vec::as_slice).collect();
                value(&texts)
            };
            Ok((all(&samples)?, real.as_deref().map(all).transpose()?))
        };
        let interval = |value: Value<'_>| self.interval(&samples, value);
        if book.wants(Part::Quality) {
            book.measures("repetition", || {
                let repetition = |texts: &[&[usize]]| seq_rep_n::<usize>(texts, 4);
                let repeated = both(&repetition)?;
                let loops = both(&|texts| end_loop_share::<usize>(texts, LOOP.0, LOOP.1))?;
                let n = samples.len();
                let looping = Proportion::new((loops.0 * n as f64).round() as usize, n)?;
                let (low, high) = looping.interval();
                Ok(vec![
                    with(
                        self.measure(
                            Aspect::Quality,
                            "Repetition (seq-rep-4)",
                            repeated,
                            Better::Lower,
                        ),
                        interval(&repetition),
                    )
                    .with_explanation("The share of repeated 4-grams of words within a text.")
                    .with_command("eval::text::seq_rep_n"),
                    self.measure(
                        Aspect::Quality,
                        "Texts that end in a loop",
                        loops,
                        Better::Lower,
                    )
                    .with_interval(low, high)
                    .with_explanation("The share of texts whose end is three times the same.")
                    .with_command("eval::text::end_loop_share"),
                ])
            });
        }
        if !book.wants(Part::Diversity) {
            return;
        }
        for n in [1, 2, 3] {
            book.measures(&format!("distinct-{n}"), || {
                let distinct = |texts: &[&[usize]]| corpus_distinct_n::<usize>(texts, n);
                let found = both(&distinct)?;
                let name = format!("distinct-{n}");
                let measure = self.measure(Aspect::Diversity, &name, found, Better::Higher);
                Ok(vec![
                    with(measure, interval(&distinct))
                        .with_explanation("The share of different n-grams of words in all texts.")
                        .with_command("eval::text::corpus_distinct_n"),
                ])
            });
        }
        book.measures("diversity of n-grams", || {
            let diversity = |texts: &[&[usize]]| rep_diversity::<usize>(texts);
            let found = both(&diversity)?;
            let name = "Diversity (1 − rep-2…4)";
            let measure = self.measure(Aspect::Diversity, name, found, Better::Higher);
            Ok(vec![
                with(measure, interval(&diversity))
                    .with_explanation("1 without repeated n-grams of 2 to 4 words within texts.")
                    .with_command("eval::text::rep_diversity"),
            ])
        });
        // A text that a bootstrap draws twice is its own reference: there is no interval.
        book.measures("self-BLEU", || {
            let found = both(&|texts| Ok(SelfBleu::default().score_tokens::<usize>(texts)?.score))?;
            Ok(vec![
                self.measure(Aspect::Diversity, "self-BLEU", found, Better::Lower)
                    .with_explanation("How much texts resemble each other, 0 to 100.")
                    .with_command("eval::text::SelfBleu"),
            ])
        });
    }

    /// The interval of a share; none for few texts, or if all rounds are equal.
    fn interval(&self, texts: &[Vec<usize>], value: Value<'_>) -> Option<(f64, f64)> {
        let n = texts.len();
        if n < LEAST {
            return None;
        }
        let words: usize = texts.iter().map(Vec::len).sum();
        let rounds = (WORK / words.max(1)).clamp(20, 200);
        let mut rng = Rng::stream(self.seed, "texts of a round", 0);
        // A round may have short texts alone, without any n-gram.
        let found = centred_bootstrap(n, rounds, 0.95, &mut rng, |items| {
            let drawn: Vec<&[usize]> = items.iter().map(|i| texts[*i].as_slice()).collect();
            value(&drawn)
        });
        let (low, high) = found.ok()?;
        (low < high).then(|| (low.clamp(0.0, 1.0), high.clamp(0.0, 1.0)))
    }

    fn measure(
        &self,
        aspect: Aspect,
        name: &str,
        (value, floor): (f64, Option<f64>),
        better: Better,
    ) -> Measure {
        let measure = Measure::new(aspect, name, value, better, self.samples.texts.len());
        match (floor, self.real) {
            (Some(floor), Some(real)) => measure
                .with_floor(floor)
                .with_reference(self.held_out, real.len())
                .with_note(format!(
                    "Real data: {} held-out passages of the length of the samples.",
                    real.len()
                )),
            _ => measure,
        }
    }
}

/// A measure of texts, as numbers of words.
type Value<'a> = &'a dyn Fn(&[&[usize]]) -> Result<f64>;

fn with(measure: Measure, interval: Option<(f64, f64)>) -> Measure {
    match interval {
        Some((low, high)) => measure.with_interval(low, high),
        None => measure,
    }
}
