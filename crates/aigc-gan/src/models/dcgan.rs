//! DCGAN (Radford et al. 2016, <https://arxiv.org/abs/1511.06434>).

use super::{
    check_image_shape, check_layer_size, check_widths,
    classes::{ClassConditioning, ClassPlane, Head, Norm, with_class},
    divide_sides,
};
use crate::{Discriminator, DiscriminatorOutput, Generator};
use aigc_core::{
    Error, Result, check,
    data::{ImageShape, SampleShape},
    nn::{
        Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, ConvTranspose2d,
        ConvTranspose2dConfig, Initializer,
    },
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

/// Normalisation in a discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscriminatorNorm {
    /// No normalisation; use a gradient penalty.
    None,
    /// Batch normalisation of all layers but the first. Logits then depend on the whole batch, so
    /// gradient penalties cannot be used.
    #[default]
    Batch,
    /// Spectral normalisation of the weights of all layers, but not of class embeddings and planes
    /// (Miyato et al. 2018, <https://arxiv.org/abs/1802.05957>).
    Spectral,
}

/// Configuration of the DCGAN generator and discriminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DcganConfig {
    /// Shape of an image; its sides must be divisible by `2^channels.len()`.
    pub shape: ImageShape,
    /// Number of latent dimensions.
    #[serde(alias = "latent")]
    pub latent_dim: usize,
    /// Channels of the discriminator after each halving of the sides; the generator has them in
    /// reverse.
    pub channels: Vec<usize>,
    /// Normalisation in the discriminator.
    pub norm: DiscriminatorNorm,
    /// Standard deviation of the initial weights, 0.02 in the paper; PyTorch's default
    /// initialisation if `None`.
    pub init_std: Option<f64>,
    /// Classes; `None` for unconditional networks.
    pub classes: Option<ClassConditioning>,
}

impl DcganConfig {
    /// Images of `shape`: 64 latent dimensions, batch normalisation, no classes. The sides are
    /// halved until they are odd or at most 7, with 64, 128, 256, … channels.
    ///
    /// This gives two halvings for sides of 28, three for 32, four for 64. For 8×8 images there are
    /// two.
    pub fn new(shape: ImageShape) -> Self {
        let mut side = shape.height.min(shape.width);
        let mut channels = vec![];
        while side.is_multiple_of(2) && (channels.len() < 2 || side > 7) && side > 1 {
            side /= 2;
            channels.push(64 << channels.len().min(3));
        }
        Self {
            shape,
            latent_dim: 64,
            channels,
            norm: DiscriminatorNorm::Batch,
            init_std: None,
            classes: None,
        }
    }

