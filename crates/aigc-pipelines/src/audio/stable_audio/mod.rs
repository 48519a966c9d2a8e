//! Stable Audio (Evans et al. 2024, <https://arxiv.org/abs/2407.14358>): sound from a prompt and
//! from its length, by diffusion of latents.
//!
//! | file | content |
//! |---|---|
//! | `pipeline` | the pipeline, and how a directory is opened |
//! | `job` | a request with all values, checked |
//! | `conditions` | what the network is conditioned on |
//! | `generate` | the stages of a request, and all of it |

mod conditions;
mod generate;
mod job;
mod pipeline;

pub use conditions::StableAudioConditions;
pub use job::StableAudioJob;
pub use pipeline::{StableAudioParts, StableAudioPipeline};
