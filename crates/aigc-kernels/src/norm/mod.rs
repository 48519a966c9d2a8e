//! Group, batch and layer normalisation, and their gradients. Group and batch normalisation include
//! the activation that follows, so that each unit is read from memory once in either pass.
//!
//! | file | content |
//! |---|---|
//! | `units` | group and batch normalisation |
//! | `layer` | layer normalisation |
//! | `sums` | sums of vectors and of channels |

mod layer;
mod sums;
mod units;

pub use layer::{layer_norm, layer_norm_grads};
pub use sums::channel_sums;
pub use units::{Units, norm, norm_grads};
