//! Convolutional encoder and decoder.

use super::{
    check_weights,
    condition_embedding::{CrossAttention, attend, concatenate},
    is_default, validate_common,
};
use crate::{Condition, ConditionKind, DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
use aigc_core::{
    Result,
    check::{self, ensure},
    data::{ImageShape, SampleShape},
    nn::{
        Activation, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig, Linear,
        LinearConfig,
    },
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`ConvVae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvVaeConfig {
    /// Shape of an image; its sides must be divisible by `2^channels.len()`.
    pub shape: ImageShape,
    /// Channels of the encoder after each halving of the sides; the decoder has them in reverse.
    pub channels: Vec<usize>,
    /// Number of residual blocks after each halving of the sides in the encoder, and before each
    /// doubling in the decoder; 0 to 64.
    #[serde(default, skip_serializing_if = "is_default")]
    pub residual_blocks: usize,
    /// Width of the linear layer between convolutions and latents.
    #[serde(alias = "hidden")]
    pub hidden_dim: usize,
    /// Number of latent dimensions.
    #[serde(alias = "latent")]
    pub latent_dim: usize,
    /// Type of the distribution that the decoder outputs.
    pub likelihood: LikelihoodKind,
    /// Activation between the layers.
    pub activation: Activation,
    /// The conditions of a conditional model; none by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub condition: ConditionKind,
}

impl ConvVaeConfig {
    /// Images of `shape`, 32 and 64 channels, no residual blocks, 256 hidden units, 32 latent
    /// dimensions, Bernoulli pixels, ReLU, no conditions.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            channels: vec![32, 64],
            residual_blocks: 0,
            hidden_dim: 256,
            latent_dim: 32,
            likelihood: LikelihoodKind::Bernoulli,
            activation: Activation::Relu,
            condition: ConditionKind::default(),
        }
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<ConvVae> {
        self.validate()?;
        let top = self.top();
        let flat = top.iter().product();
        let sizes: Vec<usize> = std::iter::once(self.shape.channels)
            .chain(self.channels.iter().copied())
            .collect();
        let linear = |i, o| LinearConfig::new(i, o).init(device);
        let down = |pair: &[usize]| {
            Conv2dConfig::new([pair[0], pair[1]], 4)
                .with_stride(2)
                .with_padding(1)
                .init(device)
        };
        let up = |(level, pair): (usize, &[usize])| {
            // The finest level outputs the parameters of the likelihood.
            let outputs = match level {
                0 => self.likelihood.outputs(self.shape.channels),
                _ => pair[0],
            };
            ConvTranspose2dConfig::new([pair[1], outputs], 4)
                .with_stride(2)
                .with_padding(1)
                .init(device)
        };
        let blocks = |channels: &usize| -> Vec<ResidualBlock> {
            (0..self.residual_blocks)
                .map(|_| ResidualBlock::new(*channels, self.activation, device))
                .collect()
        };
        let attention = || CrossAttention::of_kind(self.condition, self.hidden_dim, device);
        let concatenated = self.condition.concatenated_dim();
        Ok(ConvVae {
            down: sizes.windows(2).map(down).collect(),
            down_blocks: self.channels.iter().map(blocks).collect(),
            encoder: linear(flat, self.hidden_dim),
            encoder_attention: attention(),
            mean: linear(self.hidden_dim + concatenated, self.latent_dim),
            log_variance: linear(self.hidden_dim + concatenated, self.latent_dim),
            decoder: linear(self.latent_dim + concatenated, self.hidden_dim),
            decoder_attention: attention(),
            unflatten: linear(self.hidden_dim, flat),
            up_blocks: self.channels.iter().rev().map(blocks).collect(),
            up: sizes.windows(2).enumerate().rev().map(up).collect(),
            top,
            config: self.clone(),
        })
    }

    pub(super) fn validate(&self) -> Result<()> {
        validate_common(
            self.shape,
            self.latent_dim,
            self.hidden_dim,
            self.likelihood,
            self.condition,
        )?;
        let levels = self.channels.len();
        ensure(
            (1..=8).contains(&levels) && self.channels.iter().all(|c| (1..=4096).contains(c)),
            "channels",
            format!("{:?}", self.channels),
            "1 to 8 numbers from 1 to 4096",
        )?;
        let outputs = self.likelihood.outputs(self.shape.channels);
        let of = format!("{outputs} parameters of the likelihood of a pixel");
        // The last convolution is one of 4×4.
        check_weights(
            "channels[0]",
            self.channels[0],
            outputs.saturating_mul(16),
            &of,
        )?;
        check::in_range("residual_blocks", self.residual_blocks, 0..=64)?;
        // Encoder and decoder have two convolutions of 3×3 per block.
        let each = self.channels.iter().map(|c| 36 * c * c).sum();
        let of = format!("{:?} channels", self.channels);
        check_weights("residual_blocks", self.residual_blocks, each, &of)?;
        let factor = 1 << levels;
        for (field, side) in [
            ("shape.height", self.shape.height),
            ("shape.width", self.shape.width),
        ] {
            let expected = format!("a multiple of {factor}, for {levels} halvings");
            ensure(side % factor == 0, field, side, &expected)?;
        }
        let [channels, height, width] = self.top();
        let of = format!("feature maps of {channels}×{height}×{width}");
        let flat = channels * height * width;
        check_weights("hidden_dim", self.hidden_dim, flat, &of)?;
        // All convolutions together; those of 4×4 are in encoder and decoder.
        let sizes = std::iter::once(self.shape.channels).chain(self.channels.iter().copied());
        let pairs: usize = sizes.zip(&self.channels).map(|(a, b)| 32 * a * b).sum();
        let weights = pairs + self.residual_blocks * each;
        check_weights("weights of channels", weights, 1, "a model")
    }

    /// Channels, height and width of the smallest feature maps.
    fn top(&self) -> [usize; 3] {
        let levels = self.channels.len();
        let [height, width] = [self.shape.height, self.shape.width].map(|side| side >> levels);
        [self.channels[levels - 1], height, width]
    }
}

/// A residual block, `x + conv₃ₓ₃(act(conv₃ₓ₃(act(x))))` (He et al. 2016,
/// <https://arxiv.org/abs/1603.05027>).
#[derive(Module, Debug)]
struct ResidualBlock {
    conv1: Conv2d,
    conv2: Conv2d,
    #[module(skip)]
    activation: Activation,
}

impl ResidualBlock {
    fn new(channels: usize, activation: Activation, device: &Device) -> Self {
        let conv = || {
            Conv2dConfig::new([channels, channels], 3)
                .with_padding(1)
                .init(device)
        };
        Self {
            conv1: conv(),
            conv2: conv(),
            activation,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let act = self.activation;
        let inner = self.conv1.forward(act.forward(x.clone()));
        x + self.conv2.forward(act.forward(inner))
    }
}

/// A VAE of convolutions: the encoder halves the sides once per level, the decoder doubles them.
///
/// A conditional model concatenates the one-hot vector of the class, then the vector of the
/// condition, with the encoder's last hidden vector and with the latents, and adds cross-attention
/// to the hidden vector of encoder and decoder, before the activation; the query is the vector that
/// it is added to.
#[derive(Module, Debug)]
pub struct ConvVae {
    down: Vec<Conv2d>,
    /// Residual blocks after each convolution of `down`.
    down_blocks: Vec<Vec<ResidualBlock>>,
    encoder: Linear,
    encoder_attention: Option<CrossAttention>,
    mean: Linear,
    log_variance: Linear,
    decoder: Linear,
    decoder_attention: Option<CrossAttention>,
    unflatten: Linear,
    /// Residual blocks before each convolution of `up`.
    up_blocks: Vec<Vec<ResidualBlock>>,
    up: Vec<ConvTranspose2d>,
    /// Channels, height and width of the smallest feature maps.
    top: [usize; 3],
    #[module(skip)]
    config: ConvVaeConfig,
}

impl ConvVae {
    /// Configuration of the model.
    pub fn config(&self) -> &ConvVaeConfig {
        &self.config
    }
}

impl Vae for ConvVae {
    type Posterior = DiagonalGaussian;

    fn encode(&self, x: Tensor<4>) -> DiagonalGaussian {
        self.encode_with(x, &Condition::none())
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood {
        self.decode_with(z, &Condition::none())
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[self.config.latent_dim])
    }

    fn sample_shape(&self) -> SampleShape {
        self.config.shape.into()
    }

    fn condition_kind(&self) -> ConditionKind {
        self.config.condition
    }

    fn encode_with(&self, x: Tensor<4>, condition: &Condition) -> DiagonalGaussian {
        let act = self.config.activation;
        let levels = self.down.iter().zip(&self.down_blocks);
        let features = levels.fold(x, |x, (conv, blocks)| {
            let x = conv.forward(x);
            act.forward(blocks.iter().fold(x, |x, block| block.forward(x)))
        });
        let hidden = self.encoder.forward(features.flatten::<2>(1, 3));
        let hidden = act.forward(attend(&self.encoder_attention, hidden, condition));
        let hidden = concatenate(hidden, self.config.condition, condition);
        DiagonalGaussian {
            mean: self.mean.forward(hidden.clone()),
            logvar: self.log_variance.forward(hidden),
        }
    }

    fn decode_with(&self, z: Tensor<2>, condition: &Condition) -> Likelihood {
        let (act, [channels, height, width]) = (self.config.activation, self.top);
        let batch = z.dims()[0];
        let z = concatenate(z, self.config.condition, condition);
        let hidden = attend(&self.decoder_attention, self.decoder.forward(z), condition);
        let features = self.unflatten.forward(act.forward(hidden));
        let features = features.reshape([batch, channels, height, width]);
        let levels = self.up_blocks.iter().zip(&self.up);
        let output = levels.fold(features, |x, (blocks, conv)| {
            let x = blocks.iter().fold(x, |x, block| block.forward(x));
            conv.forward(act.forward(x))
        });
        Likelihood::new(self.config.likelihood, output)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::models::testing::parameters;
    use aigc_core::rng::{InitWeights, Rng};
    use serde_json::{from_value, json, to_value};

    fn tiny() -> ConvVaeConfig {
        ConvVaeConfig {
            channels: vec![4, 6],
            hidden_dim: 8,
            latent_dim: 3,
            ..ConvVaeConfig::new(ImageShape::new(2, 8, 4))
        }
    }

    /// The names of files of earlier versions.
    #[test]
    fn models_without_blocks_have_their_former_parameters() {
        let model = tiny().init(&Device::flex()).unwrap();
        assert_eq!(
            parameters(&model),
            [
                "down.0.weight",
                "down.0.bias",
                "down.1.weight",
                "down.1.bias",
                "encoder.weight",
                "encoder.bias",
                "mean.weight",
                "mean.bias",
                "log_variance.weight",
                "log_variance.bias",
                "decoder.weight",
                "decoder.bias",
                "unflatten.weight",
                "unflatten.bias",
                "up.0.weight",
                "up.0.bias",
                "up.1.weight",
                "up.1.bias",
            ]
        );
    }

    #[test]
    fn each_level_has_its_residual_blocks() {
        let device = Device::flex();
        let blocks = |residual_blocks| {
            let config = ConvVaeConfig {
                residual_blocks,
                ..tiny()
            };
            config.init(&device).unwrap()
        };
        let conv = |channels: usize| 9 * channels * channels + channels;
        // Of each level, two convolutions per block of the encoder and of the decoder.
        let added = blocks(3).num_params() - blocks(0).num_params();
        assert_eq!(added, 3 * 4 * (conv(4) + conv(6)));
        let names = parameters(&blocks(1));
        for name in ["down_blocks.1.0.conv2.bias", "up_blocks.0.0.conv1.weight"] {
            assert!(names.iter().any(|found| found == name), "{names:?}");
        }
        let model = blocks(2).init_weights(1);
        let x = Rng::new(2).uniform([5, 2, 8, 4], 0.0, 1.0, &device);
        let posterior = model.encode(x);
        assert_eq!(posterior.mean.dims(), [5, 3]);
        assert_eq!(posterior.logvar.dims(), [5, 3]);
        assert_eq!(model.decode(posterior.mean).mean().dims(), [5, 2, 8, 4]);
    }

    #[test]
    fn configurations_without_the_new_fields_are_read_and_written() {
        let file = json!({
            "shape": {"channels": 1, "height": 8, "width": 8}, "channels": [4, 8],
            "hidden_dim": 16, "latent_dim": 4, "likelihood": "bernoulli", "activation": "relu",
        });
        let former: ConvVaeConfig = from_value(file.clone()).unwrap();
        assert_eq!(former.residual_blocks, 0);
        assert_eq!(to_value(&former).unwrap(), file);
        let config = ConvVaeConfig {
            residual_blocks: 2,
            ..former
        };
        let file = to_value(&config).unwrap();
        assert_eq!(file["residual_blocks"], 2);
        assert_eq!(from_value::<ConvVaeConfig>(file).unwrap(), config);
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        let blocks = |residual_blocks| ConvVaeConfig {
            residual_blocks,
            ..tiny()
        };
        for (config, expected) in [
            (blocks(65), "`residual_blocks` is 65, expected 0 to 64"),
            (
                ConvVaeConfig {
                    channels: vec![4096],
                    ..blocks(4)
                },
                "`residual_blocks` is 4, expected at most 3, for [4096] channels",
            ),
            (
                ConvVaeConfig {
                    latent_dim: 0,
                    ..tiny()
                },
                "`latent_dim` is 0, expected 1 to 16384",
            ),
            // Sizes within their limits, with weights of terabytes.
            (
                ConvVaeConfig {
                    channels: vec![1024],
                    hidden_dim: 512,
                    ..ConvVaeConfig::new(ImageShape::new(1, 2048, 2048))
                },
                "`hidden_dim` is 512, expected at most 2, for feature maps of 1024×1024×1024",
            ),
            (
                ConvVaeConfig {
                    channels: vec![4096; 8],
                    ..ConvVaeConfig::new(ImageShape::new(1, 256, 256))
                },
                "`weights of channels` is 3758227456, expected at most 2147483648",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
