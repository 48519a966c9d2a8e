//! Diffusion as a user meets it.

use aigc_core::{
    checkpoint::RunFolder,
    data::{Classes, ImageShape, InMemory, Loader, LoaderConfig, collate_images, digits},
    device::device,
    latent::Autoencoder,
    rng::{Rng, Seeded},
    train::{EmaConfig, Event, Start, StopFlag, Trainer, TrainerConfig},
};
use aigc_diffusion::{
    AnyDenoiser, AnyScheduler, Clipping, Coupling, DdimScheduler, DiffusionObjective, DiffusionObjectiveConfig,
    DpmMultistepScheduler, EdmEulerScheduler, FlowDraw, FlowEulerScheduler, Guidance, Pipeline, Prediction, Process,
    Sampler, UNet2dConfig, UNet2dModel, Weighting,
};
use aigc_tests::bits;
use aigc_vae::{Folded, MlpVaeConfig, VaeConfig, VaeObjective};
use burn::tensor::{Device, Tensor};
use std::{path::Path, process::Command};

fn flex() -> Device {
    device("flex").unwrap()
}

fn loader() -> Loader<aigc_core::data::ImageBatch> {
    let images = InMemory(digits::split().0.0[..64].to_vec());
    Loader::new(images, collate_images, LoaderConfig { batch_size: 16, ..LoaderConfig::default() }).unwrap()
}

fn tiny(classes: Option<usize>) -> UNet2dConfig {
    UNet2dConfig { block_out_channels: vec![8, 16], ..UNet2dConfig::small(digits::SHAPE, classes) }
}

/// Everything random at once: classes that are hidden, a network that looks back, noise that is exchanged, averaged weights.
fn train(process: Process, prediction: Prediction, stops: &[usize]) -> UNet2dModel {
    let config = UNet2dConfig { in_channels: 2, ..tiny(Some(11)) };
    let objective = DiffusionObjectiveConfig {
        process,
        prediction,
        weighting: if prediction == Prediction::Flow { Weighting::Uniform } else { Weighting::MinSnr { gamma: 5.0 } },
        class_dropout: 0.2,
        self_conditioning: 0.5,
    };
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path().join("run")).unwrap();
    let mut model = None;
    for (attempt, stop) in stops.iter().chain([&usize::MAX]).enumerate() {
        let flag = StopFlag::new();
        let raise = flag.clone();
        let network = config.init(&flex()).unwrap();
        let learning = DiffusionObjective::new(objective.clone(), &network).unwrap();
        let trainer = TrainerConfig { ema: Some(EmaConfig::new(0.9)), clip_norm: Some(1.0), ..TrainerConfig::new(6) };
        let trained = Trainer::new(trainer)
            .start(if attempt == 0 { Start::Fresh } else { Start::Resume })
            .stop_flag(flag)
            .observe(|event: &Event<'_>| {
                if let Event::Step(report) = event
                    && report.step == *stop
                {
                    raise.raise();
                }
            })
            .fit(learning, network, &loader(), &run)
            .unwrap();
        model = Some(trained.model);
    }
    model.unwrap()
}

#[test]
fn a_stopped_training_goes_on_exactly() {
    let flow = Process::Flow {
        draw: FlowDraw::LogitNormal { mean: 0.0, deviation: 1.0 },
        num_train_timesteps: 1000,
        coupling: Coupling::OptimalTransport,
    };
    for (process, prediction) in [(Process::default(), Prediction::V), (flow, Prediction::Flow)] {
        let whole = bits(&train(process.clone(), prediction, &[]));
        assert_eq!(bits(&train(process, prediction, &[2, 3])), whole);
    }
}

/// A short training with each process; its sampler then makes images as bright and as varied as the data.
#[test]
fn every_process_learns_and_is_sampled() {
    let edm = EdmEulerScheduler::default();
    let ddim = DdimScheduler { prediction_type: Prediction::V, ..DdimScheduler::default() };
    let cases: [(Process, Prediction, AnyScheduler); 3] = [
        (Process::default(), Prediction::V, ddim.into()),
        (Process::edm(), Prediction::Epsilon, edm.into()),
        (Process::flow(), Prediction::Flow, FlowEulerScheduler::default().into()),
    ];
    // Mean and deviation of the digits' values.
    let batch = loader().pass().next().unwrap().unwrap();
    let real: Vec<f64> = batch.images(&flex()).into_data().iter::<f64>().collect();
    let moments = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
    };
    let real = moments(&real);
    for (process, prediction, scheduler) in cases {
        let network = tiny(None).init(&flex()).unwrap();
        let config = DiffusionObjectiveConfig { process, prediction, ..DiffusionObjectiveConfig::default() };
        let learning = DiffusionObjective::new(config, &network).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path().join("run")).unwrap();
        let trainer = TrainerConfig { learning_rate: 3e-3, ..TrainerConfig::new(200) };
        let trained = Trainer::new(trainer).fit(learning, network, &loader(), &run).unwrap().model;
        let sampler = Sampler::new(&trained, &scheduler, 15, digits::SHAPE, &flex()).unwrap();
        let made: Vec<f64> = sampler.sample(64, 0).unwrap().images.into_data().iter::<f64>().collect();
        let made = moments(&made);
        assert!(
            (made.0 - real.0).abs() < 0.1 && (made.1 - real.1).abs() < 0.1,
            "{scheduler:?}: {made:?}, data {real:?}"
        );
    }
}

