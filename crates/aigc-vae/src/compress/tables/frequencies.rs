//! Frequencies of any alphabet.

use super::{
    distributions::softmax,
    grid::{LOG_STEP, on_grid},
};
use crate::compress::{Interval, Rans};
use aigc_core::{Error, Result, check::ensure_argument};

/// Bits of the sum of all frequencies of a table.
pub const PRECISION: u32 = 24;

/// The largest number of symbols of a table.
pub const MAX_SYMBOLS: usize = 1 << 16;

/// Frequencies of the symbols `0..len` that sum to `2^PRECISION`, each at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrequencyTable {
    /// Sums of the frequencies before each symbol, and the sum of all.
    cumulative: Vec<u32>,
}

impl FrequencyTable {
    /// Frequencies proportional to `probabilities`, which need not sum to 1. They are mixed with
    /// `len / 2^PRECISION` of the uniform distribution, so that every symbol has a frequency: each
    /// symbol needs at most 24 bits, and 256 symbols need less than 3e-5 bits more than they would
    /// otherwise.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no symbols or more than [`MAX_SYMBOLS`], or a
    /// probability is negative or not finite, or all are 0.
    pub fn from_probabilities(probabilities: &[f64]) -> Result<Self> {
        let symbols = probabilities.len();
        ensure_argument(
            (1..=MAX_SYMBOLS).contains(&symbols),
            "probabilities",
            format!("{symbols} numbers"),
            "1 to 65536 numbers",
        )?;
        let expected = "finite numbers, 0 or above, not all 0";
        if let Some(wrong) = probabilities
            .iter()
            .find(|p| !(p.is_finite() && **p >= 0.0))
        {
            return Err(Error::argument("probabilities", wrong, expected));
        }
        let largest = probabilities.iter().copied().fold(0.0, f64::max);
        ensure_argument(largest > 0.0, "probabilities", largest, expected)?;
        // Relative to the largest, neither the sum nor its inverse can overflow.
        let probabilities: Vec<f64> = probabilities.iter().map(|p| p / largest).collect();
        let sum: f64 = probabilities.iter().sum();
        let total = 1u32 << PRECISION;
        let shared = f64::from(total - symbols as u32) / sum;
        let (mut below, mut cumulative) = (0.0f64, Vec::with_capacity(symbols + 1));
        // Partial sums of numbers that are not negative never fall, and neither do their multiples
        // and integer parts: the frequency of a symbol is 1 plus a number that is not negative.
        for (symbol, probability) in probabilities.iter().enumerate() {
            cumulative.push((below * shared) as u32 + symbol as u32);
            below += probability;
        }
        // Rounding could let a sum exceed the total by a little.
        let last = total - symbols as u32;
        for (symbol, start) in cumulative.iter_mut().enumerate() {
            *start = (*start).min(last + symbol as u32);
        }
        cumulative.push(total);
        Ok(Self { cumulative })
    }

    /// Frequencies of a softmax over `logits`, which are rounded to multiples of 1/32.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as for [`from_probabilities`](Self::from_probabilities), or if a
    /// logit is not finite.
    pub fn from_logits(logits: &[f32]) -> Result<Self> {
        let logits = on_grid("logits", logits, LOG_STEP)?;
        Self::from_probabilities(&softmax(&logits))
    }

    /// `len` symbols of the same frequency; frequencies differ by 1 if `len` is not a power of 2.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `len` is 0 or above [`MAX_SYMBOLS`].
    pub fn uniform(len: usize) -> Result<Self> {
        let symbols = len.min(MAX_SYMBOLS + 1);
        Self::from_probabilities(&vec![1.0; symbols])
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.cumulative.len() - 1
    }

    /// Whether there are no symbols: a table has at least one.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The interval of a symbol.
    ///
    /// # Panics
    /// If there is no such symbol.
    pub fn interval(&self, symbol: usize) -> Interval {
        let (start, end) = (self.cumulative[symbol], self.cumulative[symbol + 1]);
        Interval {
            start,
            size: end - start,
        }
    }

