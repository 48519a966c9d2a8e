//! The trait by which models of tokens use codecs.

use crate::Result;
use burn::tensor::{Int, Tensor};

/// A codec of sound: a few streams of whole numbers for a waveform, and back (Zeghidour et al.
/// 2021, <https://arxiv.org/abs/2107.03312>).
///
/// The crate of one family implements it, that of another takes the codec as `&dyn`.
pub trait AudioCodec: std::fmt::Debug {
    /// Samples per second of the sound.
    fn sample_rate(&self) -> u32;

    /// Channels of the sound.
    fn channels(&self) -> usize;

    /// Samples that a frame of codes stands for.
    fn hop_length(&self) -> usize;

    /// Number of streams of codes: the codes of a frame.
    fn num_codebooks(&self) -> usize;

    /// Number of values that a code can have, counted from 0.
    fn codebook_size(&self) -> usize;

    /// The codes of sounds.
    ///
    /// # Shapes
    /// - wave: `[batch, channels, time]`, in `[-1, 1]`
    /// - output: `[batch, codebooks, frames]`
    ///
    /// # Errors
    /// For another number of channels, or a length that the codec does not support.
    fn encode(&self, wave: Tensor<3>) -> Result<Tensor<3, Int>>;

    /// The sounds of codes. Fewer codebooks than [`num_codebooks`](Self::num_codebooks) are a
    /// coarser sound where the codec supports it.
    ///
    /// # Shapes
    /// - codes: `[batch, codebooks, frames]`
    /// - output: `[batch, channels, time]`
    ///
    /// # Errors
    /// For a number of codebooks that the codec does not support.
    fn decode(&self, codes: Tensor<3, Int>) -> Result<Tensor<3>>;

    /// Frames of codes per second.
    fn frame_rate(&self) -> f64 {
        f64::from(self.sample_rate()) / self.hop_length() as f64
    }

    /// Bits per second of all codebooks.
    fn bit_rate(&self) -> f64 {
        self.frame_rate() * self.num_codebooks() as f64 * (self.codebook_size() as f64).log2()
    }
}
