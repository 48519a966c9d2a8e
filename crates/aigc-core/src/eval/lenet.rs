//! LeNet-5, the usual judge of handwritten digits.

use super::{Classifier, ClassifierOutput};
use crate::{
    Result,
    nn::{Activation, Conv2d, Conv2dConfig, Linear, LinearConfig},
    weights::load_weights,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData, module::max_pool2d, ops::MaxPoolOptions},
};
use std::path::Path;

/// Configuration to create a [`LeNet5`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeNet5Config;

impl LeNet5Config {
    /// The network on `device`.
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
/// channels, then 84 features and 10 classes. Grey images of any size are brought to 32×32.
///
/// Names and shapes of the weights are those of `csinva/gan-vae-pretrained-pytorch`, whose file it
/// opens.
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

    /// Opens trained weights.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if the file is not a LeNet-5's.
    pub fn from_file(path: &Path, device: &Device) -> Result<Self> {
        load_weights(LeNet5Config.init(device), path)
    }
}

impl Classifier for LeNet5 {
    /// The features are the 84 numbers before the last layer, after their ReLU; the scores are
    /// logits.
    ///
    /// # Panics
    /// If the images have colours.
    fn classify(&self, images: Tensor<4>) -> ClassifierOutput {
        let relu = Activation::Relu;
        let pool = |x: Tensor<4>| max_pool2d(x, MaxPoolOptions::new([2, 2]));
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

/// Bilinear interpolation between pixel centres, as PyTorch's `interpolate(…, align_corners=False)`
/// does it.
///
/// # Shapes
/// - x: `[batch, channels, height, width]`
/// - output: `[batch, channels, side[0], side[1]]`
///
/// # Panics
/// If a side is 0.
pub fn resize_bilinear(x: Tensor<4>, side: [usize; 2]) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let device = x.device();
    if [height, width] == side {
        return x;
    }
    // Rows and columns are independent: two products with narrow matrices.
    let rows = interpolation(height, side[0], &device);
    let columns = interpolation(width, side[1], &device);
    let x = x.reshape([batch * channels, height, width]);
    let x = rows
        .unsqueeze::<3>()
        .matmul(x)
        .matmul(columns.transpose().unsqueeze::<3>());
    x.reshape([batch, channels, side[0], side[1]])
}

/// `[to, from]`: each row's weights add up to 1.
fn interpolation(from: usize, to: usize, device: &Device) -> Tensor<2> {
    let mut weights = vec![0.0f32; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        let share = (at - low as f64) as f32;
        row[low] += 1.0 - share;
        row[(low + 1).min(from - 1)] += share;
    }
    Tensor::from_data(TensorData::new(weights, [to, from]), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    /// Values by hand: 2 → 4 pixels puts centres at ¼ and ¾ between the old ones, and repeats the
    /// border.
    #[test]
    fn resizing_interpolates_between_centres() {
        let device = Device::flex();
        let x = Tensor::<4>::from_floats([[[[0.0, 4.0]]]], &device);
        let got = resize_bilinear(x.clone(), [1, 4])
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        assert_eq!(got, [0.0, 1.0, 3.0, 4.0]);
        let got = resize_bilinear(x, [2, 1])
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        assert_eq!(got, [2.0, 2.0]);
    }
}
