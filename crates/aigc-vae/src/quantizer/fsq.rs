//! Finite scalar quantisation (Mentzer et al. 2023, <https://arxiv.org/abs/2309.15505>).

use super::{
    Quantizer, QuantizerOutput, check_codebooks, check_dim, check_num_codes, straight_through,
};
use aigc_core::{
    Result,
    check::{self, ensure},
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};

/// Keeps bounded values off the outer limits of the last levels.
const MARGIN: f64 = 1e-3;

/// Configuration to create a [`FiniteScalarQuantizer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FiniteScalarQuantizerConfig {
    /// Number of levels of each dimension, 2 to 256. Their product, at most 2²⁰, is the number of
    /// codes. The paper recommends 8, 5, 5, 5 for about 2¹⁰ codes and at least 5 everywhere.
    pub levels: Vec<usize>,
}

impl FiniteScalarQuantizerConfig {
    /// Dimensions with these numbers of levels.
    pub fn new(levels: &[usize]) -> Self {
        Self {
            levels: levels.to_vec(),
        }
    }

    /// Number of dimensions of the vectors.
    pub fn dim(&self) -> usize {
        self.levels.len()
    }

    /// Fails unless all values are in their ranges.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        let dims = self.levels.len();
        let expected = "1 to 20 dimensions";
        ensure((1..=20).contains(&dims), "levels", dims, expected)?;
        for (index, levels) in self.levels.iter().enumerate() {
            check::in_range(&format!("levels[{index}]"), *levels, 2..=256)?;
        }
        let product = |product: usize, levels: &usize| product.saturating_mul(*levels);
        check_num_codes("levels", self.levels.iter().fold(1, product))
    }

    /// Creates the quantiser. It has no parameters; `device` is that of its inputs.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, _device: &Device) -> Result<FiniteScalarQuantizer> {
        self.validate()?;
        Ok(FiniteScalarQuantizer {
            config: self.clone(),
        })
    }
}

/// Rounds each dimension of a vector to one of a few levels, after a `tanh`. The codes are the
/// points of the grid, so that there is no table to learn and no loss.
///
/// Dimension `d` with `L` levels is bounded by `f(x) = tanh(x + s)·h − o` with `h = (L − 1)/2`, and
/// rounded. For an even `L`, `o = ½` and `s = artanh(o/h)`, so that `f(0) = 0`; the two levels of
/// `L = 2` are symmetric, `s = 0`. (The code of Mentzer et al. has `tan` in place of `artanh`, also
/// for two levels, so that its `f(0)` is not 0.) The values are divided by `⌊L/2⌋`, and lie in
/// `[−1, 1]`.
#[derive(Module, Debug)]
pub struct FiniteScalarQuantizer {
    #[module(skip)]
    config: FiniteScalarQuantizerConfig,
}

impl FiniteScalarQuantizer {
    /// Configuration of the quantiser.
    pub fn config(&self) -> &FiniteScalarQuantizerConfig {
        &self.config
    }

    /// A value for each dimension as a tensor, `[1, 1, dim]`.
    fn constants(&self, value: impl Fn(usize) -> f64, device: &Device) -> Tensor<3> {
        let levels = self.config.levels.iter();
        let values: Vec<f32> = levels.map(|levels| value(*levels) as f32).collect();
        let shape = [1, 1, values.len()];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// The inputs, bounded to the range of the levels; rounding gives `−⌊L/2⌋` to
    /// `⌈L/2⌉ − 1`.
    fn bound(&self, x: Tensor<3>) -> Tensor<3> {
        let device = x.device();
        let (shift, half) = (
            self.constants(shift, &device),
            self.constants(half_range, &device),
        );
        (x + shift).tanh() * half - self.constants(offset, &device)
    }

    /// Numbers of codes before each dimension: the place values of an index.
    fn place_values(&self) -> Vec<usize> {
        let levels = self.config.levels.iter();
        let places = levels.scan(1, |place, levels| {
            let value = *place;
            *place *= levels;
            Some(value)
        });
        places.collect()
    }
}

/// Half of the range of the bounded values.
fn half_range(levels: usize) -> f64 {
    (levels - 1) as f64 * 0.5 * (1.0 - MARGIN)
}

fn offset(levels: usize) -> f64 {
    if levels.is_multiple_of(2) { 0.5 } else { 0.0 }
}

fn shift(levels: usize) -> f64 {
    if levels == 2 {
        0.0
    } else {
        (offset(levels) / half_range(levels)).atanh()
    }
}

/// What the rounded values are divided by.
fn half_width(levels: usize) -> f64 {
    (levels / 2) as f64
}

impl Quantizer for FiniteScalarQuantizer {
    fn dim(&self) -> usize {
        self.config.levels.len()
    }