    /// The symbol to which a number below `2^PRECISION` belongs.
    pub fn symbol(&self, slot: u32) -> usize {
        self.cumulative.partition_point(|start| *start <= slot) - 1
    }

    /// Bits that a symbol needs.
    ///
    /// # Panics
    /// If there is no such symbol.
    pub fn bits(&self, symbol: usize) -> f64 {
        f64::from(PRECISION) - f64::from(self.interval(symbol).size).log2()
    }

    /// Pushes a symbol.
    ///
    /// # Panics
    /// If there is no such symbol.
    pub fn push(&self, symbol: usize, rans: &mut Rans) {
        rans.push(self.interval(symbol), PRECISION);
    }

    /// Pops a symbol.
    pub fn pop(&self, rans: &mut Rans) -> usize {
        rans.pop(PRECISION, |slot| {
            let symbol = self.symbol(slot);
            (symbol, self.interval(symbol))
        })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::compress::tables::testing::TOTAL;
    use aigc_core::rng::Rng;

    #[test]
    fn frequencies_sum_exactly_and_approximate_probabilities() {
        let mut rng = Rng::new(1);
        for case in 0..60usize {
            let symbols = match case {
                0 => 1,
                1 => 2,
                2 => MAX_SYMBOLS,
                _ => 1 + rng.random_index(600),
            };
            // Numbers of very different sizes, and zeros.
            let mut probabilities: Vec<f64> = (0..symbols)
                .map(|_| match rng.random_index(3) {
                    0 => 0.0,
                    1 => 1e-12,
                    _ => 10f64.powi(rng.random_index(12) as i32),
                })
                .collect();
            probabilities[0] += 1e-3;
            let table = FrequencyTable::from_probabilities(&probabilities).unwrap();
            assert_eq!(table.len(), symbols);
            let sum: f64 = probabilities.iter().sum();
            let mut start = 0;
            for (symbol, probability) in probabilities.iter().enumerate() {
                let interval = table.interval(symbol);
                assert_eq!(interval.start, start);
                assert!(interval.size >= 1);
                let difference = f64::from(interval.size) / TOTAL - probability / sum;
                assert!(
                    difference.abs() <= (symbols + 2) as f64 / TOTAL,
                    "{difference}"
                );
                for slot in [interval.start, interval.start + interval.size - 1] {
                    assert_eq!(table.symbol(slot), symbol);
                }
                start += interval.size;
            }
            assert_eq!(start, 1 << PRECISION);
        }
        for wrong in [&[][..], &[0.0, 0.0], &[1.0, f64::NAN], &[-1.0, 2.0]] {
            let error = FrequencyTable::from_probabilities(wrong).unwrap_err();
            assert!(error.to_string().contains("`probabilities`"), "{error}");
        }
        assert!(FrequencyTable::from_logits(&[0.0, f32::INFINITY]).is_err());
    }

    /// Sums and inverses of very small and very large numbers would overflow.
    #[test]
    fn frequencies_depend_on_the_ratios_of_probabilities_only() {
        let expected = FrequencyTable::uniform(2).unwrap();
        for size in [1e-320, 1e-300, 1e300, f64::MAX] {
            let table = FrequencyTable::from_probabilities(&[size, size]).unwrap();
            assert_eq!(table, expected, "{size}");
        }
        assert!(FrequencyTable::from_probabilities(&[f64::INFINITY, 1.0]).is_err());
    }

    #[test]
    fn logits_are_rounded_before_the_softmax() {
        let table = FrequencyTable::from_logits(&[1.0, 0.0, -2.0]).unwrap();
        // The same on a machine whose last digits differ.
        let other = FrequencyTable::from_logits(&[1.000_01, -1e-6, -1.999_99]).unwrap();
        assert_eq!(table, other);
        let sum = 1f64.exp() + 1.0 + (-2f64).exp();
        for (symbol, logit) in [1f64, 0.0, -2.0].into_iter().enumerate() {
            let bits = -(logit.exp() / sum).log2();
            assert!((table.bits(symbol) - bits).abs() < 1e-5);
        }
        assert_eq!(FrequencyTable::uniform(4).unwrap().bits(3), 2.0);
    }
}
