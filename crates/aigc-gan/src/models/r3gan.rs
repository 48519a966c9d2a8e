//! A generator and a discriminator similar to R3GAN's (Huang et al. 2024,
//! <https://arxiv.org/abs/2501.05441>, §4 and appendix B): inverted bottlenecks with grouped
//! convolutions as in ResNeXt and ConvNeXt, no normalisation, residual branches that start at zero
//! (Zhang et al. 2019, Fixup, <https://arxiv.org/abs/1901.09321>). Unlike in the paper, which uses
//! filters, feature maps are enlarged by repeating pixels and reduced by averaging four.

use super::{
    check_image_shape, check_layer_size, check_widths,
    classes::{ClassConditioning, ClassPlane, GeneratorConditioning, Head, with_class},
    divide_sides,
};
use crate::{Discriminator, DiscriminatorOutput, Generator};
use aigc_core::{
    Error, Result, check,
    data::{ImageShape, SampleShape},
    nn::{Activation, Conv2d, Conv2dConfig, Initializer, Linear, LinearConfig},
    ops::upsample_nearest2d,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, module::avg_pool2d, ops::AvgPoolOptions},
};
use serde::{Deserialize, Serialize};

const LEAKY: Activation = Activation::LeakyRelu(0.2);

/// Configuration of a generator and a discriminator similar to R3GAN's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct R3ganConfig {
    /// Shape of an image; its sides must be divisible by `2^(channels.len() − 1)`.
    pub shape: ImageShape,
    /// Number of latent dimensions.
    #[serde(alias = "latent")]
    pub latent_dim: usize,
    /// Channels of each stage of the generator, beginning with the smallest feature maps; the
    /// discriminator has them in reverse.
    pub channels: Vec<usize>,
    /// Number of residual blocks in each stage.
    pub blocks: usize,
    /// Ratio of the channels inside a block to those of its stage.
    pub expansion: usize,
    /// Number of channels in each group of a block's grouped convolution.
    pub group_width: usize,
    /// Classes; `None` for unconditional networks.
    pub classes: Option<ClassConditioning>,
}

impl R3ganConfig {
    /// Images of `shape`: 64 latent dimensions, stages of 64 channels with one block each,
    /// expansion 2, groups of 16 channels, no classes. The sides are halved until they are odd or
    /// at most 7.
    pub fn new(shape: ImageShape) -> Self {
        let (mut side, mut stages) = (shape.height.min(shape.width), 1);
        while side.is_multiple_of(2) && side > 7 {
            side /= 2;
            stages += 1;
        }
        Self {
            shape,
            latent_dim: 64,
            channels: vec![64; stages],
            blocks: 1,
            expansion: 2,
            group_width: 16,
            classes: None,
        }
    }

    /// Creates the generator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn generator(&self, device: &Device) -> Result<R3ganGenerator> {
        let base = self.validate()?;
        let first = self.latent_dim + ClassConditioning::one_hot_width(self.classes.as_ref());
        let channels = self.channels.clone();
        let last = channels[channels.len() - 1];
        Ok(R3ganGenerator {
            input: LinearConfig::new(first, channels[0])
                .with_bias(false)
                .init(device),
            basis: Initializer::Normal {
                mean: 0.0,
                std: 1.0,
            }
            .param([1, channels[0], base[0], base[1]], 1, 1, device),
            stages: self.stages(&channels, device),
            output: conv(last, self.shape.channels, 1, 1, 1.0, device),
            config: self.clone(),
        })
    }

    /// Creates the discriminator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn discriminator(&self, device: &Device) -> Result<R3ganDiscriminator> {
        let base = self.validate()?;
        let plane = ClassPlane::new(
            self.classes.as_ref(),
            self.shape.height * self.shape.width,
            device,
        );
        let first = self.shape.channels + usize::from(plane.is_some());
        let channels: Vec<usize> = self.channels.iter().rev().copied().collect();
        let last = channels[channels.len() - 1];
        Ok(R3ganDiscriminator {
            plane,
            input: conv(first, channels[0], 1, 1, 1.0, device),
            stages: self.stages(&channels, device),
            basis: Initializer::KaimingNormal { gain: 1.0 }.param(
                [1, last, base[0], base[1]],
                base[0] * base[1],
                1,
                device,
            ),
            head: Head::new(
                last,
                self.classes.as_ref(),
                false,
                Initializer::PYTORCH,
                device,
            ),
        })
    }

    /// Creates one stage for each number of channels.
    fn stages(&self, channels: &[usize], device: &Device) -> Vec<Stage> {
        let stage = |index: usize| Stage {
            change: (index > 0 && channels[index - 1] != channels[index])
                .then(|| conv(channels[index - 1], channels[index], 1, 1, 1.0, device)),
            blocks: (0..self.blocks)
                .map(|_| self.block(channels[index], device))
                .collect(),
        };
        (0..channels.len()).map(stage).collect()
    }

    fn block(&self, channels: usize, device: &Device) -> Block {
        let middle = channels * self.expansion;
        // Fixup: with m = 3 layers in each of L branches, all layers but the last are scaled by
        // L^(−1/(2m − 2)).
        let branches = (self.blocks * self.channels.len()) as f64;
        let gain = std::f64::consts::SQRT_2 * branches.powf(-0.25);
        let biased = |mut conv: Conv2d| {
            conv.bias = Some(Initializer::ZEROS.param([middle], 1, 1, device));
            conv
        };
        Block {
            widen: biased(conv(channels, middle, 1, 1, gain, device)),
            mix: biased(conv(
                middle,
                middle,
                3,
                middle / self.group_width,
                gain,
                device,
            )),
            narrow: conv(middle, channels, 1, 1, 0.0, device),
        }
    }

    /// Checks the configuration; returns the sides of the smallest feature maps.
    pub(super) fn validate(&self) -> Result<[usize; 2]> {
        check_image_shape(self.shape, self.latent_dim)?;
        check_widths("channels", &self.channels)?;
        check::sizes(&[
            ("channels", self.channels.len(), 8),
            ("blocks", self.blocks, 64),
            ("expansion", self.expansion, 16),
        ])?;
        if self.group_width == 0
            || self
                .channels
                .iter()
                .any(|c| !(c * self.expansion).is_multiple_of(self.group_width))
        {
            let expected = format!(
                "a divisor of {} times the channels {:?}",
                self.expansion, self.channels
            );
            return Err(Error::config("group_width", self.group_width, expected));
        }
        let factor = 1 << (self.channels.len() - 1);
        let stages = format!("{} stages", self.channels.len());
        let base = divide_sides(self.shape, factor, &stages)?;
        if let Some(classes) = &self.classes {
            if classes.generator == GeneratorConditioning::ConditionalBatchNorm {
                return Err(Error::config(
                    "classes.generator",
                    "conditional_batch_norm",
                    "concat; this generator has no norms",
                ));
            }
            classes.validate()?;
        }
        let classes = self.classes.map_or(1, |classes| classes.num_classes);
        let last = self.channels[self.channels.len() - 1];
        check_layer_size(
            "channels",
            &[self.latent_dim.max(classes), last, base[0], base[1]],
        )?;
        check_layer_size(
            "classes.num_classes",
            &[classes, self.shape.height, self.shape.width],
        )?;
        Ok(base)
    }
}

