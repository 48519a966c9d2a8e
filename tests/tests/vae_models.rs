//! Training steps of quantised, hierarchical and conditional VAEs, of priors and of flows, against
//! PyTorch: `fixtures/vae/models.safetensors`, which `reference/vae_models.py` writes from the
//! papers' formulas, in 64 bits.
//!
//! Codes are compared exactly, other numbers within 2e-5: losses and metrics of their magnitude, or
//! of 1 where that is larger; gradients, latents, divergences and the state of codebooks of the
//! largest number of their tensor.

use aigc_core::{
    data::{ImageBatch, label_tensor},
    device::device,
    rng::Rng,
    testing::values,
    train::{Objective, StepContext},
};
use aigc_tests::reference::{
    Case, Fixture, close_tensor, close_values, compare, compare_after, descended, message, names,
    read,
};
use aigc_vae::{
    AnyVae, CodePriorConfig, CodePriorObjective, CodeSample, Condition, FlowConfig,
    FlowPosteriorVae, FlowPrior, GaussianMixture, GaussianMixtureConfig, HierarchicalVae,
    HierarchicalVaeConfig, KlWeight, Prior, PriorObjective, Quantized, QuantizerOutput, Vae,
    VaeConfig, VaeObjective, VampPriorConfig, VqVae, VqVae2Config, VqVaeConfig, WithPrior,
    collate_codes, collate_latents,
};
use burn::tensor::Device;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::OnceLock;

/// A step after the last one of every case.
const STEPS: usize = 100;

fn plain() -> Device {
    device("flex").unwrap()
}

// ----------------------------------------------------------------------------------------- fixture

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| Fixture::read("vae/models.safetensors"))
}

/// The cases of a kind.
fn cases(kind: &str) -> Vec<Case> {
    fixture().cases(|json| json["kind"] == kind)
}

/// The case of this name.
fn case(kind: &str, name: &str) -> Case {
    let found = cases(kind).into_iter().find(|case| case.name() == name);
    found.unwrap_or_else(|| panic!("no case {name}"))
}

fn config(case: &Case) -> &'static Value {
    &case.json["config"]
}

/// What is expected of each step.
fn steps(case: &Case) -> &'static [Value] {
    case.json["steps"].as_array().unwrap()
}

fn batch(case: &Case, step: usize) -> ImageBatch {
    let shape = read(&config(case)["shape"]);
    case.images(case.stored(&format!("{step}/x")), shape)
}

fn objective<V: Vae<4, Z>, const Z: usize>(case: &Case) -> VaeObjective<V, ImageBatch, 4, Z> {
    VaeObjective::new(KlWeight::new(case.number("beta"))).unwrap()
}

/// The vectors and the hidden states of the case.
fn given(case: &Case, device: &Device) -> Condition {
    let [vectors, states] = ["0/vectors", "0/states"].map(|name| case.find(name));
    Condition {
        vectors: vectors.map(|vectors| vectors.tensor(device)),
        encoder_hidden_states: states.map(|states| states.tensor(device)),
        ..Condition::none()
    }
}

fn context(step: usize, seed: u64) -> StepContext {
    StepContext::new(step, STEPS, plain().autodiff(), Rng::new(seed))
}

/// The seed of the case, whose first normal numbers are those of the fixture.
fn checked_seed(case: &Case) -> u64 {
    let seed = case.json["seed"].as_u64().unwrap();
    let noise = case.stored("0/noise").floats();
    let drawn = Rng::new(seed).normal_vec(noise.len());
    close_values(&drawn, &noise, &format!("{}: noise", case.name()));
    seed
}

/// A kind without a test would be compared with nothing.
#[test]
fn every_kind_of_case_has_a_test() {
    let kind = |case: &Case| case.json["kind"].as_str().unwrap();
    let mut kinds: Vec<&str> = fixture().cases(|_| true).iter().map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "code_prior",
            "conditional",
            "flow",
            "hierarchical",
            "prior",
            "prior_alone",
            "vq_vae",
            "vq_vae_2",
        ]
    );
}

// -------------------------------------------------------------------------------- quantised models

fn vq_vae(config: &Value) -> VqVae {
    read::<VqVaeConfig>(config).init(&plain()).unwrap()
}

