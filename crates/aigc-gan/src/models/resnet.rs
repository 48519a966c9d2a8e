//! Residual networks: SNGAN's generator and discriminator (Miyato et al. 2018,
//! <https://arxiv.org/abs/1802.05957>, appendix B.4), optionally with self-attention (Zhang et al.
//! 2019, <https://arxiv.org/abs/1805.08318>).

use super::{
    check_image_shape, check_layer_size, check_widths,
    classes::{ClassConditioning, ClassPlane, Head, Norm, with_class},
    dcgan::DiscriminatorNorm,
    divide_sides, reject_batch_norm,
};
use crate::{Discriminator, DiscriminatorOutput, Generator};
use aigc_core::{
    Error, Result, check,
    data::{ImageShape, SampleShape},
    nn::{Activation, Conv2d, Conv2dConfig, Initializer, Linear, LinearConfig},
    ops::{attention, upsample_nearest2d},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, module::avg_pool2d, ops::AvgPoolOptions},
};
use serde::{Deserialize, Serialize};

/// Configuration of a residual generator and discriminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResnetGanConfig {
    /// Shape of an image; its sides must be divisible by `2^levels`.
    pub shape: ImageShape,
    /// Number of latent dimensions.
    #[serde(alias = "latent")]
    pub latent_dim: usize,
    /// Channels of every block.
    pub channels: usize,
    /// Number of times that the generator doubles the sides.
    pub levels: usize,
    /// Normalisation in the discriminator; `Batch` is not supported.
    pub norm: DiscriminatorNorm,
    /// Side of the feature maps that get self-attention, in both networks; `None` for no attention.
    #[serde(alias = "attention")]
    pub attention_resolution: Option<usize>,
    /// Classes; `None` for unconditional networks.
    pub classes: Option<ClassConditioning>,
}

impl ResnetGanConfig {
    /// Images of `shape`: 128 latent dimensions, 64 channels, spectral normalisation, no attention,
    /// no classes. The sides are halved until they are odd or at most 7.
    pub fn new(shape: ImageShape) -> Self {
        let (mut side, mut levels) = (shape.height.min(shape.width), 0);
        while side.is_multiple_of(2) && side > 7 {
            side /= 2;
            levels += 1;
        }
        Self {
            shape,
            latent_dim: 128,
            channels: 64,
            levels,
            norm: DiscriminatorNorm::Spectral,
            attention_resolution: None,
            classes: None,
        }
    }

