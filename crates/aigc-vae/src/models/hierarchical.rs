//! A deep hierarchical VAE: groups of latents on maps of several sizes, drawn from the coarsest to
//! the finest.
//!
//! The encoder works bottom-up without noise; the decoder works top-down, and at every group the
//! posterior sees the decoder's state and the encoder's features of that size (Sønderby et al.
//! 2016, <https://arxiv.org/abs/1602.02282>; Kingma et al. 2016). The blocks are those of Child
//! (2021), <https://arxiv.org/abs/2011.10650>; the posterior is relative to the prior, as in NVAE
//! (Vahdat and Kautz 2020, <https://arxiv.org/abs/2007.03898>, §3.2), with the difference of the
//! means in units of the prior's standard deviation.

use super::{check_weights, condition_embedding::one_hot};
use crate::compress::{ChooseLatents, GaussianLatents};
use crate::{Condition, ConditionKind, Likelihood, LikelihoodKind, Vae, VaeOutput};
use aigc_core::{
    Result,
    check::{self, ensure},
    data::{ImageShape, SampleShape},
    encoder::Posterior,
    nn::{Activation, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig, Initializer},
    ops,
    rng::Rng,
    weights::{Loaded, load_pretrained_with_variant, save_pretrained},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData, ops::ConvOptions},
};
use serde::{Deserialize, Serialize};
use std::{f64::consts::PI, path::Path};

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
}

impl HierarchicalVaeConfig {
    /// Maps of a half, a quarter and, if the sides allow it, one pixel; Bernoulli pixels.
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
        if let Some(classes) = self.num_classes {
            check::sizes(&[("num_classes", classes, 1 << 16)])?;
        }
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
        weights + before as u128 * (start + self.num_classes.unwrap_or(0) as u128)
    }
}

/// PyTorch's default scaled by `1/√depth`, for the layers that a residual path of `depth` blocks
/// sums up (Child 2021, §2.3); without the factor for a depth of 0.
fn scaled(depth: usize) -> Initializer {
    Initializer::KaimingUniform {
        gain: 1.0 / (3.0 * depth.max(1) as f64).sqrt(),
    }
}

/// A convolution that divides the sides by `stride`, with overlapping windows for a stride of 2.
fn downsample(inputs: usize, outputs: usize, stride: usize) -> Conv2dConfig {
    match stride {
        2 => Conv2dConfig::new([inputs, outputs], 4)
            .with_stride(2)
            .with_padding(1),
        _ => Conv2dConfig::new([inputs, outputs], stride).with_stride(stride),
    }
}

struct BlockConfig {
    channels: usize,
    outputs: usize,
    hidden: usize,
    kernel_size: usize,
    /// Blocks on the residual path; 0 for a block without a residual path.
    depth: usize,
    activation: Activation,
}

impl BlockConfig {
    fn init(&self, device: &Device) -> Block {
        let (k, hidden) = (self.kernel_size, self.hidden);
        let conv =
            |inputs, outputs, k: usize| Conv2dConfig::new([inputs, outputs], k).with_padding(k / 2);
        Block {
            reduce: conv(self.channels, hidden, 1).init(device),
            first: conv(hidden, hidden, k).init(device),
            second: conv(hidden, hidden, k).init(device),
            expand: conv(hidden, self.outputs, 1)
                .with_initializer(scaled(self.depth))
                .init(device),
            residual: self.depth > 0,
            activation: self.activation,
        }
    }
}

/// A bottleneck block: 1×1, 3×3, 3×3 and 1×1 convolutions, each after an activation.
#[derive(Module, Debug)]
struct Block {
    reduce: Conv2d,
    first: Conv2d,
    second: Conv2d,
    expand: Conv2d,
    residual: bool,
    #[module(skip)]
    activation: Activation,
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let activated = self.activation.forward(x.clone());
        let y = self.expand.forward(self.inner(activated));
        if self.residual { x + y } else { y }
    }

    /// The input of the last convolution, from an activated input.
    fn inner(&self, activated: Tensor<4>) -> Tensor<4> {
        let layers = [&self.reduce, &self.first, &self.second];
        layers.into_iter().fold(activated, |x, conv| {
            self.activation.forward(conv.forward(x))
        })
    }

    /// The output in parts of these channels, from an activated input.
    ///
    /// Every part is a convolution of its own: the gradient of a slice of the whole output would
    /// have the size of the whole output.
    fn parts<const N: usize>(&self, activated: Tensor<4>, channels: [usize; N]) -> [Tensor<4>; N] {
        let x = self.inner(activated);
        let weight = self.expand.weight.val();
        let bias = self.expand.bias.as_ref().map(|bias| bias.val());
        let mut start = 0;
        channels.map(|channels| {
            let weight = weight.clone().narrow(0, start, channels);
            let bias = bias.clone().map(|bias| bias.narrow(0, start, channels));
            start += channels;
            ops::conv2d(
                x.clone(),
                weight,
                bias,
                ConvOptions::new([1; 2], [0; 2], [1; 2], 1),
            )
        })
    }
}

