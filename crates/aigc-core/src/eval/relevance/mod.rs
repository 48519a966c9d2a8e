//! Relevance of samples to their condition: a class or a prompt.
//!
//! | item | what it measures |
//! |---|---|
//! | [`cosine_similarity`] | the agreement of pairs of embeddings |
//! | [`clip_score`] | the agreement of images with their prompts, in CLIP's embeddings |
//! | [`caption_retrieval`] | how often an image finds its caption, and the reverse |
//! | [`conditional_accuracy`] | how often a classifier sees the requested class |

mod accuracy;
mod proportion;
mod retrieval;
mod similarity;

pub use accuracy::{ConditionalAccuracy, conditional_accuracy};
pub use proportion::Proportion;
pub use retrieval::{Retrieval, RetrievalRanks, caption_retrieval};
pub use similarity::{ClipScore, clip_score, cosine_similarity};
