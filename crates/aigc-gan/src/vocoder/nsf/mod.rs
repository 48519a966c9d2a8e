//! HiFi-GAN with a harmonic source: a network that predicts the pitch, and one that filters
//! harmonics of it and noise.

mod config;
mod network;
mod pitch;
mod source;

pub use config::NsfHifiGanConfig;
pub use network::NsfHifiGan;
pub use pitch::PitchPredictor;
