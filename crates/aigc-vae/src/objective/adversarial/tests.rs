//! The objective, with networks whose losses are known.

use super::*;
use crate::{Likelihood, VqModel, VqModelConfig};
use aigc_core::{
    adversarial::{AdversarialLoss, FeatureDistance, PatchDiscriminator, PatchDiscriminatorConfig},
    data::{
        DataLoader, DataLoaderConfig, InMemory, SampleShape, ValueRange, collate_images, digits,
    },
    encoder::Deterministic,
    nn::{Activation, Linear, LinearConfig},
    rng::{InitWeights, Rng},
    testing::{assert_close, temp_run, values},
    train::{Event, Trainer, TrainerConfig},
};
use burn::tensor::{Device, TensorData};
use std::sync::{Arc, Mutex};

/// An autoencoder of three values with two latents and a hidden layer in the decoder. It may take
/// classes, which have no effect.
#[derive(Module, Debug)]
struct Small {
    encoder: Linear,
    hidden: Linear,
    output: Linear,
    #[module(skip)]
    classes: Option<usize>,
}

impl Vae<2, 2> for Small {
    type Posterior = Deterministic<2>;

    fn encode(&self, x: Tensor<2>) -> Deterministic<2> {
        Deterministic(self.encoder.forward(x))
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood<2> {
        let hidden = Activation::Tanh.forward(self.hidden.forward(z));
        Likelihood::Gaussian {
            mean: self.output.forward(hidden),
            std: 0.7,
        }
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[2])
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[3])
    }

    fn condition_kind(&self) -> ConditionKind {
        ConditionKind {
            num_classes: self.classes,
            ..ConditionKind::default()
        }
    }
}

/// A discriminator with two patches per sample, whose hidden layer is its features.
#[derive(Module, Debug)]
struct Patches {
    hidden: Linear,
    output: Linear,
    #[module(skip)]
    classes: Option<usize>,
    /// The classes of each pass.
    #[module(skip)]
    seen: Arc<Mutex<Vec<Vec<i64>>>>,
}

impl SampleDiscriminator<2> for Patches {
    fn logits(&self, x: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<2> {
        assert_eq!(class.is_some(), self.classes.is_some());
        if let Some(class) = &class {
            assert_eq!(class.dims()[0], x.dims()[0]);
            let classes = class.clone().into_data().iter::<i64>().collect();
            self.seen.lock().unwrap().push(classes);
        }
        let hidden = self.features(x, class).remove(0);
        self.output.forward(hidden)
    }

    fn num_classes(&self) -> Option<usize> {
        self.classes
    }

    fn features(&self, x: Tensor<2>, _class: Option<Tensor<1, Int>>) -> Vec<Tensor<2>> {
        vec![Activation::Tanh.forward(self.hidden.forward(x))]
    }
}

type Model = AdversarialVae<Small, Patches>;
type TestObjective = AdversarialVaeObjective<Small, Patches, Rows, 2, 2>;

fn model(device: &Device) -> Model {
    let linear = |i, o| LinearConfig::new(i, o).init(device);
    let model = AdversarialVae {
        vae: Small {
            encoder: linear(3, 2),
            hidden: linear(2, 4),
            output: linear(4, 3),
            classes: None,
        },
        discriminator: Patches {
            hidden: linear(3, 5),
            output: linear(5, 2),
            classes: None,
            seen: Arc::default(),
        },
    };
    model.init_weights(8)
}

#[derive(Debug)]
struct Rows(Vec<[f32; 3]>, Option<Vec<u32>>);

impl SampleBatch<2> for Rows {
    fn to_tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.0.concat(), [self.0.len(), 3]), device)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[3])
    }

    fn value_range(&self) -> ValueRange {
        ValueRange::Unit
    }

    fn labels(&self) -> Option<&[u32]> {
        self.1.as_deref()
    }
}

fn rows() -> Rows {
    let rows = vec![
        [0.1, 0.9, 0.4],
        [0.8, 0.3, 0.6],
        [0.5, 0.0, 1.0],
        [0.2, 0.7, 0.7],
    ];
    Rows(rows, None)
}

fn distance() -> FeatureDistance<impl Fn(Tensor<2>) -> Vec<Tensor<2>>> {
    FeatureDistance::new(|x: Tensor<2>| vec![x.clone() * x])
}

/// The losses of the first update of a step.
fn first_phase(config: &AdversarialVaeObjectiveConfig, model: &Model) -> LossOutput {
    let device = Device::flex().autodiff();
    let mut objective = TestObjective::new(config.clone(), model)
        .unwrap()
        .with_perceptual(distance());
    let mut context = StepContext::new(0, 1, device, Rng::new(4));
    objective.losses(model, &rows(), &mut context).unwrap()
}

