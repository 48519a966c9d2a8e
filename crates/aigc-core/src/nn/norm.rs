//! Batch, layer and group normalisation.

use super::{Activation, Initializer};
use crate::ops;
use burn::{
    config::Config,
    module::{Flag, Module, Param, RunningState},
    tensor::{Device, Tensor, module},
};

/// Configuration to create a [`BatchNorm`] layer.
#[derive(Config, Debug)]
pub struct BatchNormConfig {
    /// Number of channels.
    pub num_features: usize,
    /// Added to the variance for numerical stability.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Weight of the current batch in the running statistics.
    #[config(default = 0.1)]
    pub momentum: f64,
}

/// Batch normalisation (Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>).
///
/// On an autodiff device, unless frozen, the layer normalises with the statistics of the batch and
/// updates the running statistics; otherwise it normalises with the running statistics. The running
/// variance is unbiased, as in PyTorch (burn-nn's is biased).
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale, `[channels]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub beta: Param<Tensor<1>>,
    /// Training flag; freezing the layer clears it.
    pub training: Param<Flag>,
    /// Running mean, `[channels]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// Running unbiased variance, `[channels]`.
    pub running_var: RunningState<Tensor<1>>,
    momentum: f64,
    epsilon: f64,
}

impl BatchNormConfig {
    /// Creates the layer on `device`.
    pub fn init(&self, device: &Device) -> BatchNorm {
        let n = self.num_features;
        BatchNorm {
            gamma: Initializer::ONES.param([n], n, n, device),
            beta: Initializer::ZEROS.param([n], n, n, device),
            training: Param::from_bool(true),
            running_mean: RunningState::new(Tensor::zeros([n], device)),
            running_var: RunningState::new(Tensor::ones([n], device)),
            momentum: self.momentum,
            epsilon: self.epsilon,
        }
    }
}

impl BatchNorm {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x and output: `[batch, channels, ...]`
    ///
    /// # Panics
    /// If the second axis is not the number of channels.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with_activation(x, Activation::Identity)
    }

    /// [`forward`](Self::forward), then `activation`, in one pass.
    pub fn forward_with_activation<const D: usize>(
        &self,
        x: Tensor<D>,
        activation: Activation,
    ) -> Tensor<D> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        if !(x.device().is_autodiff() && self.training.is_enabled()) {
            let (mean, var) = (
                self.running_mean.value_sync(),
                self.running_var.value_sync(),
            );
            let [gamma, beta, mean, var] =
                [gamma, beta, mean, var].map(|param| ops::cast(param, x.dtype()));
            return activation.forward(module::batch_norm(x, gamma, beta, mean, var, self.epsilon));
        }
        let count = (x.shape().num_elements() / x.dims()[1]) as f64;
        let (y, mean, var) = ops::batch_norm(x, gamma, beta, self.epsilon, activation);
        let unbiased = var * (count / (count - 1.0).max(1.0));
        for (state, new) in [(&self.running_mean, mean), (&self.running_var, unbiased)] {
            let old = ops::cast(state.value_sync(), new.dtype());
            state.update((old * (1.0 - self.momentum) + new * self.momentum).detach());
        }
        y
    }
}

/// Configuration to create a [`LayerNorm`] layer.
#[derive(Config, Debug)]
pub struct LayerNormConfig {
    /// Size of the last axis.
    pub d_model: usize,
    /// Whether a shift (beta) is added.
    #[config(default = true)]
    pub bias: bool,
    /// Added to the variance for numerical stability.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// Layer normalisation over the last axis (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[d_model]`.
    pub beta: Option<Param<Tensor<1>>>,
    epsilon: f64,
}

impl LayerNormConfig {
    /// Creates the layer on `device`.
    pub fn init(&self, device: &Device) -> LayerNorm {
        let n = self.d_model;
        LayerNorm {
            gamma: Initializer::ONES.param([n], n, n, device),
            beta: self
                .bias
                .then(|| Initializer::ZEROS.param([n], n, n, device)),
            epsilon: self.epsilon,
        }
    }
}

