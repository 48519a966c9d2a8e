//! Quality and diversity of texts without a model.

use super::source::Texts;
use crate::{Part, book::Book};
use aigc_core::{
    Result,
    eval::{
        report::{Aspect, Better, Measure},
        text::{SelfBleu, Tokenizer, corpus_distinct_n, end_loop_share, rep_diversity, seq_rep_n},
    },
};

/// The texts that are compared.
pub(crate) struct Judged<'a> {
    pub(crate) samples: &'a Texts,
    /// Held-out passages of the same length.
    pub(crate) real: Option<&'a [String]>,
    /// Name of the held-out texts.
    pub(crate) held_out: &'a str,
}

/// Shortest part and number of repeats of a text that ends in a loop (Holtzman et al. 2020).
const LOOP: (usize, usize) = (2, 3);

impl Judged<'_> {
    /// Adds repetition, distinct n-grams and self-BLEU.
    pub(crate) fn report(&self, book: &mut Book) {
        let words = |texts: &[String]| -> Vec<Vec<String>> {
            texts
                .iter()
                .map(|text| Tokenizer::Words.tokenize(text))
                .collect()
        };
        let samples = words(&self.samples.texts);
        let real = self.real.map(words);
        let both = |value: &dyn Fn(&[Vec<String>]) -> Result<f64>| {
            let floor = real.as_deref().map(value).transpose()?;
            Ok::<_, aigc_core::Error>((value(&samples)?, floor))
        };
        if book.wants(Part::Quality) {
            book.measures("repetition", || {
                let repeated = both(&|texts| seq_rep_n(texts, 4))?;
                let loops = both(&|texts| end_loop_share(texts, LOOP.0, LOOP.1))?;
                Ok(vec![
                    self.measure(
                        Aspect::Quality,
                        "Repetition (seq-rep-4)",
                        repeated,
                        Better::Lower,
                    )
                    .with_explanation("The share of repeated 4-grams of words within a text.")
                    .with_command("eval::text::seq_rep_n"),
                    self.measure(
                        Aspect::Quality,
                        "Texts that end in a loop",
                        loops,
                        Better::Lower,
                    )
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
                let found = both(&|texts| corpus_distinct_n(texts, n))?;
                let name = format!("distinct-{n}");
                Ok(vec![
                    self.measure(Aspect::Diversity, &name, found, Better::Higher)
                        .with_explanation("The share of different n-grams of words in all texts.")
                        .with_command("eval::text::corpus_distinct_n"),
                ])
            });
        }
        book.measures("diversity of n-grams", || {
            let found = both(&rep_diversity)?;
            Ok(vec![
                self.measure(
                    Aspect::Diversity,
                    "Diversity (1 − rep-2…4)",
                    found,
                    Better::Higher,
                )
                .with_explanation("1 without repeated n-grams of 2 to 4 words within texts.")
                .with_command("eval::text::rep_diversity"),
            ])
        });
        book.measures("self-BLEU", || {
            let found = both(&|texts| Ok(SelfBleu::default().score_tokens(texts)?.score))?;
            Ok(vec![
                self.measure(Aspect::Diversity, "self-BLEU", found, Better::Lower)
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
                .with_note("Real data: held-out passages of the length of the samples."),
            _ => measure,
        }
    }
}
