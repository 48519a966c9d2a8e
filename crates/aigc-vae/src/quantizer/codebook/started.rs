//! Whether a codebook has been updated, known without reading it from the device.

use burn::{module::Param, tensor::Tensor};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What the host knows of [`VectorQuantizer::started`](super::VectorQuantizer::started).
///
/// Loading weights may set the parameter to 0 again. The parameter therefore counts its loads, and
/// what was known before a load no longer holds after it. Clones share the count: a load into one
/// of them makes the others read their parameter once more.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownStarted {
    loads: Arc<AtomicUsize>,
    /// Number of loads at which the parameter was known to be 1.
    at: Option<usize>,
}

impl KnownStarted {
    /// The parameter, which counts its loads from now on.
    pub(super) fn count_loads(&self, param: Param<Tensor<1>>) -> Param<Tensor<1>> {
        let loads = Arc::clone(&self.loads);
        param.load_mapper(move |value| {
            loads.fetch_add(1, Ordering::Relaxed);
            value
        })
    }

    /// Whether the parameter is known to be 1; if not, it can be either.
    pub(super) fn is_started(&self) -> bool {
        self.at == Some(self.loads.load(Ordering::Relaxed))
    }

    /// Notes that the parameter is 1.
    pub(super) fn set_started(&mut self) {
        self.at = Some(self.loads.load(Ordering::Relaxed));
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::super::{
        VectorQuantizer, VectorQuantizerConfig,
        testing::{config, output, quantizer},
    };
    use crate::Quantizer;
    use aigc_core::{
        testing::values,
        weights::{load_weights, save_weights},
    };
    use burn::{module::Module, tensor::Device};

    /// Weights from before and after the first update, each loaded into an instance of the other
    /// kind: the next update is that of the instance which they were saved from.
    #[test]
    fn loaded_weights_decide_whether_the_next_update_is_the_first() {
        let device = Device::flex();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        for kmeans_start in [true, false] {
            let config = VectorQuantizerConfig {
                kmeans_start,
                ..config()
            };
            let updated = |quantizer: &VectorQuantizer, x: &[[f32; 2]]| {
                let output = output(quantizer, x);
                quantizer.clone().update(&[output])
            };
            let next = |quantizer: &VectorQuantizer| {
                let x = [[1.0, 0.5], [-2.0, 3.0], [5.0, -1.0], [0.5, 4.5]];
                values(updated(quantizer, &x).codes.val())
            };
            let new = quantizer(&config, &device);
            let used = updated(&new, &[[0.5, 0.25], [3.5, 1.0], [0.25, 3.0], [-1.0, 0.5]]);
            for (saved, instance) in [(&new, &used), (&used, &new)] {
                save_weights(saved, &path).unwrap();
                let expected = next(saved);
                let from_file = load_weights(instance.clone(), &path).unwrap();
                let from_record = instance.clone().load_record(saved.clone().into_record());
                for loaded in [from_file, from_record] {
                    assert_eq!(next(&loaded), expected, "kmeans_start: {kmeans_start}");
                }
                // Clones that were not loaded into keep their own state.
                assert_eq!(next(saved), expected, "kmeans_start: {kmeans_start}");
            }
        }
    }
}
