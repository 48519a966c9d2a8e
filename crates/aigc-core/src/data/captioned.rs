//! Batches of images with captions.

use super::{ImageBatch, SampleBatch, SampleShape, collate_images, scenes::CaptionedImage};
use burn::tensor::{Device, Tensor};

/// A batch of images and the caption of each.
#[derive(Clone, Debug)]
pub struct CaptionedBatch {
    /// The images.
    pub images: ImageBatch,
    /// Their captions.
    pub captions: Vec<String>,
}

impl SampleBatch for CaptionedBatch {
    fn to_tensor(&self, device: &Device) -> Tensor<4> {
        self.images.to_tensor(device)
    }

    fn len(&self) -> usize {
        self.images.len()
    }

    fn sample_shape(&self) -> SampleShape {
        self.images.shape().into()
    }
}

/// Collates images with captions into a batch.
///
/// # Panics
/// As [`collate_images`].
pub fn collate_captioned(items: Vec<CaptionedImage>) -> CaptionedBatch {
    let captions = items.iter().map(|item| item.caption.to_string()).collect();
    let images = items.into_iter().map(|item| item.image).collect();
    CaptionedBatch {
        images: collate_images(images),
        captions,
    }
}
