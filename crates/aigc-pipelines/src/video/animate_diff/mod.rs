//! AnimateDiff (Guo et al. 2023, <https://arxiv.org/abs/2307.04725>): Stable Diffusion's network
//! with motion modules makes the frames of a video together.
//!
//! | file | content |
//! |---|---|
//! | `open` | opening directories |
//! | `download` | files of the hub |
//! | `request` | values of a request, checked |
//! | `pipeline` | prompts, denoising, decoding |
//! | `windows` | more frames than positions |

#[cfg(feature = "download")]
mod download;
mod open;
mod pipeline;
mod request;
mod windows;

pub use open::AnimateDiffOpenOptions;
pub use pipeline::AnimateDiffPipeline;
