//! Diffusion through the public interface: training, sampling, files.

use aigc_core::{
    CancelToken,
    checkpoint::RunDir,
    data::{
        ClassLabels, DataLoader, DataLoaderConfig, ImageShape, InMemory, SampleShape, ValueRange,
        collate_images, digits,
    },
    device::device,
    encoder::Autoencoder,
    eval::{FeatureStatistics, frechet_distance},
    params::{ParamMapper, map_params},
    rng::{InitWeights, Rng},
    testing::moments,
    train::{EmaConfig, Event, StartFrom, Trainer, TrainerConfig},
};
use aigc_diffusion::{
    AnyDenoiser, AnyScheduler, ClassifierFreeGuidance, Clipping, Conditioning, ControlNetConfig,
    Coupling, DdimScheduler, Denoiser, DiffusionObjective, DiffusionObjectiveConfig,
    DiffusionSampler, DitConfig, DpmMultistepScheduler, EdmEulerScheduler, EulerScheduler,
    FlowEulerScheduler, ForwardProcess, LossWeighting, NoiseScheduleConfig, Pipeline,
    PredictionType, TimestepSampling, UNet2dConditionConfig, UNet2dConfig, UNet2dModel,
    UniPcScheduler,
    models::{
        AdditionEmbedType, CrossDownBlockType, CrossUpBlockType, PerBlock, TransformerLayers,
    },
};
use aigc_tests::{bits, floats, integers, python_with, run_script, write_case};
use aigc_vae::{MlpVaeConfig, SpatialLatents, VaeConfig, VaeObjective};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};
use std::{collections::BTreeSet, path::Path};

fn flex() -> Device {
    device("flex").unwrap()
}

fn loader() -> DataLoader<aigc_core::data::ImageBatch> {
    let images = InMemory(digits::train_test_split().0.0[..64].to_vec());
    DataLoader::new(
        images,
        collate_images,
        DataLoaderConfig {
            batch_size: 16,
            ..DataLoaderConfig::default()
        },
    )
    .unwrap()
}

fn tiny(classes: Option<usize>) -> UNet2dConfig {
    UNet2dConfig {
        block_out_channels: vec![8, 16],
        null_class: classes.map(|classes| classes as u32 - 1),
        ..UNet2dConfig::small(digits::SHAPE, classes)
    }
}

/// All random parts at once: dropped labels, self-conditioning, coupled noise, averaged weights.
fn train(process: ForwardProcess, prediction: PredictionType, stops: &[usize]) -> UNet2dModel {
    let config = UNet2dConfig {
        in_channels: 2,
        ..tiny(Some(11))
    };
    let objective = DiffusionObjectiveConfig {
        process,
        prediction,
        weighting: if prediction == PredictionType::Flow {
            LossWeighting::Uniform
        } else {
            LossWeighting::MinSnr { gamma: 5.0 }
        },
        conditioning_dropout: 0.2,
        self_conditioning: 0.5,
    };
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let mut model = None;
    for (attempt, stop) in stops.iter().chain([&usize::MAX]).enumerate() {
        let flag = CancelToken::new();
        let raise = flag.clone();
        let network = config.init(&flex()).unwrap();
        let learning = DiffusionObjective::new(objective.clone(), &network).unwrap();
        let trainer = TrainerConfig {
            ema: Some(EmaConfig::new(0.9)),
            max_grad_norm: Some(1.0),
            ..TrainerConfig::new(6)
        };
        let trained = Trainer::new(trainer)
            .with_start(if attempt == 0 {
                StartFrom::Fresh
            } else {
                StartFrom::Resume
            })
            .with_cancel(flag)
            .with_callback(|event: &Event<'_>| {
                if let Event::Step(report) = event
                    && report.step == *stop
                {
                    raise.cancel();
                }
            })
            .fit(learning, network, &loader(), &run)
            .unwrap();
        model = Some(trained.model);
    }
    model.unwrap()
}

#[test]
fn interrupted_training_resumes_exactly() {
    let flow = ForwardProcess::FlowMatching {
        draw: TimestepSampling::LogitNormal {
            mean: 0.0,
            deviation: 1.0,
        },
        num_train_timesteps: 1000,
        coupling: Coupling::OptimalTransport,
    };
    for (process, prediction) in [
        (ForwardProcess::default(), PredictionType::V),
        (flow, PredictionType::Flow),
    ] {
        let whole = bits(&train(process.clone(), prediction, &[]));
        assert_eq!(bits(&train(process, prediction, &[2, 3])), whole);
    }
}