/// A level of the encoder.
#[derive(Module, Debug)]
struct Down {
    conv: Conv2d,
    blocks: Vec<Block>,
}

/// A level of the decoder.
#[derive(Module, Debug)]
struct Up {
    groups: Vec<Group>,
    /// From the coarser level; none at the coarsest.
    up: Option<ConvTranspose2d>,
    side: [usize; 2],
    latent_channels: usize,
}

/// One group of latents.
#[derive(Module, Debug)]
struct Group {
    prior: Block,
    posterior: Block,
    project: Conv2d,
    block: Block,
}

impl Group {
    /// The prior, and what is added to the decoder's state, from the activated state.
    fn prior(&self, activated: &Tensor<4>) -> (Normal, Tensor<4>) {
        let (latents, channels) = self.channels();
        let parts = self
            .prior
            .parts(activated.clone(), [latents, latents, channels]);
        let [mean, log_std, update] = parts;
        (Normal::new(mean, log_std), update)
    }

    /// The posterior, from the decoder's activated state and the encoder's activated features.
    fn relative(&self, activated: &Tensor<4>, features: &Tensor<4>) -> Relative {
        let seen = Tensor::cat(vec![activated.clone(), features.clone()], 1);
        let (latents, _) = self.channels();
        let [mean, log_std] = self.posterior.parts(seen, [latents; 2]);
        let log_std = soft_clamp(log_std);
        Relative {
            mean,
            std: log_std.clone().exp(),
            log_std,
        }
    }

    /// Channels of the latents and of the decoder's state.
    fn channels(&self) -> (usize, usize) {
        let [channels, latents, ..] = self.project.weight.val().dims();
        (latents, channels)
    }
}

/// A hierarchical VAE with groups of latent maps of several sizes.
///
/// Its latents are vectors: the maps of all groups one after the other, the coarsest first.
#[derive(Module, Debug)]
pub struct HierarchicalVae {
    /// Finest level first.
    down: Vec<Down>,
    /// Finest level first.
    levels: Vec<Up>,
    /// State of the decoder before the first group, `[1, channels, height, width]`.
    start: Param<Tensor<4>>,
    /// Added to the start, `[classes, channels]`; nothing for a label that is not a class.
    classes: Option<Param<Tensor<2>>>,
    output: ConvTranspose2d,
    #[module(skip)]
    config: HierarchicalVaeConfig,
}

/// Normal distribution of a group of latents under the prior, `[batch, channels, height, width]`.
struct Normal {
    mean: Tensor<4>,
    log_std: Tensor<4>,
}

/// Bounds of `log σ`, approached smoothly.
const LOG_STD: f64 = 5.0;

impl Normal {
    fn new(mean: Tensor<4>, log_std: Tensor<4>) -> Self {
        Self {
            mean,
            log_std: soft_clamp(log_std),
        }
    }

    fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + self.log_std.clone().exp() * noise
    }

    fn log_prob(&self, z: Tensor<4>) -> Tensor<1> {
        let scaled = (z - self.mean.clone()) * (-self.log_std.clone()).exp();
        let terms = scaled.clone() * scaled * -0.5 - self.log_std.clone() - 0.5 * (2.0 * PI).ln();
        sum(terms)
    }
}

/// The difference of a posterior from its prior: `μ_q = μ_p + δ·σ_p`, `σ_q = σ_p·ρ`.
struct Relative {
    /// `δ`
    mean: Tensor<4>,
    /// `ρ`
    std: Tensor<4>,
    /// `log ρ`
    log_std: Tensor<4>,
}

impl Relative {
    /// A draw from the posterior as noise of the prior: `δ + ρ·ε`.
    fn noise(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + self.std.clone() * noise
    }

    /// `KL(q ‖ p) = Σ ½(δ² + ρ² − 1) − log ρ`; the prior's own mean and scale cancel.
    fn kl(&self) -> Tensor<1> {
        let square = |x: &Tensor<4>| x.clone() * x.clone();
        sum((square(&self.mean) + square(&self.std) - 1.0) * 0.5 - self.log_std.clone())
    }

