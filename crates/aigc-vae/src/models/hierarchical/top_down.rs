//! The pass through the decoder, from the coarsest group of latents to the finest.

use super::HierarchicalVae;
use crate::{Condition, models::condition_embedding::one_hot};
use aigc_core::rng::Rng;
use burn::tensor::{Tensor, TensorData};

/// The noise of the prior for a group of latents, from the mean and `log σ²` of its posterior.
type Choose<'a> = dyn FnMut(&[f32], &[f32]) -> Vec<f32> + 'a;

/// Where the latents of a pass come from. Features are the encoder's, finest first.
pub(super) enum Source<'a> {
    /// The posterior.
    Posterior {
        features: &'a [Tensor<4>],
        /// None for the most probable latents.
        rng: Option<&'a mut Rng>,
        /// What is computed for each group, besides its latents.
        term: Option<Term>,
    },
    /// The prior, with this standard normal noise, `[batch, dim]`.
    Prior(Tensor<2>),
    /// The posterior of one image, with the encoder's features: the noise of the prior is chosen by
    /// its mean and `log σ²`.
    Chosen(&'a [Tensor<4>], &'a mut Choose<'a>),
    /// Given latents, `[batch, dim]`, and whether to compute `log p(z)` of each group.
    Given(Tensor<2>, bool),
}

/// What a pass with latents of the posterior computes for each group.
#[derive(Clone, Copy)]
pub(super) enum Term {
    /// The divergence from the prior in closed form, given the groups before.
    Divergence,
    /// `log q(z|x) − log p(z)` at the drawn latents.
    LogRatio,
    /// `log q(z|x)` at the drawn latents.
    LogPosterior,
}

pub(super) struct Pass {
    pub(super) z: Tensor<2>,
    /// The decoder's last state.
    pub(super) hidden: Tensor<4>,
    /// Per group, `[batch]` each.
    pub(super) terms: Vec<Tensor<1>>,
}

/// The sum of the terms of all groups, `[batch]`.
pub(super) fn total(terms: Vec<Tensor<1>>) -> Tensor<1> {
    let sum = terms.into_iter().reduce(|sum, term| sum + term);
    sum.expect("a model has at least one group")
}

impl HierarchicalVae {
    pub(super) fn top_down(
        &self,
        batch: usize,
        condition: &Condition,
        mut source: Source<'_>,
    ) -> Pass {
        let mut hidden = self.first_state(batch, condition);
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
                    Source::Posterior {
                        features,
                        rng,
                        term,
                    } => {
                        let relative = group.relative(&activated, &features[index]);
                        let noise = match rng {
                            Some(rng) => rng.normal(shape, &hidden.device()),
                            None => relative.mean.zeros_like(),
                        };
                        let of_prior = relative.noise(noise.clone());
                        terms.extend(term.map(|term| match term {
                            Term::Divergence => relative.kl(),
                            Term::LogRatio => relative.log_ratio(noise, of_prior.clone()),
                            Term::LogPosterior => relative.log_prob(&prior, noise),
                        }));
                        prior.sample(of_prior)
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
                hidden = group.next_state(hidden, update, latent.clone());
                z.push(latent.flatten::<2>(1, 3));
            }
        }
        Pass {
            z: Tensor::cat(z, 1),
            hidden,
            terms,
        }
    }

    /// The decoder's state before the first group.
    fn first_state(&self, batch: usize, condition: &Condition) -> Tensor<4> {
        let start = self.start.val();
        let [_, channels, height, width] = start.dims();
        let mut state = start.expand([batch, channels, height, width]);
        if let (Some(table), Some(labels)) = (&self.classes, condition.class_labels.clone()) {
            let table = table.val();
            let rows = one_hot(labels, table.dims()[0]).matmul(table);
            state = state + rows.reshape([batch, channels, 1, 1]);
        }
        if let (Some(layer), Some(vectors)) = (&self.vectors, condition.vectors.clone()) {
            let rows = layer.forward(vectors);
            state = state + rows.reshape([batch, channels, 1, 1]);
        }
        state
    }
}
