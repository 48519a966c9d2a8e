//! Dance Diffusion: sound from noise, sample by sample
//! (<https://github.com/Harmonai-org/sample-generator>).

use super::{
    denoise::{Watch, denoise, normal},
    request::{AudioStage, GeneratedAudio, GenerationSettings, check_counts, request_methods},
};
use crate::{
    methods::pipeline_methods,
    model_index::{ModelIndex, merge},
    sampling::plan,
    seed::random_seed,
    text_to_image::{NoiseSource, NoiseStream, noise_of_images},
};
use aigc_core::{
    Error, Result,
    audio::Waveform,
    check::ensure_argument,
    weights::{Loaded, OpenOptions},
};
use aigc_diffusion::{AnyScheduler, models::UNet1dModel};
use burn::tensor::{Device, Tensor};
use std::path::Path;

/// The name of the class in diffusers.
const CLASS: &str = "DanceDiffusionPipeline";
/// Names of its parts.
const PARTS: [&str; 2] = ["scheduler", "unet"];
/// Limit on the samples that are made together, of all channels: 1 GiB.
const MAX_SAMPLES: usize = 1 << 28;

/// A request for sounds. The default values are those of diffusers' `DanceDiffusionPipeline`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DanceDiffusionRequest {
    /// Number of sounds.
    pub n: usize,
    /// Length in seconds. `None`: that of the network's training.
    pub seconds: Option<f64>,
    /// Steps of the scheduler.
    pub num_inference_steps: usize,
    /// The seed. `None`: a random one, which the result names.
    pub seed: Option<u64>,
    /// The generator of the noise; sound `k` has the seed of the request plus `k`.
    pub noise_source: NoiseSource,
}

impl Default for DanceDiffusionRequest {
    fn default() -> Self {
        Self {
            n: 1,
            seconds: None,
            num_inference_steps: 100,
            seed: None,
            noise_source: NoiseSource::default(),
        }
    }
}

impl DanceDiffusionRequest {
    request_methods!();

    /// Sets the length in seconds.
    pub fn with_seconds(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
        self
    }
}

/// Makes sounds from noise.
#[derive(Debug)]
pub struct DanceDiffusionPipeline {
    unet: UNet1dModel,
    scheduler: AnyScheduler,
    sample_rate: u32,
    device: Device,
}

impl DanceDiffusionPipeline {
    /// A pipeline of a network and a scheduler.
    ///
    /// # Errors
    /// [`Error::Config`] if the network has no sample rate.
    pub fn new(
        unet: UNet1dModel,
        scheduler: impl Into<AnyScheduler>,
        device: &Device,
    ) -> Result<Self> {
        let expected = "the samples per second of the sounds";
        let sample_rate = unet.config().sample_rate;
        let sample_rate =
            sample_rate.ok_or_else(|| Error::config("sample_rate", "null", expected))?;
        Ok(Self {
            unet,
            scheduler: scheduler.into(),
            sample_rate,
            device: device.clone(),
        })
    }

