//! What a batch of real samples is.

use aigc_core::data::{ImageBatch, ImageShape};
use burn::tensor::{Device, Tensor};

/// A batch that a critic can look at.
pub trait SampleBatch: Send + 'static {
    /// The samples on `device`, `[batch, channels, height, width]`; images in `[−1, 1]`.
    fn to_tensor(&self, device: &Device) -> Tensor<4>;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Shape of a sample.
    fn sample_shape(&self) -> ImageShape;

    /// The class of each sample, if all have one.
    fn labels(&self) -> Option<&[u32]>;
}

impl SampleBatch for ImageBatch {
    fn to_tensor(&self, device: &Device) -> Tensor<4> {
        self.to_tensor(device) * 2.0 - 1.0
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn sample_shape(&self) -> ImageShape {
        self.shape()
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels()
    }
}
