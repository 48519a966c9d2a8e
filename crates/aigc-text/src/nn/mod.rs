//! Layers shared by language models: projections and embeddings with full or quantised weights,
//! attention heads with a cache, MLPs.

mod attention;
mod mlp;
mod projection;

pub use attention::AttentionHeads;
#[cfg(test)]
pub(crate) use attention::join;
pub use mlp::{GatedMlp, Mlp};
pub use projection::{Embedding, LmHead, Projection, Weight};
