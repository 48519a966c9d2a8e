//! Encoding and decoding in pieces, which give what the whole sound would give.

use super::{EncodecConfig, EncodecModel, EncodecNorm, state::SeanetState};
use crate::codec::codes::{check_codes, check_wave};
use aigc_core::{Error, Result, audio::AudioCodec};
use burn::tensor::{Int, Tensor};

/// Encodes a sound of any length in pieces; see [`EncodecModel::encode_stream`].
#[derive(Debug)]
pub struct EncodecEncodeStream<'a> {
    model: &'a EncodecModel,
    state: SeanetState,
    batch: Option<usize>,
}

/// Decodes codes in pieces; see [`EncodecModel::decode_stream`].
#[derive(Debug)]
pub struct EncodecDecodeStream<'a> {
    model: &'a EncodecModel,
    state: SeanetState,
    shape: Option<[usize; 2]>,
}

impl EncodecModel {
    /// Encodes sounds in pieces. The codes of the pieces, one after the other, are those of the
    /// whole sounds.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model whose layers see what comes later, or normalise over the
    /// whole sound.
    pub fn encode_stream(&self) -> Result<EncodecEncodeStream<'_>> {
        check_causal(&self.config, "encode_stream")?;
        self.check_whole("encode_stream")?;
        Ok(EncodecEncodeStream {
            model: self,
            state: SeanetState::default(),
            batch: None,
        })
    }

    /// Decodes codes in pieces. The pieces of the sounds, one after the other, are the sounds of
    /// all codes. The first piece comes as soon as the first layers have what they reflect at the
    /// start, which is `kernel_size` frames.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model whose layers see what comes later, or normalise over the
    /// whole sound.
    pub fn decode_stream(&self) -> Result<EncodecDecodeStream<'_>> {
        check_causal(&self.config, "decode_stream")?;
        self.check_whole("decode_stream")?;
        Ok(EncodecDecodeStream {
            model: self,
            state: SeanetState::default(),
            shape: None,
        })
    }
}

impl EncodecEncodeStream<'_> {
    /// The codes that are certain after the next piece, if there are any.
    ///
    /// # Shapes
    /// - wave: `[batch, audio_channels, time]`
    /// - output: `[batch, codebooks, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of channels, no samples, or another number of
    /// sounds than before.
    pub fn push(&mut self, wave: Tensor<3>) -> Result<Option<Tensor<3, Int>>> {
        check_wave(&wave, self.model.config.audio_channels, 1)?;
        check_same("wave", &mut self.batch, wave.dims()[0])?;
        Ok(self.step(Some(wave), false))
    }

    /// The codes of the rest of the sounds, which end here.
    ///
    /// # Shapes
    /// - output: `[batch, codebooks, frames]`
    pub fn finish(mut self) -> Option<Tensor<3, Int>> {
        self.step(None, true)
    }

    fn step(&mut self, wave: Option<Tensor<3>>, is_last: bool) -> Option<Tensor<3, Int>> {
        let embeddings = self.model.encoder.step(&mut self.state, wave, is_last)?;
        let count = self.model.num_codebooks();
        Some(self.model.quantize(embeddings, count))
    }
}

impl EncodecDecodeStream<'_> {
    /// The samples that are certain after the next codes, if there are any.
    ///
    /// # Shapes
    /// - codes: `[batch, codebooks, frames]`
    /// - output: `[batch, audio_channels, time]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for codes that the model does not have, no frames, or another
    /// number of sounds or codebooks than before.
    pub fn push(&mut self, codes: Tensor<3, Int>) -> Result<Option<Tensor<3>>> {
        let model = self.model;
        check_codes(&codes, model.num_codebooks(), model.codebook_size())?;
        let [batch, codebooks, _] = codes.dims();
        check_same("codes", &mut self.shape, [batch, codebooks])?;
        let embeddings = model.latents_of(codes);
        Ok(model.decoder.step(&mut self.state, Some(embeddings), false))
    }

    /// The rest of the sounds, which end here.
    ///
    /// # Shapes
    /// - output: `[batch, audio_channels, time]`
    pub fn finish(mut self) -> Option<Tensor<3>> {
        self.model.decoder.step(&mut self.state, None, true)
    }
}

/// Fails unless a piece has the sizes of the first one.
fn check_same<T: Copy + PartialEq + std::fmt::Debug>(
    argument: &str,
    first: &mut Option<T>,
    found: T,
) -> Result<()> {
    let expected = *first.get_or_insert(found);
    if expected == found {
        return Ok(());
    }
    let expected = format!("{expected:?}, the sizes of the first piece");
    Err(Error::argument(argument, format!("{found:?}"), expected))
}

fn check_causal(config: &EncodecConfig, by: &str) -> Result<()> {
    let hint = "only a causal model without norms over time can be streamed";
    let feature = if !config.use_causal_conv {
        "use_causal_conv = false"
    } else if config.norm_type == EncodecNorm::TimeGroupNorm {
        "norm_type = time_group_norm"
    } else if config.trim_right_ratio < 1.0 {
        "trim_right_ratio below 1"
    } else {
        return Ok(());
    };
    Err(Error::unsupported(feature, by, hint))
}
