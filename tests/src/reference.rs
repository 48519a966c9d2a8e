//! Fixtures of other implementations: one file of tensors, with JSON in its metadata. Those of
//! training steps have cases, which [`compare`] compares a step with.

use crate::own_fixtures;
use aigc_core::{
    data::{Image, ImageBatch, ImageShape, collate_images},
    eval::Features,
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    testing::values,
    train::LossOutput,
    weights::load_weights,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Gradients, Tensor, TensorData},
};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// A tensor of a [`Fixture`].
pub struct Stored {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Elements, little-endian.
    pub bytes: Vec<u8>,
}

impl Stored {
    fn words(&self) -> impl Iterator<Item = [u8; 4]> {
        self.bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]])
    }

    /// The elements of an f32 tensor.
    pub fn floats(&self) -> Vec<f32> {
        self.words().map(f32::from_le_bytes).collect()
    }

    /// The elements of an i32 tensor.
    pub fn integers(&self) -> Vec<i64> {
        let integers = self.words().map(i32::from_le_bytes);
        integers.map(i64::from).collect()
    }

    /// An f32 tensor on `device`.
    ///
    /// # Panics
    /// If it does not have `D` axes.
    pub fn tensor<const D: usize>(&self, device: &Device) -> Tensor<D> {
        let shape: [usize; D] = self.shape.as_slice().try_into().expect("number of axes");
        Tensor::from_data(TensorData::new(self.floats(), shape), device)
    }
}

/// What a script in `reference/` has written.
pub struct Fixture {
    /// The metadata `json`.
    pub json: Value,
    /// The tensors by name.
    pub tensors: BTreeMap<String, Stored>,
}

impl Fixture {
    /// Reads a file below [`own_fixtures`].
    ///
    /// # Panics
    /// If it cannot be read, or has no metadata `json`.
    pub fn read(path: &str) -> Self {
        let bytes = std::fs::read(own_fixtures().join(path)).expect(path);
        let (_, header) = SafeTensors::read_metadata(&bytes).expect(path);
        let metadata = header.metadata().as_ref().expect("metadata");
        let tensors = SafeTensors::deserialize(&bytes).expect(path).tensors();
        let stored = tensors.into_iter().map(|(name, view)| {
            let (shape, bytes) = (view.shape().to_vec(), view.data().to_vec());
            (name, Stored { shape, bytes })
        });
        Self {
            json: serde_json::from_str(&metadata["json"]).expect("JSON"),
            tensors: stored.collect(),
        }
    }
}

// ----------------------------------------------------------------------------- cases of training

/// Largest error of a number, of what [`close`] and [`close_values`] compare it with.
const TOLERANCE: f64 = 2e-5;

/// A part of a [`Fixture`]: what its JSON says, and tensors `cases/NAME/*`.
#[derive(Clone, Copy)]
pub struct Case {
    fixture: &'static Fixture,
    /// The JSON of the case.
    pub json: &'static Value,
}

impl Fixture {
    /// The cases that `is_chosen` chooses by their JSON.
    pub fn cases(&'static self, is_chosen: impl Fn(&Value) -> bool) -> Vec<Case> {
        let cases = self.json["cases"].as_array().expect("cases").iter();
        cases
            .filter(|json| is_chosen(json))
            .map(|json| Case {
                fixture: self,
                json,
            })
            .collect()
    }
}

/// The names of cases, to state which there have to be.
pub fn names(cases: &[Case]) -> Vec<&'static str> {
    cases.iter().map(Case::name).collect()
}

/// The JSON file of a fixture, such as `eval/relevance/relevance.json`.
///
/// # Panics
/// If it cannot be read.
pub fn read_json(path: &str) -> Value {
    let text = std::fs::read_to_string(own_fixtures().join(path)).expect("a fixture");
    serde_json::from_str(&text).expect("JSON")
}

