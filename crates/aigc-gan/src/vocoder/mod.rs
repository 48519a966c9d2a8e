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
//! | `univnet` | UnivNet |
//! | `discriminator` | discriminators of waveforms |
//! | `losses` | sums over discriminators, feature matching |
//! | `objective_config`, `objective` | training |
//! | `metrics` | how far resynthesised sound is from the original |
//! | `files` | names of weights in files |
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

mod config;
mod discriminator;
mod files;
mod hifigan;
mod losses;
mod metrics;
mod objective;
mod objective_config;
mod stream;
mod univnet;

pub use config::HifiGanConfig;
pub use discriminator::{
    MultiPeriodDiscriminator, MultiPeriodDiscriminatorConfig, MultiResolutionDiscriminator,
    MultiResolutionDiscriminatorConfig, MultiScaleDiscriminator, MultiScaleDiscriminatorConfig,
    WaveDiscriminator, WaveDiscriminators, WaveDiscriminatorsConfig, WaveVerdict,
};
pub use hifigan::{HifiGan, HifiGanResidualBlock};
pub use losses::feature_matching_loss;
pub use metrics::{VocoderMetrics, VocoderScores};
pub use objective::VocoderObjective;
pub use objective_config::VocoderObjectiveConfig;
pub use stream::HifiGanStream;
pub use univnet::{
    UnivNet, UnivNetConfig, UnivNetKernelPredictor, UnivNetKernelPredictorResidualBlock,
    UnivNetLvcBlock, UnivNetLvcResidualBlock, location_variable_convolution,
};

use aigc_core::{Error, Result, check::ensure, dsp::MelConfig, json, weights::Loaded};
use burn::tensor::Tensor;
use serde::{Serialize, de::DeserializeOwned};

/// Limit on channels.
const MAX_CHANNELS: usize = 1 << 12;

/// Limit on the lengths of kernels, on strides and on dilations.
const MAX_KERNEL: usize = 1 << 10;

/// Limit on the lengths of lists of layers.
const MAX_LAYERS: usize = 16;

/// Limit on samples per frame.
const MAX_HOP: usize = 1 << 16;

/// Limit on the weights of a layer.
const MAX_WEIGHTS: usize = 1 << 28;

/// Fields of transformers' configurations without an effect here.
const IDLE: [&str; 6] = [
    "architectures",
    "dtype",
    "initializer_range",
    "model_type",
    "torch_dtype",
    "transformers_version",
];

/// The configuration in the text of transformers' `config.json` of a model of `model_type`, without
/// the fields that have no effect.
fn read_config<C: Serialize + DeserializeOwned + Default>(
    text: &str,
    model_type: &str,
) -> Result<Loaded<C>> {
    let given = json::parse_object(text)?;
    if let Some(other) = given.get("model_type").filter(|name| *name != model_type) {
        return Err(Error::config("model_type", other, model_type));
    }
    let mut config: Loaded<C> = json::from_map_with_defaults(&given)?;
    let listed = |field: &String| !IDLE.contains(&field.as_str());
    config.unused_fields.retain(listed);
    Ok(config)
}

/// Fails unless there are as many values as there are layers, each within its limit.
fn check_list(field: &str, values: &[usize], layers: usize, limit: usize) -> Result<()> {
    let expected = format!("{layers}, one for each layer");
    ensure(values.len() == layers, field, values.len(), &expected)?;
    let expected = format!("1 to {limit} each");
    match values.iter().find(|value| !(1..=limit).contains(*value)) {
        Some(value) => Err(Error::config(field, value, expected)),
        None => Ok(()),
    }
}

/// Fails unless all lengths of kernels are odd, so that a layer keeps the length of its input.
fn check_odd(field: &str, kernels: &[usize]) -> Result<()> {
    match kernels.iter().find(|kernel| kernel.is_multiple_of(2)) {
        Some(kernel) => Err(Error::config(field, kernel, "odd lengths")),
        None => Ok(()),
    }
}

/// Fails if a layer has more weights than memory should be given to.
fn check_layer(field: &str, factors: &[usize]) -> Result<()> {
    let weights = factors
        .iter()
        .fold(1usize, |product, factor| product.saturating_mul(*factor));
    let expected = format!("a layer of at most {MAX_WEIGHTS} weights");
    ensure(weights <= MAX_WEIGHTS, field, weights, &expected)
}

/// Fails unless the spectrograms of `mel` are valid, and have the bands and the samples per frame
/// of a network.
fn check_mel_config(mel: &MelConfig, bands: usize, hop_length: usize) -> Result<()> {
    for (field, value, expected) in [
        ("mel_config.n_mels", mel.n_mels, bands),
        ("mel_config.hop_length", mel.hop_length, hop_length),
    ] {
        let expected_text = format!("{expected}, as the network has it");
        ensure(value == expected, field, value, &expected_text)?;
    }
    mel.validate()
}

/// Fails unless a vocoder of `mels` bands can read `log_mel`, `[batch, mels, frames]`.
fn check_mel(log_mel: &Tensor<3>, mels: usize, least_frames: usize) -> Result<()> {
    let dims @ [batch, bands, frames] = log_mel.dims();
    if batch > 0 && bands == mels && frames >= least_frames {
        return Ok(());
    }
    let expected = format!("[batch, {mels}, frames] with at least {least_frames} frames");
    Err(Error::argument("log_mel", format!("{dims:?}"), expected))
}
