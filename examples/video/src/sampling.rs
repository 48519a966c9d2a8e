//! Clips from noise.

use crate::VideoNetwork;
use aigc_core::{
    CancelToken, Result,
    burn::tensor::Device,
    data::{ClassLabels, SampleShape, ValueRange},
    sampling::{BatchProgress, Samples},
};
use aigc_diffusion::{ClassifierFreeGuidance, Denoiser, DiffusionSampler, DpmMultistepScheduler};
use aigc_examples::{Progress, complete};

/// Most frames in one pass of the network.
const FRAMES: usize = 256;

/// What all samplers of clips have in common.
#[derive(Clone, Copy, Debug)]
pub struct Sampling<'a> {
    /// The scheduler.
    pub scheduler: &'a DpmMultistepScheduler,
    /// Shape of a clip.
    pub shape: SampleShape,
    /// Number of classes, without the null class.
    pub classes: Option<usize>,
    /// Where the network is.
    pub device: &'a Device,
    /// Number of steps.
    pub steps: usize,
    /// Scale of classifier-free guidance.
    pub scale: f64,
    /// Stops sampling.
    pub stop: &'a CancelToken,
}

impl Sampling<'_> {
    /// Clips that are sampled at once.
    pub(crate) fn batch_size(&self) -> usize {
        (FRAMES / self.shape.dims()[1].max(1)).max(1)
    }

    /// Guidance for a network with this null class.
    pub(crate) fn guidance(&self, null_class: Option<u32>) -> Option<ClassifierFreeGuidance> {
        let guided = null_class.is_some() && self.scale != 1.0;
        guided.then(|| ClassifierFreeGuidance::new(self.scale))
    }

    /// A sampler of clips.
    ///
    /// # Errors
    /// Names what the network cannot sample.
    pub fn sampler<'n>(
        &self,
        network: &'n VideoNetwork,
    ) -> Result<DiffusionSampler<'n, VideoNetwork, 5>> {
        let sampler: DiffusionSampler<'n, VideoNetwork, 5> =
            DiffusionSampler::new(network, self.scheduler, self.steps, self.shape, self.device)?;
        let sampler = sampler
            .with_value_range(ValueRange::Unit)
            .with_batch_size(self.batch_size())
            .with_cancel(self.stop.clone());
        Ok(match self.guidance(network.null_class()) {
            Some(guidance) => sampler.with_guidance(guidance),
            None => sampler,
        })
    }

    /// `n` clips of these classes, with a progress bar.
    ///
    /// # Errors
    /// [`Error::Cancelled`](aigc_core::Error::Cancelled) if sampling was stopped; errors of the
    /// network.
    pub fn draw(
        &self,
        network: &VideoNetwork,
        classes: ClassLabels,
        n: usize,
        seed: u64,
    ) -> Result<Samples<5>> {
        let progress = Progress::new("clips", n, self.stop);
        let samples = self
            .sampler(network)?
            .with_classes(classes)
            .with_callback(|at| {
                let done = at.images.start + at.images.len() * at.step / at.num_steps;
                progress.on_batch(&BatchProgress { done, total: n })
            })
            .sample(n, seed)?;
        drop(progress);
        complete(samples)
    }
}
