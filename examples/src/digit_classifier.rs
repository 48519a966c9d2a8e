//! Evaluation of samples of digits with a LeNet-5.

use crate::{Images, Progress, complete};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::Device,
    data::ImageShape,
    eval::{ClassHistogram, Classifier, FeatureStatistics, LeNet5, frechet_distance},
    rng::Rng,
    sampling::Samples,
};
use std::path::Path;

/// Samples that are drawn and classified at once.
const PART: usize = 500;

/// A LeNet-5 that evaluates samples.
#[derive(Debug)]
pub struct DigitClassifier {
    lenet: LeNet5,
}

/// What a LeNet-5 finds in samples.
#[derive(Clone, Debug)]
pub struct DigitFigures {
    /// Fréchet distance of the features to those of the test images.
    pub frechet: f64,
    /// Number of samples of each class.
    pub histogram: ClassHistogram,
    /// Fraction of the samples that are classified as the requested digit; none for samples without
    /// labels.
    pub right: Option<f64>,
    /// Number of samples.
    pub samples: usize,
}

impl DigitClassifier {
    /// Loads the weights in the file `path`, for images of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] if the images are not grey; [`Error::Weights`] if the file does not
    /// contain a LeNet-5.
    pub fn from_file(path: &Path, shape: ImageShape, device: &Device) -> Result<Self> {
        if shape.channels != 1 {
            let expected = format!("none for images of {shape}; it classifies grey images");
            return Err(Error::config("classifier", "a LeNet-5", expected));
        }
        Ok(Self {
            lenet: LeNet5::from_file(path, device)?,
        })
    }

    /// Statistics of the features of the held-out images.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `stop` is cancelled; errors of reading.
    pub fn statistics(
        &self,
        images: &Images,
        device: &Device,
        stop: &CancelToken,
    ) -> Result<FeatureStatistics> {
        images.evaluate(stop, |held_out| {
            let mut statistics = FeatureStatistics::new(LeNet5::FEATURES)?;
            for batch in held_out.iter_once() {
                let output = self.lenet.classify(batch?.to_tensor(device));
                statistics.add(&output.features)?;
            }
            Ok(statistics)
        })
    }

    /// Evaluates `n` samples against the statistics `real`. `draw` returns a number of samples of a
    /// seed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than two samples; [`Error::Cancelled`] if `stop` is
    /// cancelled; errors of `draw`.
    pub fn evaluate(
        &self,
        real: &FeatureStatistics,
        n: usize,
        seed: u64,
        stop: &CancelToken,
        mut draw: impl FnMut(usize, u64) -> Result<Samples>,
    ) -> Result<DigitFigures> {
        let progress = Progress::new("evaluation of samples", n, stop);
        let mut statistics = FeatureStatistics::new(LeNet5::FEATURES)?;
        let mut histogram = ClassHistogram::new(LeNet5::CLASSES)?;
        let (mut right, mut requested) = (0, 0);
        for (part, first) in (0..n).step_by(PART).enumerate() {
            let count = PART.min(n - first);
            let part_seed = Rng::stream(seed, "evaluated", part as u64).next_u64();
            let samples = complete(draw(count, part_seed)?)?;
            let output = self.lenet.classify(samples.values);
            statistics.add(&output.features)?;
            let read = output.predictions();
            let labels = samples.labels.unwrap_or_default();
            requested += labels.len();
            right += read.iter().zip(&labels).filter(|(a, b)| a == b).count();
            histogram.add(read)?;
            progress.add(count)?;
        }
        Ok(DigitFigures {
            frechet: frechet_distance(real, &statistics)?,
            histogram,
            right: (requested > 0).then(|| right as f64 / requested as f64),
            samples: n,
        })
    }
}
