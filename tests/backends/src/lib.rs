//! The device under test, and tensors to compare.
#![forbid(unsafe_code)]

use aigc_core::params::{LookAt, look_at_all};
use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use std::collections::BTreeMap;

/// The device that `AIGC_DEVICE` names, Flex where it names none.
///
/// # Panics
/// If there is no such device.
pub fn device() -> Device {
    let name = std::env::var("AIGC_DEVICE").unwrap_or_else(|_| "flex".into());
    aigc_core::device::device(&name).unwrap_or_else(|error| panic!("AIGC_DEVICE: {error}"))
}

/// The numbers of a tensor on any device.
///
/// # Panics
/// If they cannot be read.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().try_into_vec::<f64>().expect("f64 by conversion")
}

/// Fails unless `got` is `expected` to within `tolerance` of its largest value (at least one).
///
/// # Panics
/// If it is not.
pub fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, about: &str) {
    assert_eq!(got.len(), expected.len(), "{about}: lengths");
    let scale = expected.iter().fold(1.0f64, |top, value| top.max(value.abs()));
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * scale, "{about} at {at}: {got} for {expected}");
    }
}

/// Every parameter's gradient, by path.
pub fn gradients<M: Module>(model: &M, loss: Tensor<1>) -> BTreeMap<String, Vec<f64>> {
    struct Collect(GradientsParams, BTreeMap<String, Vec<f64>>);
    impl LookAt for Collect {
        fn look_at<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.remove::<D>(param.id) {
                self.1.insert(path.to_string(), values(grad));
            }
        }
    }
    let grads = GradientsParams::from_grads(loss.backward(), model);
    let mut collected = Collect(grads, BTreeMap::new());
    look_at_all(model, &mut collected);
    collected.1
}

/// Every float tensor of a model, by path.
pub fn parameters<M: Module>(model: &M) -> BTreeMap<String, Vec<f64>> {
    struct Collect(BTreeMap<String, Vec<f64>>);
    impl LookAt for Collect {
        fn look_at<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            self.0.insert(path.to_string(), values(param.val()));
        }
    }
    let mut collected = Collect(BTreeMap::new());
    look_at_all(model, &mut collected);
    collected.0
}
