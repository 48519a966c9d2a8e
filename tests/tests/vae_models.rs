//! Training steps of quantised and hierarchical VAEs, against PyTorch:
//! `fixtures/vae/models.safetensors`, which `reference/vae_models.py` writes from the papers'
//! formulas, in 64 bits.
//!
//! Codes are compared exactly, other numbers within 2e-5: losses and metrics of their magnitude, or
//! of 1 where that is larger; gradients, latents, divergences and the state of codebooks of the
//! largest number of their tensor.

use aigc_core::{
    data::{Image, ImageBatch, ImageShape, collate_images},
    device::device,
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    rng::Rng,
    testing::values,
    train::{LossOutput, Objective, StepContext},
    weights::load_weights,
};
use aigc_tests::reference::{Fixture, Stored};
use aigc_vae::{
    Condition, HierarchicalVae, HierarchicalVaeConfig, KlWeight, Quantized, QuantizerOutput, Vae,
    VaeObjective, VqVae, VqVae2Config, VqVaeConfig,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Gradients, Tensor},
};
use safetensors::tensor::{Dtype, TensorView};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

const TOLERANCE: f64 = 2e-5;

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

#[derive(Clone, Copy)]
struct Case {
    json: &'static Value,
}

/// The cases of a kind.
fn cases(kind: &str) -> Vec<Case> {
    let cases = fixture().json["cases"].as_array().unwrap().iter();
    cases
        .map(|json| Case { json })
        .filter(|case| case.json["kind"] == kind)
        .collect()
}

/// The names of cases, to state which there have to be.
fn names(cases: &[Case]) -> Vec<&'static str> {
    cases.iter().map(Case::name).collect()
}

/// The case of this name.
fn case(kind: &str, name: &str) -> Case {
    let found = cases(kind).into_iter().find(|case| case.name() == name);
    found.unwrap_or_else(|| panic!("no case {name}"))
}

fn read<T: DeserializeOwned>(json: &Value) -> T {
    serde_json::from_value(json.clone()).unwrap()
}

impl Case {
    fn name(&self) -> &'static str {
        self.json["name"].as_str().unwrap()
    }

    fn number(&self, name: &str) -> f64 {
        self.json[name].as_f64().unwrap()
    }

    fn config(&self) -> &'static Value {
        &self.json["config"]
    }

    /// What is expected of each step.
    fn steps(&self) -> &'static [Value] {
        self.json["steps"].as_array().unwrap()
    }

    /// Names of the tensors of a step begin with this.
    fn prefix(&self, step: usize) -> String {
        format!("cases/{}/{step}/", self.name())
    }

    fn find(&self, step: usize, name: &str) -> Option<&'static Stored> {
        fixture().tensors.get(&(self.prefix(step) + name))
    }

    fn stored(&self, step: usize, name: &str) -> &'static Stored {
        self.find(step, name)
            .unwrap_or_else(|| panic!("{}: no `{name}` of step {step}", self.name()))
    }

    /// Number of tensors of a step whose names begin with `start`.
    fn count(&self, step: usize, start: &str) -> usize {
        let prefix = self.prefix(step) + start;
        let names = fixture().tensors.keys();
        names.filter(|name| name.starts_with(&prefix)).count()
    }

    /// `model` with the weights of the case's model, and with autodiff.
    fn loaded<M: Module>(&self, model: M) -> M {
        let prefix = format!("models/{}/", self.json["model"].as_str().unwrap());
        let weights = fixture().tensors.iter().filter_map(|(name, stored)| {
            let name = name.strip_prefix(prefix.as_str())?.to_string();
            let view = TensorView::new(Dtype::F32, stored.shape.clone(), &stored.bytes);
            Some((name, view.unwrap()))
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(weights.collect::<Vec<_>>(), None, &path).unwrap();
        load_weights(model, &path).unwrap().train()
    }

    /// The classes of the batch, of a conditional model.
    fn labels(&self) -> Option<Vec<u32>> {
        read(&self.json["labels"])
    }

    fn batch(&self, step: usize) -> ImageBatch {
        let shape: ImageShape = read(&self.config()["shape"]);
        let labels = self.labels();
        let pixels = self.stored(step, "x").bytes.chunks_exact(shape.numel());
        let images = pixels.enumerate().map(|(index, pixels)| Image {
            shape,
            pixels: pixels.to_vec(),
            label: labels.as_ref().map(|labels| labels[index]),
        });
        collate_images(images.collect())
    }

    fn objective<V: Vae<4, Z>, const Z: usize>(&self) -> VaeObjective<V, ImageBatch, 4, Z> {
        VaeObjective::new(KlWeight::new(self.number("beta"))).unwrap()
    }
}

fn context(step: usize, seed: u64) -> StepContext {
    StepContext::new(step, STEPS, plain().autodiff(), Rng::new(seed))
}

// -------------------------------------------------------------------------------------- comparison

fn scalar(x: &Tensor<1>) -> f64 {
    f64::from(x.clone().into_scalar::<f32>())
}

fn close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0),
        "{what} is {found}, expected {expected}"
    );
}