    fn num_codes(&self) -> usize {
        self.config.levels.iter().product()
    }

    fn codebooks(&self) -> usize {
        1
    }

    fn quantize(&self, x: Tensor<3>) -> QuantizerOutput {
        check_dim(&x, self.dim());
        let device = x.device();
        let half_width = self.constants(half_width, &device);
        let bounded = self.bound(x.clone());
        let rounded = bounded.clone().detach().round();
        let places = self.place_values().into_iter();
        let places: Vec<f32> = places.map(|place| place as f32).collect();
        let places = TensorData::new(places, [1, 1, self.dim()]);
        let places = Tensor::<3>::from_data(places, &device);
        // Exact in floats: indices are below 2²⁰.
        let digits = rounded.clone() + half_width.clone();
        QuantizerOutput {
            inputs: x,
            values: straight_through(bounded, rounded) / half_width,
            codes: (digits * places).sum_dim(2).int(),
            losses: Vec::new(),
            seed: None,
        }
    }

    fn decode_codes(&self, codes: Tensor<3, Int>) -> Tensor<3> {
        check_codebooks(&codes, 1);
        let device = codes.device();
        let levels = self.config.levels.iter();
        let digits = levels.zip(self.place_values()).map(|(levels, place)| {
            let digit = codes.clone().div_scalar(place as i64);
            digit.remainder_scalar(*levels as i64).float()
        });
        let half_width = self.constants(half_width, &device);
        (Tensor::cat(digits.collect(), 2) - half_width.clone()) / half_width
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};
    use burn::tensor::IndexingUpdateOp;

    fn quantizer(levels: &[usize]) -> FiniteScalarQuantizer {
        let config = FiniteScalarQuantizerConfig::new(levels);
        config.init(&Device::flex()).unwrap()
    }

    fn indices(codes: Tensor<3, Int>) -> Vec<i64> {
        codes.into_data().iter::<i64>().collect()
    }

