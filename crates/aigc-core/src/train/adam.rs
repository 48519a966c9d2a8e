//! Adam, with each step as one pass over memory.

use crate::{
    Result,
    check::{ensure, non_negative},
    ops::{AdamStep, adam_step},
};
use burn::{
    config::Config,
    optim::{AdamState, AdaptiveMomentumState, LearningRate, Optimizer},
    tensor::{Device, Tensor},
};

/// Settings of Adam (Kingma and Ba 2015, <https://arxiv.org/abs/1412.6980>), with the defaults of
/// PyTorch's Adam.
#[derive(Config, Debug, PartialEq)]
pub struct AdamConfig {
    /// Decay of the mean of gradients.
    #[config(default = 0.9)]
    pub beta_1: f64,
    /// Decay of the mean of squared gradients.
    #[config(default = 0.999)]
    pub beta_2: f64,
    /// Added to the root of the mean square.
    #[config(default = 1e-8)]
    pub epsilon: f64,
    /// Weight decay: added to the gradient by Adam, subtracted from the parameter by AdamW.
    #[config(default = 0.0)]
    pub weight_decay: f64,
}

impl AdamConfig {
    /// Creates Adam, or AdamW (Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>) if
    /// the weight decay is `decoupled`.
    pub fn build(&self, decoupled: bool) -> Adam {
        Adam {
            config: self.clone(),
            decoupled,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (name, beta) in [("beta_1", self.beta_1), ("beta_2", self.beta_2)] {
            ensure(
                (0.0..1.0).contains(&beta),
                &format!("optimizer.{name}"),
                beta,
                "a number from 0 to below 1",
            )?;
        }
        for (name, value) in [
            ("epsilon", self.epsilon),
            ("weight_decay", self.weight_decay),
        ] {
            non_negative(&format!("optimizer.{name}"), value)?;
        }
        Ok(())
    }
}

/// The optimizer. Its state has the layout of burn's Adam.
#[derive(Clone, Debug)]
pub struct Adam {
    config: AdamConfig,
    decoupled: bool,
}

impl Optimizer for Adam {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (time, moments) = match state.map(|state| state.momentum) {
            Some(state) => (state.time + 1, [state.moment_1, state.moment_2]),
            None => (1, [(); 2].map(|()| grad.zeros_like())),
        };
        let AdamConfig {
            beta_1,
            beta_2,
            epsilon,
            weight_decay,
            ..
        } = self.config;
        let (weight_decay, decoupled_decay) = if self.decoupled {
            (0.0, weight_decay)
        } else {
            (weight_decay, 0.0)
        };
        let step = AdamStep {
            learning_rate: lr,
            beta_1,
            beta_2,
            epsilon,
            step: i32::try_from(time).unwrap_or(i32::MAX),
            weight_decay,
            decoupled_decay,
        };
        let (tensor, [moment_1, moment_2]) = adam_step(tensor, grad, moments, step);
        (
            tensor,
            Some(AdamState::new(AdaptiveMomentumState::new(
                time, moment_1, moment_2,
            ))),
        )
    }

    fn to_device<const D: usize>(mut state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.momentum = state.momentum.to_device(device);
        state
    }
}
