//! What the tests share: where data and fixtures are, and small models.
#![forbid(unsafe_code)]

pub mod cases;

use aigc_core::{
    Result,
    data::{Dataset, InMemory, Loader, LoaderConfig},
    nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig},
    params::{LookAt, look_at_all},
    train::{Losses, Objective, StepContext, Turn},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData, activation},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The folder that `variable` names; says that the test is skipped where it does not.
pub fn folder_from(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: set {variable}");
    }
    // Relative to the workspace, whatever folder the test runs in.
    folder.map(|f| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(f))
}

/// The fixtures of this repository.
pub fn own_fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Every float tensor of a model, by path, as bits.
pub fn bits<M: Module>(model: &M) -> BTreeMap<String, Vec<u32>> {
    let mut collected = Bits::default();
    look_at_all(model, &mut collected);
    collected.0
}

#[derive(Default)]
struct Bits(BTreeMap<String, Vec<u32>>);

impl LookAt for Bits {
    fn look_at<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.0.insert(path.to_string(), param.val().into_data().iter::<f32>().map(f32::to_bits).collect());
    }
}

/// A network with everything that makes resuming hard: running statistics, dropout, and a frozen weight.
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
    /// Four inputs, one output, a dropout of 0.3, and a first bias that is not trained. Dropout draws from Flex's
    /// generator, of which a process has one: tests that need its draws take turns.
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
        [x[0], x[1], x[2], x[3], (x[0] * x[1] + (2.0 * x[2]).sin() - x[3]).tanh()]
    };
    InMemory((0..96).map(row).collect())
}

/// Batches of [`rows`].
pub fn row_loader(batch_size: usize, workers: usize) -> Loader<Rows> {
    loader_of(rows(), LoaderConfig { batch_size, workers, shuffle: Some(3), ..LoaderConfig::default() })
}

/// Batches of any rows.
pub fn loader_of<D: Dataset<Item = [f32; 5]> + 'static>(data: D, config: LoaderConfig) -> Loader<Rows> {
    Loader::new(data, |items| items, config).expect("the configuration is good")
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

    fn turns(&self) -> Vec<Turn> {
        if self.turns {
            vec![Turn::new("first").of("first").repeated(2), Turn::new("second").of("second").on_same_batch()]
        } else {
            vec![Turn::new("model")]
        }
    }

    fn losses(&mut self, model: &Net, batch: &Rows, context: &mut StepContext) -> Result<Losses> {
        let (x, y) = columns(batch, &context.device);
        let x = x.clone() + context.rng.normal(x.dims(), &context.device) * self.noise;
        let error = model.forward(x) - y;
        Ok(Losses::new((error.clone() * error).mean()))
    }
}

/// The programs in the documentation compile.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../../docs/own-model.md")]
    struct OwnModel;
    #[doc = include_str!("../../docs/diffusion.md")]
    struct Diffusion;
    #[doc = include_str!("../../docs/text.md")]
    struct Text;
}

/// Bytes of base64 without line breaks.
pub fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0u32, |bits, c| bits << 6 | u32::from(value(*c))) << (6 * (4 - four.len()));
        bytes.extend(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}
