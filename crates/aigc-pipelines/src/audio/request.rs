//! Requests, progress and results.

use crate::text_to_image::NoiseSource;
use aigc_core::{CancelToken, Error, Result, audio::Waveform, check, sampling::SamplingOptions};
use std::ops::{ControlFlow, Range};

/// Limit on the number of sounds of a request.
const MAX_SOUNDS: usize = 1 << 16;

/// Defines the methods that set the fields that all requests for sounds have.
macro_rules! request_methods {
    () => {
        /// Sets the number of sounds.
        pub fn with_n(mut self, n: usize) -> Self {
            self.n = n;
            self
        }

        /// Sets the number of steps.
        pub fn with_num_inference_steps(mut self, steps: usize) -> Self {
            self.num_inference_steps = steps;
            self
        }

        /// Sets the seed.
        pub fn with_seed(mut self, seed: u64) -> Self {
            self.seed = Some(seed);
            self
        }

        /// Sets the generator of the noise.
        pub fn with_noise_source(mut self, noise_source: NoiseSource) -> Self {
            self.noise_source = noise_source;
            self
        }
    };
}
pub(super) use request_methods;

/// A request for sounds from a prompt. The default values are those of diffusers'
/// `StableAudioPipeline`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AudioRequest {
    /// Description of the sound.
    pub prompt: String,
    /// Description of what the sound should not be like. `None`: classifier-free guidance compares
    /// with a prediction without any condition.
    pub negative_prompt: Option<String>,
    /// Number of sounds.
    pub n: usize,
    /// Where in a longer piece the sound begins, in seconds.
    pub seconds_start: f64,
    /// Where the sound ends, in seconds. `None`: at the greatest length that the network makes.
    pub seconds_total: Option<f64>,
    /// Steps of the scheduler.
    pub num_inference_steps: usize,
    /// Scale of classifier-free guidance; up to 1 there is none.
    pub guidance_scale: f64,
    /// Share of fresh noise in the steps of schedulers that have it as an option, such as DDIM.
    pub eta: f64,
    /// The seed. `None`: a random one, which the result names.
    pub seed: Option<u64>,
    /// The generator of the noise; sound `k` has the seed of the request plus `k`.
    pub noise_source: NoiseSource,
    /// A sound to which noise is added, in place of noise alone. It is resampled, cut, and
    /// continued with silence. Its latents are drawn once for all sounds, by the generator of this
    /// library: with the same seed, diffusers draws other ones.
    pub audio: Option<Waveform>,
}

impl AudioRequest {
    /// One sound, as long as the network makes them.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: None,
            n: 1,
            seconds_start: 0.0,
            seconds_total: None,
            num_inference_steps: 100,
            guidance_scale: 7.0,
            eta: 0.0,
            seed: None,
            noise_source: NoiseSource::default(),
            audio: None,
        }
    }

    /// Sets what the sound should not be like.
    pub fn with_negative_prompt(mut self, negative_prompt: impl Into<String>) -> Self {
        self.negative_prompt = Some(negative_prompt.into());
        self
    }

    request_methods!();

    /// Sets the end of the sound: its length if it begins at 0.
    pub fn with_seconds(mut self, seconds_total: f64) -> Self {
        self.seconds_total = Some(seconds_total);
        self
    }

    /// Sets where in a longer piece the sound begins.
    pub fn with_seconds_start(mut self, seconds_start: f64) -> Self {
        self.seconds_start = seconds_start;
        self
    }

    /// Sets the scale of classifier-free guidance.
    pub fn with_guidance_scale(mut self, guidance_scale: f64) -> Self {
        self.guidance_scale = guidance_scale;
        self
    }

    /// Sets the share of fresh noise.
    pub fn with_eta(mut self, eta: f64) -> Self {
        self.eta = eta;
        self
    }

    /// Sets a sound to start from.
    pub fn with_audio(mut self, audio: Waveform) -> Self {
        self.audio = Some(audio);
        self
    }

    /// Fails for numbers that no pipeline accepts.
    pub(super) fn check(&self) -> Result<()> {
        check_counts(self.n, self.num_inference_steps)?;
        let finite = self.guidance_scale.is_finite();
        let expected = "a finite number";
        check::ensure_argument(finite, "guidance_scale", self.guidance_scale, expected)?;
        let fraction = (0.0..=1.0).contains(&self.eta);
        check::ensure_argument(fraction, "eta", self.eta, "0 to 1")
    }
}

