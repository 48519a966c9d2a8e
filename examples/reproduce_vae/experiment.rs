//! Training of a model, or opening of a trained one.

use crate::{Args, table::Published};
use aigc_core::{
    CancelToken, Result,
    burn::{
        module::{Module, ModuleDisplay},
        tensor::Device,
    },
    checkpoint::RunDir,
    data::{ClassLabels, ImageBatch},
    eval::SampleMetrics,
    train::{DiversityWatch, Metrics, Objective, TrainOutput, TrainerConfig},
    weights::load_pretrained,
};
use aigc_examples::{
    DigitClassifier, Images, RunOptions, SampleObserver, after_training, evaluate_binarized,
    held_out, is_stop, lenet5_from, outln, unless_stopped,
};
use aigc_vae::{IwaeObjectiveConfig, KlWeight, Vae};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::Path;

/// What all models are trained and evaluated with.
#[derive(Debug)]
pub(crate) struct Experiment<'a> {
    pub(crate) args: &'a Args,
    pub(crate) images: &'a Images,
    pub(crate) classifier: Option<DigitClassifier>,
    pub(crate) device: &'a Device,
    pub(crate) stop: &'a CancelToken,
}

/// A model and its training.
#[derive(Debug)]
pub(crate) struct Recipe<C> {
    pub(crate) model: C,
    pub(crate) trainer: TrainerConfig,
    /// What is written to the run; nothing for the plain models.
    pub(crate) objective: Option<Bound>,
    /// The published log-likelihood.
    pub(crate) published: Option<Published>,
}

/// The bound that is maximised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    Elbo(KlWeight),
    ImportanceWeighted(IwaeObjectiveConfig),
}

/// The part of a run's `config.json` that says what was trained.
#[derive(Deserialize)]
struct Trained<C> {
    model: C,
    objective: Option<Bound>,
}

