//! The decoder of VITS: a HiFi-GAN that reads latents in place of mels.

use aigc_core::{
    Error, Result,
    check::ensure_argument,
    nn::{Conv1d, Conv1dConfig},
    weights::{KeyMapping, Loaded, ParamKey, WeightDtype, WeightReader, pytorch_key},
};
use aigc_gan::vocoder::{HifiGan, HifiGanConfig};
use aigc_vae::speech::VitsConfig;
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};

/// What the names of the decoder's weights begin with in a file of VITS.
const DECODER: &str = "decoder.";

/// Latents to sound, for the speaker that a condition says (Kim et al. 2021,
/// <https://arxiv.org/abs/2106.06103>, §2.3).
#[derive(Module, Debug)]
pub struct VitsDecoder {
    generator: HifiGan,
    cond: Option<Conv1d>,
}

impl VitsDecoder {
    /// The decoder of a configuration on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn new(config: &VitsConfig, device: &Device) -> Result<Self> {
        let generator = HifiGanConfig {
            model_in_dim: config.flow_size,
            sampling_rate: config.sampling_rate,
            upsample_initial_channel: config.upsample_initial_channel,
            upsample_rates: config.upsample_rates.clone(),
            upsample_kernel_sizes: config.upsample_kernel_sizes.clone(),
            resblock_kernel_sizes: config.resblock_kernel_sizes.clone(),
            resblock_dilation_sizes: config.resblock_dilation_sizes.clone(),
            leaky_relu_slope: config.leaky_relu_slope,
            normalize_before: false,
            weight_norm: false,
            ..HifiGanConfig::default()
        };
        let mut generator = generator.init(device)?;
        generator.conv_post.bias = None;
        let (condition, channels) = (
            config.speaker_embedding_size,
            config.upsample_initial_channel,
        );
        let cond =
            (condition > 0).then(|| Conv1dConfig::new([condition, channels], 1).init(device));
        Ok(Self { generator, cond })
    }

    /// The decoder of a configuration and of the weights of a whole model, `decoder.*`.
    ///
    /// # Errors
    /// [`Error::Config`] names the field, [`Error::Weights`] all tensors that are missing or do not
    /// fit.
    pub fn from_weights(
        config: &VitsConfig,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let created = Loaded::new(Self::new(config, device)?);
        files.subset(DECODER).load(created, dtype, file_key)
    }

    /// The waveforms of latents.
    ///
    /// # Shapes
    /// - latents: `[batch, flow_size, frames]`
    /// - speaker: `[1, speaker_embedding_size, 1]`, the same speaker for all
    /// - output: `[batch, time]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if latents or the speaker have another shape.
    pub fn decode(&self, latents: Tensor<3>, speaker: Option<&Tensor<3>>) -> Result<Tensor<2>> {
        let (dims, channels) = (latents.dims(), self.generator.config().model_in_dim);
        let expected = format!("[batch, {channels}, frames]");
        let [batch, found, frames] = dims;
        ensure_argument(
            batch > 0 && found == channels && frames > 0,
            "latents",
            format!("of shape {dims:?}"),
            &expected,
        )?;
        match (&self.cond, speaker) {
            (Some(cond), Some(speaker)) => Ok(self.of_speaker(cond, speaker)?.forward(latents)),
            _ => Ok(self.generator.forward(latents)),
        }
    }

    /// The generator for one speaker. What the condition adds to the output of the first layer is
    /// the same in every frame, so it is a part of the layer's bias.
    fn of_speaker(&self, cond: &Conv1d, speaker: &Tensor<3>) -> Result<HifiGan> {
        let (dims, expected) = (speaker.dims(), [1, cond.weight.dims()[1], 1]);
        if dims != expected {
            let value = format!("of shape {dims:?}");
            return Err(Error::argument("speaker", value, format!("{expected:?}")));
        }
        let shift = cond.forward(speaker.clone());
        let shift = shift.reshape([self.generator.config().upsample_initial_channel]);
        let mut generator = self.generator.clone();
        let first = &mut generator.conv_pre;
        let bias = match &first.bias {
            Some(bias) => bias.val() + shift,
            None => shift,
        };
        first.bias = Some(Param::from_tensor(bias));
        Ok(generator)
    }
}

/// Name and layout of a parameter in files, where the generator's layers lie beside that of the
/// condition. Statistics of spectrograms are not there.
fn file_key(key: ParamKey<'_>) -> KeyMapping {
    let path = key.path.strip_prefix("generator.").unwrap_or(key.path);
    match path {
        "mean" | "scale" => KeyMapping::skip(),
        path => pytorch_key(ParamKey { path, ..key }),
    }
}
