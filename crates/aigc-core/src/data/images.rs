//! Images on the host.

use super::label_tensor;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;

/// Shape of an image: channels, height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShape {
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl ImageShape {
    /// A shape from its three sides.
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self {
            channels,
            height,
            width,
        }
    }

    /// Number of values.
    pub const fn numel(&self) -> usize {
        self.channels * self.height * self.width
    }
}

impl std::fmt::Display for ImageShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}×{}", self.channels, self.height, self.width)
    }
}

/// One 8-bit image: `channels × height × width` values, channel by channel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Channels, height, width.
    pub shape: ImageShape,
    /// The values, 0 to 255.
    pub pixels: Vec<u8>,
    /// Class, if the data set has classes.
    pub label: Option<u32>,
}

/// A batch of images on the host. Values are in `[0, 1]`.
#[derive(Clone, Debug)]
pub struct ImageBatch {
    values: Vec<f32>,
    size: usize,
    shape: ImageShape,
    labels: Option<Vec<u32>>,
    /// The images on the first device that they were moved to: an objective may need them several
    /// times.
    tensor: OnceCell<(Device, Tensor<4>)>,
}

impl ImageBatch {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The first `n` images; all if there are fewer.
    pub fn take(mut self, n: usize) -> Self {
        self.tensor = OnceCell::new();
        self.size = self.size.min(n);
        self.values.truncate(self.size * self.shape.numel());
        if let Some(labels) = &mut self.labels {
            labels.truncate(self.size);
        }
        self
    }

    /// Shape of each image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Classes; `None` if an image of the batch has no class.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// The images on `device`, `[batch, channels, height, width]` in `[0, 1]`.
    pub fn to_tensor(&self, device: &Device) -> Tensor<4> {
        let transfer = || {
            let ImageShape {
                channels,
                height,
                width,
            } = self.shape;
            let dims = [self.size, channels, height, width];
            Tensor::from_data(TensorData::new(self.values.clone(), dims), device)
        };
        let (known, tensor) = self.tensor.get_or_init(|| (device.clone(), transfer()));
        if known == device {
            tensor.clone()
        } else {
            transfer()
        }
    }

    /// Classes on `device`, `[batch]`; `None` if an image of the batch has no class.
    pub fn label_tensor(&self, device: &Device) -> Option<Tensor<1, Int>> {
        Some(label_tensor(self.labels.as_ref()?, device))
    }
}

/// Collates images of one shape into a batch.
///
/// # Panics
/// If there are no images, their shapes differ, or the number of pixels of one does not fit its
/// shape.
pub fn collate_images(images: Vec<Image>) -> ImageBatch {
    let shape = images.first().expect("a batch has images").shape;
    let mut values = Vec::with_capacity(images.len() * shape.numel());
    for image in &images {
        assert_eq!(image.shape, shape, "images of a batch differ in shape");
        assert_eq!(
            image.pixels.len(),
            shape.numel(),
            "number of pixels of an image of {shape}"
        );
        values.extend(image.pixels.iter().map(|p| f32::from(*p) / 255.0));
    }
    ImageBatch {
        values,
        size: images.len(),
        shape,
        labels: images.iter().map(|i| i.label).collect(),
        tensor: OnceCell::new(),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn take_keeps_first_images() {
        let shape = ImageShape::new(1, 1, 2);
        let image = |value: u8| Image {
            shape,
            pixels: vec![value, 0],
            label: Some(u32::from(value)),
        };
        let batch = collate_images((0..3).map(image).collect());
        let two = batch.clone().take(2);
        assert_eq!((two.len(), two.labels().unwrap()), (2, &[0, 1][..]));
        assert_eq!(two.to_tensor(&Device::flex()).dims(), [2, 1, 1, 2]);
        assert_eq!(batch.take(9).len(), 3);
    }

    #[test]
    fn batches_scale_pixels_to_unit_range() {
        let image = |pixels: [u8; 2], label| Image {
            shape: ImageShape::new(1, 1, 2),
            pixels: pixels.into(),
            label,
        };
        let batch = collate_images(vec![image([0, 255], Some(3)), image([51, 102], Some(7))]);
        let device = Device::flex();
        let values = batch
            .to_tensor(&device)
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        assert_eq!(values, [0.0, 1.0, 0.2, 0.4]);
        let labels: Vec<i64> = batch
            .label_tensor(&device)
            .unwrap()
            .into_data()
            .iter::<i64>()
            .collect();
        assert_eq!(labels, [3, 7]);
        let unlabelled = collate_images(vec![image([0, 0], Some(3)), image([0, 0], None)]);
        assert!(unlabelled.label_tensor(&device).is_none());
    }
}
