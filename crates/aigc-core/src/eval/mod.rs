//! Evaluation of generated content: quality, diversity, relevance, originality.
//!
//! A [`FeatureExtractor`] maps samples to [`Features`], and most measures are computed from those.
//!
//! | question | items |
//! |---|---|
//! | features | [`FeatureStream`], [`FeatureCache`] |
//! | networks | [`InceptionV3`], [`LeNet5`], [`ClosureExtractor`] |
//! | quality of a set | [`frechet_distance`], [`kid`], [`inception_score`], [`PrdcConfig`] |
//! | … | [`cmmd`], [`sliced_wasserstein`], [`perceptual_path_length`] |
//! | quality beside an original | [`psnr`], [`ssim`], [`ms_ssim`], [`Lpips`] |
//! | text: quality, diversity | [`text`] |
//! | sound | [`audio`] |
//! | diversity | [`ClassHistogram`], [`class_entropy`], [`intra_class_distance`] |
//! | … | [`mean_pairwise_distance`], [`vendi_score`] |
//! | relevance | [`clip_score`], [`caption_retrieval`] |
//! | … | [`conditional_accuracy`], [`cosine_similarity`] |
//! | copies of images | [`CopyDetector`], [`FeatureCopyDetector`], [`NearestNeighbors`] |
//! | originality of a set | [`authenticity`], [`closest_records`] |
//! | originality of text | [`TextIndex`] |
//! | memorisation by a model | [`memorization()`] |
//! | codes with known factors | [`disentanglement`] |
//! | uncertainty | [`Estimate`], [`bootstrap`], [`Proportion`] |
//! | … | [`frechet_interval`], [`mmd_interval`], [`cmmd_interval`], [`half_sampling`] |
//! | sounds by a classifier | [`sound_classifier`] |
//! | flicker and motion of videos | [`mod@video`] |
//! | during training | [`SampleMetrics`], [`DiversityWatch`](crate::train::DiversityWatch) |
//! | one page of all of it | [`report`] |

pub mod audio;
pub mod disentanglement;
mod distribution;
mod estimate;
mod features;
mod histogram;
mod image;
mod inception;
mod moments;
mod originality;
mod perceptual;
mod relevance;
pub mod report;
mod sample_metrics;
pub mod sound_classifier;
pub mod text;
pub mod video;

pub use distribution::{
    ClassEntropy, ClassSpread, GaussianMoments, KernelDistance, MeanStd, MmdEstimator, MmdKernel,
    Prdc, PrdcConfig, PrdcSamples, class_entropy, cmmd, cmmd_interval, frechet_distance,
    frechet_interval, inception_score, intra_class_distance, kid, maximum_mean_discrepancy,
    mean_pairwise_distance, mmd_interval, sampled_pairwise_distance, sliced_wasserstein,
    sliced_wasserstein_along, vendi_score, wasserstein_1d,
};
pub use estimate::{Estimate, bootstrap, centred_bootstrap, half_sampling};
pub use features::{ClosureExtractor, FeatureCache, FeatureExtractor, FeatureStream, Features};
pub use histogram::ClassHistogram;
pub use image::{LeNet5, LeNet5Config, NearestNeighbors, psnr, ssim};
pub use inception::{InceptionLayer, InceptionPreprocessing, InceptionV3, InceptionV3Config};
pub use moments::FeatureStatistics;
pub use originality::{
    Alignment, Calibration, CalibrationConfig, ClosestRecords, CopiedSpan, CopyDetector,
    CopyDetectorConfig, CopyMatch, FeatureCopyDetector, FeatureMatch, FeatureNeighbors, Match,
    Memorization, NgramOverlap, OriginalityConfig, OriginalityReport, TextIndex, TextIndexConfig,
    TextOriginality, TextSpan, TextUnit, authenticity, closest_records, memorization, token_text,
};
pub use perceptual::{
    LatentInterpolation, Lpips, LpipsConfig, LpipsNetwork, MsSsimConfig, MsSsimNormalize,
    PathLength, PathLengthConfig, ms_ssim, perceptual_path_length, perceptual_path_length_between,
};
pub use relevance::{
    ClipScore, ConditionalAccuracy, Proportion, Retrieval, RetrievalRanks, caption_retrieval,
    clip_score, conditional_accuracy, cosine_similarity,
};
pub use sample_metrics::SampleMetrics;

use burn::tensor::Tensor;

/// The output of a classifier for a batch.
#[derive(Clone, Debug)]
pub struct ClassifierOutput {
    /// Features of the images, `[batch, features]`.
    pub features: Tensor<2>,
    /// Logits of the classes, `[batch, classes]`; the largest is the prediction.
    pub logits: Tensor<2>,
}

impl ClassifierOutput {
    /// The predicted class of each image.
    pub fn predictions(&self) -> Vec<u32> {
        self.logits
            .clone()
            .argmax(1)
            .into_data()
            .iter::<i64>()
            .map(|class| class as u32)
            .collect()
    }
}

/// Classifies images.
pub trait Classifier {
    /// Features and logits of `images`.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`
    ///
    /// # Panics
    /// If the classifier does not accept images of this shape.
    fn classify(&self, images: Tensor<4>) -> ClassifierOutput;
}
