//! Limits and checks of configurations and spectrograms.

use aigc_core::{
    Error, Result,
    check::{ensure, in_range},
    data::SampleBatch,
    dsp::MelConfig,
    json,
    weights::Loaded,
};
use burn::tensor::{Device, Tensor};
use serde::{Serialize, de::DeserializeOwned};

/// Limit on channels.
pub(super) const MAX_CHANNELS: usize = 1 << 12;

/// Limit on the lengths of kernels, on strides and on dilations.
pub(super) const MAX_KERNEL: usize = 1 << 10;

/// Limit on the lengths of lists of layers.
pub(super) const MAX_LAYERS: usize = 16;

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
pub(super) fn read_config<C: Serialize + DeserializeOwned + Default>(
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
pub(super) fn check_list(field: &str, values: &[usize], layers: usize, limit: usize) -> Result<()> {
    let expected = format!("{layers}, one for each layer");
    ensure(values.len() == layers, field, values.len(), &expected)?;
    let expected = format!("1 to {limit} each");
    match values.iter().find(|value| !(1..=limit).contains(*value)) {
        Some(value) => Err(Error::config(field, value, expected)),
        None => Ok(()),
    }
}

/// Fails unless all lengths of kernels are odd, so that a layer keeps the length of its input.
pub(super) fn check_odd(field: &str, kernels: &[usize]) -> Result<()> {
    match kernels.iter().find(|kernel| kernel.is_multiple_of(2)) {
        Some(kernel) => Err(Error::config(field, kernel, "odd lengths")),
        None => Ok(()),
    }
}

/// Fails unless there is a list of dilations for each of `layers` layers, with 1 to [`MAX_LAYERS`]
/// dilations each.
pub(super) fn check_dilations(field: &str, dilations: &[Vec<usize>], layers: usize) -> Result<()> {
    let expected = format!("{layers} lists, one for each kernel");
    ensure(dilations.len() == layers, field, dilations.len(), &expected)?;
    for list in dilations {
        in_range(field, list.len(), 1..=MAX_LAYERS)?;
        check_list(field, list, list.len(), MAX_KERNEL)?;
    }
    Ok(())
}

/// Samples before and after a sample on which residual blocks of pairs of convolutions depend, the
/// first of each pair dilated.
pub(super) fn blocks_reach(kernels: &[usize], dilations: &[Vec<usize>]) -> usize {
    let blocks = kernels.iter().zip(dilations);
    let reach = blocks.map(|(kernel, dilations)| {
        let sum: usize = dilations.iter().map(|dilation| dilation + 1).sum();
        (kernel - 1) / 2 * sum
    });
    reach.max().unwrap_or(0)
}

/// The product of factors; `usize::MAX` if it does not fit.
pub(super) fn product(factors: &[usize]) -> usize {
    let factors = factors.iter();
    factors.fold(1, |product, factor| product.saturating_mul(*factor))
}

/// Fails if the factors of all upsamplings make too many samples of a frame.
pub(super) fn check_hop(field: &str, factors: &[usize]) -> Result<()> {
    let expected = format!("factors with a product of at most {MAX_HOP}");
    let hop = product(factors);
    ensure(hop <= MAX_HOP, field, hop, &expected)
}

/// Fails unless the slope of a leaky ReLU is finite.
pub(super) fn check_slope(slope: f64) -> Result<()> {
    let field = "leaky_relu_slope";
    ensure(slope.is_finite(), field, slope, "a finite number")
}

/// Fails if a layer has too many weights. `factors` are the sizes of its weight.
pub(super) fn check_layer(field: &str, factors: &[usize]) -> Result<()> {
    let weights = product(factors);
    let expected = format!("a layer of at most {MAX_WEIGHTS} weights");
    ensure(weights <= MAX_WEIGHTS, field, weights, &expected)
}

/// Fails unless the spectrograms of `mel` are valid, and have the bands and the samples per frame
/// of a network.
pub(super) fn check_mel_config(mel: &MelConfig, bands: usize, hop_length: usize) -> Result<()> {
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
pub(super) fn check_mel(log_mel: &Tensor<3>, mels: usize, least_frames: usize) -> Result<()> {
    let dims @ [batch, bands, frames] = log_mel.dims();
    if batch > 0 && bands == mels && frames >= least_frames {
        return Ok(());
    }
    let expected = format!("[batch, {mels}, frames] with at least {least_frames} frames");
    Err(Error::argument("log_mel", format!("{dims:?}"), expected))
}

/// The waveforms of a batch with one channel, `[batch, time]`.
pub(super) fn check_waves<B: SampleBatch<3>>(batch: &B, device: &Device) -> Result<Tensor<2>> {
    let shape = batch.sample_shape();
    match *shape.dims() {
        [1, time] if !batch.is_empty() => {
            let waves = batch.normalized(device);
            Ok(waves.reshape([batch.len(), time]))
        }
        _ => {
            let found = format!("{} of shape {shape}", batch.len());
            let expected = "at least one sample of shape 1×time: sound with one channel";
            Err(Error::argument("batch", found, expected))
        }
    }
}
