//! Evaluation of samples of digits with a LeNet-5.

use crate::{Images, Progress, complete};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    data::ImageShape,
    eval::{
        ClassHistogram, Classifier, ClosureExtractor, ConditionalAccuracy, FeatureStatistics,
        FeatureStream, Features, KernelDistance, LeNet5, MeanStd, Prdc, PrdcConfig, Proportion,
        class_entropy, frechet_distance, kid,
    },
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

/// What a LeNet-5 finds in samples, added part by part.
#[derive(Clone, Debug)]
pub struct ClassifiedDigits {
    /// Features of the samples.
    pub features: Features,
    /// Number of samples of each class.
    pub histogram: ClassHistogram,
    accuracy: ConditionalAccuracy,
}

/// Figures of samples beside test images, in features of a LeNet-5.
#[derive(Clone, Debug)]
pub struct DigitFigures {
    /// Fréchet distance.
    pub frechet: f64,
    /// Kernel distance over subsets of 1,000 samples, with the kernel of KID; none for fewer.
    pub kid: Option<MeanStd>,
    /// Precision, recall, density and coverage; none for too few samples or test images.
    pub prdc: Option<Prdc>,
    /// Number of samples of each class.
    pub histogram: ClassHistogram,
    /// Entropy of these numbers, as a share of the largest.
    pub entropy: f64,
    /// The samples that are classified as the requested digit; none for samples without labels.
    pub right: Option<Proportion>,
    /// Number of samples.
    pub samples: usize,
    /// Number of test images.
    pub test_images: usize,
}

impl ClassifiedDigits {
    /// No samples yet.
    ///
    /// # Errors
    /// None for the numbers of features and classes of a LeNet-5.
    pub fn new() -> Result<Self> {
        Ok(Self {
            features: Features::empty(LeNet5::FEATURES)?,
            histogram: ClassHistogram::new(LeNet5::CLASSES)?,
            accuracy: ConditionalAccuracy::new(LeNet5::CLASSES)?,
        })
    }

    /// The samples that are classified as the requested digit; none for samples without labels.
    pub fn right(&self) -> Option<Proportion> {
        self.accuracy.overall().ok()
    }

    /// Fréchet distance to the features `real`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than two samples.
    pub fn frechet(&self, real: &FeatureStatistics) -> Result<f64> {
        frechet_distance(real, &statistics(&self.features)?)
    }

    /// Fréchet distance of the samples `items`, which may repeat, to the features `real`.
    ///
    /// # Errors
    /// As for [`frechet`](Self::frechet).
    pub fn frechet_of(&self, real: &FeatureStatistics, items: &[usize]) -> Result<f64> {
        frechet_distance(real, &statistics(&self.features.select(items))?)
    }
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

    /// Features of the held-out images.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `stop` is cancelled; errors of reading.
    pub fn features(
        &self,
        images: &Images,
        device: &Device,
        stop: &CancelToken,
    ) -> Result<Features> {
        let features = |x: Tensor<4>| -> Result<Tensor<2>> { Ok(self.lenet.classify(x).features) };
        let extractor = ClosureExtractor::new("lenet5", LeNet5::FEATURES, features);
        let stream = FeatureStream::<4>::new(&extractor, device);
        images.evaluate(stop, |held_out| stream.features(held_out.iter_once()))
    }

    /// Classifies samples and adds them to `found`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for features that are not finite, and requested classes that a
    /// LeNet-5 does not have.
    pub fn add(&self, found: &mut ClassifiedDigits, samples: &Samples) -> Result<()> {
        let n = samples.values.dims()[0];
        for start in (0..n).step_by(PART) {
            let part = PART.min(n - start);
            let images = samples.values.clone().narrow(0, start, part);
            let output = self.lenet.classify(images);
            found.features.extend(&output.features)?;
            let read = output.predictions();
            if let Some(requested) = &samples.labels {
                found.accuracy.add(&read, &requested[start..start + part])?;
            }
            found.histogram.add(read)?;
        }
        Ok(())
    }

    /// Evaluates `n` samples beside the features `real`. `draw` returns a number of samples of a
    /// seed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than two samples; [`Error::Cancelled`] if `stop` is
    /// cancelled; errors of `draw`.
    pub fn evaluate(
        &self,
        real: &Features,
        n: usize,
        seed: u64,
        stop: &CancelToken,
        mut draw: impl FnMut(usize, u64) -> Result<Samples>,
    ) -> Result<DigitFigures> {
        let progress = Progress::new("evaluation of samples", n, stop);
        let mut found = ClassifiedDigits::new()?;
        for (part, first) in (0..n).step_by(PART).enumerate() {
            let count = PART.min(n - first);
            let part_seed = Rng::stream(seed, "evaluated", part as u64).next_u64();
            self.add(&mut found, &complete(draw(count, part_seed)?)?)?;
            progress.add(count)?;
        }
        let fewest = found.features.len().min(real.len());
        let config = PrdcConfig::default();
        let prdc = (fewest > config.nearest_k).then(|| config.compute(real, &found.features));
        let subset = KernelDistance::default().subset_size;
        let kid = (fewest >= subset).then(|| kid(real, &found.features, seed));
        Ok(DigitFigures {
            frechet: found.frechet(&statistics(real)?)?,
            kid: kid.transpose()?,
            prdc: prdc.transpose()?,
            entropy: class_entropy(&found.histogram)?.normalized,
            right: found.right(),
            samples: found.features.len(),
            test_images: real.len(),
            histogram: found.histogram,
        })
    }
}

/// Mean and covariance of features.
fn statistics(features: &Features) -> Result<FeatureStatistics> {
    let mut statistics = FeatureStatistics::new(features.width())?;
    statistics.add_features(features)?;
    Ok(statistics)
}