/// Gradients of all parameters of the VAE, one after the other.
fn gradients(vae: &Small, loss: &Tensor<1>) -> Vec<f32> {
    let gradients = loss.backward();
    let layer = |layer: &Linear| {
        let bias = layer.bias.as_ref().unwrap().val();
        [
            values(layer.weight.val().grad(&gradients).unwrap()),
            values(bias.grad(&gradients).unwrap()),
        ]
        .concat()
    };
    [&vae.encoder, &vae.hidden, &vae.output].map(layer).concat()
}

fn metric(output: &LossOutput, name: &str) -> f32 {
    let found = output.metrics.iter().find(|(n, _)| *n == name);
    let (_, value) = found.unwrap_or_else(|| panic!("no {name}: {:?}", output.metrics));
    values(value.clone())[0]
}

fn normalize(x: Tensor<2>) -> Tensor<2> {
    x * 2.0 - 1.0
}

/// The terms, each with a graph of its own: reconstruction with the perceptual ones, and
/// adversarial.
fn naive(config: &AdversarialVaeObjectiveConfig, model: &Model) -> [Tensor<1>; 2] {
    let device = Device::flex().autodiff();
    let x = rows().to_tensor(&device);
    let discriminator = model.discriminator.clone().no_grad();
    [0, 1].map(|term| {
        let z = model.vae.encoder.forward(x.clone());
        let likelihood = model.vae.decode(z);
        let mean = likelihood.mean();
        if term == 0 {
            let difference = mean.clone() - x.clone();
            let reconstruction = match config.reconstruction {
                ReconstructionLoss::NegativeLogLikelihood => -likelihood.log_prob(x.clone()).mean(),
                ReconstructionLoss::L1 => difference.abs().mean(),
                ReconstructionLoss::L2 => (difference.clone() * difference).mean(),
            };
            let [mean, x] = [mean, x.clone()].map(normalize);
            let perceptual = mean.clone() * mean.clone() - x.clone() * x.clone();
            let features = discriminator.features(mean, None).remove(0)
                - discriminator.features(x, None).remove(0);
            return reconstruction
                + (perceptual.clone() * perceptual).mean() * config.perceptual_weight
                + (features.clone() * features).mean() * config.feature_weight;
        }
        let mean = match config.prior_samples {
            true => {
                let z = Rng::new(4).normal([4, 2], &device);
                Tensor::cat(vec![mean, model.vae.decode(z).mean()], 0)
            }
            false => mean,
        };
        let logits = discriminator.logits(normalize(mean), None);
        match config.loss {
            AdversarialLoss::Hinge => -logits.mean(),
            _ => ((-logits).exp() + 1.0).log().mean(),
        }
    })
}

fn configurations() -> Vec<AdversarialVaeObjectiveConfig> {
    let adaptive = AdversarialVaeObjectiveConfig::vqgan("output.weight", 0);
    vec![
        adaptive.clone(),
        AdversarialVaeObjectiveConfig {
            reconstruction: ReconstructionLoss::NegativeLogLikelihood,
            feature_weight: 0.5,
            prior_samples: true,
            ..adaptive.clone()
        },
        AdversarialVaeObjectiveConfig {
            adversarial_weight: AdversarialWeight::Fixed(0.3),
            ..adaptive
        },
        AdversarialVaeObjectiveConfig {
            reconstruction: ReconstructionLoss::L2,
            perceptual_weight: 2.0,
            feature_weight: 0.7,
            prior_samples: true,
            ..AdversarialVaeObjectiveConfig::default()
        },
    ]
}

/// Losses, weights and gradients are those of separate passes for every term.
#[test]
fn losses_match_separate_passes() {
    let model = model(&Device::flex().autodiff());
    for config in configurations() {
        let found = first_phase(&config, &model);
        let norm = |loss: Tensor<1>| {
            let gradients = loss.backward();
            let gradient = model.vae.output.weight.val().grad(&gradients).unwrap();
            values((gradient.clone() * gradient).sum().sqrt())[0]
        };
        let weight = match config.adversarial_weight {
            AdversarialWeight::Fixed(weight) => weight,
            AdversarialWeight::Adaptive { factor, .. } => {
                let [reconstruction, adversarial] = naive(&config, &model).map(norm);
                let weight = f64::from(reconstruction / (adversarial + 1e-4)) * factor;
                assert_close(
                    &[metric(&found, "adversarial_weight")],
                    &[weight as f32],
                    1e-4 * weight as f32,
                );
                weight
            }
        };
        let [reconstruction, adversarial] = naive(&config, &model);
        assert_close(
            &[metric(&found, "adversarial")],
            &values(adversarial.clone()),
            1e-5,
        );
        let expected = reconstruction + adversarial * weight;
        let scale = 1e-5 * values(expected.clone())[0].abs().max(1.0);
        assert_close(
            &values(found.loss.clone()),
            &values(expected.clone()),
            scale,
        );
        let [found, expected] = [found.loss, expected].map(|l| gradients(&model.vae, &l));
        let largest = expected.iter().fold(1.0f32, |most, g| most.max(g.abs()));
        assert_close(&found, &expected, 2e-5 * largest);
    }
}

