//! The evidence lower bound.

use crate::{Likelihood, Vae, check_batch};
use aigc_core::{
    Result, check,
    data::{DataLoader, SampleBatch},
    encoder::Posterior,
    rng::Rng,
    train::Metrics,
};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// The two terms of the evidence lower bound, per sample, in nats.
#[derive(Clone, Debug)]
pub struct Elbo {
    /// Reconstruction term `E_q[log p(x|z)]`, estimated with one `z`, `[batch]`.
    pub log_likelihood: Tensor<1>,
    /// Divergence `KL(q(z|x) ‖ p(z))` of the posterior from the prior, `[batch]`.
    pub kl: Tensor<1>,
}

/// Computes the evidence lower bound `E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) ≤ log p(x)` (Kingma and
/// Welling 2014, eq. 3). `likelihood` is that of one `z` drawn from `posterior`.
///
/// # Shapes
/// - x: `[batch, …]`; images in `[0, 1]`
pub fn elbo<P: Posterior<Z>, const X: usize, const Z: usize>(
    x: Tensor<X>,
    posterior: &P,
    likelihood: &Likelihood<X>,
) -> Elbo {
    Elbo {
        log_likelihood: likelihood.log_prob(x),
        kl: posterior.kl(),
    }
}

impl Elbo {
    /// The loss `−E_q[log p(x|z)] + β·KL`, averaged over the batch, `[1]`: −ELBO for β = 1, the
    /// loss of the β-VAE (Higgins et al. 2017) for other values.
    pub fn loss(&self, beta: f64) -> Tensor<1> {
        (self.kl.clone() * beta - self.log_likelihood.clone()).mean()
    }
}

/// Weight `β` of the divergence, with an optional warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KlWeight {
    /// Weight after the warm-up; 1 for the ELBO.
    pub value: f64,
    /// Number of steps over which the weight rises linearly from 0; 0 for no warm-up. A slow rise
    /// keeps the decoder from ignoring the latents (Bowman et al. 2016,
    /// <https://arxiv.org/abs/1511.06349>).
    #[serde(alias = "anneal")]
    pub warmup_steps: usize,
}

impl Default for KlWeight {
    fn default() -> Self {
        Self {
            value: 1.0,
            warmup_steps: 0,
        }
    }
}

impl KlWeight {
    /// The weight at `step` (counted from 0).
    pub fn at_step(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            self.value * (step + 1) as f64 / self.warmup_steps as f64
        } else {
            self.value
        }
    }

    /// Fails unless the weight is finite and at least 0.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::non_negative("beta.value", self.value)
    }
}

/// Evaluates `model` on every sample of `loader`.
///
/// Returns `nelbo` (−ELBO, an upper bound on `−log p(x)`), `reconstruction` and `kl`, then the
/// model's [auxiliary terms](Vae::auxiliary_losses): means per sample, in nats. One `z` is drawn
/// per sample, always the same for the same `seed`.
///
/// # Errors
/// If a sample cannot be read or does not have the shape of the model's samples.
pub fn evaluate<V, B, const X: usize, const Z: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
) -> Result<Metrics>
where
    V: Vae<X, Z>,
    B: SampleBatch<X>,
{
    let mut sums: Vec<(&'static str, f64)> = vec![("reconstruction", 0.0), ("kl", 0.0)];
    let mut samples = 0.0;
    for (index, batch) in loader.iter_once().enumerate() {
        let batch = batch?;
        check_batch(model, &batch)?;
        let x = batch.to_tensor(device);
        let count = x.dims()[0] as f64;
        let posterior = model.encode(x.clone());
        let z = posterior.sample(&mut Rng::stream(seed, "held-out", index as u64));
        let bound = elbo(x, &posterior, &model.decode(z));
        let terms = [
            ("reconstruction", -bound.log_likelihood.mean()),
            ("kl", bound.kl.mean()),
        ];
        for (name, term) in terms.into_iter().chain(model.auxiliary_losses(&posterior)) {
            let term = f64::from(term.into_scalar::<f32>()) * count;
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += term,
                None => sums.push((name, term)),
            }
        }
        samples += count;
    }
    let means = sums
        .into_iter()
        .map(|(name, sum)| (name.to_string(), sum / samples));
    let means: Metrics = means.collect();
    let nelbo = means[0].1 + means[1].1;
    Ok([vec![("nelbo".to_string(), nelbo)], means].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_weight_rises_linearly() {
        let beta = KlWeight {
            value: 2.0,
            warmup_steps: 4,
        };
        let rising: Vec<f64> = (0..6).map(|step| beta.at_step(step)).collect();
        assert_eq!(rising, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]);
        assert_eq!(KlWeight::default().at_step(0), 1.0);
        assert!(
            KlWeight {
                value: f64::NAN,
                warmup_steps: 0
            }
            .validate()
            .is_err()
        );
    }
}
