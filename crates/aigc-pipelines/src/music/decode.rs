//! Decoding of codes, all at once or frame by frame.

use super::MusicgenPipeline;
use aigc_core::{
    Result,
    audio::{AudioCodec, Waveform},
    check::ensure_argument,
};
use aigc_vae::codec::{EncodecConfig, EncodecDecodeStream, EncodecModel, EncodecNorm};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// With a codec that looks ahead, each piece decodes all frames so far again. A piece has at least
/// one new frame for this many old ones, so that all pieces together decode at most five times as
/// many frames as the whole sound has.
const GROWTH: usize = 4;

/// Decodes the codes of one sound, which come frame by frame. The pieces, one after the other, are
/// the sound of all codes.
///
/// A causal codec decodes every frame once. Other codecs decode all frames so far for each piece,
/// and return the samples that later codes cannot change. Codecs with norms over time return the
/// whole sound at the end.
#[derive(Debug)]
pub struct MusicDecodeStream<'a> {
    codec: &'a EncodecModel,
    device: Device,
    /// Channels of the sound, whose codebooks alternate.
    channels: usize,
    codebooks: usize,
    method: Method<'a>,
    /// Least number of frames of a piece.
    chunk: usize,
    /// The codes of all codebooks, for each frame.
    frames: Vec<Vec<u32>>,
    /// Frames that were decoded so far.
    decoded: usize,
    /// Samples that were returned.
    samples: usize,
}

#[derive(Debug)]
enum Method<'a> {
    /// Every frame once.
    Causal(EncodecDecodeStream<'a>),
    /// All frames so far for each piece. The sound of this many frames at the end may still change.
    Again(usize),
    /// All frames, at the end.
    Whole,
}

impl<'a> MusicDecodeStream<'a> {
    /// A stream of codes of `channels · num_codebooks` codebooks, in pieces of at least `chunk`
    /// frames.
    pub(super) fn new(
        codec: &'a EncodecModel,
        channels: usize,
        chunk: usize,
        device: &Device,
    ) -> Self {
        let method = match codec.decode_stream() {
            Ok(stream) => Method::Causal(stream),
            Err(_) if codec.config().norm_type == EncodecNorm::TimeGroupNorm => Method::Whole,
            Err(_) => Method::Again(look_ahead(codec.config())),
        };
        Self {
            codec,
            device: device.clone(),
            channels,
            codebooks: channels * codec.num_codebooks(),
            method,
            chunk: chunk.max(1),
            frames: vec![],
            decoded: 0,
            samples: 0,
        }
    }

    /// Adds the codes of a frame, one of each codebook, and returns the next piece if it is due.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for another number of codes,
    /// or a code that the codec does not have.
    pub fn push(&mut self, frame: Vec<u32>) -> Result<Option<Waveform>> {
        let (found, size) = (frame.len(), self.codec.codebook_size());
        let fits = found == self.codebooks && frame.iter().all(|code| (*code as usize) < size);
        let expected = format!("{} codes below {size}", self.codebooks);
        ensure_argument(fits, "frame", format!("{frame:?}"), &expected)?;
        self.frames.push(frame);
        let count = self.frames.len();
        match &mut self.method {
            Method::Whole => Ok(None),
            Method::Causal(_) if count - self.decoded < self.chunk => Ok(None),
            Method::Causal(stream) => {
                let new = codes(&self.frames[self.decoded..], self.channels, &self.device);
                self.decoded = count;
                let wave = stream.push(new)?;
                self.piece(wave)
            }
            Method::Again(ahead) => {
                let ahead = *ahead;
                let due = self.decoded + self.chunk.max(self.decoded / GROWTH);
                if count < due || count <= ahead {
                    return Ok(None);
                }
                let certain = (count - ahead) * self.codec.hop_length();
                self.decoded = count;
                let wave = self.whole()?;
                let len = wave.dims()[2].min(certain).saturating_sub(self.samples);
                let first = self.samples;
                self.piece((len > 0).then(|| wave.narrow(2, first, len)))
            }
        }
    }

    /// The rest of the sound, which ends here.
    ///
    /// # Errors
    /// Those of the codec.
    pub fn finish(mut self) -> Result<Option<Waveform>> {
        if self.frames.is_empty() {
            return Ok(None);
        }
        let (left, method) = (
            self.frames.len() - self.decoded,
            std::mem::replace(&mut self.method, Method::Whole),
        );
        let wave = match method {
            Method::Causal(mut stream) => {
                let mut pieces = vec![];
                if left > 0 {
                    let new = &self.frames[self.decoded..];
                    pieces.extend(stream.push(codes(new, self.channels, &self.device))?);
                }
                pieces.extend(stream.finish());
                (!pieces.is_empty()).then(|| Tensor::cat(pieces, 2))
            }
            Method::Again(_) | Method::Whole => {
                let wave = self.whole()?;
                let len = wave.dims()[2].saturating_sub(self.samples);
                (len > 0).then(|| wave.narrow(2, self.samples, len))
            }
        };
        self.piece(wave)
    }

