//! The objective, with networks whose losses are known.

use super::*;
use crate::{
    denoiser::Conditioning,
    models::{AnyDenoiser, TimeEmbeddingType, UNet2dConfig},
    prediction::{NoiseLevel, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::encoder::{Deterministic, Posterior};
use aigc_core::{
    data::{
        DataLoader, DataLoaderConfig, Image, ImageShape, InMemory, SampleShape, ValueRange,
        collate_images,
    },
    device::device,
    nn::{Initializer, Linear, LinearConfig},
    rng::{InitWeights, Rng},
    testing::temp_run,
    train::{OptimizerConfig, Trainer, TrainerConfig},
};
use burn::{module::Module, tensor::Device};

/// Predicts a constant.
#[derive(Module, Debug)]
struct Constant {
    value: f32,
    classes: Option<usize>,
}

impl Denoiser for Constant {
    fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        assert_eq!(condition.class_labels.is_some(), self.classes.is_some());
        x.zeros_like() + self.value
    }

    fn check_shape(&self, _shape: SampleShape) -> Result<()> {
        Ok(())
    }

    fn num_classes(&self) -> Option<usize> {
        self.classes
    }
}

/// Predicts the mean of its encoder hidden states.
#[derive(Module, Debug)]
struct Attends;

impl Denoiser for Attends {
    fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let states = condition.encoder_hidden_states.clone().unwrap();
        let mean = states.mean_dim(2).mean_dim(1).unsqueeze_dim::<4>(3);
        mean.expand(x.dims())
    }

    fn check_shape(&self, _shape: SampleShape) -> Result<()> {
        Ok(())
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(6)
    }
}

/// Predicts the mean of its class embeddings.
#[derive(Module, Debug)]
struct Embeds;

impl Denoiser for Embeds {
    fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let vectors = condition.class_embeddings.clone().unwrap();
        let mean: Tensor<4> = vectors.mean_dim(1).reshape([-1, 1, 1, 1]);
        mean.expand(x.dims())
    }

    fn check_shape(&self, _shape: SampleShape) -> Result<()> {
        Ok(())
    }

    fn class_embedding_dim(&self) -> Option<usize> {
        Some(6)
    }
}

/// Predicts the noise of samples whose values are all the same, for samples of any rank. It learns
/// the value.
#[derive(Module, Debug)]
struct LearnedValue {
    value: Linear,
}

impl<const D: usize> Denoiser<D> for LearnedValue {
    fn predict(&self, x: Tensor<D>, time: Tensor<1>, _condition: &Conditioning<D>) -> Tensor<D> {
        let alphas = NoiseScheduleConfig::default().alphas_cumprod().unwrap();
        let times: Vec<f64> = time.into_data().iter::<f64>().collect();
        let weights = |weight: fn(f64) -> f64| {
            let weights: Vec<f64> = times
                .iter()
                .map(|time| weight(alphas[*time as usize]))
                .collect();
            each(&weights, &x)
        };
        let value: Tensor<D> = self.value.weight.val().reshape([1; D]);
        (x.clone() - value * weights(f64::sqrt)) / weights(|alpha| (1.0 - alpha).sqrt())
    }

    fn check_shape(&self, _shape: SampleShape) -> Result<()> {
        Ok(())
    }
}

/// A batch of this shape whose values are all 0.3.
struct Equal<const D: usize>([usize; D]);

impl<const D: usize> SampleBatch<D> for Equal<D> {
    fn to_tensor(&self, device: &Device) -> Tensor<D> {
        Tensor::full(self.0, 0.3, device)
    }

    fn len(&self) -> usize {
        self.0[0]
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&self.0[1..])
    }

    fn value_range(&self) -> ValueRange {
        ValueRange::Unbounded
    }
}

