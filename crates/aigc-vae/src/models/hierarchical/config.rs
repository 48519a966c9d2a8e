//! The configuration of the model: its checks, and the model that it creates.

use super::{
    HierarchicalVae,
    block::{BlockConfig, scaled},
    levels::{Down, Group, Up, downsample},
};
use crate::{LikelihoodKind, models::check_weights};
use aigc_core::{
    Result,
    check::{self, ensure},
    data::ImageShape,
    nn::{Activation, Conv2dConfig, ConvTranspose2dConfig, Initializer, LinearConfig},
};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// One size of feature maps in a [`HierarchicalVae`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchicalLevel {
    /// Ratio of the sides of the level before (the image, for the first) to those of this level.
    pub stride: usize,
    /// Channels of the feature maps.
    pub channels: usize,
    /// Channels inside of the residual blocks.
    pub hidden_channels: usize,
    /// Residual blocks of the encoder.
    pub encoder_blocks: usize,
    /// Groups of latents.
    pub groups: usize,
    /// Channels of each group of latents.
    pub latent_channels: usize,
}

/// Configuration to create a [`HierarchicalVae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HierarchicalVaeConfig {
    /// Shape of an image; its sides must be divisible by the strides of all levels.
    pub shape: ImageShape,
    /// The sizes of feature maps, from the finest to the coarsest.
    pub levels: Vec<HierarchicalLevel>,
    /// Type of the distribution that the decoder outputs.
    pub likelihood: LikelihoodKind,
    /// Activation before each convolution of a block.
    pub activation: Activation,
    /// Number of classes, for a class-conditional model.
    #[serde(default)]
    pub num_classes: Option<usize>,
    /// Width of the vector of each sample that a conditional model takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector_dim: Option<usize>,
}

