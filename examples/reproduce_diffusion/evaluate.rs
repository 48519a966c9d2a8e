//! Evaluation with features of a LeNet-5, and in bits per dimension.

use crate::train::NAME;
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{ClassLabels, DataLoader, ImageBatch},
    device::device,
    eval::{Estimate, FeatureStatistics, bootstrap},
    output::ImageGrid,
    rng::Rng,
    sampling::Samples,
};
use aigc_diffusion::{
    AnyDenoiser, AnyScheduler, BitsPerDim, ClassifierFreeGuidance, DdimScheduler, DdpmScheduler,
    DeisScheduler, Denoiser, DiffusionSampler, DpmMultistepScheduler, NoiseScheduleConfig,
    Pipeline, PredictionType, Scheduler, SigmaScheduleFlags, TimestepSpacing, UniPcScheduler,
};
use aigc_examples::{
    ClassifiedDigits, DigitClassifier, Gallery, ImagesConfig, Progress, complete, is_stop, outln,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Options of `evaluate`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directory with the four MNIST files that the model was trained on.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Weights of a LeNet-5 that classifies digits (`mnist-models/lenet5_csinva.safetensors`).
    #[arg(long, alias = "judge", value_name = "FILE")]
    classifier: PathBuf,
    /// Run directory; by default the newest of `runs/images-diffusion`.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Parts of the evaluation to run, in their fixed order; by default all.
    #[arg(long, value_delimiter = ',', default_values_t = [Part::Classes, Part::Distances, Part::Ddpm, Part::Bits])]
    parts: Vec<Part>,
    /// Guidance scale, for guided samples.
    #[arg(long, default_value_t = 2.0)]
    guidance: f64,
    /// Fraction of the samples to generate, for a quick check.
    #[arg(long, default_value_t = 1.0)]
    share: f64,
    /// Steps of the solvers, beside 20.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 10, 50])]
    solver_steps: Vec<usize>,
    /// Resampled sets of samples for the intervals of the comparison with DDPM.
    #[arg(long, default_value_t = 200)]
    bootstrap: usize,
    /// Steps of DDPM that the solvers are compared with.
    #[arg(long, default_value_t = 1000)]
    ddpm_steps: usize,
    /// Seed of the samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
}

/// A part of the evaluation.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Part {
    /// Fraction of samples of the requested class, with and without guidance.
    Classes,
    /// Fréchet distances of four solvers at 5 to 50 steps.
    Distances,
    /// Four solvers with 20 steps compared with many steps of DDPM, from the same noise.
    Ddpm,
    /// Bits per dimension of test images.
    Bits,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_possible_value()
            .expect("no part is hidden")
            .get_name()
            .fmt(f)
    }
}

/// Evaluates until `stop` is cancelled.
pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    match evaluate(options, &stop) {
        Err(error) if is_stop(&error, &stop) => {
            outln!(
                "stopped; the figures above are complete, and --parts with the other parts prints the rest"
            );
            Ok(())
        }
        result => result,
    }
}

fn evaluate(options: &Options, stop: &CancelToken) -> anyhow::Result<()> {
    let device = device(&options.device)?;
    if !(options.share > 0.0 && options.share <= 1.0) {
        return Err(Error::config("share", options.share, "above 0, at most 1").into());
    }
    if options.bootstrap < 20 {
        return Err(Error::config("bootstrap", options.bootstrap, "at least 20").into());
    }
    let n = |whole: usize| ((whole as f64 * options.share) as usize).max(2);
    let run = match &options.run {
        Some(run) => RunDir::open(run)?,
        None => RunDir::open_latest(Path::new("runs").join(NAME))?,
    };
    let pipeline =
        Pipeline::from_pretrained(run.path().join("pipeline"), &device).with_context(|| {
            format!(
                "{}: no pipeline; has its training ended?",
                run.path().display()
            )
        })?;
    for warning in pipeline.warnings() {
        eprintln!("{warning}");
    }
    let AnyScheduler::DpmMultistep(trained) = &pipeline.scheduler else {
        return Err(Error::config(
            "scheduler",
            pipeline.scheduler.class(),
            "DPMSolverMultistepScheduler, as `train` saves it",
        )
        .into());
    };
    let (noise, prediction, zero_snr) = (
        trained.noise.clone(),
        trained.prediction_type,
        trained.rescale_betas_zero_snr,
    );
    let images = ImagesConfig {
        path: Some(options.data.clone()),
        ..Default::default()
    }
    .open(500, 0)?;
    if images.shape != pipeline.shape {
        let expected = format!("{}, as the model generates them", pipeline.shape);
        return Err(Error::config("data", images.shape, expected).into());
    }
    let classifier = DigitClassifier::from_file(&options.classifier, images.shape, &device)?;
    let features = classifier.features(&images, &device, stop)?;
    let mut real = FeatureStatistics::new(features.width())?;
    real.add_features(&features)?;
    let bench = Bench {
        pipeline: &pipeline,
        classifier,
        real,
        seed: options.seed,
        bootstrap: options.bootstrap,
        device,
        stop,
    };

    let solvers = solvers(&noise, prediction, zero_snr);
    let requested = |part| options.parts.contains(&part);
    if requested(Part::Classes) {
        bench.classes(&solvers[0].1, n(2000), options.guidance, &run)?;
    }
    if requested(Part::Distances) {
        outln!(
            "Fréchet distance to {} test images in LeNet-5 features, no guidance:",
            bench.real.count()
        );
        for (name, solver) in &solvers {
            bench.distance(name, solver, 20, n(5000), 1.0)?;
        }
        bench.distance(
            "dpm-solver++ guided",
            &solvers[0].1,
            20,
            n(1000),
            options.guidance,
        )?;
        for &steps in &options.solver_steps {
            for (name, solver) in &solvers {
                bench.distance(name, solver, steps, n(1000), 1.0)?;
            }
        }
    }
    if requested(Part::Ddpm) {
        let ddpm = DdpmScheduler {
            noise: noise.clone(),
            prediction_type: prediction,
            rescale_betas_zero_snr: zero_snr,
            ..DdpmScheduler::default()
        };
        bench.against_ddpm(&ddpm, options.ddpm_steps, &solvers, n(500))?;
    }
    if requested(Part::Bits) {
        if zero_snr {
            outln!("bits per dimension: not defined for a schedule with zero terminal signal");
        } else {
            bench.bits(&noise, prediction, &images.held_out, n(500))?;
        }
    }
    Ok(())
}

