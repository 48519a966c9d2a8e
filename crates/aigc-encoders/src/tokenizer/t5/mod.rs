//! T5's tokenizer: SentencePiece's unigram model (Kudo 2018, <https://arxiv.org/abs/1804.10959>) by
//! the `tokenizers` crate, with the tokens of transformers' `T5Tokenizer`.

mod charsmap;
mod files;
mod model_proto;

use super::{
    TokenBatch,
    files::{broken, check_ids, mismatch},
};
use aigc_core::{Error, Result};
use files::Parts;
use std::path::Path;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer,
    decoders::{byte_fallback::ByteFallback, sequence::Sequence as Decoders},
    models::unigram::Unigram,
    normalizers::Precompiled,
    pre_tokenizers::{
        metaspace::{Metaspace, PrependScheme},
        sequence::Sequence,
        whitespace::WhitespaceSplit,
    },
    processors::template::TemplateProcessing,
};

/// T5's tokenizer.
///
/// Its tokens are those of transformers' `T5Tokenizer`, which differ from SentencePiece's own at
/// control characters: words are separated at white space first, and each gets the mark `▁`.
///
/// Where the files say `byte_fallback`, as those of UMT5 may, characters that no piece has become
/// the bytes of their UTF-8, as in SentencePiece, which such models are trained with;
/// transformers' `T5Tokenizer` gives the unknown token for them.
#[derive(Clone)]
pub struct T5Tokenizer {
    inner: Tokenizer,
    pad_token_id: u32,
    eos_token_id: u32,
    /// What else the files contained, to be written again.
    extra: files::Extra,
}

impl T5Tokenizer {
    /// Opens the tokenizer in a directory: `tokenizer.json` or `spiece.model`, with added tokens
    /// and options from `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no such file, or a file is broken or that of another kind of
    /// tokenizer.
    pub fn from_pretrained(dir: impl AsRef<Path>) -> Result<Self> {
        Self::new(files::read(dir.as_ref())?)
    }

    /// Opens a `spiece.model`. The 100 tokens `<extra_id_0>` to `<extra_id_99>` follow its own.
    ///
    /// # Errors
    /// [`Error::Data`] if it is broken or no unigram model.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(files::read_spiece(path.as_ref(), files::EXTRA_IDS)?)
    }

    fn new(parts: Parts) -> Result<Self> {
        let path = &parts.path;
        let broken = |error: tokenizers::Error| broken(path, error);
        let model = Unigram::from(parts.pieces, Some(parts.unk_id), parts.byte_fallback);
        let model = model.map_err(broken)?;
        let mut inner = Tokenizer::new(ModelWrapper::Unigram(model));
        if let Some(table) = &parts.charsmap {
            let wrong = |reason: String| broken(format!("precompiled_charsmap: {reason}").into());
            charsmap::check(table).map_err(wrong)?;
            let table = Precompiled::from(table).map_err(|error| wrong(error.to_string()))?;
            inner
                .with_normalizer(Some(NormalizerWrapper::Precompiled(table)))
                .map_err(broken)?;
        }
        let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
        inner.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
            PreTokenizerWrapper::Metaspace(metaspace.clone()),
        ]))));
        let marks = DecoderWrapper::Metaspace(metaspace);
        inner.with_decoder(Some(match parts.byte_fallback {
            true => {
                let bytes = DecoderWrapper::ByteFallback(ByteFallback::new());
                DecoderWrapper::Sequence(Decoders::new(vec![bytes, marks]))
            }
            false => marks,
        }));
        let added = parts.added.iter();
        inner
            .add_tokens(added.clone().map(|(_, token)| token.clone()))
            .map_err(broken)?;
        check_ids(path, &inner, added.map(|(id, token)| (*id, token)))?;
        let id = |token: &str| {
            inner
                .token_to_id(token)
                .ok_or_else(|| mismatch(path, format!("the vocabulary has no token {token:?}")))
        };
        let (eos, pad) = (parts.extra.eos_token.clone(), &parts.extra.pad_token);
        let (eos_token_id, pad_token_id) = (id(&eos)?, id(pad)?);
        // For other readers of the file; this type adds the end itself.
        let template = TemplateProcessing::builder()
            .try_single(vec!["$A".to_owned(), eos.clone()])
            .and_then(|builder| {
                let pair = ["$A", &eos, "$B", &eos].map(str::to_owned);
                builder.try_pair(pair.to_vec())
            })
            .and_then(|builder| {
                builder
                    .special_tokens(vec![(eos.clone(), eos_token_id)])
                    .build()
                    .map_err(|error| error.to_string())
            })
            .map_err(|reason| mismatch(path, reason))?;
        inner.with_post_processor(Some(PostProcessorWrapper::Template(template)));
        Ok(Self {
            inner,
            pad_token_id,
            eos_token_id,
            extra: parts.extra,
        })
    }

    /// The tokens of a text, without the end token.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding =
            encoding.map_err(|error| Error::argument("text", error, "text that can be encoded"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of prompts with the end token behind them, cut to `max_length` and padded to it.
    /// What was cut is returned as text.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a prompt cannot be encoded, or `max_length` is 0 or more than
    /// 1048576.
    pub fn encode_padded(&self, prompts: &[&str], max_length: usize) -> Result<TokenBatch> {
        Self::check_length(max_length)?;
        let mut batch = TokenBatch::default();
        for prompt in prompts {
            let mut ids = self.encode(prompt)?;
            let cut = ids.split_off(ids.len().min(max_length - 1));
            ids.push(self.eos_token_id);
            let cut = (!cut.is_empty()).then(|| self.text(&cut, false));
            batch.push(ids, max_length, self.pad_token_id, cut);
        }
        Ok(batch)
    }

    /// Fails unless a prompt of this length has room for the end token.
    pub(crate) fn check_length(max_length: usize) -> Result<()> {
        super::check_length(max_length, 1, "the end of a prompt")
    }

    /// The text of tokens, without special tokens: the end, padding and unknown characters.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.text(ids, true)
    }

    fn text(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        let text = self.inner.decode(ids, skip_special_tokens);
        text.expect("decoders of marks and bytes do not fail")
    }

    /// Number of tokens, with added ones.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token that ends a text, `</s>`.
    pub fn eos_token_id(&self) -> u32 {
        self.eos_token_id
    }

    /// The token that pads shorter texts of a batch.
    pub fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }

    /// The longest text that the files intend, in tokens; `None` if they do not say it.
    pub fn model_max_length(&self) -> Option<usize> {
        self.extra.model_max_length
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`, which transformers opens, and
    /// `spiece.model` if the tokenizer was opened from it.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        files::write(dir.as_ref(), &self.inner, &self.extra)
    }
}

impl std::fmt::Debug for T5Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("T5Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("model_max_length", &self.extra.model_max_length)
            .finish()
    }
}

#[cfg(test)]
mod tests;