/// Mean and covariance of pixels.
fn statistics(x: Tensor<4>) -> FeatureStatistics {
    let mut statistics = FeatureStatistics::new(digits::SHAPE.numel()).unwrap();
    statistics.add(&x.flatten(1, 3)).unwrap();
    statistics
}

/// A short training with each process; samples are then far nearer to the data, by the Fréchet
/// distance of pixels, than the same samples with their pixels in another order.
#[test]
fn every_process_learns_the_data() {
    let edm = EdmEulerScheduler::default();
    let ddim = DdimScheduler {
        prediction_type: PredictionType::V,
        ..DdimScheduler::default()
    };
    let cases: [(ForwardProcess, PredictionType, AnyScheduler); 3] = [
        (ForwardProcess::default(), PredictionType::V, ddim.into()),
        (ForwardProcess::edm(), PredictionType::Epsilon, edm.into()),
        (
            ForwardProcess::flow(),
            PredictionType::Flow,
            FlowEulerScheduler::default().into(),
        ),
    ];
    let data = loader();
    let images = data
        .iter_once()
        .map(|batch| batch.unwrap().to_tensor(&flex()));
    let real = statistics(Tensor::cat(images.collect(), 0));
    for (process, prediction, scheduler) in cases {
        let network = tiny(None).init(&flex()).unwrap();
        let config = DiffusionObjectiveConfig {
            process,
            prediction,
            ..DiffusionObjectiveConfig::default()
        };
        let learning = DiffusionObjective::new(config, &network).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let trainer = TrainerConfig {
            learning_rate: 3e-3,
            ..TrainerConfig::new(200)
        };
        let trained = Trainer::new(trainer)
            .fit(learning, network, &loader(), &run)
            .unwrap()
            .model;
        let sampler =
            DiffusionSampler::new(&trained, &scheduler, 15, digits::SHAPE, &flex()).unwrap();
        let samples = sampler.sample(64, 0).unwrap().values;
        // 29 and 64 have no common divisor: a permutation.
        let order: Vec<i32> = (0..64).map(|i| (29 * i + 7) % 64).collect();
        let order = Tensor::<1, Int>::from_ints(order.as_slice(), &flex());
        let shuffled = samples.clone().reshape([64, 64]).select(1, order);
        let distance = |x| frechet_distance(&statistics(x), &real).unwrap();
        let (near, far) = (distance(samples), distance(shuffled.reshape([64, 1, 8, 8])));
        assert!(near < 0.4 * far, "{scheduler:?}: {near}, shuffled {far}");
    }
}

/// Learning in the latent space of a VAE, from images and back to images.
#[test]
fn latent_diffusion_trains_and_samples_with_a_vae() {
    let folder = tempfile::tempdir().unwrap();
    let vae = VaeConfig::Mlp(MlpVaeConfig {
        latent_dim: 16,
        ..MlpVaeConfig::new(digits::SHAPE)
    })
    .init(&flex())
    .unwrap();
    let run = RunDir::create(folder.path().join("vae")).unwrap();
    let objective = VaeObjective::new(Default::default()).unwrap();
    let vae = Trainer::new(TrainerConfig::new(60))
        .fit(objective, vae, &loader(), &run)
        .unwrap()
        .model;
    let shape = ImageShape::new(1, 4, 4);
    let autoencoder = SpatialLatents::new(vae, shape).unwrap();
    let batch = loader().iter_once().next().unwrap().unwrap();
    let latent = autoencoder.encode(batch.to_tensor(&flex())).mode();
    let scale = 1.0 / latent.flatten::<1>(0, 3).var(0).sqrt().into_scalar::<f64>();
    let network = UNet2dConfig::small(shape, Some(10))
        .with_null_class()
        .init(&flex())
        .unwrap()
        .init_weights(0);
    let untrained = network.clone();
    let config = DiffusionObjectiveConfig {
        conditioning_dropout: 0.1,
        ..DiffusionObjectiveConfig::default()
    };
    let learning = DiffusionObjective::new(config, &network)
        .unwrap()
        .with_autoencoder(autoencoder.clone(), scale)
        .unwrap();
    let run = RunDir::create(folder.path().join("latent")).unwrap();
    let trainer = TrainerConfig {
        learning_rate: 3e-3,
        ..TrainerConfig::new(200)
    };
    let trained = Trainer::new(trainer)
        .fit(learning, network, &loader(), &run)
        .unwrap()
        .model;
    let ddim = DdimScheduler {
        clipping: Clipping::NONE,
        ..DdimScheduler::default()
    };
    let sampler = |network| {
        DiffusionSampler::new(network, &ddim, 15, shape, &flex())
            .unwrap()
            .with_autoencoder(&autoencoder, scale)
    };
    let make = |network| {
        sampler(network)
            .with_num_classes(10)
            .sample(64, 0)
            .unwrap()
            .values
    };
    // As bright and as varied as reconstructions of the data, also pixel by pixel, on average.
    let known = autoencoder.decode(autoencoder.encode(batch.to_tensor(&flex())).mode());
    let made = make(&trained);
    assert_eq!(made.dims(), [64, 1, 8, 8]);
    let (found, expected) = (moments(&made), moments(&known));
    assert!(
        (found.0 - expected.0).abs() < 0.1 && (found.1 - expected.1).abs() < 0.1,
        "{found:?}, data {expected:?}"
    );
    let apart = |x: Tensor<4>| {
        (x.mean_dim(0) - known.clone().mean_dim(0))
            .abs()
            .mean()
            .into_scalar::<f64>()
    };
    let (near, far) = (apart(made), apart(make(&untrained)));
    assert!(near < 0.5 * far, "{near}, untrained {far}");
    assert!(
        sampler(&trained)
            .with_guidance(ClassifierFreeGuidance::new(2.0))
            .with_classes(ClassLabels::All(3))
            .sample(4, 0)
            .is_ok()
    );
}