/// Compares tensors.
fn close_tensor<const D: usize>(found: Tensor<D>, expected: &Stored, what: &str) {
    assert_eq!(found.dims()[..], expected.shape[..], "{what}");
    close_values(&values(found), &expected.floats(), what);
}

fn close_values(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |x, y| x.max(y.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = f64::from((found - expected).abs());
        assert!(
            error <= TOLERANCE * f64::from(largest),
            "{what}: number {index} is {found}, expected {expected}; the largest is {largest}"
        );
    }
}

/// Compares a step's loss, every metric and the gradient of every parameter. Parameters without a
/// gradient in PyTorch must have none.
fn compare<M: Module>(case: &Case, step: usize, model: &M, output: &LossOutput) -> Gradients {
    let (name, expected) = (case.name(), &case.steps()[step]);
    let loss = expected["loss"].as_f64().unwrap();
    close(scalar(&output.loss), loss, &format!("{name}/{step}: loss"));
    let terms = expected["terms"].as_object().unwrap();
    let mut found: Vec<&str> = output.metrics.iter().map(|(metric, _)| *metric).collect();
    let mut stored: Vec<&str> = terms.keys().map(String::as_str).collect();
    found.sort_unstable();
    stored.sort_unstable();
    assert_eq!(found, stored, "{name}/{step}: metrics");
    for (metric, value) in &output.metrics {
        let expected = terms[*metric].as_f64().unwrap();
        close(scalar(value), expected, &format!("{name}/{step}: {metric}"));
    }
    let gradients = output.loss.backward();
    let mut visitor = Compare {
        case,
        step,
        gradients: Some(&gradients),
        compared: 0,
    };
    visit_params(model, &mut visitor);
    assert!(visitor.compared > 0, "{name}/{step}: no gradients");
    let stored = case.count(step, "grad.");
    assert_eq!(visitor.compared, stored, "{name}/{step}: gradients");
    gradients
}

/// Compares the state of the codebooks after a step.
fn compare_state<M: Module>(case: &Case, step: usize, model: &M) {
    let mut visitor = Compare {
        case,
        step,
        gradients: None,
        compared: 0,
    };
    visit_params(model, &mut visitor);
    let stored = case.count(step, "after.");
    assert_eq!(visitor.compared, stored, "{}/{step}: state", case.name());
}

/// Compares gradients, or parameters where there are no gradients.
struct Compare<'a> {
    case: &'a Case,
    step: usize,
    gradients: Option<&'a Gradients>,
    compared: usize,
}

impl ParamVisitor for Compare<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let (case, step) = (self.case, self.step);
        let (name, found) = match self.gradients {
            Some(gradients) => (format!("grad.{path}"), param.val().grad(gradients)),
            None => (format!("after.{path}"), Some(param.val())),
        };
        let what = format!("{}/{step}: {name}", case.name());
        match (found, case.find(step, &name)) {
            (Some(found), Some(expected)) => {
                close_tensor(found, expected, &what);
                self.compared += 1;
            }
            (None, Some(_)) => panic!("{what} is missing"),
            (Some(_), None) if self.gradients.is_some() => {
                panic!("{what}: a gradient where PyTorch has none")
            }
            // The fixture has the state of codebooks only.
            _ => (),
        }
    }
}

/// A step of plain gradient descent.
struct Descend<'a> {
    gradients: &'a Gradients,
    rate: f64,
}

impl ParamMapper for Descend<'_> {
    fn map<const D: usize>(&mut self, _path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.val().grad(self.gradients) {
            Some(gradient) => param.map(|weight| {
                Tensor::from_inner(weight.inner() - gradient * self.rate).require_grad()
            }),
            None => param,
        }
    }
}

// -------------------------------------------------------------------------------- quantised models

fn vq_vae(config: &Value) -> VqVae {
    read::<VqVaeConfig>(config).init(&plain()).unwrap()
}

/// Compares the codes of each level and their values.
fn compare_levels(case: &Case, step: usize, levels: &[QuantizerOutput]) {
    let count = case.steps()[step]["levels"].as_u64().unwrap() as usize;
    assert_eq!(levels.len(), count, "{}/{step}: levels", case.name());
    for (index, level) in levels.iter().enumerate() {
        let what = format!("{}/{step}: codes.{index}", case.name());
        let expected = case.stored(step, &format!("codes.{index}"));
        let codes: Vec<i64> = level.codes.clone().into_data().iter::<i64>().collect();
        assert_eq!(level.codes.dims()[..], expected.shape[..], "{what}");
        assert_eq!(codes, expected.integers(), "{what}");
        let what = format!("{}/{step}: values.{index}", case.name());
        let expected = case.stored(step, &format!("values.{index}"));
        close_tensor(level.values.clone(), expected, &what);
    }
}