    /// Creates the generator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn generator(&self, device: &Device) -> Result<DcganGenerator> {
        let [height, width] = self.validate()?;
        if height != width {
            return Err(Error::config(
                "shape",
                self.shape,
                "a square image, since the first kernel is square",
            ));
        }
        let up = |channels, kernel, stride, padding, bias| {
            let config = ConvTranspose2dConfig::new(channels, kernel)
                .with_stride(stride)
                .with_padding(padding);
            config
                .with_bias(bias)
                .with_initializer(self.initializer())
                .init(device)
        };
        let classes = self.classes.as_ref();
        let first = self.latent_dim + ClassConditioning::one_hot_width(classes);
        let levels: Vec<usize> = self
            .channels
            .iter()
            .rev()
            .copied()
            .chain([self.shape.channels])
            .collect();
        let mut layers = vec![up([first, levels[0]], height, 1, 0, false)];
        layers.extend(
            levels
                .windows(2)
                .enumerate()
                .map(|(i, w)| up([w[0], w[1]], 4, 2, 1, i + 2 == levels.len())),
        );
        Ok(DcganGenerator {
            layers,
            norms: levels[..levels.len() - 1]
                .iter()
                .map(|channels| Norm::new(*channels, classes, device))
                .collect(),
            config: self.clone(),
        })
    }

    /// Creates the discriminator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn discriminator(&self, device: &Device) -> Result<DcganDiscriminator> {
        let [height, width] = self.validate()?;
        let plane = ClassPlane::new(
            self.classes.as_ref(),
            self.shape.height * self.shape.width,
            device,
        );
        let first = self.shape.channels + usize::from(plane.is_some());
        let (batch, spectral) = (
            self.norm == DiscriminatorNorm::Batch,
            self.norm == DiscriminatorNorm::Spectral,
        );
        let levels: Vec<usize> = [first]
            .into_iter()
            .chain(self.channels.iter().copied())
            .collect();
        let down = |(index, w): (usize, &[usize])| {
            let config = Conv2dConfig::new([w[0], w[1]], 4)
                .with_stride(2)
                .with_padding(1)
                .with_spectral(spectral);
            config
                .with_bias(!batch || index == 0)
                .with_initializer(self.initializer())
                .init(device)
        };
        let normed = if batch { &self.channels[1..] } else { &[] };
        let last = self.channels[self.channels.len() - 1];
        Ok(DcganDiscriminator {
            plane,
            layers: levels.windows(2).enumerate().map(down).collect(),
            norms: normed
                .iter()
                .map(|channels| BatchNormConfig::new(*channels).init(device))
                .collect(),
            head: Head::new(
                last * height * width,
                self.classes.as_ref(),
                spectral,
                self.initializer(),
                device,
            ),
        })
    }

    fn initializer(&self) -> Initializer {
        self.init_std
            .map_or(Initializer::PYTORCH, |std| Initializer::Normal {
                mean: 0.0,
                std,
            })
    }

    /// Checks the configuration; returns the sides of the smallest feature maps.
    pub(super) fn validate(&self) -> Result<[usize; 2]> {
        check_image_shape(self.shape, self.latent_dim)?;
        let levels = self.channels.len();
        check::ensure(
            (1..=8).contains(&levels),
            "channels",
            format!("{:?}", self.channels),
            "1 to 8 numbers",
        )?;
        check_widths("channels", &self.channels)?;
        let factor = 1 << levels;
        let base = divide_sides(self.shape, factor, &format!("{levels} halvings"))?;
        if let Some(std) = self.init_std {
            check::positive("init_std", std)?;
        }
        self.classes
            .iter()
            .try_for_each(ClassConditioning::validate)?;
        let classes = self.classes.map_or(1, |classes| classes.num_classes);
        check_layer_size(
            "channels",
            &[
                self.latent_dim.max(classes),
                self.channels[levels - 1],
                base[0],
                base[1],
            ],
        )?;
        check_layer_size(
            "classes.num_classes",
            &[classes, self.shape.height, self.shape.width],
        )?;
        Ok(base)
    }
}

/// Generator of transposed convolutions, from noise to image.
#[derive(Module, Debug)]
pub struct DcganGenerator {
    layers: Vec<ConvTranspose2d>,
    norms: Vec<Norm>,
    #[module(skip)]
    config: DcganConfig,
}

impl DcganGenerator {
    /// Configuration of the pair that the generator belongs to.
    pub fn config(&self) -> &DcganConfig {
        &self.config
    }
}

impl Generator for DcganGenerator {
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<4> {
        let z = with_class(
            z,
            class.as_ref(),
            ClassConditioning::one_hot_width(self.config.classes.as_ref()),
        );
        let [batch, width] = z.dims();
        let mut x = z.reshape([batch, width, 1, 1]);
        for (layer, norm) in self.layers.iter().zip(&self.norms) {
            x = norm.forward(layer.forward(x), class.as_ref(), Activation::Relu);
        }
        Activation::Tanh.forward(self.layers[self.norms.len()].forward(x))
    }

    described_by_config!();
}

/// Discriminator of strided convolutions, from image to logit.
#[derive(Module, Debug)]
pub struct DcganDiscriminator {
    plane: Option<ClassPlane>,
    layers: Vec<Conv2d>,
    /// One for each layer but the first; empty without batch normalisation.
    norms: Vec<BatchNorm>,
    head: Head,
}

impl DcganDiscriminator {
    /// The input of the head, `[batch, width]`.
    fn features(&self, x: Tensor<4>, class: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let leaky = Activation::LeakyRelu(0.2);
        let mut x = ClassPlane::concat(self.plane.as_ref(), x, class);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            x = match index.checked_sub(1).and_then(|index| self.norms.get(index)) {
                Some(norm) => norm.forward_with_activation(x, leaky),
                None => leaky.forward(x),
            };
        }
        x.flatten(1, 3)
    }
}

impl Discriminator for DcganDiscriminator {
    head_on_features!(4);
}
