//! Fixtures of other implementations: one file of tensors, with JSON in its metadata.

use crate::own_fixtures;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;

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
