//! LPIPS, a distance of images in the features of a classifier.

use super::{
    backbone::{Backbone, LpipsNetwork},
    window::finite_values,
};
use crate::{
    Error, Result,
    adversarial::PerceptualDistance,
    nn::{Conv2d, Conv2dConfig},
    ops::cast,
    weights::{KeyMapping, ParamKey, WeightReader},
};
use burn::{
    module::Module,
    tensor::{DType, Device, Tensor},
};
use std::path::Path;

/// Mean and standard deviation of ImageNet's colours, for images in `[−1, 1]`; rounded as in the
/// authors' implementation.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// Configuration to create an [`Lpips`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LpipsConfig {
    /// The network whose features are compared.
    pub network: LpipsNetwork,
}

impl LpipsConfig {
    /// LPIPS in the features of `network`.
    pub fn new(network: LpipsNetwork) -> Self {
        Self { network }
    }

    /// Creates the distance on `device`, with weights that are still to be loaded or drawn.
    pub fn init(&self, device: &Device) -> Lpips {
        let lin = |channels: &usize| {
            let lin = Conv2dConfig::new([*channels, 1], 1).with_bias(false);
            lin.init(device)
        };
        Lpips {
            net: Backbone::new(self.network, device),
            lins: self.network.channels().iter().map(lin).collect(),
        }
    }
}

/// Learned perceptual image patch similarity (Zhang et al. 2018,
/// <https://arxiv.org/abs/1801.03924>, equation 1), version 0.1 of the package `lpips`: the squared
/// differences of unit features of several layers, weighted by channel, averaged over positions and
/// added up. 0 for equal images; a larger distance means that they look less alike.
///
/// The published weights are in two files: torchvision's file of the backbone, and the weights of
/// channels in `lpips/weights/v0.1/` of the package. Load them with
/// [`from_files`](Self::from_files), or the state dict of `lpips.LPIPS(…)`, which has both, with
/// [`from_file`](Self::from_file). Loaded weights are frozen.
///
/// As a [`PerceptualDistance`], autoencoders can be trained with it; it is differentiable with
/// respect to both images. It computes in 32 bits.
#[derive(Module, Debug)]
pub struct Lpips {
    net: Backbone,
    lins: Vec<Conv2d>,
}

/// The weights that a file has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Backbone,
    Linear,
    Both,
}

impl Lpips {
    /// Loads the backbone from a file of torchvision's for the network (names `features.0.weight`),
    /// and the weights of channels from `vgg.pth`, `alex.pth` or `squeeze.pth` of the package
    /// `lpips` (names `lin0.model.1.weight`).
    ///
    /// # Errors
    /// [`Error::Weights`] with the file if tensors are missing, unknown or of another size;
    /// [`Error::Io`] if a file cannot be read.
    pub fn from_files(
        network: LpipsNetwork,
        backbone: &Path,
        linear: &Path,
        device: &Device,
    ) -> Result<Self> {
        let lpips = LpipsConfig::new(network).init(device);
        let lpips = load(lpips, backbone, Part::Backbone)?;
        Ok(load(lpips, linear, Part::Linear)?.no_grad())
    }

    /// Loads a state dict of `lpips.LPIPS(…)` (names `net.slice1.0.weight` and
    /// `lin0.model.1.weight`).
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub fn from_file(network: LpipsNetwork, path: &Path, device: &Device) -> Result<Self> {
        let lpips = LpipsConfig::new(network).init(device);
        Ok(load(lpips, path, Part::Both)?.no_grad())
    }

    /// The network whose features are compared.
    pub fn network(&self) -> LpipsNetwork {
        self.net.network()
    }