    /// Every index has its own value, and an input that is bounded to that value gets the index.
    #[test]
    fn indices_and_codes_are_a_bijection() {
        let device = Device::flex();
        for levels in [&[8, 5, 5, 5][..], &[2, 3, 4], &[7], &[2, 2, 2, 2, 2]] {
            let quantizer = quantizer(levels);
            let n = quantizer.num_codes();
            assert_eq!(n, levels.iter().product::<usize>());
            let all = Tensor::<1, Int>::arange(0..n as i64, &device).reshape([1, n, 1]);
            let decoded = quantizer.decode_codes(all);
            let rows = values(decoded.clone());
            let mut distinct: Vec<Vec<u32>> = rows
                .chunks(levels.len())
                .map(|row| row.iter().map(|value| value.to_bits()).collect())
                .collect();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), n);
            assert!(rows.iter().all(|value| value.abs() <= 1.0));
            // The inverse of the bound at each grid point.
            let inputs: Vec<f32> = rows
                .iter()
                .enumerate()
                .map(|(i, value)| {
                    let l = levels[i % levels.len()];
                    let rounded = f64::from(*value) * half_width(l);
                    let inside = (rounded + offset(l)) / half_range(l);
                    // The outermost levels lie a little outside of the bounded range.
                    (inside.clamp(-0.999_999, 0.999_999).atanh() - shift(l)) as f32
                })
                .collect();
            let inputs = TensorData::new(inputs, [1, n, levels.len()]);
            let output = quantizer.quantize(Tensor::from_data(inputs, &device));
            let expected: Vec<i64> = (0..n as i64).collect();
            assert_eq!(indices(output.codes), expected, "{levels:?}");
            assert_close(&values(output.values), &rows, 1e-6);
        }
    }

    /// Extreme inputs reach the outermost levels and no others, and zero is a level.
    #[test]
    fn bound_reaches_all_levels() {
        let device = Device::flex();
        for levels in 2..=256usize {
            let quantizer = quantizer(&[levels]);
            let x = Tensor::<3>::from_floats([[[-50.0], [50.0], [0.0]]], &device);
            let output = quantizer.quantize(x);
            let codes = indices(output.codes);
            assert_eq!(codes[..2], [0, levels as i64 - 1], "{levels}");
            if levels > 2 {
                assert_eq!(values(output.values)[2], 0.0, "{levels}");
            }
        }
        // Two levels are symmetric.
        let x = Tensor::<3>::from_floats([[[-0.01], [0.01]]], &device);
        assert_eq!(indices(quantizer(&[2]).quantize(x).codes), [0, 1]);
    }

    /// The gradient is that of the bound: `h·(1 − tanh²(x + s)) / ⌊L/2⌋`.
    #[test]
    fn straight_through_gradient_is_that_of_the_bound() {
        let device = Device::flex().autodiff();
        let levels = [4, 5];
        let x = Tensor::<3>::from_floats([[[0.3, -0.2], [-1.0, 0.9]]], &device).require_grad();
        let weight = [1.0f64, -2.0, 0.5, 3.0];
        let data = TensorData::new(weight.map(|w| w as f32).to_vec(), [1, 2, 2]);
        let output = quantizer(&levels).quantize(x.clone());
        assert!(output.losses.is_empty());
        let product = output.values * Tensor::<3>::from_data(data, &device);
        let grads = product.sum().backward();
        let expected: Vec<f32> = [0.3f64, -0.2, -1.0, 0.9]
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let l = levels[i % 2];
                let slope = 1.0 - (x + shift(l)).tanh().powi(2);
                (weight[i] * half_range(l) * slope / half_width(l)) as f32
            })
            .collect();
        assert_close(&values(x.grad(&grads).unwrap()), &expected, 1e-5);
    }

    /// The levels divide the bounded range into steps of one length, and half steps at the ends.
    #[test]
    fn levels_divide_the_bounded_range() {
        let device = Device::flex();
        let quantizer = quantizer(&[6]);
        let n = 6000;
        let inside = (0..n).map(|i| (2 * i + 1) as f64 / n as f64 - 1.0);
        let x: Vec<f32> = inside.map(|y| (y.atanh() - shift(6)) as f32).collect();
        let x = Tensor::<3>::from_data(TensorData::new(x, [1, n, 1]), &device);
        let codes = quantizer.quantize(x).codes.reshape([n]);
        let counts = values(Tensor::<1>::zeros([6], &device).select_assign(
            0,
            codes,
            Tensor::ones([n], &device),
            IndexingUpdateOp::Add,
        ));
        // The range is `±2.5·(1 − margin)` around `−½`.
        let step = n as f32 / 5.0;
        for (level, count) in counts.iter().enumerate() {
            let share = if level == 0 || level == 5 { 0.5 } else { 1.0 };
            assert!((count - share * step).abs() < 0.01 * step, "{counts:?}");
        }
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        for (levels, expected) in [
            (&[][..], "`levels` is 0, expected 1 to 20 dimensions"),
            (&[8, 1], "`levels[1]` is 1, expected 2 to 256"),
            (&[257], "`levels[0]` is 257"),
            (&[256, 256, 256], "`levels` is 16777216, expected 2 to"),
            (&[256; 20], "`levels` is 18446744073709551615"),
        ] {
            let config = FiniteScalarQuantizerConfig::new(levels);
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
