//! The adversarial networks of `digits`.

use crate::{
    Args,
    job::{BATCH, Job, Settings, list},
};
use aigc_core::{
    Error,
    burn::tensor::{Device, Tensor},
    data::{ImageBatch, Loader},
    eval::{ClassHistogram, Classifier, Moments, Neighbours, frechet_distance},
    output::{save_gif, save_png},
    rng::Rng,
    train::{
        EmaConfig, LossPlot, Metrics, MetricsLog, OptimizerConfig, ProgressBar, Schedule, StopFlag, StopReason,
        Trainer, TrainerConfig,
    },
};
use aigc_examples::{Images, ImagesConfig, say_how_to_go_on};
use aigc_gan::{
    AnyGan, Augment, ClassesConfig, DcganConfig, DiffAugment, GanConfig, GanObjective, GanObjectiveConfig, Generator,
    MlpGanConfig, Sampler,
};
use anyhow::Result;
use std::time::Duration;

/// Samples that an evaluation looks at.
const JUDGED: usize = 1000;

pub(crate) fn run(args: &Args, device: &Device, stop: StopFlag, conditional: bool) -> Result<()> {
    let name = if conditional { "digits-cgan" } else { "digits-gan" };
    let job = Job::prepare(args, name, || defaults(args, conditional))?;
    let Settings { model, trainer, objective, data } = &job.settings;
    let (images, grid) = (&job.images, job.grid());
    let seed = trainer.seed;
    let gan = model.init(device)?;
    let players = GanObjective::new(objective.clone(), &gan)?;
    let judge = Judge::new(images, seed, device)?;
    let run = &job.folder(args)?;

    let trained = Trainer::new(trainer.clone())
        .start(args.start())
        .stop_flag(stop)
        .model_config(model)?
        .objective_config(objective)?
        .data_config(data)?
        .observe(ProgressBar::new())
        .observe(MetricsLog::every(10))
        .observe(LossPlot::new())
        .evaluate(|gan| judge.metrics(gan))
        .preview(|gan, at| {
            let sampler = Sampler::new(&gan.generator, device);
            save_png(&show(&sampler, gan, seed)?, grid, &at.run.sample_path(at.step, "png"))
        })
        .fit(players, gan, &images.train, run)?;
    if trained.reason == StopReason::Interrupted {
        say_how_to_go_on(trained.step, run);
        return Ok(());
    }

    let sampler = Sampler::new(&trained.model.generator, device);
    let mut rng = Rng::keyed(seed, "pictures", 0);
    let at = |name: &str| run.path().join(name);
    save_png(&show(&sampler, &trained.model, seed)?, grid, &at("samples.png"))?;
    save_gif(sampler.interpolate(20, 30, &mut rng)?, grid, Duration::from_millis(80), &at("walk.gif"))?;
    let samples = sampler.sample(10, &mut rng)?;
    save_png(&Tensor::cat(vec![samples.clone(), judge.known.images(&samples)?], 0), grid, &at("nearest.png"))?;
    let value = |name: &str| trained.metrics.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    println!();
    if let (Some(distance), Some((_, among_real))) = (value("frechet"), &judge.held_out) {
        println!(
            "Fréchet distance in pixels: {distance:.3} between {JUDGED} samples and {} held-out images ({:.3} between \
             training and held-out images)\n  How far the two clouds of images lie apart: lower is better.",
            images.held_out.items(),
            among_real
        );
    }
    if let (Some(uneven), Some(seen)) = (value("uneven"), value("classes")) {
        println!(
            "{seen:.0} classes appear; {:.1} % of the samples would have to move to make them even",
            100.0 * uneven
        );
    }
    if let Some(right) = value("right") {
        println!(
            "{:.1} % of the samples are read as the class asked for (by the nearest training image)",
            100.0 * right
        );
    }
    println!();
    let samples = if conditional { "a row for each class" } else { "100 images it invented" };
    list(
        run,
        &[
            ("samples.png", samples),
            ("nearest.png", "ten samples, each with the most similar training image below"),
            ("walk.gif", "a walk from noise to noise"),
            ("loss.svg", "how the losses went"),
            ("metrics.jsonl", "the same, as numbers"),
            ("final/model.safetensors", "the weights, for Python too"),
        ],
    );
    Ok(())
}

/// 100 samples, or ten of each class; always of the same noise.
fn show<G: Generator>(sampler: &Sampler<'_, G>, gan: &AnyGan, seed: u64) -> aigc_core::Result<Tensor<4>> {
    let mut rng = Rng::keyed(seed, "preview", 0);
    if gan.generator.classes().is_some() { sampler.class_grid(10, &mut rng) } else { sampler.sample(100, &mut rng) }
}

