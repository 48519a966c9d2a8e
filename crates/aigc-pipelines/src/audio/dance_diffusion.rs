//! Dance Diffusion: sound from noise, sample by sample
//! (<https://github.com/Harmonai-org/sample-generator>).

use super::{
    denoise::{Watch, denoise, normal},
    index::Index,
    request::{AudioStage, GeneratedAudio, GenerationSettings, check_counts, random_seed},
};
use crate::text_to_image::{NoiseSource, NoiseStream, noise_of_images};
use aigc_core::{
    Error, Result,
    audio::Waveform,
    weights::{Loaded, OpenOptions},
};
use aigc_diffusion::{AnyScheduler, Scheduler, models::UNet1dModel};
use burn::tensor::{Device, Tensor};
use std::path::Path;

/// The name of the class in diffusers.
const CLASS: &str = "DanceDiffusionPipeline";
/// The longest sound, in samples.
const MOST_SAMPLES: f64 = (1u64 << 28) as f64;

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
    /// Sets the number of sounds.
    pub fn with_n(mut self, n: usize) -> Self {
        self.n = n;
        self
    }

    /// Sets the length in seconds.
    pub fn with_seconds(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
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

    /// Opens a pipeline's directory, as diffusers writes it. What is returned says what was not
    /// used.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field, [`Error::Weights`]
    /// the tensors that do not fit.
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        Self::from_pretrained_with(dir, &OpenOptions::default(), device)
    }

    /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights, or with weights in
    /// half precision.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(
        dir: impl AsRef<Path>,
        options: &OpenOptions,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let mut index = Index::open(dir.as_ref(), CLASS, &["scheduler", "unet"])?;
        let mut report = std::mem::take(&mut index.report);
        let scheduler = report.merge(index.scheduler()?);
        let dir = index.part("unet", &["UNet1DModel"])?;
        let unet = UNet1dModel::from_pretrained_with(dir, options, device)?;
        let pipeline = Self::new(report.merge(unet), scheduler, device)?;
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
        let plan = self.scheduler.plan(request.num_inference_steps)?;
        let channels = self.unet.config().in_channels;
        let shape = [watch.sounds.len(), channels, samples];
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

    /// Samples of the sound, and samples that the network makes for it: the next multiple of what
    /// its rates need.
    fn lengths(&self, seconds: Option<f64>) -> Result<[usize; 2]> {
        let config = self.unet.config();
        let rate = f64::from(self.sample_rate);
        let wanted = match seconds {
            Some(seconds) => seconds * rate,
            None => config.sample_size as f64,
        };
        let (factor, least) = (config.length_factor(), config.min_length());
        if !(least as f64..=MOST_SAMPLES).contains(&wanted) {
            let expected = format!("at least {} seconds", least as f64 / rate);
            let given = seconds.unwrap_or(wanted / rate);
            return Err(Error::argument("seconds", given, expected));
        }
        let kept = wanted as usize;
        let whole = (wanted / factor as f64).ceil() as usize;
        Ok([kept, whole * factor])
    }
}
