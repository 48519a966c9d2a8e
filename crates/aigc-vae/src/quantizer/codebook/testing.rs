//! What the tests of vector quantisers share.

use super::{CodebookUpdate, VectorQuantizer, VectorQuantizerConfig};
use crate::{Quantizer, QuantizerOutput};
use aigc_core::rng::InitWeights;
use burn::{
    module::{Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};

/// Three codes of two dimensions, neither started by k-means nor revived.
pub(super) fn config() -> VectorQuantizerConfig {
    VectorQuantizerConfig {
        kmeans_start: false,
        revive_below: 0.0,
        ..VectorQuantizerConfig::new(3, 2)
    }
}

/// A quantiser with the codes (0, 0), (4, 0) and (0, 4).
pub(super) fn quantizer(config: &VectorQuantizerConfig, device: &Device) -> VectorQuantizer {
    let mut quantizer = config.init(device).unwrap().init_weights(1);
    let codes = Tensor::<2>::from_floats([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], device);
    quantizer.codes = Param::initialized(ParamId::new(), codes);
    if config.update == CodebookUpdate::Gradient {
        quantizer.codes = quantizer.codes.set_require_grad(true);
    }
    quantizer
}

/// The output for one sample with these vectors.
pub(super) fn output(quantizer: &VectorQuantizer, x: &[[f32; 2]]) -> QuantizerOutput {
    let device = quantizer.codes.device();
    let data = TensorData::new(x.concat(), [1, x.len(), 2]);
    quantizer.quantize(Tensor::from_data(data, &device))
}
