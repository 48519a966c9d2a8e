//! Training of byte pairs with a mark at the end of words (Sennrich et al. 2016, algorithm 1).

use super::{
    ClipTokenizer, END_OF_WORD, pipeline,
    special::{END_OF_TEXT, START_OF_TEXT},
};
use crate::tokenizer::files::broken;
use aigc_core::{Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer, models::bpe::Vocab, pre_tokenizers::byte_level::ByteLevel,
};

impl ClipTokenizer {
    /// Trains a vocabulary of at most `vocab_size` tokens on texts: the 256 bytes within and at the
    /// end of words, merges of the most frequent pairs, and the two special tokens. It is smaller
    /// if all words of the texts are single tokens.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `vocab_size` is less than 514.
    pub fn train<S: AsRef<str>>(
        texts: impl IntoIterator<Item = S>,
        vocab_size: usize,
    ) -> Result<Self> {
        let base = all_letters();
        let least = base.len() + 2;
        if vocab_size < least {
            let expected = format!("{least} (all bytes, and two special tokens) or more");
            return Err(Error::argument("vocab_size", vocab_size, expected));
        }
        Self::trained(texts, base, vocab_size - least)
    }

    /// A vocabulary in which every word of the texts is a single token, from as few tokens as
    /// possible: the letters of the texts, the parts that their words are merged from, the words,
    /// and the two special tokens. Characters that the texts do not have become `<|endoftext|>`.
    ///
    /// # Errors
    /// [`Error::Data`] if the vocabulary cannot be built.
    pub fn from_words<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::trained(texts, vec![], usize::MAX)
    }

    fn trained<S: AsRef<str>>(
        texts: impl IntoIterator<Item = S>,
        base: Vec<String>,
        merges: usize,
    ) -> Result<Self> {
        let splitter = pipeline(Vocab::default(), vec![], END_OF_TEXT)
            .map_err(|error| broken(Path::new(""), error))?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for text in texts {
            let pieces = words(&splitter, text.as_ref());
            for word in pieces.map_err(|error| Error::argument("texts", error, "text"))? {
                *counts.entry(word).or_default() += 1;
            }
        }
        let (mut tokens, merges) = train(counts, base, merges);
        tokens.extend([START_OF_TEXT, END_OF_TEXT].map(String::from));
        let ids = tokens.into_iter().zip(0..);
        Self::from_vocabulary(ids.collect(), merges)
    }
}

/// The letters of all bytes, within words and at their end.
fn all_letters() -> Vec<String> {
    let letters: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    let ends = letters
        .iter()
        .map(|letter| format!("{letter}{END_OF_WORD}"));
    letters.iter().map(char::to_string).chain(ends).collect()
}

/// The words of a text, in the letters of bytes.
fn words(splitter: &Tokenizer, text: &str) -> tokenizers::Result<Vec<String>> {
    let mut text = NormalizedString::from(text);
    if let Some(normalizer) = splitter.get_normalizer() {
        normalizer.normalize(&mut text)?;
    }
    let mut pieces = PreTokenizedString::from(text);
    if let Some(pre_tokenizer) = splitter.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces)?;
    }
    let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, ..)| word.into()).collect())
}

/// Tokens and merges for words, which are given with how often they occur: the tokens are `base`,
/// other letters of the words, and the results of at most `limit` merges. Of equally frequent pairs
/// the first in alphabetical order is merged.
fn train(
    words: BTreeMap<String, usize>,
    base: Vec<String>,
    limit: usize,
) -> (Vec<String>, Vec<(String, String)>) {
    let split = |(word, count): (String, usize)| {
        let mut letters: Vec<String> = word.chars().map(String::from).collect();
        letters.last_mut()?.push_str(END_OF_WORD);
        Some((letters, count))
    };
    let mut words: Vec<(Vec<String>, usize)> = words.into_iter().filter_map(split).collect();
    let mut known: BTreeSet<String> = base.iter().cloned().collect();
    let mut tokens = base;
    let letters: BTreeSet<String> = words.iter().flat_map(|(word, _)| word).cloned().collect();
    tokens.extend(
        letters
            .into_iter()
            .filter(|letter| known.insert(letter.clone())),
    );
    let mut merges = vec![];
    while merges.len() < limit {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (word, count) in &words {
            for pair in word.windows(2) {
                *counts.entry((&pair[0], &pair[1])).or_default() += count;
            }
        }
        // `rev`, because `max_by_key` returns the last of equal elements.
        let Some(((first, second), _)) = counts.into_iter().rev().max_by_key(|(_, count)| *count)
        else {
            break;
        };
        let pair = (first.to_owned(), second.to_owned());
        let merged = format!("{first}{second}");
        for (word, _) in &mut words {
            merge(word, &pair, &merged);
        }
        if known.insert(merged.clone()) {
            tokens.push(merged);
        }
        merges.push(pair);
    }
    (tokens, merges)
}

/// Replaces all occurrences of a pair, from left to right.
fn merge(word: &mut Vec<String>, (first, second): &(String, String), merged: &str) {
    let mut at = 0;
    while at + 1 < word.len() {
        if word[at] == *first && word[at + 1] == *second {
            word[at] = merged.to_owned();
            word.remove(at + 1);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_frequent_pairs_are_merged_first() {
        let words = [("aab", 3), ("ab", 2), ("aa", 1)];
        let words = words.map(|(word, count)| (word.to_string(), count)).into();
        let (tokens, merges) = train(words, vec!["b</w>".into(), "z".into()], 9);
        // By hand: `a b</w>` 5 times; then `a ab</w>` 3 times; then `a a</w>` once.
        let expected = [("a", "b</w>"), ("a", "ab</w>"), ("a", "a</w>")];
        assert_eq!(
            merges,
            expected.map(|(a, b)| (a.to_string(), b.to_string()))
        );
        let expected = ["b</w>", "z", "a", "a</w>", "ab</w>", "aab</w>", "aa</w>"];
        assert_eq!(tokens, expected);
    }

    #[test]
    fn all_bytes_have_letters() {
        let letters = all_letters();
        let distinct: BTreeSet<&String> = letters.iter().collect();
        assert_eq!((letters.len(), distinct.len()), (512, 512));
    }
}