/// Points, sound and video. The loss is `(value − 0.3)²·E[min(SNR, 1)]`, with an expectation of
/// 0.36: a step of gradient descent at a rate of a half multiplies the error of the value by about
/// 0.64.
#[test]
fn objective_trains_on_samples_of_any_rank() {
    fn check<const D: usize>(shape: [usize; D]) {
        let flex = device("flex").unwrap();
        let value = LinearConfig::new(1, 1)
            .with_bias(false)
            .with_initializer(Initializer::Constant(0.0))
            .init(&flex);
        let network = LearnedValue { value };
        let objective = || {
            let config = DiffusionObjectiveConfig {
                weighting: LossWeighting::MinSnr { gamma: 1.0 },
                ..DiffusionObjectiveConfig::default()
            };
            DiffusionObjective::<LearnedValue, Equal<D>, D>::new(config, &network).unwrap()
        };
        let collate = move |items: Vec<u8>| {
            let mut dims = shape;
            dims[0] = items.len();
            Equal(dims)
        };
        let config = DataLoaderConfig {
            batch_size: shape[0],
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(vec![0_u8; shape[0]]), collate, config).unwrap();
        let config = TrainerConfig {
            optimizer: OptimizerConfig::sgd(),
            learning_rate: 0.5,
            ..TrainerConfig::new(40)
        };
        let run = temp_run().unwrap();
        let trained = Trainer::new(config)
            .fit(objective(), network.clone(), &loader, &run)
            .unwrap()
            .model;
        let value = trained.value.weight.val().into_scalar::<f64>();
        assert!((value - 0.3).abs() < 1e-3, "{shape:?}: {value}");
        let mut context = StepContext::new(0, 1, flex, Rng::new(3));
        let losses = objective().losses(&trained, &Equal(shape), &mut context);
        let loss = losses.unwrap().loss.into_scalar::<f64>();
        assert!(loss < 1e-6, "{shape:?}: {loss}");
    }
    check([64, 2]);
    check([64, 1, 8]);
    check([64, 1, 2, 4, 4]);
}

/// Discrete times begin at 0, and those of EDM are negative: fourier embeddings, of `ln t`, would
/// be infinite or NaN.
#[test]
fn processes_have_to_fit_the_time_embedding() {
    fn new<N: Denoiser>(
        process: ForwardProcess,
        prediction: PredictionType,
        network: &N,
    ) -> Result<()> {
        let config = DiffusionObjectiveConfig {
            process,
            prediction,
            ..DiffusionObjectiveConfig::default()
        };
        DiffusionObjective::<N>::new(config, network).map(|_| ())
    }
    let network = |time_embedding_type| {
        let config = UNet2dConfig {
            time_embedding_type,
            ..UNet2dConfig::small(ImageShape::new(1, 8, 8), None)
        };
        config.init(&device("flex").unwrap()).unwrap()
    };
    let positional = network(TimeEmbeddingType::Positional);
    let fourier = network(TimeEmbeddingType::Fourier);
    let any = AnyDenoiser::from(fourier.clone());
    for process in [ForwardProcess::default(), ForwardProcess::edm()] {
        new(process.clone(), PredictionType::Epsilon, &positional).unwrap();
        for error in [
            new(process.clone(), PredictionType::Epsilon, &fourier),
            new(process, PredictionType::Epsilon, &any),
        ] {
            let message = error.unwrap_err().to_string();
            assert!(message.contains("`time_embedding_type`"), "{message}");
        }
    }
    new(ForwardProcess::flow(), PredictionType::Flow, &fourier).unwrap();
    new(ForwardProcess::flow(), PredictionType::Flow, &any).unwrap();
}

/// White images are 1, and so are their vectors; the null ones are 0. The loss is the share of
/// dropped conditions.
#[test]
fn encoder_hidden_states_are_passed_and_dropped() {
    let flex = device("flex").unwrap();
    let states =
        |batch: &ImageBatch, device: &Device| Ok(Tensor::<3>::ones([batch.len(), 2, 6], device));
    let loss = |dropout: f64, null: Option<Tensor<3>>| {
        let config = DiffusionObjectiveConfig {
            prediction: PredictionType::Sample,
            conditioning_dropout: dropout,
            ..DiffusionObjectiveConfig::default()
        };
        let mut objective = DiffusionObjective::new(config, &Attends)
            .unwrap()
            .with_encoder_hidden_states(states, null);
        let mut context = StepContext::new(0, 1, flex.clone().autodiff(), Rng::new(3));
        let losses = objective.losses(&Attends, &batch(255, 1000), &mut context)?;
        Ok::<_, Error>(losses.loss.into_scalar::<f64>())
    };
    let null = Tensor::<3>::zeros([1, 2, 6], &flex);
    assert!(loss(0.0, None).unwrap() < 1e-9);
    assert!((loss(0.25, Some(null.clone())).unwrap() - 0.25).abs() < 0.05);
    let message = loss(0.25, None).unwrap_err().to_string();
    assert!(
        message.contains("`null hidden states` is missing"),
        "{message}"
    );
    let config = DiffusionObjectiveConfig::default();
    let mut objective = DiffusionObjective::new(config, &Attends).unwrap();
    let mut context = StepContext::new(0, 1, flex, Rng::new(3));
    let message = objective
        .losses(&Attends, &batch(255, 2), &mut context)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`encoder_hidden_states` is missing"),
        "{message}"
    );
}

