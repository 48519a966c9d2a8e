//! A small model, and files that change it.

mod files;
mod inversion;
mod values;
mod written;

use super::Lora;
use aigc_core::{
    nn::{Conv2d, Conv2dConfig, Linear, LinearConfig},
    rng::{InitWeights, Rng},
    weights::save_tensors,
};
use burn::{
    module::Module,
    tensor::{Device, TensorData},
};
use std::{collections::BTreeMap, path::PathBuf};
use tempfile::TempDir;

#[derive(Module, Debug)]
struct Model {
    to_q: Linear,
    conv: Conv2d,
}

const IN: usize = 4;
const OUT: usize = 6;

fn model() -> Model {
    let device = Device::flex();
    let model = Model {
        to_q: LinearConfig::new(IN, OUT).init(&device),
        conv: Conv2dConfig::new([IN, OUT], 3).init(&device),
    };
    model.init_weights(1)
}

/// Tensors of an adapter, in a file.
struct File {
    dir: TempDir,
    tensors: BTreeMap<String, TensorData>,
    rng: Rng,
}

impl File {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            tensors: BTreeMap::new(),
            rng: Rng::new(7),
        }
    }

    /// A tensor with random values, which are returned.
    fn draw(&mut self, name: &str, shape: &[usize]) -> Vec<f64> {
        let values = self.rng.normal_vec(shape.iter().product());
        let data = TensorData::new(values.clone(), shape.to_vec());
        self.tensors.insert(name.into(), data);
        values.into_iter().map(f64::from).collect()
    }

    fn number(&mut self, name: &str, value: f32) {
        let data = TensorData::new(vec![value], Vec::<usize>::new());
        self.tensors.insert(name.into(), data);
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("lora.safetensors")
    }

    fn open(&self) -> aigc_core::Result<Lora> {
        save_tensors(&self.tensors, &self.path()).unwrap();
        Lora::open(self.path())
    }

    fn error(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

/// The weight of the linear layer, one row for each output.
fn linear(model: &Model) -> Vec<f64> {
    let weight = model.to_q.weight.val().transpose().into_data();
    weight.iter::<f64>().collect()
}

fn convolution(model: &Model) -> Vec<f64> {
    model.conv.weight.val().into_data().iter::<f64>().collect()
}