    /// `log q` at the noise `ε` of the posterior.
    fn log_prob(&self, prior: &Normal, noise: Tensor<4>) -> Tensor<1> {
        let log_std = self.log_std.clone() + prior.log_std.clone();
        sum(noise.clone() * noise * -0.5 - log_std - 0.5 * (2.0 * PI).ln())
    }

    /// `log q − log p` at the noise `ε` of the posterior, which is `δ + ρ·ε` of the prior.
    fn log_ratio(&self, noise: Tensor<4>) -> Tensor<1> {
        let of_prior = self.noise(noise.clone());
        sum((of_prior.clone() * of_prior - noise.clone() * noise) * 0.5 - self.log_std.clone())
    }
}

fn soft_clamp(x: Tensor<4>) -> Tensor<4> {
    Activation::Tanh.forward(x / LOG_STD) * LOG_STD
}

/// Sums all axes but the first.
fn sum(x: Tensor<4>) -> Tensor<1> {
    x.flatten::<2>(1, 3).sum_dim(1).squeeze_dim(1)
}

/// The noise of the prior for a group of latents, from the mean and `log σ²` of its posterior.
type Choose<'a> = dyn FnMut(&[f32], &[f32]) -> Vec<f32> + 'a;

/// Where the latents of a pass from top to bottom come from.
enum Source<'a> {
    /// The posterior, with the encoder's features, finest first; most probable latents without
    /// random numbers.
    Posterior(&'a [Tensor<4>], Option<&'a mut Rng>),
    /// The prior, with this standard normal noise, `[batch, dim]`.
    Prior(Tensor<2>),
    /// The posterior of one image, with the encoder's features: the noise of the prior is chosen by
    /// its mean and `log σ²`.
    Chosen(&'a [Tensor<4>], &'a mut Choose<'a>),
    /// Given latents, `[batch, dim]`, and whether to compute `log p(z)` of each group.
    Given(Tensor<2>, bool),
}

/// What a pass with latents of the posterior computes for each group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Term {
    /// The divergence from the prior in closed form, given the groups before.
    Divergence,
    /// `log q(z|x) − log p(z)` at the drawn latents.
    LogRatio,
    /// `log q(z|x)` at the drawn latents.
    LogPosterior,
}

struct Pass {
    z: Tensor<2>,
    hidden: Tensor<4>,
    /// Per group, `[batch]` each.
    terms: Vec<Tensor<1>>,
}

impl HierarchicalVae {
    /// Configuration of the model.
    pub fn config(&self) -> &HierarchicalVaeConfig {
        &self.config
    }