/// The four solvers that are compared.
fn solvers(
    noise: &NoiseScheduleConfig,
    prediction_type: PredictionType,
    zero_snr: bool,
) -> Vec<(&'static str, AnyScheduler)> {
    let karras = SigmaScheduleFlags {
        use_karras_sigmas: !zero_snr,
        ..SigmaScheduleFlags::default()
    };
    let dpm = DpmMultistepScheduler {
        noise: noise.clone(),
        prediction_type,
        rescale_betas_zero_snr: zero_snr,
        sigmas: karras,
        ..DpmMultistepScheduler::default()
    };
    let unipc = UniPcScheduler {
        noise: noise.clone(),
        prediction_type,
        rescale_betas_zero_snr: zero_snr,
        sigmas: karras,
        ..UniPcScheduler::default()
    };
    let deis = DeisScheduler {
        noise: noise.clone(),
        prediction_type,
        sigmas: karras,
        ..DeisScheduler::default()
    };
    let ddim = DdimScheduler {
        noise: noise.clone(),
        prediction_type,
        rescale_betas_zero_snr: zero_snr,
        timestep_spacing: TimestepSpacing::Trailing,
        ..DdimScheduler::default()
    };
    let mut solvers: Vec<(_, AnyScheduler)> = vec![
        ("dpm-solver++", dpm.into()),
        ("unipc", unipc.into()),
        ("ddim", ddim.into()),
    ];
    // DEIS does not support zero terminal signal.
    if !zero_snr {
        solvers.insert(2, ("deis", deis.into()));
    }
    solvers
}

struct Bench<'a> {
    pipeline: &'a Pipeline,
    classifier: DigitClassifier,
    real: FeatureStatistics,
    seed: u64,
    bootstrap: usize,
    device: Device,
    stop: &'a CancelToken,
}

/// The samples that are classified as requested, in percent; 0 for samples without classes.
fn percent_right(found: &ClassifiedDigits) -> f64 {
    100.0 * found.right().map_or(0.0, |right| right.value())
}

