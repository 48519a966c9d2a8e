//! Fully connected networks, as in the first experiments with GANs (Goodfellow et al. 2014).

use super::{
    Gan, MAX_SIZE, check_layer_size, check_numel, check_widths,
    classes::{ClassConditioning, ClassPlane, GeneratorConditioning, Head, with_class},
};
use crate::{Discriminator, DiscriminatorOutput, Generator};
use aigc_core::{
    Error, Result, check,
    data::{ImageShape, SampleShape},
    nn::{Activation, BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig},
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Configuration of a fully connected generator and discriminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlpGanConfig {
    /// Shape of a sample: an image, or `[2]` for points in the plane.
    #[serde(serialize_with = "write_shape", deserialize_with = "read_shape")]
    pub shape: SampleShape,
    /// Number of latent dimensions.
    #[serde(alias = "latent")]
    pub latent_dim: usize,
    /// Widths of the hidden layers of the generator, and of the discriminator unless
    /// `discriminator_hidden` is set.
    pub hidden: Vec<usize>,
    /// Widths of the hidden layers of the discriminator. A generator that maps its latent space to
    /// distant modes has to be steep between them, and steepness grows with depth; a discriminator
    /// gains little from depth.
    #[serde(default, alias = "critic_hidden")]
    pub discriminator_hidden: Option<Vec<usize>>,
    /// Activation after each hidden layer.
    pub activation: Activation,
    /// Activation after the generator's last layer: `Tanh` for images, `Identity` for unbounded
    /// values.
    #[serde(alias = "output")]
    pub output_activation: Activation,
    /// Whether the generator has batch normalisation after its hidden layers.
    pub norm: bool,
    /// Number of frequencies of the Fourier features that the discriminator receives in addition to
    /// the values: `sin(2ᵏ·x)` and `cos(2ᵏ·x)` for `k` from 0. Without them, details far smaller
    /// than the range of the data are learned slowly (Tancik et al. 2020,
    /// <https://arxiv.org/abs/2006.10739>).
    #[serde(alias = "octaves")]
    pub num_fourier_frequencies: usize,
    /// Classes; `None` for unconditional networks.
    pub classes: Option<ClassConditioning>,
}

/// Writes an image as channels, height and width, and other samples as a list.
fn write_shape<S: Serializer>(shape: &SampleShape, serializer: S) -> Result<S::Ok, S::Error> {
    match shape.as_image() {
        Some(image) => image.serialize(serializer),
        None => shape.serialize(serializer),
    }
}

fn read_shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SampleShape, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shape {
        Image(ImageShape),
        Sample(SampleShape),
    }
    Ok(match Shape::deserialize(deserializer)? {
        Shape::Image(shape) => shape.into(),
        Shape::Sample(shape) => shape,
    })
}

impl MlpGanConfig {
    /// Samples of `shape`: 64 latent dimensions, two hidden layers of width 256, leaky ReLU, no
    /// normalisation, no Fourier features, no classes.
    pub fn new(shape: impl Into<SampleShape>) -> Self {
        Self {
            shape: shape.into(),
            latent_dim: 64,
            hidden: vec![256, 256],
            discriminator_hidden: None,
            activation: Activation::LeakyRelu(0.2),
            output_activation: Activation::Tanh,
            norm: false,
            num_fourier_frequencies: 0,
            classes: None,
        }
    }

    /// Creates both networks on `device`, for batches of rank `D`. For rank 2, a shape
    /// `channels×1×1`, which points have in files of earlier versions, becomes `[channels]`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, or if batches of samples of this shape are not of
    /// rank `D`.
    pub fn init<const D: usize>(
        &self,
        device: &Device,
    ) -> Result<Gan<MlpGenerator<D>, MlpDiscriminator<D>>> {
        Ok(Gan {
            generator: self.generator(device)?,
            discriminator: self.discriminator(device)?,
        })
    }

