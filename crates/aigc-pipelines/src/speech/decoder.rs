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

/// Frames of a long text that are decoded at a time, about eight seconds. The frames around them
/// on which their samples depend are decoded a second time: for published voices, 14 on each side.
const PIECE: usize = 512;

/// Prefix of the names of the decoder's weights in a file of VITS.
const DECODER: &str = "decoder.";

/// The decoder of VITS (Kim et al. 2021, <https://arxiv.org/abs/2106.06103>, §2.3): from latents to
/// waveforms, with the embedding of a speaker as an optional condition.
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

    /// The waveforms of latents. Those of long texts are decoded
    /// [in pieces](Self::decode_chunks), so that the memory for layers does not grow with the text.
    ///
    /// # Shapes
    /// - latents: `[batch, flow_size, frames]`
    /// - speaker: `[1, speaker_embedding_size, 1]`, the same for all latents; a voice of one
    ///   speaker ignores it
    /// - output: `[batch, time]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if latents or the speaker have another shape.
    pub fn decode(&self, latents: Tensor<3>, speaker: Option<&Tensor<3>>) -> Result<Tensor<2>> {
        let generator = self.generator_of(&latents, speaker)?;
        if latents.dims()[2] <= 2 * PIECE {
            return Ok(generator.forward(latents));
        }
        generator.vocode_in_chunks(latents, PIECE)
    }

    /// [`decode`](Self::decode) with `chunk` frames at a time: `samples` receives `[batch, time]`
    /// as soon as the frames on which they depend are there. All of them together are the waveform
    /// of the whole, without seams.
    ///
    /// # Shapes
    /// - latents, speaker: as [`decode`](Self::decode)
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and those of `samples`; [`Error::InvalidArgument`] if `chunk`
    /// is 0.
    pub fn decode_chunks(
        &self,
        latents: Tensor<3>,
        speaker: Option<&Tensor<3>>,
        chunk: usize,
        mut samples: impl FnMut(Tensor<2>) -> Result<()>,
    ) -> Result<()> {
        ensure_argument(chunk > 0, "chunk", chunk, "at least 1 frame")?;
        let generator = self.generator_of(&latents, speaker)?;
        let (frames, mut stream) = (latents.dims()[2], generator.stream());
        for start in (0..frames).step_by(chunk) {
            let piece = latents.clone().narrow(2, start, chunk.min(frames - start));
            if let Some(complete) = stream.push(piece)? {
                samples(complete)?;
            }
        }
        stream.finish().map_or(Ok(()), samples)
    }

    /// The generator for latents of a speaker.
    fn generator_of(&self, latents: &Tensor<3>, speaker: Option<&Tensor<3>>) -> Result<HifiGan> {
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
            (Some(cond), Some(speaker)) => self.of_speaker(cond, speaker),
            _ => Ok(self.generator.clone()),
        }
    }

    /// The generator for one speaker. The condition adds the same vector to every frame that the
    /// first layer returns, so the vector is added to the bias of that layer.
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

/// Name and layout of a parameter in files. Files have the generator's layers without a prefix, and
/// no statistics of spectrograms.
fn file_key(key: ParamKey<'_>) -> KeyMapping {
    let path = key.path.strip_prefix("generator.").unwrap_or(key.path);
    match path {
        "mean" | "scale" => KeyMapping::skip(),
        path => pytorch_key(ParamKey { path, ..key }),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::speech::tests::tiny;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    fn decoder() -> VitsDecoder {
        let decoder = VitsDecoder::new(&tiny(8), &Device::flex()).unwrap();
        decoder.init_weights(3)
    }

    #[test]
    fn pieces_are_the_whole() {
        let (decoder, device) = (decoder(), Device::flex());
        let latents: Tensor<3> = Rng::new(1).normal([2, 4, 70], &device);
        let speaker: Tensor<3> = Rng::new(2).normal([1, 3, 1], &device);
        for speaker in [None, Some(&speaker)] {
            let whole = decoder.decode(latents.clone(), speaker).unwrap();
            assert_eq!(whole.dims(), [2, 70 * 8]);
            let whole = values(whole);
            assert!(whole.iter().any(|x| x.abs() > 1e-4));
            for chunk in [1, 7, 32, 70, 100] {
                let mut parts = vec![];
                let collect = |samples: Tensor<2>| {
                    parts.push(samples);
                    Ok(())
                };
                decoder
                    .decode_chunks(latents.clone(), speaker, chunk, collect)
                    .unwrap();
                assert!(chunk > 32 || parts.len() > 1);
                assert_close(&values(Tensor::cat(parts, 1)), &whole, 1e-5);
            }
        }
        let none = decoder.decode_chunks(latents, None, 0, |_| Ok(()));
        let message = none.unwrap_err().to_string();
        assert!(message.contains("`chunk` is 0"), "{message}");
    }

    /// By default, the latents of long texts are decoded in pieces.
    #[test]
    fn long_latents_are_decoded_in_pieces() {
        let decoder = decoder();
        let frames = 2 * PIECE + 100;
        let latents: Tensor<3> = Rng::new(4).normal([1, 4, frames], &Device::flex());
        let found = decoder.decode(latents.clone(), None).unwrap();
        assert_eq!(found.dims(), [1, 8 * frames]);
        let whole = values(decoder.generator.forward(latents));
        assert_close(&values(found), &whole, 1e-5);
    }
}