impl Experiment<'_> {
    /// Trains a model with latent vectors and prints its figures, or those of a trained one.
    pub(crate) fn run<C, V, O>(
        &self,
        recipe: &Recipe<C>,
        init: fn(&C, &Device) -> Result<V>,
        objective: O,
    ) -> anyhow::Result<()>
    where
        C: Serialize + DeserializeOwned + PartialEq,
        V: Vae + ModuleDisplay + 'static,
        O: Objective<Model = V, Batch = ImageBatch>,
    {
        let (args, images, stop) = (self.args, self.images, self.stop);
        if args.evaluate_only {
            let run = self.evaluated_run()?;
            let model = self.open(recipe, init, &run)?;
            return self.until_stopped(|| self.report(&model, recipe.published, &run));
        }
        let lenet = lenet5_from(args.classifier.as_deref(), self.device)?;
        let real = held_out(images, stop)?;
        let seed = args.run.seed;
        let observer =
            SampleObserver::new(&args.observer, seed, real, lenet.as_ref(), self.device)?;
        // Test images of binary models are binary.
        let binarize = args.model.binarize();
        let evaluation = |model: &V| {
            unless_stopped(stop, || {
                let mut metrics = images.evaluate(stop, |held_out| {
                    evaluate_binarized(model, held_out, binarize, self.device)
                })?;
                metrics.extend(
                    observer
                        .metrics(|n, seed| self.samples(model, ClassLabels::Random, n, seed))?,
                );
                Ok(metrics)
            })
        };
        let model = init(&recipe.model, self.device)?;
        let watched = Some(&observer);
        let (trained, run) =
            self.train(&args.run, recipe, model, objective, watched, evaluation)?;
        after_training(trained, &run, stop, |trained| {
            self.print_training(&trained);
            let asked = args.importance_samples.is_some() || self.classifier.is_some();
            if asked || !args.model.is_plain() {
                self.report(&trained.model, recipe.published, &run)?;
            }
            Ok(())
        })
    }

    /// Trains `model` as `recipe` and `options` say. `observer` watches its samples, which codes
    /// do not have before their prior is trained.
    pub(crate) fn train<C, M, O>(
        &self,
        options: &RunOptions,
        recipe: &Recipe<C>,
        model: M,
        objective: O,
        observer: Option<&SampleObserver<'_>>,
        evaluation: impl FnMut(&M) -> Result<Metrics>,
    ) -> anyhow::Result<(TrainOutput<M>, RunDir)>
    where
        C: Serialize + DeserializeOwned,
        M: Module + 'static,
        O: Objective<Model = M, Batch = ImageBatch>,
    {
        let config = options.config(recipe.trainer.clone())?;
        let has_classifier = observer.is_some() && self.classifier.is_some();
        let own = [("nelbo", false)];
        let config = self.args.observer.config(config, &own, has_classifier)?;
        let run = options.run(self.args.model.run_name())?;
        self.images.print_summary(&run);
        let trainer = options.trainer::<M>(config, self.stop.clone(), 100);
        let trainer = match observer {
            Some(observer) => observer.watch(trainer),
            None => trainer,
        };
        let mut trainer = trainer
            .with_model_config(&recipe.model)?
            .with_data_config(&self.args.data)?;
        if let Some(bound) = &recipe.objective {
            trainer = trainer.with_objective_config(bound)?;
        }
        let trainer = trainer.with_evaluation(evaluation);
        let trained = trainer.fit(objective, model, &self.images.train, &run)?;
        Ok((trained, run))
    }

    /// Prints how long training took, and its last evaluation: the terms of the bound, and the
    /// metrics of samples.
    pub(crate) fn print_training<M>(&self, trained: &TrainOutput<M>) {
        let minutes = trained.elapsed.as_secs_f64() / 60.0;
        let (of_samples, bound): (Metrics, Metrics) = trained
            .metrics
            .iter()
            .cloned()
            .partition(|(name, _)| is_of_samples(name));
        outln!(
            "{} steps, {} of them in this run, in {minutes:.2} minutes ({:.0} per minute); \
             test {:?} nats per image over {} images",
            trained.step,
            trained.steps_run,
            trained.steps_run as f64 / minutes,
            bound,
            self.images.held_out.num_items()
        );
        if !of_samples.is_empty() {
            outln!("samples beside test images: {of_samples:?}");
        }
    }

    /// The run to evaluate.
    pub(crate) fn evaluated_run(&self) -> Result<RunDir> {
        match &self.args.evaluated {
            Some(dir) => RunDir::open(dir),
            None => RunDir::open_latest(Path::new("runs").join(self.args.model.run_name())),
        }
    }

    /// Opens the trained model of `run`, which must have been trained as `recipe` says.
    pub(crate) fn open<C, M>(
        &self,
        recipe: &Recipe<C>,
        init: fn(&C, &Device) -> Result<M>,
        run: &RunDir,
    ) -> anyhow::Result<M>
    where
        C: Serialize + DeserializeOwned + PartialEq,
        M: Module,
    {
        let (dir, kind) = (run.path().display(), self.args.model);
        let trained: Trained<C> = run.config().with_context(|| {
            format!("{dir} is not a run of {kind}; give the --model of its training")
        })?;
        ensure!(
            trained.model == recipe.model && trained.objective == recipe.objective,
            "{dir} is a run of another model than {kind}; give the --model, --k, --estimator and \
             --data of its training"
        );
        let init = |config: &C| init(config, self.device);
        let loaded = load_pretrained(&run.final_dir(), &[], init)
            .with_context(|| format!("{dir}: no trained model; has its training ended?"))?;
        for warning in loaded.warnings() {
            eprintln!("{warning}");
        }
        Ok(loaded.into_inner())
    }

    /// Calls `evaluate` until it returns or a signal stops it.
    pub(crate) fn until_stopped(
        &self,
        evaluate: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match evaluate() {
            Err(error) if is_stop(&error, self.stop) => {
                outln!("stopped; the same command evaluates again from the beginning");
                Ok(())
            }
            result => result,
        }
    }
}

/// Whether a metric of an evaluation is one of samples.
fn is_of_samples(name: &str) -> bool {
    let of_watch = [DiversityWatch::DIVERSITY, DiversityWatch::NN_RATIO];
    let of_features = SampleMetrics::<4>::METRICS;
    of_watch.contains(&name) || of_features.iter().any(|(metric, _)| *metric == name)
}
