//! Preparation and training of a run.

use crate::{
    Clips, Gallery, ImageModel, Sampling, Settings, TrainingOptions, VideoNetwork,
    settings::{self, Begun, default_scheduler},
};
use aigc_core::{
    CancelToken,
    burn::tensor::Device,
    checkpoint::RunDir,
    data::ClassLabels,
    train::{StartFrom, TrainOutput},
};
use aigc_diffusion::{DiffusionObjective, DpmMultistepScheduler};
use aigc_examples::{labels_in_turn, outln, unless_stopped};
use anyhow::{Context, Result};

/// Clips of a preview.
const PREVIEW: usize = 10;

/// A new run, or one to resume.
#[derive(Debug)]
pub struct Job {
    /// The settings.
    pub settings: Settings,
    /// The clips.
    pub clips: Clips,
    /// The image model that is set in motion.
    pub image_model: Option<ImageModel>,
    /// What samples.
    pub scheduler: DpmMultistepScheduler,
    device: Device,
    existing: Option<RunDir>,
    name: &'static str,
}

impl Job {
    /// Loads the settings of the run to resume, or those of the command line; reads the images, and
    /// opens the image model.
    ///
    /// # Errors
    /// Names an option that is out of range, or differs from that of the resumed run; errors of
    /// the files.
    pub fn prepare(options: &TrainingOptions, name: &'static str, device: &Device) -> Result<Self> {
        let run = &options.run;
        let existing = match run.start() {
            StartFrom::Fresh => None,
            _ => Some(run.existing_run(name)?),
        };
        // A run that was killed before it wrote its settings starts with the given ones.
        let saved = existing
            .as_ref()
            .filter(|run| run.config_path().exists())
            .map(|run| {
                let path = run.path().display();
                run.config::<Settings>()
                    .with_context(|| format!("{path} cannot be resumed as {name}"))
            })
            .transpose()?;
        let mut begun = match saved {
            Some(saved) => settings::resumed(options, saved, device)?,
            None => settings::new(options, device)?,
        };
        begun.settings.trainer = run.config(begun.settings.trainer)?;
        let Begun {
            settings,
            image_model,
            clips,
        } = begun;
        let scheduler = match &image_model {
            Some(image) => image.scheduler.clone(),
            None => default_scheduler(&settings.objective),
        };
        Ok(Self {
            settings,
            clips,
            image_model,
            scheduler,
            device: device.clone(),
            existing,
            name,
        })
    }

    /// How clips are sampled. A network without a null class has no guidance.
    ///
    /// # Errors
    /// For a scale out of range.
    pub fn sampling<'a>(
        &'a self,
        options: &TrainingOptions,
        stop: &'a CancelToken,
    ) -> aigc_core::Result<Sampling<'a>> {
        let unet = &self.settings.model.unet;
        let null = usize::from(unet.null_class.is_some());
        Ok(Sampling {
            scheduler: &self.scheduler,
            shape: self.clips.shape(),
            classes: unet.num_class_embeds.map(|count| count - null),
            device: &self.device,
            steps: options.sampling_steps(),
            scale: options.guidance()?,
            stop,
        })
    }

    /// Clips of the network, with their settings.
    pub fn gallery(&self, sampling: &Sampling<'_>, fps: f64) -> Gallery {
        let gallery = Gallery::new(self.name, self.clips.frame.width, fps)
            .with_setting("num_inference_steps", sampling.steps)
            .with_setting("guidance_scale", sampling.scale);
        match &self.image_model {
            Some(image) => gallery.with_setting("image_model_hash", image.record.hash.clone()),
            None => gallery,
        }
    }

    /// Trains the network in the run's directory, which is made last, so that an earlier error
    /// leaves none behind.
    ///
    /// # Errors
    /// Errors of training.
    pub fn train(
        &self,
        options: &TrainingOptions,
        sampling: &Sampling<'_>,
        gallery: &Gallery,
        stop: &CancelToken,
    ) -> Result<(TrainOutput<VideoNetwork>, RunDir)> {
        let settings = &self.settings;
        let network = settings
            .model
            .init(self.image_model.as_ref(), &self.device)?;
        let objective = DiffusionObjective::new(settings.objective.clone(), &network)?;
        let loader = self.clips.loader()?;
        let classes = match sampling.classes {
            Some(classes) => ClassLabels::PerSample(labels_in_turn(classes, PREVIEW)),
            None => ClassLabels::Random,
        };
        let seed = settings.trainer.seed;
        let run = match &self.existing {
            Some(run) => run.clone(),
            None => options.run.run(self.name)?,
        };
        let moving = &settings.data.moving;
        let size = self.clips.digit_size();
        outln!(
            "{} training images of {size}×{size} move in clips of {}, {:.2} to {:.2} pixels per \
             frame; run directory: {}",
            self.clips.num_images(),
            self.clips.shape(),
            moving.speed[0],
            moving.speed[1],
            run.path().display()
        );
        let trained = options
            .run
            .trainer(settings.trainer.clone(), stop.clone(), 10)
            .with_model_config(&settings.model)?
            .with_objective_config(&settings.objective)?
            .with_data_config(&settings.data)?
            .with_preview(|network: &VideoNetwork, at| {
                unless_stopped(stop, || {
                    let clips = sampling.draw(network, classes.clone(), PREVIEW, seed)?;
                    let gallery = gallery.clone().with_setting("training_step", at.step);
                    gallery.save_gif(&clips, &at.run.sample_path(at.step, "gif"))
                })
            })
            .fit(objective, network, &loader, &run)?;
        Ok((trained, run))
    }
}
