//! Constant matrices, which are made once for every device.

use burn::tensor::{Device, Tensor, TensorData};
use std::{
    fmt::{Debug, Formatter},
    sync::{Arc, Mutex, PoisonError},
};

/// A constant matrix, cached on each device after its first use.
#[derive(Clone, Default)]
pub(in crate::dsp) struct Matrix(Arc<Mutex<Vec<(Device, Tensor<2>)>>>);

impl Debug for Matrix {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Matrix")
    }
}

impl Matrix {
    /// The matrix on a device, from its values at the first time.
    pub(in crate::dsp) fn get(
        &self,
        device: &Device,
        values: impl FnOnce() -> TensorData,
    ) -> Tensor<2> {
        // Tensors without autodiff are constants for those with it.
        let device = device.clone().without_autodiff();
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, matrix)) = made.iter().find(|(at, _)| *at == device) {
            return matrix.clone();
        }
        let matrix = Tensor::from_data(values(), &device);
        made.push((device, matrix.clone()));
        matrix
    }
}