/// Compares the codes of each level and their values.
fn compare_levels(case: &Case, step: usize, levels: &[QuantizerOutput]) {
    let (name, count) = (case.name(), &steps(case)[step]["levels"]);
    assert_eq!(levels.len() as u64, *count, "{name}: {step}/levels");
    for (index, level) in levels.iter().enumerate() {
        let key = format!("{step}/codes.{index}");
        let (what, expected) = (format!("{name}: {key}"), case.stored(&key));
        let codes: Vec<i64> = level.codes.clone().into_data().iter::<i64>().collect();
        assert_eq!(level.codes.dims()[..], expected.shape[..], "{what}");
        assert_eq!(codes, expected.integers(), "{what}");
        let key = format!("{step}/values.{index}");
        let (what, expected) = (format!("{name}: {key}"), case.stored(&key));
        close_tensor(level.values.clone(), expected, &what);
    }
}

/// All steps of a case: codes and their values, losses, gradients, and after gradient descent the
/// update of the codebooks. FSQ and LFQ have no codebook, all other quantisers have one.
fn check_quantised<V, const Z: usize>(case: &Case, model: V)
where
    V: Vae<4, Z, Posterior = Quantized<Z>> + 'static,
{
    let mut model = case.loaded(model, "");
    let mut objective = objective::<V, Z>(case);
    let without_codebook = ["fsq", "lfq-whole", "lfq-groups"].contains(&case.name());
    for (step, expected) in steps(case).iter().enumerate() {
        let (batch, mut context) = (batch(case, step), context(step, 0));
        let posterior = model.encode(batch.to_tensor(&context.device));
        compare_levels(case, step, &posterior.levels);
        let output = objective.losses(&model, &batch, &mut context).unwrap();
        let prefix = format!("{step}/");
        let gradients = compare(case, expected, &prefix, &model, &output);
        let descended = descended(model, &gradients, case.number("rate"));
        model = objective.after_update(descended, 0).unwrap();
        let compared = compare_after(case, &prefix, &model);
        let name = case.name();
        assert_eq!(compared == 0, without_codebook, "{name}: {prefix}after.");
    }
}

/// VQ with codes that follow gradients or moving averages, by distance and by cosine similarity;
/// residual VQ; FSQ; LFQ with the entropy of all dimensions and of groups.
#[test]
fn vq_vae_with_every_quantizer() {
    let cases = cases("vq_vae");
    assert_eq!(
        names(&cases),
        [
            "vq-gradient",
            "vq-moving-average",
            "vq-moving-average-started",
            "vq-cosine-gradient",
            "vq-cosine-moving-average",
            "residual-gradient",
            "residual-moving-average",
            "fsq",
            "lfq-whole",
            "lfq-groups",
        ]
    );
    for case in &cases {
        check_quantised::<_, 4>(case, vq_vae(config(case)));
    }
}

#[test]
fn vq_vae_2_with_two_kinds_of_codebooks() {
    let cases = cases("vq_vae_2");
    assert_eq!(names(&cases), ["vq-2"]);
    for case in &cases {
        let config: VqVae2Config = read(config(case));
        check_quantised::<_, 2>(case, config.init(&plain()).unwrap());
    }
}

// ----------------------------------------------------------------------------- hierarchical models

/// One pass and one training step with the draws of `seed`: latents, the divergence of each group,
/// the loss and all gradients.
fn check_hierarchical(case: &Case, seed: u64) {
    let config: HierarchicalVaeConfig = read(config(case));
    let model = case.loaded(config.init(&plain()).unwrap(), "");
    let (batch, mut context) = (batch(case, 0), context(0, seed));
    let labels = batch.labels();
    let condition = Condition {
        class_labels: labels.map(|labels| label_tensor(labels, &context.device)),
        ..given(case, &context.device)
    };
    let x = batch.to_tensor(&context.device);
    let pass = model.forward(x, &condition, &mut Rng::new(seed));
    let name = case.name();
    close_tensor(pass.z, case.stored("0/z"), &format!("{name}: z"));
    let expected = case.stored("0/kl");
    let (groups, samples) = (pass.kl.len(), batch.len());
    assert_eq!(expected.shape, [groups, samples], "{name}: kl");
    let expected = expected.floats();
    let pairs = pass.kl.into_iter().zip(expected.chunks(samples));
    for (group, (kl, expected)) in pairs.enumerate() {
        close_values(&values(kl), expected, &format!("{name}: kl of {group}"));
    }
    let case = *case;
    let mut objective = objective::<HierarchicalVae, 2>(&case)
        .with_free_bits(case.number("free_bits"))
        .unwrap()
        .with_condition(move |_, device| Ok(given(&case, device)));
    let output = objective.losses(&model, &batch, &mut context).unwrap();
    compare(&case, &steps(&case)[0], "0/", &model, &output);
}

