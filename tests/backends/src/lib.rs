//! The device under test, and computations whose results the tests compare between backends.
#![forbid(unsafe_code)]

use aigc_core::{
    data::{ClassLabels, Image, ImageShape, collate_images},
    ops::{AdamStep, Quantization},
    params::{ParamVisitor, visit_params},
    rng::{InitWeights, Rng},
    train::{Objective, StepContext},
};
use aigc_diffusion::{
    AnyDenoiser, AnyScheduler, ClassifierFreeGuidance, DdimScheduler, DdpmScheduler, Degradation,
    DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler, DitConfig,
    DpmMultistepScheduler, MomentMatchingGuidance, PredictionType, UNet2dConfig,
};
use aigc_gan::{
    Ada, Augment, ClassConditioning, DcganConfig, DiffAugment, Discriminator,
    DiscriminatorConditioning, DiscriminatorNorm, GanConfig, GanLoss, Generator,
    GeneratorConditioning, GradientPenalty, MlpGanConfig, R3ganConfig, ResnetGanConfig,
};
use aigc_tests::cases::OPERATIONS;
use aigc_text::{
    CausalLm, GenerationConfig, Gpt2Config, PretrainedModel, TokenBatch, next_token_loss,
};
use aigc_vae::{ConvVaeConfig, MlpVaeConfig, Vae, VaeConfig, VaeSampler, elbo};
use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{Device, Int, Tensor, TensorData},
};
use std::collections::BTreeMap;

/// Settings of a first Adam step without weight decay.
pub const ADAM: AdamStep = AdamStep {
    learning_rate: 0.1,
    beta_1: 0.9,
    beta_2: 0.99,
    epsilon: 1e-8,
    step: 1,
    weight_decay: 0.0,
    decoupled_decay: 0.0,
};

/// The value of `AIGC_DEVICE`, or `flex`.
pub fn device_name() -> String {
    std::env::var("AIGC_DEVICE").unwrap_or_else(|_| "flex".into())
}

/// The device named by `AIGC_DEVICE`, or Flex.
///
/// # Panics
/// If there is no such device.
pub fn device() -> Device {
    aigc_core::device::device(&device_name()).unwrap_or_else(|error| panic!("AIGC_DEVICE: {error}"))
}

/// The elements of a tensor on any device.
///
/// # Panics
/// If the tensor cannot be read.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor
        .into_data()
        .convert::<f64>()
        .try_into_vec::<f64>()
        .expect("the data was converted to f64")
}

/// Asserts that `got` equals `expected` within `tolerance` times its largest value (at least one).
///
/// # Panics
/// If a value differs by more.
pub fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, about: &str) {
    assert_eq!(got.len(), expected.len(), "{about}: lengths");
    let scale = expected
        .iter()
        .fold(1.0f64, |top, value| top.max(value.abs()));
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= tolerance * scale,
            "{about} at {at}: {got}, expected {expected}"
        );
    }
}

/// Compares every operation and its gradients on `device` with Flex, for eight random cases each.
///
/// # Panics
/// If a value differs by more than `tolerance` (or the tolerance of the operation, if that is
/// larger) relative to the largest value of its tensor.
pub fn assert_operations_match_flex(device: &Device, tolerance: f64) {
    let devices = [Device::flex().autodiff(), device.clone().autodiff()];
    for (name, allowed, case) in OPERATIONS {
        for seed in 0..8 {
            let mut rng = Rng::new(seed * 101 + 7);
            let case = case(&mut rng);
            let inputs: Vec<Vec<f32>> = case.lens.iter().map(|len| rng.normal_vec(*len)).collect();
            let mut weights: Option<Vec<f32>> = None;
            let [expected, got] = devices.each_ref().map(|device| {
                let tensor = |values: &[f32]| {
                    Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
                };
                let leaves: Vec<Tensor<1>> = inputs
                    .iter()
                    .map(|values| tensor(values).require_grad())
                    .collect();
                let output = (case.compute)(leaves.clone());
                let weights = weights
                    .get_or_insert_with(|| rng.normal_vec(output.dims()[0]))
                    .clone();
                let grads = (output.clone() * tensor(&weights)).sum().backward();
                let of = |leaf: &Tensor<1>| leaf.grad(&grads).map(values).unwrap_or_default();
                [
                    vec![values(output.inner())],
                    leaves.iter().map(of).collect(),
                ]
                .concat()
            });
            for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_close(
                    got,
                    expected,
                    allowed.max(tolerance),
                    &format!("{name} {}, tensor {index}", case.about),
                );
            }
        }
    }
}

