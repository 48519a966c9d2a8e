//! What of the texts is in the training text.

use super::source::Texts;
use crate::{
    Part,
    book::Book,
    interval::{CONFIDENCE, checked, with},
};
use aigc_core::{
    Result,
    eval::{
        CopiedSpan, OriginalityConfig, TextIndex, TextIndexConfig, TextOriginality,
        report::{Aspect, Better, Measure, Table, TextSample},
    },
    rng::Rng,
};

/// Texts that are shown.
const SHOWN: usize = 8;
/// Characters of the n-grams of the measure.
const NGRAM: usize = 20;
/// Rounds of the intervals.
const ROUNDS: usize = 1000;

/// Adds copied passages, the overlap of n-grams, and texts with what is copied marked.
pub(crate) fn originality(
    samples: &Texts,
    train: &Texts,
    real: Option<&[String]>,
    seed: u64,
    book: &mut Book,
) {
    let index = match book.wants(Part::Originality) {
        true => book.attempt("originality of texts", || {
            TextIndex::from_texts(&train.texts, &TextIndexConfig::default())
        }),
        false => None,
    };
    if let Some(index) = &index {
        compare(index, (samples, train, real), seed, book);
    }
    let shown = book.attempt("texts with copied passages", || {
        marked(samples, train, index.as_ref())
    });
    let section = book.section("Texts");
    if index.is_some() {
        let least = OriginalityConfig::default().min_span_characters;
        section.add(format!(
            "Marked passages of at least {least} characters are in the training text."
        ));
    }
    for text in shown.into_iter().flatten() {
        section.add(text);
    }
}

fn compare(
    index: &TextIndex,
    (samples, train, real): (&Texts, &Texts, Option<&[String]>),
    seed: u64,
    book: &mut Book,
) {
    let config = OriginalityConfig::default();
    let found = book.attempt("copied passages", || {
        let real = real.map(|real| index.originality(real, &config));
        Ok((
            index.originality(&samples.texts, &config)?,
            real.transpose()?,
        ))
    });
    let Some((found, real)) = found else { return };
    let measure = |name: String, of: &dyn Fn(&TextOriginality) -> Option<f64>| {
        let value = of(&found).unwrap_or(f64::NAN);
        let n = samples.texts.len();
        let measure = Measure::new(Aspect::Originality, name, value, Better::Lower, n)
            .with_reference(train.name.as_str(), train.texts.len())
            .with_command("eval::TextIndex::originality");
        match real.as_ref().and_then(of) {
            Some(floor) => measure
                .with_floor(floor)
                .with_note("Real data: held-out passages of the length of the samples."),
            None => measure.with_note("No value of real data: there is too little held-out text."),
        }
    };
    let least = config.min_span_characters;
    book.measures("copied characters", || {
        let mut rng = Rng::stream(seed, "copied characters", 0);
        let interval = found.copied_interval(ROUNDS, CONFIDENCE, &mut rng);
        let interval = checked(found.texts, interval);
        let copied = measure("Copied characters".into(), &TextOriginality::copied_share);
        Ok(vec![with(copied, interval).with_explanation(format!(
            "The share of characters in passages of at least {least} characters of the training \
             text."
        ))])
    });
    let share = |of: &TextOriginality, length: usize| {
        let ngrams = of.ngrams.iter().find(|(n, _)| *n == length);
        ngrams.and_then(|(_, overlap)| overlap.share())
    };
    // Texts may be shorter than that.
    if share(&found, NGRAM).is_some() {
        book.measures("copied n-grams", || {
            let mut rng = Rng::stream(seed, "copied n-grams", 0);
            let interval = found.ngram_interval(NGRAM, ROUNDS, CONFIDENCE, &mut rng);
            let interval = checked(found.texts, interval);
            let ngrams = measure(format!("Copied {NGRAM}-grams"), &|of| share(of, NGRAM));
            Ok(vec![with(ngrams, interval).with_explanation(
                "The share of n-grams of characters of the training text.",
            )])
        });
    }
    let table = book.attempt("overlap of n-grams", || {
        let columns = ["characters", "samples", "held-out text"];
        let mut table = Table::new("N-grams that are in the training text", columns);
        let percent = |share: Option<f64>| match share {
            Some(share) => format!("{:.1}%", 100.0 * share),
            None => "–".into(),
        };
        for length in &config.ngrams {
            let real = real.as_ref().and_then(|real| share(real, *length));
            table.push([
                length.to_string(),
                percent(share(&found, *length)),
                percent(real),
            ])?;
        }
        Ok(table)
    });
    let longest = book.attempt("longest copied passages", || {
        let mut table = Table::new("The longest passages", ["text", "characters", "passage"]);
        for span in &found.longest {
            let passage: String = span.passage.chars().take(300).collect();
            let name = samples.names[span.text].clone();
            table.push([name, span.span.characters.to_string(), passage])?;
        }
        Ok(table)
    });
    let section = book.section("Copied text");
    for table in [table, longest].into_iter().flatten() {
        section.add(table);
    }
}

/// Some texts, those with the most copied first.
fn marked(samples: &Texts, train: &Texts, index: Option<&TextIndex>) -> Result<Vec<TextSample>> {
    let least = OriginalityConfig::default().min_span_characters;
    let mut found = Vec::new();
    for (row, text) in samples.texts.iter().enumerate() {
        let spans = match index {
            Some(index) => apart(index.spans(text, least)?),
            None => vec![],
        };
        let copied: usize = spans.iter().map(|span| span.characters).sum();
        found.push((copied, row, spans));
    }
    found.sort_by_key(|(copied, row, _)| (std::cmp::Reverse(*copied), *row));
    let shown = found.into_iter().take(SHOWN);
    shown
        .map(|(_, row, spans)| {
            let text = TextSample::new(samples.names[row].as_str(), samples.texts[row].as_str());
            spans.into_iter().try_fold(text, |text, span| {
                let source = format!("{}, byte {}", train.names[span.document], span.offset);
                text.with_copied(span.range, source)
            })
        })
        .collect()
}

/// Spans that do not overlap, in the order of the text.
fn apart(mut spans: Vec<CopiedSpan>) -> Vec<CopiedSpan> {
    spans.sort_by_key(|span| (span.range.start, std::cmp::Reverse(span.range.end)));
    let mut end = 0;
    spans.retain(|span| {
        let free = span.range.start >= end;
        if free {
            end = span.range.end;
        }
        free
    });
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_passages_do_not_overlap() {
        let span = |range| CopiedSpan {
            range,
            characters: 1,
            document: 0,
            offset: 0,
        };
        let found = apart(vec![span(5..9), span(0..6), span(0..3), span(6..8)]);
        let found: Vec<_> = found.into_iter().map(|span| span.range).collect();
        assert_eq!(found, [0..6, 6..8]);
    }
}
