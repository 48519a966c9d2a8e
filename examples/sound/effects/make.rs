//! Makes sounds with a trained model, and reads them.

use crate::{
    Args, NAME, classify,
    model::{EffectsModel, Right, waves},
};
use aigc_core::{
    CancelToken, Error,
    audio::{Vocoder, Waveform},
    burn::tensor::Device,
    data::{ClassLabels, effects::EffectKind},
    rng::Rng,
};
use aigc_diffusion::ClassifierFreeGuidance;
use aigc_examples::{Progress, complete, outln};
use aigc_examples_sound::{SoundGallery, Speed, open_vocoder};
use anyhow::Result;
use std::{path::Path, time::Instant};

/// The directory of the sounds in a run.
pub(crate) const FOLDER: &str = "sounds";
/// Sounds that are drawn or made of their spectra at once.
const BATCH: usize = 32;
/// The share of sounds of the right kind that the model is meant to reach, in percent.
const GOAL: f64 = 95.0;

/// Makes sounds of the requested kinds with the model in `dir`. Writes some of them to
/// `out`, and prints how many of all are of the right kind and how fast they were made.
pub(crate) fn sounds(
    args: &Args,
    dir: &Path,
    out: &Path,
    device: &Device,
    stop: &CancelToken,
) -> Result<()> {
    let model = EffectsModel::open(dir, device)?;
    let mel = &model.description.spectra.mel_config;
    let maker = Maker {
        args,
        model: &model,
        vocoder: open_vocoder(args.vocoder.as_deref(), mel, device)?,
        device,
        stop,
    };
    let gallery = maker.gallery(dir)?;
    let (mut speed, mut right) = (Speed::default(), Right { count: 0, total: 0 });
    for kind in &args.kind.0 {
        let (waves, took) = maker.make(*kind)?;
        speed += took;
        let written = waves.iter().take(args.count as usize).enumerate();
        let gallery = gallery.clone().with_setting("kind", kind.name());
        for (index, wave) in written {
            let path = out.join(format!("{kind}-{index}.wav"));
            let gallery = gallery.clone().with_class(*kind as usize).with_index(index);
            gallery.save(wave, &path)?;
        }
        let kinds = vec![*kind as u32; waves.len()];
        let found = classify::read(&model.classifier, &waves, &kinds, device)?;
        let name = kind.name();
        let label = format!("{name}:");
        outln!(
            "{label:<10} {} of {} are read as {name}; {} in {}",
            found.count,
            found.total,
            written_names(name, args.count),
            out.display()
        );
        right.count += found.count;
        right.total += found.total;
    }
    let (held_out, again) = (&model.description.held_out, &model.description.from_spectra);
    outln!(
        "right kind: {:.1} of {} sounds; the goal is {GOAL} %",
        right.share()?,
        right.total
    );
    outln!(
        "the same of computed effects that were not learned: {:.1}; made of their spectra by \
         Griffin-Lim: {:.1}",
        held_out.share()?,
        again.share()?
    );
    outln!("{speed}");
    Ok(())
}

/// The names of the files of a kind.
fn written_names(kind: &str, count: u32) -> String {
    match count {
        1 => format!("{kind}-0.wav"),
        _ => format!("{kind}-0.wav to {kind}-{}.wav", count - 1),
    }
}

/// A model and what it needs to make sounds.
struct Maker<'a> {
    args: &'a Args,
    model: &'a EffectsModel,
    vocoder: Box<dyn Vocoder>,
    device: &'a Device,
    stop: &'a CancelToken,
}

impl Maker<'_> {
    /// What all sounds have in their records.
    fn gallery(&self, dir: &Path) -> Result<SoundGallery> {
        let args = self.args;
        let mel = serde_json::to_value(self.model.description.spectra.mel_config)?;
        let vocoder = match &args.vocoder {
            Some(folder) => folder.display().to_string(),
            None => "Griffin-Lim".into(),
        };
        // The classifier in it does not make sounds.
        let mut weights = vec![dir.join("unet")];
        weights.extend(args.vocoder.clone());
        Ok(SoundGallery::new("diffusion", NAME)
            .with_weights(&weights)?
            .with_seed(args.sample_seed)
            .with_setting("scheduler", self.model.pipeline.scheduler.class())
            .with_setting("num_inference_steps", args.sampling_steps)
            .with_setting("guidance_scale", args.guidance)
            .with_setting("vocoder", vocoder)
            .with_setting("mel_config", mel))
    }

    /// Sounds of a kind, and how fast they were made. They do not depend on the other
    /// requested kinds.
    fn make(&self, kind: EffectKind) -> aigc_core::Result<(Vec<Waveform>, Speed)> {
        let (args, pipeline) = (self.args, &self.model.pipeline);
        let count = args.count.max(args.eval_samples) as usize;
        let class = pipeline.class(kind.name())?;
        let seed = Rng::stream(args.sample_seed, "effects/kind", kind as u64).next_u64();
        let progress = Progress::new(kind.name(), count, self.stop);
        let began = Instant::now();
        let samples = pipeline
            .sampler(args.sampling_steps as usize, self.device)?
            .with_classes(ClassLabels::All(class))
            .with_guidance(ClassifierFreeGuidance::new(args.guidance))
            .with_batch_size(BATCH)
            .with_cancel(self.stop.clone())
            .with_callback(|at| progress.on_step(at))
            .sample(count, seed)?;
        let samples = complete(samples)?.values;
        let mut made: Vec<Waveform> = Vec::new();
        for first in (0..count).step_by(BATCH) {
            if self.stop.is_cancelled() {
                return Err(Error::cancelled("the sounds of spectra"));
            }
            let part = samples.clone().narrow(0, first, BATCH.min(count - first));
            let length = self.model.description.length;
            made.extend(waves(&self.model.images, part, length, &*self.vocoder)?);
        }
        let seconds = made.iter().map(Waveform::seconds).sum();
        Ok((made, Speed::since(began, seconds)))
    }
}
