//! Magnitudes of spectra by a network, and their angles by the algorithm of Griffin and Lim.

mod block;
mod config;
mod network;
mod objective;

pub use block::ConvNextBlock;
pub use config::MagnitudeVocoderConfig;
pub use network::MagnitudeVocoder;
pub use objective::{MagnitudeLossConfig, MagnitudeObjective};
