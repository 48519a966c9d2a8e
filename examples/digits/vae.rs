//! The variational autoencoder of `digits`.

use crate::{
    Args, bound,
    job::{Job, RECONSTRUCTIONS, list_with_training, save_reconstructions},
};
use aigc_core::{
    CancelToken,
    burn::tensor::{Device, Tensor},
    checkpoint::RunDir,
    data::{DataLoader, ImageBatch, ImageShape},
    output::ImageGrid,
    train::{EmaConfig, LrSchedule, TrainerConfig},
};
use aigc_examples::{
    Gallery, Images, after_training, complete, outln, reconstruction_rows, unless_stopped,
};
use aigc_vae::{
    AnyVae, ConditionKind, ConvVaeConfig, KlWeight, MlpVaeConfig, Vae, VaeConfig, VaeObjective,
    VaeSampler, evaluate,
};
use anyhow::{Context, Result};
use std::{collections::BTreeSet, time::Duration};

const NAME: &str = "digits-vae";

pub(crate) fn run(args: &Args, device: &Device, stop: CancelToken) -> Result<()> {
    let job = Job::prepare(args, NAME, defaults)?;
    let settings = &job.settings;
    let (images, gallery) = (&job.images, job.gallery("VAE"));
    let seed = settings.trainer.seed;
    let vae = settings.model.init(device)?;
    let run = &job.run_dir(args)?;

    let trained = job
        .trainer(args, &stop)?
        .with_evaluation(|model: &AnyVae| {
            unless_stopped(&stop, || {
                images.evaluate(&stop, |held_out| evaluate(model, held_out, device, seed))
            })
        })
        .with_preview(|model, at| {
            let sampler = VaeSampler::new(model, device).with_temperature(TEMPERATURE);
            let gallery = gallery.clone().with_setting("temperature", TEMPERATURE);
            gallery.save_preview(&sampler.sample(100, seed)?, at)
        })
        .fit(
            VaeObjective::new(settings.objective)?,
            vae,
            &images.train,
            run,
        )?;

    after_training(trained, run, &stop, |trained| {
        let pictures = Pictures {
            model: &trained.model,
            held_out: &images.held_out,
            gallery: gallery.clone().with_weights(&[run.final_dir()])?,
            seed,
            device,
            stop: &stop,
        };
        pictures.save(run)?;
        outln!();
        bound::print(&trained.metrics, images);
        outln!();
        list_with_training(
            run,
            &[
                ("samples.png", "100 generated images"),
                RECONSTRUCTIONS,
                ("walk.gif", WALK),
                ("latent.png", LATENT),
            ],
        );
        Ok(())
    })
}

/// What `walk.gif` shows.
const WALK: &str = "interpolation in latent space from class to class";
/// What `latent.png` shows.
const LATENT: &str = "samples over the two latent dimensions of largest variance";

/// Below 1, the divergence has less weight than in the ELBO: the bound is a little worse, and
/// images are sharper.
const BETA: f64 = 0.5;
/// Latents are sampled a little closer to the centre of the prior, where digits are typical.
const TEMPERATURE: f64 = 0.8;

fn defaults(images: &Images, seed: u64) -> Result<(VaeConfig, TrainerConfig, KlWeight)> {
    let objective = KlWeight {
        value: BETA,
        warmup_steps: 0,
        ..KlWeight::default()
    };
    let model = network(images.shape, ConditionKind::default());
    Ok((model, trainer(seed, 4000), objective))
}

/// The network for images of `shape`.
pub(crate) fn network(shape: ImageShape, condition: ConditionKind) -> VaeConfig {
    let convolutional = shape.height.is_multiple_of(4) && shape.width.is_multiple_of(4);
    if convolutional {
        VaeConfig::Conv(ConvVaeConfig {
            latent_dim: 8,
            condition,
            ..ConvVaeConfig::new(shape)
        })
    } else {
        VaeConfig::Mlp(MlpVaeConfig {
            condition,
            ..MlpVaeConfig::new(shape)
        })
    }
}

