//! The posterior of the model.

use super::{
    HierarchicalVae,
    top_down::{Pass, Source, Term, total},
};
use crate::Condition;
use aigc_core::{encoder::Posterior, rng::Rng};
use burn::tensor::Tensor;

/// The posterior of a [`HierarchicalVae`]: the encoder's features. The distribution of a group of
/// latents depends on the groups drawn before it, so that drawing is a pass through the decoder.
#[derive(Clone, Debug)]
pub struct HierarchicalPosterior {
    pub(super) model: HierarchicalVae,
    pub(super) features: Vec<Tensor<4>>,
    pub(super) condition: Condition,
}

impl HierarchicalPosterior {
    /// A pass with drawn latents; without random numbers, with the most probable ones.
    pub(super) fn pass(&self, rng: Option<&mut Rng>, term: Option<Term>) -> Pass {
        let batch = self.features[0].dims()[0];
        let source = Source::Posterior {
            features: &self.features,
            rng,
            term,
        };
        self.model.top_down(batch, &self.condition, source)
    }
}

impl Posterior<2> for HierarchicalPosterior {
    fn sample(&self, rng: &mut Rng) -> Tensor<2> {
        self.pass(Some(rng), None).z
    }

    fn sample_with_log_prob(&self, rng: &mut Rng) -> (Tensor<2>, Tensor<1>) {
        let pass = self.pass(Some(rng), Some(Term::LogPosterior));
        (pass.z, total(pass.terms))
    }

    /// The most probable latents of each group, given those of the groups before.
    fn mode(&self) -> Tensor<2> {
        self.pass(None, None).z
    }

    /// The divergence along the most probable latents. [`Vae::forward`](crate::Vae::forward)
    /// computes it along a draw, whose mean is the divergence.
    fn kl(&self) -> Tensor<1> {
        total(self.pass(None, Some(Term::Divergence)).terms)
    }
}
