//! Snake, an activation with a learned period.

use super::Initializer;
use crate::ops;
use burn::{
    config::Config,
    module::{Module, Param},
    tensor::{Device, Tensor},
};

/// Configuration to create a [`Snake`] activation.
#[derive(Config, Debug)]
pub struct SnakeConfig {
    /// Number of channels.
    pub channels: usize,
    /// Whether the size of the waves has a parameter of its own, as in BigVGAN and Oobleck;
    /// otherwise it follows from their frequency, as in DAC.
    #[config(default = false)]
    pub beta: bool,
    /// Whether the parameters are logarithms, as in Oobleck.
    #[config(default = false)]
    pub log_scale: bool,
}

/// `x + sin²(α·x) / β` with parameters for every channel (Ziyin et al. 2020,
/// <https://arxiv.org/abs/2006.08195>; with its own β: Lee et al. 2023,
/// <https://arxiv.org/abs/2206.04658>). Without β, α takes its place.
#[derive(Module, Debug)]
pub struct Snake {
    /// Frequency α, or its logarithm, `[1, channels, 1]`.
    pub alpha: Param<Tensor<3>>,
    /// Divisor β, or its logarithm, `[1, channels, 1]`.
    pub beta: Option<Param<Tensor<3>>>,
    log_scale: bool,
}

impl SnakeConfig {
    /// The activation on `device`. Frequency and divisor start at 1.
    pub fn init(&self, device: &Device) -> Snake {
        let initializer = match self.log_scale {
            true => Initializer::ZEROS,
            false => Initializer::ONES,
        };
        let param = || initializer.param([1, self.channels, 1], 1, 1, device);
        Snake {
            alpha: param(),
            beta: self.beta.then(param),
            log_scale: self.log_scale,
        }
    }
}

impl Snake {
    /// Applies the activation.
    ///
    /// # Shapes
    /// - x and output: `[batch, channels, time]`
    ///
    /// # Panics
    /// If `x` does not have the number of channels.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        // The divisor may be too small for half precision.
        let dtype = ops::computed(x.dtype());
        let value = |param: &Param<Tensor<3>>| {
            let value: Tensor<1> = ops::cast(param.val(), dtype).reshape([-1]);
            match self.log_scale {
                true => value.exp(),
                false => value,
            }
        };
        let alpha = value(&self.alpha);
        let beta = self.beta.as_ref().map_or_else(|| alpha.clone(), value);
        ops::snake(x, alpha, beta)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    /// What is added to the divisor.
    const EPSILON: f64 = 1e-9;

    fn param(values: [f32; 2], device: &Device) -> Param<Tensor<3>> {
        let values = Tensor::<1>::from_floats(values, device);
        Param::from_tensor(values.reshape([1, 2, 1]))
    }

    /// Values and derivatives `1 + α/β·sin(2αx)` of all three forms.
    #[test]
    fn snake_matches_its_formula() {
        let device = Device::flex().autodiff();
        let (alpha, beta) = ([0.5f32, -1.5], [0.25f32, 2.0]);
        let x = Rng::new(1).normal::<3>([2, 2, 5], &device).require_grad();
        for (with_beta, log_scale) in [(false, false), (true, false), (true, true)] {
            let mut snake = SnakeConfig::new(2)
                .with_beta(with_beta)
                .with_log_scale(log_scale)
                .init(&device)
                .init_weights(1);
            snake.alpha = param(alpha, &device);
            snake.beta = snake.beta.map(|_| param(beta, &device));
            let y = snake.forward(x.clone());
            let slope = x.grad(&y.clone().sum().backward()).unwrap();
            let (mut expected, mut slopes) = (vec![], vec![]);
            for (index, x) in values(x.clone()).into_iter().enumerate() {
                let channel = index / 5 % 2;
                let scaled = |value: f32| match log_scale {
                    true => f64::from(value).exp(),
                    false => f64::from(value),
                };
                let a = scaled(alpha[channel]);
                let b = match with_beta {
                    true => scaled(beta[channel]),
                    false => a,
                } + EPSILON;
                let x = f64::from(x);
                expected.push((x + (a * x).sin().powi(2) / b) as f32);
                slopes.push((1.0 + a / b * (2.0 * a * x).sin()) as f32);
            }
            assert_close(&values(y), &expected, 1e-5);
            assert_close(&values(slope), &slopes, 1e-5);
        }
    }

    /// Without a frequency nothing changes; near it, `sin²(αx)/α` is `αx²`.
    #[test]
    fn snake_of_low_frequency_is_nearly_identity() {
        let device = Device::flex();
        let x = Rng::new(2).normal::<3>([1, 2, 7], &device);
        let mut snake = SnakeConfig::new(2).init(&device);
        snake.alpha = param([0.0, 1e-4], &device);
        let y = snake.forward(x.clone());
        let first = |all: &Tensor<3>| values(all.clone().narrow(1, 0, 1));
        assert_eq!(first(&y), first(&x));
        let second = |all: Tensor<3>| all.narrow(1, 1, 1);
        let (x, change) = (second(x.clone()), second(y - x));
        assert_close(&values(change), &values(x.clone() * x * 1e-4), 5e-7);
    }

    /// The kernel's gradients, those of the parameters included, are the automatic ones of the
    /// formula.
    #[test]
    fn gradients_are_those_of_the_formula() {
        let device = Device::flex().autodiff();
        let x = Rng::new(4).normal::<3>([3, 2, 21], &device).require_grad();
        let weights = Rng::new(5).normal::<3>([3, 2, 21], &device);
        let mut snake = SnakeConfig::new(2).with_beta(true).init(&device);
        snake.alpha = param([0.5, -1.5], &device);
        snake.beta = Some(param([0.25, 2.0], &device));
        let (alpha, beta) = (snake.alpha.val(), snake.beta.as_ref().unwrap().val());
        let wave = (x.clone() * alpha.clone()).sin();
        let formula = x.clone() + wave.clone() * wave / (beta.clone() + EPSILON);
        let [expected, found] = [formula, snake.forward(x.clone())].map(|y| {
            let grads = (y * weights.clone()).sum().backward();
            [&x, &alpha, &beta].map(|leaf| values(leaf.grad(&grads).unwrap()))
        });
        // The sums for the first divisor are of terms that are divided by its square.
        for (found, expected) in found.iter().zip(&expected) {
            assert_close(found, expected, 1e-4);
        }
    }

    #[test]
    #[should_panic(expected = "alpha of a snake: expected a tensor of shape [3]")]
    fn other_channels_are_rejected() {
        let device = Device::flex();
        SnakeConfig::new(2)
            .init(&device)
            .forward(Tensor::zeros([1, 3, 4], &device));
    }

    #[test]
    fn frequencies_start_at_one() {
        let device = Device::flex();
        let x = Rng::new(3).normal::<3>([1, 3, 4], &device);
        let plain = SnakeConfig::new(3).init(&device);
        let logarithmic = SnakeConfig::new(3)
            .with_beta(true)
            .with_log_scale(true)
            .init(&device);
        let expected = values(plain.forward(x.clone()));
        assert_close(&values(logarithmic.forward(x)), &expected, 1e-6);
    }
}
