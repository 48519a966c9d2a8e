//! The class-conditional variational autoencoder of `digits`.

use crate::{
    Args, bound,
    evaluate::Evaluator,
    job::{Job, RECONSTRUCTIONS, list_with_training, save_reconstructions},
    vae::{network, trainer},
};
use aigc_core::{
    CancelToken, burn::tensor::Device, data::ClassLabels, sampling::Samples, train::TrainerConfig,
};
use aigc_examples::{
    Images, Progress, after_training, complete, labels_by_class, labels_in_turn, outln,
    reconstruction_rows, unless_stopped,
};
use aigc_vae::{
    AnyVae, ConditionKind, KlWeight, Vae, VaeConfig, VaeObjective, VaeSampler, evaluate,
};
use anyhow::{Context, Result};

const NAME: &str = "digits-cvae";

pub(crate) fn run(args: &Args, device: &Device, stop: CancelToken) -> Result<()> {
    let job = Job::prepare(args, NAME, defaults)?;
    let settings = &job.settings;
    let (images, gallery) = (&job.images, job.gallery("conditional VAE"));
    let seed = settings.trainer.seed;
    let vae = settings.model.init(device)?;
    let classes = vae.condition_kind().num_classes;
    let classes = classes.context("the model of the run has no classes; is --model as before?")?;
    let evaluator = Evaluator::new(images, args.eval_samples, device)?;
    let run = &job.run_dir(args)?;

    let shown = Rows {
        classes,
        seed,
        device,
    };
    let trained = job
        .trainer(args, &stop)?
        .with_evaluation(|vae: &AnyVae| {
            unless_stopped(&stop, || {
                let bound =
                    images.evaluate(&stop, |held_out| evaluate(vae, held_out, device, seed))?;
                let n = evaluator.num_samples();
                let labels = labels_in_turn(classes, n);
                let progress = Progress::new("samples for the evaluation", n, &stop);
                let sampler = VaeSampler::new(vae, device)
                    .with_classes(ClassLabels::PerSample(labels.clone()))
                    .with_callback(|at| progress.on_batch(at));
                let samples = complete(sampler.sample(n, seed)?)?;
                drop(sampler);
                drop(progress);
                let of_samples = evaluator.metrics(samples.values, &labels, &stop)?;
                Ok([bound, of_samples].concat())
            })
        })
        .with_preview(|vae, at| {
            // A signal stops training after the preview.
            gallery.save_preview(&shown.samples(vae, CancelToken::new())?, at)
        })
        .fit(
            VaeObjective::new(settings.objective)?,
            vae,
            &images.train,
            run,
        )?;

    after_training(trained, run, &stop, |trained| {
        let gallery = gallery.clone().with_weights(&[run.final_dir()])?;
        let samples = shown.samples(&trained.model, stop.clone())?;
        gallery.save_samples(&samples, &run.path().join("samples.png"))?;
        let rows = reconstruction_rows(&trained.model, &images.held_out, device)?;
        save_reconstructions(&rows, &gallery, run)?;
        outln!();
        bound::print(&trained.metrics, images);
        evaluator.print(&trained.metrics);
        outln!();
        list_with_training(
            run,
            &[("samples.png", "one row per class"), RECONSTRUCTIONS],
        );
        Ok(())
    })
}

/// Ten samples of each class, always from the same latents.
struct Rows<'a> {
    classes: usize,
    seed: u64,
    device: &'a Device,
}

impl Rows<'_> {
    fn samples(&self, vae: &AnyVae, cancel: CancelToken) -> aigc_core::Result<Samples> {
        let labels = labels_by_class(self.classes, 10);
        let n = labels.len();
        let sampler = VaeSampler::new(vae, self.device)
            .with_classes(ClassLabels::PerSample(labels))
            .with_cancel(cancel);
        complete(sampler.sample(n, self.seed)?)
    }
}

fn defaults(images: &Images, seed: u64) -> Result<(VaeConfig, TrainerConfig, KlWeight)> {
    let condition = ConditionKind {
        num_classes: Some(images.classes()?),
        ..ConditionKind::default()
    };
    let model = network(images.shape, condition);
    Ok((model, trainer(seed, 4000), KlWeight::default()))
}
