//! The parts of the pipeline, and how a directory is opened.

use crate::{
    methods::pipeline_methods,
    model_index::{ModelIndex, merge},
};
use aigc_core::{
    Error, Result, check,
    encoder::{Autoencoder, TextEncoder},
    weights::{Loaded, OpenOptions},
};
use aigc_diffusion::{
    AnyScheduler,
    models::{StableAudioDitModel, StableAudioProjectionModel},
};
use aigc_encoders::{
    t5::{T5EncoderModel, T5TextEncoder},
    tokenizer::T5Tokenizer,
};
use aigc_vae::codec::AutoencoderOobleck;
use burn::tensor::Device;
use std::path::Path;

/// The name of the class in diffusers.
const CLASS: &str = "StableAudioPipeline";
/// Names of its parts.
const PARTS: &[&str] = &[
    "projection_model",
    "scheduler",
    "text_encoder",
    "tokenizer",
    "transformer",
    "vae",
];

/// The parts of a [`StableAudioPipeline`].
#[derive(Debug)]
pub struct StableAudioParts {
    /// Encodes prompts; it marks their padding, which is hidden from the network.
    pub text_encoder: Box<dyn TextEncoder>,
    /// Projects text and seconds to conditions.
    pub projection_model: StableAudioProjectionModel,
    /// The denoising network.
    pub transformer: StableAudioDitModel,
    /// From sounds `[batch, channels, time]` to latents and back, of any length.
    pub autoencoder: Box<dyn Autoencoder<3, 3>>,
    /// Samples per second of the autoencoder.
    pub sample_rate: u32,
    /// Number of samples for each frame of latents.
    pub hop_length: usize,
    /// The scheduler.
    pub scheduler: AnyScheduler,
}

/// Makes sounds from prompts.
#[derive(Debug)]
pub struct StableAudioPipeline {
    pub(super) parts: StableAudioParts,
    pub(super) device: Device,
}

impl StableAudioPipeline {
    /// A pipeline of parts on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] names the field of a part that does not fit another.
    pub fn new(parts: StableAudioParts, device: &Device) -> Result<Self> {
        let (projection, network) = (parts.projection_model.config(), parts.transformer.config());
        let width = projection.conditioning_dim;
        let (text, latents) = (
            parts.text_encoder.embed_dim(),
            parts.autoencoder.latent_shape().channels(),
        );
        for (field, found, expected, of) in [
            (
                "text_encoder_dim",
                projection.text_encoder_dim,
                text,
                "the width of the text encoder",
            ),
            (
                "cross_attention_input_dim",
                network.cross_attention_input_dim,
                width,
                "the conditioning_dim of the projection",
            ),
            (
                "global_states_input_dim",
                network.global_states_input_dim,
                2 * width,
                "twice the conditioning_dim of the projection",
            ),
            (
                "in_channels",
                network.in_channels,
                latents,
                "the channels of the autoencoder's latents",
            ),
        ] {
            check::ensure(
                found == expected,
                field,
                found,
                &format!("{expected}, {of}"),
            )?;
        }
        check::in_range("sample_rate", parts.sample_rate, 1..=1 << 20)?;
        check::in_range("hop_length", parts.hop_length, 1..=1 << 20)?;
        Ok(Self {
            parts,
            device: device.clone(),
        })
    }

    pipeline_methods!(classes: &[CLASS], parts: PARTS, is_opened: |_, _| true);

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let index = ModelIndex::open(dir, &[CLASS])?;
        let mut report = index.unused(PARTS);
        let scheduler = merge(&mut report, "scheduler", index.scheduler()?);
        let (dir, _) = index.needed("tokenizer", &["T5Tokenizer", "T5TokenizerFast"])?;
        let tokenizer = T5Tokenizer::from_pretrained(dir)?;
        let (dir, _) = index.needed("text_encoder", &["T5EncoderModel"])?;
        let encoder = T5EncoderModel::from_pretrained_with(dir, options, device)?;
        let encoder = merge(&mut report, "text_encoder", encoder);
        let encoder = T5TextEncoder::new(tokenizer, encoder)?;
        let (dir, _) = index.needed("projection_model", &["StableAudioProjectionModel"])?;
        let projection = StableAudioProjectionModel::from_pretrained_with(dir, options, device)?;
        let (dir, _) = index.needed("transformer", &["StableAudioDiTModel"])?;
        let transformer = StableAudioDitModel::from_pretrained_with(dir, options, device)?;
        let (dir, _) = index.needed("vae", &["AutoencoderOobleck"])?;
        let vae = AutoencoderOobleck::from_pretrained_with(dir, options, device)?;
        let vae = merge(&mut report, "vae", vae).fold_weight_norm();
        let parts = StableAudioParts {
            text_encoder: Box::new(encoder),
            projection_model: merge(&mut report, "projection_model", projection),
            transformer: merge(&mut report, "transformer", transformer),
            sample_rate: vae.config().sampling_rate,
            hop_length: vae.config().hop_length(),
            autoencoder: Box::new(vae),
            scheduler,
        };
        let pipeline = Self::new(parts, device)?;
        Ok(report.map(|()| pipeline))
    }

    /// The parts.
    pub fn parts(&self) -> &StableAudioParts {
        &self.parts
    }

    /// Replaces the scheduler.
    pub fn with_scheduler(mut self, scheduler: impl Into<AnyScheduler>) -> Self {
        self.parts.scheduler = scheduler.into();
        self
    }

    /// Samples per second of the sounds.
    pub fn sample_rate(&self) -> u32 {
        self.parts.sample_rate
    }

    /// The longest sound, in seconds.
    pub fn max_seconds(&self) -> f64 {
        let samples = self.frames() * self.parts.hop_length;
        samples as f64 / f64::from(self.sample_rate())
    }

    /// Frames of the latents, whatever the length of the sound.
    pub(super) fn frames(&self) -> usize {
        self.parts.transformer.config().sample_size
    }

    /// Fails unless a sound lies where the network and the conditions reach.
    pub(super) fn check_seconds(&self, start: f64, end: f64) -> Result<()> {
        let projection = self.parts.projection_model.config();
        let (min, max) = (projection.min_value, projection.max_value);
        for (argument, seconds) in [("seconds_start", start), ("seconds_total", end)] {
            if !(min..=max).contains(&seconds) || seconds < 0.0 {
                let expected = format!("{} to {max}", min.max(0.0));
                return Err(Error::argument(argument, seconds, expected));
            }
        }
        let most = self.max_seconds();
        // The default end may be off by a last digit.
        let reaches = end > start && end - start <= most * (1.0 + 1e-9) && start < most;
        let expected =
            format!("more than seconds_start ({start}), which is below {most}, by at most {most}");
        check::ensure_argument(reaches, "seconds_total", end, &expected)?;
        let samples = |seconds: f64| (seconds * f64::from(self.sample_rate())) as usize;
        let expected = format!("at least one sample after seconds_start ({start})");
        let is_heard = samples(end) > samples(start);
        check::ensure_argument(is_heard, "seconds_total", end, &expected)
    }
}
