//! Encoder and decoder of linear layers, as in Kingma and Welling 2014.

use super::{
    check_weights,
    condition_embedding::{CrossAttention, attend, concatenate},
    is_default, validate_common,
};
use crate::{Condition, ConditionKind, DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
use aigc_core::{
    Result, check,
    data::{ImageShape, SampleShape},
    nn::{Activation, Linear, LinearConfig},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration to create an [`MlpVae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlpVaeConfig {
    /// Shape of an image.
    pub shape: ImageShape,
    /// Width of the hidden layers.
    #[serde(alias = "hidden")]
    pub hidden_dim: usize,
    /// Number of hidden layers of the encoder, and of the decoder; 1 to 64.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub hidden_layers: usize,
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

fn one() -> usize {
    1
}

fn is_one(number: &usize) -> bool {
    *number == 1
}

impl MlpVaeConfig {
    /// Images of `shape`, one hidden layer of 400 units, 20 latent dimensions, Bernoulli pixels,
    /// ReLU, no conditions.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            hidden_dim: 400,
            hidden_layers: 1,
            latent_dim: 20,
            likelihood: LikelihoodKind::Bernoulli,
            activation: Activation::Relu,
            condition: ConditionKind::default(),
        }
    }

    /// The network with one stochastic layer of Burda et al. 2016
    /// (<https://arxiv.org/abs/1509.00519>, §5), which they train with the importance-weighted and
    /// with the usual bound: two hidden layers of 200 units in encoder and decoder, 50 latent
    /// dimensions, tanh, Bernoulli pixels. Their images are 1×28×28. Initial weights are those of
    /// [`LinearConfig`], not of Glorot and Bengio 2010 as in the paper.
    pub fn iwae(shape: ImageShape) -> Self {
        Self {
            hidden_dim: 200,
            hidden_layers: 2,
            latent_dim: 50,
            activation: Activation::Tanh,
            ..Self::new(shape)
        }
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<MlpVae> {
        self.validate()?;
        let (hidden_dim, latent_dim) = (self.hidden_dim, self.latent_dim);
        let concatenated = self.condition.concatenated_dim();
        let (pixels, area) = (self.shape.numel(), self.shape.height * self.shape.width);
        let linear = |i, o| LinearConfig::new(i, o).init(device);
        let hidden = || -> Vec<Linear> {
            (1..self.hidden_layers)
                .map(|_| linear(hidden_dim, hidden_dim))
                .collect()
        };
        let attention = || CrossAttention::of_kind(self.condition, hidden_dim, device);
        Ok(MlpVae {
            encoder: linear(pixels + concatenated, hidden_dim),
            encoder_attention: attention(),
            encoder_hidden: hidden(),
            mean: linear(hidden_dim, latent_dim),
            log_variance: linear(hidden_dim, latent_dim),
            decoder: linear(latent_dim + concatenated, hidden_dim),
            decoder_attention: attention(),
            decoder_hidden: hidden(),
            output: linear(
                hidden_dim,
                self.likelihood.outputs(self.shape.channels) * area,
            ),
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
        let outputs = self.likelihood.outputs(self.shape.channels);
        let outputs = outputs.saturating_mul(self.shape.height * self.shape.width);
        let of = format!("{outputs} parameters of the likelihood");
        check_weights("hidden_dim", self.hidden_dim, outputs, &of)?;
        check::in_range("hidden_layers", self.hidden_layers, 1..=64)?;
        check_weights(
            "hidden_layers",
            self.hidden_layers,
            self.hidden_dim * self.hidden_dim,
            &format!("layers of {} units", self.hidden_dim),
        )
    }
}

/// A VAE of linear layers: `pixels → hidden… → (μ, log σ²)` and `latent → hidden… → pixels`.
///
/// A conditional model concatenates the one-hot vector of the class, then the vector of the
/// condition, with the pixels and with the latents, and adds cross-attention to the first hidden
/// layer of encoder and decoder, before the activation; the query is the vector that it is added
/// to.
#[derive(Module, Debug)]
pub struct MlpVae {
    encoder: Linear,
    encoder_attention: Option<CrossAttention>,
    encoder_hidden: Vec<Linear>,
    mean: Linear,
    log_variance: Linear,
    decoder: Linear,
    decoder_attention: Option<CrossAttention>,
    decoder_hidden: Vec<Linear>,
    output: Linear,
    #[module(skip)]
    config: MlpVaeConfig,
}

impl MlpVae {
    /// Configuration of the model.
    pub fn config(&self) -> &MlpVaeConfig {
        &self.config
    }

    /// The hidden layers of the encoder or of the decoder.
    ///
    /// # Shapes
    /// - x: `[batch, features]`, without the condition
    /// - output: `[batch, hidden_dim]`
    fn hidden(
        &self,
        x: Tensor<2>,
        condition: &Condition,
        (first, attention, rest): (&Linear, &Option<CrossAttention>, &[Linear]),
    ) -> Tensor<2> {
        let act = self.config.activation;
        let x = concatenate(x, self.config.condition, condition);
        let hidden = act.forward(attend(attention, first.forward(x), condition));
        rest.iter()
            .fold(hidden, |x, layer| act.forward(layer.forward(x)))
    }
}

impl Vae for MlpVae {
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
        let layers = (
            &self.encoder,
            &self.encoder_attention,
            &self.encoder_hidden[..],
        );
        let hidden = self.hidden(x.flatten::<2>(1, 3), condition, layers);
        DiagonalGaussian {
            mean: self.mean.forward(hidden.clone()),
            logvar: self.log_variance.forward(hidden),
        }
    }

    fn decode_with(&self, z: Tensor<2>, condition: &Condition) -> Likelihood {
        let ImageShape {
            height,
            width,
            channels,
        } = self.config.shape;
        let outputs = self.config.likelihood.outputs(channels);
        let layers = (
            &self.decoder,
            &self.decoder_attention,
            &self.decoder_hidden[..],
        );
        let output = self.output.forward(self.hidden(z, condition, layers));
        let batch = output.dims()[0];
        Likelihood::new(
            self.config.likelihood,
            output.reshape([batch, outputs, height, width]),
        )
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::models::testing::parameters;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::values,
    };
    use serde_json::{from_value, json, to_value};

    fn tiny() -> MlpVaeConfig {
        MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 3,
            activation: Activation::Tanh,
            ..MlpVaeConfig::new(ImageShape::new(2, 3, 4))
        }
    }

    /// The names of files of earlier versions.
    #[test]
    fn one_layer_has_its_former_parameters() {
        let model = tiny().init(&Device::flex()).unwrap();
        assert_eq!(
            parameters(&model),
            [
                "encoder.weight",
                "encoder.bias",
                "mean.weight",
                "mean.bias",
                "log_variance.weight",
                "log_variance.bias",
                "decoder.weight",
                "decoder.bias",
                "output.weight",
                "output.bias",
            ]
        );
        let linear = |i: usize, o: usize| i * o + o;
        let expected = linear(24, 8) + 2 * linear(8, 3) + linear(3, 8) + linear(8, 24);
        assert_eq!(model.num_params(), expected);
    }

    #[test]
    fn iwae_has_the_layers_of_its_paper() {
        let config = MlpVaeConfig::iwae(ImageShape::new(1, 28, 28));
        let linear = |i: usize, o: usize| i * o + o;
        let encoder = linear(784, 200) + linear(200, 200) + 2 * linear(200, 50);
        let decoder = linear(50, 200) + linear(200, 200) + linear(200, 784);
        let model = config.init(&Device::flex()).unwrap();
        assert_eq!(model.num_params(), encoder + decoder);
        assert_eq!(
            (config.activation, config.likelihood),
            (Activation::Tanh, LikelihoodKind::Bernoulli)
        );
    }

    #[test]
    fn outputs_have_the_shapes_of_the_model() {
        let device = Device::flex();
        for hidden_layers in [1, 3] {
            let config = MlpVaeConfig {
                hidden_layers,
                likelihood: LikelihoodKind::LearnedGaussian,
                ..tiny()
            };
            let model = config.init(&device).unwrap().init_weights(1);
            let x = Rng::new(2).uniform([5, 2, 3, 4], 0.0, 1.0, &device);
            let posterior = model.encode(x);
            assert_eq!(posterior.mean.dims(), [5, 3]);
            assert_eq!(posterior.logvar.dims(), [5, 3]);
            assert_eq!(model.decode(posterior.mean).mean().dims(), [5, 2, 3, 4]);
        }
    }

    /// In the decoder, the rows of the weight after those of the latents are those of the classes.
    #[test]
    fn gradients_reach_the_weights_of_the_given_classes() {
        let device = Device::flex().autodiff();
        let config = MlpVaeConfig {
            condition: ConditionKind {
                num_classes: Some(4),
                ..ConditionKind::default()
            },
            ..tiny()
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let z = Rng::new(2).normal([2, 3], &device);
        let condition = Condition::classes(&[1, 3], &device);
        let mean = model.decode_with(z, &condition).mean();
        let gradients = mean.sum().backward();
        let gradient = model.decoder.weight.val().grad(&gradients).unwrap();
        let rows = values(gradient.narrow(0, 3, 4));
        let reached: Vec<bool> = rows
            .chunks(8)
            .map(|row| row.iter().any(|g| *g != 0.0))
            .collect();
        assert_eq!(reached, [false, true, false, true]);
    }

    #[test]
    fn configurations_without_the_new_fields_are_read_and_written() {
        let file = json!({
            "shape": {"channels": 1, "height": 8, "width": 8}, "hidden_dim": 16, "latent_dim": 4,
            "likelihood": "bernoulli", "activation": "relu",
        });
        let former: MlpVaeConfig = from_value(file.clone()).unwrap();
        assert_eq!(former.hidden_layers, 1);
        assert_eq!(to_value(&former).unwrap(), file);
        let config = MlpVaeConfig {
            hidden_layers: 2,
            ..former
        };
        let file = to_value(&config).unwrap();
        assert_eq!(file["hidden_layers"], 2);
        assert_eq!(from_value::<MlpVaeConfig>(file).unwrap(), config);
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        let layers = |hidden_layers| MlpVaeConfig {
            hidden_layers,
            ..tiny()
        };
        for (config, expected) in [
            (layers(0), "`hidden_layers` is 0, expected 1 to 64"),
            (layers(65), "`hidden_layers` is 65, expected 1 to 64"),
            (
                MlpVaeConfig {
                    hidden_dim: 1 << 14,
                    ..layers(9)
                },
                "`hidden_layers` is 9, expected at most 8, for layers of 16384 units",
            ),
            (
                MlpVaeConfig {
                    hidden_dim: 1 << 14,
                    condition: ConditionKind {
                        num_classes: Some(1 << 20),
                        ..ConditionKind::default()
                    },
                    ..tiny()
                },
                "`condition.num_classes` is 1048576, expected at most 131072",
            ),
            (
                MlpVaeConfig {
                    latent_dim: 0,
                    ..tiny()
                },
                "`latent_dim` is 0, expected 1 to 16384",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