impl LayerNorm {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x and output: `[..., d_model]`
    ///
    /// # Panics
    /// If the last axis is not `d_model`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(
            x,
            self.gamma.val(),
            self.beta.as_ref().map(|b| b.val()),
            self.epsilon,
        )
    }
}

/// Configuration to create a [`GroupNorm`] layer.
#[derive(Config, Debug)]
pub struct GroupNormConfig {
    /// Number of groups; it must divide the number of channels.
    pub num_groups: usize,
    /// Number of channels.
    pub num_channels: usize,
    /// Added to the variance for numerical stability.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// Group normalisation (Wu and He 2018, <https://arxiv.org/abs/1803.08494>).
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// Scale, `[channels]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub beta: Param<Tensor<1>>,
    num_groups: usize,
    epsilon: f64,
}

impl GroupNormConfig {
    /// Creates the layer on `device`.
    ///
    /// # Panics
    /// If `num_groups` does not divide the channels.
    pub fn init(&self, device: &Device) -> GroupNorm {
        let n = self.num_channels;
        assert!(
            self.num_groups > 0 && n.is_multiple_of(self.num_groups),
            "{} groups do not divide {n} channels",
            self.num_groups
        );
        GroupNorm {
            gamma: Initializer::ONES.param([n], n, n, device),
            beta: Initializer::ZEROS.param([n], n, n, device),
            num_groups: self.num_groups,
            epsilon: self.epsilon,
        }
    }
}

impl GroupNorm {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x and output: `[batch, channels, ...]`
    ///
    /// # Panics
    /// If the second axis is not the number of channels.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with_activation(x, Activation::Identity)
    }

    /// [`forward`](Self::forward), then `activation`, in one pass.
    pub fn forward_with_activation<const D: usize>(
        &self,
        x: Tensor<D>,
        activation: Activation,
    ) -> Tensor<D> {
        ops::group_norm(
            x,
            self.gamma.val(),
            self.beta.val(),
            self.num_groups,
            self.epsilon,
            activation,
        )
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        rng::{InitWeights, Rng},
        testing::values,
    };

    /// Mean and biased variance in `f64`.
    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|v| *v as f64).sum::<f64>() / n;
        (
            mean,
            values
                .iter()
                .map(|v| (*v as f64 - mean).powi(2))
                .sum::<f64>()
                / n,
        )
    }

    #[test]
    fn group_and_layer_norm_standardise() {
        let device = Device::flex();
        let x: Tensor<4> = Rng::new(1).normal([2, 6, 5, 5], &device) * 3.0 + 2.0;
        for group in values(
            GroupNormConfig::new(3, 6)
                .init(&device)
                .init_weights(0)
                .forward(x.clone()),
        )
        .chunks(50)
        {
            let (mean, variance) = moments(group);
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4);
        }
        let x: Tensor<2> = Rng::new(1).normal([4, 64], &device) * 3.0 + 2.0;
        for row in values(
            LayerNormConfig::new(64)
                .init(&device)
                .init_weights(0)
                .forward(x),
        )
        .chunks(64)
        {
            let (mean, variance) = moments(row);
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn batch_norm_running_statistics_match_pytorch() {
        let device = Device::flex().autodiff();
        let norm = BatchNormConfig::new(1).init(&device).init_weights(0);
        norm.forward(Tensor::<2>::from_floats([[1.0], [3.0]], &device));
        norm.forward(Tensor::<2>::from_floats([[2.0], [6.0]], &device));
        // By hand: means 2 and 4, unbiased variances 2 and 8, momentum 0.1, from mean 0 and
        // variance 1.
        let valid = norm.valid();
        assert!((values(valid.running_mean.value())[0] - (0.9 * 0.2 + 0.4)).abs() < 1e-6);
        assert!((values(valid.running_var.value())[0] - (0.9 * (0.9 + 0.2) + 0.8)).abs() < 1e-6);
    }
}