    /// The distance of each image to its original, differentiable with respect to both.
    ///
    /// # Shapes
    /// - images and originals: `[batch, channels, height, width]` in `[0, 1]`; 3 channels, or 1,
    ///   which is repeated
    /// - output: `[batch]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the shapes differ, there are no images, the channels are
    /// neither 1 nor 3, or a side is below [`smallest_side`](LpipsNetwork::smallest_side).
    pub fn forward(&self, images: Tensor<4>, originals: Tensor<4>) -> Result<Tensor<1>> {
        self.check(images.dims(), originals.dims())?;
        let signed = |x: Tensor<4>| x * 2.0 - 1.0;
        Ok(self.distance(signed(images), signed(originals)))
    }

    /// [`forward`](Self::forward) for evaluation: the distances on the host.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::InvalidArgument`] if a value is not finite.
    pub fn evaluate(&self, images: &Tensor<4>, originals: &Tensor<4>) -> Result<Vec<f64>> {
        // The error names the images, not the distance.
        finite_values("images", images)?;
        finite_values("originals", originals)?;
        let distances = self.forward(images.clone().inner(), originals.clone().inner())?;
        Ok(distances.into_data().iter::<f64>().collect())
    }

    fn check(&self, images: [usize; 4], originals: [usize; 4]) -> Result<()> {
        let [batch, channels, height, width] = originals;
        if images != originals || batch == 0 {
            let expected = format!("{originals:?}, like the originals, and not empty");
            return Err(Error::argument("images", format!("{images:?}"), expected));
        }
        if !matches!(channels, 1 | 3) {
            let found = format!("{images:?}");
            return Err(Error::argument("images", found, "1 or 3 channels"));
        }
        let least = self.network().smallest_side();
        if height.min(width) < least {
            let expected = format!("sides of at least {least} pixels for {:?}", self.network());
            return Err(Error::argument("images", format!("{images:?}"), expected));
        }
        Ok(())
    }

    /// Features with unit length at each position, for images in `[−1, 1]`.
    fn unit_features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        // Squared differences of features would vanish in half precision.
        let x = cast(x, DType::F32);
        let [_, channels, _, _] = x.dims();
        let x = match channels {
            1 => x.repeat_dim(1, 3),
            _ => x,
        };
        let device = x.device();
        let colours =
            |values: [f32; 3]| Tensor::<1>::from_floats(values, &device).reshape([1, 3, 1, 1]);
        let x = (x - colours(SHIFT)) / colours(SCALE);
        self.net.features(x).into_iter().map(unit).collect()
    }
}

impl PerceptualDistance for Lpips {
    fn distance(&self, x: Tensor<4>, y: Tensor<4>) -> Tensor<1> {
        let (x, y) = (self.unit_features(x), self.unit_features(y));
        let layers = x.into_iter().zip(y).zip(&self.lins).map(|((x, y), lin)| {
            let difference = x - y;
            let squares = difference.clone() * difference;
            // The weighted sum over channels and the mean over positions commute.
            let means = squares.mean_dim(2).mean_dim(3);
            let [batch, ..] = means.dims();
            lin.forward(means).reshape([batch])
        });
        let total = layers.reduce(|sum, layer| sum + layer);
        total.expect("every network has several layers")
    }
}

/// Divides the channels at each position by their Euclidean norm.
fn unit(x: Tensor<4>) -> Tensor<4> {
    let squares = (x.clone() * x.clone()).sum_dim(1);
    // The square root has no derivative at 0, where all channels are off; the lower limit gives
    // the same value and the gradient 0.
    let norm = squares.clamp_min(1e-20).sqrt() + 1e-10;
    x / norm
}