/// Two small VAEs of 8×8 images.
pub fn models() -> [(&'static str, VaeConfig); 2] {
    let shape = ImageShape::new(1, 8, 8);
    let mlp = MlpVaeConfig {
        hidden_dim: 24,
        latent_dim: 3,
        ..MlpVaeConfig::new(shape)
    };
    let conv = ConvVaeConfig {
        channels: vec![4, 8],
        hidden_dim: 16,
        latent_dim: 3,
        ..ConvVaeConfig::new(shape)
    };
    [
        ("mlp", VaeConfig::Mlp(mlp)),
        ("conv", VaeConfig::Conv(conv)),
    ]
}

/// Shape and elements of a tensor.
pub type Shaped = (Vec<usize>, Vec<f64>);

/// The outputs of a forward pass of a VAE (posterior means, images, divergences), and the gradients
/// of one training step.
///
/// # Panics
/// If the model cannot be created.
pub fn vae_step(config: &VaeConfig, device: &Device) -> ([Shaped; 3], BTreeMap<String, Shaped>) {
    let device = device.clone().autodiff();
    let model = config
        .init(&device)
        .expect("a valid model")
        .init_weights(3)
        .train();
    let x = Rng::new(1).normal([5, 1, 8, 8], &device) * 0.1 + 0.5;
    let posterior = model.encode(x.clone());
    let likelihood = model.decode(posterior.sample(&mut Rng::new(2)));
    let bound = elbo(x, &posterior, &likelihood);
    let outputs = [
        shaped(posterior.mean.clone()),
        shaped(likelihood.mean()),
        shaped(bound.kl.clone()),
    ];
    (outputs, gradients(&model, bound.loss(1.0)))
}

/// A small GAN of every kind, of 8×8 images, with different kinds of class conditioning.
pub fn gans() -> [(&'static str, GanConfig); 4] {
    let shape = ImageShape::new(1, 8, 8);
    let classes = |generator, discriminator| {
        Some(ClassConditioning {
            num_classes: 3,
            generator,
            discriminator,
        })
    };
    let (concat, norm) = (
        GeneratorConditioning::Concat,
        GeneratorConditioning::ConditionalBatchNorm,
    );
    let mlp = MlpGanConfig {
        hidden: vec![16],
        num_fourier_frequencies: 2,
        norm: true,
        latent_dim: 5,
        ..MlpGanConfig::new(shape)
    };
    let dcgan = DcganConfig {
        channels: vec![4, 6],
        norm: DiscriminatorNorm::Spectral,
        classes: classes(norm, DiscriminatorConditioning::Projection),
        ..DcganConfig::new(shape)
    };
    let resnet = ResnetGanConfig {
        channels: 16,
        levels: 2,
        attention_resolution: Some(4),
        classes: classes(norm, DiscriminatorConditioning::Auxiliary),
        ..ResnetGanConfig::new(shape)
    };
    let r3gan = R3ganConfig {
        channels: vec![8, 4],
        group_width: 4,
        classes: classes(concat, DiscriminatorConditioning::Concat),
        ..R3ganConfig::new(shape)
    };
    [
        ("mlp", GanConfig::Mlp(mlp)),
        ("dcgan", GanConfig::Dcgan(dcgan)),
        ("resnet", GanConfig::Resnet(resnet)),
        ("r3gan", GanConfig::R3gan(r3gan)),
    ]
}

/// The outputs of a generator, and of a discriminator after augmentation, and the gradients of both
/// networks for the relativistic pairing loss with R1 and R2.
///
/// # Panics
/// If the networks cannot be created.
pub fn gan_step(config: &GanConfig, device: &Device) -> ([Shaped; 2], BTreeMap<String, Shaped>) {
    let device = device.clone().autodiff();
    let gan = config
        .init(&device)
        .expect("a valid GAN")
        .init_weights(3)
        .train();
    let mut rng = Rng::new(1);
    let real = rng.normal([6, 1, 8, 8], &device) * 0.5;
    let class = Some(Tensor::<1, Int>::from_data([0, 1, 2, 2, 1, 0], &device));
    let z = rng.normal([6, gan.generator.latent_dim()], &device);
    let generated = gan.generator.generate(z, class.clone());
    let ada = Ada {
        flips_and_rotations: false,
        ..Ada::default()
    };
    let [real, fake] = [real, generated.clone()].map(|x| {
        let x = Augment::DiffAugment(DiffAugment::default()).apply(x, 0.0, &mut Rng::new(4));
        Augment::Adaptive(ada).apply(x, 0.7, &mut Rng::new(5))
    });
    let of_fake = gan
        .discriminator
        .forward_with_classes(fake.clone(), class.clone());
    let score = of_fake.logits.clone();
    let of_real = gan.discriminator.forward(real.clone(), class.clone());
    let mut loss = GanLoss::RelativisticPairing.discriminator_loss(of_real, score.clone(), 0.0);
    for penalty in [GradientPenalty::r1(1.0), GradientPenalty::r2(1.0)] {
        loss = loss + penalty.loss(&gan.discriminator, &real, &fake, class.as_ref(), &mut rng);
    }
    if let Some(classes) = of_fake.class_logits {
        loss = loss + classes.tanh().mean();
    }
    ([shaped(generated), shaped(score)], gradients(&gan, loss))
}

/// A small diffusion network of every trainable kind, of 8×8 images and three classes.
///
/// # Panics
/// If a network cannot be created.
pub fn denoisers(device: &Device) -> [(&'static str, AnyDenoiser); 2] {
    let shape = ImageShape::new(1, 8, 8);
    let unet = UNet2dConfig {
        block_out_channels: vec![8, 16],
        ..UNet2dConfig::small(shape, Some(3)).with_null_class()
    };
    let dit = DitConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        in_channels: 1,
        num_layers: 2,
        sample_size: 8,
        patch_size: 2,
        num_embeds_ada_norm: 3,
        ..DitConfig::default()
    };
    let unet: AnyDenoiser = unet.init(device).expect("a valid network").into();
    let dit: AnyDenoiser = dit.init(device).expect("a valid network").into();
    [("unet", unet.init_weights(5)), ("dit", dit.init_weights(5))]
}

/// Guided samples of one seed with a stochastic and with a deterministic scheduler, restored
/// images, and the gradients of one training step, of network `index` of [`denoisers`].
///
/// # Panics
/// If there is no such network.
pub fn diffusion_step(index: usize, device: &Device) -> ([Shaped; 3], BTreeMap<String, Shaped>) {
    let (_, network) = denoisers(device)
        .into_iter()
        .nth(index)
        .expect("an index of a denoiser");
    let shape = ImageShape::new(1, 8, 8);
    let guided = |scheduler: &AnyScheduler| {
        let sampler = DiffusionSampler::new(&network, scheduler, 6, shape, device).expect("a plan");
        let sampler = sampler
            .with_classes(ClassLabels::PerSample(vec![0, 1, 2]))
            .with_guidance(ClassifierFreeGuidance::new(2.0));
        shaped(sampler.sample(3, 9).expect("images").values)
    };
    // The untrained network as a predictor of the clean sample gives images that are not saturated.
    let clean = DpmMultistepScheduler {
        prediction_type: PredictionType::Sample,
        ..DpmMultistepScheduler::default()
    };
    let ddim = DdimScheduler {
        eta: 1.0,
        ..DdimScheduler::default()
    };
    let measured = Rng::new(2).uniform([2, 1, 4, 4], 0.0, 1.0, device);
    let guide =
        MomentMatchingGuidance::new(Degradation::Downsample(2), &measured, 0.1).expect("a guide");
    let sampler = DiffusionSampler::new(&network, &ddim, 6, shape, device).expect("a plan");
    let restored = sampler
        .unconditional()
        .with_guide(&guide)
        .sample(2, 3)
        .expect("images")
        .values;
    let outputs = [
        guided(&DdpmScheduler::default().into()),
        guided(&clean.into()),
        shaped(restored),
    ];
    let live = device.clone().autodiff();
    let network = network.train();
    let image = |k: u32| Image {
        shape,
        pixels: (0..64).map(|i| ((i * (k + 3)) % 256) as u8).collect(),
        label: Some(k),
    };
    let batch = collate_images((0..3).map(image).collect());
    let config = DiffusionObjectiveConfig {
        conditioning_dropout: 0.3,
        ..DiffusionObjectiveConfig::default()
    };
    let mut objective = DiffusionObjective::new(config, &network).expect("a valid objective");
    let mut context = StepContext::new(0, 1, live, Rng::new(4));
    let loss = objective
        .losses(&network, &batch, &mut context)
        .expect("a loss")
        .loss;
    (outputs, gradients(&network, loss))
}

/// Six images sampled from an untrained VAE with one seed.
///
/// # Panics
/// If the model cannot be created.
pub fn vae_samples(config: &VaeConfig, device: &Device) -> Shaped {
    let model = config.init(device).expect("a valid model").init_weights(7);
    shaped(
        VaeSampler::new(&model, device)
            .with_temperature(0.8)
            .sample(6, 11)
            .expect("images")
            .values,
    )
}

/// The results of a GPT-2: logits of whole sequences, and of pieces with a key-value cache; the
/// gradients of one training step; and sequences generated greedily, with beam search and by
/// sampling.
///
/// # Panics
/// If the model cannot be created.
pub fn gpt2_step(
    quantization: Option<Quantization>,
    device: &Device,
) -> ([Shaped; 2], BTreeMap<String, Shaped>, Vec<Vec<u32>>) {
    // Weights large enough that no two tokens have similar probabilities.
    let config = Gpt2Config {
        initializer_range: 0.3,
        ..Gpt2Config::nano(40, 24, [2, 2, 64])
    };
    let model = config
        .init(&device.clone().autodiff())
        .expect("a valid model")
        .init_weights(7);
    let sequences: Vec<Vec<u32>> = (0..3)
        .map(|index| (0..12).map(|at| (index * 7 + at * at) % 40).collect())
        .collect();
    let loss = next_token_loss(
        &model,
        &TokenBatch::collate(sequences.clone()),
        &device.clone().autodiff(),
    )
    .expect("a loss");
    let grads = gradients(&model, loss);
    let model = match quantization {
        Some(quantization) => model.valid().quantize(quantization),
        None => model.valid(),
    };
    let tokens: Vec<i32> = sequences
        .iter()
        .flatten()
        .map(|token| *token as i32)
        .collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [3, 12]), device);
    let mut cache = model.new_cache(3, 4);
    let pieces = [(0, 5), (5, 1), (6, 6)];
    let pieces =
        pieces.map(|(from, n)| model.logits(tokens.clone().narrow(1, from, n), &mut *cache));
    let logits = [model.forward(tokens), Tensor::cat(pieces.into(), 1)].map(shaped);
    let configs = [
        GenerationConfig::default(),
        GenerationConfig {
            num_beams: 3,
            no_repeat_ngram_size: 2,
            ..GenerationConfig::default()
        },
        GenerationConfig {
            do_sample: true,
            top_k: 5,
            ..GenerationConfig::default()
        },
    ];
    let texts = configs.into_iter().flat_map(|config| {
        let config = GenerationConfig {
            max_length: Some(20),
            eos_token_id: None,
            ..config
        };
        let prompts = [sequences[0][..4].to_vec(), sequences[1][..7].to_vec()];
        aigc_text::TextGenerator::new(&model, config)
            .expect("valid options")
            .with_seed(3)
            .generate(&prompts)
            .expect("texts")
    });
    let texts = texts.map(|text| text.tokens).collect();
    (logits, grads, texts)
}

fn shaped<const D: usize>(tensor: Tensor<D>) -> Shaped {
    (tensor.dims().to_vec(), values(tensor))
}

/// The gradient of every parameter, by path.
pub fn gradients<M: Module>(model: &M, loss: Tensor<1>) -> BTreeMap<String, Shaped> {
    struct Collect(GradientsParams, BTreeMap<String, Shaped>);
    impl ParamVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.remove::<D>(param.id) {
                self.1.insert(path.to_string(), shaped(grad));
            }
        }
    }
    let grads = GradientsParams::from_grads(loss.backward(), model);
    let mut collected = Collect(grads, BTreeMap::new());
    visit_params(model, &mut collected);
    collected.1
}

/// The elements of every float tensor of a model, by path.
pub fn parameters<M: Module>(model: &M) -> BTreeMap<String, Vec<f64>> {
    struct Collect(BTreeMap<String, Vec<f64>>);
    impl ParamVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            self.0.insert(path.to_string(), values(param.val()));
        }
    }
    let mut collected = Collect(BTreeMap::new());
    visit_params(model, &mut collected);
    collected.0
}
