//! Copies of training images among samples.

mod index;
mod windows;

pub use windows::Alignment;

use super::calibration::{Calibration, CalibrationConfig, ratio};
use crate::{
    Result,
    check::{ensure, ensure_argument},
    data::{ImageBatch, ImageShape},
};
use burn::tensor::{Device, Tensor};
use index::ImageIndex;

/// Configuration of a [`CopyDetector`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyDetectorConfig {
    /// The false alarms allowed.
    pub calibration: CalibrationConfig,
    /// Largest displacement of a copy that is found, in pixels, in both directions. As many pixels
    /// at each side of the training images are not compared.
    pub max_shift: usize,
    /// Whether copies flipped horizontally are found.
    pub flips: bool,
    /// The score is relative to the distance to the `k`-th nearest training image. Copies are found
    /// if an image occurs fewer than `k` times in the training set.
    pub k: usize,
    /// Number of training images that are compared pixel by pixel; they are selected by averages
    /// over a grid of 6×6 cells.
    pub candidates: usize,
}

impl Default for CopyDetectorConfig {
    /// 1 % false alarms, a shift of 2, flips, `k = 10`, and 64 candidates.
    fn default() -> Self {
        Self {
            calibration: CalibrationConfig::default(),
            max_shift: 2,
            flips: true,
            k: 10,
            candidates: 64,
        }
    }
}

impl CopyDetectorConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the field out of range.
    pub fn validate(&self) -> Result<()> {
        self.calibration.validate()?;
        ensure(
            self.max_shift <= 16,
            "max_shift",
            self.max_shift,
            "at most 16",
        )?;
        ensure(self.k >= 2, "k", self.k, "at least 2")?;
        ensure(
            self.candidates >= self.k,
            "candidates",
            self.candidates,
            &format!("at least {}, the value of `k`", self.k),
        )
    }
}

/// The training image that is nearest to a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyMatch {
    /// Index of the training image, in the order of the batches.
    pub index: usize,
    /// Distance after alignment, with brightness and contrast removed: `√(2 − 2·correlation)`, 0
    /// to 2.
    pub distance: f64,
    /// The distance divided by that to the `k`-th nearest training image, in `[0, 1]`.
    pub score: f64,
    /// Whether the score is below the calibrated threshold.
    pub is_copy: bool,
    /// How the training image was moved to give the sample.
    pub alignment: Alignment,
}

/// Finds samples that are copies of training images: unchanged, shifted by some pixels, flipped
/// horizontally, re-encoded as JPEG, or with another brightness or contrast.
///
/// The center of each training image is compared with the sample at each displacement, also
/// flipped; the pixels are normalised to mean 0 and norm 1. The score of a sample is the distance
/// to the nearest training image over the distance to the `k`-th nearest (the ratio of Lowe 2004,
/// <https://doi.org/10.1023/B:VISI.0000029664.99615.94>, section 7.1, with another `k`). So a
/// sample in a dense region, such as a handwritten "1", is no copy because many training images
/// resemble it. The threshold is calibrated on held-out images, see [`Calibration`].
///
/// The training images are kept in memory with one byte per value, their averages over the grid on
/// the device. Images beyond about 64×64 pixels are better reduced before.
///
/// ```
/// use aigc_core::{
///     data::{Image, collate_images, digits},
///     eval::{CopyDetector, CopyDetectorConfig},
/// };
/// # fn main() -> aigc_core::Result<()> {
/// # let device = aigc_core::device::device("flex")?;
/// let (train, held_out) = digits::train_test_split();
/// let batch = |images: &[Image]| collate_images(images.to_vec());
/// let detector = CopyDetector::fit(
///     [Ok(batch(&train.0))],
///     [Ok(batch(&held_out.0))],
///     CopyDetectorConfig { max_shift: 1, ..CopyDetectorConfig::default() },
///     &device,
/// )?;
/// let found = detector.detect(&batch(&train.0[40..50]).to_tensor(&device))?;
/// assert!(found.iter().all(|found| found.is_copy));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CopyDetector {
    index: ImageIndex,
    k: usize,
    calibration: Calibration,
}

impl CopyDetector {
    /// A detector of copies of the training images, calibrated on held-out images. The held-out
    /// images must be from the same distribution and no copies themselves: a test set. The batches
    /// are read one at a time.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a configuration out of range;
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for fewer than `k` training
    /// images, too few held-out images (the message has the number needed), shapes that differ,
    /// images smaller than `2·max_shift + 4`, and values that are not finite; errors of the
    /// batches.
    pub fn fit(
        train: impl IntoIterator<Item = Result<ImageBatch>>,
        held_out: impl IntoIterator<Item = Result<ImageBatch>>,
        config: CopyDetectorConfig,
        device: &Device,
    ) -> Result<Self> {
        config.validate()?;
        let index = ImageIndex::build(train, &config, device)?;
        let mut scores = Vec::new();
        for batch in held_out {
            let found = index.search("held_out", &batch?.to_tensor(device), config.k)?;
            let score =
                |near: &index::Nearest| ratio(near.distances[0], near.distances[config.k - 1]);
            scores.extend(found.iter().map(score));
        }
        Ok(Self {
            calibration: Calibration::new(&scores, config.calibration)?,
            index,
            k: config.k,
        })
    }

    /// The nearest training image of each image, and whether it was copied.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are no images, or they
    /// have another shape than the training images, or values that are not finite.
    pub fn detect(&self, images: &Tensor<4>) -> Result<Vec<CopyMatch>> {
        let count = images.dims()[0];
        ensure_argument(count > 0, "images", count, "at least 1")?;
        let found = self.index.search("images", images, self.k)?;
        let matched = |near: index::Nearest| {
            let score = ratio(near.distances[0], near.distances[self.k - 1]);
            CopyMatch {
                index: near.index,
                distance: near.distances[0],
                score,
                is_copy: self.calibration.is_copy(score),
                alignment: near.alignment,
            }
        };
        Ok(found.into_iter().map(matched).collect())
    }

    /// The threshold and how it was found.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Number of training images.
    pub fn num_train(&self) -> usize {
        self.index.len()
    }

    /// Shape of the training images.
    pub fn shape(&self) -> ImageShape {
        self.index.shape()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