    /// The sound of all codes, `[channels, 1, time]`.
    fn whole(&self) -> Result<Tensor<3>> {
        self.codec
            .decode(codes(&self.frames, self.channels, &self.device))
    }

    /// A piece as a waveform; its samples count as returned.
    fn piece(&mut self, wave: Option<Tensor<3>>) -> Result<Option<Waveform>> {
        let Some(wave) = wave else {
            return Ok(None);
        };
        let [channels, _, time] = wave.dims();
        self.samples += time;
        let wave = wave.reshape([channels, time]);
        Waveform::from_tensor(wave, self.codec.sample_rate()).map(Some)
    }
}

impl MusicgenPipeline {
    /// The sounds of codes.
    ///
    /// # Shapes
    /// - codes: `[batch, num_codebooks, frames]`
    /// - output: `[batch, channels, time]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for another number of
    /// codebooks, no frames, or codes that the codec does not have.
    pub fn decode(&self, codes: Tensor<3, Int>) -> Result<Tensor<3>> {
        let [batch, codebooks, frames] = codes.dims();
        let channels = self.channels();
        let each = self.codec().num_codebooks();
        let expected = format!(
            "[batch, {}, frames], with at least one sound and one frame",
            channels * each
        );
        let fits = codebooks == channels * each && batch > 0 && frames > 0;
        let found = format!("of shape {:?}", codes.dims());
        ensure_argument(fits, "codes", found, &expected)?;
        // A sound of one channel for each channel.
        let codes = codes
            .reshape([batch, each, channels, frames])
            .swap_dims(1, 2);
        let codes = codes.reshape([batch * channels, each, frames]);
        let waves = self.codec().decode(codes)?;
        let time = waves.dims()[2];
        Ok(waves.reshape([batch, channels, time]))
    }

    /// Decodes codes frame by frame, in pieces of at least `chunk_seconds`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) unless the length is a finite
    /// number above 0.
    pub fn decode_stream(&self, chunk_seconds: f64) -> Result<MusicDecodeStream<'_>> {
        let holds = chunk_seconds > 0.0 && chunk_seconds.is_finite();
        let expected = "a finite number above 0";
        ensure_argument(holds, "chunk_seconds", chunk_seconds, expected)?;
        let frames = chunk_seconds * self.codec().frame_rate();
        let (channels, device) = (self.channels(), self.device());
        let chunk = frames.ceil() as usize;
        Ok(MusicDecodeStream::new(
            self.codec(),
            channels,
            chunk,
            device,
        ))
    }

    /// The codes of a sound, for each codebook those of all frames. It is resampled and mixed to
    /// the channels of the model.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for a sound without samples.
    pub fn encode(&self, wave: &Waveform) -> Result<Vec<Vec<u32>>> {
        let channels = self.channels();
        let wave = wave.resample(self.sample_rate())?;
        let wave = match channels {
            1 => wave.to_mono(),
            _ => wave.to_stereo(),
        };
        let samples = wave.len();
        ensure_argument(samples > 0, "wave", "empty", "at least one sample")?;
        let wave = wave
            .to_tensor(self.device())
            .reshape([channels, 1, samples]);
        let codes = self.codec().encode(wave)?;
        let [_, each, frames] = codes.dims();
        let codes = codes.swap_dims(0, 1).reshape([channels * each, frames]);
        let values: Vec<u32> = codes.into_data().iter::<i64>().map(|x| x as u32).collect();
        Ok(values.chunks(frames).map(<[u32]>::to_vec).collect())
    }
}

/// The codes of frames, `[channels, codebooks, frames]`.
fn codes(frames: &[Vec<u32>], channels: usize, device: &Device) -> Tensor<3, Int> {
    let codebooks = frames.first().map_or(0, Vec::len) / channels;
    let mut values = Vec::with_capacity(channels * codebooks * frames.len());
    for channel in 0..channels {
        for codebook in 0..codebooks {
            let place = codebook * channels + channel;
            values.extend(frames.iter().map(|frame| frame[place] as i32));
        }
    }
    let shape = [channels, codebooks, frames.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Number of frames at the end of codes whose sound may depend on later frames: an upper bound of
/// how far the layers of the decoder look ahead.
fn look_ahead(config: &EncodecConfig) -> usize {
    // The first layer looks ahead by half of its kernel at most. If it is causal, it is padded at
    // the start with the reflection of this many frames, which also have to be known.
    let mut ahead = (config.kernel_size - 1) as f64;
    // Frames that a sample of a layer stands for.
    let mut scale = 1.0;
    for ratio in &config.upsampling_ratios {
        // A transposed convolution sees the next sample of its input.
        ahead += scale;
        scale /= *ratio as f64;
        for block in 0..config.num_residual_layers {
            let dilation = config.dilation_growth_rate.saturating_pow(block as u32);
            ahead += scale * dilation as f64 * (config.residual_kernel_size - 1) as f64;
        }
    }
    ahead += scale * (config.last_kernel_size - 1) as f64;
    ahead.ceil() as usize + 1
}
