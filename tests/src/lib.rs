//! What the tests share: where data and fixtures are, and small models.
#![forbid(unsafe_code)]

pub mod cases;
pub mod fixtures;
pub mod reference;
#[cfg(feature = "text")]
mod text;

#[cfg(feature = "text")]
pub use text::{gpt2_tokenizer, small_gpt2};

use aigc_core::{
    Result,
    data::{DataLoader, DataLoaderConfig, Dataset, InMemory},
    nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig},
    params::{ParamVisitor, visit_params},
    train::{LossOutput, Objective, Phase, StepContext},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData, activation},
};
use safetensors::tensor::{Dtype, TensorView};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// Prints that a test is skipped.
///
/// # Panics
/// If `AIGC_REQUIRE_DATA` is set: a run that has all data (`.ci/run`) then fails instead of passing
/// without the test.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("AIGC_REQUIRE_DATA").is_none(),
        "AIGC_REQUIRE_DATA is set: {reason}"
    );
    println!("skipped: {reason}");
}

/// The directory that the environment variable `variable` names. Without it the test is skipped.
///
/// # Panics
/// See [`skip`].
pub fn folder_from(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        skip(&format!("set {variable}"));
    }
    // Relative to the workspace, whatever directory the test runs in.
    folder.map(|f| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(f))
}

/// The fixtures of this repository.
pub fn own_fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// An interpreter that has `modules`, given with commas between: the one that `PYTHON` names, which
/// must have them, or `python3`; prints that the test is skipped if that does not have them.
pub fn python_with(modules: &str) -> Option<String> {
    let named = std::env::var("PYTHON");
    let python = named.clone().unwrap_or_else(|_| "python3".into());
    let output = Command::new(&python)
        .args(["-c", &format!("import {modules}")])
        .output();
    if output.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    assert!(named.is_err(), "{python} lacks one of {modules}");
    println!("skipped: {python} lacks one of {modules} (PYTHON names another)");
    None
}

/// What a script of `tests/reference` prints for a directory.
///
/// # Panics
/// If it fails.
pub fn run_script(python: &str, script: &str, folder: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("reference")
        .join(script);
    let output = Command::new(python)
        .arg(script)
        .arg(folder)
        .output()
        .expect("the interpreter was asked before");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Kind, shape and bytes of a tensor.
pub type Entry = (Dtype, Vec<usize>, Vec<u8>);

/// Floats for [`write_case`].
pub fn floats<const D: usize>(x: &Tensor<D>) -> Entry {
    (
        Dtype::F32,
        x.dims().to_vec(),
        x.to_data()
            .iter::<f32>()
            .flat_map(f32::to_le_bytes)
            .collect(),
    )
}

/// Integers for [`write_case`].
pub fn integers(of: &[i64], shape: &[usize]) -> Entry {
    (
        Dtype::I64,
        shape.to_vec(),
        of.iter().flat_map(|value| value.to_le_bytes()).collect(),
    )
}

/// Writes the `case.safetensors` of a directory, which a script of `tests/reference` reads.
///
/// # Panics
/// If it cannot be written.
pub fn write_case(folder: &Path, entries: &[(&str, Entry)]) {
    let tensors: Vec<_> = entries
        .iter()
        .map(|(name, (kind, shape, bytes))| {
            (
                *name,
                TensorView::new(*kind, shape.clone(), bytes).expect("it fits"),
            )
        })
        .collect();
    let path = folder.join("case.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).expect("the directory can be written");
}

/// Every float tensor of a model, by path, as bits.
pub fn bits<M: Module>(model: &M) -> BTreeMap<String, Vec<u32>> {
    let mut collected = Bits::default();
    visit_params(model, &mut collected);
    collected.0
}

#[derive(Default)]
struct Bits(BTreeMap<String, Vec<u32>>);

impl ParamVisitor for Bits {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.0.insert(
            path.to_string(),
            param
                .val()
                .into_data()
                .iter::<f32>()
                .map(f32::to_bits)
                .collect(),
        );
    }
}

/// A network with everything that makes resuming hard: running statistics, dropout, and a frozen
/// weight.
#[derive(Module, Debug)]
pub struct Net {
    /// First layer.
    pub first: Linear,
    /// Between the layers.
    pub norm: BatchNorm,
    /// Before the second layer.
    pub dropout: Dropout,
    /// Second layer.
    pub second: Linear,
}

impl Net {
    /// Four inputs, one output, a dropout of 0.3, and a first bias that is not trained. Dropout
    /// draws from Flex's generator, of which a process has one: tests that need its draws take
    /// turns.
    pub fn new(device: &Device) -> Self {
        let mut net = Self::without_dropout(device);
        net.dropout = DropoutConfig::new(0.3).init();
        net.first.bias = net.first.bias.map(|bias| bias.set_require_grad(false));
        net
    }

    /// The same without dropout, all of it trained: what it does depends on nothing but its seed.
    pub fn without_dropout(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(4, 16).init(device),
            norm: BatchNormConfig::new(16).init(device),
            dropout: DropoutConfig::new(0.0).init(),
            second: LinearConfig::new(16, 1).init(device),
        }
    }

    /// # Shapes
    /// - x: `[batch, 4]`, output: `[batch, 1]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = activation::relu(self.norm.forward(self.first.forward(x)));
        self.second.forward(self.dropout.forward(hidden))
    }
}

