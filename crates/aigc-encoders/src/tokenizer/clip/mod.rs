//! CLIP's tokenizer: byte-pair encoding (Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>)
//! of words in lower case with a mark at their end, as transformers 5 has it.

mod files;
mod special;
#[cfg(test)]
mod tests;
mod train;

use super::{
    TokenBatch,
    files::{broken, check_ids, mismatch},
};
use aigc_core::{Error, Result};
use special::SpecialTokens;
use std::{collections::HashMap, path::Path};
use tokenizers::{
    AddedToken, DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior,
    models::bpe::{BpeBuilder, Merges, Vocab},
    normalizers::{NFC, Sequence as Normalizers, replace::Replace, utils::Lowercase},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
};

/// Mark of tokens that end a word.
const END_OF_WORD: &str = "</w>";

/// Limit on the ids of a vocabulary; the `tokenizers` crate counts on from the highest one.
const MOST_IDS: u32 = 1 << 24;

/// Number of tokens of CLIP's prompts.
const MAX_LENGTH: usize = 77;

/// What a word is: CLIP's expression.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP's tokenizer. Text is normalised (composed characters, single spaces, lower case) and split
/// into words, which are encoded as byte pairs. [`decode`](Self::decode) therefore does not restore
/// the text.
#[derive(Clone)]
pub struct ClipTokenizer {
    inner: tokenizers::Tokenizer,
    bos: Special,
    eos: Special,
    unk: String,
    pad: Special,
    max_length: usize,
}

/// A special token, and its id.
#[derive(Clone, Debug)]
struct Special {
    text: String,
    id: u32,
}

impl std::fmt::Debug for ClipTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClipTokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("pad", &self.pad)
            .field("max_length", &self.max_length)
            .finish()
    }
}

impl ClipTokenizer {
    /// A tokenizer of a vocabulary and merges, of which earlier ones come first. Tokens at the end
    /// of a word end with `</w>`; there must be `<|endoftext|>`, which also pads and stands for
    /// unknown characters. If there is no `<|startoftext|>`, it is added behind the vocabulary.
    ///
    /// # Errors
    /// [`Error::Data`] with the empty path if a token is missing, or a merge gives none.
    pub fn from_vocabulary(
        vocab: HashMap<String, u32>,
        merges: Vec<(String, String)>,
    ) -> Result<Self> {
        let special = SpecialTokens::defaults();
        Self::new(vocab, merges, special, Path::new(""))
    }

    fn new(
        vocab: HashMap<String, u32>,
        merges: Merges,
        special: SpecialTokens,
        path: &Path,
    ) -> Result<Self> {
        // The crate panics at merges that give no token.
        let gives_token = |(first, second): &&(String, String)| {
            [first, second, &format!("{first}{second}")]
                .iter()
                .all(|token| vocab.contains_key(*token))
        };
        if let Some((first, second)) = merges.iter().find(|merge| !gives_token(merge)) {
            let reason = format!("the merge `{first} {second}` gives no token of the vocabulary");
            return Err(mismatch(path, reason));
        }
        if !vocab.contains_key(&special.unk) {
            let reason = format!("the vocabulary has no unk_token {:?}", special.unk);
            return Err(mismatch(path, reason));
        }
        if let Some((token, id)) = vocab.iter().find(|(_, id)| **id >= MOST_IDS) {
            let reason = format!("the token {token:?} has the id {id}, expected below {MOST_IDS}");
            return Err(mismatch(path, reason));
        }
        let vocab = vocab.into_iter().collect::<Vocab>();
        let mut inner =
            pipeline(vocab, merges, &special.unk).map_err(|error| broken(path, error))?;
        let tokens = special.tokens.iter();
        inner
            .add_tokens(tokens.clone().map(|(_, token)| token.clone()))
            .map_err(|error| broken(path, format!("the added tokens: {error}")))?;
        let with_ids = tokens.clone();
        let with_ids = with_ids.filter_map(|(id, token)| Some(((*id)?, token)));
        check_ids(path, &inner, with_ids)?;
        // Ids behind a vocabulary with gaps may be those of other tokens.
        for (_, token) in tokens {
            let id = inner.token_to_id(&token.content);
            let other = id.and_then(|id| inner.get_model().id_to_token(id));
            if let Some(other) = other.filter(|other| *other != token.content) {
                let reason = format!("the token {:?} gets the id of {other:?}", token.content);
                return Err(mismatch(path, reason));
            }
        }
        let named = |field: &str, text: String| match inner.token_to_id(&text) {
            Some(id) => Ok(Special { text, id }),
            None => Err(mismatch(path, format!("{field} {text:?} is no token"))),
        };
        Ok(Self {
            bos: named("bos_token", special.bos)?,
            eos: named("eos_token", special.eos)?,
            pad: named("pad_token", special.pad)?,
            unk: special.unk,
            max_length: special.max_length.unwrap_or(MAX_LENGTH),
            inner,
        })
    }

