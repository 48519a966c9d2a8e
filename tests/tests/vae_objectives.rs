//! A step of every objective of VAEs, against PyTorch: `fixtures/vae/objectives.safetensors`, which
//! `reference/vae_objectives.py` writes from the papers' formulas, in 64 bits.
//!
//! Numbers are compared within 2e-5: losses, metrics and log-likelihoods of their magnitude, or of
//! 1 where that is larger; gradients of the largest number of their tensor.

use aigc_core::{
    adversarial::{FeatureDistance, SampleDiscriminator},
    data::{ImageBatch, SampleShape},
    device::device,
    nn::{Activation, Linear, LinearConfig},
    rng::Rng,
    testing::values,
    train::{LossOutput, Objective, StepContext},
};
use aigc_tests::reference::{
    Case, Fixture, Stored, close, close_values, compare, descended, message, names, read,
};
use aigc_vae::{
    AdversarialVae, AdversarialVaeObjective, AnyVae, BetaTcVaeObjective, Condition,
    DiagonalGaussian, FactorVae, FactorVaeObjective, IwaeObjective, IwaeObjectiveConfig, KlTerm,
    KlWeight, LatentDiscriminatorConfig, Likelihood, LikelihoodKind, Mmd, Posterior,
    ReparameterizedPosterior, Vae, VaeConfig, VaeObjective, permute_dims,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use serde_json::Value;
use std::{borrow::Borrow, cell::RefCell, collections::VecDeque, sync::OnceLock};

/// A step after the last one of every case.
const STEPS: usize = 100;

fn autodiff() -> Device {
    device("flex").unwrap().autodiff()
}

// ----------------------------------------------------------------------------------------- fixture

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| Fixture::read("vae/objectives.safetensors"))
}

/// The cases of an objective.
fn cases(objective: &str) -> Vec<Case> {
    fixture().cases(|json| json["objective"]["kind"] == objective)
}

/// The configuration of a network of the case's model.
fn network(case: &Case, name: &str) -> &'static Value {
    &fixture().json["models"][case.model()][name]
}

/// The VAE of the case, without its weights.
fn vae(case: &Case) -> AnyVae {
    let config: VaeConfig = read(network(case, "vae"));
    config.init(&device("flex").unwrap()).unwrap()
}

/// `model` with the weights of the case's model, and with autodiff.
fn loaded<M: Module>(case: &Case, model: M) -> M {
    case.loaded(model, "before.")
}

fn images(case: &Case, stored: &Stored) -> ImageBatch {
    case.images(stored, read(&network(case, "vae")["shape"]))
}

/// The batch of the first phase.
fn batch(case: &Case) -> ImageBatch {
    images(
        case,
        &fixture().tensors[&format!("models/{}/x", case.model())],
    )
}

fn draws(case: &Case) -> Vec<f32> {
    case.stored("draws").floats()
}

fn context(case: &Case) -> StepContext {
    let step = case.json["step"].as_u64().unwrap() as usize;
    StepContext::new(step, STEPS, autodiff(), Rng::new(0))
}

// --------------------------------------------------------------------------- models of given draws

thread_local! {
    /// Random numbers that the following draws return.
    static DRAWS: RefCell<VecDeque<f32>> = const { RefCell::new(VecDeque::new()) };
}

