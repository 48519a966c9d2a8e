//! Shares of a count, with their uncertainty.

use crate::{Error, Result};

/// The 97.5 % point of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A share: `count` of `total` items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proportion {
    count: usize,
    total: usize,
}

impl Proportion {
    /// The share of `count` items among `total`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `total` is 0 or `count` exceeds it.
    pub fn new(count: usize, total: usize) -> Result<Self> {
        if total == 0 {
            return Err(Error::argument("total", total, "at least 1"));
        }
        if count > total {
            return Err(Error::argument(
                "count",
                count,
                format!("at most {total}, the total"),
            ));
        }
        Ok(Self { count, total })
    }

    /// Number of items that count.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Number of all items.
    pub fn total(&self) -> usize {
        self.total
    }

    /// `count / total`, in `[0, 1]`.
    pub fn value(&self) -> f64 {
        self.count as f64 / self.total as f64
    }

    /// The 95 % score interval (Wilson 1927, <https://doi.org/10.1080/01621459.1927.10502953>). It
    /// is also valid for shares near 0 and 1.
    pub fn interval(&self) -> (f64, f64) {
        let (n, p) = (self.total as f64, self.value());
        let scale = 1.0 / (1.0 + Z * Z / n);
        let center = scale * (p + Z * Z / (2.0 * n));
        let half = scale * Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        ((center - half).max(0.0), (center + half).min(1.0))
    }
}

impl std::fmt::Display for Proportion {
    /// In percent, with the interval: `95.0 % [88.8, 97.8]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let (low, high) = self.interval();
        write!(
            f,
            "{:.digits$} % [{:.digits$}, {:.digits$}]",
            100.0 * self.value(),
            100.0 * low,
            100.0 * high
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_matches_closed_forms() {
        // With none of n, the upper bound is z² / (n + z²).
        let (low, high) = Proportion::new(0, 10).unwrap().interval();
        assert_eq!(low, 0.0);
        assert!((high - Z * Z / (10.0 + Z * Z)).abs() < 1e-12, "{high}");
        let (low, high) = Proportion::new(50, 100).unwrap().interval();
        assert!((low + high - 1.0).abs() < 1e-12);
        assert_eq!(
            Proportion::new(95, 100).unwrap().to_string(),
            "95.0 % [88.8, 97.8]"
        );
    }

    #[test]
    fn impossible_shares_are_errors() {
        assert!(Proportion::new(0, 0).is_err());
        let error = Proportion::new(3, 2).unwrap_err().to_string();
        assert!(
            error.contains("`count` is 3, expected at most 2"),
            "{error}"
        );
    }
}