/// Predicts the exact noise of data of a single value, for samples of any rank.
#[derive(Module, Debug)]
struct ExactNoise {
    value: f64,
}

impl<const D: usize> Denoiser<D> for ExactNoise {
    fn predict(&self, x: Tensor<D>, time: Tensor<1>, _condition: &Conditioning<D>) -> Tensor<D> {
        // The time is the same for the whole batch.
        let step = time.into_data().iter::<f64>().next().unwrap() as usize;
        let alpha = NoiseScheduleConfig::default().alphas_cumprod().unwrap()[step];
        (x - self.value * alpha.sqrt()) / (1.0 - alpha).sqrt()
    }

    fn check_shape(&self, _shape: SampleShape) -> aigc_core::Result<()> {
        Ok(())
    }
}

fn exact_sampler<'a, const D: usize>(
    network: &'a ExactNoise,
    shape: &[usize],
) -> aigc_core::Result<DiffusionSampler<'a, ExactNoise, D>> {
    let scheduler = DdimScheduler::default();
    DiffusionSampler::new(network, &scheduler, 20, SampleShape::new(shape), &flex())
}

/// Points and sound are sampled in the range of their data, which is unbounded by default.
#[test]
fn sampler_supports_samples_of_any_rank() {
    fn check<const D: usize>(samples: Tensor<D>, dims: [usize; D], expected: f64) {
        assert_eq!(samples.dims(), dims);
        let error = (samples - expected).abs().max().into_scalar::<f64>();
        assert!(error < 1e-3, "{dims:?}: {error}");
    }
    let network = ExactNoise { value: 0.3 };
    let points = exact_sampler::<2>(&network, &[2]).unwrap();
    check(points.sample(5, 0).unwrap().values, [5, 2], 0.3);
    let sound = exact_sampler::<3>(&network, &[1, 16]).unwrap();
    check(sound.sample(3, 0).unwrap().values, [3, 1, 16], 0.3);
    // Data in [0, 1], of which networks receive [−1, 1].
    let unit = sound.with_value_range(ValueRange::Unit);
    check(unit.sample(3, 0).unwrap().values, [3, 1, 16], 0.65);
    let images = exact_sampler::<4>(&network, &[1, 4, 4]).unwrap();
    check(images.sample(2, 0).unwrap().values, [2, 1, 4, 4], 0.65);
    let message = exact_sampler::<2>(&network, &[1, 16]).unwrap_err();
    assert!(message.to_string().contains("`shape` is 1×16"), "{message}");
}

