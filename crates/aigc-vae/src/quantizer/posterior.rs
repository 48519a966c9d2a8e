//! The codes of a sample, and the posterior of quantised latents.

use super::QuantizerOutput;
use aigc_core::{encoder::Posterior, rng::Rng};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// The codes of a sample: a map of positions with one code per codebook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeShape {
    /// Rows of positions.
    pub height: usize,
    /// Columns of positions.
    pub width: usize,
    /// Codes per position.
    pub codebooks: usize,
    /// Number of codes of each codebook.
    pub num_codes: usize,
}

impl CodeShape {
    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Number of codes of a sample.
    pub fn num_indices(&self) -> usize {
        self.positions() * self.codebooks
    }

    /// The logarithm of the number of possible samples, in nats: the entropy of uniform codes.
    pub fn max_entropy(&self) -> f64 {
        self.num_indices() as f64 * (self.num_codes as f64).ln()
    }

    /// Codes of `n` samples, drawn uniformly.
    ///
    /// # Shapes
    /// - output: `[n, positions, codebooks]`
    pub fn sample_uniform(&self, n: usize, rng: &mut Rng, device: &Device) -> Tensor<3, Int> {
        let count = n * self.num_indices();
        let codes: Vec<i32> = (0..count)
            .map(|_| rng.random_index(self.num_codes) as i32)
            .collect();
        let shape = [n, self.positions(), self.codebooks];
        Tensor::from_data(TensorData::new(codes, shape), device)
    }
}

impl std::fmt::Display for CodeShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}×{}×{} codes of {}",
            self.height, self.width, self.codebooks, self.num_codes
        )
    }
}

/// The posterior of quantised latents, which has no uncertainty. `Z` is the rank of a batch of
/// latents.
#[derive(Clone, Debug)]
pub struct Quantized<const Z: usize = 4> {
    /// The latents, with the gradient of the encoder's output, `[batch, …]`.
    pub values: Tensor<Z>,
    /// The output of the quantiser of each level, coarsest first.
    pub levels: Vec<QuantizerOutput>,
    max_entropy: f64,
}

impl<const Z: usize> Quantized<Z> {
    /// The posterior of latents `values` from the outputs of quantisers. `max_entropy` is the
    /// entropy of uniform codes in nats ([`CodeShape::max_entropy`]), summed over the levels.
    pub fn new(values: Tensor<Z>, levels: Vec<QuantizerOutput>, max_entropy: f64) -> Self {
        Self {
            values,
            levels,
            max_entropy,
        }
    }

    /// The codes of each level, `[batch, positions, codebooks]`.
    pub fn codes(&self) -> Vec<Tensor<3, Int>> {
        let levels = self.levels.iter();
        levels.map(|level| level.codes.clone()).collect()
    }

    /// The losses of all quantisers; those of one name are added.
    pub fn losses(&self) -> Vec<(&'static str, Tensor<1>)> {
        let mut sums: Vec<(&'static str, Tensor<1>)> = Vec::new();
        for (name, loss) in self.levels.iter().flat_map(|level| &level.losses) {
            match sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum = sum.clone() + loss.clone(),
                None => sums.push((name, loss.clone())),
            }
        }
        sums
    }

    /// What [`Vae::update_codebook`](crate::Vae::update_codebook) needs, off the autodiff graph:
    /// the levels as [`QuantizerOutput::for_update`] leaves them. The latents are replaced by
    /// one zero.
    pub fn for_update(self) -> Self {
        let levels = self.levels.into_iter();
        Self {
            values: Tensor::zeros([1; Z], &self.values.device().without_autodiff()),
            levels: levels.map(QuantizerOutput::for_update).collect(),
            max_entropy: self.max_entropy,
        }
    }
}

impl<const Z: usize> Posterior<Z> for Quantized<Z> {
    fn sample(&self, _rng: &mut Rng) -> Tensor<Z> {
        self.values.clone()
    }

    fn sample_with_log_prob(&self, _rng: &mut Rng) -> (Tensor<Z>, Tensor<1>) {
        let log_prob = Tensor::zeros([self.values.dims()[0]], &self.values.device());
        (self.values.clone(), log_prob)
    }

    fn mode(&self) -> Tensor<Z> {
        self.values.clone()
    }

    /// The divergence from uniform codes: the logarithm of the number of possible codes.
    fn kl(&self) -> Tensor<1> {
        let batch = self.values.dims()[0];
        Tensor::full([batch], self.max_entropy, &self.values.device())
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::code_counts;
    use aigc_core::testing::values;

    /// Uniform codes have the entropy `ln num_codes` each.
    #[test]
    fn quantized_posterior_is_compared_with_uniform_codes() {
        let device = Device::flex();
        let shape = CodeShape {
            height: 2,
            width: 3,
            codebooks: 2,
            num_codes: 5,
        };
        let values_of = Tensor::<2>::zeros([4, 1], &device);
        let posterior = Quantized::new(values_of, Vec::new(), shape.max_entropy());
        let expected = (12.0 * 5f64.ln()) as f32;
        assert_eq!(values(posterior.kl()), [expected; 4]);
        let (_, log_prob) = posterior.sample_with_log_prob(&mut Rng::new(0));
        assert_eq!(values(log_prob), [0.0; 4]);

        let codes = shape.sample_uniform(1000, &mut Rng::new(1), &device);
        assert_eq!(codes.dims(), [1000, 6, 2]);
        // Each code of each codebook occurs 1200 ± 5·√(6000·0.2·0.8) times.
        let counts = values(code_counts(codes, 5));
        assert!(
            counts.iter().all(|count| (count - 1200.0).abs() < 155.0),
            "{counts:?}"
        );
    }
}
