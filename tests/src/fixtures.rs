//! Cases of the directory of fixtures that `AIGC_FIXTURES` names, and their tensors.

use crate::folder_from;
use aigc_core::device::device;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// A case: its directory, the contents of `case.json`, and its tensors.
pub struct Case {
    /// The directory.
    pub dir: PathBuf,
    /// What `case.json` holds.
    pub json: Value,
    tensors: Vec<u8>,
}

impl Case {
    /// The case in a directory, if there is one.
    fn open(dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(dir.join("case.json")).ok()?;
        Some(Self {
            dir: dir.into(),
            json: serde_json::from_str(&text).expect("a case is JSON"),
            tensors: std::fs::read(dir.join("tensors.safetensors")).unwrap_or_default(),
        })
    }

    /// Name of the case's directory.
    pub fn name(&self) -> String {
        let name = self.dir.file_name().expect("a directory");
        name.to_string_lossy().into_owned()
    }

    /// A text of `case.json`; empty if it is missing.
    pub fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    /// A path of `case.json`, which is relative to the case.
    pub fn path(&self, field: &str) -> PathBuf {
        self.dir.join(self.text(field))
    }

    fn safetensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.tensors).expect("tensors.safetensors")
    }

    /// Names of all tensors.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .safetensors()
            .names()
            .into_iter()
            .map(Into::into)
            .collect();
        names.sort();
        names
    }

    /// Whether there is a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.safetensors().tensor(name).is_ok()
    }

    /// Shape and values of a tensor of any type.
    pub fn values(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let tensors = self.safetensors();
        let tensor = tensors
            .tensor(name)
            .unwrap_or_else(|_| panic!("{}: no tensor {name}", self.name()));
        fn read<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            let chunks = bytes.chunks_exact(N);
            chunks
                .map(|chunk| value(chunk.try_into().expect("N bytes")))
                .collect()
        }
        let bytes = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F64 => read(bytes, f64::from_le_bytes),
            Dtype::F32 => read(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::F16 => read(bytes, |b| f64::from(half_to_f32(u16::from_le_bytes(b)))),
            Dtype::I64 => read(bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::I32 => read(bytes, |b| f64::from(i32::from_le_bytes(b))),
            Dtype::U8 | Dtype::BOOL => bytes.iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{name} is {other:?}"),
        };
        (tensor.shape().to_vec(), values)
    }

    /// A tensor of floats on Flex.
    pub fn float<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (shape, values) = self.values(name);
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &device("flex").unwrap())
    }

    /// A tensor of integers on Flex.
    pub fn int<const D: usize>(&self, name: &str) -> Tensor<D, Int> {
        let (shape, values) = self.values(name);
        let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
        Tensor::from_data(TensorData::new(values, shape), &device("flex").unwrap())
    }

    /// A mask on Flex: true where the tensor is not 0.
    pub fn mask<const D: usize>(&self, name: &str) -> Tensor<D, Bool> {
        let (shape, values) = self.values(name);
        let values: Vec<bool> = values.into_iter().map(|value| value != 0.0).collect();
        Tensor::from_data(TensorData::new(values, shape), &device("flex").unwrap())
    }

    /// The tolerance that the case names for an output.
    pub fn tolerance(&self, output: &str) -> f64 {
        let tolerance = self.json["tolerance"][output].as_f64();
        tolerance.unwrap_or_else(|| panic!("{}: no tolerance of {output}", self.name()))
    }

    /// Fails unless `found` is the stored tensor: `|a − b| ≤ tolerance·max(1, |b|)`, with the
    /// [tolerance](Self::tolerance) of the case.
    pub fn assert_within<const D: usize>(&self, output: &str, found: &Tensor<D>) {
        let values: Vec<f64> = found.to_data().iter::<f64>().collect();
        self.assert_values_within(output, &found.dims(), &values);
    }

    /// [`assert_within`](Self::assert_within) for values on the host.
    pub fn assert_values_within(&self, output: &str, dims: &[usize], found: &[f64]) {
        self.assert_apart(output, dims, found, self.tolerance(output));
    }

    /// Fails unless `found` holds the stored integers.
    pub fn assert_equal_ints<const D: usize>(&self, output: &str, found: &Tensor<D, Int>) {
        let values: Vec<f64> = found.to_data().iter::<f64>().collect();
        self.assert_apart(output, &found.dims(), &values, 0.0);
    }

    /// How far the stored tensor is from the same call in double precision.
    pub fn float64(&self, name: &str) -> f64 {
        self.json["float64"][name].as_f64().unwrap_or(0.0)
    }

    /// Fails unless `found` is the stored tensor, up to `max(tolerance, 4·float64)` relative to a
    /// value or one.
    pub fn assert_close<const D: usize>(&self, name: &str, found: &Tensor<D>, tolerance: f64) {
        let values: Vec<f64> = found.to_data().iter::<f64>().collect();
        let allowed = tolerance.max(4.0 * self.float64(name));
        self.assert_apart(name, &found.dims(), &values, allowed);
    }

    fn assert_apart(&self, name: &str, dims: &[usize], found: &[f64], allowed: f64) {
        let (shape, expected) = self.values(name);
        assert_eq!(dims, shape, "{}: shape of {name}", self.name());
        assert_eq!(found.len(), expected.len(), "{}: {name}", self.name());
        let apart = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
        let worst = apart
            .map(|x| if x.is_nan() { f64::INFINITY } else { x })
            .fold(0.0, f64::max);
        assert!(
            worst <= allowed,
            "{}: {name} is off by {worst:.1e}, allowed {allowed:.1e}",
            self.name()
        );
    }
}

fn half_to_f32(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 31, f32::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(exponent) - 15),
    };
    if sign == 1 { -size } else { size }
}

/// Runs `check` on every case below `AIGC_FIXTURES` that `wanted` selects, and fails with the names
/// of all that fail, or if there is none.
pub fn every(wanted: impl Fn(&Case) -> bool, check: impl Fn(&Case)) {
    let Some(root) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let (mut open, mut dirs) = (vec![root], vec![]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            }
        }
        dirs.push(dir);
    }
    dirs.sort();
    let (mut passed, mut failed) = (0, vec![]);
    for case in dirs
        .iter()
        .filter_map(|dir| Case::open(dir))
        .filter(|case| wanted(case))
    {
        match catch_unwind(AssertUnwindSafe(|| check(&case))) {
            Ok(()) => passed += 1,
            Err(_) => failed.push(case.name()),
        }
    }
    println!("{passed} cases passed");
    assert!(
        failed.is_empty(),
        "{} cases failed: {failed:?}",
        failed.len()
    );
    assert!(passed > 0, "no case was found");
}