impl Bench<'_> {
    fn progress(&self, samples: usize) -> Progress {
        Progress::new("samples", samples, self.stop)
    }

    fn sampler<'p>(
        &'p self,
        scheduler: &impl Scheduler,
        steps: usize,
        scale: f64,
        progress: &'p Progress,
    ) -> Result<DiffusionSampler<'p, AnyDenoiser>> {
        let Pipeline { network, shape, .. } = self.pipeline;
        let mut sampler = DiffusionSampler::new(network, scheduler, steps, *shape, &self.device)?
            .with_batch_size(100)
            .with_callback(move |at| progress.on_step(at));
        let real = self.pipeline.labels().len();
        if real > 0 {
            sampler = sampler.with_num_classes(real);
        }
        if scale != 1.0 {
            sampler = sampler.with_guidance(ClassifierFreeGuidance::new(scale));
        }
        Ok(sampler)
    }

    fn classify(&self, samples: &Samples) -> Result<ClassifiedDigits> {
        let mut found = ClassifiedDigits::new()?;
        self.classifier.add(&mut found, samples)?;
        Ok(found)
    }

    /// Prints the fraction of samples classified as requested.
    fn classes(
        &self,
        solver: &AnyScheduler,
        n: usize,
        scale: f64,
        run: &RunDir,
    ) -> anyhow::Result<()> {
        let classes = ClassLabels::PerSample((0..n as u32).map(|i| i % 10).collect());
        for scale in [1.0, scale] {
            let progress = self.progress(n);
            let samples = self
                .sampler(solver, 20, scale, &progress)?
                .with_classes(classes.clone())
                .sample(n, self.seed)?;
            drop(progress);
            let samples = complete(samples)?;
            let share = percent_right(&self.classify(&samples)?);
            outln!(
                "guidance {scale}: {share:.2} % of {n} samples are classified as requested (20 steps)"
            );
            let path = run.path().join(format!("guided-{scale}.png"));
            let shown = n.min(100);
            let labels = samples.labels.map(|labels| labels[..shown].to_vec());
            let shown = Samples {
                values: samples.values.narrow(0, 0, shown),
                labels,
                ..samples
            };
            Gallery::new(
                ImageGrid::new(10, self.pipeline.shape.width),
                "diffusion",
                NAME,
            )
            .with_weights(&[run.path().join("pipeline")])?
            .with_setting("scheduler", solver.class())
            .with_setting("num_inference_steps", 20)
            .with_setting("guidance_scale", scale)
            .save_samples(&shown, &path)?;
        }
        Ok(())
    }

    fn distance(
        &self,
        name: &str,
        solver: &AnyScheduler,
        steps: usize,
        n: usize,
        scale: f64,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let progress = self.progress(n);
        let samples = self
            .sampler(solver, steps, scale, &progress)?
            .sample(n, self.seed)?;
        drop(progress);
        let samples = complete(samples)?;
        // A GPU has finished once a value was read.
        samples.values.clone().sum().into_scalar::<f32>();
        let seconds = began.elapsed().as_secs_f64();
        let classified = self.classify(&samples)?;
        outln!(
            "  {name:<20} {steps:>3} steps: {:>7.2}, {:>6.2} % as requested ({n} samples, {:.1} ms each)",
            classified.frechet(&self.real)?,
            percent_right(&classified),
            1000.0 * seconds / n as f64,
        );
        Ok(())
    }

    /// Classifies `n` samples of noise that depends only on the seed.
    fn classified(
        &self,
        scheduler: &impl Scheduler,
        steps: usize,
        n: usize,
    ) -> Result<ClassifiedDigits> {
        let progress = self.progress(n);
        let sampler = self.sampler(scheduler, steps, 1.0, &progress)?;
        let noise = sampler.noise(n, self.seed);
        self.classify(&complete(sampler.sample_from_noise(&noise, self.seed)?)?)
    }

    /// Fails if the evaluation is to stop.
    fn check(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(Error::cancelled("the evaluation"));
        }
        Ok(())
    }

    /// Compares `steps` steps of DDPM with 20 steps of each solver, from the same noise and
    /// classes.
    fn against_ddpm(
        &self,
        ddpm: &DdpmScheduler,
        steps: usize,
        solvers: &[(&str, AnyScheduler)],
        n: usize,
    ) -> anyhow::Result<()> {
        let long = self.classified(ddpm, steps, n)?;
        let whole = long.frechet(&self.real)?;
        let mut rng = Rng::new(self.seed);
        let real = |items: &[usize]| {
            self.check()?;
            long.frechet_of(&self.real, items)
        };
        let (low, high) = bootstrap(n, self.bootstrap, 0.95, &mut rng, real)?;
        outln!(
            "  ddpm, {steps} steps: {whole:.2}, bootstrap 95 % {low:.2} to {high:.2} ({n} samples)"
        );
        for (name, solver) in solvers {
            let short = self.classified(solver, 20, n)?;
            let distance = short.frechet(&self.real)?;
            let ratio = |items: &[usize]| {
                self.check()?;
                let of = |found: &ClassifiedDigits| found.frechet_of(&self.real, items);
                Ok(of(&short)? / of(&long)?)
            };
            let (low, high) = bootstrap(n, self.bootstrap, 0.95, &mut rng, ratio)?;
            outln!(
                "  {name}, 20 steps from the same noise: {distance:.2}, {:+.1} % (bootstrap 95 % {:+.1} to {:+.1} %)",
                100.0 * (distance / whole - 1.0),
                100.0 * (low - 1.0),
                100.0 * (high - 1.0),
            );
        }
        Ok(())
    }

    fn bits(
        &self,
        noise: &NoiseScheduleConfig,
        prediction: PredictionType,
        test: &DataLoader<ImageBatch>,
        n: usize,
    ) -> anyhow::Result<()> {
        let likelihood = BitsPerDim::new(&self.pipeline.network, noise, prediction, &self.device)?;
        let mut rng = Rng::stream(self.seed, "bits", 0);
        let (mut bound, mut flow) = (Vec::new(), Vec::new());
        let progress = Progress::new("bits per dimension", 2 * n.min(test.num_items()), self.stop);
        for batch in test.iter_once() {
            let batch = batch?.take(n - bound.len());
            let classes = self.pipeline.network.num_classes().and(batch.labels());
            bound.extend(likelihood.variational_bound(&batch, classes, 200, &mut rng)?);
            progress.add(batch.len())?;
            flow.extend(likelihood.probability_flow(&batch, classes, 50, &mut rng)?);
            progress.add(batch.len())?;
            if bound.len() >= n {
                break;
            }
        }
        drop(progress);
        outln!(
            "bits per dimension of {} test images, given their classes: variational bound {:.3}, probability flow {:.3}",
            bound.len(),
            Estimate::from_samples(&bound)?,
            Estimate::from_samples(&flow)?,
        );
        Ok(())
    }
}