    /// Creates the generator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn generator(&self, device: &Device) -> Result<ResnetGenerator> {
        let base = self.validate()?;
        let classes = self.classes.as_ref();
        let first = self.latent_dim + ClassConditioning::one_hot_width(classes);
        let side = |level: usize| self.shape.height >> (self.levels - level - 1);
        let block = |level| UpBlock {
            norm1: Norm::new(self.channels, classes, device),
            conv1: conv(self.channels, self.channels, 3, false, device),
            norm2: Norm::new(self.channels, classes, device),
            conv2: conv(self.channels, self.channels, 3, false, device),
            skip: conv(self.channels, self.channels, 1, false, device),
            attention: self
                .attends(side(level))
                .then(|| SelfAttention2d::new(self.channels, false, device)),
        };
        Ok(ResnetGenerator {
            input: LinearConfig::new(first, self.channels * base[0] * base[1]).init(device),
            blocks: (0..self.levels).map(block).collect(),
            norm: Norm::new(self.channels, None, device),
            output: conv(self.channels, self.shape.channels, 3, false, device),
            base,
            config: self.clone(),
        })
    }

    /// Creates the discriminator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn discriminator(&self, device: &Device) -> Result<ResnetDiscriminator> {
        self.validate()?;
        let spectral = self.norm == DiscriminatorNorm::Spectral;
        let plane = ClassPlane::new(
            self.classes.as_ref(),
            self.shape.height * self.shape.width,
            device,
        );
        let first = self.shape.channels + usize::from(plane.is_some());
        let block = |index: usize| {
            let (halve, input) = (
                index < self.levels,
                if index == 0 { first } else { self.channels },
            );
            DownBlock {
                conv1: conv(input, self.channels, 3, spectral, device),
                conv2: conv(self.channels, self.channels, 3, spectral, device),
                skip: (halve || input != self.channels)
                    .then(|| conv(input, self.channels, 1, spectral, device)),
                attention: (halve && self.attends(self.shape.height >> (index + 1)))
                    .then(|| SelfAttention2d::new(self.channels, spectral, device)),
                first: index == 0,
                halve,
            }
        };
        // The last two blocks do not change the size.
        Ok(ResnetDiscriminator {
            plane,
            blocks: (0..self.levels + 2).map(block).collect(),
            head: Head::new(
                self.channels,
                self.classes.as_ref(),
                spectral,
                Initializer::PYTORCH,
                device,
            ),
        })
    }

    fn attends(&self, side: usize) -> bool {
        self.attention_resolution == Some(side)
    }

    /// Checks the configuration; returns the sides of the smallest feature maps.
    pub(super) fn validate(&self) -> Result<[usize; 2]> {
        check_image_shape(self.shape, self.latent_dim)?;
        check_widths("channels", &[self.channels])?;
        check::in_range("levels", self.levels, 1..=8)?;
        let factor = 1 << self.levels;
        let base = divide_sides(self.shape, factor, &format!("{} levels", self.levels))?;
        reject_batch_norm(self.norm)?;
        if let Some(side) = self.attention_resolution {
            let sides: Vec<usize> = (1..self.levels)
                .map(|level| self.shape.height >> level)
                .collect();
            if !sides.contains(&side) {
                return Err(Error::config(
                    "attention_resolution",
                    side,
                    format!("one of the maps' sides {sides:?}"),
                ));
            }
        }
        self.classes
            .iter()
            .try_for_each(ClassConditioning::validate)?;
        let classes = self.classes.map_or(1, |classes| classes.num_classes);
        check_layer_size(
            "channels",
            &[
                self.latent_dim.max(classes),
                self.channels,
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

/// A convolution with SNGAN's Xavier initialisation, with gain `√2` before a ReLU.
fn conv(input: usize, output: usize, kernel: usize, spectral: bool, device: &Device) -> Conv2d {
    let gain = if kernel == 1 {
        1.0
    } else {
        std::f64::consts::SQRT_2
    };
    Conv2dConfig::new([input, output], kernel)
        .with_padding(kernel / 2)
        .with_spectral(spectral)
        .with_initializer(Initializer::XavierUniform { gain })
        .init(device)
}

/// Halves the sides by averaging blocks of four pixels.
fn halve(x: Tensor<4>) -> Tensor<4> {
    avg_pool2d(x, AvgPoolOptions::new([2, 2]))
}

/// Generator of residual blocks that double the sides.
#[derive(Module, Debug)]
pub struct ResnetGenerator {
    input: Linear,
    blocks: Vec<UpBlock>,
    norm: Norm,
    output: Conv2d,
    base: [usize; 2],
    #[module(skip)]
    config: ResnetGanConfig,
}

#[derive(Module, Debug)]
struct UpBlock {
    norm1: Norm,
    conv1: Conv2d,
    norm2: Norm,
    conv2: Conv2d,
    skip: Conv2d,
    attention: Option<SelfAttention2d>,
}

impl UpBlock {
    fn forward(&self, x: Tensor<4>, class: Option<&Tensor<1, Int>>) -> Tensor<4> {
        let relu = Activation::Relu;
        let h = upsample_nearest2d(self.norm1.forward(x.clone(), class, relu), 2);
        let h = self.norm2.forward(self.conv1.forward(h), class, relu);
        // A 1×1 convolution commutes with repeating pixels: on the smaller map it costs a quarter.
        let y = self.conv2.forward(h) + upsample_nearest2d(self.skip.forward(x), 2);
        self.attention
            .as_ref()
            .map_or(y.clone(), |attention| attention.forward(y))
    }
}

impl ResnetGenerator {
    /// Configuration of the pair that the generator belongs to.
    pub fn config(&self) -> &ResnetGanConfig {
        &self.config
    }
}

impl Generator for ResnetGenerator {
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<4> {
        let z = with_class(
            z,
            class.as_ref(),
            ClassConditioning::one_hot_width(self.config.classes.as_ref()),
        );
        let (batch, [height, width]) = (z.dims()[0], self.base);
        let x = self
            .input
            .forward(z)
            .reshape([batch, self.config.channels, height, width]);
        let x = self
            .blocks
            .iter()
            .fold(x, |x, block| block.forward(x, class.as_ref()));
        Activation::Tanh.forward(
            self.output
                .forward(self.norm.forward(x, None, Activation::Relu)),
        )
    }

    described_by_config!();
}

/// Discriminator of residual blocks that halve the sides.
#[derive(Module, Debug)]
pub struct ResnetDiscriminator {
    plane: Option<ClassPlane>,
    blocks: Vec<DownBlock>,
    head: Head,
}

#[derive(Module, Debug)]
struct DownBlock {
    conv1: Conv2d,
    conv2: Conv2d,
    skip: Option<Conv2d>,
    attention: Option<SelfAttention2d>,
    /// The first block has no ReLU at its beginning, which would clip pixels.
    first: bool,
    halve: bool,
}

impl DownBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let relu = Activation::Relu;
        let h = if self.first {
            x.clone()
        } else {
            relu.forward(x.clone())
        };
        let h = self.conv2.forward(relu.forward(self.conv1.forward(h)));
        let down = |x| if self.halve { halve(x) } else { x };
        // Commutes as in the generator: first the mean, then the 1×1 convolution.
        let skip = down(x);
        let skip = self
            .skip
            .as_ref()
            .map_or(skip.clone(), |conv| conv.forward(skip));
        let y = down(h) + skip;
        self.attention
            .as_ref()
            .map_or(y.clone(), |attention| attention.forward(y))
    }
}

impl ResnetDiscriminator {
    /// The input of the head, `[batch, width]`.
    fn features(&self, x: Tensor<4>, class: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let x = ClassPlane::concat(self.plane.as_ref(), x, class);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let [batch, channels, height, width] = x.dims();
        Activation::Relu
            .forward(x)
            .reshape([batch, channels, height * width])
            .sum_dim(2)
            .reshape([batch, channels])
    }
}

impl Discriminator for ResnetDiscriminator {
    head_on_features!(4);
}

/// Self-attention over the pixels of a feature map (Zhang et al. 2019, eq. 1–3), with an eighth of
/// the channels for queries and keys, half of them for values (as in BigGAN), and a learned factor
/// that starts at 0.
#[derive(Module, Debug)]
pub struct SelfAttention2d {
    query: Conv2d,
    key: Conv2d,
    value: Conv2d,
    output: Conv2d,
    /// Learned factor of the attention's output, `[1]`.
    gamma: Param<Tensor<1>>,
}

impl SelfAttention2d {
    /// Creates the layer for feature maps with `channels` channels. `spectral` normalises its
    /// weights.
    pub fn new(channels: usize, spectral: bool, device: &Device) -> Self {
        // Without biases: a softmax does not depend on the biases of keys.
        let conv = |input: usize, output: usize| {
            let config = Conv2dConfig::new([input, output], 1)
                .with_bias(false)
                .with_spectral(spectral);
            config
                .with_initializer(Initializer::XavierUniform { gain: 1.0 })
                .init(device)
        };
        let (narrow, half) = ((channels / 8).max(1), (channels / 2).max(1));
        Self {
            query: conv(channels, narrow),
            key: conv(channels, narrow),
            value: conv(channels, half),
            output: conv(half, channels),
            gamma: Initializer::ZEROS.param([1], 1, 1, device),
        }
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - x and output: `[batch, channels, height, width]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, _, height, width] = x.dims();
        let tokens = |conv: &Conv2d| {
            let y = conv.forward(x.clone());
            let channels = y.dims()[1];
            y.reshape([batch, channels, height * width])
                .swap_dims(1, 2)
                .unsqueeze_dim::<4>(1)
        };
        let query = tokens(&self.query);
        // Undoes the division of `attention` by √d, which the paper does not have.
        let scale = (query.dims()[3] as f64).sqrt();
        let y = attention(
            query * scale,
            tokens(&self.key),
            tokens(&self.value),
            None,
            false,
        );
        let channels = y.dims()[3];
        let y = y
            .squeeze_dim::<3>(1)
            .swap_dims(1, 2)
            .reshape([batch, channels, height, width]);
        x + self.output.forward(y) * self.gamma.val().reshape([1, 1, 1, 1])
    }
}