#[test]
fn discriminator_is_trained_on_the_reconstructions_of_the_first_phase() {
    let device = Device::flex().autodiff();
    let model = model(&device);
    let x = rows().to_tensor(&device);
    let reconstructed = model
        .vae
        .decode(model.vae.encoder.forward(x.clone()))
        .mean();
    for config in configurations() {
        let loss = config.loss;
        let prior = config.prior_samples;
        let mut objective = TestObjective::new(config, &model).unwrap();
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(4));
        objective.losses(&model, &rows(), &mut context).unwrap();
        context.phase = 1;
        let found = objective.losses(&model, &rows(), &mut context).unwrap();
        let z = Rng::new(4).normal([4, 2], &device);
        let fake = match prior {
            true => Tensor::cat(vec![reconstructed.clone(), model.vae.decode(z).mean()], 0),
            false => reconstructed.clone(),
        };
        let [real, fake] =
            [x.clone(), fake].map(|x| model.discriminator.logits(normalize(x), None));
        let expected = loss.discriminator_loss(real, fake);
        assert_close(&values(found.loss.clone()), &values(expected), 1e-6);
        let gradients = found.loss.backward();
        let weight = model.discriminator.hidden.weight.val();
        assert!(weight.grad(&gradients).is_some());
        assert!(model.vae.output.weight.val().grad(&gradients).is_none());
    }
}

/// A class-conditional discriminator gets the classes of samples, and twice as many with
/// samples of the prior.
#[test]
fn discriminator_gets_the_classes_of_the_batch() {
    let device = Device::flex().autodiff();
    let mut model = model(&device);
    model.discriminator.classes = Some(3);
    for config in configurations() {
        let mut objective = TestObjective::new(config, &model).unwrap();
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(4));
        let without = objective.losses(&model, &rows(), &mut context);
        assert!(
            without
                .unwrap_err()
                .to_string()
                .contains("`labels` is missing")
        );
        let batch = Rows(rows().0, Some(vec![0, 2, 1, 1]));
        for phase in 0..2 {
            context.phase = phase;
            objective.losses(&model, &batch, &mut context).unwrap();
        }
    }
}

/// The classes of the function of `with_condition` are those of the VAE and of a discriminator with
/// as many classes, in both phases; another discriminator gets the labels of the batch.
#[test]
fn discriminator_gets_the_classes_of_the_condition() {
    let device = Device::flex().autodiff();
    let (own, of_batch): ([u32; 4], [u32; 4]) = ([2, 2, 0, 1], [0, 1, 1, 0]);
    for config in configurations() {
        for (classes, labels, expected) in [
            (3, None, own),
            (3, Some(of_batch), own),
            (4, Some(of_batch), of_batch),
        ] {
            let mut model = model(&device);
            model.vae.classes = Some(classes);
            model.discriminator.classes = Some(3);
            let encode = move |_: &Rows, device: &Device| Ok(Condition::classes(&own, device));
            let objective = TestObjective::new(config.clone(), &model).unwrap();
            let mut objective = objective.with_condition(encode);
            let batch = Rows(rows().0, labels.map(Vec::from));
            let mut context = StepContext::new(0, 1, device.clone(), Rng::new(4));
            for phase in 0..2 {
                context.phase = phase;
                objective.losses(&model, &batch, &mut context).unwrap();
                let seen = std::mem::take(&mut *model.discriminator.seen.lock().unwrap());
                assert!(!seen.is_empty());
                for copy in seen.iter().flat_map(|classes| classes.chunks(4)) {
                    assert_eq!(copy, expected.map(i64::from), "{classes} in phase {phase}");
                }
            }
            // A phase without samples of the first one decodes its own.
            objective.losses(&model, &batch, &mut context).unwrap();
            let seen = model.discriminator.seen.lock().unwrap();
            for copy in seen.iter() {
                assert_eq!(copy[..], expected.map(i64::from), "{classes}");
            }
        }
    }
}