/// Rows of features out of JSON.
///
/// # Panics
/// If they are no rows of numbers.
pub fn features(rows: &Value) -> Features {
    let rows: Vec<Vec<f32>> = read(rows);
    Features::new(rows.concat(), rows[0].len()).expect("finite rows of one width")
}

/// A value out of JSON.
///
/// # Panics
/// If it is of another type.
pub fn read<T: DeserializeOwned>(json: &Value) -> T {
    serde_json::from_value(json.clone()).expect("JSON of this type")
}

impl Case {
    /// The name.
    pub fn name(&self) -> &'static str {
        self.json["name"].as_str().expect("a name")
    }

    /// The number with this name.
    pub fn number(&self, name: &str) -> f64 {
        self.json[name].as_f64().expect("a number")
    }

    /// The model whose weights the case has.
    pub fn model(&self) -> &'static str {
        self.json["model"].as_str().expect("a model")
    }

    /// The tensor with this name, if there is one.
    pub fn find(&self, name: &str) -> Option<&'static Stored> {
        let key = format!("cases/{}/{name}", self.name());
        self.fixture.tensors.get(&key)
    }

    /// The tensor with this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn stored(&self, name: &str) -> &'static Stored {
        self.find(name)
            .unwrap_or_else(|| panic!("{}: no `{name}`", self.name()))
    }

    /// Number of tensors whose names begin with `start`.
    fn count(&self, start: &str) -> usize {
        let start = format!("cases/{}/{start}", self.name());
        let names = self.fixture.tensors.keys();
        names.filter(|name| name.starts_with(&start)).count()
    }

    /// `model` with the weights of the case's model, and with autodiff. The names of the weights
    /// begin with `start`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn loaded<M: Module>(&self, model: M, start: &str) -> M {
        let prefix = format!("models/{}/{start}", self.model());
        let weights = self.fixture.tensors.iter().filter_map(|(name, stored)| {
            let name = name.strip_prefix(prefix.as_str())?.to_string();
            let view = TensorView::new(Dtype::F32, stored.shape.clone(), &stored.bytes);
            Some((name, view.expect("a tensor of floats")))
        });
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(weights.collect::<Vec<_>>(), None, &path)
            .expect("the directory can be written");
        load_weights(model, &path)
            .expect("weights that fit")
            .train()
    }

    /// Images of these pixels, 8 bits each, with the classes of the case, if it has `labels`.
    ///
    /// # Panics
    /// If there are more images than labels.
    pub fn images(&self, pixels: &Stored, shape: ImageShape) -> ImageBatch {
        let labels: Option<Vec<u32>> = read(&self.json["labels"]);
        let images = pixels.bytes.chunks_exact(shape.numel()).enumerate();
        let images = images.map(|(index, pixels)| Image {
            shape,
            pixels: pixels.to_vec(),
            label: labels.as_ref().map(|labels| labels[index]),
        });
        collate_images(images.collect())
    }
}

/// The number of a tensor of one.
pub fn scalar(x: &Tensor<1>) -> f64 {
    f64::from(x.clone().into_scalar::<f32>())
}

/// Compares numbers within 2e-5 of their magnitude, or of 1 where that is larger.
///
/// # Panics
/// If they differ.
pub fn close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0),
        "{what} is {found}, expected {expected}"
    );
}