/// What judges samples: distance to held-out images, and classes by the nearest training image.
struct Judge {
    /// Of held-out images, and their distance to training images: what a perfect generator would reach. Nothing where
    /// images are too large for their pixels to be features, or too few.
    held_out: Option<(Moments, f64)>,
    known: Neighbours,
    seed: u64,
    device: Device,
}

/// Values of the largest images whose pixels are features: the work grows with the third power.
const MOST_PIXELS: usize = 1024;
/// Nobody is judged by more than this many training images.
const MOST_KNOWN: usize = 10_000;

impl Judge {
    fn new(images: &Images, seed: u64, device: &Device) -> aigc_core::Result<Self> {
        let moments = |loader: &Loader<ImageBatch>| {
            let mut moments = Moments::new(images.shape.numel())?;
            for batch in loader.pass() {
                moments.add(&batch?.images(device).flatten(1, 3))?;
            }
            Ok::<_, Error>(moments)
        };
        let measurable = images.shape.numel() <= MOST_PIXELS && images.held_out.items() > 1 && images.train.items() > 1;
        let held_out = match measurable {
            true => {
                let held_out = moments(&images.held_out)?;
                let among_real = frechet_distance(&moments(&images.train)?, &held_out)?;
                Some((held_out, among_real))
            }
            false => None,
        };
        let known = Neighbours::from_batches(images.train.pass(), MOST_KNOWN, device)?;
        Ok(Self { held_out, known, seed, device: device.clone() })
    }

    fn metrics(&self, gan: &AnyGan) -> aigc_core::Result<Metrics> {
        let sampler = Sampler::new(&gan.generator, &self.device);
        let mut rng = Rng::keyed(self.seed, "judged", 0);
        let (pictures, asked) = match gan.generator.classes() {
            Some(_) => sampler.labelled(JUDGED, &mut rng)?,
            None => (sampler.sample(JUDGED, &mut rng)?, Vec::new()),
        };
        let mut metrics = Vec::new();
        if let Some((held_out, _)) = &self.held_out {
            let mut moments = Moments::new(held_out.mean().len())?;
            moments.add(&pictures.clone().flatten(1, 3))?;
            metrics.push(("frechet".to_string(), frechet_distance(held_out, &moments)?));
        }
        if let Some(classes) = self.known.classes() {
            let read = self.known.classify(pictures).classes();
            let right = read.iter().zip(&asked).filter(|(a, b)| a == b).count();
            let mut histogram = ClassHistogram::new(classes)?;
            histogram.add(read)?;
            metrics.push(("uneven".into(), histogram.distance_to_uniform()));
            metrics.push(("classes".into(), histogram.covered() as f64));
            if !asked.is_empty() {
                metrics.push(("right".into(), right as f64 / asked.len() as f64));
            }
        }
        Ok(metrics)
    }
}

fn defaults(args: &Args, conditional: bool) -> Result<(Settings<GanConfig, GanObjectiveConfig>, Images)> {
    let data = ImagesConfig { path: args.data.clone(), side: args.side, rgb: args.rgb };
    let images = data.open(BATCH, args.seed)?;
    let shape = images.shape;
    let mut classes = None;
    if conditional {
        let mut count = Some(0);
        for batch in images.train.pass() {
            let most = batch?.label_values().and_then(|labels| labels.iter().max().copied());
            count = count.zip(most).map(|(count, most)| (most as usize + 1).max(count));
        }
        let count =
            count.ok_or_else(|| Error::config("data", "images without labels", "labelled ones, to make classes"))?;
        classes = Some(ClassesConfig::new(count));
    }
    let foldable = shape.height == shape.width && shape.height % 4 == 0;
    let model = if foldable {
        GanConfig::Dcgan(DcganConfig { classes, ..DcganConfig::new(shape) })
    } else {
        GanConfig::Mlp(MlpGanConfig { classes, ..MlpGanConfig::new(shape) })
    };
    // 1,500 images are few: moved a little, they last longer.
    let augment = Augment::Diff(DiffAugment { color: false, translation: 0.125, cutout: 0.0 });
    let trainer = TrainerConfig {
        seed: args.seed,
        minutes: Some(2.0),
        learning_rate: 5e-4,
        schedule: Schedule::linear(0),
        optimizer: OptimizerConfig::adam(0.5, 0.99),
        ema: Some(EmaConfig::new(0.998)),
        evaluate_every: 500,
        preview_every: 500,
        checkpoint_every: 500,
        ..TrainerConfig::new(4000)
    };
    let objective = GanObjectiveConfig { augment, ..GanObjectiveConfig::default() };
    Ok((Settings { model, trainer, objective, data }, images))
}
