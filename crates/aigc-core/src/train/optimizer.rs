//! Optimizers and parameter groups as configuration values.

use super::AdamConfig;
use crate::{
    Error, Result,
    check::non_negative,
    params::{ParamVisitor, visit_params},
};
use burn::{
    module::{Module, Param, ParamGroup, ParamId},
    optim::{
        AdanConfig, LionConfig, ModuleOptimizer, RmsPropConfig, SgdConfig,
        lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
    },
    tensor::Tensor,
};
use serde::{Deserialize, Serialize};

/// Configuration of an optimizer. Other optimizers of burn and custom ones are set with
/// [`Trainer::with_optimizer`](super::Trainer::with_optimizer).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// Adam (Kingma and Ba 2015, <https://arxiv.org/abs/1412.6980>).
    Adam(AdamConfig),
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019,
    /// <https://arxiv.org/abs/1711.05101>).
    AdamW(AdamConfig),
    /// Adaptive Nesterov momentum (Xie et al. 2022, <https://arxiv.org/abs/2208.06677>).
    Adan(AdanConfig),
    /// Sign of an interpolated momentum (Chen et al. 2023, <https://arxiv.org/abs/2302.06675>).
    Lion(LionConfig),
    /// RMSprop (Hinton 2012).
    RmsProp(RmsPropConfig),
    /// Stochastic gradient descent.
    Sgd(SgdConfig),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::adam(0.9, 0.999)
    }
}

/// Evaluates `$then` with the optimizer, whatever its type.
macro_rules! built {
    ($config:expr, $optimizer:ident => $then:expr) => {
        match $config {
            OptimizerConfig::Adam(c) => {
                let $optimizer = c.build(false);
                $then
            }
            OptimizerConfig::AdamW(c) => {
                let $optimizer = c.build(true);
                $then
            }
            OptimizerConfig::Adan(c) => {
                let $optimizer = c.build();
                $then
            }
            OptimizerConfig::Lion(c) => {
                let $optimizer = c.build();
                $then
            }
            OptimizerConfig::RmsProp(c) => {
                let $optimizer = c.build();
                $then
            }
            OptimizerConfig::Sgd(c) => {
                let $optimizer = c.build();
                $then
            }
        }
    };
}

impl OptimizerConfig {
    /// Adam with these decay rates.
    pub fn adam(beta_1: f64, beta_2: f64) -> Self {
        Self::Adam(AdamConfig::new().with_beta_1(beta_1).with_beta_2(beta_2))
    }

    /// AdamW with these decay rates and this weight decay.
    pub fn adam_w(beta_1: f64, beta_2: f64, weight_decay: f64) -> Self {
        Self::AdamW(
            AdamConfig::new()
                .with_beta_1(beta_1)
                .with_beta_2(beta_2)
                .with_weight_decay(weight_decay),
        )
    }

    /// Plain stochastic gradient descent.
    pub fn sgd() -> Self {
        Self::Sgd(SgdConfig::new())
    }

    /// The same optimizer without weight decay.
    pub fn without_weight_decay(self) -> Self {
        match self {
            Self::Adam(config) => Self::Adam(config.with_weight_decay(0.0)),
            Self::AdamW(config) => Self::AdamW(config.with_weight_decay(0.0)),
            Self::Adan(config) => Self::Adan(config.with_weight_decay(0.0)),
            Self::Lion(config) => Self::Lion(config.with_weight_decay(0.0)),
            Self::RmsProp(config) => Self::RmsProp(config.with_weight_decay(None)),
            Self::Sgd(config) => Self::Sgd(config.with_weight_decay(None)),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            Self::Adam(config) | Self::AdamW(config) => config.validate(),
            _ => Ok(()),
        }
    }

    /// Creates the optimizer of all parameters; those in `groups` get the optimizer of their group,
    /// if it has one.
    pub(crate) fn init(&self, groups: &[Group]) -> ModuleOptimizer {
        let mut optimizer: ModuleOptimizer = built!(self, o => o.into());
        for group in groups {
            if let Some(config) = &group.optimizer {
                optimizer =
                    built!(config, o => optimizer.with_group(group.params.clone(), o, None));
            }
        }
        optimizer
    }
}