/// Levels of several pixels and of one, several groups of a level, classes, vectors, and free bits
/// that some groups have and some have not.
#[test]
fn hierarchical_vae() {
    let cases = cases("hierarchical");
    assert_eq!(
        names(&cases),
        [
            "hierarchical",
            "hierarchical-classes",
            "hierarchical-vectors"
        ]
    );
    for case in &cases {
        check_hierarchical(case, checked_seed(case));
    }
}

// ---------------------------------------------------------- conditional models, priors and flows

/// The model of the case with latent vectors, without its prior or its flow.
fn vae(case: &Case) -> AnyVae {
    read::<VaeConfig>(config(case)).init(&plain()).unwrap()
}

/// One training step with the draws of `seed`.
fn check_latent<V: Vae + 'static>(case: &Case, model: V, seed: u64) {
    let model = case.loaded(model, "");
    let (batch, mut context) = (batch(case, 0), context(0, seed));
    let case = *case;
    let mut objective =
        objective::<V, 2>(&case).with_condition(move |_, device| Ok(given(&case, device)));
    let output = objective.losses(&model, &batch, &mut context).unwrap();
    compare(&case, &steps(&case)[0], "0/", &model, &output);
}

/// Classes and vectors beside the inputs, hidden states by cross-attention, and all of them.
#[test]
fn conditional_models() {
    let cases = cases("conditional");
    assert_eq!(
        names(&cases),
        [
            "mlp-classes",
            "conv-classes",
            "conv-vectors",
            "mlp-hidden-states",
            "conv-hidden-states",
            "mlp-all",
        ]
    );
    for case in &cases {
        check_latent(case, vae(case), checked_seed(case));
    }
}

/// The prior of a case.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PriorConfig {
    Vamp(VampPriorConfig),
    Mixture(GaussianMixtureConfig),
    Flow(FlowConfig),
}

fn prior_config(case: &Case) -> PriorConfig {
    read(&case.json["prior"])
}

fn mixture(config: GaussianMixtureConfig, dim: usize) -> GaussianMixture {
    config.init(dim, &plain()).unwrap()
}

fn flow_prior(config: &FlowConfig, dim: usize) -> FlowPrior {
    FlowPrior::new(config.init(dim, &plain()).unwrap()).unwrap()
}

/// Priors that are trained with a model.
#[test]
fn learned_priors() {
    let cases = cases("prior");
    assert_eq!(
        names(&cases),
        [
            "vamp-hardtanh",
            "vamp-sigmoid",
            "mixture-diagonal",
            "mixture-full",
            "flow-prior",
        ]
    );
    for case in &cases {
        let (model, seed) = (vae(case), checked_seed(case));
        let dim = model.latent_dim();
        match prior_config(case) {
            PriorConfig::Vamp(config) => {
                let prior = config.init::<4>(model.sample_shape(), &plain()).unwrap();
                check_latent(case, WithPrior::new(model, prior).unwrap(), seed);
            }
            PriorConfig::Mixture(config) => {
                let model = WithPrior::new(model, mixture(config, dim)).unwrap();
                check_latent(case, model, seed);
            }
            PriorConfig::Flow(config) => {
                let model = WithPrior::new(model, flow_prior(&config, dim)).unwrap();
                check_latent(case, model, seed);
            }
        }
    }
}

/// Posteriors that a flow transforms, without and with a context.
#[test]
fn flow_posteriors() {
    let cases = cases("flow");
    assert_eq!(
        names(&cases),
        ["flow-posterior", "flow-posterior-with-context"]
    );
    for case in &cases {
        let (model, config) = (vae(case), read::<FlowConfig>(&case.json["flow"]));
        let flow = config.init(model.latent_dim(), &plain()).unwrap();
        let model = FlowPosteriorVae::new(model, flow).unwrap();
        check_latent(case, model, checked_seed(case));
    }
}

