//! What came out, in numbers.
//!
//! A [`Classifier`] turns images into features and class scores; everything else works on those:
//!
//! | item | what it says |
//! |---|---|
//! | [`FeatureStatistics`], [`frechet_distance`] | how far two sets of features lie apart |
//! | [`ClassHistogram`] | which classes appear how often, and how far that is from evenly |
//! | [`NearestNeighbors`] | the nearest known images: a simple classifier, and a look at copies |
//! | [`LeNet5`] | the usual judge of handwritten digits |
//! | [`psnr`], [`ssim`] | how near images are to originals |
//! | [`Estimate`], [`bootstrap`] | how sure a number is |

mod estimate;
mod histogram;
mod lenet;
mod moments;
mod neighbours;
mod quality;

pub use estimate::{Estimate, bootstrap};
pub use histogram::ClassHistogram;
pub use lenet::{LeNet5, LeNet5Config, resize_bilinear};
pub use moments::{FeatureStatistics, frechet_distance};
pub use neighbours::NearestNeighbors;
pub use quality::{psnr, ssim};

use burn::tensor::Tensor;

/// What a classifier says of a batch.
#[derive(Clone, Debug)]
pub struct ClassifierOutput {
    /// Where the images lie in feature space, `[batch, features]`.
    pub features: Tensor<2>,
    /// Scores of the classes, `[batch, classes]`; the largest is the verdict.
    pub logits: Tensor<2>,
}

impl ClassifierOutput {
    /// The class of each image.
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

/// Judges images.
pub trait Classifier {
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`
    ///
    /// # Panics
    /// If the images are not of a shape that it knows.
    fn classify(&self, images: Tensor<4>) -> ClassifierOutput;
}