/// The next random numbers.
fn drawn(shape: [usize; 2], device: &Device) -> Tensor<2> {
    let count = shape[0] * shape[1];
    let numbers: Vec<f32> = DRAWS.with_borrow_mut(|draws| {
        assert!(draws.len() >= count, "more draws than the fixture has");
        draws.drain(..count).collect()
    });
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

/// A Gaussian posterior that gets the fixture's noise.
#[derive(Debug)]
struct GivenNoise(DiagonalGaussian);

impl Posterior<2> for GivenNoise {
    fn sample(&self, _rng: &mut Rng) -> Tensor<2> {
        let DiagonalGaussian { mean, logvar } = &self.0;
        let noise = drawn(mean.dims(), &mean.device());
        mean.clone() + (logvar.clone() * 0.5).exp() * noise
    }

    fn sample_with_log_prob(&self, rng: &mut Rng) -> (Tensor<2>, Tensor<1>) {
        let z = self.sample(rng);
        (z.clone(), self.0.log_prob(z))
    }

    fn mode(&self) -> Tensor<2> {
        self.0.mode()
    }

    fn kl(&self) -> Tensor<1> {
        self.0.kl()
    }
}

impl ReparameterizedPosterior<2> for GivenNoise {
    fn log_prob_detached(&self, z: Tensor<2>) -> Tensor<1> {
        self.0.log_prob_detached(z)
    }
}

impl Borrow<DiagonalGaussian> for GivenNoise {
    fn borrow(&self) -> &DiagonalGaussian {
        &self.0
    }
}

/// A VAE whose draws are the fixture's; an enum, so that weights keep their names.
#[derive(Module, Debug)]
enum Given {
    /// All latent dimensions are one group.
    Joint(AnyVae),
    /// Every latent dimension is a group.
    Groups(AnyVae),
}

impl Given {
    fn inner(&self) -> &AnyVae {
        match self {
            Given::Joint(vae) | Given::Groups(vae) => vae,
        }
    }
}

impl Vae for Given {
    type Posterior = GivenNoise;

    fn encode(&self, x: Tensor<4>) -> GivenNoise {
        GivenNoise(self.inner().encode(x))
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood {
        self.inner().decode(z)
    }

    fn latent_shape(&self) -> SampleShape {
        self.inner().latent_shape()
    }

    fn sample_shape(&self) -> SampleShape {
        self.inner().sample_shape()
    }

    fn kl(&self, posterior: &GivenNoise, _: Tensor<2>, _: &Condition) -> Vec<Tensor<1>> {
        let DiagonalGaussian { mean, logvar } = &posterior.0;
        let group = |dim: usize| DiagonalGaussian {
            mean: mean.clone().narrow(1, dim, 1),
            logvar: logvar.clone().narrow(1, dim, 1),
        };
        match self {
            Given::Joint(_) => vec![posterior.0.kl()],
            Given::Groups(_) => (0..mean.dims()[1]).map(|dim| group(dim).kl()).collect(),
        }
    }

    fn sample_prior(
        &self,
        n: usize,
        _condition: &Condition,
        _temperature: f64,
        _rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        drawn([n, self.latent_dim()], device)
    }
}

/// A discriminator of images with two patches, whose hidden layer is its features.
#[derive(Module, Debug)]
struct Judge {
    hidden: Linear,
    output: Linear,
}

impl Judge {
    fn new(config: &Value) -> Self {
        let size = |name: &str| config[name].as_u64().unwrap() as usize;
        let device = device("flex").unwrap();
        let hidden_dim = size("hidden_dim");
        Self {
            hidden: LinearConfig::new(size("pixels"), hidden_dim).init(&device),
            output: LinearConfig::new(hidden_dim, size("logits")).init(&device),
        }
    }
}

impl SampleDiscriminator for Judge {
    fn logits(&self, x: Tensor<4>, class: Option<Tensor<1, Int>>) -> Tensor<2> {
        let features = self.features(x, class).remove(0);
        self.output.forward(features)
    }

    fn features(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Vec<Tensor<2>> {
        let hidden = self.hidden.forward(x.flatten::<2>(1, 3));
        vec![Activation::Tanh.forward(hidden)]
    }
}

/// One pass, with these random numbers.
fn pass<O: Objective>(
    objective: &mut O,
    model: &O::Model,
    batch: &O::Batch,
    context: &mut StepContext,
    draws: &[f32],
) -> LossOutput {
    DRAWS.set(draws.iter().copied().collect());
    let output = objective.losses(model, batch, context).unwrap();
    let left = DRAWS.with_borrow(VecDeque::len);
    assert_eq!(left, 0, "random numbers that were not drawn");
    output
}

// --------------------------------------------------------------------------------------- the tests

type Elbo = VaeObjective<Given>;
type ImportanceWeighted = IwaeObjective<Given>;
type TotalCorrelation = BetaTcVaeObjective<Given>;
type Factor = FactorVaeObjective<Given>;
type Adversarial = AdversarialVaeObjective<Given, Judge>;

fn check_elbo(case: &Case, draws: &[f32]) {
    let settings = &case.json["objective"];
    let kl: KlTerm = read(&settings["kl"]);
    if let KlTerm::Weighted(weight) = kl {
        let found = weight.at_step(context(case).step);
        let expected = case.json["kl_weight"].as_f64().unwrap();
        let name = case.name();
        assert!(
            (found - expected).abs() < 1e-12,
            "{name}: {found} {expected}"
        );
    }
    let mut objective = Elbo::new(KlWeight::default())
        .unwrap()
        .with_kl_term(kl)
        .unwrap()
        .with_free_bits(settings["free_bits"].as_f64().unwrap())
        .unwrap();
    let mut expected = case.json.clone();
    if let Some(mmd) = read::<Option<Mmd>>(&settings["mmd"]) {
        // A divergence without a weight is no metric.
        if mmd.alpha == 1.0 {
            expected["terms"].as_object_mut().unwrap().remove("kl");
        }
        objective = objective.with_mmd(mmd).unwrap();
    }
    let model = loaded(
        case,
        match case.json["groups"].as_bool().unwrap() {
            true => Given::Groups(vae(case)),
            false => Given::Joint(vae(case)),
        },
    );
    let output = pass(
        &mut objective,
        &model,
        &batch(case),
        &mut context(case),
        draws,
    );
    compare(case, &expected, "", &model, &output);
}

/// The ELBO with every likelihood, with weights that rise and that return in cycles, with
/// capacities, with free bits, and with the mean discrepancy.
#[test]
fn elbo_and_its_variants() {
    let cases = cases("vae");
    assert_eq!(
        names(&cases),
        [
            "elbo",
            "beta",
            "beta-continuous-bernoulli",
            "beta-gaussian",
            "beta-learned-gaussian",
            "beta-optimal-gaussian",
            "beta-logistic-mixture",
            "beta-logistic-mixture-3",
            "warmup-0",
            "warmup-3",
            "warmup-7",
            "warmup-20",
            "cyclical-0",
            "cyclical-2",
            "cyclical-3",
            "cyclical-6",
            "cyclical-8",
            "cyclical-10",
            "capacity-40-1",
            "capacity-40-9",
            "capacity-0.25-3",
            "free-bits-0.125",
            "free-bits-64",
            "elbo-groups",
            "free-bits-groups-low",
            "free-bits-groups-high",
            "info-inverse-multiquadratic-unbiased",
            "info-inverse-multiquadratic-biased",
            "info-rbf-unbiased",
            "info-rbf-biased",
            "wae",
        ]
    );
    for case in &cases {
        check_elbo(case, &draws(case));
    }
}

fn check_iwae(case: &Case, config: IwaeObjectiveConfig) {
    let mut objective = ImportanceWeighted::new(config).unwrap();
    let model = loaded(case, Given::Joint(vae(case)));
    let output = pass(
        &mut objective,
        &model,
        &batch(case),
        &mut context(case),
        &draws(case),
    );
    compare(case, case.json, "", &model, &output);
}

#[test]
fn importance_weighted_bound_with_every_estimator() {
    let cases = cases("iwae");
    assert_eq!(
        names(&cases),
        [
            "iwae-reparameterized",
            "iwae-sticking-the-landing",
            "iwae-doubly-reparameterized",
        ]
    );
    for case in &cases {
        check_iwae(case, read(&case.json["objective"]));
    }
}

#[test]
fn total_correlation_with_both_estimators() {
    let cases = cases("beta_tc");
    assert_eq!(names(&cases), ["beta-tc-weighted", "beta-tc-stratified"]);
    for case in &cases {
        let mut objective = TotalCorrelation::new(read(&case.json["objective"])).unwrap();
        let model = loaded(case, Given::Joint(vae(case)));
        let output = pass(
            &mut objective,
            &model,
            &batch(case),
            &mut context(case),
            &draws(case),
        );
        compare(case, case.json, "", &model, &output);
    }
}

/// A generator with which [`permute_dims`] makes these permutations, one for each dimension.
fn generator_of(permutations: &[Vec<usize>]) -> Rng {
    let (rows, dims) = (permutations[0].len(), permutations.len());
    let numbers: Vec<f32> = (0..rows * dims).map(|i| (i / dims) as f32).collect();
    let z = TensorData::new(numbers, [rows, dims]);
    let z = Tensor::<2>::from_data(z, &device("flex").unwrap());
    let expected: Vec<f32> = (0..rows * dims)
        .map(|i| permutations[i % dims][i / dims] as f32)
        .collect();
    (0..10_000)
        .map(Rng::new)
        .find(|rng| values(permute_dims(z.clone(), &mut rng.clone())) == expected)
        .expect("one seed in 216, on average")
}

/// Both players; the second one after a step of the first.
#[test]
fn factor_vae() {
    let cases = cases("factor");
    assert_eq!(names(&cases), ["factor"]);
    let case = &cases[0];
    let discriminator: LatentDiscriminatorConfig = read(network(case, "discriminator"));
    let model = loaded(
        case,
        FactorVae {
            vae: Given::Joint(vae(case)),
            discriminator: discriminator.init(&device("flex").unwrap()).unwrap(),
        },
    );
    let mut objective = Factor::new(read(&case.json["objective"]), &model).unwrap();
    let mut context = context(case);
    let output = pass(
        &mut objective,
        &model,
        &batch(case),
        &mut context,
        &draws(case),
    );
    let gradients = compare(case, case.json, "", &model, &output);
    let model = FactorVae {
        vae: descended(model.vae, &gradients, case.number("rate")),
        discriminator: model.discriminator,
    };
    let permutations: Vec<Vec<usize>> = read(&case.json["permutations"]);
    context.phase = 1;
    context.rng = generator_of(&permutations);
    let output = pass(
        &mut objective,
        &model,
        &images(case, case.stored("second.x")),
        &mut context,
        &case.stored("second.draws").floats(),
    );
    compare(case, &case.json["second"], "second.", &model, &output);
}

/// Both players of a VAE-GAN and of a VQGAN, with fixed and adaptive weights, and before the first
/// step with a discriminator.
#[test]
fn adversarial_vae() {
    let cases = cases("adversarial");
    assert_eq!(
        names(&cases),
        [
            "adversarial-vae-gan",
            "adversarial-vqgan",
            "adversarial-adaptive",
            "adversarial-before-start",
        ]
    );
    for case in &cases {
        let model = loaded(
            case,
            AdversarialVae {
                vae: Given::Joint(vae(case)),
                discriminator: Judge::new(network(case, "discriminator")),
            },
        );
        let squares = FeatureDistance::new(|x: Tensor<4>| {
            let x = x.flatten::<2>(1, 3);
            vec![x.clone() * x]
        });
        let mut objective = Adversarial::new(read(&case.json["objective"]), &model)
            .unwrap()
            .with_perceptual(squares);
        let mut context = context(case);
        let batch = batch(case);
        let output = pass(&mut objective, &model, &batch, &mut context, &draws(case));
        let gradients = compare(case, case.json, "", &model, &output);
        let model = AdversarialVae {
            vae: descended(model.vae, &gradients, case.number("rate")),
            discriminator: model.discriminator,
        };
        context.phase = 1;
        // The discriminator is trained on the reconstructions of the first phase.
        let output = pass(&mut objective, &model, &batch, &mut context, &[]);
        compare(case, &case.json["second"], "second.", &model, &output);
    }
}

#[test]
fn likelihoods() {
    let device = autodiff();
    let cases = fixture().cases(|json| json["kind"] == "likelihood");
    assert_eq!(
        names(&cases),
        [
            "likelihood-bernoulli",
            "likelihood-continuous-bernoulli",
            "likelihood-gaussian",
            "likelihood-learned-gaussian",
            "likelihood-optimal-gaussian",
            "likelihood-logistic-mixture-1",
            "likelihood-logistic-mixture-3",
        ]
    );
    for case in &cases {
        let name = case.name();
        let kind: LikelihoodKind = read(&case.json["likelihood"]);
        let output = case.stored("output").tensor::<4>(&device).require_grad();
        let x = case.stored("x").tensor::<4>(&device);
        let log_prob = Likelihood::new(kind, output.clone()).log_prob(x);
        let expected = case.stored("log_prob").floats();
        let found = values(log_prob.clone());
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(&expected) {
            close(f64::from(*found), f64::from(*expected), name);
        }
        let gradient = output.grad(&log_prob.sum().backward()).unwrap();
        let expected = case.stored("grad.output").floats();
        close_values(&values(gradient), &expected, name);
    }
}

// A comparison that could not fail would prove nothing.

#[test]
fn other_random_numbers_change_the_loss() {
    let case = cases("vae")[0];
    let mut draws = draws(&case);
    draws[0] += 0.5;
    let message = message(|| check_elbo(&case, &draws));
    assert!(message.contains("elbo: loss is"), "{message}");
}

/// The estimators have the same loss and the same metrics.
#[test]
fn other_estimator_changes_gradients_of_the_encoder() {
    let [plain, landing, doubly]: [Case; 3] = cases("iwae").try_into().ok().unwrap();
    for (case, other) in [(plain, landing), (landing, doubly), (doubly, plain)] {
        let message = message(|| check_iwae(&case, read(&other.json["objective"])));
        assert!(message.contains("grad.encoder.weight: number"), "{message}");
    }
}