/// Older versions of diffusers have other names for attention's weights.
#[test]
fn old_attention_names_open() {
    let flex = flex();
    let folder = tempfile::tempdir().unwrap();
    let config = UNet2dConfig {
        attention_head_dim: Some(4),
        ..tiny(None)
    };
    let network = AnyDenoiser::from(config.init(&flex).unwrap().init_weights(3));
    network.save_pretrained(folder.path()).unwrap();
    let path = folder.path().join("diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let old = |name: &str| {
        [
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ]
        .iter()
        .fold(name.to_owned(), |name, (new, old)| {
            name.replace(&format!(".{new}."), &format!(".{old}."))
        })
    };
    let named: Vec<_> = tensors
        .iter()
        .map(|(name, view)| (old(name), view))
        .collect();
    assert_eq!(
        named
            .iter()
            .filter(|(name, _)| tensors.tensor(name).is_err())
            .count(),
        32
    );
    std::fs::write(&path, safetensors::serialize(named, None).unwrap()).unwrap();
    let opened = AnyDenoiser::from_pretrained(folder.path(), &flex)
        .unwrap()
        .into_inner();
    let [a, b] = [&network, &opened].map(|network| {
        let x = Tensor::ones([1, 1, 8, 8], &flex);
        network
            .predict(x, Tensor::from_floats([3.0], &flex), &Default::default())
            .into_data()
    });
    assert_eq!(a, b);
}

/// The class that DiT had in older versions of diffusers; without the fields that DiT sets, it is
/// another network.
#[test]
fn old_dit_class_name_opens() {
    let flex = flex();
    let dir = tempfile::tempdir().unwrap();
    let config = DitConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        in_channels: 1,
        num_layers: 2,
        sample_size: 8,
        num_embeds_ada_norm: 3,
        ..DitConfig::default()
    };
    let network: AnyDenoiser = config.init(&flex).unwrap().init_weights(5).into();
    network.save_pretrained(dir.path()).unwrap();
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut fields: serde_json::Value = serde_json::from_str(&text).unwrap();
    fields["_class_name"] = "Transformer2DModel".into();
    std::fs::write(&path, fields.to_string()).unwrap();
    let other = AnyDenoiser::from_pretrained(dir.path(), &flex);
    let message = other.expect_err("another network").to_string();
    assert!(message.contains("`norm_type`"), "{message}");
    fields["norm_type"] = "ada_norm_zero".into();
    fields["norm_elementwise_affine"] = false.into();
    std::fs::write(&path, fields.to_string()).unwrap();
    let opened = AnyDenoiser::from_pretrained(dir.path(), &flex)
        .unwrap()
        .into_inner();
    assert_eq!(opened.class(), "DiTTransformer2DModel");
    let condition = Conditioning {
        class_labels: Some(Tensor::from_ints([2, 3], &flex)),
        ..Conditioning::default()
    };
    let [a, b] = [&network, &opened].map(|network| {
        let x = Rng::new(1).normal([2, 1, 8, 8], &flex);
        let time = Tensor::from_floats([999.0, 13.0], &flex);
        network.predict(x, time, &condition).into_data()
    });
    assert_eq!(a, b);
}