/// A convolution without a bias. As in the paper, only convolutions before an activation have one,
/// which the caller adds.
fn conv(
    input: usize,
    output: usize,
    kernel: usize,
    groups: usize,
    gain: f64,
    device: &Device,
) -> Conv2d {
    Conv2dConfig::new([input, output], kernel)
        .with_padding(kernel / 2)
        .with_groups(groups)
        .with_bias(false)
        .with_initializer(Initializer::KaimingNormal { gain })
        .init(device)
}

#[derive(Module, Debug)]
struct Stage {
    /// A 1×1 convolution if the number of channels changes.
    change: Option<Conv2d>,
    blocks: Vec<Block>,
}

impl Stage {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self
            .change
            .as_ref()
            .map_or(x.clone(), |conv| conv.forward(x));
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

#[derive(Module, Debug)]
struct Block {
    widen: Conv2d,
    mix: Conv2d,
    narrow: Conv2d,
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = LEAKY.forward(self.widen.forward(x.clone()));
        let h = LEAKY.forward(self.mix.forward(h));
        x + self.narrow.forward(h)
    }
}

/// Generator: learned feature maps weighted by the noise, then stages that double the sides.
#[derive(Module, Debug)]
pub struct R3ganGenerator {
    input: Linear,
    /// `[1, channels, height, width]`.
    basis: Param<Tensor<4>>,
    stages: Vec<Stage>,
    output: Conv2d,
    #[module(skip)]
    config: R3ganConfig,
}

impl R3ganGenerator {
    /// Configuration of the pair that the generator belongs to.
    pub fn config(&self) -> &R3ganConfig {
        &self.config
    }
}

impl Generator for R3ganGenerator {
    /// As in the paper, there is no hyperbolic tangent: the output is not bounded.
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<4> {
        let z = with_class(
            z,
            class.as_ref(),
            ClassConditioning::one_hot_width(self.config.classes.as_ref()),
        );
        let weights = self.input.forward(z);
        let [batch, channels] = weights.dims();
        let mut x = self.basis.val() * weights.reshape([batch, channels, 1, 1]);
        for (index, stage) in self.stages.iter().enumerate() {
            x = stage.forward(if index > 0 {
                upsample_nearest2d(x, 2)
            } else {
                x
            });
        }
        self.output.forward(x)
    }

    described_by_config!();
}

/// Discriminator: stages that halve the sides, then the inner product of each channel with a
/// learned map.
#[derive(Module, Debug)]
pub struct R3ganDiscriminator {
    plane: Option<ClassPlane>,
    input: Conv2d,
    stages: Vec<Stage>,
    /// `[1, channels, height, width]`.
    basis: Param<Tensor<4>>,
    head: Head,
}

impl R3ganDiscriminator {
    /// The input of the head, `[batch, width]`.
    fn features(&self, x: Tensor<4>, class: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let x = ClassPlane::concat(self.plane.as_ref(), x, class);
        let mut x = self.input.forward(x);
        for (index, stage) in self.stages.iter().enumerate() {
            x = stage.forward(if index > 0 {
                avg_pool2d(x, AvgPoolOptions::new([2, 2]))
            } else {
                x
            });
        }
        let [batch, channels, height, width] = x.dims();
        (x * self.basis.val())
            .reshape([batch, channels, height * width])
            .sum_dim(2)
            .reshape([batch, channels])
    }
}

impl Discriminator for R3ganDiscriminator {
    head_on_features!(4);
}
