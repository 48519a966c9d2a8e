//! The stages of a request, and all of it.

use super::{
    conditions::StableAudioConditions, job::StableAudioJob, pipeline::StableAudioPipeline,
};
use crate::{
    audio::{
        denoise::{Watch, denoise, normal},
        request::{AudioRequest, AudioStage, GeneratedAudio, GenerationSettings},
    },
    seed::random_seed,
    text_to_image::{NoiseStream, noise_of_images},
};
use aigc_core::{Error, Result, audio::Waveform, check::ensure_argument, rng::Rng};
use aigc_diffusion::{Conditioning, Denoiser};
use burn::tensor::Tensor;

impl StableAudioPipeline {
    /// Makes sounds.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names what is out of range; [`Error::NotFiniteSamples`] names the
    /// step at which latents became infinite or not a number.
    pub fn generate(&self, request: &AudioRequest) -> Result<GeneratedAudio> {
        self.generate_with(request, &GenerationSettings::default())
    }

    /// [`generate`](Self::generate) in batches, with progress and cancellation. The sounds that are
    /// finished when the request is stopped are returned.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::Cancelled`] if not a single sound was finished.
    pub fn generate_with(
        &self,
        request: &AudioRequest,
        settings: &GenerationSettings<'_>,
    ) -> Result<GeneratedAudio> {
        let job = self.prepare(request)?;
        let (total, source) = (request.n, request.noise_source);
        let batches = settings.batches(total, source)?;
        let seed = request.seed.unwrap_or_else(random_seed);
        let watch = |sounds| Watch {
            settings,
            sounds,
            total,
        };
        let all = watch(0..total);
        if !all.report(AudioStage::Encoding, [0, 1]) {
            return GeneratedAudio::new(vec![], seed, total);
        }
        let conditions = self.encode_prompt(&job)?;
        if !all.report(AudioStage::Encoding, [1, 1]) {
            return GeneratedAudio::new(vec![], seed, total);
        }
        let audio = self.audio_latents(&job, seed)?;
        let mut sounds = vec![];
        for batch in batches {
            let mut noise = noise_of_images(source, seed, batch.clone());
            let count = batch.len();
            let start = self.start(&job, count, audio.as_ref(), noise.as_mut());
            let watch = watch(batch);
            let latents = self.denoise_from(&job, &conditions, start, noise.as_mut(), &watch)?;
            let Some(latents) = latents else {
                break;
            };
            if !watch.report(AudioStage::Decoding, [0, count]) {
                break;
            }
            let mut goes_on = true;
            for sound in 0..count {
                let latents = latents.clone().narrow(0, sound, 1);
                sounds.push(self.decode(&job, latents)?.remove(0));
                goes_on = watch.report(AudioStage::Decoding, [sound + 1, count]);
                if !goes_on {
                    break;
                }
            }
            if !goes_on {
                break;
            }
        }
        GeneratedAudio::new(sounds, seed, total)
    }

    /// The clean latents of `count` sounds, whose noise `noise` draws: that of the start, then that
    /// of each step that adds any, as maps of height one.
    ///
    /// # Shapes
    /// - output: `[count, channels, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a count of 0, or conditions that do not fit the network;
    /// [`Error::NotFiniteSamples`] names the step.
    pub fn denoise(
        &self,
        job: &StableAudioJob,
        conditions: &StableAudioConditions,
        count: usize,
        noise: &mut dyn NoiseStream,
    ) -> Result<Tensor<3>> {
        ensure_argument(count > 0, "count", count, "at least 1")?;
        let settings = GenerationSettings::default();
        let watch = Watch {
            settings: &settings,
            sounds: 0..count,
            total: count,
        };
        let audio = self.audio_latents(job, job.request.seed.unwrap_or_default())?;
        let start = self.start(job, count, audio.as_ref(), noise);
        let latents = self.denoise_from(job, conditions, start, noise, &watch)?;
        Ok(latents.expect("nothing stops it"))
    }

