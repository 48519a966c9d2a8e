//! Softmax attention, a block of queries at a time (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>): scores are computed again on the way back, and no matrix of
//! queries × keys outlives its block.
//!
//! | file | content |
//! |---|---|
//! | `heads` | sizes, and where the heads lie in memory |
//! | `forward` | the output |
//! | `queries` | a block of queries |
//! | `backward` | the gradients |
//! | `short` | the gradients of many heads of few tokens |

mod backward;
mod forward;
mod heads;
mod queries;
mod short;
#[cfg(test)]
mod tests;

pub use backward::{attention_grads, self_attention_grad};
pub use forward::attention;
pub use heads::{AttentionSizes, Heads, side_by_side};