/// All steps of a case: codes and their values, losses, gradients, and after gradient descent the
/// update of the codebooks.
fn check_quantised<V, const Z: usize>(case: &Case, model: V)
where
    V: Vae<4, Z, Posterior = Quantized<Z>> + 'static,
{
    let mut model = case.loaded(model);
    let mut objective = case.objective::<V, Z>();
    for step in 0..case.steps().len() {
        let (batch, mut context) = (case.batch(step), context(step, 0));
        let posterior = model.encode(batch.to_tensor(&context.device));
        compare_levels(case, step, &posterior.levels);
        let output = objective.losses(&model, &batch, &mut context).unwrap();
        let gradients = compare(case, step, &model, &output);
        let mut descend = Descend {
            gradients: &gradients,
            rate: case.number("rate"),
        };
        let descended = map_params(model, &mut descend);
        model = objective.after_update(descended, 0).unwrap();
        compare_state(case, step, &model);
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
        check_quantised::<_, 4>(case, vq_vae(case.config()));
    }
}

#[test]
fn vq_vae_2_with_two_kinds_of_codebooks() {
    let cases = cases("vq_vae_2");
    assert_eq!(names(&cases), ["vq-2"]);
    for case in &cases {
        let config: VqVae2Config = read(case.config());
        check_quantised::<_, 2>(case, config.init(&plain()).unwrap());
    }
}

// ----------------------------------------------------------------------------- hierarchical models

/// One pass and one training step with the draws of `seed`: latents, the divergence of each group,
/// the loss and all gradients.
fn check_hierarchical(case: &Case, seed: u64) {
    let config: HierarchicalVaeConfig = read(case.config());
    let model = case.loaded(config.init(&plain()).unwrap());
    let (batch, mut context) = (case.batch(0), context(0, seed));
    let condition = case.labels().map_or_else(Condition::none, |labels| {
        Condition::classes(&labels, &context.device)
    });
    let x = batch.to_tensor(&context.device);
    let pass = model.forward(x, &condition, &mut Rng::new(seed));
    let name = case.name();
    close_tensor(pass.z, case.stored(0, "z"), &format!("{name}: z"));
    let expected = case.stored(0, "kl");
    let (groups, samples) = (pass.kl.len(), batch.len());
    assert_eq!(expected.shape, [groups, samples], "{name}: kl");
    let expected = expected.floats();
    let pairs = pass.kl.into_iter().zip(expected.chunks(samples));
    for (group, (kl, expected)) in pairs.enumerate() {
        close_values(&values(kl), expected, &format!("{name}: kl of {group}"));
    }
    let mut objective = case
        .objective::<HierarchicalVae, 2>()
        .with_free_bits(case.number("free_bits"))
        .unwrap();
    let output = objective.losses(&model, &batch, &mut context).unwrap();
    compare(case, 0, &model, &output);
}

/// Levels of several pixels and of one, several groups of a level, classes, and free bits that some
/// groups have and some have not.
#[test]
fn hierarchical_vae() {
    let cases = cases("hierarchical");
    assert_eq!(names(&cases), ["hierarchical", "hierarchical-classes"]);
    for case in &cases {
        let seed = case.json["seed"].as_u64().unwrap();
        let noise = case.stored(0, "noise").floats();
        let drawn = Rng::new(seed).normal_vec(noise.len());
        close_values(&drawn, &noise, &format!("{}: noise", case.name()));
        check_hierarchical(case, seed);
    }
}

// A comparison that could not fail would prove nothing.

fn message(failing: impl FnOnce()) -> String {
    let error = catch_unwind(AssertUnwindSafe(failing)).unwrap_err();
    error.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn other_random_numbers_change_the_latents() {
    let case = case("hierarchical", "hierarchical");
    let seed = case.json["seed"].as_u64().unwrap();
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
            "vq-moving-average/0: after.quantizer.codes: number",
        ),
        (
            "vq-moving-average",
            "epsilon",
            json!(0.06),
            "vq-moving-average/0: after.quantizer.codes: number",
        ),
        (
            "vq-gradient",
            "decay",
            json!(0.801),
            "vq-gradient/0: after.quantizer.counts: number",
        ),
        (
            "vq-moving-average",
            "cosine",
            json!(true),
            "vq-moving-average/0: codes.0",
        ),
        ("lfq-groups", "group_dim", json!(3), "lfq-groups/0: loss is"),
    ] {
        let case = case("vq_vae", name);
        let mut config = case.config().clone();
        config["quantizer"][setting] = value;
        let message = message(|| check_quantised::<_, 4>(&case, vq_vae(&config)));
        assert!(message.contains(expected), "{setting}: {message}");
    }
}