/// diffusers opens what is saved here: pipelines generate the same images from the same noise,
/// networks have the same outputs, and every scheduler's options are read as they were written.
#[test]
fn saved_pipelines_open_in_diffusers() {
    let Some(python) = python_with("diffusers, torch") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut names = BTreeSet::new();
    let mut place = |kind: &str, name: &str| {
        assert!(names.insert(name.to_owned()));
        let path = folder.path().join(kind).join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    // An untrained network as a prediction of the clean sample: its images are neither black nor
    // white.
    let noise = NoiseScheduleConfig::default();
    let prediction_type = PredictionType::Sample;
    let ddim = DdimScheduler {
        clipping: Clipping::NONE,
        prediction_type,
        ..DdimScheduler::default()
    };
    let dpm = DpmMultistepScheduler {
        prediction_type,
        noise: noise.clone(),
        ..DpmMultistepScheduler::default()
    };
    let euler = EulerScheduler {
        prediction_type,
        noise: noise.clone(),
        ..EulerScheduler::default()
    };
    let unipc = UniPcScheduler {
        prediction_type,
        noise,
        ..UniPcScheduler::default()
    };
    let wide = ImageShape::new(1, 8, 12);
    let cases: [(&str, Option<usize>, ImageShape, AnyScheduler, &str); 5] = [
        ("plain", None, digits::SHAPE, ddim.into(), "DDPMPipeline"),
        ("wide", None, wide, dpm.clone().into(), "DDPMPipeline"),
        (
            "class-conditional",
            Some(4),
            digits::SHAPE,
            dpm.into(),
            "DiffusionPipeline",
        ),
        // It starts from other noise than DDPMPipeline draws.
        (
            "scaled",
            None,
            digits::SHAPE,
            euler.into(),
            "DiffusionPipeline",
        ),
        // Its steps take no generator, which DDPMPipeline passes.
        (
            "without-noise",
            None,
            digits::SHAPE,
            unipc.into(),
            "DiffusionPipeline",
        ),
    ];
    for (name, classes, shape, scheduler, class) in cases {
        let path = place("pipelines", name);
        let config = UNet2dConfig {
            sample_size: Some(shape.into()),
            ..tiny(classes)
        };
        let network: AnyDenoiser = config.init(&flex()).unwrap().init_weights(1).into();
        let pipeline = Pipeline::new(network, scheduler, shape).unwrap();
        let pipeline = match classes {
            Some(_) => pipeline
                .with_labels(["a", "b", "c"].map(String::from).to_vec())
                .unwrap(),
            None => pipeline,
        };
        pipeline.save_pretrained(path.join("pipeline")).unwrap();
        let index = std::fs::read_to_string(path.join("pipeline/model_index.json")).unwrap();
        assert!(
            index.contains(&format!("\"_class_name\": \"{class}\"")),
            "{name}: {index}"
        );
        let steps = 6;
        let sampler = pipeline.sampler(steps, &flex()).unwrap();
        let sampler = if classes.is_some() {
            sampler.with_classes(ClassLabels::PerSample(vec![2, 0, 1]))
        } else {
            sampler
        };
        let noise = sampler.noise(3, 5);
        let images = sampler.sample_from_noise(&noise, 5).unwrap().values;
        let within =
            images.clone().greater_elem(0.01).float() * images.clone().lower_elem(0.99).float();
        assert!(
            within.mean().into_scalar::<f64>() > 0.9,
            "{name}: images are black and white"
        );
        let mut case = vec![("noise", floats(&noise)), ("images", floats(&images))];
        if classes.is_some() {
            case.push(("classes", integers(&[2, 0, 1], &[3])));
        }
        write_case(&path, &case);
        std::fs::write(path.join("steps.txt"), steps.to_string()).unwrap();
    }
    let [dit, condition] = ["dit", "condition"].map(|name| place("networks", name));
    let x = Rng::new(1).normal([2, 1, 8, 8], &flex());
    let time = Tensor::<1>::from_floats([999.0, 13.0], &flex());
    let config = DitConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        in_channels: 1,
        num_layers: 2,
        sample_size: 8,
        num_embeds_ada_norm: 3,
        ..DitConfig::default()
    };
    let network: AnyDenoiser = config.init(&flex()).unwrap().init_weights(5).into();
    let class = Conditioning {
        class_labels: Some(Tensor::from_ints([2, 3], &flex())),
        ..Conditioning::default()
    };
    let output = network.predict(x.clone(), time.clone(), &class);
    network.save_pretrained(&dit).unwrap();
    let case = [
        ("x", floats(&x)),
        ("time", integers(&[999, 13], &[2])),
        ("output", floats(&output)),
    ];
    write_case(
        &dit,
        &[&case[..], &[("classes", integers(&[2, 3], &[2]))]].concat(),
    );
    let config = UNet2dConditionConfig {
        in_channels: 1,
        out_channels: 1,
        down_block_types: vec![
            CrossDownBlockType::DownBlock2D,
            CrossDownBlockType::CrossAttnDownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::CrossAttnUpBlock2D,
            CrossUpBlockType::UpBlock2D,
        ],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: PerBlock::One(2),
        ..UNet2dConditionConfig::default()
    };
    let network: AnyDenoiser = config.init(&flex()).unwrap().init_weights(5).into();
    let tokens = Rng::new(2).normal([2, 3, 6], &flex());
    let condition_on = Conditioning {
        encoder_hidden_states: Some(tokens.clone()),
        ..Conditioning::default()
    };
    let output = network.predict(x.clone(), time, &condition_on);
    network.save_pretrained(&condition).unwrap();
    let case = [
        ("x", floats(&x)),
        ("time", integers(&[999, 13], &[2])),
        ("output", floats(&output)),
    ];
    write_case(
        &condition,
        &[&case[..], &[("tokens", floats(&tokens))]].concat(),
    );
    save_sdxl_like(&place("networks", "sdxl"), &place("networks", "controlnet"));
    for class in AnyScheduler::CLASSES {
        let scheduler = AnyScheduler::from_json(&format!("{{\"_class_name\": \"{class}\"}}"))
            .unwrap()
            .into_inner();
        std::fs::write(
            place("schedulers", class).join("scheduler_config.json"),
            scheduler.to_json(),
        )
        .unwrap();
    }
    let text = run_script(&python, "pipeline.py", folder.path());
    println!("{text}");
    for line in text.lines() {
        let (name, apart) = line.split_once(' ').unwrap();
        assert!(
            names.remove(name) && apart.parse::<f64>().unwrap() < 1e-5,
            "{line}"
        );
    }
    assert!(names.is_empty(), "no result for {names:?}");
}

