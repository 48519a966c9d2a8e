//! The VampPrior.

use super::{
    ModelPrior,
    mixture::{GaussianMixture, Gaussians},
};
use crate::{Condition, DiagonalGaussian, Vae};
use aigc_core::{
    Error, Result,
    check::{self, ensure, ensure_argument},
    data::SampleShape,
    nn::{Activation, Initializer},
    rng::Rng,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// How pseudo-inputs are kept in the range of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PseudoInputRange {
    /// Clamped to `[0, 1]`, as in the paper's experiments with images. A value that training moves
    /// out of the range has no gradient anymore.
    #[default]
    Hardtanh,
    /// `1 / (1 + e^−x)` of weights without bounds, in `[0, 1]`.
    Sigmoid,
    /// Any numbers.
    Unbounded,
}

impl PseudoInputRange {
    fn apply<const X: usize>(self, weights: Tensor<X>) -> Tensor<X> {
        match self {
            PseudoInputRange::Hardtanh => weights.clamp(0.0, 1.0),
            PseudoInputRange::Sigmoid => Activation::Sigmoid.forward(weights),
            PseudoInputRange::Unbounded => weights,
        }
    }

    /// The weights that [`apply`](Self::apply) maps to these values, or to the closest ones with a
    /// gradient.
    fn invert<const X: usize>(self, values: Tensor<X>) -> Tensor<X> {
        /// Distance of sigmoids from the ends of the range.
        const MARGIN: f64 = 0.01;
        match self {
            PseudoInputRange::Hardtanh => values.clamp(0.0, 1.0),
            PseudoInputRange::Sigmoid => {
                let values = values.clamp(MARGIN, 1.0 - MARGIN);
                values.clone().log() - (-values + 1.0).log()
            }
            PseudoInputRange::Unbounded => values,
        }
    }
}

/// Configuration to create a [`VampPrior`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VampPriorConfig {
    /// Number of pseudo-inputs. Each step encodes all of them.
    pub n_components: usize,
    /// How pseudo-inputs are kept in the range of the data.
    pub range: PseudoInputRange,
    /// Mean of the initial pseudo-inputs, in the units of the data.
    pub mean: f64,
    /// Standard deviation of the initial pseudo-inputs, or of the noise added to given samples.
    pub std: f64,
}

impl VampPriorConfig {
    /// Pseudo-inputs clamped to `[0, 1]` that begin as `0.05 ± 0.01`, the values of the authors'
    /// code for MNIST.
    pub fn new(n_components: usize) -> Self {
        Self {
            n_components,
            range: PseudoInputRange::Hardtanh,
            mean: 0.05,
            std: 0.01,
        }
    }

    /// Sets how pseudo-inputs are kept in the range of the data.
    pub fn with_range(mut self, range: PseudoInputRange) -> Self {
        self.range = range;
        self
    }