    pipeline_methods!(classes: &[CLASS], parts: &PARTS, is_opened: |_, _| true);

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let index = ModelIndex::open(dir, &[CLASS])?;
        let mut report = index.unused(&PARTS);
        let scheduler = merge(&mut report, "scheduler", index.scheduler()?);
        let (dir, _) = index.needed("unet", &["UNet1DModel"])?;
        let unet = UNet1dModel::from_pretrained_with(dir, options, device)?;
        let unet = merge(&mut report, "unet", unet);
        let pipeline = Self::new(unet, scheduler, device)?;
        Ok(report.map(|()| pipeline))
    }

    /// The network.
    pub fn unet(&self) -> &UNet1dModel {
        &self.unet
    }

    /// Replaces the scheduler.
    pub fn with_scheduler(mut self, scheduler: impl Into<AnyScheduler>) -> Self {
        self.scheduler = scheduler.into();
        self
    }

    /// Samples per second of the sounds.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Makes sounds, with samples in `[−1, 1]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names what is out of range; [`Error::NotFiniteSamples`] names the
    /// step at which samples became infinite or not a number.
    pub fn generate(&self, request: &DanceDiffusionRequest) -> Result<GeneratedAudio> {
        self.generate_with(request, &GenerationSettings::default())
    }

    /// [`generate`](Self::generate) in batches, with progress and cancellation. The sounds that are
    /// finished when the request is stopped are returned.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::Cancelled`] if not a single sound was finished.
    pub fn generate_with(
        &self,
        request: &DanceDiffusionRequest,
        settings: &GenerationSettings<'_>,
    ) -> Result<GeneratedAudio> {
        let total = request.n;
        check_counts(total, request.num_inference_steps)?;
        self.lengths(request.seconds)?;
        let batches = settings.batches(total, request.noise_source)?;
        let seed = request.seed.unwrap_or_else(random_seed);
        let mut sounds = vec![];
        for batch in batches {
            let mut noise = noise_of_images(request.noise_source, seed, batch.clone());
            let watch = Watch {
                settings,
                sounds: batch,
                total,
            };
            let Some(made) = self.denoise_watched(request, noise.as_mut(), &watch)? else {
                break;
            };
            sounds.extend(made);
            let count = watch.sounds.len();
            if !watch.report(AudioStage::Decoding, [count, count]) {
                break;
            }
        }
        GeneratedAudio::new(sounds, seed, total)
    }

    /// The sounds of a request, whose noise `noise` draws: that of the start, then that of each
    /// step that adds any, as maps of height one.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn denoise(
        &self,
        request: &DanceDiffusionRequest,
        noise: &mut dyn NoiseStream,
    ) -> Result<Vec<Waveform>> {
        check_counts(request.n, request.num_inference_steps)?;
        let settings = GenerationSettings::default();
        let watch = Watch {
            settings: &settings,
            sounds: 0..request.n,
            total: request.n,
        };
        let sounds = self.denoise_watched(request, noise, &watch)?;
        Ok(sounds.expect("nothing stops it"))
    }

    fn denoise_watched(
        &self,
        request: &DanceDiffusionRequest,
        noise: &mut dyn NoiseStream,
        watch: &Watch<'_, '_>,
    ) -> Result<Option<Vec<Waveform>>> {
        let [kept, samples] = self.lengths(request.seconds)?;
        let plan = plan(&self.scheduler, request.num_inference_steps)?;
        let channels = self.unet.config().in_channels;
        let shape = [watch.sounds.len(), channels, samples];
        let count = shape.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
        let expected = format!(
            "at most {} sounds of {samples} samples together",
            MAX_SAMPLES / channels.saturating_mul(samples).max(1)
        );
        let fits = count.is_some_and(|count| count <= MAX_SAMPLES);
        ensure_argument(fits, "n", watch.sounds.len(), &expected)?;
        let start = normal(noise, shape, &self.device) * plan.init_noise_sigma;
        let predict = |input: Tensor<3>, time: f64| {
            let time = Tensor::<1>::full([input.dims()[0]], time, &input.device());
            self.unet.forward(input, time)
        };
        let Some(x) = denoise(&plan, start, noise, watch, predict)? else {
            return Ok(None);
        };
        let x = x.clamp(-1.0, 1.0).narrow(2, 0, kept);
        let wave = |sound: usize| {
            let samples = x.clone().narrow(0, sound, 1).reshape([channels, kept]);
            Waveform::from_tensor(samples, self.sample_rate)
        };
        (0..watch.sounds.len())
            .map(wave)
            .collect::<Result<_>>()
            .map(Some)
    }

    /// Samples of the sound, and samples that the network makes for it: the next multiple of the
    /// factor by which the network shortens sounds.
    fn lengths(&self, seconds: Option<f64>) -> Result<[usize; 2]> {
        let config = self.unet.config();
        let rate = f64::from(self.sample_rate);
        let wanted = match seconds {
            Some(seconds) => seconds * rate,
            None => config.sample_size as f64,
        };
        let (factor, least) = (config.length_factor(), config.min_length());
        let [least, most] = [least, MAX_SAMPLES / config.in_channels.max(1)].map(|n| n as f64);
        if !(least..=most).contains(&wanted) {
            let (least, most) = (least / rate, most / rate);
            let expected = format!("at least {least} and at most {most} seconds");
            let given = seconds.unwrap_or(wanted / rate);
            return Err(Error::argument("seconds", given, expected));
        }
        let kept = wanted as usize;
        let whole = (wanted / factor as f64).ceil() as usize;
        Ok([kept, whole * factor])
    }
}
