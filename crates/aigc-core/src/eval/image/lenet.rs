//! LeNet-5, a classifier for evaluating handwritten digits.

use crate::{
    Result,
    check::ensure_argument,
    eval::{Classifier, ClassifierOutput, FeatureExtractor, features::weight_hash},
    nn::{Activation, Conv2d, Conv2dConfig, Linear, LinearConfig},
    ops::{max_pool2d, resize_bilinear},
    weights::load_weights,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Configuration to create a [`LeNet5`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeNet5Config;

impl LeNet5Config {
    /// Creates the network on `device`.
    pub fn init(&self, device: &Device) -> LeNet5 {
        let conv = |channels| Conv2dConfig::new(channels, 5).init(device);
        LeNet5 {
            convnet: Convolutions {
                c1: conv([1, 6]),
                c3: conv([6, 16]),
                c5: conv([16, 120]),
            },
            fc: Connected {
                f6: LinearConfig::new(120, 84).init(device),
                f7: LinearConfig::new(84, 10).init(device),
            },
        }
    }
}

/// LeNet-5 (LeCun et al. 1998) with ReLU and maximum pooling: convolutions of 6, 16 and 120
/// channels, then 84 features and 10 classes. Grey images of any size are resized to 32×32.
///
/// Names and shapes of the weights are those of `csinva/gan-vae-pretrained-pytorch`, whose file can
/// be loaded.
#[derive(Module, Debug)]
pub struct LeNet5 {
    convnet: Convolutions,
    fc: Connected,
}

#[derive(Module, Debug)]
struct Convolutions {
    c1: Conv2d,
    c3: Conv2d,
    c5: Conv2d,
}

#[derive(Module, Debug)]
struct Connected {
    f6: Linear,
    f7: Linear,
}

impl LeNet5 {
    /// Number of features.
    pub const FEATURES: usize = 84;
    /// Number of classes.
    pub const CLASSES: usize = 10;

    /// Loads trained weights.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if the file does not contain a LeNet-5.
    pub fn from_file(path: &Path, device: &Device) -> Result<Self> {
        load_weights(LeNet5Config.init(device), path)
    }
}

impl Classifier for LeNet5 {
    /// The features are the 84 values after the ReLU before the last layer; the scores are logits.
    ///
    /// # Panics
    /// If the images are not grey.
    fn classify(&self, images: Tensor<4>) -> ClassifierOutput {
        let relu = Activation::Relu;
        let pool = |x: Tensor<4>| max_pool2d(x, 2, 2, 0);
        let x = resize_bilinear(images, [32, 32]);
        let x = pool(relu.forward(self.convnet.c1.forward(x)));
        let x = pool(relu.forward(self.convnet.c3.forward(x)));
        let x = relu.forward(self.convnet.c5.forward(x)).flatten::<2>(1, 3);
        let features = relu.forward(self.fc.f6.forward(x));
        ClassifierOutput {
            logits: self.fc.f7.forward(features.clone()),
            features,
        }
    }
}

impl FeatureExtractor for LeNet5 {
    /// Has the hash of the weights, which may change by training.
    fn id(&self) -> String {
        format!("LeNet-5 {}", weight_hash(self))
    }

    fn width(&self) -> usize {
        Self::FEATURES
    }

    fn extract(&self, images: Tensor<4>) -> Result<Tensor<2>> {
        let [_, channels, height, width] = images.dims();
        ensure_argument(
            channels == 1 && height > 0 && width > 0,
            "images",
            format!("{channels} × {height} × {width}"),
            "1 channel (grey), and pixels",
        )?;
        Ok(self.classify(images).features)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{rng::InitWeights, testing::flex};

    #[test]
    fn features_are_named_by_the_weights() {
        let net = |seed| LeNet5Config.init(&flex()).init_weights(seed);
        let (a, b) = (net(1), net(2));
        assert_eq!(a.id(), net(1).id());
        assert_ne!(a.id(), b.id());
        let images = Tensor::<4>::ones([3, 1, 28, 28], &flex());
        let features = a.extract(images).unwrap();
        assert_eq!(features.dims(), [3, a.width()]);
        let colour = a.extract(Tensor::zeros([1, 3, 8, 8], &flex()));
        let error = colour.unwrap_err().to_string();
        assert!(error.contains("`images` is 3 × 8 × 8"), "{error}");
    }
}