#[test]
fn discriminator_starts_at_its_step() {
    let device = Device::flex();
    let config = DataLoaderConfig {
        batch_size: 4,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let collate = |rows: Vec<[f32; 3]>| Rows(rows, None);
    let loader = DataLoader::new(InMemory(rows().0), collate, config).unwrap();
    let initial = model(&device);
    let weights = |model: &Model| {
        [&model.vae.output, &model.discriminator.output].map(|l| values(l.weight.val()))
    };
    let train = |start_step: usize| {
        let run = temp_run().unwrap();
        let config = AdversarialVaeObjectiveConfig::vqgan("output.weight", start_step);
        let mut names = Vec::new();
        let trained = Trainer::new(TrainerConfig::new(2))
            .with_callback(|event: &Event<'_>| {
                if let Event::Step(report) = event {
                    let adversarial = |(name, _): &(String, f64)| name == "vae.adversarial";
                    names.push(report.losses.iter().any(adversarial));
                }
            })
            .fit(
                TestObjective::new(config, &initial).unwrap(),
                initial.clone(),
                &loader,
                &run,
            )
            .unwrap();
        (names, weights(&trained.model))
    };
    let [vae, discriminator] = weights(&initial);
    for (start, expected) in [(0, [true, true]), (1, [false, true]), (2, [false, false])] {
        let (names, [new_vae, new_discriminator]) = train(start);
        assert_eq!(names, expected);
        assert_ne!(new_vae, vae);
        assert_eq!(new_discriminator != discriminator, start < 2);
    }
}

/// Beside a mean over the values of a sample, the losses of the codes are means over those of
/// the latents, as in VQGAN; beside a sum in nats, they are those of the model.
#[test]
fn codebook_losses_have_the_scale_of_the_reconstruction() {
    type Vqgan = AdversarialVaeObjective<VqModel, PatchDiscriminator, ImageBatch, 4, 4>;
    let device = Device::flex().autodiff();
    let vae = VqModelConfig {
        block_out_channels: vec![4, 8],
        norm_num_groups: 2,
        ..VqModelConfig::new(digits::SHAPE)
    };
    let discriminator = PatchDiscriminatorConfig {
        channels: 4,
        num_layers: 1,
        ..PatchDiscriminatorConfig::new(digits::SHAPE)
    };
    let model = AdversarialVae {
        vae: vae.init(&device).unwrap(),
        discriminator: discriminator.init(&device).unwrap(),
    };
    let model = model.init_weights(3);
    let batch = collate_images(digits::load().0.into_iter().take(4).collect());
    let posterior = model.vae.encode(batch.to_tensor(&device));
    let means = [
        values(posterior.commitment_loss())[0],
        0.25 * values(posterior.codebook_loss())[0],
    ];
    let vqgan = AdversarialVaeObjectiveConfig::vqgan("decoder.conv_out.weight", 1);
    // 64 values with a standard deviation of 0.1.
    for (reconstruction, scale) in [
        (ReconstructionLoss::L1, 1.0),
        (ReconstructionLoss::L2, 1.0),
        (ReconstructionLoss::NegativeLogLikelihood, 64.0 / 0.08),
    ] {
        let config = AdversarialVaeObjectiveConfig {
            reconstruction,
            ..vqgan.clone()
        };
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(4));
        let mut objective = Vqgan::new(config, &model).unwrap();
        let found = objective.losses(&model, &batch, &mut context).unwrap();
        let metric = |name| metric(&found, name);
        let terms = ["commitment", "codebook"].map(metric);
        let expected = means.map(|mean| scale * mean);
        assert_close(&terms, &expected, 1e-4 * expected[0]);
        let loss = metric("reconstruction") + expected[0] + expected[1];
        assert_close(&values(found.loss.clone()), &[loss], 1e-4 * loss.abs());
    }
}

#[test]
fn configuration_is_checked() {
    let device = Device::flex().autodiff();
    let model = model(&device);
    let message = |config| TestObjective::new(config, &model).unwrap_err().to_string();
    let text = message(AdversarialVaeObjectiveConfig::vqgan("decoder.weight", 0));
    assert!(
        text.contains("`adversarial_weight.last_layer` is `decoder.weight`"),
        "{text}"
    );
    let text = message(AdversarialVaeObjectiveConfig {
        adversarial_weight: AdversarialWeight::Fixed(f64::NAN),
        ..AdversarialVaeObjectiveConfig::default()
    });
    assert!(text.contains("`adversarial_weight` is NaN"), "{text}");
    let text = message(AdversarialVaeObjectiveConfig {
        kl_weight: -1.0,
        ..AdversarialVaeObjectiveConfig::default()
    });
    assert!(text.contains("`kl_weight` is -1"), "{text}");
    let json = serde_json::json!({
        "loss": "hinge",
        "adversarial_weight": {"adaptive": {"last_layer": "output.weight", "factor": 0.8}},
    });
    let config: AdversarialVaeObjectiveConfig = serde_json::from_value(json).unwrap();
    assert!(TestObjective::new(config, &model).is_ok());
}
