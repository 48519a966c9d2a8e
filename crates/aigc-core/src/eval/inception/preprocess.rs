//! How images become the input of the network.

use crate::{Error, Result, ops::resize_bilinear};
use burn::tensor::{Device, Tensor, TensorData};

/// Side of the network's input in pixels.
const SIDE: usize = 299;

/// How images are resized to 299 × 299 pixels and scaled. Numbers of the two kinds are not
/// comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InceptionPreprocessing {
    /// As torch-fidelity and the first publication in TensorFlow: images limited and rounded to
    /// bytes, bilinear interpolation in which the first pixels coincide, and values
    /// `(x − 128) / 128`.
    #[default]
    TorchFidelity,
    /// As pytorch-fid: bilinear interpolation between pixel centres, and values `2·x − 1` of `x` in
    /// `[0, 1]`. Values are neither limited nor rounded; pytorch-fid itself reads files of bytes.
    /// For its numbers, limit and round images in memory to multiples of 1/255 before.
    PytorchFid,
}

impl InceptionPreprocessing {
    /// The network's input for `images`.
    ///
    /// # Shapes
    /// - images: `[batch, 1 or 3, height, width]` in `[0, 1]`
    /// - output: `[batch, 3, 299, 299]`
    pub(super) fn prepare(self, images: Tensor<4>) -> Result<Tensor<4>> {
        let [_, channels, height, width] = images.dims();
        if height == 0 || width == 0 {
            return Err(Error::argument(
                "images",
                format!("{height}×{width}"),
                "at least one pixel high and wide",
            ));
        }
        let x = match self {
            Self::TorchFidelity => {
                let bytes = (images * 255.0).round().clamp(0.0, 255.0);
                resize_from_first(bytes) / 128.0 - 1.0
            }
            Self::PytorchFid => resize_bilinear(images, [SIDE, SIDE]) * 2.0 - 1.0,
        };
        match channels {
            3 => Ok(x),
            1 => Ok(x.repeat_dim(1, 3)),
            _ => Err(Error::argument("channels", channels, "1 (grey) or 3 (RGB)")),
        }
    }
}

/// Bilinear interpolation at the positions `i · from / to`, as TensorFlow 1 has it.
fn resize_from_first(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    if [height, width] == [SIDE, SIDE] {
        return x;
    }
    let rows = interpolation(height, &x.device());
    let columns = interpolation(width, &x.device());
    let x = x.reshape([batch * channels, height, width]);
    let x = rows.unsqueeze::<3>().matmul(x);
    let x = x.matmul(columns.transpose().unsqueeze::<3>());
    x.reshape([batch, channels, SIDE, SIDE])
}

/// `[299, from]`: each row's weights add up to 1. Positions have 32 bits, as in TensorFlow.
fn interpolation(from: usize, device: &Device) -> Tensor<2> {
    let scale = (from as f64 / SIDE as f64) as f32;
    let mut weights = vec![0.0f32; SIDE * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let at = i as f32 * scale;
        let low = (at as usize).min(from - 1);
        let share = at - low as f32;
        row[low] += 1.0 - share;
        row[(low + 1).min(from - 1)] += share;
    }
    Tensor::from_data(TensorData::new(weights, [SIDE, from]), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::testing::{assert_close, flex, values};

    /// Generators overshoot; torch-fidelity takes bytes only.
    #[test]
    fn overshooting_images_become_bytes() {
        let prepared = |image: [[f32; 2]; 2]| {
            let image = Tensor::<4>::from_floats([[image]], &flex());
            values(
                InceptionPreprocessing::TorchFidelity
                    .prepare(image)
                    .unwrap(),
            )
        };
        let overshooting = prepared([[-0.5, 0.25], [1.004, 1.75]]);
        let limited = prepared([[0.0, 64.0 / 255.0], [1.0, 1.0]]);
        assert_close(&overshooting, &limited, 1e-6);
    }
}
