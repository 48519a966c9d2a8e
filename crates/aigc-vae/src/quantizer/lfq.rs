//! Lookup-free quantisation (Yu et al. 2023, <https://arxiv.org/abs/2310.05737>, §3.1).

use super::{
    Quantizer, QuantizerOutput, check_codebooks, check_dim, mean_square_norm, straight_through,
};
use aigc_core::{Result, check};
use burn::{
    module::Module,
    tensor::{
        Device, Int, Tensor, TensorData,
        activation::{log_sigmoid, sigmoid},
    },
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`LookupFreeQuantizer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupFreeQuantizerConfig {
    /// Number of dimensions, 1 to 20; there are `2^dim` codes.
    pub dim: usize,
    /// Weight of the `commitment` loss `‖x − sg[c]‖²`.
    pub commitment_weight: f64,
    /// Weight of the `entropy` loss `E[H(q(c|x))] − γ·H(E[q(c|x)])`.
    pub entropy_weight: f64,
    /// Factor γ of the entropy of the mean use of codes.
    pub diversity_weight: f64,
    /// Temperature τ of `q(c|x) ∝ exp(−‖x − c‖² / τ)`.
    pub temperature: f64,
    /// Number of dimensions whose joint entropy is computed, 1 to 12. With fewer than `dim`, the
    /// entropy of the mean use is the sum over groups of dimensions, an upper bound; the memory is
    /// `batch·positions·2^group_dim` numbers.
    pub group_dim: usize,
}

impl LookupFreeQuantizerConfig {
    /// `2^dim` codes, commitment weight 0.25, entropy weight 0.1, γ = 1, τ = 1, groups of up to 8
    /// dimensions.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            commitment_weight: 0.25,
            entropy_weight: 0.1,
            diversity_weight: 1.0,
            temperature: 1.0,
            group_dim: 8,
        }
    }

    /// Number of dimensions of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Fails unless all values are in their ranges.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::in_range("dim", self.dim, 1..=20)?;
        check::non_negative("commitment_weight", self.commitment_weight)?;
        check::non_negative("entropy_weight", self.entropy_weight)?;
        check::non_negative("diversity_weight", self.diversity_weight)?;
        check::positive("temperature", self.temperature)?;
        check::in_range("group_dim", self.group_dim, 1..=12)
    }

    /// Creates the quantiser. It has no parameters; `device` is that of its inputs.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, _device: &Device) -> Result<LookupFreeQuantizer> {
        self.validate()?;
        Ok(LookupFreeQuantizer {
            config: self.clone(),
        })
    }
}

/// Replaces vectors by their signs, ±1 in each dimension. The sign of dimension `d` is bit `d` of
/// the code's index.
#[derive(Module, Debug)]
pub struct LookupFreeQuantizer {
    #[module(skip)]
    config: LookupFreeQuantizerConfig,
}

impl LookupFreeQuantizer {
    /// Configuration of the quantiser.
    pub fn config(&self) -> &LookupFreeQuantizerConfig {
        &self.config
    }

    /// The entropy penalty `E[H(q)] − γ·H(E[q])` in nats. The dimensions of `q(c|x)` are
    /// independent, with the probability `σ(4·x/τ)` of +1.
    ///
    /// # Shapes
    /// - x: `[n, dim]`
    /// - output: `[1]`
    fn entropy_penalty(&self, x: Tensor<2>) -> Tensor<1> {
        let n = x.dims()[0].max(1) as f64;
        let logits = x * (4.0 / self.config.temperature);
        let (up, down) = (sigmoid(logits.clone()), sigmoid(-logits.clone()));
        let terms = up.clone() * log_sigmoid(logits.clone()) + down.clone() * log_sigmoid(-logits);
        let each = -terms.sum() / n;
        let dims: Vec<usize> = (0..self.config.dim).collect();
        let groups = dims.chunks(self.config.group_dim).map(|group| {
            // The probabilities of all signs of the group, [n, 2^|group|].
            let joint = group.iter().fold(None, |joint: Option<Tensor<2>>, dim| {
                let (up, down) = (
                    up.clone().narrow(1, *dim, 1),
                    down.clone().narrow(1, *dim, 1),
                );
                Some(match joint {
                    None => Tensor::cat(vec![down, up], 1),
                    Some(joint) => Tensor::cat(vec![joint.clone() * down, joint * up], 1),
                })
            });
            let mean = joint.expect("groups are not empty").mean_dim(0);
            -(mean.clone() * mean.clamp_min(1e-30).log()).sum()
        });
        let of_mean = groups.reduce(|a, b| a + b).expect("at least one dimension");
        each - of_mean * self.config.diversity_weight
    }
}

impl Quantizer for LookupFreeQuantizer {
    fn dim(&self) -> usize {
        self.config.dim
    }

    fn num_codes(&self) -> usize {
        1 << self.config.dim
    }

    fn codebooks(&self) -> usize {
        1
    }

    fn quantize(&self, x: Tensor<3>) -> QuantizerOutput {
        let config = &self.config;
        check_dim(&x, config.dim);
        let [batch, positions, dim] = x.dims();
        let bits = x.clone().detach().greater_elem(0.0).float();
        let signs = bits.clone() * 2.0 - 1.0;
        let places: Vec<f32> = (0..dim).map(|bit| (1u32 << bit) as f32).collect();
        let places = TensorData::new(places, [1, 1, dim]);
        let places = Tensor::<3>::from_data(places, &x.device());
        let commitment = mean_square_norm(x.clone() - signs.clone(), config.commitment_weight);
        let mut losses = vec![("commitment", commitment)];
        if config.entropy_weight > 0.0 {
            let penalty = self.entropy_penalty(x.clone().reshape([batch * positions, dim]));
            let weight = config.entropy_weight * positions as f64;
            losses.push(("entropy", penalty * weight));
        }
        QuantizerOutput {
            values: straight_through(x.clone(), signs),
            inputs: x,
            // Exact in floats: indices are below 2²⁰.
            codes: (bits * places).sum_dim(2).int(),
            losses,
            seed: None,
        }
    }

    fn decode_codes(&self, codes: Tensor<3, Int>) -> Tensor<3> {
        check_codebooks(&codes, 1);
        let bits = (0..self.config.dim).map(|bit| {
            let bit = codes.clone().div_scalar(1i64 << bit);
            bit.remainder_scalar(2i64).float()
        });
        Tensor::cat(bits.collect(), 2) * 2.0 - 1.0
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::Rng,
        testing::{assert_close, values},
    };

    fn quantizer(config: LookupFreeQuantizerConfig) -> LookupFreeQuantizer {
        config.init(&Device::flex()).unwrap()
    }

    #[test]
    fn indices_and_codes_are_a_bijection() {
        let device = Device::flex();
        for dim in [1, 3, 10] {
            let quantizer = quantizer(LookupFreeQuantizerConfig::new(dim));
            let n = quantizer.num_codes();
            assert_eq!(n, 1 << dim);
            let all = Tensor::<1, Int>::arange(0..n as i64, &device).reshape([1, n, 1]);
            let decoded = quantizer.decode_codes(all);
            let rows = values(decoded.clone());
            for (index, row) in rows.chunks(dim).enumerate() {
                for (bit, value) in row.iter().enumerate() {
                    let expected = if (index >> bit) & 1 == 1 { 1.0 } else { -1.0 };
                    assert_eq!(*value, expected);
                }
            }
            // Any length of the vector has the same signs.
            let output = quantizer.quantize(decoded * 0.3);
            let codes: Vec<i64> = output.codes.into_data().iter::<i64>().collect();
            assert_eq!(codes, (0..n as i64).collect::<Vec<_>>());
            assert_eq!(values(output.values), rows);
        }
    }

    #[test]
    fn straight_through_gradient_is_exact() {
        let device = Device::flex().autodiff();
        let quantizer = quantizer(LookupFreeQuantizerConfig::new(3));
        let mut rng = Rng::new(1);
        let x: Tensor<3> = rng.normal([2, 5, 3], &device).require_grad();
        let weight: Tensor<3> = rng.normal([2, 5, 3], &device);
        let output = quantizer.quantize(x.clone());
        assert!(values(output.values.clone()).iter().all(|v| v.abs() == 1.0));
        let grads = (output.values * weight.clone()).sum().backward();
        assert_eq!(values(x.grad(&grads).unwrap()), values(weight));
    }

    /// The penalty by its definition, with the probabilities of all codes in f64.
    #[test]
    fn entropy_penalty_matches_all_codes() {
        let device = Device::flex();
        let (dim, n, tau, gamma) = (4usize, 6usize, 1.7, 0.6);
        let x = Rng::new(2).normal_vec(n * dim);
        let codes = 1usize << dim;
        let sign = |code: usize, bit: usize| if (code >> bit) & 1 == 1 { 1.0 } else { -1.0 };
        let entropy = |p: &[f64]| -> f64 { -p.iter().map(|p| p * p.ln()).sum::<f64>() };
        let (mut each, mut mean) = (0.0, vec![0.0; codes]);
        for x in x.chunks(dim) {
            let weights: Vec<f64> = (0..codes)
                .map(|code| {
                    let gaps = x.iter().enumerate();
                    let squares = gaps.map(|(bit, x)| (f64::from(*x) - sign(code, bit)).powi(2));
                    (-squares.sum::<f64>() / tau).exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            let p: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
            each += entropy(&p) / n as f64;
            mean.iter_mut()
                .zip(p)
                .for_each(|(mean, p)| *mean += p / n as f64);
        }
        let expected = each - gamma * entropy(&mean);
        let config = LookupFreeQuantizerConfig {
            diversity_weight: gamma,
            temperature: tau,
            entropy_weight: 0.3,
            group_dim: 4,
            ..LookupFreeQuantizerConfig::new(dim)
        };
        let input = Tensor::<3>::from_data(TensorData::new(x, [2, n / 2, dim]), &device);
        let output = quantizer(config.clone()).quantize(input.clone());
        let loss = |output: &QuantizerOutput| f64::from(values(output.losses[1].1.clone())[0]);
        // Per sample, that is, for the three positions of one.
        let found = loss(&output) / (0.3 * 3.0);
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        // The entropy of independent groups is at least that of all dimensions together.
        let groups = LookupFreeQuantizerConfig {
            group_dim: 2,
            ..config
        };
        assert!(loss(&quantizer(groups).quantize(input)) <= loss(&output) + 1e-6);
    }

    /// The entropy loss is least where vectors are certain and all codes are used.
    #[test]
    fn entropy_loss_prefers_certain_and_varied_codes() {
        let device = Device::flex();
        let quantizer = quantizer(LookupFreeQuantizerConfig::new(2));
        let loss = |x: [[f32; 2]; 4]| {
            let x = Tensor::<2>::from_floats(x, &device).reshape([4, 1, 2]);
            values(quantizer.quantize(x).losses[1].1.clone())[0]
        };
        let varied = loss([[9.0, 9.0], [-9.0, 9.0], [9.0, -9.0], [-9.0, -9.0]]);
        assert!((varied + 0.1 * 4f32.ln()).abs() < 1e-5, "{varied}");
        let same = loss([[9.0, 9.0]; 4]);
        assert!(same.abs() < 1e-5, "{same}");
        let uncertain = loss([[0.0, 0.0]; 4]);
        assert!(uncertain.abs() < 1e-5, "{uncertain}");
    }

    #[test]
    fn commitment_pulls_to_the_signs() {
        let device = Device::flex();
        let config = LookupFreeQuantizerConfig {
            entropy_weight: 0.0,
            ..LookupFreeQuantizerConfig::new(2)
        };
        let x = Tensor::<3>::from_floats([[[0.5, -3.0]], [[1.0, 0.0]]], &device);
        let output = quantizer(config).quantize(x);
        assert_eq!(output.losses.len(), 1);
        // Zero has the sign −1: (0.25 + 4 + 0 + 1) / 2 samples.
        assert_close(
            &values(output.losses[0].1.clone()),
            &[0.25 * 5.25 / 2.0],
            1e-6,
        );
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        let good = LookupFreeQuantizerConfig::new(4);
        for (config, expected) in [
            (
                LookupFreeQuantizerConfig {
                    dim: 0,
                    ..good.clone()
                },
                "`dim` is 0, expected 1 to 20",
            ),
            (
                LookupFreeQuantizerConfig {
                    temperature: 0.0,
                    ..good.clone()
                },
                "`temperature` is 0",
            ),
            (
                LookupFreeQuantizerConfig {
                    group_dim: 13,
                    ..good
                },
                "`group_dim` is 13, expected 1 to 12",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
