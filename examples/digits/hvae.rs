//! The hierarchical variational autoencoder of `digits`.

use crate::{
    Args, bound,
    job::{Job, RECONSTRUCTIONS, list_with_training, save_reconstructions},
    vae::trainer,
};
use aigc_core::{
    CancelToken,
    burn::tensor::Device,
    train::{Metrics, TrainerConfig},
};
use aigc_examples::{Images, after_training, complete, outln, reconstruction_rows, unless_stopped};
use aigc_vae::{
    HierarchicalVae, HierarchicalVaeConfig, KlWeight, VaeObjective, VaeSampler, evaluate,
};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

const NAME: &str = "digits-hvae";
/// Steps of training.
const STEPS: usize = 2000;

/// Settings of the objective.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ObjectiveConfig {
    kl_weight: KlWeight,
    /// Nats of each group of latents that cost nothing.
    free_bits: f64,
}

pub(crate) fn run(args: &Args, device: &Device, stop: CancelToken) -> Result<()> {
    let job = Job::prepare(args, NAME, defaults)?;
    let settings = &job.settings;
    let (images, gallery) = (&job.images, job.gallery("hierarchical VAE"));
    let seed = settings.trainer.seed;
    let vae = settings.model.init(device)?;
    let ObjectiveConfig {
        kl_weight,
        free_bits,
    } = settings.objective;
    let run = &job.run_dir(args)?;

    let trained = job
        .trainer(args, &stop)?
        .with_evaluation(|vae: &HierarchicalVae| {
            unless_stopped(&stop, || {
                images.evaluate(&stop, |held_out| evaluate(vae, held_out, device, seed))
            })
        })
        .with_preview(|vae, at| {
            gallery.save_preview(&VaeSampler::new(vae, device).sample(100, seed)?, at)
        })
        .fit(
            VaeObjective::new(kl_weight)?.with_free_bits(free_bits)?,
            vae,
            &images.train,
            run,
        )?;

    after_training(trained, run, &stop, |trained| {
        let gallery = gallery.clone().with_weights(&[run.final_dir()])?;
        let sampler = VaeSampler::new(&trained.model, device).with_cancel(stop.clone());
        let samples = complete(sampler.sample(100, seed ^ 1)?)?;
        gallery.save_samples(&samples, &run.path().join("samples.png"))?;
        let rows = reconstruction_rows(&trained.model, &images.held_out, device)?;
        save_reconstructions(&rows, &gallery, run)?;
        outln!();
        bound::print(&trained.metrics, images);
        print_groups(&trained.metrics);
        outln!();
        list_with_training(
            run,
            &[("samples.png", "100 generated images"), RECONSTRUCTIONS],
        );
        Ok(())
    })
}

/// Prints the divergence of each group of latents, in the metrics of [`evaluate`].
fn print_groups(metrics: &Metrics) {
    let groups: Vec<String> = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("kl/"))
        .map(|(_, nats)| format!("{nats:.2}"))
        .collect();
    outln!(
        "divergence of each group of latents, from the coarsest to the finest, in nats: {}",
        groups.join(", ")
    );
}

fn defaults(
    images: &Images,
    seed: u64,
) -> Result<(HierarchicalVaeConfig, TrainerConfig, ObjectiveConfig)> {
    let shape = images.shape;
    ensure!(
        shape.height.is_multiple_of(4) && shape.width.is_multiple_of(4),
        "images of {shape}: the sides must be multiples of 4, for the maps of the model; choose \
         another --side"
    );
    let mut model = HierarchicalVaeConfig::new(shape);
    // Fewer groups than for larger images.
    for level in &mut model.levels {
        level.groups = level.groups.min(2);
        level.encoder_blocks = 1;
        level.latent_channels = 4;
    }
    let trainer = TrainerConfig {
        max_grad_norm: Some(200.0),
        ..trainer(seed, STEPS)
    };
    let objective = ObjectiveConfig {
        // The groups learn to carry information before it costs its full price.
        kl_weight: KlWeight::new(1.0).with_warmup(STEPS / 3),
        // Without them, most groups of so small images collapse to the prior.
        free_bits: 0.1,
    };
    Ok((model, trainer, objective))
}
