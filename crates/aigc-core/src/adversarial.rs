//! What an autoencoder is trained against: discriminators and perceptual distances.
//!
//! One family's crate implements a trait, another takes the network as a type parameter or as
//! `&dyn`; neither crate depends on the other. [`PatchDiscriminator`] is the usual discriminator of
//! autoencoders of images.

use crate::{
    Result,
    check::{self, ensure},
    data::{ImageShape, SampleShape},
    nn::{Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Initializer},
};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// The outputs of one discriminator for a batch of samples.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Logits, `[batch, patches]`; a higher logit means that a sample or patch looks more real.
    pub logits: Tensor<2>,
    /// Values of each hidden layer, `[batch, values]`.
    pub features: Vec<Tensor<2>>,
}

/// A network that distinguishes real samples from generated ones. `X` is the rank of a batch of
/// samples: 4 for images.
pub trait SampleDiscriminator<const X: usize = 4>: Module + ModuleDisplay {
    /// Logits of each sample: one, or one for each patch; a higher logit means that the sample or
    /// patch looks more real.
    ///
    /// # Shapes
    /// - x: `[batch, …]`, [normalised](crate::data::ValueRange::normalize): images in `[−1, 1]`
    /// - class: `[batch]`; ignored by a discriminator without classes
    /// - output: `[batch, patches]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class-conditional discriminator gets no classes.
    fn logits(&self, x: Tensor<X>, class: Option<Tensor<1, Int>>) -> Tensor<2>;

    /// Number of classes; `None` for an unconditional discriminator.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// Values of hidden layers for each sample, which a decoder can be trained to reproduce (Larsen
    /// et al. 2016, <https://arxiv.org/abs/1512.09300>). By default there are none.
    ///
    /// # Shapes
    /// - x and class: as for [`logits`](Self::logits)
    /// - output: `[batch, values]` for each layer
    ///
    /// # Panics
    /// As [`logits`](Self::logits).
    fn features(&self, x: Tensor<X>, class: Option<Tensor<1, Int>>) -> Vec<Tensor<2>> {
        let _ = (x, class);
        Vec::new()
    }

    /// Logits and features of each of the discriminators that the network consists of, for losses
    /// that are means over discriminators. By default there is one, and its logits and features are
    /// computed one after the other; a network overrides this to compute both in one pass.
    ///
    /// # Shapes
    /// - x and class: as for [`logits`](Self::logits)
    ///
    /// # Panics
    /// As [`logits`](Self::logits).
    fn verdicts(&self, x: Tensor<X>, class: Option<Tensor<1, Int>>) -> Vec<Verdict> {
        vec![Verdict {
            logits: self.logits(x.clone(), class.clone()),
            features: self.features(x, class),
        }]
    }

    /// Fails for samples of a shape that the network cannot process, too short a sound for
    /// instance. By default it accepts all.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument).
    fn check_sample(&self, shape: SampleShape) -> Result<()> {
        let _ = shape;
        Ok(())
    }
}

/// Losses of a discriminator and of the network that it classifies samples of, from logits; higher
/// logits mean more real. `sp(x) = ln(1 + eˣ)`, and each term is a mean over samples and patches:
///
/// | | discriminator | generator |
/// |---|---|---|
/// | hinge | `½·max(0, 1 − D(x)) + ½·max(0, 1 + D(G))` | `−D(G)` |
/// | non-saturating | `½·sp(−D(x)) + ½·sp(D(G))` | `sp(−D(G))` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdversarialLoss {
    /// Hinge loss with margin 1 (Lim and Ye 2017, <https://arxiv.org/abs/1705.02894>).
    #[default]
    Hinge,
    /// The logistic loss; the generator maximises `log σ(D(G))` (Goodfellow et al. 2014,
    /// <https://arxiv.org/abs/1406.2661>, §3).
    NonSaturating,
}

impl AdversarialLoss {
    /// The discriminator's loss.
    ///
    /// # Shapes
    /// - real and fake: logits, `[batch, patches]`
    /// - output: `[1]`
    pub fn discriminator_loss(self, real: Tensor<2>, fake: Tensor<2>) -> Tensor<1> {
        let mean = |x: Tensor<2>| match self {
            AdversarialLoss::Hinge => Activation::Relu.forward(x + 1.0).mean(),
            AdversarialLoss::NonSaturating => Activation::Softplus.forward(x).mean(),
        };
        (mean(-real) + mean(fake)) * 0.5
    }