    /// Opens a trained model from a directory with `config.json` and weights, such as the `final`
    /// of a run.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Data`], [`Error::Config`] or [`Error::Weights`], naming the file and
    /// the field, tensor or value.
    ///
    /// [`Error::Io`]: aigc_core::Error::Io
    /// [`Error::Data`]: aigc_core::Error::Data
    /// [`Error::Config`]: aigc_core::Error::Config
    /// [`Error::Weights`]: aigc_core::Error::Weights
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        Self::open(dir.as_ref(), None, device)
    }

    /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights: `fp16` opens
    /// `model.fp16.safetensors`.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained);
    /// [`Error::Weights`](aigc_core::Error::Weights) if the variant is missing.
    pub fn from_pretrained_with_variant(
        dir: impl AsRef<Path>,
        variant: &str,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        Self::open(dir.as_ref(), Some(variant), device)
    }

    fn open(dir: &Path, variant: Option<&str>, device: &Device) -> Result<Loaded<Self>> {
        let init = |config: &HierarchicalVaeConfig| config.init(device);
        load_pretrained_with_variant(dir, variant, &[], init)
    }

    /// Writes `config.json` and `model.safetensors` to a directory.
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if a
    /// file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        save_pretrained(self, &self.config, dir.as_ref())
    }

    /// Number of groups of latents.
    pub fn num_groups(&self) -> usize {
        self.levels.iter().map(|level| level.groups.len()).sum()
    }

    /// The encoder's activated features of each level, finest first.
    fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = x * 2.0 - 1.0;
        let mut features = Vec::with_capacity(self.down.len());
        for level in &self.down {
            x = level.conv.forward(x);
            x = level.blocks.iter().fold(x, |x, block| block.forward(x));
            features.push(self.config.activation.forward(x.clone()));
        }
        features
    }

    fn top_down(
        &self,
        batch: usize,
        condition: &Condition,
        mut source: Source<'_>,
        term: Term,
    ) -> Pass {
        let [_, channels, height, width] = self.start.val().dims();
        let mut hidden = self.start.val().expand([batch, channels, height, width]);
        if let (Some(table), Some(labels)) = (&self.classes, condition.class_labels.clone()) {
            let table = table.val();
            let rows = one_hot(labels, table.dims()[0]).matmul(table);
            hidden = hidden + rows.reshape([batch, channels, 1, 1]);
        }
        let (mut z, mut terms, mut start) = (Vec::new(), Vec::new(), 0);
        for (index, level) in self.levels.iter().enumerate().rev() {
            if let Some(up) = &level.up {
                hidden = up.forward(hidden);
            }
            let [height, width] = level.side;
            let shape = [batch, level.latent_channels, height, width];
            let count = level.latent_channels * height * width;
            for group in &level.groups {
                let activated = self.config.activation.forward(hidden.clone());
                let (prior, update) = group.prior(&activated);
                let latent = match &mut source {
                    Source::Posterior(features, rng) => {
                        let relative = group.relative(&activated, &features[index]);
                        let noise = match rng {
                            Some(rng) => rng.normal(shape, &hidden.device()),
                            None => relative.mean.zeros_like(),
                        };
                        terms.push(match term {
                            Term::Divergence => relative.kl(),
                            Term::LogRatio => relative.log_ratio(noise.clone()),
                            Term::LogPosterior => relative.log_prob(&prior, noise.clone()),
                        });
                        prior.sample(relative.noise(noise))
                    }
                    Source::Chosen(features, choose) => {
                        let relative = group.relative(&activated, &features[index]);
                        let values = |x: Tensor<4>| x.into_data().iter().collect::<Vec<f32>>();
                        let noise = choose(&values(relative.mean), &values(relative.log_std * 2.0));
                        let noise = TensorData::new(noise, shape);
                        prior.sample(Tensor::from_data(noise, &hidden.device()))
                    }
                    Source::Prior(noise) => {
                        prior.sample(noise.clone().narrow(1, start, count).reshape(shape))
                    }
                    Source::Given(all, log_prior) => {
                        let latent = all.clone().narrow(1, start, count).reshape(shape);
                        if *log_prior {
                            terms.push(prior.log_prob(latent.clone()));
                        }
                        latent
                    }
                };
                start += count;
                hidden = hidden + update + group.project.forward(latent.clone());
                hidden = group.block.forward(hidden);
                z.push(latent.flatten::<2>(1, 3));
            }
        }
        Pass {
            z: Tensor::cat(z, 1),
            hidden,
            terms,
        }
    }

    fn likelihood(&self, hidden: Tensor<4>) -> Likelihood {
        let hidden = self.config.activation.forward(hidden);
        Likelihood::new(self.config.likelihood, self.output.forward(hidden))
    }
}

/// The posterior of a [`HierarchicalVae`]: the encoder's features. The distribution of a group of
/// latents depends on the groups drawn before it, so that drawing is a pass through the decoder.
#[derive(Clone, Debug)]
pub struct HierarchicalPosterior {
    model: HierarchicalVae,
    features: Vec<Tensor<4>>,
    condition: Condition,
}

impl HierarchicalPosterior {
    fn pass(&self, rng: Option<&mut Rng>, term: Term) -> Pass {
        let batch = self.features[0].dims()[0];
        let source = Source::Posterior(&self.features, rng);
        self.model.top_down(batch, &self.condition, source, term)
    }
}

/// The sum of the terms of all groups, `[batch]`.
fn total(terms: Vec<Tensor<1>>) -> Tensor<1> {
    let sum = terms.into_iter().reduce(|sum, term| sum + term);
    sum.expect("a model has at least one group")
}

impl Posterior<2> for HierarchicalPosterior {
    fn sample(&self, rng: &mut Rng) -> Tensor<2> {
        self.pass(Some(rng), Term::Divergence).z
    }

    fn sample_with_log_prob(&self, rng: &mut Rng) -> (Tensor<2>, Tensor<1>) {
        let pass = self.pass(Some(rng), Term::LogPosterior);
        (pass.z, total(pass.terms))
    }

    /// The most probable latents of each group, given those of the groups before.
    fn mode(&self) -> Tensor<2> {
        self.pass(None, Term::Divergence).z
    }

    /// The divergence along the most probable latents. [`Vae::forward`] computes it along a draw,
    /// whose mean is the divergence.
    fn kl(&self) -> Tensor<1> {
        total(self.pass(None, Term::Divergence).terms)
    }
}

impl Vae for HierarchicalVae {
    type Posterior = HierarchicalPosterior;

