//! Training of the diffusion model, and what follows it.

use crate::{
    Args, NAME, classify, make,
    model::{self, EffectsModel, waves},
    settings::{EffectsConfig, Settings},
    spectra::{LENGTH, Part, SAMPLE_RATE},
};
use aigc_core::{
    CancelToken,
    audio::{WavFormat, Waveform, write_wav_with_provenance},
    burn::tensor::{Device, Tensor},
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, effects::Effects},
    dsp::GriffinLimConfig,
    output::{ImageGrid, provenance::Provenance},
    train::PreviewContext,
};
use aigc_diffusion::{ClassifierFreeGuidance, DiffusionObjective, DiffusionSampler, UNet2dModel};
use aigc_examples::{Gallery, after_training, complete, outln, unless_stopped};
use aigc_examples_sound::{MelBatch, MelImages, RunState, collate_mels, spectrum_scheduler};
use anyhow::Result;

/// Spectra of a batch.
const BATCH: usize = 32;
/// Spectra of each kind in a preview.
const SHOWN: usize = 4;

/// Trains a new run or goes on with one, trains the classifier, writes the model, and makes sounds.
pub(crate) fn run(
    args: &Args,
    state: &RunState,
    device: &Device,
    stop: &CancelToken,
) -> Result<()> {
    let settings = settings(args, state)?;
    let seed = settings.trainer.seed;
    let EffectsConfig { spectra, clips } = settings.data;
    let images = spectra.init()?;
    let trainer = args.run.config(settings.trainer.clone())?;
    let network = settings.model.init(device)?;
    let learning =
        DiffusionObjective::<UNet2dModel, MelBatch, 4>::new(settings.objective.clone(), &network)?;
    let steps = trainer.max_steps;
    outln!("computing {clips} effects and their spectra");
    let effects = Effects::new(clips, SAMPLE_RATE, Part::Training.seed(seed))?;
    let loader = DataLoaderConfig {
        batch_size: BATCH,
        shuffle_seed: Some(seed),
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(images.dataset(&effects, stop)?, collate_mels, loader)?;
    let run = state.run(&args.run, NAME)?;
    model::invalidate(&model::dir(&run))?;
    outln!(
        "{steps} steps in {}; --steps 300 is shorter; Ctrl-C saves, and the same command goes on",
        run.path().display()
    );
    let preview = Preview {
        args,
        images: &images,
        device,
        stop,
        seed,
    };
    let trained = args
        .run
        .trainer(trainer, stop.clone(), 10)
        .with_start(state.start(&args.run))
        .with_model_config(&settings.model)?
        .with_objective_config(&settings.objective)?
        .with_data_config(&settings.data)?
        .with_preview(|network, at| unless_stopped(stop, || preview.write(network, at)))
        .fit(learning, network, &loader, &run)?;
    after_training(trained, &run, stop, |trained| {
        let classifier = classify::fit(args, &run, seed, device, stop)?;
        let description = classify::describe(args, &images, &classifier, seed, device, stop)?;
        let dir = model::dir(&run);
        EffectsModel::save(&dir, trained.model, &classifier, &description)?;
        make::sounds(args, &dir, &run.path().join(make::FOLDER), device, stop)?;
        list(&run);
        Ok(())
    })
}

/// The settings of the run, or of a new one. A run that was killed before it wrote its settings
/// starts with new ones.
fn settings(args: &Args, state: &RunState) -> Result<Settings> {
    let run = match state {
        RunState::Unfinished(run) | RunState::Finished(run) if run.config_path().exists() => run,
        _ => return Ok(Settings::new(args)?),
    };
    let saved: Settings = run.config()?;
    args.run.check_seed(saved.trainer.seed)?;
    saved.check(args)?;
    Ok(saved)
}

/// Writes what the network draws during training.
struct Preview<'a> {
    args: &'a Args,
    images: &'a MelImages,
    device: &'a Device,
    stop: &'a CancelToken,
    seed: u64,
}

impl Preview<'_> {
    /// A picture of spectra with a row for each kind, and one sound of each kind after the other.
    fn write(&self, network: &UNet2dModel, at: &PreviewContext<'_>) -> aigc_core::Result<()> {
        let (args, config) = (self.args, self.images.config());
        let steps = args.sampling_steps as usize;
        let sampler = DiffusionSampler::new(
            network,
            &spectrum_scheduler(),
            steps,
            config.shape(),
            self.device,
        )?
        .with_guidance(ClassifierFreeGuidance::new(args.guidance))
        .with_cancel(self.stop.clone());
        let mut samples = complete(sampler.class_grid(SHOWN, self.seed)?)?;
        let firsts = (0..samples.values.dims()[0])
            .step_by(SHOWN)
            .map(|index| samples.values.clone().narrow(0, index, 1))
            .collect();
        let firsts = Tensor::cat(firsts, 0);
        let vocoder = GriffinLimConfig::new(config.mel_config).init()?;
        let sounds = waves(self.images, firsts, LENGTH, &vocoder)?;
        let sounds = Waveform::concat(&sounds.iter().collect::<Vec<_>>())?;
        let record = Provenance::new(NAME)
            .with_setting("family", "diffusion")
            .with_setting("training_step", at.step)
            .with_setting("guidance_scale", args.guidance)
            .with_setting("num_inference_steps", steps)
            .with_seed(self.seed);
        let path = at.run.sample_path(at.step, "wav");
        write_wav_with_provenance(&sounds, path, WavFormat::default(), &record)?;
        // Low frequencies below.
        samples.values = samples.values.flip([2]);
        let grid = ImageGrid::new(SHOWN, config.frames);
        Gallery::new(grid, "diffusion", NAME)
            .with_setting("guidance_scale", args.guidance)
            .with_setting("num_inference_steps", steps)
            .save_preview(&samples, at)
    }
}

/// Prints the files of a run.
fn list(run: &RunDir) {
    for (file, what) in [
        ("samples/", "spectra and sounds of the model in training"),
        (
            "model/",
            "the model, for --model; diffusers opens its unet/",
        ),
        ("loss.svg", "the training loss"),
        ("metrics.jsonl", "the logged metrics"),
    ] {
        outln!("  {:<50} {what}", run.path().join(file).display());
    }
}