/// As above, with class embeddings, whose null vector is zeros.
#[test]
fn class_embeddings_are_passed_and_dropped() {
    let flex = device("flex").unwrap();
    let loss = |dropout: f64, width: Option<usize>| {
        let config = DiffusionObjectiveConfig {
            prediction: PredictionType::Sample,
            conditioning_dropout: dropout,
            ..DiffusionObjectiveConfig::default()
        };
        let mut objective = DiffusionObjective::new(config, &Embeds).unwrap();
        if let Some(width) = width {
            objective = objective.with_class_embeddings(move |batch: &ImageBatch, device| {
                Ok(Tensor::ones([batch.len(), width], device))
            });
        }
        let mut context = StepContext::new(0, 1, flex.clone().autodiff(), Rng::new(3));
        let losses = objective.losses(&Embeds, &batch(255, 1000), &mut context)?;
        Ok::<_, Error>(losses.loss.into_scalar::<f64>())
    };
    assert!(loss(0.0, Some(6)).unwrap() < 1e-9);
    assert!((loss(0.25, Some(6)).unwrap() - 0.25).abs() < 0.05);
    for (width, expected) in [
        (None, "`class_embeddings` is missing"),
        (
            Some(5),
            "`class_embeddings` is [1000, 5], expected [1000, 6]",
        ),
    ] {
        let message = loss(0.0, width).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

fn batch(value: u8, n: usize) -> ImageBatch {
    let shape = ImageShape::new(1, 4, 4);
    collate_images(
        (0..n)
            .map(|i| Image {
                shape,
                pixels: vec![value; 16],
                label: Some(i as u32 % 3),
            })
            .collect(),
    )
}

fn loss(config: DiffusionObjectiveConfig, network: &Constant, flex: &Device) -> f64 {
    let mut objective = DiffusionObjective::new(config, network).unwrap();
    let mut context = StepContext::new(0, 1, flex.clone(), Rng::new(3));
    let losses = objective
        .losses(network, &batch(255, 4096), &mut context)
        .unwrap();
    losses.loss.into_scalar::<f64>()
}

/// Of white images, x₀ = 1 everywhere: the mean squares of the targets are known.
#[test]
fn losses_are_mean_squares_of_targets() {
    let flex = device("flex").unwrap();
    let says = |value| Constant {
        value,
        classes: None,
    };
    let of = |prediction| DiffusionObjectiveConfig {
        prediction,
        ..DiffusionObjectiveConfig::default()
    };
    assert!((loss(of(PredictionType::Epsilon), &says(0.0), &flex) - 1.0).abs() < 0.03);
    assert!(loss(of(PredictionType::Sample), &says(1.0), &flex) < 1e-9);
    assert!((loss(of(PredictionType::Sample), &says(-1.0), &flex) - 4.0).abs() < 1e-4);
    // E[v²] = α² + σ² = 1.
    assert!((loss(of(PredictionType::V), &says(0.0), &flex) - 1.0).abs() < 0.03);
    // The mean of min(SNR, γ), by the table.
    let config = DiffusionObjectiveConfig {
        weighting: LossWeighting::MinSnr { gamma: 5.0 },
        ..of(PredictionType::Sample)
    };
    let alphas = NoiseScheduleConfig::default().alphas_cumprod().unwrap();
    let expected = alphas
        .iter()
        .map(|alpha| (alpha / (1.0 - alpha)).min(5.0))
        .sum::<f64>()
        / 1000.0;
    assert!((loss(config, &says(0.0), &flex) / expected - 1.0).abs() < 0.05);
}

/// The same error of x̂₀ costs the same, whatever is predicted.
#[test]
fn weights_agree_between_predictions() {
    for weighting in [
        LossWeighting::MinSnr { gamma: 5.0 },
        LossWeighting::Edm { sigma_data: 0.5 },
    ] {
        for alpha in [0.999, 0.7, 0.01] {
            let level = NoiseLevel::variance_preserving(alpha);
            let cost = |prediction: PredictionType| {
                let reading = prediction.coefficients(level).unwrap();
                // Errors of x₀ and of the output differ by the output's weight in x₀.
                weighting.of(&Noised {
                    level,
                    time: 0.0,
                    input: 1.0,
                    reading,
                }) / reading.x0.1.powi(2)
            };
            let [a, b, c] = [
                PredictionType::Sample,
                PredictionType::Epsilon,
                PredictionType::V,
            ]
            .map(cost);
            assert!(
                (a / b - 1.0).abs() < 1e-9 && (a / c - 1.0).abs() < 1e-9,
                "{alpha}: {a} {b} {c}"
            );
        }
    }
    // EDM's own process: its weighting gives every error of the network's output the same
    // weight.
    let draws = Draws::new(&ForwardProcess::edm(), PredictionType::Epsilon).unwrap();
    let noised = draws.draw(&mut Rng::new(0));
    assert!((LossWeighting::Edm { sigma_data: 0.5 }.of(&noised) - 1.0).abs() < 1e-9);
}

/// The velocity of white images is ε − 1, whichever noise goes with which.
#[test]
fn flow_target_is_the_velocity() {
    let flex = device("flex").unwrap();
    for coupling in [Coupling::Independent, Coupling::OptimalTransport] {
        let process = ForwardProcess::FlowMatching {
            draw: Default::default(),
            num_train_timesteps: 1000,
            coupling,
        };
        let config = DiffusionObjectiveConfig {
            process,
            prediction: PredictionType::Flow,
            ..DiffusionObjectiveConfig::default()
        };
        let mut objective = DiffusionObjective::new(
            config,
            &Constant {
                value: -1.0,
                classes: None,
            },
        )
        .unwrap();
        let mut context = StepContext::new(0, 1, flex.clone(), Rng::new(3));
        let losses = objective
            .losses(
                &Constant {
                    value: -1.0,
                    classes: None,
                },
                &batch(255, 256),
                &mut context,
            )
            .unwrap();
        let loss = losses.loss.into_scalar::<f64>();
        assert!((loss - 1.0).abs() < 0.1, "{coupling:?}: {loss}");
    }
}

/// Predicts a half more than its previous prediction.
#[derive(Module, Debug)]
struct SelfConditioned {
    looks: bool,
}

impl Denoiser for SelfConditioned {
    fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        condition
            .self_cond
            .clone()
            .unwrap_or_else(|| x.zeros_like())
            + 0.5
    }

    fn check_shape(&self, _shape: SampleShape) -> Result<()> {
        Ok(())
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        assert_eq!(channels, 1);
        self.looks
    }
}

#[test]
fn self_conditioning_feeds_predictions_back() {
    let flex = device("flex").unwrap();
    let loss = |self_conditioning: f64, looks: bool| {
        let config = DiffusionObjectiveConfig {
            prediction: PredictionType::Sample,
            self_conditioning,
            ..DiffusionObjectiveConfig::default()
        };
        let network = SelfConditioned { looks };
        let mut objective = DiffusionObjective::new(config, &network).unwrap();
        let mut context = StepContext::new(0, 1, flex.clone().autodiff(), Rng::new(3));
        let losses = objective.losses(&network, &batch(255, 4), &mut context)?;
        Ok::<_, Error>(losses.loss.into_scalar::<f64>())
    };
    // White images, x₀ = 1.
    assert!((loss(0.0, true).unwrap() - 0.25).abs() < 1e-6);
    assert!(loss(1.0, true).unwrap() < 1e-9);
    let message = loss(0.5, false).unwrap_err().to_string();
    assert!(
        message.contains("`self_conditioning` is 0.5, expected 0"),
        "{message}"
    );
}

/// A corner of each image.
#[derive(Debug)]
struct Corner;

impl Autoencoder for Corner {
    fn encode(&self, x: Tensor<4>) -> Box<dyn Posterior> {
        Box::new(Deterministic(x.narrow(2, 0, 2).narrow(3, 0, 2)))
    }

    fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        z.repeat_dim(2, 2).repeat_dim(3, 2)
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[1, 4, 4])
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[1, 2, 2])
    }
}