    fn encode(&self, x: Tensor<4>) -> HierarchicalPosterior {
        self.encode_with(x, &Condition::none())
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood {
        self.decode_with(z, &Condition::none())
    }

    fn latent_shape(&self) -> SampleShape {
        let maps = self.levels.iter().map(|level| {
            level.groups.len() * level.latent_channels * level.side[0] * level.side[1]
        });
        SampleShape::new(&[maps.sum()])
    }

    fn sample_shape(&self) -> SampleShape {
        self.config.shape.into()
    }

    fn condition_kind(&self) -> ConditionKind {
        ConditionKind {
            num_classes: self.config.num_classes,
            ..ConditionKind::default()
        }
    }

    fn encode_with(&self, x: Tensor<4>, condition: &Condition) -> HierarchicalPosterior {
        HierarchicalPosterior {
            features: self.features(x),
            model: self.clone(),
            condition: condition.clone(),
        }
    }

    fn decode_with(&self, z: Tensor<2>, condition: &Condition) -> Likelihood {
        let source = Source::Given(z.clone(), false);
        let pass = self.top_down(z.dims()[0], condition, source, Term::Divergence);
        self.likelihood(pass.hidden)
    }

    /// One pass from top to bottom; the divergence of each group is computed in closed form, given
    /// the groups drawn before.
    fn forward(
        &self,
        x: Tensor<4>,
        condition: &Condition,
        rng: &mut Rng,
    ) -> VaeOutput<HierarchicalPosterior> {
        let posterior = self.encode_with(x, condition);
        let pass = posterior.pass(Some(rng), Term::Divergence);
        VaeOutput {
            posterior,
            z: pass.z,
            likelihood: self.likelihood(pass.hidden),
            kl: pass.terms,
        }
    }

    /// The divergence of all groups along the most probable latents; see
    /// [`HierarchicalPosterior::kl`](Posterior::kl).
    fn kl(
        &self,
        posterior: &HierarchicalPosterior,
        _z: Tensor<2>,
        _condition: &Condition,
    ) -> Vec<Tensor<1>> {
        posterior.pass(None, Term::Divergence).terms
    }

    fn prior_log_prob(&self, z: Tensor<2>, condition: &Condition) -> Tensor<1> {
        let source = Source::Given(z.clone(), true);
        total(
            self.top_down(z.dims()[0], condition, source, Term::Divergence)
                .terms,
        )
    }

    fn log_weights(
        &self,
        posterior: &HierarchicalPosterior,
        x: Tensor<4>,
        condition: &Condition,
        k: usize,
        rng: &mut Rng,
    ) -> Tensor<2> {
        let batch = x.dims()[0];
        let repeat = |map: &Tensor<4>| map.clone().repeat_dim(0, k);
        let features: Vec<_> = posterior.features.iter().map(repeat).collect();
        let condition = condition.repeat(k);
        let source = Source::Posterior(&features, Some(rng));
        let pass = self.top_down(batch * k, &condition, source, Term::LogRatio);
        let log_p = self.likelihood(pass.hidden).log_prob(x.repeat_dim(0, k));
        (log_p - total(pass.terms)).reshape([k, batch]).transpose()
    }

    fn sample_prior(
        &self,
        n: usize,
        condition: &Condition,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        let noise = rng.normal([n, self.latent_dim()], device) * temperature;
        self.top_down(n, condition, Source::Prior(noise), Term::Divergence)
            .z
    }
}

impl GaussianLatents for HierarchicalVae {
    fn encode_latents(&self, x: Tensor<4>, choose: &mut ChooseLatents<'_>) -> Result<()> {
        let features = self.features(x);
        let mut failed = None;
        let mut each = |mean: &[f32], log_var: &[f32]| match choose(mean, log_var) {
            Ok(noise) if failed.is_none() => noise,
            result => {
                failed = failed.take().or(result.err());
                vec![0.0; mean.len()]
            }
        };
        let source = Source::Chosen(&features, &mut each);
        self.top_down(1, &Condition::none(), source, Term::Divergence);
        failed.map_or(Ok(()), Err)
    }