fn check_prior<P: Prior + 'static>(case: &Case, prior: P) {
    let prior = case.loaded(prior, "");
    let latents = case.stored("0/z").floats();
    let latents = latents.chunks(prior.dim()).map(<[f32]>::to_vec);
    let batch = collate_latents(latents.collect());
    let mut objective = PriorObjective::new();
    let output = objective
        .losses(&prior, &batch, &mut context(0, 0))
        .unwrap();
    compare(case, &steps(case)[0], "0/", &prior, &output);
}

/// Priors that are trained after a model.
#[test]
fn priors_of_given_latents() {
    let cases = cases("prior_alone");
    assert_eq!(
        names(&cases),
        ["diagonal-alone", "full-alone", "flow-alone"]
    );
    for case in &cases {
        let dim = case.stored("0/z").shape[1];
        match prior_config(case) {
            PriorConfig::Mixture(config) => check_prior(case, mixture(config, dim)),
            PriorConfig::Flow(config) => check_prior(case, flow_prior(&config, dim)),
            PriorConfig::Vamp(_) => panic!("{}: it needs a model", case.name()),
        }
    }
}

/// The codes of a sample in the fixture, and its class.
#[derive(Deserialize)]
struct Sample {
    levels: Vec<Vec<u32>>,
    label: Option<u32>,
}

/// One codebook and several, classes, and codes below those of another level.
#[test]
fn priors_over_codes() {
    let cases = cases("code_prior");
    assert_eq!(
        names(&cases),
        ["codes", "codes-of-two-codebooks", "codes-below-others"]
    );
    for case in &cases {
        let config: CodePriorConfig = read(config(case));
        let prior = case.loaded(config.init(&plain()).unwrap(), "");
        let samples = read::<Vec<Sample>>(&case.json["samples"]).into_iter();
        let samples = samples.map(|Sample { levels, label }| CodeSample { levels, label });
        let batch = collate_codes(samples.collect());
        let level = usize::from(config.above.is_some());
        let mut objective = CodePriorObjective::new(level);
        let output = objective
            .losses(&prior, &batch, &mut context(0, 0))
            .unwrap();
        compare(case, &steps(case)[0], "0/", &prior, &output);
    }
}

// A comparison that could not fail would prove nothing.

#[test]
fn other_random_numbers_change_the_loss_of_latents() {
    let case = case("conditional", "conv-classes");
    let seed = checked_seed(&case);
    let message = message(|| check_latent(&case, vae(&case), seed + 1));
    assert!(message.contains("conv-classes: 0/loss is"), "{message}");
}

#[test]
fn other_random_numbers_change_the_latents() {
    let case = case("hierarchical", "hierarchical");
    let seed = checked_seed(&case);
    let message = message(|| check_hierarchical(&case, seed + 1));
    assert!(
        message.contains("hierarchical: z: number 0 is"),
        "{message}"
    );
}

/// Settings of the quantiser that change codes, the state of the codebook or the loss.
#[test]
fn other_quantizer_settings_are_found() {
    for (name, setting, value, expected) in [
        (
            "vq-moving-average",
            "decay",
            json!(0.801),
            "vq-moving-average: 0/after.quantizer.codes: number",
        ),
        (
            "vq-moving-average",
            "epsilon",
            json!(0.06),
            "vq-moving-average: 0/after.quantizer.codes: number",
        ),
        (
            "vq-gradient",
            "decay",
            json!(0.801),
            "vq-gradient: 0/after.quantizer.counts: number",
        ),
        (
            "vq-moving-average",
            "cosine",
            json!(true),
            "vq-moving-average: 0/codes.0",
        ),
        ("lfq-groups", "group_dim", json!(3), "lfq-groups: 0/loss is"),
    ] {
        let case = case("vq_vae", name);
        let mut config = config(&case).clone();
        config["quantizer"][setting] = value;
        let message = message(|| check_quantised::<_, 4>(&case, vq_vae(&config)));
        assert!(message.contains(expected), "{setting}: {message}");
    }
}
