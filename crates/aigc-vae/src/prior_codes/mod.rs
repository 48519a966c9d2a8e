//! Priors over the codes of a model with quantised latents, and sampling with them.
//!
//! A [`CodePrior`] is trained on the codes of a data set ([`encode_dataset`]) with the trainer
//! ([`CodePriorObjective`]); a [`VqSampler`] draws codes from it and decodes them. A model with
//! several levels of codes has one prior for each, which is conditioned on the codes of the level
//! above.

mod data;
mod objective;
mod sample;
mod transformer;

pub use data::{CodeBatch, CodeSample, collate_codes, encode_dataset};
pub use objective::{CodePriorObjective, evaluate_codes};
pub use sample::{CodeSamples, VqSampler};
pub use transformer::{CodePrior, CodePriorConfig, PriorCondition};
