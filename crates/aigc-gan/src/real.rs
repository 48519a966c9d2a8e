//! What a batch of real samples is.

use aigc_core::data::{ImageBatch, ImageShape};
use burn::tensor::{Device, Tensor};

/// A batch that a critic can look at.
pub trait RealBatch: Send + 'static {
    /// The samples on `device`, `[batch, channels, height, width]`; images in `[−1, 1]`.
    fn real(&self, device: &Device) -> Tensor<4>;

    /// Number of samples.
    fn size(&self) -> usize;

    /// Shape of a sample.
    fn sample_shape(&self) -> ImageShape;

    /// The class of each sample, if all have one.
    fn class_labels(&self) -> Option<&[u32]>;
}

impl RealBatch for ImageBatch {
    fn real(&self, device: &Device) -> Tensor<4> {
        self.images(device) * 2.0 - 1.0
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn sample_shape(&self) -> ImageShape {
        self.shape()
    }

    fn class_labels(&self) -> Option<&[u32]> {
        self.label_values()
    }
}