/// Learning and sampling in a latent space, there and back.
#[test]
fn latent_maps_replace_images() {
    let flex = device("flex").unwrap();
    let config = DiffusionObjectiveConfig {
        prediction: PredictionType::Sample,
        ..DiffusionObjectiveConfig::default()
    };
    let network = Constant {
        value: 3.0,
        classes: None,
    };
    let objective = DiffusionObjective::new(config, &network).unwrap();
    let mut objective = objective.with_autoencoder(Corner, 3.0).unwrap();
    let mut context = StepContext::new(0, 1, flex.clone().autodiff(), Rng::new(3));
    let loss = objective
        .losses(&network, &batch(255, 4), &mut context)
        .unwrap()
        .loss
        .into_scalar::<f64>();
    assert!(loss < 1e-9, "{loss}");
    let scheduler = crate::DdimScheduler {
        prediction_type: PredictionType::Sample,
        clipping: crate::Clipping::NONE,
        ..crate::DdimScheduler::default()
    };
    let sampler =
        crate::DiffusionSampler::new(&network, &scheduler, 5, ImageShape::new(1, 2, 2), &flex)
            .unwrap();
    let images = sampler
        .with_autoencoder(&Corner, 3.0)
        .sample(2, 0)
        .unwrap()
        .values;
    assert_eq!(images.dims(), [2, 1, 4, 4]);
    assert!((images - 1.0).abs().max().into_scalar::<f32>() < 1e-5);
    let small =
        crate::DiffusionSampler::new(&network, &scheduler, 5, ImageShape::new(1, 4, 4), &flex)
            .unwrap();
    let message = small
        .with_autoencoder(&Corner, 3.0)
        .sample(1, 0)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`shape` is 1×4×4, expected 1×2×2"),
        "{message}"
    );
}

