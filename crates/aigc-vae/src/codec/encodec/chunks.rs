//! Sounds in chunks that overlap, and sounds with a volume beside their codes.

use super::EncodecModel;
use crate::codec::codes::{check_codes, check_wave};
use aigc_core::{Error, Result, audio::AudioCodec};
use burn::tensor::{Int, Tensor, TensorData};

/// The codes of sounds, chunk by chunk, and their volumes.
#[derive(Clone, Debug)]
pub struct EncodecFrames {
    /// Codes, `[chunks, batch, codebooks, frames]`.
    pub codes: Tensor<4, Int>,
    /// Volume of every chunk, `[chunks, batch, 1]`, of a model that normalises sounds.
    pub scales: Option<Tensor<3>>,
    /// Frames at the end of the last chunk that are padding.
    pub last_frame_pad_length: usize,
}

impl EncodecModel {
    /// The codes of sounds at one of the `target_bandwidths`, by default the largest.
    ///
    /// # Shapes
    /// - wave: `[batch, audio_channels, time]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of channels, no samples, another bandwidth, or
    /// a length of which several chunks at the end have fewer frames than the first.
    pub fn encode_frames(&self, wave: Tensor<3>, bandwidth: Option<f64>) -> Result<EncodecFrames> {
        let config = &self.config;
        check_wave(&wave, config.audio_channels, 1)?;
        let count = match bandwidth {
            Some(bandwidth) => config.num_quantizers_for(bandwidth)?,
            None => config.num_quantizers(),
        };
        let [batch, _, time] = wave.dims();
        let length = config.chunk_length().unwrap_or(time);
        let stride = config.chunk_stride().unwrap_or(time);
        let (mut codes, mut scales) = (vec![], vec![]);
        for start in (0..time).step_by(stride) {
            let chunk = wave.clone().narrow(2, start, length.min(time - start));
            let (chunk, volume) = self.normalized(chunk);
            codes.push(self.quantize(self.encoder.forward(chunk), count));
            scales.extend(volume.map(|volume| volume.reshape([batch, 1])));
        }
        let frames = codes[0].dims()[2];
        let padding = frames - codes[codes.len() - 1].dims()[2];
        let whole = &codes[..codes.len() - 1];
        if whole.iter().any(|codes| codes.dims()[2] != frames) {
            let expected = format!(
                "a length of which the last chunk alone is incomplete, for chunks of {length} \
                 samples every {stride}; append silence"
            );
            return Err(Error::argument("wave", format!("{time} samples"), expected));
        }
        let padded = codes.into_iter().map(|codes| {
            let [batch, count, found] = codes.dims();
            if found == frames {
                return codes;
            }
            let shape = [batch, count, frames - found];
            let zeros = Tensor::zeros(shape, (&codes.device(), codes.dtype()));
            Tensor::cat(vec![codes, zeros], 2)
        });
        Ok(EncodecFrames {
            codes: Tensor::stack(padded.collect(), 0),
            scales: (!scales.is_empty()).then(|| Tensor::stack(scales, 0)),
            last_frame_pad_length: padding,
        })
    }

