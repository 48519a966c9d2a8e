//! Symbols and words of a text, and who speaks it.

use crate::Args;
use aigc_core::{Error, Result};
use aigc_vae::speech::{
    Lexicon, UnknownCharacters, VitsTokenizer, VitsTokenizerConfig, VitsTokens,
};
use std::ops::Range;

/// A tokenizer with the lexicon of the command line, and as strict as it says.
///
/// # Errors
/// Naming the line of the lexicon, or a symbol in it that the voice does not know.
pub(crate) fn tokenizer(voice: VitsTokenizer, args: &Args) -> Result<VitsTokenizer> {
    let voice = match args.skip_unknown {
        true => voice.with_unknown(UnknownCharacters::Replace),
        false => voice,
    };
    match &args.lexicon {
        Some(file) => voice.with_lexicon(Lexicon::read(file)?),
        None => Ok(voice),
    }
}

/// The symbols of a text. What is left out is printed.
///
/// # Errors
/// [`Error::InvalidArgument`] naming the characters that the voice does not know, or if nothing is
/// left to speak.
pub(crate) fn symbols(tokenizer: &VitsTokenizer, text: &str) -> Result<Vec<u32>> {
    let VitsTokens { ids, unknown } = tokenizer.encode_with_report(text)?;
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.iter().map(|c| format!("{c:?}")).collect();
        eprintln!("left out, not known to the voice: {}", unknown.join(", "));
    }
    // A blank alone is no text.
    if !tokenizer.has_symbols(&ids) {
        let expected = "a text with characters that the voice knows";
        return Err(Error::argument("TEXT", format!("{text:?}"), expected));
    }
    Ok(ids)
}

/// A word and the frames in which it is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) frames: Range<usize>,
}

/// The words of a text by the durations of its symbols.
pub(crate) fn words(
    text: &str,
    ids: &[u32],
    durations: &[usize],
    config: &VitsTokenizerConfig,
) -> Vec<Word> {
    let space = config.vocab.get(" ").copied();
    // With blanks, every second symbol is one; letters can have the same id.
    let is_blank = |at: usize| config.add_blank && at.is_multiple_of(2);
    let (mut found, mut start, mut end, mut has_letters) = (vec![], 0usize, 0usize, false);
    for (at, (id, duration)) in ids.iter().zip(durations).enumerate() {
        if !is_blank(at) && Some(*id) == space {
            if has_letters {
                found.push(start..end);
            }
            (start, has_letters) = (end + duration, false);
        } else {
            has_letters |= !is_blank(at);
        }
        end += duration;
    }
    if has_letters {
        found.push(start..end);
    }
    let names: Vec<&str> = text.split_whitespace().collect();
    let name = |index: usize| match names.len() == found.len() {
        true => names[index].to_owned(),
        // Words of unknown characters alone are left out.
        false => format!("word {}", index + 1),
    };
    let named = found.iter().cloned().enumerate();
    named
        .map(|(index, frames)| Word {
            text: name(index),
            frames,
        })
        .collect()
}

/// First frame of each symbol.
pub(crate) fn symbol_starts(durations: &[usize]) -> Vec<usize> {
    let starts = durations.iter().scan(0usize, |next, duration| {
        let start = *next;
        *next += duration;
        Some(start)
    });
    starts.collect()
}

/// The number of a speaker by name or number; 0 without one.
///
/// # Errors
/// [`Error::InvalidArgument`] with the known speakers.
pub(crate) fn speaker(given: Option<&str>, known: &[String]) -> Result<usize> {
    let Some(given) = given else { return Ok(0) };
    let by_name = known.iter().position(|name| name == given);
    let by_number = || {
        given
            .parse::<usize>()
            .ok()
            .filter(|number| *number < known.len())
    };
    by_name.or_else(by_number).ok_or_else(|| {
        let expected = format!("one of {}", known.join(", "));
        Error::argument("--speaker", given, expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(add_blank: bool) -> VitsTokenizerConfig {
        let symbols = ["a", " ", "b"];
        VitsTokenizerConfig {
            vocab: symbols.iter().map(|s| s.to_string()).zip(0..).collect(),
            add_blank,
            ..VitsTokenizerConfig::default()
        }
    }

    #[test]
    fn words_begin_and_end_at_spaces() {
        // "a ba" with blanks, whose id is also that of a letter.
        let ids = [0, 0, 0, 1, 0, 2, 0, 0, 0];
        let durations = [1, 5, 2, 4, 1, 6, 1, 5, 3];
        let found = words("a ba", &ids, &durations, &config(true));
        let expected = [("a", 0..8), ("ba", 12..28)];
        let expected = expected.map(|(text, frames)| Word {
            text: text.into(),
            frames,
        });
        assert_eq!(found, expected);
        assert_eq!(symbol_starts(&durations)[..4], [0, 1, 6, 8]);

        let found = words("b , a", &[2, 1, 1, 0], &[3, 1, 1, 4], &config(false));
        let texts: Vec<&str> = found.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["word 1", "word 2"]);
        assert_eq!(found[1].frames, 5..9);
    }

    #[test]
    fn speakers_have_names_and_numbers() {
        let known = ["ann".to_owned(), "bo".to_owned()];
        assert_eq!(speaker(None, &known).unwrap(), 0);
        assert_eq!(speaker(Some("bo"), &known).unwrap(), 1);
        assert_eq!(speaker(Some("1"), &known).unwrap(), 1);
        let error = speaker(Some("cid"), &known).unwrap_err().to_string();
        assert!(error.contains("one of ann, bo"), "{error}");
        assert!(speaker(Some("2"), &known).is_err());
    }
}