/// Loads one part of the weights, or both.
fn load(lpips: Lpips, path: &Path, part: Part) -> Result<Lpips> {
    let network = lpips.network();
    let mapping = |key: ParamKey<'_>| {
        if let Some(path) = key.path.strip_prefix("net.") {
            return match part {
                Part::Linear => KeyMapping::skip(),
                Part::Backbone | Part::Both => network.backbone_key(path),
            };
        }
        let index = key
            .path
            .strip_prefix("lins.")
            .and_then(|path| path.split('.').next());
        match (part, index) {
            (Part::Backbone, _) => KeyMapping::skip(),
            (_, None) => KeyMapping::new(key.path),
            // Without dropout, the convolution is the first layer of the sequence. `lins` is the
            // same layers once more, and may be all that a safetensors file has of them.
            (_, Some(index)) => KeyMapping::new(format!("lin{index}.model.1.weight"))
                .or(format!("lin{index}.model.0.weight"))
                .or(format!("lins.{index}.model.1.weight"))
                .or(format!("lins.{index}.model.0.weight")),
        }
    };
    let (lpips, report) = WeightReader::open(path)?.load_into(lpips, mapping)?;
    let prefix = report.prefix.unwrap_or_default();
    let is_known = |name: &String| {
        let name = name.strip_prefix(prefix.as_str()).unwrap_or(name);
        let mut known = ["lin", "scaling_layer.", "classifier."].into_iter();
        let is_backbone = name.starts_with("net.") || name.starts_with("features.");
        known.any(|prefix| name.starts_with(prefix)) || (part == Part::Linear && is_backbone)
    };
    let unknown: Vec<String> = report.unused.into_iter().filter(|n| !is_known(n)).collect();
    match unknown.is_empty() {
        true => Ok(lpips),
        false => {
            let reason = format!("unexpected keys for {network:?}: {}", unknown.join(", "));
            Err(Error::weights(path, reason))
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    fn squeeze() -> Lpips {
        let config = LpipsConfig::new(LpipsNetwork::SqueezeNet);
        config.init(&Device::flex()).init_weights(3).no_grad()
    }

    #[test]
    fn smallest_sides_are_accepted_and_smaller_ones_are_errors() {
        let lpips = squeeze();
        let zeros = |dims: [usize; 4]| Tensor::<4>::zeros(dims, &Device::flex());
        let x = zeros([2, 3, 17, 19]);
        assert_eq!(lpips.evaluate(&x, &x).unwrap(), [0.0, 0.0]);
        let message = |x: [usize; 4], y: [usize; 4]| {
            let result = lpips.evaluate(&zeros(x), &zeros(y));
            result.unwrap_err().to_string()
        };
        let text = message([1, 3, 16, 40], [1, 3, 16, 40]);
        assert!(text.contains("sides of at least 17 pixels"), "{text}");
        let text = message([1, 2, 20, 20], [1, 2, 20, 20]);
        assert!(text.contains("1 or 3 channels"), "{text}");
        let text = message([1, 3, 20, 20], [2, 3, 20, 20]);
        assert!(text.contains("`images` is [1, 3, 20, 20]"), "{text}");
        assert!(message([0, 3, 20, 20], [0, 3, 20, 20]).contains("not empty"));
        let broken = x.clone() * f32::NAN;
        let text = lpips.evaluate(&x, &broken).unwrap_err().to_string();
        assert!(text.contains("`originals` is NaN"), "{text}");
    }

    #[test]
    fn grey_images_are_repeated() {
        let lpips = squeeze();
        let mut rng = Rng::new(1);
        let mut image = || rng.uniform([2, 1, 24, 24], 0.0, 1.0, &Device::flex());
        let (x, y): (Tensor<4>, Tensor<4>) = (image(), image());
        let grey = lpips.forward(x.clone(), y.clone()).unwrap();
        let colour = lpips.forward(x.repeat_dim(1, 3), y.repeat_dim(1, 3));
        assert_close(&values(grey), &values(colour.unwrap()), 1e-6);
    }

    /// Channels that are all off have neither an infinite value nor gradient.
    #[test]
    fn gradient_of_features_without_length_is_zero() {
        let x = Tensor::<4>::zeros([1, 4, 2, 2], &Device::flex().autodiff()).require_grad();
        let y = unit(x.clone());
        let gradient = x.grad(&(y.clone() * y).sum().backward()).unwrap();
        assert_close(&values(gradient), &[0.0; 16], 0.0);
    }
}