/// Fails for no sounds, for too many, and for no steps.
pub(super) fn check_counts(n: usize, steps: usize) -> Result<()> {
    let expected = format!("1 to {MAX_SOUNDS}");
    check::ensure_argument((1..=MAX_SOUNDS).contains(&n), "n", n, &expected)?;
    let expected = "at least 1";
    check::ensure_argument(steps > 0, "num_inference_steps", steps, expected)
}

/// A stage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AudioStage {
    /// The prompt is encoded.
    Encoding,
    /// The network is called.
    Denoising,
    /// Latents become samples.
    Decoding,
}

/// Progress of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AudioProgress {
    /// The stage.
    pub stage: AudioStage,
    /// The sounds in progress, of all that were requested.
    pub sounds: Range<usize>,
    /// Number of sounds requested.
    pub total: usize,
    /// Finished steps of this stage.
    pub step: usize,
    /// Steps of this stage.
    pub num_steps: usize,
}

/// How a request is fulfilled: sounds at a time, cancellation, progress.
#[derive(Clone, Debug)]
pub struct GenerationSettings<'a> {
    options: SamplingOptions<'a, AudioProgress>,
}

impl Default for GenerationSettings<'_> {
    fn default() -> Self {
        Self {
            options: SamplingOptions::new(1),
        }
    }
}

impl<'a> GenerationSettings<'a> {
    /// Sets how many sounds are made together at most, 1 by default: this bounds the memory.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.options.batch_size = batch_size;
        self
    }

    /// Stops between two calls of the network when `token` is cancelled.
    pub fn with_cancel(mut self, token: CancelToken) -> Self {
        self.options.cancel = token;
        self
    }

    /// Calls `callback` with the progress; `ControlFlow::Break` stops the request.
    pub fn with_callback(
        mut self,
        callback: impl FnMut(&AudioProgress) -> ControlFlow<()> + 'a,
    ) -> Self {
        self.options = self.options.on_progress(callback);
        self
    }

    /// The batches of `n` sounds. With one generator for all of them, they are one batch.
    pub(super) fn batches(&self, n: usize, source: NoiseSource) -> Result<Vec<Range<usize>>> {
        let mut batches: Vec<_> = self.options.batches(n)?.collect();
        if source == NoiseSource::TorchBatch {
            batches = std::iter::once(0..n).collect();
        }
        Ok(batches)
    }

    pub(super) fn report(
        &self,
        stage: AudioStage,
        sounds: &Range<usize>,
        total: usize,
        [step, num_steps]: [usize; 2],
    ) -> ControlFlow<()> {
        self.options.report(&AudioProgress {
            stage,
            sounds: sounds.clone(),
            total,
            step,
            num_steps,
        })
    }
}

/// Sounds that were made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GeneratedAudio {
    /// The sounds; fewer than requested if the request was stopped.
    pub sounds: Vec<Waveform>,
    /// The seed.
    pub seed: u64,
    /// Whether all requested sounds were made.
    pub complete: bool,
}

impl GeneratedAudio {
    /// # Errors
    /// [`Error::Cancelled`] if there is not a single sound.
    pub(super) fn new(sounds: Vec<Waveform>, seed: u64, requested: usize) -> Result<Self> {
        if sounds.is_empty() {
            return Err(Error::cancelled("making sounds"));
        }
        Ok(Self {
            complete: sounds.len() == requested,
            sounds,
            seed,
        })
    }
}
