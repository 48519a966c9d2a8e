//! A request with all values, checked.

use super::pipeline::StableAudioPipeline;
use crate::{audio::request::AudioRequest, sampling::plan};
use aigc_core::{Result, audio::Waveform, check::ensure_argument};
use aigc_diffusion::{AnyScheduler, SamplingPlan};
use burn::tensor::Tensor;
use std::ops::Range;

/// A request with all values, checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StableAudioJob {
    /// The request.
    pub request: AudioRequest,
    /// Start and end in seconds.
    pub seconds: [f64; 2],
    /// The calls of the network.
    pub plan: SamplingPlan,
}

impl StableAudioJob {
    /// Whether classifier-free guidance is used.
    pub fn is_guided(&self) -> bool {
        self.request.guidance_scale > 1.0
    }

    /// The samples that are kept, of those that are decoded.
    pub(super) fn samples(&self, sample_rate: u32, decoded: usize) -> Range<usize> {
        // As in diffusers, which cuts off what is left of a sample.
        let at = |seconds: f64| ((seconds * f64::from(sample_rate)) as usize).min(decoded);
        at(self.seconds[0])..at(self.seconds[1])
    }
}

impl StableAudioPipeline {
    /// Checks a request, and computes the steps of the scheduler.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) names what is out of range.
    pub fn prepare(&self, request: &AudioRequest) -> Result<StableAudioJob> {
        request.check()?;
        let start = request.seconds_start;
        let end = request.seconds_total.unwrap_or(start + self.max_seconds());
        self.check_seconds(start, end)?;
        let mut scheduler = self.parts.scheduler.clone();
        match &mut scheduler {
            AnyScheduler::Ddim(ddim) => ddim.eta = request.eta,
            AnyScheduler::Tcd(tcd) => tcd.eta = request.eta,
            _ => {}
        }
        Ok(StableAudioJob {
            request: request.clone(),
            seconds: [start, end],
            plan: plan(&scheduler, request.num_inference_steps)?,
        })
    }

    /// A sound as the autoencoder takes it: of its rate and channels, as long as the network makes
    /// them.
    ///
    /// # Shapes
    /// - output: `[1, channels, time]`
    pub(super) fn fitted(&self, wave: &Waveform) -> Result<Tensor<3>> {
        let channels = self.parts.autoencoder.sample_shape().channels();
        let wave = wave.resample(self.sample_rate())?;
        let wave = match channels {
            1 => wave.to_mono(),
            2 => wave.to_stereo(),
            _ => wave,
        };
        let found = wave.num_channels();
        ensure_argument(
            found == channels,
            "audio",
            format!("{found} channels"),
            &format!("{channels} channels"),
        )?;
        let len = self.frames() * self.parts.hop_length;
        let fitted = wave.channels().iter().map(|channel| {
            let silence = std::iter::repeat(0.0);
            let samples = channel.iter().copied().chain(silence);
            samples.take(len).collect::<Vec<f32>>()
        });
        let wave = Waveform::new(fitted.collect(), self.sample_rate())?;
        Ok(wave.to_tensor(&self.device).unsqueeze())
    }
}