    /// Creates the generator on `device`, for batches of rank `D`.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub fn generator<const D: usize>(&self, device: &Device) -> Result<MlpGenerator<D>> {
        let config = self.for_rank(D)?;
        let first = self.latent_dim + ClassConditioning::one_hot_width(self.classes.as_ref());
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
            config,
        })
    }

    /// Creates the discriminator on `device`, for batches of rank `D`.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub fn discriminator<const D: usize>(&self, device: &Device) -> Result<MlpDiscriminator<D>> {
        let config = self.for_rank(D)?;
        let pixels = self.shape.spatial().iter().product();
        let plane = ClassPlane::new(self.classes.as_ref(), pixels, device);
        let first = self.shape.numel() * (1 + 2 * self.num_fourier_frequencies)
            + if plane.is_some() { pixels } else { 0 };
        let hidden = self.discriminator_hidden.as_ref().unwrap_or(&self.hidden);
        let widths: Vec<usize> = [first].into_iter().chain(hidden.iter().copied()).collect();
        let last = *widths.last().expect("the first width is always there");
        Ok(MlpDiscriminator {
            plane,
            layers: widths
                .windows(2)
                .map(|w| LinearConfig::new(w[0], w[1]).init(device))
                .collect(),
            head: Head::new(
                last,
                self.classes.as_ref(),
                false,
                Initializer::PYTORCH,
                device,
            ),
            config,
        })
    }

    /// This configuration, checked for batches of rank `rank`. Points are images of one pixel in
    /// files of earlier versions.
    pub(super) fn for_rank(&self, rank: usize) -> Result<Self> {
        let mut config = self.clone();
        if let (2, &[channels, 1, 1]) = (rank, self.shape.dims()) {
            config.shape = SampleShape::new(&[channels]);
        }
        config.check_rank(rank)?;
        Ok(config)
    }

    /// Checks the configuration, for images.
    #[cfg(feature = "download")]
    pub(super) fn validate(&self) -> Result<()> {
        self.check_rank(4)
    }

    fn check_rank(&self, rank: usize) -> Result<()> {
        if self.shape.rank() + 1 != rank {
            return Err(Error::config(
                "shape",
                self.shape,
                format!("{} axes, for batches of rank {rank}", rank.max(1) - 1),
            ));
        }
        for size in self.shape.dims() {
            check::in_range("shape", *size, 1..=MAX_SIZE)?;
        }
        check::in_range("latent_dim", self.latent_dim, 1..=MAX_SIZE)?;
        let numel = self.shape.numel();
        check_numel(numel, &self.shape)?;
        check_widths("hidden", &self.hidden)?;
        if let Some(hidden) = &self.discriminator_hidden {
            check_widths("discriminator_hidden", hidden)?;
        }
        check::in_range(
            "num_fourier_frequencies",
            self.num_fourier_frequencies,
            0..=16,
        )?;
        let classes = self.classes.map_or(1, |classes| classes.num_classes);
        let widest = self
            .hidden
            .iter()
            .chain(self.discriminator_hidden.iter().flatten())
            .max()
            .copied()
            .unwrap_or(1);
        check_layer_size(
            "hidden",
            &[widest, numel, 1 + 2 * self.num_fourier_frequencies],
        )?;
        check_layer_size("classes.num_classes", &[classes, numel])?;
        let Some(classes) = &self.classes else {
            return Ok(());
        };
        check::ensure(
            classes.generator != GeneratorConditioning::ConditionalBatchNorm,
            "classes.generator",
            "conditional_batch_norm",
            "concat; this generator has no conditional norms",
        )?;
        classes.validate()
    }
}

/// Fully connected generator. `D` is the rank of a batch of samples.
#[derive(Module, Debug)]
pub struct MlpGenerator<const D: usize = 4> {
    layers: Vec<Linear>,
    norms: Vec<BatchNorm>,
    #[module(skip)]
    config: MlpGanConfig,
}

impl<const D: usize> MlpGenerator<D> {
    /// Configuration of the pair that the generator belongs to.
    pub fn config(&self) -> &MlpGanConfig {
        &self.config
    }
}

impl<const D: usize> Generator<D> for MlpGenerator<D> {
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<D> {
        let config = &self.config;
        let mut x = with_class(
            z,
            class.as_ref(),
            ClassConditioning::one_hot_width(config.classes.as_ref()),
        );
        for (index, layer) in self.layers.iter().enumerate() {
            let activation = if index + 1 < self.layers.len() {
                config.activation
            } else {
                config.output_activation
            };
            x = layer.forward(x);
            x = match self.norms.get(index) {
                Some(norm) => norm.forward_with_activation(x, activation),
                None => activation.forward(x),
            };
        }
        let shape: [usize; D] = config.shape.batched(x.dims()[0]);
        x.reshape(shape)
    }

    described_by_config!();
}

/// Fully connected discriminator. `D` is the rank of a batch of samples.
#[derive(Module, Debug)]
pub struct MlpDiscriminator<const D: usize = 4> {
    plane: Option<ClassPlane>,
    layers: Vec<Linear>,
    head: Head,
    #[module(skip)]
    config: MlpGanConfig,
}

impl<const D: usize> MlpDiscriminator<D> {
    /// The input of the head, `[batch, width]`.
    fn features(&self, x: Tensor<D>, class: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let fourier = |k: usize| {
            let angle = x.clone().flatten::<2>(1, D - 1) * f64::from(1 << k);
            [angle.clone().sin(), angle.cos()]
        };
        let waves: Vec<Tensor<2>> = (0..self.config.num_fourier_frequencies)
            .flat_map(fourier)
            .collect();
        let x = ClassPlane::concat(self.plane.as_ref(), x, class).flatten::<2>(1, D - 1);
        let x = if waves.is_empty() {
            x
        } else {
            Tensor::cat([vec![x], waves].concat(), 1)
        };
        self.layers.iter().fold(x, |x, layer| {
            self.config.activation.forward(layer.forward(x))
        })
    }
}

impl<const D: usize> Discriminator<D> for MlpDiscriminator<D> {
    head_on_features!(D);
}
