//! The variational autoencoder with quantised latents of `digits`, and the prior over its codes.

use crate::{
    Args,
    evaluate::Evaluator,
    job::{BATCH, Job, RECONSTRUCTIONS, list, list_with_training, save_reconstructions},
};
use aigc_core::{
    CancelToken,
    burn::tensor::Device,
    data::{ImageBatch, ImageShape},
    sampling::Samples,
    train::{EmaConfig, LrSchedule, TrainerConfig},
};
use aigc_examples::{
    Codes, Images, PriorTraining, Progress, after_training, complete, outln, reconstruction_error,
    reconstruction_rows, unless_stopped,
};
use aigc_vae::{
    CodePriorConfig, CodeShape, KlWeight, VaeObjective, VectorQuantizerConfig, VqSampler, VqVae,
    VqVaeConfig, evaluate,
};
use anyhow::Result;

const NAME: &str = "digits-vqvae";

/// Largest side of the map of codes.
const SIDE: usize = 8;

pub(crate) fn run(args: &Args, device: &Device, stop: CancelToken) -> Result<()> {
    // The prior has the other half of the time.
    let args = &Args {
        run: args.run.with_share_of_time(0.5),
        ..args.clone()
    };
    let job = Job::prepare(args, NAME, defaults)?;
    let settings = &job.settings;
    let (images, gallery) = (&job.images, job.gallery("VQ-VAE"));
    let seed = settings.trainer.seed;
    let vae = settings.model.init(device)?;
    let evaluator = Evaluator::new(images, args.eval_samples, device)?;
    let run = &job.run_dir(args)?;

    let trained = job
        .trainer(args, &stop)?
        .with_evaluation(|vae: &VqVae| {
            unless_stopped(&stop, || {
                images.evaluate(&stop, |held_out| evaluate(vae, held_out, device, seed))
            })
        })
        .with_preview(|vae, at| {
            let rows = reconstruction_rows(vae, &images.held_out, device)?;
            let gallery = gallery.clone().with_setting("content", RECONSTRUCTIONS.1);
            gallery.save_preview_images(&rows, at)
        })
        .fit(
            VaeObjective::<VqVae, ImageBatch, 4, 4>::new(settings.objective)?,
            vae,
            &images.train,
            run,
        )?;

    after_training(trained, run, &stop, |trained| {
        let vae = trained.model;
        let rows = reconstruction_rows(&vae, &images.held_out, device)?;
        let weights = run.final_dir();
        let of_vae = gallery
            .clone()
            .with_weights(std::slice::from_ref(&weights))?;
        save_reconstructions(&rows, &of_vae, run)?;

        let codes = Codes::of_training(&vae, images, BATCH, seed, device, &stop)?;
        let held_out = Codes::of_held_out(&vae, images, device, &stop)?;
        let training = PriorTraining {
            options: &args.run,
            model: prior_network(codes.shape),
            trainer: prior_trainer(seed),
            device,
            stop: &stop,
        };
        let prior = training.fit(&codes, &held_out, run)?.model;

        let n = evaluator.num_samples();
        let progress = Progress::new("samples for the evaluation", n.max(100), &stop);
        let sampler = VqSampler::new(&vae, &[&prior], device)?
            .with_batch_size(250)
            .with_cancel(stop.clone())
            .with_callback(|at| progress.on_batch(at));
        let samples = complete(sampler.sample(n.max(100), seed)?)?;
        drop(sampler);
        drop(progress);
        let shown = Samples {
            values: samples.values.clone().narrow(0, 0, 100),
            ..samples.clone()
        };
        let of_both = [weights, PriorTraining::dir(run).join("final")];
        let gallery = gallery.clone().with_weights(&of_both)?;
        gallery.save_samples(&shown, &run.path().join("samples.png"))?;
        let metrics = evaluator.metrics(samples.values.narrow(0, 0, n), &[], &stop)?;

        outln!();
        outln!(
            "codes of {} held-out images: {:.1} % of {} codes used, perplexity {:.1}",
            images.held_out.num_items(),
            100.0 * held_out.usage.usage(),
            held_out.shape.num_codes,
            held_out.usage.perplexity()
        );
        outln!(
            "bits per image: {:.1} with the prior, {:.1} with equally probable codes; mean square \
             of the error of a reconstructed pixel: {:.5}",
            held_out.bits(&prior, device)?,
            held_out.uniform_bits(),
            reconstruction_error(&vae, images, device, &stop)?
        );
        evaluator.print(&metrics);
        outln!();
        list_with_training(
            run,
            &[
                ("samples.png", "100 images, decoded from codes of the prior"),
                RECONSTRUCTIONS,
            ],
        );
        let weights = ("prior/final/model.safetensors", "the weights of the prior");
        list(run, &[weights]);
        Ok(())
    })
}

fn defaults(images: &Images, seed: u64) -> Result<(VqVaeConfig, TrainerConfig, KlWeight)> {
    let trainer = TrainerConfig {
        seed,
        max_minutes: Some(1.0),
        learning_rate: 2e-3,
        lr_schedule: LrSchedule::cosine(100),
        eval_steps: 500,
        preview_steps: 500,
        save_steps: 500,
        ..TrainerConfig::new(2000)
    };
    Ok((network(images.shape), trainer, KlWeight::default()))
}

/// The network for images of `shape`: at least one halving of the sides, and more until the map of
/// codes is small, as far as the sides can be divided.
fn network(shape: ImageShape) -> VqVaeConfig {
    let divisible = |halvings: u32| {
        let factor = 1 << halvings;
        shape.height.is_multiple_of(factor) && shape.width.is_multiple_of(factor)
    };
    let is_small = |halvings: u32| shape.height.max(shape.width) >> halvings <= SIDE;
    let possible: Vec<u32> = (1..=6).filter(|halvings| divisible(*halvings)).collect();
    let small = possible.iter().find(|halvings| is_small(**halvings));
    let strides = match small.or(possible.last()) {
        Some(halvings) => vec![2; *halvings as usize],
        None => vec![1],
    };
    VqVaeConfig {
        channels: vec![64; strides.len()],
        strides,
        quantizer: VectorQuantizerConfig::new(64, 16).into(),
        ..VqVaeConfig::new(shape)
    }
}

fn prior_network(codes: CodeShape) -> CodePriorConfig {
    CodePriorConfig {
        d_model: 64,
        n_layer: 3,
        dropout: 0.2,
        ..CodePriorConfig::new(codes)
    }
}

fn prior_trainer(seed: u64) -> TrainerConfig {
    TrainerConfig {
        seed,
        max_minutes: Some(1.0),
        learning_rate: 2e-3,
        lr_schedule: LrSchedule::cosine(100),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.998)),
        eval_steps: 500,
        save_steps: 500,
        ..TrainerConfig::new(1500)
    }
}