/// Learning in the latent space of a VAE, from images and back to images.
#[test]
fn latent_diffusion_goes_through_a_vae() {
    let folder = tempfile::tempdir().unwrap();
    let vae = VaeConfig::Mlp(MlpVaeConfig { latent: 16, ..MlpVaeConfig::new(digits::SHAPE) }).init(&flex()).unwrap();
    let run = RunFolder::create(folder.path().join("vae")).unwrap();
    let objective = VaeObjective::new(Default::default()).unwrap();
    let vae = Trainer::new(TrainerConfig::new(60)).fit(objective, vae, &loader(), &run).unwrap().model;
    let shape = ImageShape::new(1, 4, 4);
    let autoencoder = Folded::new(vae, shape).unwrap();
    let batch = loader().pass().next().unwrap().unwrap();
    let latent = autoencoder.encode(batch.images(&flex()));
    let scale = 1.0 / latent.flatten::<1>(0, 3).var(0).sqrt().into_scalar::<f64>();
    let network = UNet2dConfig::small(shape, Some(11)).init(&flex()).unwrap();
    let config = DiffusionObjectiveConfig { class_dropout: 0.1, ..DiffusionObjectiveConfig::default() };
    let learning = DiffusionObjective::new(config, &network).unwrap().through(autoencoder.clone(), scale).unwrap();
    let run = RunFolder::create(folder.path().join("latent")).unwrap();
    let trained = Trainer::new(TrainerConfig::new(3)).fit(learning, network, &loader(), &run).unwrap().model;
    let ddim = DdimScheduler { clipping: Clipping::NONE, ..DdimScheduler::default() };
    let sampler = Sampler::new(&trained, &ddim, 5, shape, &flex()).unwrap();
    let sampler = sampler.through(&autoencoder, scale).unwrap().guided(Guidance::new(2.0)).unwrap();
    let images = sampler.of(Classes::One(3)).sample(4, 0).unwrap().images;
    assert_eq!(images.dims(), [4, 1, 8, 8]);
    let values: Vec<f32> = images.into_data().iter::<f32>().collect();
    assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
}

fn has_diffusers(python: &str) -> bool {
    Command::new(python).args(["-c", "import diffusers, torch"]).output().is_ok_and(|output| output.status.success())
}

/// What is saved here, diffusers opens, and makes the same images of the same noise.
#[test]
fn diffusers_opens_what_is_saved() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    if !has_diffusers(&python) {
        println!("skipped: {python} has no diffusers (PYTHON names another)");
        return;
    }
    let ddim = DdimScheduler { clipping: Clipping::NONE, ..DdimScheduler::default() };
    let cases: [(Option<usize>, AnyScheduler); 2] =
        [(None, ddim.into()), (Some(4), DpmMultistepScheduler::default().into())];
    for (classes, scheduler) in cases {
        let folder = tempfile::tempdir().unwrap();
        let network: AnyDenoiser = tiny(classes).init(&flex()).unwrap().seeded(1).into();
        let pipeline = Pipeline::new(network, scheduler, digits::SHAPE).unwrap();
        let pipeline = match classes {
            Some(_) => pipeline.with_labels(["a", "b", "c"].map(String::from).to_vec()).unwrap(),
            None => pipeline,
        };
        pipeline.save(folder.path().join("pipeline")).unwrap();
        let steps = 6;
        let sampler = pipeline.sampler(steps, &flex()).unwrap();
        let sampler = if classes.is_some() { sampler.of(Classes::Each(vec![2, 0, 1])) } else { sampler };
        let noise = sampler.noise(3, 5);
        let images = sampler.from_noise(&noise, 5).unwrap().images * 2.0 - 1.0;
        write_case(folder.path(), &noise, &images, classes.map(|_| [2, 0, 1]));
        std::fs::write(folder.path().join("steps.txt"), steps.to_string()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/pipeline.py");
        let output = Command::new(&python).arg(script).arg(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let apart: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        println!("{}: {apart:.1e}", pipeline.scheduler.class());
        assert!(apart < 2e-3, "{apart}");
    }
}

fn write_case(folder: &Path, noise: &Tensor<4>, images: &Tensor<4>, classes: Option<[i64; 3]>) {
    use safetensors::tensor::{Dtype, TensorView};
    let bytes = |tensor: &Tensor<4>| -> Vec<u8> { tensor.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect() };
    let (noise_bytes, image_bytes) = (bytes(noise), bytes(images));
    let class_bytes: Vec<u8> = classes.iter().flatten().flat_map(|class| class.to_le_bytes()).collect();
    let view = |bytes| TensorView::new(Dtype::F32, noise.dims().to_vec(), bytes).unwrap();
    let mut tensors = vec![("noise", view(&noise_bytes)), ("images", view(&image_bytes))];
    if classes.is_some() {
        tensors.push(("classes", TensorView::new(Dtype::I64, vec![3], &class_bytes).unwrap()));
    }
    std::fs::write(folder.join("case.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
}

/// Noise of one seed, whatever is made of it, and images of given noise.
#[test]
fn images_come_from_their_noise() {
    let network: AnyDenoiser = tiny(None).init(&flex()).unwrap().seeded(1).into();
    let pipeline = Pipeline::new(network, DdimScheduler::default(), digits::SHAPE).unwrap();
    let sampler = pipeline.sampler(4, &flex()).unwrap();
    let by_seed = sampler.sample(3, 8).unwrap().images.into_data();
    let by_noise = sampler.from_noise(&sampler.noise(3, 8), 8).unwrap().images.into_data();
    assert_eq!(by_seed, by_noise);
    let other = sampler.from_noise(&Rng::new(0).normal([3, 1, 8, 8], &flex()), 8).unwrap().images.into_data();
    assert_ne!(by_seed, other);
}
