//! A deep hierarchical VAE: groups of latents on maps of several sizes, drawn from the coarsest to
//! the finest.
//!
//! The encoder works bottom-up without noise; the decoder works top-down, and at every group the
//! posterior sees the decoder's state and the encoder's features of that size (Sønderby et al.
//! 2016, <https://arxiv.org/abs/1602.02282>; Kingma et al. 2016). The blocks are those of Child
//! (2021), <https://arxiv.org/abs/2011.10650>; the posterior is relative to the prior, as in NVAE
//! (Vahdat and Kautz 2020, <https://arxiv.org/abs/2007.03898>, §3.2), with the difference of the
//! means in units of the prior's standard deviation.
//!
//! | file | content |
//! |---|---|
//! | `config` | the configuration |
//! | `block` | the block of convolutions that encoder and decoder consist of |
//! | `levels` | the levels of encoder and decoder, and the groups of latents |
//! | `distributions` | prior and posterior of a group |
//! | `top_down` | the pass through the decoder |
//! | `posterior` | the posterior of the model |
//! | `bits_back` | coding of images |

mod bits_back;
mod block;
mod config;
mod distributions;
mod levels;
mod posterior;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod top_down;

pub use config::{HierarchicalLevel, HierarchicalVaeConfig};
pub use posterior::HierarchicalPosterior;

use crate::{Condition, ConditionKind, Likelihood, Vae, VaeOutput};
use aigc_core::{
    data::SampleShape,
    nn::{ConvTranspose2d, Linear},
    rng::Rng,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use levels::{Down, Up};
use top_down::{Source, Term, total};

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
    /// Added to the start, `[classes, channels]`.
    classes: Option<Param<Tensor<2>>>,
    /// Of the vector of a condition, added to the start; without bias, so that zeros add nothing.
    vectors: Option<Linear>,
    output: ConvTranspose2d,
    #[module(skip)]
    config: HierarchicalVaeConfig,
}

impl HierarchicalVae {
    /// Configuration of the model.
    pub fn config(&self) -> &HierarchicalVaeConfig {
        &self.config
    }

    aigc_core::pretrained_methods!(HierarchicalVaeConfig, config: Self::config);

    /// Number of groups of latents.
    pub fn num_groups(&self) -> usize {
        self.levels.iter().map(|level| level.groups.len()).sum()
    }

    /// The encoder's activated features of each level, finest first.
    fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = x * 2.0 - 1.0;
        let mut features = Vec::with_capacity(self.down.len());
        for level in &self.down {
            x = level.forward(x);
            features.push(self.config.activation.forward(x.clone()));
        }
        features
    }

    /// The likelihood, from the decoder's last state.
    fn likelihood(&self, hidden: Tensor<4>) -> Likelihood {
        let hidden = self.config.activation.forward(hidden);
        Likelihood::new(self.config.likelihood, self.output.forward(hidden))
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
            vector_dim: self.config.vector_dim,
            cross_attention_dim: None,
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
        let batch = z.dims()[0];
        let pass = self.top_down(batch, condition, Source::Given(z, false));
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
        let pass = posterior.pass(Some(rng), Some(Term::Divergence));
        VaeOutput {
            posterior,
            z: pass.z,
            likelihood: self.likelihood(pass.hidden),
            kl: pass.terms,
        }
    }

    /// The divergence of all groups along the most probable latents; see
    /// [`HierarchicalPosterior::kl`](crate::Posterior::kl).
    fn kl(
        &self,
        posterior: &HierarchicalPosterior,
        _z: Tensor<2>,
        _condition: &Condition,
    ) -> Vec<Tensor<1>> {
        posterior.pass(None, Some(Term::Divergence)).terms
    }

    fn prior_log_prob(&self, z: Tensor<2>, condition: &Condition) -> Tensor<1> {
        let batch = z.dims()[0];
        let pass = self.top_down(batch, condition, Source::Given(z, true));
        total(pass.terms)
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
        let source = Source::Posterior {
            features: &features,
            rng: Some(rng),
            term: Some(Term::LogRatio),
        };
        let pass = self.top_down(batch * k, &condition, source);
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
        self.top_down(n, condition, Source::Prior(noise)).z
    }
}
