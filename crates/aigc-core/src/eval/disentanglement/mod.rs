//! Disentanglement: whether each latent dimension stands for one factor of the data.
//!
//! The measures compare codes, such as the posterior means of a VAE, with the factors that the
//! samples were made from, for example those of [`shapes`](crate::data::shapes):
//!
//! | item | what it measures |
//! |---|---|
//! | [`mutual_information_gap`] | MIG: the information about a factor in the two best codes |
//! | [`separated_attribute_predictability`] | SAP: the same for predictions from one code |
//! | [`dci()`] | DCI: whether a code serves one factor, and a factor needs one code |
//!
//! ```
//! use aigc_core::{data::shapes, eval::disentanglement::{FactorCodes, mutual_information_gap}};
//!
//! # fn main() -> aigc_core::Result<()> {
//! let images = (0..shapes::LEN).step_by(5);
//! let factors: Vec<[usize; 6]> = images.map(shapes::factors).collect();
//! // Codes that are the factors themselves.
//! let codes: Vec<f64> = factors.iter().flatten().map(|value| *value as f64).collect();
//! let factors: Vec<u32> = factors.iter().flatten().map(|value| *value as u32).collect();
//! let data = FactorCodes::new(&codes, 6, &factors, &shapes::NUM_VALUES)?.with_categorical(&[0])?;
//! assert!(mutual_information_gap(&data, 20)?.score > 0.95);
//! # Ok(()) }
//! ```

mod dci;
mod mig;
mod sap;

pub use dci::{Dci, DciConfig, dci};
pub use mig::{MutualInformationGap, mutual_information_gap};
pub use sap::{SeparatedAttributePredictability, separated_attribute_predictability};

use crate::{Error, Result};

/// Limit on the number of values of a factor.
const MAX_VALUES: usize = 1 << 16;

/// Codes of samples and the factors that the samples were made from.
#[derive(Clone, Debug)]
pub struct FactorCodes<'a> {
    /// `[n, num_codes]`.
    codes: &'a [f64],
    num_codes: usize,
    /// `[n, factors]`.
    factors: &'a [u32],
    num_values: &'a [usize],
    categorical: Vec<bool>,
}

impl<'a> FactorCodes<'a> {
    /// Codes and factors of the same samples. The values of all factors are ordered, such as sizes
    /// or positions, until [`with_categorical`](Self::with_categorical) is called.
    ///
    /// # Shapes
    /// - codes: `[n, num_codes]`, row by row
    /// - factors: `[n, factors]`, row by row; each from 0 to its number of values − 1
    /// - num_values: `[factors]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no codes or factors, or fewer than two samples; if
    /// the numbers of values do not fit each other; if a code is not finite or a factor out of
    /// range; if a factor has the same value in all samples, or more than 65,536 values.
    pub fn new(
        codes: &'a [f64],
        num_codes: usize,
        factors: &'a [u32],
        num_values: &'a [usize],
    ) -> Result<Self> {
        if num_codes == 0 {
            return Err(Error::argument("num_codes", 0, "at least 1"));
        }
        if num_values.is_empty() {
            return Err(Error::argument(
                "num_values",
                "empty",
                "at least one factor",
            ));
        }
        if let Some(count) = num_values.iter().find(|count| **count > MAX_VALUES) {
            let expected = format!("at most {MAX_VALUES} values");
            return Err(Error::argument("num_values", count, expected));
        }
        let n = codes.len() / num_codes;
        if n < 2 || n * num_codes != codes.len() {
            let expected = format!("at least 2 samples of {num_codes} codes");
            return Err(Error::argument(
                "codes",
                format!("{} values", codes.len()),
                expected,
            ));
        }
        if factors.len() != n * num_values.len() {
            return Err(Error::argument(
                "factors",
                format!("{} values", factors.len()),
                format!("{n} samples of {} factors", num_values.len()),
            ));
        }
        if let Some(code) = codes.iter().find(|code| !code.is_finite()) {
            return Err(Error::argument("codes", code, "finite numbers"));
        }
        for row in factors.chunks_exact(num_values.len()) {
            for (factor, (value, count)) in row.iter().zip(num_values).enumerate() {
                if *value as usize >= *count {
                    let expected =
                        format!("below {count}, the number of values of factor {factor}");
                    return Err(Error::argument("factors", value, expected));
                }
            }
        }
        let data = Self {
            codes,
            num_codes,
            factors,
            num_values,
            categorical: vec![false; num_values.len()],
        };
        for factor in 0..num_values.len() {
            let mut values = data.factor(factor);
            let first = values.next();
            if values.all(|value| Some(value) == first) {
                return Err(Error::argument(
                    "factors",
                    format!("constant for factor {factor}"),
                    "at least two values of each factor",
                ));
            }
        }
        Ok(data)
    }

