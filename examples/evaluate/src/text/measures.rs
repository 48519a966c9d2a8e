//! Quality and diversity of texts without a model.

use super::source::Texts;
use crate::{
    Part,
    book::Book,
    interval::{Draw, Interval, Rounds, with},
};
use aigc_core::{
    Result,
    eval::{
        Proportion,
        report::{Aspect, Better, Measure},
        text::{SelfBleu, Tokenizer, corpus_distinct_n, end_loop_share, rep_diversity, seq_rep_n},
    },
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

/// Words that all rounds of an interval read, about.
const WORK: usize = 5_000_000;
/// How often self-BLEU reads them: n-grams of 4 lengths, twice.
const SELF_BLEU: usize = 8;

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
        let words: usize = samples.iter().map(Vec::len).sum();
        let stop = book.stop().clone();
        let interval = |draw: Draw, (most, times): (f64, usize), value: Value<'_>| {
            let rounds = Rounds {
                texts: samples.len(),
                rounds: (WORK / times / words.max(1)).clamp(20, 200),
                seed: self.seed,
                stop: &stop,
            };
            rounds.interval(draw, most, |items| {
                let drawn: Vec<&[usize]> = items.iter().map(|i| samples[*i].as_slice()).collect();
                value(&drawn)
            })
        };
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
                        interval(Draw::Repeated, (1.0, 1), &repetition),
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
                    with(measure, interval(Draw::Half, (1.0, 1), &distinct))
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
                with(measure, interval(Draw::Repeated, (1.0, 3), &diversity))
                    .with_explanation("1 without repeated n-grams of 2 to 4 words within texts.")
                    .with_command("eval::text::rep_diversity"),
            ])
        });
        book.measures("self-BLEU", || {
            let config = SelfBleu::default();
            let bleu = |texts: &[&[usize]]| -> Result<f64> {
                Ok(config.score_tokens::<usize>(texts)?.score)
            };
            let found = both(&bleu)?;
            let measure = self.measure(Aspect::Diversity, "self-BLEU", found, Better::Lower);
            let found: Interval = match samples.len() > config.max_texts {
                true => Err(format!("the value is of {} texts", config.max_texts)),
                false => interval(Draw::Half, (100.0, SELF_BLEU), &bleu),
            };
            Ok(vec![
                with(measure, found)
                    .with_explanation("How much texts resemble each other, 0 to 100.")
                    .with_command("eval::text::SelfBleu"),
            ])
        });
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
            _ => measure.with_note("No value of real data: there is too little held-out text."),
        }
    }
}

/// A measure of texts, as numbers of words.
type Value<'a> = &'a dyn Fn(&[&[usize]]) -> Result<f64>;
