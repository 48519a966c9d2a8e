//! Fully connected networks: the pair of the first paper.

use super::{
    check_shape, check_size, check_widths,
    classes::{ClassConditioning, ClassPlane, GeneratorConditioning, Head, with_class},
};
use crate::{Discriminator, DiscriminatorOutput, Generator};
use aigc_core::{
    Error, Result,
    data::ImageShape,
    nn::{Activation, BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig},
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration of a fully connected pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlpGanConfig {
    /// Shape of a sample; points in the plane are 2×1×1.
    pub shape: ImageShape,
    /// Latent dimensions.
    pub latent: usize,
    /// Widths of the hidden layers: the generator's, and the critic's where it has none of its own.
    pub hidden: Vec<usize>,
    /// Widths of the critic's hidden layers, if they are others. A generator that is to tear its
    /// latent space into many far modes has to be steep between them, and steepness grows with its
    /// depth; its critic gains little from that.
    #[serde(default)]
    pub discriminator_hidden: Option<Vec<usize>>,
    /// Between the layers.
    pub activation: Activation,
    /// After the generator's last layer: `Tanh` for images, `Identity` for anything unbounded.
    pub output: Activation,
    /// Whether the generator's hidden layers are batch-normalised.
    pub norm: bool,
    /// Octaves of sines and cosines that the critic sees beside the values, `sin(2ᵏ·x)` and
    /// `cos(2ᵏ·x)` for `k` from 0: details far smaller than the whole are learned soon only with
    /// them (Tancik et al. 2020,
    /// <https://arxiv.org/abs/2006.10739>).
    pub num_fourier_frequencies: usize,
    /// Conditional generation.
    pub classes: Option<ClassConditioning>,
}

impl MlpGanConfig {
    /// Images of `shape`: 64 latent dimensions, two hidden layers of 256, leaky ReLU, no norms, no
    /// octaves, no classes.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            latent: 64,
            hidden: vec![256, 256],
            discriminator_hidden: None,
            activation: Activation::LeakyRelu(0.2),
            output: Activation::Tanh,
            norm: false,
            num_fourier_frequencies: 0,
            classes: None,
        }
    }

    /// The generator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn generator(&self, device: &Device) -> Result<MlpGenerator> {
        self.validate()?;
        let first = self.latent + ClassConditioning::beside_noise(self.classes.as_ref());
        let widths: Vec<usize> = [first]
            .into_iter()
            .chain(self.hidden.iter().copied())
            .chain([self.shape.numel()])
            .collect();
        let layers = widths
            .windows(2)
            .map(|w| LinearConfig::new(w[0], w[1]).init(device))
            .collect();
        let normed = if self.norm { &self.hidden[..] } else { &[] };
        let norms = normed
            .iter()
            .map(|width| BatchNormConfig::new(*width).init(device))
            .collect();
        Ok(MlpGenerator {
            layers,
            norms,
            config: self.clone(),
        })
    }

    /// The critic on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn discriminator(&self, device: &Device) -> Result<MlpDiscriminator> {
        self.validate()?;
        let pixels = self.shape.height * self.shape.width;
        let plane = ClassPlane::new(self.classes.as_ref(), pixels, device);
        let first = self.shape.numel() * (1 + 2 * self.num_fourier_frequencies)
            + if plane.is_some() { pixels } else { 0 };
        let hidden = self.discriminator_hidden.as_ref().unwrap_or(&self.hidden);
        let widths: Vec<usize> = [first].into_iter().chain(hidden.iter().copied()).collect();
        let last = *widths.last().expect("there is a first");
        Ok(MlpDiscriminator {
            plane,
            layers: widths
                .windows(2)
                .map(|w| LinearConfig::new(w[0], w[1]).init(device))
                .collect(),
            head: Head::new(
                last,
                1,
                self.classes.as_ref(),
                false,
                Initializer::PYTORCH,
                device,
            ),
            config: self.clone(),
        })
    }

    fn validate(&self) -> Result<()> {
        check_shape(self.shape, self.latent)?;
        check_widths("hidden", &self.hidden)?;
        if let Some(hidden) = &self.discriminator_hidden {
            check_widths("discriminator_hidden", hidden)?;
        }
        if self.num_fourier_frequencies > 16 {
            return Err(Error::config(
                "octaves",
                self.num_fourier_frequencies,
                "at most 16",
            ));
        }
        let pixels = self.shape.numel();
        let classes = self.classes.map_or(1, |classes| classes.num_classes);
        let widest = self
            .hidden
            .iter()
            .chain(self.discriminator_hidden.iter().flatten())
            .max()
            .copied()
            .unwrap_or(1);
        check_size(
            "hidden",
            &[widest, pixels, 1 + 2 * self.num_fourier_frequencies],
        )?;
        check_size("classes.count", &[classes, pixels])?;
        let Some(classes) = &self.classes else {
            return Ok(());
        };
        if classes.generator == GeneratorConditioning::ConditionalBatchNorm {
            return Err(Error::config(
                "classes.generator",
                "norm",
                "concat; this generator has no norms",
            ));
        }
        classes.validate()
    }
}

/// Noise to sample, layer by layer.
#[derive(Module, Debug)]
pub struct MlpGenerator {
    layers: Vec<Linear>,
    norms: Vec<BatchNorm>,
    #[module(skip)]
    config: MlpGanConfig,
}

impl Generator for MlpGenerator {
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<4> {
        let config = &self.config;
        let mut x = with_class(
            z,
            class.as_ref(),
            ClassConditioning::beside_noise(config.classes.as_ref()),
        );
        for (index, layer) in self.layers.iter().enumerate() {
            let activation = if index + 1 < self.layers.len() {
                config.activation
            } else {
                config.output
            };
            x = layer.forward(x);
            x = match self.norms.get(index) {
                Some(norm) => norm.forward_with_activation(x, activation),
                None => activation.forward(x),
            };
        }
        let ImageShape {
            channels,
            height,
            width,
        } = config.shape;
        let batch = x.dims()[0];
        x.reshape([batch, channels, height, width])
    }

    described_by_config!();
}

/// Sample to score, layer by layer.
#[derive(Module, Debug)]
pub struct MlpDiscriminator {
    plane: Option<ClassPlane>,
    layers: Vec<Linear>,
    head: Head,
    #[module(skip)]
    config: MlpGanConfig,
}

impl Discriminator for MlpDiscriminator {
    fn num_classes(&self) -> Option<usize> {
        self.head.count()
    }

    fn score(&self, x: Tensor<4>, class: Option<Tensor<1, Int>>) -> Tensor<1> {
        self.forward_with_classes(x, class).logits
    }

    fn forward_with_classes(
        &self,
        x: Tensor<4>,
        labels: Option<Tensor<1, Int>>,
    ) -> DiscriminatorOutput {
        let octave = |k: usize| {
            let angle = x.clone().flatten::<2>(1, 3) * f64::from(1 << k);
            [angle.clone().sin(), angle.cos()]
        };
        let waves: Vec<Tensor<2>> = (0..self.config.num_fourier_frequencies)
            .flat_map(octave)
            .collect();
        let x = ClassPlane::beside(self.plane.as_ref(), x, labels.as_ref()).flatten::<2>(1, 3);
        let x = if waves.is_empty() {
            x
        } else {
            Tensor::cat([vec![x], waves].concat(), 1)
        };
        let x = self.layers.iter().fold(x, |x, layer| {
            self.config.activation.forward(layer.forward(x))
        });
        let [batch, width] = x.dims();
        self.head
            .judge(x.reshape([batch, width, 1, 1]), labels.as_ref())
    }
}