    /// Sets the number of tokens that prompts are padded or cut to.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is less than 2: there are always the special tokens at the
    /// beginning and end.
    pub fn with_max_length(mut self, max_length: usize) -> Result<Self> {
        check_length(max_length)?;
        self.max_length = max_length;
        Ok(self)
    }

    /// Sets the token that pads prompts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such token.
    pub fn with_pad_token(mut self, token: &str) -> Result<Self> {
        let Some(id) = self.inner.token_to_id(token) else {
            return Err(Error::argument("token", token, "a token of the vocabulary"));
        };
        self.pad = Special {
            text: token.into(),
            id,
        };
        Ok(self)
    }

    /// Number of tokens, with added ones.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The highest id of a token.
    pub fn last_token_id(&self) -> u32 {
        let vocab = self.inner.get_vocab(true);
        vocab.into_values().max().unwrap_or(0)
    }

    /// Number of tokens that prompts are padded or cut to.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The token that begins a prompt.
    pub fn bos_token_id(&self) -> u32 {
        self.bos.id
    }

    /// The token that ends a prompt.
    pub fn eos_token_id(&self) -> u32 {
        self.eos.id
    }

    /// The token that pads a prompt.
    pub fn pad_token_id(&self) -> u32 {
        self.pad.id
    }

    /// The id of a token, if there is one.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token with an id, if there is one. Tokens at the end of a word end with `</w>`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The tokens of a text, without special tokens at its beginning and end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding =
            encoding.map_err(|error| Error::argument("text", error, "text that can be encoded"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of prompts as models take them: between the special tokens, cut to
    /// [`max_length`](Self::max_length) and padded to it. What was cut is returned as text.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a prompt cannot be encoded.
    pub fn encode_padded(&self, prompts: &[&str]) -> Result<TokenBatch> {
        check_length(self.max_length)?;
        let room = self.max_length - 2;
        let mut batch = TokenBatch::default();
        for prompt in prompts {
            let tokens = self.encode(prompt)?;
            let (kept, cut) = tokens.split_at(tokens.len().min(room));
            let ids = [&[self.bos.id][..], kept, &[self.eos.id]].concat();
            let cut = (!cut.is_empty()).then(|| self.text(cut, false));
            batch.push(ids, self.max_length, self.pad.id, cut);
        }
        Ok(batch)
    }

    /// The text of tokens, without special tokens: words in lower case with single spaces between
    /// them. Invalid bytes become `U+FFFD`, and unknown ids nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.text(ids, true)
    }

    fn text(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        let text = self.inner.decode(ids, skip_special_tokens);
        let text = text.expect("byte-level tokens").replace(END_OF_WORD, " ");
        // Python strips these separators too.
        let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
        text.trim_matches(is_space).to_owned()
    }

    /// Adds tokens behind the vocabulary, such as the placeholders of textual inversion, and
    /// returns their ids. They are found anywhere in a text, in upper or lower case.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a token is empty, already there, or equal to another one in
    /// lower case. No token is added then.
    pub fn add_tokens(&mut self, tokens: &[&str]) -> Result<Vec<u32>> {
        let mut inner = self.inner.clone();
        let known = inner.get_added_tokens_decoder();
        let mut known: Vec<String> = known
            .values()
            .map(|token| token.content.to_lowercase())
            .collect();
        let mut ids = vec![];
        for token in tokens {
            let wrong = |_| {
                let expected = "a token that the tokenizer does not have yet";
                Error::argument("tokens", format!("{token:?}"), expected)
            };
            let lower = token.to_lowercase();
            let is_known = known.contains(&lower) || inner.token_to_id(token).is_some();
            if token.trim().is_empty() || is_known {
                return Err(wrong(()));
            }
            let added = inner.add_tokens([AddedToken::from(*token, false)]);
            added.map_err(|_| wrong(()))?;
            ids.extend(inner.token_to_id(token));
            known.push(lower);
        }
        self.inner = inner;
        Ok(ids)
    }
}

/// The steps of CLIP's tokenizer, around byte pairs.
fn pipeline(vocab: Vocab, merges: Merges, unk: &str) -> tokenizers::Result<tokenizers::Tokenizer> {
    let model = BpeBuilder::new()
        .vocab_and_merges(vocab, merges)
        .unk_token(unk.into())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(END_OF_WORD.into())
        .build()?;
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(model));
    let spaces = Replace::new(
        tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()),
        " ",
    )?;
    let normalizers = Normalizers::new(vec![
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::Replace(spaces),
        NormalizerWrapper::Lowercase(Lowercase),
    ]);
    inner.with_normalizer(Some(NormalizerWrapper::Sequence(normalizers)))?;
    let pattern = SplitPattern::Regex(WORDS.into());
    let split = Split::new(pattern, SplitDelimiterBehavior::Removed, true)?;
    let level = ByteLevel::new(false, true, true);
    let steps = PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(level),
    ]);
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(steps)));
    inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    Ok(inner)
}

/// Fails unless a prompt of this length has room for the special tokens.
fn check_length(max_length: usize) -> Result<()> {
    let special = "the special tokens at the beginning and end";
    super::check_length(max_length, 2, special)
}
