//! The trait by which models of spectra get a sound.

use crate::{Result, dsp::MelConfig};
use burn::tensor::Tensor;

/// Makes a waveform of a log-mel spectrogram.
///
/// The crate of one family implements it, that of another takes the vocoder as `&dyn`. A
/// spectrogram of another configuration sounds like noise without being an error of shape, so
/// callers compare first: [`MelConfig::check_same`] of their own configuration with
/// [`mel_config`](Self::mel_config).
pub trait Vocoder: std::fmt::Debug {
    /// The only configuration of spectrograms that [`vocode`](Self::vocode) understands.
    fn mel_config(&self) -> &MelConfig;

    /// The sounds of spectrograms.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - output: `[batch, time]`, about `frames` times the hop length
    ///
    /// # Errors
    /// For another number of mels, or a spectrogram without frames.
    fn vocode(&self, log_mel: Tensor<3>) -> Result<Tensor<2>>;
}
