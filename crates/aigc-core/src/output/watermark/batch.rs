//! Watermarks of images in tensors.

use super::{Detection, Watermark, check_size};
use crate::{Error, Result, check::ensure_argument, data::ImageShape};
use burn::tensor::{Tensor, TensorData};

impl Watermark {
    /// Marks every image of a batch. The mark survives the rounding to 8 bits when the images are
    /// saved.
    ///
    /// # Shapes
    /// - images and output: `[batch, channels, height, width]` in `[0, 1]`, channels 1 (grey) or 3
    ///   (RGB)
    ///
    /// # Errors
    /// As [`embed`](Self::embed); and if a value is not finite.
    pub fn embed_batch(&self, images: &Tensor<4>) -> Result<Tensor<4>> {
        let (values, shape) = values(images, Self::MIN_SIDE)?;
        let mut marked = Vec::with_capacity(values.len());
        for image in values.chunks_exact(shape.numel()) {
            let image = self.mark(image, shape)?;
            marked.extend(image.iter().map(|value| value / 255.0));
        }
        Ok(Tensor::from_data(
            TensorData::new(marked, images.dims()),
            &images.device(),
        ))
    }

    /// Searches the mark in every image of a batch.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`, channels 1 (grey) or 3 (RGB)
    ///
    /// # Errors
    /// As [`detect`](Self::detect); and if a value is not finite.
    pub fn detect_batch(&self, images: &Tensor<4>) -> Result<Vec<Detection>> {
        let (values, shape) = values(images, Self::MIN_DETECTED_SIDE)?;
        values
            .chunks_exact(shape.numel())
            .map(|image| self.search(image, shape))
            .collect()
    }
}

/// Values from 0 to 255, and the shape of an image.
fn values(images: &Tensor<4>, min_side: usize) -> Result<(Vec<f32>, ImageShape)> {
    let [_, channels, height, width] = images.dims();
    let shape = ImageShape::new(channels, height, width);
    check_size(shape, min_side)?;
    let values: Vec<f32> = images.to_data().iter::<f32>().collect();
    let bad = values.iter().find(|value| !value.is_finite());
    if let Some(bad) = bad {
        return Err(Error::argument("images", bad, "finite values"));
    }
    ensure_argument(!values.is_empty(), "images", 0, "at least 1")?;
    let scaled = values.iter().map(|value| value.clamp(0.0, 1.0) * 255.0);
    Ok((scaled.collect(), shape))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use burn::tensor::Device;

    #[test]
    fn batches_are_marked_image_by_image() {
        let device = Device::flex();
        let images = Rng::new(5).uniform([2, 1, 64, 80], 0.2, 0.8, &device);
        let (ours, other) = (Watermark::new(1).with_psnr(37.0), Watermark::new(2));
        let marked = ours.embed_batch(&images).unwrap();
        assert_eq!(marked.dims(), images.dims());
        assert!(
            ours.detect_batch(&marked)
                .unwrap()
                .iter()
                .all(|d| d.present)
        );
        let found = ours.detect_batch(&images).unwrap();
        assert!(!found.iter().any(|detection| detection.present));
        let found = other.detect_batch(&marked).unwrap();
        assert!(!found.iter().any(|detection| detection.present));
    }

    #[test]
    fn invalid_tensors_are_errors() {
        let device = Device::flex();
        let mark = Watermark::new(1);
        let small = Tensor::<4>::zeros([1, 3, 64, 63], &device);
        assert_eq!(
            mark.embed_batch(&small).unwrap_err().to_string(),
            "argument `image` is 64×63, expected at least 64×64 pixels"
        );
        let none = Tensor::<4>::full([1, 3, 64, 64], f32::NAN, &device);
        assert_eq!(
            mark.detect_batch(&none).unwrap_err().to_string(),
            "argument `images` is NaN, expected finite values"
        );
    }
}