/// Parameters with a separate learning rate or optimizer. If groups overlap, the last one applies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ParamGroupConfig {
    /// Regular expression that is matched against the paths of parameters. Paths consist of the
    /// names of fields, such as `gamma` for the scale of a norm: `^encoder\.`, `bias$`, `gamma$`.
    /// It is an error if no trained parameter matches.
    pub pattern: String,
    /// Factor of the learning rate.
    pub learning_rate_scale: f64,
    /// Another optimizer, or the same one with other settings, such as no weight decay.
    pub optimizer: Option<OptimizerConfig>,
}

impl ParamGroupConfig {
    /// Parameters whose paths match `pattern`, with `learning_rate_scale` times the learning rate.
    pub fn new(pattern: impl Into<String>, learning_rate_scale: f64) -> Self {
        Self {
            pattern: pattern.into(),
            learning_rate_scale,
            optimizer: None,
        }
    }

    /// Sets the optimizer of the group.
    pub fn with_optimizer(self, optimizer: OptimizerConfig) -> Self {
        Self {
            optimizer: Some(optimizer),
            ..self
        }
    }

    /// Biases, and scales and shifts of norms, with `optimizer` but without its weight decay, which
    /// then applies only to matrices, as usual for language models (Brown et al. 2020,
    /// <https://arxiv.org/abs/2005.14165>).
    pub fn no_weight_decay_for_1d(optimizer: &OptimizerConfig) -> Self {
        Self::new(r"(^|\.)(bias|gamma|beta)$", 1.0)
            .with_optimizer(optimizer.clone().without_weight_decay())
    }

    fn matcher(&self) -> Result<ParamGroup> {
        ParamGroup::from_regex(&self.pattern).map_err(|_| {
            Error::config(
                "param_groups.pattern",
                &self.pattern,
                "a regular expression",
            )
        })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        non_negative("param_groups.learning_rate_scale", self.learning_rate_scale)?;
        self.optimizer
            .iter()
            .try_for_each(OptimizerConfig::validate)?;
        self.matcher().map(drop)
    }
}

/// A group with the ids of its parameters.
#[derive(Clone)]
pub(crate) struct Group {
    params: ParamGroup,
    learning_rate_scale: f64,
    optimizer: Option<OptimizerConfig>,
}

/// Finds the trained parameters of every group in `model`.
///
/// # Errors
/// [`Error::Config`] for a pattern without matches.
pub(crate) fn resolve<M: Module>(groups: &[ParamGroupConfig], model: &M) -> Result<Vec<Group>> {
    let find = |config: &ParamGroupConfig| {
        let mut matching = Matching {
            group: config.matcher()?,
            ids: Vec::new(),
        };
        visit_params(model, &mut matching);
        if matching.ids.is_empty() {
            return Err(Error::config(
                "param_groups.pattern",
                &config.pattern,
                "a pattern that matches a trained parameter",
            ));
        }
        Ok(Group {
            params: ParamGroup::from_ids(matching.ids),
            learning_rate_scale: config.learning_rate_scale,
            optimizer: config.optimizer.clone(),
        })
    };
    groups.iter().map(find).collect()
}

struct Matching {
    group: ParamGroup,
    ids: Vec<ParamId>,
}

impl ParamVisitor for Matching {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if param.val().is_require_grad() && self.group.matches(&param.id, Some(path)) {
            self.ids.push(param.id);
        }
    }
}

/// The learning rate of every parameter: `rate`, times its group's factor.
pub(crate) fn learning_rates(rate: f64, groups: &[Group]) -> ModuleLearningRate {
    let rates = ModuleLrScheduler::new(rate);
    let rates = groups.iter().fold(rates, |rates, group| {
        rates.with_group(group.params.clone(), rate * group.learning_rate_scale)
    });
    { rates }.step()
}
