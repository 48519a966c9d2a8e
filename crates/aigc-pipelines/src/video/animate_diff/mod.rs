//! AnimateDiff (Guo et al. 2023, <https://arxiv.org/abs/2307.04725>): Stable Diffusion's network
//! with motion modules makes the frames of a video together.
//!
//! | file | content |
//! |---|---|
//! | `open` | opening directories |
//! | `request` | values of a request, checked |
//! | `pipeline` | prompts, denoising, decoding |
//! | `windows` | more frames than positions |

mod open;
mod pipeline;
mod request;
mod windows;

pub use open::AnimateDiffOpenOptions;
pub use pipeline::{AnimateDiffPipeline, VideoPrompts};
