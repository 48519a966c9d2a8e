//! The evidence lower bound.

use crate::{DiagonalGaussian, Likelihood, Vae, objective::same_shape};
use aigc_core::{
    Error, Result,
    data::{DataLoader, ImageBatch},
    rng::Rng,
    train::Metrics,
};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// The two parts of the bound, per image, in nats.
#[derive(Clone, Debug)]
pub struct Elbo {
    /// `E_q[log p(x|z)]`, estimated with one `z`, `[batch]`.
    pub log_likelihood: Tensor<1>,
    /// `KL(q(z|x) ‖ p(z))`, `[batch]`.
    pub kl: Tensor<1>,
}

/// The evidence lower bound `E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))` (Kingma and Welling 2014, eq. 3),
/// which no model's `log p(x)` is below.
///
/// # Shapes
/// - x: `[batch, channels, height, width]` in `[0, 1]`
pub fn elbo(x: Tensor<4>, posterior: &DiagonalGaussian, likelihood: &Likelihood) -> Elbo {
    Elbo {
        log_likelihood: likelihood.log_prob(x),
        kl: posterior.kl(),
    }
}

impl Elbo {
    /// `−E_q[log p(x|z)] + β·KL`, mean over the batch, `[1]`. With β = 1 it is −ELBO; other values
    /// are the β-VAE's (Higgins et al. 2017).
    pub fn loss(&self, beta: f64) -> Tensor<1> {
        (self.kl.clone() * beta - self.log_likelihood.clone()).mean()
    }
}

/// The weight of the divergence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KlWeight {
    /// The weight once it has risen; 1 gives the ELBO.
    pub value: f64,
    /// Steps over which it rises from 0 in a straight line; 0 to have it from the start. Rising
    /// slowly keeps the decoder from ignoring the latent variables (Bowman et al. 2016,
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
    /// The weight at `step`, counted from 0.
    pub fn at_step(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            self.value * (step + 1) as f64 / self.warmup_steps as f64
        } else {
            self.value
        }
    }

    /// Fails unless the weight can be used.
    ///
    /// # Errors
    /// [`Error::Config`] if it is negative or not finite.
    pub fn validate(&self) -> Result<()> {
        if self.value >= 0.0 && self.value.is_finite() {
            return Ok(());
        }
        Err(Error::config(
            "beta.value",
            self.value,
            "a finite number from 0 on",
        ))
    }
}

/// Judges `model` by every image of `loader`: `nelbo` (−ELBO, the bound on `−log p(x)`),
/// `reconstruction` and `kl`, means per image in nats. Each image gets one `z`, the same for the
/// same `seed`.
///
/// # Errors
/// If an image cannot be read, or is of another shape than the model's.
pub fn evaluate<V: Vae>(
    model: &V,
    loader: &DataLoader<ImageBatch>,
    device: &Device,
    seed: u64,
) -> Result<Metrics> {
    let (mut reconstruction, mut kl, mut images) = (0.0, 0.0, 0.0);
    for (index, batch) in loader.iter_once().enumerate() {
        let batch = batch?;
        same_shape(model, &batch)?;
        let x = batch.to_tensor(device);
        let count = x.dims()[0] as f64;
        let posterior = model.encode(x.clone());
        let z = posterior.sample(&mut Rng::stream(seed, "held-out", index as u64));
        let bound = elbo(x, &posterior, &model.decode(z));
        reconstruction -= f64::from(bound.log_likelihood.mean().into_scalar::<f32>()) * count;
        kl += f64::from(bound.kl.mean().into_scalar::<f32>()) * count;
        images += count;
    }
    let (reconstruction, kl) = (reconstruction / images, kl / images);
    let named = [
        ("nelbo", reconstruction + kl),
        ("reconstruction", reconstruction),
        ("kl", kl),
    ];
    Ok(named
        .map(|(name, value)| (name.to_string(), value))
        .to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_rises_in_a_straight_line() {
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