impl HierarchicalVaeConfig {
    /// Maps of a half, a quarter and, if the sides allow it, one pixel; Bernoulli pixels, no
    /// conditions.
    pub fn new(shape: ImageShape) -> Self {
        let level = |stride, channels, groups| HierarchicalLevel {
            stride,
            channels,
            hidden_channels: channels / 2,
            encoder_blocks: 2,
            groups,
            latent_channels: 8,
        };
        let mut levels = vec![level(2, 32, 3), level(2, 64, 4)];
        if shape.height == shape.width && shape.height.is_multiple_of(4) && shape.height > 4 {
            levels.push(level(shape.height / 4, 128, 2));
        }
        Self {
            shape,
            levels,
            likelihood: LikelihoodKind::Bernoulli,
            activation: Activation::Silu,
            num_classes: None,
            vector_dim: None,
        }
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<HierarchicalVae> {
        let sides = self.validate()?;
        let depth: usize = self.levels.iter().map(|level| level.groups).sum();
        let blocks: usize = self.levels.iter().map(|level| level.encoder_blocks).sum();
        let act = self.activation;
        let (mut down, mut levels) = (Vec::new(), Vec::new());
        let mut channels = self.shape.channels;
        for (index, level) in self.levels.iter().enumerate() {
            let side = sides[index];
            let block = |outputs, depth| BlockConfig {
                channels: level.channels,
                outputs,
                hidden: level.hidden_channels,
                kernel_size: if side == [1, 1] { 1 } else { 3 },
                depth,
                activation: act,
            };
            down.push(Down {
                conv: downsample(channels, level.channels, level.stride).init(device),
                blocks: (0..level.encoder_blocks)
                    .map(|_| block(level.channels, blocks).init(device))
                    .collect(),
            });
            let groups = (0..level.groups).map(|_| Group {
                prior: block(2 * level.latent_channels + level.channels, 0).init(device),
                posterior: BlockConfig {
                    channels: 2 * level.channels,
                    ..block(2 * level.latent_channels, 0)
                }
                .init(device),
                project: Conv2dConfig::new([level.latent_channels, level.channels], 1)
                    .with_initializer(scaled(depth))
                    .init(device),
                block: block(level.channels, depth).init(device),
            });
            let last = index + 1 == self.levels.len();
            levels.push(Up {
                groups: groups.collect(),
                up: (!last).then(|| {
                    let coarser = self.levels[index + 1];
                    ConvTranspose2dConfig::new([coarser.channels, level.channels], coarser.stride)
                        .with_stride(coarser.stride)
                        .init(device)
                }),
                side,
                latent_channels: level.latent_channels,
            });
            channels = level.channels;
        }
        let [height, width] = sides[sides.len() - 1];
        let outputs = self.likelihood.outputs(self.shape.channels);
        let finest = self.levels[0];
        Ok(HierarchicalVae {
            down,
            levels,
            start: Initializer::ZEROS.param([1, channels, height, width], 1, 1, device),
            classes: self.num_classes.map(|classes| {
                Initializer::Normal {
                    mean: 0.0,
                    std: 0.02,
                }
                .param([classes, channels], 1, 1, device)
            }),
            vectors: self.vector_dim.map(|width| {
                LinearConfig::new(width, channels)
                    .with_bias(false)
                    .init(device)
            }),
            output: ConvTranspose2dConfig::new([finest.channels, outputs], finest.stride)
                .with_stride(finest.stride)
                .init(device),
            config: self.clone(),
        })
    }

    /// Checks the configuration; returns the sides of the maps of each level.
    fn validate(&self) -> Result<Vec<[usize; 2]>> {
        const MAX_SIZE: usize = 1 << 12;
        check::sizes(&[
            ("shape.channels", self.shape.channels, MAX_SIZE),
            ("shape.height", self.shape.height, MAX_SIZE),
            ("shape.width", self.shape.width, MAX_SIZE),
            ("levels", self.levels.len(), 16),
        ])?;
        check::sizes(&[
            ("num_classes", self.num_classes.unwrap_or(1), 1 << 16),
            ("vector_dim", self.vector_dim.unwrap_or(1), 1 << 14),
        ])?;
        self.likelihood.validate()?;
        let mut side = [self.shape.height, self.shape.width];
        let mut sides = Vec::new();
        for (index, level) in self.levels.iter().enumerate() {
            let name = |field: &str| format!("levels[{index}].{field}");
            for (field, size, limit) in [
                ("stride", level.stride, MAX_SIZE),
                ("channels", level.channels, MAX_SIZE),
                ("hidden_channels", level.hidden_channels, MAX_SIZE),
                ("groups", level.groups, 256),
                ("latent_channels", level.latent_channels, MAX_SIZE),
            ] {
                check::sizes(&[(&name(field), size, limit)])?;
            }
            check::in_range(&name("encoder_blocks"), level.encoder_blocks, 0..=256)?;
            let expected = format!(
                "a divisor of {} and {}, the sides of the maps before",
                side[0], side[1]
            );
            let divides = side.iter().all(|side| side % level.stride == 0);
            ensure(divides, &name("stride"), level.stride, &expected)?;
            side = side.map(|side| side / level.stride);
            sides.push(side);
        }
        // Sizes within their limits can still have a product beyond the memory.
        let weights = usize::try_from(self.num_weights(&sides)).unwrap_or(usize::MAX);
        check_weights("weights of levels", weights, 1, "a model")?;
        Ok(sides)
    }

    /// The number of weights without biases, of a validated configuration with maps of these sides.
    fn num_weights(&self, sides: &[[usize; 2]]) -> u128 {
        let product = |sizes: &[usize]| sizes.iter().map(|size| *size as u128).product::<u128>();
        let (mut weights, mut before) = (0, self.shape.channels);
        let mut outputs = self.likelihood.outputs(self.shape.channels);
        for (level, side) in self.levels.iter().zip(sides) {
            let (channels, hidden) = (level.channels, level.hidden_channels);
            let kernel = if *side == [1, 1] { 1 } else { 9 };
            let block = |inputs: usize, outputs: usize| {
                product(&[inputs + outputs, hidden]) + product(&[2, kernel, hidden, hidden])
            };
            let latents = 2 * level.latent_channels;
            let group = block(channels, latents + channels)
                + block(2 * channels, latents)
                + product(&[level.latent_channels, channels])
                + block(channels, channels);
            let down = if level.stride == 2 { 4 } else { level.stride };
            weights += product(&[before, channels, down, down])
                + product(&[channels, outputs, level.stride, level.stride])
                + level.encoder_blocks as u128 * block(channels, channels)
                + level.groups as u128 * group;
            (before, outputs) = (channels, channels);
        }
        let start = sides
            .last()
            .map_or(1, |[height, width]| product(&[*height, *width]));
        let conditions = self.num_classes.unwrap_or(0) + self.vector_dim.unwrap_or(0);
        weights + before as u128 * (start + conditions as u128)
    }
}