/// Configurations in run directories of earlier versions.
#[test]
fn earlier_names_of_fields_are_read() {
    let config: DiffusionObjectiveConfig = serde_json::from_str(
        r#"{"process": {"kind": "steps", "noise": {"num_train_timesteps": 1000,
        "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
        "trained_betas": null}, "rescale_betas_zero_snr": false}, "prediction": "epsilon",
        "weighting": "uniform", "class_dropout": 0.1, "self_conditioning": 0.0}"#,
    )
    .unwrap();
    let expected = DiffusionObjectiveConfig {
        conditioning_dropout: 0.1,
        ..DiffusionObjectiveConfig::default()
    };
    assert_eq!(config, expected);
    let flow = r#"{"kind": "flow", "draw": {"kind": "uniform"},
        "num_train_timesteps": 1000, "coupling": "independent"}"#;
    let flow: ForwardProcess = serde_json::from_str(flow).unwrap();
    assert_eq!(flow, ForwardProcess::flow());
}

#[test]
fn gradients_reach_the_network() {
    let auto = device("flex").unwrap().autodiff();
    let config = UNet2dConfig {
        in_channels: 1,
        out_channels: 1,
        down_block_types: vec![crate::models::DownBlockType::DownBlock2D],
        up_block_types: vec![crate::models::UpBlockType::UpBlock2D],
        block_out_channels: vec![8],
        layers_per_block: 1,
        norm_num_groups: 4,
        num_class_embeds: Some(4),
        null_class: Some(3),
        ..UNet2dConfig::default()
    };
    let network = config.init(&auto).unwrap().init_weights(0);
    let config = DiffusionObjectiveConfig {
        conditioning_dropout: 0.3,
        ..DiffusionObjectiveConfig::default()
    };
    let mut objective = DiffusionObjective::new(config, &network).unwrap();
    let mut context = StepContext::new(0, 1, auto, Rng::new(1));
    let losses = objective
        .losses(&network, &batch(0, 8), &mut context)
        .unwrap();
    let gradients = losses.loss.backward();
    let bias = network
        .conv_out_bias()
        .grad(&gradients)
        .expect("a gradient");
    assert!(bias.abs().sum().into_scalar::<f64>() > 1e-4);
}