    fn decode_latents(&self, latents: &[f32], device: &Device) -> Likelihood {
        let noise = TensorData::new(latents.to_vec(), [1, latents.len()]);
        let source = Source::Prior(Tensor::from_data(noise, device));
        let pass = self.top_down(1, &Condition::none(), source, Term::Divergence);
        self.likelihood(pass.hidden)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::flow::testing::perturbed;
    use aigc_core::{
        Error,
        params::{ParamMapper, map_params},
        rng::InitWeights,
        testing::{assert_close, values},
    };

    fn level(stride: usize, groups: usize) -> HierarchicalLevel {
        HierarchicalLevel {
            stride,
            channels: 4,
            hidden_channels: 3,
            encoder_blocks: 1,
            groups,
            latent_channels: 2,
        }
    }

    /// 8×8 images, two groups on maps of 4×4 and one on maps of one pixel.
    fn tiny() -> HierarchicalVaeConfig {
        HierarchicalVaeConfig {
            levels: vec![level(2, 2), level(4, 1)],
            ..HierarchicalVaeConfig::new(ImageShape::new(1, 8, 8))
        }
    }

    /// A model with all weights drawn from a normal distribution, so that groups depend on each
    /// other and posteriors differ from their priors.
    fn model(config: &HierarchicalVaeConfig) -> HierarchicalVae {
        perturbed(config.init(&Device::flex()).unwrap(), 0.3, 1)
    }

    fn images(n: usize) -> Tensor<4> {
        Rng::new(2).uniform([n, 1, 8, 8], 0.0, 1.0, &Device::flex())
    }

    /// The mean and its standard error.
    fn mean_and_error(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        (mean, squares.sqrt() / n)
    }

    fn doubles(x: Tensor<1>) -> Vec<f64> {
        values(x).into_iter().map(f64::from).collect()
    }

    #[test]
    fn latents_are_the_maps_of_all_groups() {
        let model = model(&tiny());
        assert_eq!(model.num_groups(), 3);
        assert_eq!(model.latent_shape(), SampleShape::new(&[2 + 2 * 2 * 16]));
        let output = model.forward(images(3), &Condition::none(), &mut Rng::new(5));
        assert_eq!((output.z.dims(), output.kl.len()), ([3, 66], 3));
        assert_eq!(output.likelihood.mean().dims(), [3, 1, 8, 8]);
        let config = HierarchicalVaeConfig::new(ImageShape::new(1, 28, 28));
        let model = config.init(&Device::flex()).unwrap();
        assert_eq!(model.num_groups(), 9);
        assert_eq!(model.latent_dim(), 8 * (3 * 14 * 14 + 4 * 7 * 7 + 2));
    }

    /// The divergence of a group, given the groups before, is the mean of `log q(z|x) − log p(z)`.
    #[test]
    fn divergences_are_means_of_log_ratios() {
        let n = 2000;
        let (model, none) = (model(&tiny()), Condition::none());
        let x = images(1).repeat_dim(0, n);
        let output = model.forward(x, &none, &mut Rng::new(5));
        let (z, log_q) = (output.posterior).sample_with_log_prob(&mut Rng::new(5));
        assert_close(&values(z.clone()), &values(output.z), 0.0);
        let ratio = log_q - model.prior_log_prob(z, &none);
        let kl = total(output.kl);
        assert!(values(kl.clone()).iter().all(|kl| *kl > 0.01));
        let (mean, error) = mean_and_error(&doubles(ratio - kl));
        assert!(mean.abs() < 5.0 * error, "{mean} {error}");
    }

    /// A posterior that does not differ from the prior has no divergence, and the draws of the
    /// prior.
    #[test]
    fn posterior_without_difference_is_the_prior() {
        struct Zero;
        impl ParamMapper for Zero {
            fn map<const D: usize>(
                &mut self,
                path: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                match path.contains(".posterior.expand.") {
                    true => param.map(|value| value.zeros_like()),
                    false => param,
                }
            }
        }
        let model = map_params(model(&tiny()), &mut Zero);
        let (device, none) = (Device::flex(), Condition::none());
        let output = model.forward(images(1), &none, &mut Rng::new(5));
        for kl in output.kl {
            assert_eq!(values(kl), [0.0]);
        }
        let drawn = model.sample_prior(1, &none, 1.0, &mut Rng::new(5), &device);
        assert_close(&values(output.z), &values(drawn), 0.0);
    }

    #[test]
    fn latents_decode_to_the_likelihood_of_the_pass() {
        let (model, none) = (model(&tiny()), Condition::none());
        let output = model.forward(images(3), &none, &mut Rng::new(5));
        let z = model.encode(images(3)).sample(&mut Rng::new(5));
        assert_close(&values(z.clone()), &values(output.z), 0.0);
        let found = values(model.decode(z).mean());
        assert_close(&found, &values(output.likelihood.mean()), 1e-5);
    }

    #[test]
    fn log_weight_is_the_sum_of_its_terms() {
        let (model, none, x) = (model(&tiny()), Condition::none(), images(3));
        let posterior = model.encode(x.clone());
        let weights = model.log_weights(&posterior, x.clone(), &none, 1, &mut Rng::new(5));
        assert_eq!(weights.dims(), [3, 1]);
        let (z, log_q) = posterior.sample_with_log_prob(&mut Rng::new(5));
        let log_p = model.decode(z.clone()).log_prob(x) + model.prior_log_prob(z, &none);
        assert_close(&values(weights), &values(log_p - log_q), 2e-3);
    }

    /// The mean of the log-weights is the ELBO; the logarithm of their mean is a bound above it.
    #[test]
    fn log_weights_give_a_bound_above_the_elbo() {
        let n = 500;
        let (model, none, x) = (model(&tiny()), Condition::none(), images(2));
        let weights = model.log_weights(&model.encode(x.clone()), x, &none, n, &mut Rng::new(5));
        assert_eq!(weights.dims(), [2, n]);
        for (index, weights) in values(weights).chunks(n).enumerate() {
            let x = images(2).narrow(0, index, 1).repeat_dim(0, n);
            let elbo = model.forward(x.clone(), &none, &mut Rng::new(6)).elbo(x);
            let (elbo, elbo_error) = mean_and_error(&doubles(elbo.log_likelihood - elbo.kl));
            let weights: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
            let (mean, error) = mean_and_error(&weights);
            let tolerance = 5.0 * error.hypot(elbo_error);
            assert!((mean - elbo).abs() < tolerance, "{mean} {elbo} {tolerance}");
            let largest = weights.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = weights.iter().map(|w| (w - largest).exp()).sum();
            let bound = largest + (sum / n as f64).ln();
            assert!(bound > elbo, "{bound} {elbo}");
        }
    }

    /// The prior of a single group is the same normal distribution for all samples.
    #[test]
    fn prior_of_one_group_matches_its_formula() {
        let (device, none) = (Device::flex(), Condition::none());
        let config = HierarchicalVaeConfig {
            levels: vec![level(8, 1)],
            ..tiny()
        };
        let model = model(&config);
        let activated = config.activation.forward(model.start.val());
        let (prior, _) = model.levels[0].groups[0].prior(&activated);
        let (mean, log_std) = (values(prior.mean), values(prior.log_std));
        let noise = Rng::new(7).normal_vec(8);
        for temperature in [1.0, 0.5, 0.0] {
            let z = model.sample_prior(4, &none, temperature, &mut Rng::new(7), &device);
            assert_eq!(z.dims(), [4, 2]);
            let latent = |(index, noise): (usize, &f32)| {
                let (mean, std) = (mean[index % 2], log_std[index % 2].exp());
                mean + std * temperature as f32 * noise
            };
            let expected: Vec<f32> = noise.iter().enumerate().map(latent).collect();
            assert_close(&values(z.clone()), &expected, 1e-5);
            let log_density = |noise: &[f32]| {
                let terms = noise.iter().zip(&log_std).map(|(noise, log_std)| {
                    let scaled = f64::from(*noise) * temperature;
                    -0.5 * (scaled * scaled + (2.0 * PI).ln()) - f64::from(*log_std)
                });
                terms.sum::<f64>() as f32
            };
            let expected: Vec<f32> = noise.chunks(2).map(log_density).collect();
            assert_close(&values(model.prior_log_prob(z, &none)), &expected, 1e-4);
        }
    }

    /// Without noise, latents are means given the groups before. Those of the first group move away
    /// from them in proportion to the temperature.
    #[test]
    fn temperature_scales_the_noise_of_each_group() {
        let (model, none, device) = (model(&tiny()), Condition::none(), Device::flex());
        let at = |temperature| {
            let rng = &mut Rng::new(7);
            values(model.sample_prior(2, &none, temperature, rng, &device))
        };
        let (means, half, full) = (at(0.0), at(0.5), at(1.0));
        assert_close(&means[..66], &means[66..], 1e-6);
        let gap = |index: usize| (half[index] - 0.5 * (means[index] + full[index])).abs();
        assert!((0..2).all(|index| gap(index) < 1e-5));
        // The means and scales of the other groups depend on the draws.
        assert!((2..66).any(|index| gap(index) > 1e-4));
    }

    #[test]
    fn classes_change_latents_and_likelihoods() {
        let device = Device::flex();
        let config = HierarchicalVaeConfig {
            num_classes: Some(3),
            ..tiny()
        };
        let model = model(&config);
        assert_eq!(model.condition_kind().num_classes, Some(3));
        let z: Tensor<2> = Rng::new(4).normal([2, 66], &device);
        let outputs = |condition: &Condition| {
            [
                values(model.encode_with(images(2), condition).mode()),
                values(model.decode_with(z.clone(), condition).mean()),
                values(model.sample_prior(2, condition, 1.0, &mut Rng::new(7), &device)),
            ]
        };
        let none = outputs(&Condition::none());
        let [a, b] = [[0, 1], [0, 2]].map(|l| outputs(&Condition::classes(&l, &device)));
        for ((a, b), none) in a.iter().zip(&b).zip(&none) {
            let half = a.len() / 2;
            assert_close(&a[..half], &b[..half], 1e-6);
            assert_ne!(a[half..], b[half..]);
            assert_ne!(a[..half], none[..half]);
        }
        // Labels that are not classes.
        let others = outputs(&Condition::classes(&[3, 1000], &device));
        for (found, none) in others.iter().zip(&none) {
            assert_close(found, none, 1e-6);
        }
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        let of = |levels| HierarchicalVaeConfig { levels, ..tiny() };
        let blocks = HierarchicalLevel {
            encoder_blocks: 257,
            ..level(2, 1)
        };
        for (config, expected) in [
            (
                of(vec![level(3, 1)]),
                "`levels[0].stride` is 3, expected a divisor of 8 and 8",
            ),
            (
                of(vec![level(2, 2), level(3, 1)]),
                "`levels[1].stride` is 3, expected a divisor of 4 and 4",
            ),
            (of(vec![level(2, 0)]), "`levels[0].groups` is 0"),
            (of(vec![blocks]), "`levels[0].encoder_blocks` is 257"),
            (of(vec![]), "`levels` is 0"),
            (
                of(vec![HierarchicalLevel {
                    channels: 1 << 12,
                    hidden_channels: 1 << 12,
                    ..level(2, 256)
                }]),
                "expected at most 2147483648, for a model",
            ),
            (
                HierarchicalVaeConfig {
                    num_classes: Some(0),
                    ..tiny()
                },
                "`num_classes` is 0",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn saved_models_open_with_equal_outputs() {
        let device = Device::flex();
        let config = HierarchicalVaeConfig {
            num_classes: Some(3),
            ..tiny()
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let opened = HierarchicalVae::from_pretrained(dir.path(), &device).unwrap();
        assert!(opened.warnings().is_empty(), "{opened}");
        assert_eq!(opened.config(), &config);
        let condition = Condition::classes(&[2, 0], &device);
        let outputs = |model: &HierarchicalVae| {
            let output = model.forward(images(2), &condition, &mut Rng::new(5));
            (values(output.z), values(output.likelihood.mean()))
        };
        assert_eq!(outputs(&opened), outputs(&model));
        let missing = HierarchicalVae::from_pretrained_with_variant(dir.path(), "fp16", &device);
        assert!(matches!(missing, Err(Error::Weights { .. })));
    }

    /// Bits-back coding chooses the latents of one group after the other, in units of the prior.
    #[test]
    fn chosen_latents_decode_to_the_likelihood_of_the_pass() {
        let (model, device) = (model(&tiny()), Device::flex());
        let (mut rng, mut latents, mut sizes) = (Rng::new(5), Vec::new(), Vec::new());
        let mut choose = |mean: &[f32], log_var: &[f32]| {
            let noise = rng.normal_vec(mean.len());
            let draw = |index: usize| mean[index] + (0.5 * log_var[index]).exp() * noise[index];
            let chosen: Vec<f32> = (0..mean.len()).map(draw).collect();
            latents.extend_from_slice(&chosen);
            sizes.push(chosen.len());
            Ok(chosen)
        };
        GaussianLatents::<2>::encode_latents(&model, images(1), &mut choose).unwrap();
        assert_eq!(sizes, [2, 32, 32]);
        let output = model.forward(images(1), &Condition::none(), &mut Rng::new(5));
        let likelihood = GaussianLatents::<2>::decode_latents(&model, &latents, &device);
        let found = values(likelihood.mean());
        assert_close(&found, &values(output.likelihood.mean()), 1e-4);

        let mut groups = 0;
        let mut failing = |mean: &[f32], _: &[f32]| {
            groups += 1;
            match groups {
                2 => Err(Error::argument("latents", "damaged", "others")),
                _ => Ok(vec![0.0; mean.len()]),
            }
        };
        let failed = GaussianLatents::<2>::encode_latents(&model, images(1), &mut failing);
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("`latents` is damaged"), "{message}");
    }
}
