//! Evaluation of samples.
//!
//! A [`Classifier`] maps images to features and logits; the other measures are computed from those:
//!
//! | item | what it measures |
//! |---|---|
//! | [`FeatureStatistics`], [`frechet_distance`] | the distance between two sets of features |
//! | [`ClassHistogram`] | the number of samples of each class, and its distance from uniform |
//! | [`NearestNeighbors`] | the nearest known images: a classifier, and a search for copies |
//! | [`disentanglement`] | how well codes separate known factors: MIG, SAP, DCI |
//! | [`LeNet5`] | a classifier of handwritten digits |
//! | [`psnr`], [`ssim`] | the similarity of images to their originals |

pub mod disentanglement;
mod estimate;
mod histogram;
mod image;
mod moments;

pub use estimate::{Estimate, bootstrap};
pub use histogram::ClassHistogram;
pub use image::{LeNet5, LeNet5Config, NearestNeighbors, psnr, ssim};
pub use moments::{FeatureStatistics, frechet_distance};

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