    /// Marks factors, given by their indices, whose values have no order, such as kinds of shapes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if an index is not that of a factor.
    pub fn with_categorical(mut self, factors: &[usize]) -> Result<Self> {
        let known = self.num_factors();
        for factor in factors {
            let Some(categorical) = self.categorical.get_mut(*factor) else {
                let expected = format!("below {known}, the number of factors");
                return Err(Error::argument("categorical", factor, expected));
            };
            *categorical = true;
        }
        Ok(self)
    }

    /// Number of samples.
    pub fn num_samples(&self) -> usize {
        self.codes.len() / self.num_codes
    }

    /// Number of codes of a sample.
    pub fn num_codes(&self) -> usize {
        self.num_codes
    }

    /// Number of factors of a sample.
    pub fn num_factors(&self) -> usize {
        self.num_values.len()
    }

    /// A code of all samples.
    fn code(&self, code: usize) -> impl Iterator<Item = f64> + '_ {
        self.codes[code..].iter().step_by(self.num_codes).copied()
    }

    /// A factor of all samples.
    fn factor(&self, factor: usize) -> impl Iterator<Item = usize> + '_ {
        let values = self.factors[factor..].iter().step_by(self.num_factors());
        values.map(|value| *value as usize)
    }

    /// The bin of each sample for a code: `bins` bins of equal width from the least to the largest
    /// value. All bins are 0 for a constant code.
    fn binned(&self, code: usize, bins: usize) -> Vec<usize> {
        let range = self
            .code(code)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
                (low.min(x), high.max(x))
            });
        // Halved, because the difference of two finite numbers may be infinite.
        let (low, width) = (range.0, 0.5 * range.1 - 0.5 * range.0);
        let bin = |x: f64| match width > 0.0 {
            true => (((0.5 * x - 0.5 * low) / width * bins as f64) as usize).min(bins - 1),
            false => 0,
        };
        self.code(code).map(bin).collect()
    }
}

/// A score for each pair of a code and a factor.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreMatrix {
    /// `[codes, factors]`, row by row.
    values: Vec<f64>,
    num_factors: usize,
}

impl ScoreMatrix {
    /// A matrix of `score(code, factor)`.
    fn from_fn(num_codes: usize, num_factors: usize, score: impl Fn(usize, usize) -> f64) -> Self {
        let pairs = 0..num_codes * num_factors;
        let scores = pairs.map(|pair| score(pair / num_factors, pair % num_factors));
        Self {
            values: scores.collect(),
            num_factors,
        }
    }

    /// Number of codes.
    pub fn num_codes(&self) -> usize {
        self.values.len() / self.num_factors
    }

    /// Number of factors.
    pub fn num_factors(&self) -> usize {
        self.num_factors
    }

    /// The score of a code for a factor.
    ///
    /// # Panics
    /// If there is no such code or factor.
    pub fn get(&self, code: usize, factor: usize) -> f64 {
        self.code(code)[factor]
    }

    /// The scores of a code for all factors.
    ///
    /// # Panics
    /// If there is no such code.
    pub fn code(&self, code: usize) -> &[f64] {
        &self.values[code * self.num_factors..][..self.num_factors]
    }

    /// The scores of all codes for a factor.
    ///
    /// # Panics
    /// If there is no such factor.
    pub fn factor(&self, factor: usize) -> Vec<f64> {
        assert!(
            factor < self.num_factors,
            "factor {factor} of {}",
            self.num_factors
        );
        let scores = self.values[factor..].iter().step_by(self.num_factors);
        scores.copied().collect()
    }

