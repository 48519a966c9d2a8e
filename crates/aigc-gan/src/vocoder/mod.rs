//! Vocoders: networks that turn log-mel spectrograms into sound, and what they are trained against.
//!
//! ```text
//! generator: log-mel [batch, mels, frames] → waveform [batch, time]
//! discriminators: waveform [batch, channels, time] → logits and features, by period, by scale and
//! by resolution of the short-time Fourier transform
//! ```
//!
//! | file | content |
//! |---|---|
//! | `config`, `hifigan`, `stream` | HiFi-GAN, whole and piece by piece |
//! | `nsf` | HiFi-GAN with a harmonic source of a predicted pitch |
//! | `univnet` | UnivNet |
//! | `magnitude` | magnitudes by a network, angles by Griffin and Lim's algorithm; its training |
//! | `discriminator` | discriminators of waveforms |
//! | `losses` | sums over discriminators, feature matching |
//! | `generator`, `objective_config`, `objective` | training |
//! | `metrics` | how far resynthesised sound is from the original |
//! | `files` | names of weights in files |
//! | `statistics` | means and scales of the bands of spectrograms |
//! | `checks` | limits and checks of configurations and spectrograms |
//!
//! ```no_run
//! use aigc_core::{
//!     audio::{Vocoder, WavFormat, Waveform, read_wav, write_wav},
//!     burn::tensor::Tensor,
//!     device::device,
//! };
//! use aigc_gan::vocoder::HifiGan;
//!
//! # fn main() -> aigc_core::Result<()> {
//! let vocoder = HifiGan::from_pretrained("runs/vocoder/final", &device("flex")?)?;
//! let mel = vocoder.mel_config().init()?;
//! let wave = read_wav("speech.wav")?.to_mono().resample(mel.config().sample_rate)?;
//! let log_mel: Tensor<3> = mel.log_mel_tensor(wave.to_tensor(&device("flex")?));
//! let again = Waveform::from_tensor(vocoder.vocode(log_mel)?, wave.sample_rate())?;
//! write_wav(&again, "again.wav", WavFormat::default())?;
//! # Ok(()) }
//! ```

mod checks;
mod config;
mod discriminator;
mod files;
mod generator;
mod hifigan;
mod losses;
mod magnitude;
mod metrics;
mod nsf;
mod objective;
mod objective_config;
mod statistics;
mod stream;
mod univnet;

pub use config::HifiGanConfig;
pub use discriminator::{
    MultiPeriodDiscriminator, MultiPeriodDiscriminatorConfig, MultiResolutionDiscriminator,
    MultiResolutionDiscriminatorConfig, MultiScaleDiscriminator, MultiScaleDiscriminatorConfig,
    WaveDiscriminator, WaveDiscriminators, WaveDiscriminatorsConfig,
};
pub use generator::{Generated, VocoderGenerator};
pub use hifigan::{HifiGan, HifiGanResidualBlock};
pub use losses::feature_matching_loss;
pub use magnitude::{
    ConvNextBlock, MagnitudeLossConfig, MagnitudeObjective, MagnitudeVocoder,
    MagnitudeVocoderConfig,
};
pub use metrics::{VocoderMetrics, VocoderScores};
pub use nsf::{NsfHifiGan, NsfHifiGanConfig, PitchPredictor};
pub use objective::VocoderObjective;
pub use objective_config::VocoderObjectiveConfig;
pub use stream::HifiGanStream;
pub use univnet::{
    UnivNet, UnivNetConfig, UnivNetKernelPredictor, UnivNetKernelPredictorResidualBlock,
    UnivNetLvcBlock, UnivNetLvcResidualBlock, location_variable_convolution,
};
