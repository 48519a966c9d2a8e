//! VITS (Kim et al. 2021, <https://arxiv.org/abs/2106.06103>) in the layout of transformers: a
//! conditional variational autoencoder with a normalising flow.
//!
//! | file | content |
//! |---|---|
//! | `config`, `checks`, `files` | `config.json`, weights |
//! | `wavenet`, `coupling`, `posterior` | the flow and the posterior encoder |
//! | `dilated`, `spline`, `stochastic` | the stochastic predictor of durations |
//! | `model` | the parts together |
//! | `synthesis` | from text to latents |

mod checks;
mod config;
mod coupling;
mod dilated;
mod files;
mod model;
mod posterior;
mod spline;
mod stochastic;
mod synthesis;
mod wavenet;

pub use config::VitsConfig;
pub use model::{VitsModel, VitsText};
pub use posterior::VitsPosterior;
pub use synthesis::{VitsLatents, VitsOptions};
