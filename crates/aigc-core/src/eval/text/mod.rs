//! Measures of text.
//!
//! | item | what it measures |
//! |---|---|
//! | [`Bleu`] | n-gram precision against references, with a brevity penalty |
//! | [`Chrf`] | F-score of character n-grams (chrF), and of words too (chrF++) |
//! | [`Rouge`] | recall and precision of n-grams and common subsequences: ROUGE-N, -L, -Lsum |
//! | [`porter_stem`] | no measure: the stem of an English word, for ROUGE |
//! | [`distinct_n`], [`corpus_distinct_n`] | the share of n-grams that are distinct |
//! | [`SelfBleu`] | how similar the texts of a set are to each other |
//! | [`rep_n`], [`seq_rep_n`], [`rep_l`], [`rep_diversity`] | repetition within a text |
//! | [`MauveConfig`] | MAUVE: how alike two sets of texts are in the features of a model |
//! | [`end_loop`], [`end_loop_share`] | texts that end in a loop |
//!
//! Perplexity and bits per character, which need a language model, are in the crate `aigc-text`
//! (`perplexity`); what of a text was copied tells [`TextIndex`](crate::eval::TextIndex).
//!
//! A [`Tokenizer`] splits text; [`Tokenizer::Words`] and [`Tokenizer::Chinese`] also work where
//! words are not separated by spaces. Measures of token sequences are generic over the token: they
//! accept the ids of a model's tokenizer as well as words.
//!
//! ```
//! use aigc_core::eval::text::{Bleu, Tokenizer, distinct_n};
//!
//! let bleu = Bleu {
//!     tokenizer: Tokenizer::Chinese,
//!     ..Bleu::default()
//! };
//! let score = bleu.corpus(&["今天天气很好。"], &[["今天的天气很好。"]])?;
//! assert!(score.score > 40.0);
//!
//! let distinct = distinct_n(&[3, 1, 4, 1, 5], 1)?;
//! assert_eq!(distinct, 0.8);
//! # Ok::<(), aigc_core::Error>(())
//! ```

mod bleu;
mod chrf;
mod corpus;
mod distinct;
mod lcs;
mod mauve;
mod ngrams;
mod repetition;
mod rouge;
mod self_bleu;
mod stemmer;
mod tokenizer;

pub use bleu::{Bleu, BleuScore, BleuStatistics, Smoothing};
pub use chrf::{Chrf, ChrfStatistics};
pub use distinct::{corpus_distinct_n, distinct_n};
pub use mauve::{Mauve, MauveConfig};
pub use ngrams::{NgramCounts, ngram_counts};
pub use repetition::{end_loop, end_loop_share, rep_diversity, rep_l, rep_n, seq_rep_n};
pub use rouge::{Rouge, RougeAggregate, RougeScore, RougeVariant, rouge_l, rouge_lsum, rouge_n};
pub use self_bleu::{SelfBleu, SelfBleuScore};
pub use stemmer::porter_stem;
pub use tokenizer::Tokenizer;

use crate::{Error, Result};

/// The longest n-grams that scores over several lengths accept.
const MAX_ORDER: usize = 100;

/// An error unless there are texts, and as many lists of references.
fn check_corpus(hypotheses: usize, references: usize) -> Result<()> {
    if hypotheses == 0 {
        return Err(Error::argument("hypotheses", "empty", "at least 1 text"));
    }
    if references != hypotheses {
        return Err(Error::argument(
            "references",
            format!("{references} lists"),
            format!("{hypotheses}, one per hypothesis"),
        ));
    }
    Ok(())
}

/// An error unless there is a reference.
fn check_references(references: usize) -> Result<()> {
    match references {
        0 => Err(Error::argument("references", "empty", "at least 1 text")),
        _ => Ok(()),
    }
}
