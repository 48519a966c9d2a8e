//! Residual vector quantisation (Zeghidour et al. 2021, <https://arxiv.org/abs/2107.03312>, §III).

use super::{
    Quantizer, QuantizerOutput, VectorQuantizer, VectorQuantizerConfig, codebook::nearest_rows,
    join, straight_through, update_seed,
};
use aigc_core::{
    Result,
    check::{self, ensure},
    rng::Rng,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`ResidualQuantizer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResidualQuantizerConfig {
    /// Number of stages, 1 to 64.
    pub num_quantizers: usize,
    /// The quantiser of every stage; without cosine similarity.
    pub quantizer: VectorQuantizerConfig,
    /// Probability that a sample is quantised by the first stages only, as many as are drawn
    /// uniformly, in training. The values of the first stages alone are then usable. The codebooks
    /// of all stages are updated with all samples.
    pub dropout: f64,
}

impl ResidualQuantizerConfig {
    /// `num_quantizers` stages without dropout.
    pub fn new(num_quantizers: usize, quantizer: VectorQuantizerConfig) -> Self {
        Self {
            num_quantizers,
            quantizer,
            dropout: 0.0,
        }
    }

    /// Number of dimensions of the vectors.
    pub fn dim(&self) -> usize {
        self.quantizer.dim
    }

    /// Fails unless all values are in their ranges.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::in_range("num_quantizers", self.num_quantizers, 1..=64)?;
        check::fraction("dropout", self.dropout)?;
        self.quantizer.validate()?;
        let values = self.quantizer.num_codes * self.quantizer.dim;
        check::in_range(
            "num_quantizers",
            self.num_quantizers,
            1..=(1 << 28) / values,
        )?;
        ensure(
            !self.quantizer.cosine,
            "quantizer.cosine",
            self.quantizer.cosine,
            "false; a residual has a length",
        )
    }

    /// Creates the quantiser on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<ResidualQuantizer> {
        self.validate()?;
        let stages = (0..self.num_quantizers).map(|_| self.quantizer.init(device));
        Ok(ResidualQuantizer {
            stages: stages.collect::<Result<_>>()?,
            config: self.clone(),
        })
    }
}

/// Replaces vectors by sums of codes: each stage quantises what the stages before it left over.
#[derive(Module, Debug)]
pub struct ResidualQuantizer {
    /// The quantiser of each stage.
    pub stages: Vec<VectorQuantizer>,
    #[module(skip)]
    config: ResidualQuantizerConfig,
}

impl ResidualQuantizer {
    /// Configuration of the quantiser.
    pub fn config(&self) -> &ResidualQuantizerConfig {
        &self.config
    }

    /// For each stage, 1 for the samples that it quantises and 0 for the others, `[batch, 1, 1]`.
    fn dropout_masks(&self, batch: usize, rng: &mut Rng, device: &Device) -> Vec<Tensor<3>> {
        let stages = self.stages.len();
        let active: Vec<usize> = (0..batch)
            .map(|_| {
                let is_dropped = f64::from(rng.uniform_vec(1, 0.0, 1.0)[0]) < self.config.dropout;
                let drawn = 1 + rng.random_index(stages);
                if is_dropped { drawn } else { stages }
            })
            .collect();
        let mask = |stage: usize| {
            let mask = active.iter().map(|active| f32::from(stage < *active));
            let mask = TensorData::new(mask.collect::<Vec<f32>>(), [batch, 1, 1]);
            Tensor::from_data(mask, device)
        };
        (0..stages).map(mask).collect()
    }

    /// All stages quantise, so that all codes are those of full quality; masked stages add nothing
    /// to the values and the losses.
    fn quantize_masked(&self, x: Tensor<3>, masks: Option<&[Tensor<3>]>) -> QuantizerOutput {
        let mut residual = x.clone();
        let mut total: Option<Tensor<3>> = None;
        let mut codes = Vec::new();
        let mut losses: Vec<(&'static str, Tensor<1>)> = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let nearest = stage.nearest(residual);
            // Without cosine similarity, the gap is what is left over for the next stage.
            residual = nearest.gap();
            let mask = masks.map(|masks| &masks[index]);
            for (name, loss) in stage.losses(&nearest, residual.clone(), mask) {
                match losses.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum = sum.clone() + loss,
                    None => losses.push((name, loss)),
                }
            }
            let mut values = nearest.values.detach();
            if let Some(mask) = mask {
                values = values * mask.clone();
            }
            total = Some(match total {
                Some(total) => total + values,
                None => values,
            });
            codes.push(nearest.codes);
        }
        let total = total.expect("at least one stage");
        QuantizerOutput {
            values: straight_through(x.clone(), total),
            inputs: x,
            codes: Tensor::cat(codes, 2),
            losses,
            seed: None,
        }
    }
}

impl Quantizer for ResidualQuantizer {
    fn dim(&self) -> usize {
        self.config.quantizer.dim
    }

    fn num_codes(&self) -> usize {
        self.config.quantizer.num_codes
    }

    fn codebooks(&self) -> usize {
        self.stages.len()
    }

    fn quantize(&self, x: Tensor<3>) -> QuantizerOutput {
        self.quantize_masked(x, None)
    }

    /// Applies dropout on autodiff devices.
    fn quantize_with(&self, x: Tensor<3>, rng: &mut Rng) -> QuantizerOutput {
        let seed = Some(rng.next_u64());
        let drops = self.config.dropout > 0.0 && x.is_autodiff();
        let masks = drops.then(|| self.dropout_masks(x.dims()[0], rng, &x.device()));
        QuantizerOutput {
            seed,
            ..self.quantize_masked(x, masks.as_deref())
        }
    }

    /// Codes of the first stages only are decoded to a coarser value.
    fn decode_codes(&self, codes: Tensor<3, Int>) -> Tensor<3> {
        let [batch, positions, given] = codes.dims();
        let stages = self.stages.len();
        assert!(
            (1..=stages).contains(&given),
            "{given} codes per position, of a quantiser of {stages} stages"
        );
        let values = self.stages[..given].iter().enumerate().map(|(at, stage)| {
            let indices = codes.clone().narrow(2, at, 1);
            stage
                .table()
                .select(0, indices.reshape([batch * positions]))
        });
        let total = values.reduce(|sum, values| sum + values);
        total
            .expect("at least one stage")
            .reshape([batch, positions, self.config.quantizer.dim])
    }

    fn update(mut self, outputs: &[QuantizerOutput]) -> Self {
        if outputs.is_empty() {
            return self;
        }
        let (mut residual, codes) = join(outputs);
        let seed = update_seed(outputs);
        let last = self.stages.len() - 1;
        let stages = self.stages.into_iter().enumerate().map(|(index, stage)| {
            let indices = codes.clone().narrow(1, index, 1).squeeze_dim::<1>(1);
            let starts = stage.starts_next();
            let before = stage.table().without_autodiff();
            let mut rng = Rng::stream(seed, "codebook", index as u64);
            let stage = stage.update_with(residual.clone(), indices.clone(), &mut rng);
            if index == last {
                return stage;
            }
            // What is left over for the next stage: by the codes that the vectors were quantised
            // with, or by the new ones if those were random.
            let quantized = if starts {
                let table = stage.table().without_autodiff();
                let indices = nearest_rows(residual.clone(), table.clone());
                table.select(0, indices)
            } else {
                before.select(0, indices)
            };
            residual = residual.clone() - quantized;
            stage
        });
        self.stages = stages.collect();
        self
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
    };

    fn quantizer(stages: usize, dropout: f64, device: &Device) -> ResidualQuantizer {
        let config = ResidualQuantizerConfig {
            dropout,
            ..ResidualQuantizerConfig::new(stages, VectorQuantizerConfig::new(4, 3))
        };
        config.init(device).unwrap().init_weights(1)
    }

    fn square_error(x: &Tensor<3>, decoded: Tensor<3>) -> f32 {
        let gap = x.clone() - decoded;
        values((gap.clone() * gap).mean())[0]
    }

    /// A cluster's mean is nearer to its vectors than zero is, in the mean of squares, so that no
    /// stage adds to the error of vectors that it was fitted to.
    #[test]
    fn error_never_grows_with_stages() {
        let device = Device::flex();
        let start = quantizer(6, 0.0, &device);
        let x: Tensor<3> = Rng::new(2).normal([8, 25, 3], &device);
        let fitted = start.clone().update(&[start.quantize(x.clone())]);
        let output = fitted.quantize(x.clone());
        let mut errors = vec![square_error(&x, x.zeros_like())];
        for stages in 1..=6 {
            let codes = output.codes.clone().narrow(2, 0, stages);
            errors.push(square_error(&x, fitted.decode_codes(codes)));
        }
        assert!(
            errors
                .windows(2)
                .all(|pair| pair[1] <= pair[0] * (1.0 + 1e-5)),
            "{errors:?}"
        );
        assert!(errors[6] < 0.3 * errors[0], "{errors:?}");
        let whole = square_error(&x, output.values);
        assert!((whole - errors[6]).abs() < 1e-6);
    }

    /// The gradient is that of the inputs, and losses are sums over the stages.
    #[test]
    fn gradient_is_straight_through_and_losses_add_up() {
        let device = Device::flex().autodiff();
        let quantizer = quantizer(2, 0.0, &device);
        let mut rng = Rng::new(3);
        let x: Tensor<3> = rng.normal([2, 4, 3], &device).require_grad();
        let weight: Tensor<3> = rng.normal([2, 4, 3], &device);
        let output = quantizer.quantize(x.clone());
        let grads = (output.values.clone() * weight.clone()).sum().backward();
        assert_eq!(values(x.grad(&grads).unwrap()), values(weight));

        let plain = quantizer.valid();
        let inputs = x.clone().detach().without_autodiff();
        let codes = output.codes.without_autodiff();
        let coarse = plain.decode_codes(codes.clone().narrow(2, 0, 1));
        let fine = plain.decode_codes(codes);
        assert_close(&values(output.values), &values(fine.clone()), 1e-6);
        let sums = [coarse, fine].map(|decoded| square_error(&inputs, decoded) * 24.0);
        let (name, loss) = &output.losses[0];
        assert_eq!((*name, output.losses.len()), ("commitment", 1));
        let expected = 0.25 * (sums[0] + sums[1]) / 2.0;
        assert_close(&values(loss.clone()), &[expected], 1e-4);
    }

    /// With dropout, a sample's value is that of its first stages, each number equally often.
    #[test]
    fn dropout_leaves_out_last_stages() {
        let device = Device::flex().autodiff();
        let stages = 3;
        let quantizer = quantizer(stages, 1.0, &device);
        let samples = 300;
        let x: Tensor<3> = Rng::new(4).normal([samples, 1, 3], &device);
        let output = quantizer.quantize_with(x.clone(), &mut Rng::new(5));
        let partial: Vec<Vec<f32>> = (1..=stages)
            .map(|count| {
                let codes = output.codes.clone().narrow(2, 0, count);
                values(quantizer.decode_codes(codes))
            })
            .collect();
        let found = values(output.values.clone());
        let mut counts = [0usize; 3];
        for sample in 0..samples {
            let range = 3 * sample..3 * sample + 3;
            let is_near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
            let matching = partial.iter().position(|partial| {
                let mut pairs = partial[range.clone()].iter().zip(&found[range.clone()]);
                pairs.all(is_near)
            });
            counts[matching.expect("the value of some stages")] += 1;
        }
        // 100 ± 5·√(300·⅓·⅔).
        assert!(
            counts.iter().all(|count| count.abs_diff(100) < 41),
            "{counts:?}"
        );
        // None without a random stream, and none off the autodiff device.
        assert_eq!(
            values(quantizer.quantize(x.clone()).values),
            *partial.last().unwrap()
        );
        let plain = quantizer.valid();
        let output = plain.quantize_with(x.without_autodiff(), &mut Rng::new(5));
        assert_eq!(values(output.values), *partial.last().unwrap());
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        let good = ResidualQuantizerConfig::new(2, VectorQuantizerConfig::new(4, 3));
        let with = |cosine| VectorQuantizerConfig {
            cosine,
            ..VectorQuantizerConfig::new(4, 3)
        };
        for (config, expected) in [
            (
                ResidualQuantizerConfig {
                    num_quantizers: 0,
                    ..good.clone()
                },
                "`num_quantizers` is 0, expected 1 to 64",
            ),
            (
                ResidualQuantizerConfig {
                    dropout: 1.5,
                    ..good.clone()
                },
                "`dropout` is 1.5",
            ),
            (
                ResidualQuantizerConfig {
                    quantizer: with(true),
                    ..good
                },
                "`quantizer.cosine` is true",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
