//! Originality of generated text: what of it occurs in the training text.

mod config;
mod hash;
mod index;
mod normalize;
mod overlap;
mod report;
mod spans;
mod suffixes;
mod tokens;

pub use config::TextIndexConfig;
pub use index::{CopiedSpan, Match, TextIndex};
pub use overlap::{NgramOverlap, TextUnit};
pub use report::{OriginalityConfig, OriginalityReport, TextOriginality, TextSpan};
pub use tokens::token_text;
