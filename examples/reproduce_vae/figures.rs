//! The figures of a trained model with latent vectors.

use crate::{
    Kind,
    experiment::Experiment,
    table::{self, Published, Row},
};
use aigc_core::{
    Error, Result, burn::module::ModuleDisplay, checkpoint::RunDir, data::ClassLabels,
    eval::Features, output::ImageGrid, sampling::Samples,
};
use aigc_examples::{
    DigitFigures, Gallery, Progress, complete, labels_by_class, labels_in_turn, outln,
};
use aigc_vae::{
    ClassConditionalPrior, CovarianceType, EmConfig, EvaluationOptions, GaussianMixture,
    GaussianMixtureConfig, LogLikelihoodOptions, Vae, VaeSampler, WithPrior, active_units,
    encode_latents_by_class, log_likelihood, rate_distortion,
};

/// Components of the mixture that is fitted to the latents of each class.
const COMPONENTS: usize = 10;

impl Experiment<'_> {
    /// Saves samples of a model, and prints the table of its figures.
    pub(crate) fn report<V: Vae + ModuleDisplay>(
        &self,
        model: &V,
        published: Option<Published>,
        run: &RunDir,
    ) -> anyhow::Result<()> {
        let Some(classes) = model.condition_kind().num_classes else {
            let draw = |n, seed| self.samples(model, ClassLabels::Random, n, seed);
            self.save_samples(&complete(draw(100, 0)?)?, &self.gallery(run)?, run)?;
            let mut rows = self.likelihood(model, published)?;
            rows.extend(self.latents(model)?);
            rows.extend(self.classified(self.test_features()?.as_ref(), draw)?);
            self.print(&rows);
            return Ok(());
        };
        let fitted = self.with_fitted_prior(model)?;
        let shown = ClassLabels::PerSample(labels_by_class(classes, 10));
        let samples = self.samples(&fitted, shown, 10 * classes, 0)?;
        let gallery = self.gallery(run)?;
        let gallery = gallery.with_setting("prior", "a mixture of Gaussians per class");
        let gallery = gallery.with_setting("prior_seed", self.args.run.seed);
        self.save_samples(&complete(samples)?, &gallery, run)?;
        let mut rows = self.likelihood(model, published)?;
        rows.extend(self.latents(model)?);
        let features = self.test_features()?;
        let in_turn = |n| ClassLabels::PerSample(labels_in_turn(classes, n));
        rows.extend(self.classified(features.as_ref(), |n, seed| {
            self.samples(model, in_turn(n), n, seed)
        })?);
        let of_fitted = self.classified(features.as_ref(), |n, seed| {
            self.samples(&fitted, in_turn(n), n, seed)
        })?;
        let count = fitted.prior.priors[0].n_components();
        let note = format!("with a mixture of {count} Gaussians per class as prior");
        rows.extend(of_fitted.into_iter().map(|row| row.with_note(&note)));
        self.print(&rows);
        Ok(())
    }

    /// The classifier's features of the test images; none without a classifier.
    pub(crate) fn test_features(&self) -> Result<Option<Features>> {
        let classifier = self.classifier.as_ref();
        let features = classifier.map(|x| x.features(self.images, self.device, self.stop));
        features.transpose()
    }

    /// The model with a mixture of Gaussians as prior of each class, fitted to the latents of the
    /// training images (Ghosh et al. 2020).
    fn with_fitted_prior<V: Vae + ModuleDisplay>(
        &self,
        model: &V,
    ) -> Result<WithPrior<V, ClassConditionalPrior<GaussianMixture>>> {
        let seed = self.args.run.seed;
        let latents = self.images.read_training("latents", self.stop, |train| {
            encode_latents_by_class(model, train, self.device, seed)
        })?;
        // As many components for every class, also for the one with the fewest images.
        let least = latents.iter().map(Vec::len).min().unwrap_or(0);
        let mixture = GaussianMixtureConfig::new(COMPONENTS.min(least).max(1));
        let mixture = mixture.with_covariance_type(CovarianceType::Full);
        let em = EmConfig {
            seed,
            ..EmConfig::default()
        };
        let prior = ClassConditionalPrior::fit(&mixture, &latents, &em, self.device)?;
        WithPrior::new(model.clone(), prior)
    }

    /// Pictures of the trained model of a run.
    pub(crate) fn gallery(&self, run: &RunDir) -> Result<Gallery> {
        let grid = ImageGrid::new(10, self.images.shape.width);
        let gallery = Gallery::new(grid, "VAE", self.args.model.run_name());
        gallery
            .with_setting("network", self.args.model.to_string())
            .with_weights(&[run.final_dir()])
    }

    /// Saves samples to `samples.png`.
    pub(crate) fn save_samples(
        &self,
        samples: &Samples,
        gallery: &Gallery,
        run: &RunDir,
    ) -> Result<()> {
        let path = run.path().join("samples.png");
        gallery.save_samples(samples, &path)?;
        outln!("samples: {}", path.display());
        Ok(())
    }

    /// Prints the table.
    pub(crate) fn print(&self, rows: &[Row]) {
        let images = self.images.held_out.num_items();
        let title = format!("{} on {images} test images:", self.args.model);
        table::print(&title, rows);
    }

    /// Rows of the log-likelihood by importance sampling; none where it is not requested.
    fn likelihood<V: Vae>(&self, model: &V, published: Option<Published>) -> Result<Vec<Row>> {
        let (args, images) = (self.args, &self.images.held_out);
        if args.model.is_plain() && args.importance_samples.is_none() && !args.evaluate_only {
            return Ok(Vec::new());
        }
        let progress = Progress::new("log-likelihood", images.num_items(), self.stop);
        let k = args.importance_samples.unwrap_or(5000) as usize;
        let options = LogLikelihoodOptions::new()
            .with_importance_samples(k)
            .with_evaluation(self.evaluation(&progress));
        let found = log_likelihood(model, images, &options, self.device)?;
        self.check(found.complete)?;
        let nats = format!("{:.2} ± {:.2}", -found.mean, found.standard_error);
        Ok(vec![
            Row::new(format!("-log p(x) by {k} latents per image, nats"), nats)
                .with_published(published),
            Row::new(
                "effective latents per image, mean and least",
                format!(
                    "{:.1}, {:.1}",
                    found.mean_effective_sample_size, found.min_effective_sample_size
                ),
            ),
        ])
    }

    /// Rows of the bound and its divergence, and of the latent dimensions that are used.
    fn latents<V: Vae>(&self, model: &V) -> Result<Vec<Row>> {
        let images = &self.images.held_out;
        let progress = Progress::new("latents", images.num_items(), self.stop);
        let options = self.evaluation(&progress);
        let bound = rate_distortion(model, images, &options, self.device)?;
        self.check(bound.complete)?;
        let units = active_units(model, images, &options, self.device)?;
        self.check(units.complete)?;
        let mut rows = vec![
            Row::new("-ELBO, nats", format!("{:.2}", bound.loss(1.0))),
            Row::new("divergence, nats", format!("{:.2}", bound.rate)),
        ];
        if bound.group_rates.len() > 1 {
            let groups = bound.group_rates.iter().map(|nats| format!("{nats:.2}"));
            rows.push(Row::new(
                "divergence of each group, from the coarsest, nats",
                groups.collect::<Vec<_>>().join(", "),
            ));
        }
        let (active, all) = (units.active().len(), units.variances.len());
        rows.push(Row::new("active units", format!("{active} of {all}")));
        Ok(rows)
    }

    /// Rows of what the classifier finds in samples; none without a classifier. `features` are
    /// those of the test images; `draw` returns a number of samples of a seed.
    pub(crate) fn classified(
        &self,
        features: Option<&Features>,
        draw: impl FnMut(usize, u64) -> Result<Samples>,
    ) -> Result<Vec<Row>> {
        let Some((classifier, features)) = self.classifier.as_ref().zip(features) else {
            return Ok(Vec::new());
        };
        let (n, seed) = (self.args.samples as usize, self.args.run.seed);
        let DigitFigures {
            frechet,
            kid,
            prdc,
            histogram,
            entropy,
            right,
            samples,
            ..
        } = classifier.evaluate(features, n, seed, self.stop, draw)?;
        let mut rows = vec![
            Row::new(
                format!("Fréchet distance of {samples} samples, LeNet-5"),
                format!("{frechet:.2}"),
            ),
            Row::new(
                "total variation of their classes from uniform",
                format!("{:.3}", histogram.total_variation()),
            ),
            Row::new(
                "entropy of their classes, share of the largest",
                format!("{entropy:.3}"),
            ),
        ];
        rows.extend(kid.map(|kid| {
            let what = "kernel distance of KID over subsets of 1,000, LeNet-5";
            Row::new(what, format!("{kid:.4}"))
        }));
        rows.extend(prdc.into_iter().flat_map(|found| {
            [
                ("precision, LeNet-5", found.precision),
                ("recall, LeNet-5", found.recall),
                ("density, LeNet-5", found.density),
                ("coverage, LeNet-5", found.coverage),
            ]
            .map(|(what, value)| Row::new(what, format!("{value:.3}")))
        }));
        rows.extend(right.map(|right| {
            let share = format!("{:.2} %", 100.0 * right.value());
            let published = Published {
                value: "82 %",
                source: "a public CVAE",
            };
            Row::new("samples read as the digit asked for, LeNet-5", share)
                .with_published((self.args.model == Kind::Conditional).then_some(published))
        }));
        Ok(rows)
    }

    /// `n` samples of these classes.
    pub(crate) fn samples<V: Vae>(
        &self,
        model: &V,
        classes: ClassLabels,
        n: usize,
        seed: u64,
    ) -> Result<Samples> {
        VaeSampler::new(model, self.device)
            .with_classes(classes)
            .with_cancel(self.stop.clone())
            .sample(n, seed)
    }

    /// Options of evaluations that show their progress.
    fn evaluation<'p>(&self, progress: &'p Progress) -> EvaluationOptions<'p> {
        EvaluationOptions::new()
            .with_binarize(self.args.model.binarize())
            .with_cancel(self.stop.clone())
            .with_callback(move |at| progress.on_batch(at))
    }

    /// Fails if an evaluation was stopped.
    fn check(&self, complete: bool) -> Result<()> {
        if complete {
            Ok(())
        } else {
            Err(Error::cancelled("the evaluation"))
        }
    }
}