    /// The latents of the sound to start from, `[1, channels, frames]`, if the request has one.
    fn audio_latents(&self, job: &StableAudioJob, seed: u64) -> Result<Option<Tensor<3>>> {
        let Some(audio) = &job.request.audio else {
            return Ok(None);
        };
        let posterior = self.parts.autoencoder.encode(self.fitted(audio)?);
        let latents = posterior.sample(&mut Rng::stream(seed, "audio", 0));
        let channels = self.parts.transformer.config().in_channels;
        let (found, expected) = (latents.dims(), [1, channels, self.frames()]);
        ensure_argument(
            found == expected,
            "audio",
            format!("latents of {found:?}"),
            &format!("latents of shape {expected:?}"),
        )?;
        Ok(Some(latents))
    }

    /// The latents to start from: noise, added to the latents of a sound if there is one.
    fn start(
        &self,
        job: &StableAudioJob,
        count: usize,
        audio: Option<&Tensor<3>>,
        noise: &mut dyn NoiseStream,
    ) -> Tensor<3> {
        let channels = self.parts.transformer.config().in_channels;
        let shape = [count, channels, self.frames()];
        let drawn = normal(noise, shape, &self.device) * job.plan.init_noise_sigma;
        match audio {
            Some(audio) => audio.clone().expand(shape) + drawn,
            None => drawn,
        }
    }

    fn denoise_from(
        &self,
        job: &StableAudioJob,
        conditions: &StableAudioConditions,
        start: Tensor<3>,
        noise: &mut dyn NoiseStream,
        watch: &Watch<'_, '_>,
    ) -> Result<Option<Tensor<3>>> {
        let network = &self.parts.transformer;
        self.check_conditions(conditions)?;
        let (tokens, global) = conditions.repeated(start.dims()[0]);
        let condition = Conditioning {
            encoder_hidden_states: Some(tokens),
            pooled_projections: Some(global),
            ..Conditioning::default()
        };
        let predict = |input: Tensor<3>, time: f64| {
            let input = match conditions.guidance_scale {
                Some(_) => Tensor::cat(vec![input.clone(), input], 0),
                None => input,
            };
            let time = Tensor::<1>::full([input.dims()[0]], time, &input.device());
            conditions.guided(network.predict(input, time, &condition))
        };
        denoise(&job.plan, start, noise, watch, predict)
    }

    fn check_conditions(&self, conditions: &StableAudioConditions) -> Result<()> {
        let config = self.parts.transformer.config();
        let rows = 1 + usize::from(conditions.guidance_scale.is_some());
        let [found, _, width] = conditions.encoder_hidden_states.dims();
        let global = conditions.global_hidden_states.dims();
        let expected = [rows, config.cross_attention_input_dim];
        if [found, width] != expected || global != [rows, config.global_states_input_dim] {
            let found = format!("{found} of width {width}, and {global:?}");
            let expected = format!(
                "{rows} of width {}, and [{rows}, {}]",
                expected[1], config.global_states_input_dim
            );
            return Err(Error::argument("conditions", found, expected));
        }
        Ok(())
    }

    /// The sounds of latents, cut to the length of the request.
    ///
    /// # Shapes
    /// - latents: `[batch, channels, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for latents of other channels.
    pub fn decode(&self, job: &StableAudioJob, latents: Tensor<3>) -> Result<Vec<Waveform>> {
        let channels = self.parts.transformer.config().in_channels;
        let [batch, found, frames] = latents.dims();
        if found != channels || frames == 0 || batch == 0 {
            let expected = format!("{channels} channels, and at least one frame");
            let found = format!("{:?}", latents.dims());
            return Err(Error::argument("latents", found, expected));
        }
        let decoded = self.parts.autoencoder.decode(latents);
        let [_, channels, time] = decoded.dims();
        let kept = job.samples(self.sample_rate(), time);
        if kept.is_empty() {
            let found = format!("{time} samples when decoded");
            let expected = format!("more than {} samples", kept.start);
            return Err(Error::argument("latents", found, expected));
        }
        let wave = |sound: usize| {
            let samples = decoded.clone().narrow(0, sound, 1);
            let samples = samples.narrow(2, kept.start, kept.len());
            Waveform::from_tensor(samples.reshape([channels, kept.len()]), self.sample_rate())
        };
        (0..batch).map(wave).collect()
    }
}