    /// The generator's loss.
    ///
    /// # Shapes
    /// - fake: logits, `[batch, patches]`
    /// - output: `[1]`
    pub fn generator_loss(self, fake: Tensor<2>) -> Tensor<1> {
        match self {
            AdversarialLoss::Hinge => -fake.mean(),
            AdversarialLoss::NonSaturating => Activation::Softplus.forward(-fake).mean(),
        }
    }

    /// Accuracy of the discriminator, from 0 to 1: the mean of the fractions of real patches with a
    /// positive logit and of generated ones with a negative logit.
    ///
    /// # Shapes
    /// - real and fake: logits, `[batch, patches]`
    /// - output: `[1]`
    pub fn accuracy(self, real: Tensor<2>, fake: Tensor<2>) -> Tensor<1> {
        let share = |right: Tensor<2>| right.detach().greater_elem(0.0).float().mean();
        (share(real) + share(-fake)) * 0.5
    }
}

/// A distance between samples that agrees better with perception than that of their values. `X` is
/// the rank of a batch of samples.
pub trait PerceptualDistance<const X: usize = 4>: Debug {
    /// The distance of each sample of `x` to that of `y`, differentiable with respect to both.
    ///
    /// # Shapes
    /// - x and y: `[batch, …]`, [normalised](crate::data::ValueRange::normalize): images in
    ///   `[−1, 1]`
    /// - output: `[batch]`
    ///
    /// # Panics
    /// If the shapes differ or do not fit the distance.
    fn distance(&self, x: Tensor<X>, y: Tensor<X>) -> Tensor<1>;
}

/// The distance of features: the squared differences of the values of hidden layers of a network,
/// averaged over the values of a layer and summed over layers (Johnson et al. 2016,
/// <https://arxiv.org/abs/1603.08155>, §3.1).
///
/// `F` is a closure from samples to the values of each layer, `[batch, values]`. The network that
/// it captures should not be trained: pass it through [`Module::no_grad`]. The distance panics if
/// the closure returns no layers.
///
/// ```
/// # use aigc_core::{adversarial::{FeatureDistance, PerceptualDistance}, device::device};
/// # use aigc_core::nn::{Activation, Conv2dConfig};
/// # use burn::{module::Module, tensor::Tensor};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let conv = Conv2dConfig::new([1, 8], 3).init(&device).no_grad();
/// let distance = FeatureDistance::new(move |x: Tensor<4>| {
///     vec![Activation::Relu.forward(conv.forward(x)).flatten::<2>(1, 3)]
/// });
/// let x = Tensor::<4>::ones([2, 1, 8, 8], &device);
/// assert_eq!(distance.distance(x.clone(), x).dims(), [2]);
/// # Ok(()) }
/// ```
pub struct FeatureDistance<F> {
    features: F,
}

impl<F> FeatureDistance<F> {
    /// A distance of the features that the closure `features` returns.
    pub fn new<const X: usize>(features: F) -> Self
    where
        F: Fn(Tensor<X>) -> Vec<Tensor<2>>,
    {
        Self { features }
    }
}

impl<F> Debug for FeatureDistance<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeatureDistance").finish_non_exhaustive()
    }
}

impl<F, const X: usize> PerceptualDistance<X> for FeatureDistance<F>
where
    F: Fn(Tensor<X>) -> Vec<Tensor<2>>,
{
    fn distance(&self, x: Tensor<X>, y: Tensor<X>) -> Tensor<1> {
        feature_distance((self.features)(x), (self.features)(y))
            .expect("the closure of a feature distance returns at least one layer")
    }
}

/// The squared differences of features, averaged over the values of a layer and summed over layers;
/// `None` without layers.
///
/// # Shapes
/// - x and y: `[batch, values]` for each layer
/// - output: `[batch]`
///
/// # Panics
/// If the shapes of a pair of layers differ.
pub fn feature_distance(x: Vec<Tensor<2>>, y: Vec<Tensor<2>>) -> Option<Tensor<1>> {
    assert_eq!(x.len(), y.len(), "numbers of layers of features");
    let layers = x.into_iter().zip(y).map(|(x, y)| {
        let difference = x - y;
        (difference.clone() * difference)
            .mean_dim(1)
            .squeeze_dim::<1>(1)
    });
    layers.reduce(|sum, layer| sum + layer)
}

/// Configuration to create a [`PatchDiscriminator`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatchDiscriminatorConfig {
    /// Shape of an image; its sides must be at least `3·2^num_layers`.
    pub shape: ImageShape,
    /// Channels of the first layer; they are doubled with every layer, up to eight times.
    pub channels: usize,
    /// Layers that halve the sides.
    pub num_layers: usize,
    /// Whether all layers but the first and the last have batch normalisation.
    pub batch_norm: bool,
}