/// Adam with averaged weights, for at most two minutes.
pub(crate) fn trainer(seed: u64, steps: usize) -> TrainerConfig {
    TrainerConfig {
        seed,
        max_minutes: Some(2.0),
        learning_rate: 2e-3,
        lr_schedule: LrSchedule::cosine(100),
        ema: Some(EmaConfig::new(0.999)),
        eval_steps: 500,
        preview_steps: 500,
        save_steps: 500,
        ..TrainerConfig::new(steps)
    }
}

/// Draws the pictures at the end of training.
struct Pictures<'a> {
    model: &'a AnyVae,
    held_out: &'a DataLoader<ImageBatch>,
    gallery: Gallery,
    seed: u64,
    device: &'a Device,
    stop: &'a CancelToken,
}

impl Pictures<'_> {
    fn save(&self, run: &RunDir) -> Result<()> {
        let dir = run.path();
        let sampler = self.sampler().with_temperature(TEMPERATURE);
        let samples = complete(sampler.sample(100, self.seed ^ 1)?)?;
        let gallery = self.gallery.clone();
        let gallery = gallery.with_setting("temperature", TEMPERATURE);
        gallery.save_samples(&samples, &dir.join("samples.png"))?;
        let batch = self
            .held_out
            .iter_once()
            .next()
            .context("there are held-out images")??;
        let originals = batch.to_tensor(self.device);
        let rows = reconstruction_rows(self.model, self.held_out, self.device)?;
        save_reconstructions(&rows, &self.gallery, run)?;
        self.walk(&batch, originals.clone(), &dir.join("walk.gif"))?;
        let axes = self.most_active(originals);
        let grid = self.sampler().latent_grid(axes, 10)?;
        let gallery = self.gallery.clone().with_setting("content", LATENT);
        gallery.save(&grid, &dir.join("latent.png"))?;
        Ok(())
    }

    fn sampler(&self) -> VaeSampler<'_, AnyVae> {
        VaeSampler::new(self.model, self.device).with_cancel(self.stop.clone())
    }

    /// Interpolation from one image of each class to the next; without classes, through the first
    /// images.
    fn walk(&self, batch: &ImageBatch, images: Tensor<4>, path: &std::path::Path) -> Result<()> {
        let keyframes: Vec<usize> = match batch.labels() {
            Some(labels) => {
                let classes: BTreeSet<u32> = labels.iter().copied().collect();
                let first = |class: &u32| labels.iter().position(|label| label == class);
                classes.iter().take(10).filter_map(first).collect()
            }
            None => (0..batch.len().min(10)).collect(),
        };
        let at = |k: usize| images.clone().narrow(0, keyframes[k % keyframes.len()], 1);
        let mut frames = Vec::new();
        for k in 0..keyframes.len() {
            frames.extend(
                self.sampler()
                    .interpolate(at(k), at(k + 1), 9)?
                    .into_iter()
                    .take(8),
            );
        }
        let grid = self.gallery.grid();
        let large = ImageGrid {
            columns: 1,
            scale: grid.scale * 2,
            ..grid
        };
        let gallery = self.gallery.clone().with_grid(large);
        let gallery = gallery.with_setting("content", WALK);
        Ok(gallery.save_gif(frames, Duration::from_millis(80), path)?)
    }

    /// The latent dimensions whose posterior means have the largest variance over `images`.
    fn most_active(&self, images: Tensor<4>) -> [usize; 2] {
        let spread = self.model.encode(images).mean.var(0).into_data();
        let spread: Vec<f32> = spread.iter::<f32>().collect();
        let mut order: Vec<usize> = (0..spread.len()).collect();
        order.sort_by(|a, b| spread[*b].total_cmp(&spread[*a]));
        [order[0], order[1 % order.len()]]
    }
}