#[test]
fn objective_rejects_configurations_by_name() {
    let flex = device("flex").unwrap();
    let ok = DiffusionObjectiveConfig::default();
    let says = |classes| Constant {
        value: 0.0,
        classes,
    };
    let zero_snr = ForwardProcess::Discrete {
        noise: NoiseScheduleConfig::default(),
        rescale_betas_zero_snr: true,
    };
    for (config, classes, expected) in [
        (
            DiffusionObjectiveConfig {
                prediction: PredictionType::Flow,
                ..ok.clone()
            },
            None,
            "`prediction`",
        ),
        (
            DiffusionObjectiveConfig {
                conditioning_dropout: 1.0,
                ..ok.clone()
            },
            Some(4),
            "`conditioning_dropout` is 1",
        ),
        (
            DiffusionObjectiveConfig {
                conditioning_dropout: 0.1,
                ..ok.clone()
            },
            None,
            "`conditioning_dropout` is 0.1",
        ),
        (
            DiffusionObjectiveConfig {
                process: zero_snr,
                ..ok.clone()
            },
            None,
            "`prediction` is epsilon",
        ),
        (
            DiffusionObjectiveConfig {
                process: ForwardProcess::flow(),
                ..ok.clone()
            },
            None,
            "`prediction` is Epsilon",
        ),
        (
            DiffusionObjectiveConfig {
                self_conditioning: 1.5,
                ..ok.clone()
            },
            None,
            "`self_conditioning` is 1.5",
        ),
        (
            DiffusionObjectiveConfig {
                process: ForwardProcess::Edm {
                    mean: 0.0,
                    deviation: -1.0,
                    sigma_data: 0.5,
                },
                ..ok.clone()
            },
            None,
            "`process.deviation` is -1",
        ),
        (
            DiffusionObjectiveConfig {
                process: ForwardProcess::Discrete {
                    noise: NoiseScheduleConfig::default(),
                    rescale_betas_zero_snr: true,
                },
                prediction: PredictionType::V,
                weighting: LossWeighting::MinSnr { gamma: 5.0 },
                ..ok.clone()
            },
            None,
            "`weighting` is min_snr",
        ),
        (
            DiffusionObjectiveConfig {
                process: ForwardProcess::edm(),
                prediction: PredictionType::Sample,
                ..ok.clone()
            },
            None,
            "`prediction` is Sample",
        ),
        (
            DiffusionObjectiveConfig {
                weighting: LossWeighting::MinSnr { gamma: 0.0 },
                ..ok.clone()
            },
            None,
            "`weighting.gamma` is 0",
        ),
    ] {
        let message = DiffusionObjective::<_>::new(config, &says(classes))
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    }
    let network = says(Some(2));
    let mut objective = DiffusionObjective::new(ok, &network).unwrap();
    let mut context = StepContext::new(0, 1, flex, Rng::new(0));
    let message = objective
        .losses(&network, &batch(0, 3), &mut context)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`labels` is 2, expected below 2"),
        "{message}"
    );
    // Images that a network cannot halve, or of other channels.
    for (channels, side, expected) in [
        (1, 9, "sides that are multiples of 2"),
        (3, 8, "`in_channels` is 1"),
    ] {
        let shape = ImageShape::new(channels, side, side);
        let image = Image {
            shape,
            pixels: vec![0; shape.numel()],
            label: None,
        };
        let config = UNet2dConfig {
            in_channels: 1,
            out_channels: 1,
            down_block_types: vec![crate::models::DownBlockType::DownBlock2D; 2],
            up_block_types: vec![crate::models::UpBlockType::UpBlock2D; 2],
            block_out_channels: vec![8, 8],
            norm_num_groups: 4,
            ..UNet2dConfig::default()
        };
        let network = config.init(&context.device).unwrap();
        let mut objective =
            DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network).unwrap();
        let message = objective
            .losses(&network, &collate_images(vec![image]), &mut context)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    }
}