    /// The difference of the largest score for a factor and the second largest, which is 0 if there
    /// is only one code.
    fn gap(&self, factor: usize) -> f64 {
        let mut scores = self.factor(factor);
        scores.sort_by(|a, b| b.total_cmp(a));
        scores[0] - scores.get(1).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod testing {
    //! Codes and factors for tests.

    use crate::rng::Rng;

    /// All combinations of factors with these numbers of values, `copies` times.
    pub(super) fn grid(num_values: &[usize], copies: usize) -> Vec<u32> {
        let combinations: usize = num_values.iter().product();
        let mut factors = Vec::new();
        for sample in 0..combinations * copies {
            let mut rest = sample;
            for count in num_values {
                factors.push((rest % count) as u32);
                rest /= count;
            }
        }
        factors
    }

    pub(super) fn noise(seed: u64, n: usize) -> Vec<f64> {
        let values = Rng::new(seed).normal_vec(n);
        values.into_iter().map(f64::from).collect()
    }

    pub(super) fn as_codes(factors: &[u32]) -> Vec<f64> {
        factors.iter().map(|value| f64::from(*value)).collect()
    }

    /// Two binary factors, one of which is code 0 except in 1 of 8 samples; code 1 is constant and
    /// code 2 is the second factor. All frequencies are exact.
    pub(super) fn binary_symmetric() -> (Vec<f64>, Vec<u32>) {
        let (mut codes, mut factors) = (Vec::new(), Vec::new());
        for sample in 0..32u32 {
            let (one, two, flipped) = (sample % 2, sample / 2 % 2, sample / 4 == 0);
            factors.extend([one, two]);
            let code = if flipped { 1 - one } else { one };
            codes.extend([f64::from(code), 7.0, -f64::from(two)]);
        }
        (codes, factors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_have_equal_widths() {
        let codes = [0.0, 0.9, 1.1, 2.5, 4.0, 3.99];
        let data = FactorCodes::new(&codes, 1, &[0, 1, 0, 1, 0, 1], &[2]).unwrap();
        assert_eq!(data.binned(0, 4), [0, 0, 1, 2, 3, 3]);
        let huge = [-1e308, 1e308, 0.0];
        let data = FactorCodes::new(&huge, 1, &[0, 1, 0], &[2]).unwrap();
        assert_eq!(data.binned(0, 4), [0, 3, 2]);
        let constant = FactorCodes::new(&[3.0, 3.0], 1, &[0, 1], &[2]).unwrap();
        assert_eq!(constant.binned(0, 4), [0, 0]);
    }

    #[test]
    fn matrix_has_rows_of_codes() {
        let matrix = ScoreMatrix::from_fn(3, 2, |code, factor| (10 * code + factor) as f64);
        assert_eq!((matrix.num_codes(), matrix.num_factors()), (3, 2));
        assert_eq!(
            (matrix.get(2, 1), matrix.code(1)),
            (21.0, &[10.0, 11.0][..])
        );
        assert_eq!(matrix.factor(1), [1.0, 11.0, 21.0]);
        assert_eq!(matrix.gap(0), 10.0);
        assert_eq!(ScoreMatrix::from_fn(1, 1, |_, _| 5.0).gap(0), 5.0);
    }

    #[test]
    fn invalid_data_are_errors() {
        let message = |codes: &[f64], num_codes, factors: &[u32], num_values: &[usize]| {
            let error = FactorCodes::new(codes, num_codes, factors, num_values).unwrap_err();
            error.to_string()
        };
        let codes = [0.0, 1.0, 2.0, 3.0];
        assert!(message(&codes, 0, &[0, 1], &[2]).contains("`num_codes` is 0"));
        assert!(message(&codes, 2, &[0, 1], &[]).contains("`num_values` is empty"));
        assert!(message(&codes, 3, &[0], &[2]).contains("`codes` is 4 values"));
        assert!(message(&codes, 2, &[0, 1, 0], &[2]).contains("`factors` is 3 values"));
        assert!(message(&[0.0, f64::NAN], 1, &[0, 1], &[2]).contains("`codes` is NaN"));
        assert!(message(&codes, 2, &[0, 2], &[2]).contains("below 2, the number of values"));
        assert!(message(&codes, 2, &[1, 1], &[2]).contains("constant for factor 0"));
        assert!(message(&codes, 2, &[0, 1], &[1 << 20]).contains("at most 65536"));
        let data = FactorCodes::new(&codes, 2, &[0, 1], &[2]).unwrap();
        assert_eq!(
            (data.num_samples(), data.num_codes(), data.num_factors()),
            (2, 2, 1)
        );
        let error = data.with_categorical(&[1]).unwrap_err().to_string();
        assert!(
            error.contains("`categorical` is 1, expected below 1"),
            "{error}"
        );
    }
}