    /// Creates a prior for samples of this shape on `device`, with pseudo-inputs of normal noise.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init<const X: usize>(
        &self,
        sample_shape: SampleShape,
        device: &Device,
    ) -> Result<VampPrior<X>> {
        self.validate(sample_shape, X)?;
        let (mean, std) = match self.range {
            PseudoInputRange::Sigmoid => {
                ensure(
                    self.mean > 0.0 && self.mean < 1.0,
                    "mean",
                    self.mean,
                    "between 0 and 1, for sigmoids",
                )?;
                // By the slope of the sigmoid at the mean.
                let slope = self.mean * (1.0 - self.mean);
                ((self.mean / (1.0 - self.mean)).ln(), self.std / slope)
            }
            PseudoInputRange::Hardtanh => {
                // Values out of the range would have no gradient from the beginning.
                check::fraction("mean", self.mean)?;
                (self.mean, self.std)
            }
            PseudoInputRange::Unbounded => (self.mean, self.std),
        };
        let shape: [usize; X] = sample_shape.batched(self.n_components);
        let numel = sample_shape.numel();
        let noise = Initializer::Normal { mean, std };
        Ok(VampPrior {
            pseudo_inputs: noise.param(shape, numel, numel, device),
            range: self.range,
        })
    }

    /// Creates a prior whose pseudo-inputs begin as training samples with a little noise, on the
    /// device of the samples.
    ///
    /// # Shapes
    /// - samples: `[n_components, …]`
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range; [`Error::InvalidArgument`] unless there are as
    /// many samples as components.
    pub fn init_from_samples<const X: usize>(
        &self,
        samples: Tensor<X>,
        rng: &mut Rng,
    ) -> Result<VampPrior<X>> {
        self.validate(SampleShape::of_batch(&samples), X)?;
        ensure_argument(
            samples.dims()[0] == self.n_components,
            "samples",
            samples.dims()[0],
            &format!("{}, the number of components", self.n_components),
        )?;
        let noise = rng.normal(samples.dims(), &samples.device()) * self.std;
        let weights = self.range.invert(samples + noise);
        Ok(VampPrior {
            pseudo_inputs: Param::from_tensor(weights.detach()),
            range: self.range,
        })
    }

    fn validate(&self, shape: SampleShape, rank: usize) -> Result<()> {
        const MAX_VALUES: u128 = 1 << 28;
        check::sizes(&[
            ("n_components", self.n_components, 1 << 16),
            ("sample_shape", shape.numel(), 1 << 28),
        ])?;
        let expected = format!("{} axes, as a sample of the model", rank - 1);
        ensure(shape.rank() + 1 == rank, "sample_shape", shape, &expected)?;
        let values = self.n_components as u128 * shape.numel() as u128;
        ensure(
            values <= MAX_VALUES,
            "n_components",
            self.n_components,
            &format!("at most {}", MAX_VALUES / shape.numel() as u128),
        )?;
        ensure(self.mean.is_finite(), "mean", self.mean, "a finite number")?;
        check::non_negative("std", self.std)
    }
}

/// The variational mixture of posteriors (Tomczak and Welling 2018,
/// <https://arxiv.org/abs/1705.07120>): `p(z) = 1/K·Σ_k q(z|u_k)` (eq. 9), where the pseudo-inputs
/// `u_k` are learned, and `q` is the posterior of the model's encoder. `X` is the rank of a batch
/// of samples.
///
/// The encoder of a conditional model gets no condition with the pseudo-inputs, also where the
/// prior is that of one class. Batch normalisation
/// in the encoder counts them among the data.
#[derive(Module, Debug)]
pub struct VampPrior<const X: usize = 4> {
    /// The weights, `[K, …]`; [`pseudo_inputs`](Self::pseudo_inputs) has their values in the range
    /// of the data.
    pseudo_inputs: Param<Tensor<X>>,
    #[module(skip)]
    range: PseudoInputRange,
}

impl<const X: usize> VampPrior<X> {
    /// The pseudo-inputs in the range of the data, `[K, …]`.
    pub fn pseudo_inputs(&self) -> Tensor<X> {
        self.range.apply(self.pseudo_inputs.val())
    }

    /// The mixture as a prior of its own, which needs no encoder: a faster one for a trained model.
    ///
    /// # Panics
    /// If the pseudo-inputs do not have the shape of the model's samples.
    pub fn mixture<V>(&self, model: &V) -> GaussianMixture
    where
        V: Vae<X, 2, Posterior = DiagonalGaussian>,
    {
        let gaussians = self.gaussians(model);
        GaussianMixture::diagonal(Gaussians {
            log_weights: gaussians.log_weights.detach(),
            mean: gaussians.mean.detach(),
            log_scale: gaussians.log_scale.detach(),
            lower: None,
        })
    }

    /// The posteriors of the pseudo-inputs.
    fn gaussians<V>(&self, model: &V) -> Gaussians
    where
        V: Vae<X, 2, Posterior = DiagonalGaussian>,
    {
        let DiagonalGaussian { mean, logvar } = model.encode(self.pseudo_inputs());
        let count = mean.dims()[0];
        let log_weight = -(count as f64).ln();
        Gaussians {
            log_weights: Tensor::full([count], log_weight, &mean.device()),
            mean,
            log_scale: logvar * 0.5,
            lower: None,
        }
    }
}