    /// The sounds of codes. They may be longer than those that were encoded, by less than a frame.
    ///
    /// # Shapes
    /// - output: `[batch, audio_channels, time]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for codes that the model does not have, missing volumes, several
    /// chunks of a model that does not cut sounds, or chunks between which samples are missing.
    pub fn decode_frames(&self, frames: &EncodecFrames) -> Result<Tensor<3>> {
        let [chunks, batch, codebooks, length] = frames.codes.dims();
        let padding = frames.last_frame_pad_length;
        if chunks == 0 || padding >= length {
            let found = format!("{chunks} chunks of {length} frames, {padding} of them padding");
            return Err(Error::argument(
                "codes",
                found,
                "at least one frame of codes",
            ));
        }
        if chunks > 1 && self.config.chunk_length_s.is_none() {
            let found = format!("{chunks} chunks");
            return Err(Error::argument(
                "codes",
                found,
                "one chunk: the model does not cut sounds",
            ));
        }
        let stride = self.config.chunk_stride().filter(|_| chunks > 1);
        let needed = stride.map_or(1, |stride| stride.div_ceil(self.hop_length()));
        if length < needed {
            let found = format!("chunks of {length} frames");
            let expected = format!("at least {needed} frames, up to the start of the next chunk");
            return Err(Error::argument("codes", found, expected));
        }
        let scales = self.scales_of(frames)?;
        let all = frames.codes.clone();
        let all = all.reshape([chunks * batch, codebooks, length]);
        check_codes(&all, self.num_codebooks(), self.codebook_size())?;
        let mut decoded = Vec::with_capacity(chunks);
        for chunk in 0..chunks {
            let kept = match chunk + 1 == chunks {
                true => length - padding,
                false => length,
            };
            let codes = frames.codes.clone().narrow(0, chunk, 1);
            let codes = codes.reshape([batch, codebooks, length]).narrow(2, 0, kept);
            let sound = self.decoder.forward(self.latents_of(codes));
            decoded.push(match &scales {
                Some(scales) => {
                    let scale = scales.clone().narrow(0, chunk, 1);
                    sound * scale.reshape([batch, 1, 1])
                }
                None => sound,
            });
        }
        Ok(match self.config.chunk_stride() {
            Some(stride) => overlap_add(decoded, stride),
            None => decoded.remove(0),
        })
    }

    fn scales_of(&self, frames: &EncodecFrames) -> Result<Option<Tensor<3>>> {
        let [chunks, batch, ..] = frames.codes.dims();
        let found = frames.scales.as_ref().map(|scales| scales.dims());
        let expected = self.config.normalize.then_some([chunks, batch, 1]);
        match found == expected {
            true => Ok(frames.scales.clone()),
            false => {
                let expected = format!("{expected:?}, the volumes of the chunks");
                Err(Error::argument("scales", format!("{found:?}"), expected))
            }
        }
    }
}

/// The mean of sounds that start `stride` samples after each other. The weight of a sample is
/// highest in the middle of its sound, so that one sound fades into the next.
fn overlap_add(chunks: Vec<Tensor<3>>, stride: usize) -> Tensor<3> {
    let device = chunks[0].device();
    let [batch, channels, length] = chunks[0].dims();
    // Whole numbers keep it above 0 at the ends of a chunk of any length.
    let weight = |index: usize| (index + 1).min(length - index) as f32 / (length + 1) as f32;
    let ends = chunks.iter().enumerate();
    let ends = ends.map(|(index, chunk)| index * stride + chunk.dims()[2]);
    let total = ends.max().unwrap_or(0);
    let mut sums = vec![0f32; batch * channels * total];
    let mut weights = vec![0f32; total];
    for (index, chunk) in chunks.into_iter().enumerate() {
        let (start, time) = (index * stride, chunk.dims()[2]);
        let samples: Vec<f32> = chunk.into_data().iter::<f32>().collect();
        for (row, samples) in samples.chunks_exact(time).enumerate() {
            let row = &mut sums[row * total + start..][..time];
            for (at, (sum, sample)) in row.iter_mut().zip(samples).enumerate() {
                *sum += weight(at) * sample;
            }
        }
        for (at, sum) in weights[start..][..time].iter_mut().enumerate() {
            *sum += weight(at);
        }
    }
    for row in sums.chunks_exact_mut(total) {
        for (sum, weight) in row.iter_mut().zip(&weights) {
            *sum /= weight;
        }
    }
    Tensor::from_data(TensorData::new(sums, [batch, channels, total]), &device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};
    use burn::tensor::Device;

    /// From one chunk to the next, the weights are straight lines.
    #[test]
    fn chunks_fade_into_each_other() {
        let device = Device::flex();
        let chunk = |values: &[f32]| {
            let time = values.len();
            Tensor::<1>::from_floats(values, &device).reshape([1, 1, time])
        };
        let chunks = vec![chunk(&[1.0; 4]), chunk(&[6.0, 6.0])];
        let found = values(overlap_add(chunks, 2));
        // Weights of 1, 2, 2 and 1 fifths from the start of a chunk on.
        let expected = [1.0, 1.0, (2.0 + 6.0) / 3.0, (1.0 + 2.0 * 6.0) / 3.0];
        assert_close(&found, &expected, 1e-6);
    }
}