impl PatchDiscriminatorConfig {
    /// Images of `shape`, 64 channels, three layers that halve the sides, batch normalisation. A
    /// logit is that of a patch of 70×70 pixels.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            channels: 64,
            num_layers: 3,
            batch_norm: true,
        }
    }

    /// Creates the discriminator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<PatchDiscriminator> {
        check::sizes(&[
            ("shape.channels", self.shape.channels, 1 << 10),
            ("channels", self.channels, 1 << 8),
            ("num_layers", self.num_layers, 8),
        ])?;
        let least = 3 << self.num_layers;
        for (field, side) in [
            ("shape.height", self.shape.height),
            ("shape.width", self.shape.width),
        ] {
            let expected = format!("at least {least}, for {} halvings", self.num_layers);
            ensure(side >= least, field, side, &expected)?;
        }
        let width = |layer: usize| self.channels << layer.min(3);
        let conv = |inputs, outputs, stride, bias| {
            Conv2dConfig::new([inputs, outputs], 4)
                .with_stride(stride)
                .with_padding(1)
                .with_bias(bias)
                .with_initializer(Initializer::Normal {
                    mean: 0.0,
                    std: 0.02,
                })
                .init(device)
        };
        let mut layers = vec![conv(self.shape.channels, self.channels, 2, true)];
        let mut norms = Vec::new();
        for layer in 1..=self.num_layers {
            let stride = if layer < self.num_layers { 2 } else { 1 };
            let (inputs, outputs) = (width(layer - 1), width(layer));
            layers.push(conv(inputs, outputs, stride, !self.batch_norm));
            if self.batch_norm {
                norms.push(BatchNormConfig::new(outputs).init(device));
            }
        }
        Ok(PatchDiscriminator {
            layers,
            norms,
            output: conv(width(self.num_layers), 1, 1, true),
            config: self.clone(),
        })
    }
}

/// A discriminator of image patches: convolutions of 4×4 pixels whose output is a map of logits
/// (PatchGAN, Isola et al. 2017, <https://arxiv.org/abs/1611.07004>, app. 6.1.2; that of VQGAN,
/// Esser et al. 2021, <https://arxiv.org/abs/2012.09841>).
#[derive(Module, Debug)]
pub struct PatchDiscriminator {
    layers: Vec<Conv2d>,
    /// One for each layer but the first; empty without batch normalisation.
    norms: Vec<BatchNorm>,
    output: Conv2d,
    #[module(skip)]
    config: PatchDiscriminatorConfig,
}

impl PatchDiscriminator {
    /// Configuration of the discriminator.
    pub fn config(&self) -> &PatchDiscriminatorConfig {
        &self.config
    }

    /// The map of logits.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`, in `[−1, 1]`
    /// - output: `[batch, 1, height / 2^num_layers − 2, width / 2^num_layers − 2]`
    ///
    /// # Panics
    /// If the images do not have the channels of the configuration.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = self.hidden(x).pop();
        self.output
            .forward(hidden.expect("there is at least one layer"))
    }

    /// The outputs of all layers but the last.
    fn hidden(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let leaky = Activation::LeakyRelu(0.2);
        let mut hidden: Vec<Tensor<4>> = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let y = layer.forward(hidden.last().cloned().unwrap_or_else(|| x.clone()));
            let norm = index.checked_sub(1).and_then(|index| self.norms.get(index));
            hidden.push(match norm {
                Some(norm) => norm.forward_with_activation(y, leaky),
                None => leaky.forward(y),
            });
        }
        hidden
    }
}