impl<V, const X: usize> ModelPrior<V, X> for VampPrior<X>
where
    V: Vae<X, 2, Posterior = DiagonalGaussian>,
{
    fn check_model(&self, model: &V) -> Result<()> {
        let shape = SampleShape::new(&self.pseudo_inputs.dims()[1..]);
        if shape == model.sample_shape() {
            return Ok(());
        }
        let expected = format!("{}, the shape of the model's samples", model.sample_shape());
        Err(Error::config("prior.sample_shape", shape, expected))
    }

    fn log_prob_with(&self, model: &V, z: Tensor<2>, _condition: &Condition) -> Tensor<1> {
        self.gaussians(model).log_prob(z)
    }

    fn sample_with(
        &self,
        model: &V,
        n: usize,
        _condition: &Condition,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        self.gaussians(model).sample(n, temperature, rng, device)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{MlpVae, MlpVaeConfig, prior::Prior};
    use aigc_core::{
        data::ImageShape,
        params::{ParamVisitor, visit_params},
        rng::InitWeights,
        testing::{assert_close, values},
    };
    use burn::tensor::Gradients;

    fn model() -> MlpVae {
        let config = MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 2,
            activation: Activation::Tanh,
            ..MlpVaeConfig::new(ImageShape::new(1, 2, 2))
        };
        config.init(&Device::flex()).unwrap().init_weights(2)
    }

    fn samples(n: usize) -> Tensor<4> {
        Rng::new(8).uniform([n, 1, 2, 2], 0.0, 1.0, &Device::flex())
    }

    #[test]
    fn density_is_the_mean_of_the_posteriors_of_the_pseudo_inputs() {
        let model = model();
        let config = VampPriorConfig::new(3);
        let prior = config
            .init_from_samples(samples(3), &mut Rng::new(0))
            .unwrap();
        prior.check_model(&model).unwrap();
        let z = Rng::new(1).normal([5, 2], &Device::flex());
        let found = values(prior.log_prob_with(&model, z.clone(), &Condition::none()));
        let posterior = model.encode(prior.pseudo_inputs());
        let (mean, logvar) = (values(posterior.mean), values(posterior.logvar));
        let by_hand = |z: &[f32]| {
            let density = |k: usize| {
                let log_density = |j: usize| {
                    let (m, l) = (f64::from(mean[k * 2 + j]), f64::from(logvar[k * 2 + j]));
                    let square = (f64::from(z[j]) - m).powi(2) / l.exp();
                    -0.5 * ((2.0 * std::f64::consts::PI).ln() + l + square)
                };
                (0..2).map(log_density).sum::<f64>().exp()
            };
            ((0..3).map(density).sum::<f64>() / 3.0).ln() as f32
        };
        let expected: Vec<f32> = values(z.clone()).chunks(2).map(by_hand).collect();
        assert_close(&found, &expected, 1e-4);
        let mixture = prior.mixture(&model);
        assert_eq!(mixture.n_components(), 3);
        assert_close(&values(mixture.log_prob(z)), &found, 1e-5);
        let (none, device) = (&Condition::none(), Device::flex());
        assert_close(
            &values(mixture.sample(20, 0.5, &mut Rng::new(4), &device)),
            &values(prior.sample_with(&model, 20, none, 0.5, &mut Rng::new(4), &device)),
            1e-5,
        );
    }

    #[test]
    fn pseudo_inputs_begin_in_the_range_of_the_data() {
        let shape = SampleShape::new(&[1, 2, 2]);
        let device = Device::flex();
        for range in [PseudoInputRange::Hardtanh, PseudoInputRange::Sigmoid] {
            let config = VampPriorConfig {
                mean: 0.4,
                std: 0.02,
                ..VampPriorConfig::new(500).with_range(range)
            };
            let prior: VampPrior = config.init(shape, &device).unwrap().init_weights(1);
            let found = values(prior.pseudo_inputs());
            let n = found.len() as f64;
            let mean = found.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            let squares = found.iter().map(|x| (f64::from(*x) - mean).powi(2));
            let std = (squares.sum::<f64>() / n).sqrt();
            // Five standard errors: std/√n of the mean, std/√2n of the standard deviation.
            assert!(
                (mean - 0.4).abs() < 5.0 * 0.02 / n.sqrt() + 1e-4,
                "{range:?} {mean}"
            );
            assert!(
                (std - 0.02).abs() < 5.0 * 0.02 / (2.0 * n).sqrt() + 1e-4,
                "{std}"
            );
            let exact = VampPriorConfig {
                std: 0.0,
                ..VampPriorConfig::new(6).with_range(range)
            };
            let given = samples(6).clamp(0.01, 0.99);
            let prior = exact.init_from_samples(given.clone(), &mut Rng::new(0));
            assert_close(
                &values(prior.unwrap().pseudo_inputs()),
                &values(given),
                1e-5,
            );
        }
    }

    /// The density has a gradient in every weight of the encoder, and in none of the decoder.
    #[test]
    fn pseudo_inputs_and_encoder_have_gradients() {
        struct Trained<'a>(&'a Gradients, Vec<String>);
        impl ParamVisitor for Trained<'_> {
            fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
                let gradient = param.val().grad(self.0);
                if gradient.is_some_and(|gradient| values(gradient).iter().any(|g| *g != 0.0)) {
                    self.1.push(path.to_string());
                }
            }
        }

        let model = model().train();
        for range in [
            PseudoInputRange::Hardtanh,
            PseudoInputRange::Sigmoid,
            PseudoInputRange::Unbounded,
        ] {
            let config = VampPriorConfig::new(3).with_range(range);
            let prior = config.init_from_samples(samples(3), &mut Rng::new(0));
            let prior = prior.unwrap().train();
            let z = Rng::new(1).normal([5, 2], &Device::flex().autodiff());
            let gradients = prior
                .log_prob_with(&model, z, &Condition::none())
                .sum()
                .backward();
            let gradient = prior.pseudo_inputs.val().grad(&gradients).unwrap();
            assert!(values(gradient).iter().all(|g| *g != 0.0), "{range:?}");
            let mut trained = Trained(&gradients, Vec::new());
            visit_params(&model, &mut trained);
            let mut found = trained.1;
            found.sort_unstable();
            let expected = ["encoder", "log_variance", "mean"];
            let expected = expected.map(|layer| ["bias", "weight"].map(|w| format!("{layer}.{w}")));
            assert_eq!(found, expected.concat(), "{range:?}");
        }
    }

    #[test]
    fn values_out_of_range_are_rejected_by_name() {
        let device = Device::flex();
        let shape = SampleShape::new(&[1, 2, 2]);
        let message = |config: VampPriorConfig| {
            let prior = config.init::<4>(shape, &device);
            prior.unwrap_err().to_string()
        };
        assert!(message(VampPriorConfig::new(0)).contains("`n_components` is 0"));
        let outside = VampPriorConfig {
            mean: -0.05,
            ..VampPriorConfig::new(2)
        };
        assert!(message(outside).contains("`mean` is -0.05"));
        assert!(VampPriorConfig::new(2).init::<3>(shape, &device).is_err());
        let few = VampPriorConfig::new(2).init_from_samples(samples(3), &mut Rng::new(0));
        assert!(few.unwrap_err().to_string().contains("`samples` is 3"));
        let other = VampPriorConfig::new(2).init::<4>(SampleShape::new(&[1, 2, 3]), &device);
        let message = other
            .unwrap()
            .check_model(&model())
            .unwrap_err()
            .to_string();
        assert!(message.contains("1×2×3"), "{message}");
    }
}
