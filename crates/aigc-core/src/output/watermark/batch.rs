//! Watermarks of images in tensors.

use super::{Detection, Watermark, pixels::check_size};
use crate::{Error, Result, check::ensure_argument, data::ImageShape};
use burn::tensor::{Tensor, TensorData};

/// How far values may lie outside of `[0, 1]`, as those of models do by a little.
const TOLERANCE: f32 = 0.1;

impl Watermark {
    /// Marks every image of a batch. Returns the marked images, and what
    /// [`detect_batch`](Self::detect_batch) finds in each when it is rounded to 8 bits, as saved
    /// images are: as with [`embed`](Self::embed), a mark may not be present.
    ///
    /// # Shapes
    /// - images and output: `[batch, channels, height, width]` in `[0, 1]`, channels 1 (grey) or 3
    ///   (RGB)
    ///
    /// # Errors
    /// As [`embed`](Self::embed); and if a value is not finite, or outside of `[0, 1]` by more than
    /// 0.1. Values that are outside by less are moved to the nearest in it.
    pub fn embed_batch(&self, images: &Tensor<4>) -> Result<(Tensor<4>, Vec<Detection>)> {
        let (values, shape) = values(images, Self::MIN_SIDE)?;
        let mut marked = Vec::with_capacity(values.len());
        let mut found = Vec::with_capacity(images.dims()[0]);
        for image in values.chunks_exact(shape.numel()) {
            let image = self.mark(image, shape)?;
            let rounded: Vec<f32> = image.iter().map(|value| value.round()).collect();
            found.push(self.search(&rounded, shape)?);
            marked.extend(image.iter().map(|value| value / 255.0));
        }
        let marked = TensorData::new(marked, images.dims());
        Ok((Tensor::from_data(marked, &images.device()), found))
    }

    /// Searches the mark in every image of a batch.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`, channels 1 (grey) or 3 (RGB)
    ///
    /// # Errors
    /// As [`detect`](Self::detect); and if a value is not finite, or outside of `[0, 1]` by more
    /// than 0.1.
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
    let allowed = -TOLERANCE..=1.0 + TOLERANCE;
    if let Some(outside) = values.iter().find(|value| !allowed.contains(*value)) {
        return Err(Error::argument("images", outside, "values in [0, 1]"));
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
        let (marked, embedded) = ours.embed_batch(&images).unwrap();
        assert_eq!(marked.dims(), images.dims());
        assert!(embedded.iter().all(|detection| detection.present));
        let rounded = (marked.clone() * 255.0).round() / 255.0;
        assert_eq!(ours.detect_batch(&rounded).unwrap(), embedded);
        let found = ours.detect_batch(&marked).unwrap();
        assert!(found.iter().all(|detection| detection.present));
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
        let centered = Tensor::<4>::full([1, 3, 64, 64], -1.0, &device);
        assert_eq!(
            mark.embed_batch(&centered).unwrap_err().to_string(),
            "argument `images` is -1, expected values in [0, 1]"
        );
        let near = Tensor::<4>::full([1, 3, 64, 64], 1.05, &device);
        let (marked, _) = mark.embed_batch(&near).unwrap();
        assert!(marked.max().into_scalar::<f32>() <= 1.0);
    }
}