impl SampleDiscriminator for PatchDiscriminator {
    fn logits(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<2> {
        self.forward(x).flatten(1, 3)
    }

    fn features(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Vec<Tensor<2>> {
        let hidden = self.hidden(x).into_iter();
        hidden.map(|hidden| hidden.flatten(1, 3)).collect()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };
    use burn::tensor::TensorData;

    /// The table of [`AdversarialLoss`] in 64 bits.
    #[test]
    fn losses_match_their_formulas() {
        let device = Device::flex();
        let (real, fake) = ([0.7f32, -1.2, 2.0, 0.1], [-0.4f32, 0.9, -3.0, 0.2]);
        let tensor = |x: [f32; 4]| Tensor::<1>::from_floats(x, &device).reshape([2, 2]);
        let mean = |numbers: [f32; 4], f: &dyn Fn(f64) -> f64| {
            numbers.iter().map(|x| f(f64::from(*x))).sum::<f64>() / 4.0
        };
        let softplus = |x: f64| x.exp().ln_1p();
        let hinge = |x: f64| (1.0 + x).max(0.0);
        for (loss, discriminator, generator) in [
            (
                AdversarialLoss::Hinge,
                0.5 * (mean(real, &|x| hinge(-x)) + mean(fake, &hinge)),
                mean(fake, &|x| -x),
            ),
            (
                AdversarialLoss::NonSaturating,
                0.5 * (mean(real, &|x| softplus(-x)) + mean(fake, &softplus)),
                mean(fake, &|x| softplus(-x)),
            ),
        ] {
            let found = loss.discriminator_loss(tensor(real), tensor(fake));
            assert_close(&values(found), &[discriminator as f32], 1e-6);
            let found = loss.generator_loss(tensor(fake));
            assert_close(&values(found), &[generator as f32], 1e-6);
            let found = loss.accuracy(tensor(real), tensor(fake));
            assert_close(&values(found), &[0.625], 0.0);
        }
    }

    #[test]
    fn feature_distance_sums_means_of_layers() {
        let device = Device::flex();
        let distance =
            FeatureDistance::new(|x: Tensor<2>| vec![x.clone() * 2.0, x.narrow(1, 0, 1)]);
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [0.0, 0.5]], &device);
        let y = Tensor::<2>::from_floats([[0.0, 4.0], [0.0, 0.5]], &device);
        let found = values(distance.distance(x.clone(), y));
        // 4·(1 + 4)/2 of the first layer and 1 of the second.
        assert_eq!(found, [11.0, 0.0]);
        assert!(feature_distance(Vec::new(), Vec::new()).is_none());
        assert_eq!(format!("{distance:?}"), "FeatureDistance { .. }");
    }

    #[test]
    fn patch_discriminator_sees_patches_alone() {
        let device = Device::flex();
        let config = PatchDiscriminatorConfig {
            channels: 4,
            num_layers: 2,
            batch_norm: false,
            ..PatchDiscriminatorConfig::new(ImageShape::new(2, 48, 40))
        };
        let discriminator = config.init(&device).unwrap().init_weights(1);
        let x: Tensor<4> = Rng::new(2).uniform([1, 2, 48, 40], -1.0, 1.0, &device);
        let logits = discriminator.forward(x.clone());
        assert_eq!(logits.dims(), [1, 1, 10, 8]);
        assert_eq!(discriminator.logits(x.clone(), None).dims(), [1, 80]);
        // A logit sees 4, 7, 16 and 34 pixels through one to four layers; with the padding, the
        // first logit sees the pixels up to 22.
        let with_pixels = |from: usize, to: usize| {
            let mut pixels = values(x.clone());
            for row in from..to {
                pixels[40 * row + from..40 * row + to].fill(5.0);
            }
            let x = Tensor::from_data(TensorData::new(pixels, [1, 2, 48, 40]), &device);
            values(discriminator.forward(x))
        };
        let logits = values(logits);
        let changed = with_pixels(23, 40);
        assert_eq!(changed[0], logits[0]);
        assert_ne!(changed[79], logits[79]);
        assert_ne!(with_pixels(22, 23)[0], logits[0]);
    }

    #[test]
    fn patch_discriminator_has_the_layers_of_the_paper() {
        let device = Device::flex();
        let config = PatchDiscriminatorConfig::new(ImageShape::new(3, 32, 32));
        let without_norms = PatchDiscriminatorConfig {
            batch_norm: false,
            ..config.clone()
        };
        let weights = [3 * 64, 64 * 128, 128 * 256, 256 * 512, 512].map(|pairs| 16 * pairs);
        let biases = 64 + 128 + 256 + 512 + 1;
        assert_eq!(
            without_norms.init(&device).unwrap().num_params(),
            weights.iter().sum::<usize>() + biases
        );
        let discriminator = config.init(&device).unwrap().init_weights(1);
        let features = discriminator.features(Tensor::zeros([2, 3, 32, 32], &device), None);
        let widths: Vec<usize> = features.iter().map(|layer| layer.dims()[1]).collect();
        assert_eq!(
            widths,
            [64 * 16 * 16, 128 * 8 * 8, 256 * 4 * 4, 512 * 3 * 3]
        );
    }

    #[test]
    fn patch_discriminator_configuration_is_checked() {
        let message = |config: PatchDiscriminatorConfig| {
            config.init(&Device::flex()).unwrap_err().to_string()
        };
        let config = PatchDiscriminatorConfig::new(ImageShape::new(3, 24, 23));
        let text = message(config.clone());
        assert!(
            text.contains("`shape.width` is 23, expected at least 24"),
            "{text}"
        );
        let text = message(PatchDiscriminatorConfig {
            num_layers: 9,
            ..config
        });
        assert!(text.contains("`num_layers` is 9"), "{text}");
    }
}