/// A U-net with the options of SDXL's, and a ControlNet for it, with inputs and outputs.
fn save_sdxl_like(unet: &Path, controlnet: &Path) {
    let config = UNet2dConditionConfig {
        block_out_channels: vec![8, 16],
        down_block_types: vec![
            CrossDownBlockType::DownBlock2D,
            CrossDownBlockType::CrossAttnDownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::CrossAttnUpBlock2D,
            CrossUpBlockType::UpBlock2D,
        ],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: PerBlock::Each(vec![1, 2]),
        transformer_layers_per_block: TransformerLayers::Blocks(vec![
            PerBlock::One(0),
            PerBlock::Each(vec![2]),
        ]),
        reverse_transformer_layers_per_block: Some(vec![
            PerBlock::Each(vec![1, 2]),
            PerBlock::One(0),
        ]),
        use_linear_projection: true,
        addition_embed_type: Some(AdditionEmbedType::TextTime),
        addition_time_embed_dim: Some(4),
        projection_class_embeddings_input_dim: Some(6 * 4 + 10),
        upcast_attention: true,
        ..UNet2dConditionConfig::default()
    };
    let mut rng = Rng::new(5);
    let x: Tensor<4> = rng.normal([2, 4, 8, 8], &flex());
    let time = Tensor::<1>::from_floats([999.0, 13.0], &flex());
    let tokens: Tensor<3> = rng.normal([2, 3, 6], &flex());
    let pooled: Tensor<2> = rng.normal([2, 10], &flex());
    let image: Tensor<4> = rng.normal([2, 3, 16, 16], &flex());
    let sizes: Tensor<2> = rng.normal([2, 6], &flex()) * 100.0;
    let condition = Conditioning {
        encoder_hidden_states: Some(tokens.clone()),
        pooled_projections: Some(pooled.clone()),
        time_ids: Some(sizes.clone()),
        ..Conditioning::default()
    };
    let network = config.init(&flex()).unwrap().init_weights(5);
    network.save_pretrained(unet).unwrap();
    let case = [
        ("x", floats(&x)),
        ("time", integers(&[999, 13], &[2])),
        ("tokens", floats(&tokens)),
        ("text_embeds", floats(&pooled)),
        ("time_ids", floats(&sizes)),
    ];
    let output = network.predict(x.clone(), time.clone(), &condition);
    write_case(unet, &[&case[..], &[("output", floats(&output))]].concat());
    let config = ControlNetConfig {
        conditioning_embedding_out_channels: vec![4, 8],
        ..ControlNetConfig::from_unet(network.config())
    };
    let network = config.init_from_unet(&network, &flex()).unwrap();
    let network = map_params(network.init_weights(6), &mut NonZero(Rng::new(7)));
    network.save_pretrained(controlnet).unwrap();
    let output = network.forward(x, time, image.clone(), &condition, 1.0, false);
    let output = [("image", floats(&image)), ("output", floats(&output.mid))];
    write_case(controlnet, &[&case[..], &output].concat());
}

/// Gives the last convolutions of a ControlNet, which are zero at first, random weights.
struct NonZero(Rng);

impl ParamMapper for NonZero {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !path.starts_with("controlnet_") {
            return param;
        }
        let random: Tensor<D> = self.0.normal(param.val().dims(), &flex());
        Param::from_tensor(random * 0.1)
    }
}

/// Images of a seed are those of its noise.
#[test]
fn sample_from_noise_matches_sample() {
    let network: AnyDenoiser = tiny(None).init(&flex()).unwrap().init_weights(1).into();
    let pipeline = Pipeline::new(network, DdimScheduler::default(), digits::SHAPE).unwrap();
    let sampler = pipeline.sampler(4, &flex()).unwrap();
    let by_seed = sampler.sample(3, 8).unwrap().values.into_data();
    let by_noise = sampler
        .sample_from_noise(&sampler.noise(3, 8), 8)
        .unwrap()
        .values
        .into_data();
    assert_eq!(by_seed, by_noise);
    let other = sampler
        .sample_from_noise(&Rng::new(0).normal([3, 1, 8, 8], &flex()), 8)
        .unwrap()
        .values
        .into_data();
    assert_ne!(by_seed, other);
}
