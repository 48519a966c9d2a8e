//! HiFi-GAN piece by piece.

use super::{HifiGan, checks::check_mel};
use aigc_core::Result;
use burn::tensor::Tensor;

/// Makes the sound of a spectrogram that comes in pieces: samples are returned as soon as the
/// [frames on which they depend](super::HifiGanConfig::context_frames) are there. All samples
/// together are those of the whole spectrogram.
#[derive(Debug)]
pub struct HifiGanStream<'a> {
    model: &'a HifiGan,
    /// Frames on which samples to come depend.
    kept: Option<Tensor<3>>,
    /// How many of these frames already have their samples.
    done: usize,
}

impl<'a> HifiGanStream<'a> {
    pub(super) fn new(model: &'a HifiGan) -> Self {
        Self {
            model,
            kept: None,
            done: 0,
        }
    }

    /// Takes the next frames, and returns the samples that are complete with them, if any.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - output: `[batch, time]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for another number of mels or
    /// another batch than before, or without frames.
    pub fn push(&mut self, log_mel: Tensor<3>) -> Result<Option<Tensor<2>>> {
        check_mel(&log_mel, self.model.config().model_in_dim, 1)?;
        let kept = match self.kept.take() {
            Some(kept) => {
                let (batch, expected) = (log_mel.dims()[0], kept.dims()[0]);
                if batch != expected {
                    self.kept = Some(kept);
                    let expected = format!("a batch of {expected}, as before");
                    return Err(aigc_core::Error::argument("log_mel", batch, expected));
                }
                Tensor::cat(vec![kept, log_mel], 2)
            }
            None => log_mel,
        };
        let (context, frames) = (self.model.config().context_frames(), kept.dims()[2]);
        let complete = frames.saturating_sub(context);
        if complete <= self.done {
            self.kept = Some(kept);
            return Ok(None);
        }
        let hop = self.model.config().hop_length();
        let samples = self.model.forward(kept.clone());
        let samples = samples.narrow(1, self.done * hop, (complete - self.done) * hop);
        let first = complete.saturating_sub(context);
        self.done = complete - first;
        self.kept = Some(kept.narrow(2, first, frames - first));
        Ok(Some(samples))
    }

    /// The samples that waited for further frames, if any.
    ///
    /// # Shapes
    /// - output: `[batch, time]`
    pub fn finish(self) -> Option<Tensor<2>> {
        let kept = self.kept?;
        let start = self.done * self.model.config().hop_length();
        let samples = self.model.forward(kept);
        let len = samples.dims()[1] - start;
        (len > 0).then(|| samples.narrow(1, start, len))
    }
}