/// Compares the numbers of tensors within 2e-5 of the largest one.
///
/// # Panics
/// If they differ.
pub fn close_values(found: &[f32], expected: &[f32], what: &str) {
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

/// Compares shapes, and numbers as [`close_values`].
///
/// # Panics
/// If they differ.
pub fn close_tensor<const D: usize>(found: Tensor<D>, expected: &Stored, what: &str) {
    assert_eq!(found.dims()[..], expected.shape[..], "{what}");
    close_values(&values(found), &expected.floats(), what);
}

/// Compares a pass with the numbers of the case whose names begin with `prefix`: the loss and every
/// metric of `expected`, and the gradient of every parameter. Parameters without a gradient in
/// PyTorch must have none.
///
/// # Panics
/// If something differs.
pub fn compare<M: Module>(
    case: &Case,
    expected: &Value,
    prefix: &str,
    model: &M,
    output: &LossOutput,
) -> Gradients {
    let start = format!("{}: {prefix}", case.name());
    let loss = expected["loss"].as_f64().expect("a loss");
    close(scalar(&output.loss), loss, &format!("{start}loss"));
    let terms = expected["terms"].as_object().expect("terms");
    let mut found: Vec<&str> = output.metrics.iter().map(|(metric, _)| *metric).collect();
    let mut stored: Vec<&str> = terms.keys().map(String::as_str).collect();
    found.sort_unstable();
    stored.sort_unstable();
    assert_eq!(found, stored, "{start}metrics");
    for (metric, value) in &output.metrics {
        let expected = terms[*metric].as_f64().expect("a number");
        close(scalar(value), expected, &format!("{start}{metric}"));
    }
    let gradients = output.loss.backward();
    Compare::run(case, format!("{prefix}grad."), Some(&gradients), model);
    gradients
}

/// Compares the parameters that the case has under `prefix` and `after.`, such as the state of
/// codebooks after a step. Returns their number.
///
/// # Panics
/// If something differs.
pub fn compare_after<M: Module>(case: &Case, prefix: &str, model: &M) -> usize {
    Compare::run(case, format!("{prefix}after."), None, model)
}

/// Compares gradients, or parameters where there are no gradients.
struct Compare<'a> {
    case: &'a Case,
    prefix: String,
    gradients: Option<&'a Gradients>,
    compared: usize,
}

impl<'a> Compare<'a> {
    /// Compares all that the case has under `prefix`. Returns the number of tensors.
    fn run<M: Module>(
        case: &'a Case,
        prefix: String,
        gradients: Option<&'a Gradients>,
        model: &M,
    ) -> usize {
        let what = format!("{}: tensors of {prefix}", case.name());
        let stored = case.count(&prefix);
        let mut compare = Self {
            case,
            prefix,
            gradients,
            compared: 0,
        };
        visit_params(model, &mut compare);
        assert_eq!(compare.compared, stored, "{what}");
        stored
    }
}

impl ParamVisitor for Compare<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let name = format!("{}{}", self.prefix, name_in_pytorch(path));
        let what = format!("{}: {name}", self.case.name());
        let found = match self.gradients {
            Some(gradients) => param.val().grad(gradients),
            None => Some(param.val()),
        };
        let (found, expected) = match (found, self.case.find(&name)) {
            (Some(found), Some(expected)) => (found, expected),
            (None, Some(_)) => panic!("{what} is missing"),
            (Some(_), None) if self.gradients.is_some() => {
                panic!("{what}: a gradient where PyTorch has none")
            }
            _ => return,
        };
        // Linear layers; PyTorch has the transposes of their weights.
        let is_transposed = D == 2 && path.ends_with(".weight");
        let found = match is_transposed {
            true => found.transpose(),
            false => found,
        };
        close_tensor(found, expected, &what);
        self.compared += 1;
    }
}

/// The name of a parameter in PyTorch, which has other names in norms.
fn name_in_pytorch(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((norm, "gamma")) => format!("{norm}.weight"),
        Some((norm, "beta")) => format!("{norm}.bias"),
        _ => path.to_string(),
    }
}

/// The model after a step of plain gradient descent.
pub fn descended<M: Module>(model: M, gradients: &Gradients, rate: f64) -> M {
    map_params(model, &mut Descend { gradients, rate })
}

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

/// The message of a comparison that fails: one that could not would prove nothing.
///
/// # Panics
/// If it does not fail.
pub fn message(failing: impl FnOnce()) -> String {
    let error = catch_unwind(AssertUnwindSafe(failing)).expect_err("the comparison fails");
    let message = error.downcast_ref::<String>();
    message.expect("a message with values").clone()
}
