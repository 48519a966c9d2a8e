//! Requests, progress and results.

use aigc_core::{CancelToken, Result, audio::Waveform};
use serde::{Deserialize, Serialize};

/// A request for music. Fields that are not set have the values of the model's
/// `generation_config.json`, or else those that are named here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct MusicRequest {
    /// Description of the music. With an empty one, the model has no condition.
    pub prompt: String,
    /// Length in seconds, without a beginning that is continued; 10.
    pub seconds: Option<f64>,
    /// Seed; a random one by default.
    pub seed: Option<u64>,
    /// Whether codes are drawn from their probabilities, else the most likely ones are taken; true.
    pub do_sample: Option<bool>,
    /// Number of most likely codes to draw from, 0 for all; 250.
    pub top_k: Option<usize>,
    /// Total probability of the most likely codes to draw from; 1.
    pub top_p: Option<f64>,
    /// Divisor of the logits; 1.
    pub temperature: Option<f64>,
    /// Scale of classifier-free guidance, up to 1 for none; 3.
    pub guidance_scale: Option<f64>,
}

impl MusicRequest {
    /// A request with a prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            ..Self::default()
        }
    }

    /// Sets the length in seconds.
    pub fn with_seconds(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
        self
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets whether codes are drawn.
    pub fn with_do_sample(mut self, do_sample: bool) -> Self {
        self.do_sample = Some(do_sample);
        self
    }

    /// Sets the number of most likely codes to draw from.
    pub fn with_top_k(mut self, top_k: usize) -> Self {
        self.top_k = Some(top_k);
        self
    }

    /// Sets the total probability of the most likely codes to draw from.
    pub fn with_top_p(mut self, top_p: f64) -> Self {
        self.top_p = Some(top_p);
        self
    }

    /// Sets the divisor of the logits.
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Sets the scale of classifier-free guidance.
    pub fn with_guidance_scale(mut self, guidance_scale: f64) -> Self {
        self.guidance_scale = Some(guidance_scale);
        self
    }

    /// The request with the values of `defaults` where it has none.
    pub(super) fn or(&self, defaults: &Self) -> Self {
        Self {
            prompt: self.prompt.clone(),
            seconds: self.seconds.or(defaults.seconds),
            seed: self.seed.or(defaults.seed),
            do_sample: self.do_sample.or(defaults.do_sample),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            temperature: self.temperature.or(defaults.temperature),
            guidance_scale: self.guidance_scale.or(defaults.guidance_scale),
        }
    }

    /// The values of fields that neither a request nor a directory sets.
    pub(super) fn usual() -> Self {
        Self {
            prompt: String::new(),
            seconds: Some(10.0),
            seed: None,
            do_sample: Some(true),
            top_k: Some(250),
            top_p: Some(1.0),
            temperature: Some(1.0),
            guidance_scale: Some(3.0),
        }
    }
}

/// Music, with the values by which it can be made again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GeneratedMusic {
    /// The sound, with a beginning that was continued.
    pub wave: Waveform,
    /// The codes of all frames, for each codebook.
    pub codes: Vec<Vec<u32>>,
    /// Whether it is as long as requested; false if it was cancelled.
    pub complete: bool,
    /// The request with all values that were used.
    pub request: MusicRequest,
    /// Warnings, such as the end of a prompt that was cut off.
    pub warnings: Vec<String>,
}

/// Progress of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct MusicProgress {
    /// Frames whose codes are generated, with those of a beginning.
    pub frame: usize,
    /// All frames.
    pub num_frames: usize,
    /// Seconds of sound that were decoded.
    pub seconds: f64,
}

type ProgressFn<'a> = dyn FnMut(MusicProgress) + 'a;
type AudioFn<'a> = dyn FnMut(&Waveform) -> Result<()> + 'a;

/// Options of generation: progress, cancellation, a callback for pieces of the sound.
pub struct MusicOptions<'a> {
    /// Stops the request; the music so far is returned.
    pub cancel: CancelToken,
    /// Called after each frame.
    pub progress: Option<Box<ProgressFn<'a>>>,
    /// Called with each piece of the sound as soon as it is decoded. The pieces, one after the
    /// other, are the whole sound. An error ends the request.
    pub audio: Option<Box<AudioFn<'a>>>,
    /// Least length of a piece in seconds; 1.
    pub chunk_seconds: f64,
    /// A sound to be continued; it is resampled and mixed to the channels of the model.
    pub beginning: Option<Waveform>,
}

impl Default for MusicOptions<'_> {
    fn default() -> Self {
        Self {
            cancel: CancelToken::new(),
            progress: None,
            audio: None,
            chunk_seconds: 1.0,
            beginning: None,
        }
    }
}

impl<'a> MusicOptions<'a> {
    /// With a token that stops the request.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Calls `progress` after each frame.
    pub fn with_progress(mut self, progress: impl FnMut(MusicProgress) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Calls `audio` with each piece of the sound as soon as it is decoded.
    pub fn with_audio(mut self, audio: impl FnMut(&Waveform) -> Result<()> + 'a) -> Self {
        self.audio = Some(Box::new(audio));
        self
    }

    /// Sets the least length of a piece.
    pub fn with_chunk_seconds(mut self, seconds: f64) -> Self {
        self.chunk_seconds = seconds;
        self
    }

    /// Continues a sound.
    pub fn with_beginning(mut self, wave: Waveform) -> Self {
        self.beginning = Some(wave);
        self
    }
}

impl std::fmt::Debug for MusicOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MusicOptions")
            .field("cancel", &self.cancel)
            .field("progress", &self.progress.is_some())
            .field("audio", &self.audio.is_some())
            .field("chunk_seconds", &self.chunk_seconds)
            .field("beginning", &self.beginning.is_some())
            .finish()
    }
}
