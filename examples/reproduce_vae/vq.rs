//! The model with quantised latents, and the prior over its codes.

use crate::{
    experiment::{Bound, Experiment, Recipe},
    models::trainer,
    table::Row,
};
use aigc_core::{
    Result,
    checkpoint::RunDir,
    data::ImageBatch,
    sampling::Samples,
    train::{EmaConfig, LrSchedule, TrainerConfig},
};
use aigc_examples::{
    Codes, PriorTraining, after_training, complete, outln, reconstruction_error,
    reconstruction_rows, unless_stopped,
};
use aigc_vae::{
    CodePrior, CodePriorConfig, KlWeight, VaeObjective, VqSampler, VqVae, VqVaeConfig, evaluate,
};
use anyhow::Context;

/// Trains the model and the prior and prints their figures, or those of trained ones.
pub(crate) fn run(experiment: &Experiment<'_>) -> anyhow::Result<()> {
    let (args, images) = (experiment.args, experiment.images);
    let (device, stop) = (experiment.device, experiment.stop);
    // The prior has the other half of the time.
    let options = args.run.with_share_of_time(0.5);
    let weight = KlWeight::default();
    let recipe = Recipe {
        model: VqVaeConfig {
            channels: vec![32, 64],
            ..VqVaeConfig::new(images.shape)
        },
        trainer: TrainerConfig {
            max_minutes: args.default_minutes(30.0),
            lr_schedule: LrSchedule::cosine(100),
            save_steps: 1000,
            ..trainer(args, 10_000)
        },
        objective: Some(Bound::Elbo(weight)),
        published: None,
    };
    if args.evaluate_only {
        let run = experiment.evaluated_run()?;
        let vae = experiment.open(&recipe, VqVaeConfig::init, &run)?;
        let prior = open_prior(experiment, &run)?;
        return experiment.until_stopped(|| {
            let held_out = Codes::of_held_out(&vae, images, device, stop)?;
            report(experiment, &vae, &prior, &held_out, &run)
        });
    }
    let evaluation = |vae: &VqVae| {
        unless_stopped(stop, || {
            images.evaluate(stop, |held_out| evaluate(vae, held_out, device, 0))
        })
    };
    let vae = recipe.model.init(device)?;
    let objective = VaeObjective::<VqVae, ImageBatch, 4, 4>::new(weight)?;
    let (trained, run) = experiment.train(&options, &recipe, vae, objective, None, evaluation)?;
    after_training(trained, &run, stop, |trained| {
        experiment.print_training(&trained);
        let vae = trained.model;
        let batch = images.train.config().batch_size;
        let codes = Codes::of_training(&vae, images, batch, args.run.seed, device, stop)?;
        let held_out = Codes::of_held_out(&vae, images, device, stop)?;
        let training = PriorTraining {
            options: &options,
            model: CodePriorConfig::new(codes.shape),
            trainer: TrainerConfig {
                lr_schedule: LrSchedule::cosine(200),
                max_grad_norm: Some(1.0),
                ema: Some(EmaConfig::new(0.999)),
                ..recipe.trainer.clone()
            },
            device,
            stop,
        };
        let prior = training.fit(&codes, &held_out, &run)?;
        outln!(
            "{} steps of the prior, {} of them in this run, in {:.2} minutes",
            prior.step,
            prior.steps_run,
            prior.elapsed.as_secs_f64() / 60.0
        );
        report(experiment, &vae, &prior.model, &held_out, &run)
    })
}

/// Opens the trained prior of a run.
fn open_prior(experiment: &Experiment<'_>, run: &RunDir) -> anyhow::Result<CodePrior> {
    let dir = PriorTraining::dir(run).join("final");
    let prior = CodePrior::from_pretrained(&dir, experiment.device)
        .with_context(|| format!("{}: no prior; has its training ended?", dir.display()))?;
    for warning in prior.warnings() {
        eprintln!("{warning}");
    }
    Ok(prior.into_inner())
}

/// Saves pictures, and prints the table of figures. `held_out` are the codes of the test images.
fn report(
    experiment: &Experiment<'_>,
    vae: &VqVae,
    prior: &CodePrior,
    held_out: &Codes,
    run: &RunDir,
) -> anyhow::Result<()> {
    let (images, device, stop) = (experiment.images, experiment.device, experiment.stop);
    let draw = |n: usize, seed: u64| -> Result<Samples> {
        VqSampler::new(vae, &[prior], device)?
            .with_batch_size(250)
            .with_cancel(stop.clone())
            .sample(n, seed)
    };
    let gallery = experiment.gallery(run)?;
    let weights = [run.final_dir(), PriorTraining::dir(run).join("final")];
    let of_both = gallery.clone().with_weights(&weights)?;
    experiment.save_samples(&complete(draw(100, 0)?)?, &of_both, run)?;
    let path = run.path().join("reconstructions.png");
    let rows = reconstruction_rows(vae, &images.held_out, device)?;
    let content = "test images, and below each its reconstruction";
    gallery
        .with_setting("content", content)
        .save(&rows, &path)?;
    outln!("reconstructions: {}", path.display());

    let error = reconstruction_error(vae, images, device, stop)?;
    let used = 100.0 * held_out.usage.usage();
    let mut rows = vec![
        Row::new(
            "codes used",
            format!("{used:.1} % of {}", held_out.shape.num_codes),
        ),
        Row::new(
            "perplexity of the codes",
            format!("{:.1}", held_out.usage.perplexity()),
        ),
        Row::new(
            "mean square of the error of a reconstructed pixel",
            format!("{error:.5}"),
        ),
        Row::new(
            "bits per image, codes of the prior",
            format!("{:.1}", held_out.bits(prior, device)?),
        ),
        Row::new(
            "bits per image, equally probable codes",
            format!("{:.1}", held_out.uniform_bits()),
        ),
    ];
    rows.extend(experiment.classified(experiment.test_features()?.as_ref(), draw)?);
    experiment.print(&rows);
    Ok(())
}