/// Rows of four inputs and one target.
pub type Rows = Vec<[f32; 5]>;

/// Four inputs in columns, the target in the last one.
pub fn columns(rows: &Rows, device: &Device) -> (Tensor<2>, Tensor<2>) {
    let x: Vec<f32> = rows.iter().flat_map(|r| r[..4].to_vec()).collect();
    let y: Vec<f32> = rows.iter().map(|r| r[4]).collect();
    let tensor = |values, n| Tensor::from_data(TensorData::new(values, [rows.len(), n]), device);
    (tensor(x, 4), tensor(y, 1))
}

/// A curve for [`Net`] to learn: 96 rows.
pub fn rows() -> InMemory<[f32; 5]> {
    let row = |i: usize| {
        let x: [f32; 4] = std::array::from_fn(|k| ((i * (2 * k + 3)) % 17) as f32 / 8.0 - 1.0);
        [
            x[0],
            x[1],
            x[2],
            x[3],
            (x[0] * x[1] + (2.0 * x[2]).sin() - x[3]).tanh(),
        ]
    };
    InMemory((0..96).map(row).collect())
}

/// BatchIter of [`rows`].
pub fn row_loader(batch_size: usize, workers: usize) -> DataLoader<Rows> {
    loader_of(
        rows(),
        DataLoaderConfig {
            batch_size,
            num_workers: workers,
            shuffle_seed: Some(3),
            ..DataLoaderConfig::default()
        },
    )
}

/// BatchIter of any rows.
pub fn loader_of<D: Dataset<Item = [f32; 5]> + 'static>(
    data: D,
    config: DataLoaderConfig,
) -> DataLoader<Rows> {
    DataLoader::new(data, |items| items, config).expect("the configuration is good")
}

/// Squared error of [`Net`], with noise on the inputs so that the host's generator matters too.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoisyRegression {
    /// Standard deviation of the noise.
    pub noise: f64,
    /// Whether the first layer and the rest take turns, the first one twice.
    pub turns: bool,
}

impl Objective for NoisyRegression {
    type Model = Net;
    type Batch = Rows;

    fn phases(&self) -> Vec<Phase> {
        if self.turns {
            vec![
                Phase::new("first").for_field("first").with_repeats(2),
                Phase::new("second").for_field("second").reuse_batch(),
            ]
        } else {
            vec![Phase::new("model")]
        }
    }

    fn losses(
        &mut self,
        model: &Net,
        batch: &Rows,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let (x, y) = columns(batch, &context.device);
        let x = x.clone() + context.rng.normal(x.dims(), &context.device) * self.noise;
        let error = model.forward(x) - y;
        Ok(LossOutput::new((error.clone() * error).mean()))
    }
}

/// The programs in the documentation compile.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../../docs/data.md")]
    struct Data;
    #[doc = include_str!("../../docs/evaluation.md")]
    struct Evaluation;
    #[doc = include_str!("../../docs/extending.md")]
    struct Extending;
    #[doc = include_str!("../../docs/own-model.md")]
    struct OwnModel;
    #[doc = include_str!("../../docs/diffusion.md")]
    struct Diffusion;
    #[doc = include_str!("../../docs/prompt-image.md")]
    struct PromptImage;
    #[doc = include_str!("../../docs/sound.md")]
    struct Sound;
    #[doc = include_str!("../../docs/text.md")]
    struct Text;
    #[doc = include_str!("../../docs/vae.md")]
    struct Vae;
    #[doc = include_str!("../../docs/video.md")]
    struct Video;
}
