//! Sentences of a long training text, planted in other texts.

use crate::{
    Context,
    memory::{peak_bytes, threads},
    report::{Report, share},
    words::Words,
};
use aigc_core::{
    Error, Result,
    eval::{Proportion, TextIndex, TextIndexConfig},
    rng::Rng,
};
use aigc_examples::{Progress, outln};
use clap::Args;
use serde_json::{Value, json};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    time::Instant,
};

/// Bytes of a document.
const DOCUMENT: usize = 1_000_000;
/// Shortest copied passage that is reported, in characters.
const SHORTEST: usize = 50;
/// One of so many sentences repeats an earlier one with another word, as boilerplate does.
const REPEATED: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct SpansArgs {
    /// Size of the training text, 10⁶ bytes each.
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=2000))]
    megabytes: u32,
    /// Text whose words the sentences consist of, such as tiny-shakespeare's input.txt; invented
    /// words without it.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Number of planted sentences.
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..))]
    planted: u32,
}

/// A sentence of the training text.
struct Planted {
    sentence: String,
    document: usize,
    offset: usize,
}

pub(crate) fn run(args: &SpansArgs, context: &Context, report: &mut Report) -> anyhow::Result<()> {
    let words = match &args.text {
        Some(path) => Words::of_text(path)?,
        None => Words::invented(&mut Rng::stream(context.seed, "words", 0)),
    };
    let documents = args.megabytes as usize;
    let dir = tempfile::tempdir()?;
    let (paths, planted) = write(
        &words,
        documents,
        args.planted as usize,
        dir.path(),
        context,
    )?;
    let before = peak_bytes();

    outln!("building the index of {documents} documents; Ctrl-C stops after it");
    let start = Instant::now();
    let index = TextIndex::from_files(&paths, &TextIndexConfig::default())?;
    let build_seconds = start.elapsed().as_secs_f64();
    if context.stop.is_cancelled() {
        return Err(Error::cancelled("the search for planted sentences").into());
    }

    let mut rng = Rng::stream(context.seed, "generated", 0);
    let start = Instant::now();
    let (mut found, mut in_place, mut wrong) = (0, 0, 0);
    {
        let progress = Progress::new("searching", planted.len(), &context.stop);
        for (number, planted) in planted.iter().enumerate() {
            let fresh = [words.sentence(&mut rng), words.sentence(&mut rng)];
            // Every other copy has other line breaks.
            let copy = match number % 2 {
                0 => planted.sentence.clone(),
                _ => planted.sentence.replace(' ', " \n"),
            };
            let text = format!("{} {copy} {}", fresh[0], fresh[1]);
            let place = fresh[0].len() + 1..fresh[0].len() + 1 + copy.len();
            let spans = index.spans(&text, SHORTEST)?;
            let covers =
                |range: &Range<usize>| range.start <= place.start && range.end >= place.end;
            if let Some(span) = spans.iter().find(|span| covers(&span.range)) {
                found += 1;
                // The passage may begin with a word before the sentence that fits by chance.
                let near = span.offset..=span.offset + (place.start - span.range.start);
                let same = span.document == planted.document && near.contains(&planted.offset);
                in_place += usize::from(same);
            }
            for fresh in &fresh {
                wrong += usize::from(!index.spans(fresh, SHORTEST)?.is_empty());
            }
            progress.add(1)?;
        }
    }
    let search_seconds = start.elapsed().as_secs_f64();

    report.table(
        format!(
            "{} planted sentences in {documents} MB of text, {} threads",
            planted.len(),
            threads()
        ),
        ["figure", "value"],
    );
    let total = planted.len();
    let megabytes = |bytes: Option<u64>| -> Value {
        bytes.map_or(Value::Null, |bytes| json!(bytes as f64 / 1e6))
    };
    for (figure, value) in [
        (
            "planted sentences found",
            share(&Proportion::new(found, total)?),
        ),
        (
            "found at their place",
            share(&Proportion::new(in_place, total)?),
        ),
        (
            "other sentences with a passage of 50 characters",
            share(&Proportion::new(wrong, 2 * total)?),
        ),
        ("seconds to build the index", json!(build_seconds)),
        ("seconds to search", json!(search_seconds)),
        ("seconds of both", json!(build_seconds + search_seconds)),
        ("peak memory in MB", megabytes(peak_bytes())),
        ("peak memory in MB before the index", megabytes(before)),
        ("index in MB", megabytes(Some(index.memory_bytes()))),
    ] {
        report.row(vec![json!(figure), value])?;
    }
    Ok(())
}

/// Writes the documents, and chooses `count` of their sentences.
fn write(
    words: &Words,
    documents: usize,
    count: usize,
    dir: &Path,
    context: &Context,
) -> Result<(Vec<PathBuf>, Vec<Planted>)> {
    let progress = Progress::new("writing the text (MB)", documents, &context.stop);
    let (mut paths, mut planted) = (Vec::new(), Vec::new());
    for document in 0..documents {
        let mut rng = Rng::stream(context.seed, "document", document as u64);
        let mut text = String::with_capacity(DOCUMENT + 512);
        let mut own: Vec<(usize, String)> = Vec::new();
        while text.len() < DOCUMENT {
            let sentence = if !own.is_empty() && rng.random_index(REPEATED) == 0 {
                words.varied(&own[rng.random_index(own.len())].1, &mut rng)
            } else {
                let sentence = words.sentence(&mut rng);
                own.push((text.len(), sentence.clone()));
                sentence
            };
            text += &sentence;
            text.push(if rng.random_index(5) == 0 { '\n' } else { ' ' });
        }
        // The same number of each document, and the rest of the first ones.
        let wanted = count / documents + usize::from(document < count % documents);
        let long: Vec<_> = own
            .into_iter()
            .filter(|(_, sentence)| sentence.chars().count() >= SHORTEST)
            .collect();
        let order = rng.permutation(long.len());
        planted.extend(order.into_iter().take(wanted).map(|i| Planted {
            sentence: long[i].1.clone(),
            document,
            offset: long[i].0,
        }));
        let path = dir.join(format!("{document:04}.txt"));
        std::fs::write(&path, text).map_err(Error::io(&path))?;
        paths.push(path);
        progress.add(1)?;
    }
    if planted.len() < count {
        let expected = format!("at most {}, the sentences of the text", planted.len());
        return Err(Error::argument("--planted", count, expected));
    }
    Ok((paths, planted))
}
