//! Copies of training images among the samples of `digits`.

use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    data::{DataLoader, ImageBatch},
    eval::{CopyDetector, CopyDetectorConfig, Proportion},
};
use aigc_examples::{Images, Progress, outln};

/// Maximum number of samples that are compared with the training images: each is moved by some
/// pixels in all directions.
const MAX_CHECKED: usize = 250;
/// Number of samples that are compared at once.
const BATCH: usize = 50;
/// Maximum number of held-out images that the detector is calibrated on.
const MAX_HELD_OUT: usize = 512;
/// Largest side of the images; the detector keeps the training images in memory.
const MAX_SIDE: usize = 64;

/// A detector of copies.
pub(crate) struct Copies {
    detector: CopyDetector,
}

/// Number of samples, out of `n`, that are compared with the training images.
pub(crate) fn checked(n: usize) -> usize {
    n.min(MAX_CHECKED)
}

impl Copies {
    /// A detector of copies of about `most` training images. `None` if the images are too large or
    /// too small, or there are too few to calibrate it on.
    pub(crate) fn new(images: &Images, most: usize, device: &Device) -> Result<Option<Self>> {
        let (height, width) = (images.shape.height, images.shape.width);
        let config = CopyDetectorConfig {
            max_shift: if height.min(width) < 16 { 1 } else { 2 },
            ..CopyDetectorConfig::default()
        };
        let large_enough = height.min(width) >= 2 * config.max_shift + 4;
        let enough = images.train.num_items() >= config.k
            && images.held_out.num_items() >= config.calibration.num_needed();
        if !large_enough || height.max(width) > MAX_SIDE || !enough {
            return Ok(None);
        }
        // A signal stops training before its first step.
        let progress = Progress::new(
            "images to find copies of",
            most.min(images.train.num_items()) + MAX_HELD_OUT.min(images.held_out.num_items()),
            &CancelToken::new(),
        );
        let fitted = CopyDetector::fit(
            first(&images.train, most, &progress),
            first(&images.held_out, MAX_HELD_OUT, &progress),
            config,
            device,
        );
        drop(progress);
        match fitted {
            Ok(detector) => Ok(Some(Self { detector })),
            // Training does not need the detector.
            Err(error @ Error::InvalidArgument { .. }) => {
                eprintln!("copies of training images are not counted: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The share of copies among the first samples.
    pub(crate) fn metric(&self, samples: &Tensor<4>, progress: &Progress) -> Result<(String, f64)> {
        let n = checked(samples.dims()[0]);
        let mut copies = 0;
        for start in (0..n).step_by(BATCH) {
            let batch = BATCH.min(n - start);
            let found = self
                .detector
                .detect(&samples.clone().narrow(0, start, batch))?;
            copies += found.iter().filter(|found| found.is_copy).count();
            progress.add(batch)?;
        }
        Ok(("copies".into(), Proportion::new(copies, n)?.value()))
    }

    /// Prints the share of copies among the first of `samples` samples.
    pub(crate) fn print(&self, share: f64, samples: usize) {
        let n = checked(samples);
        let count = (share * n as f64).round() as usize;
        let Ok(share) = Proportion::new(count, n) else {
            return;
        };
        let rate = self.detector.calibration().config.false_alarm_rate;
        outln!(
            "copies of training images: {share} of {n} samples, compared with {} training images; \
             at most {:.0} % of new real images would count as copies",
            self.detector.num_train(),
            100.0 * rate
        );
    }
}

/// The batches with the first `most` images.
fn first(
    images: &DataLoader<ImageBatch>,
    most: usize,
    progress: &Progress,
) -> impl Iterator<Item = Result<ImageBatch>> {
    let batches = most.div_ceil(images.config().batch_size);
    images
        .iter_once()
        .take(batches)
        .map(move |batch| -> Result<ImageBatch> {
            let batch = batch?;
            progress.add(batch.len())?;
            Ok(batch)
        })
}
