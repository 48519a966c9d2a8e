//! Counts per class.

use crate::{Error, Result};

/// Number of samples of each class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassHistogram {
    counts: Vec<u64>,
}

impl ClassHistogram {
    /// An empty histogram of `classes` classes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no classes.
    pub fn new(classes: usize) -> Result<Self> {
        if classes == 0 {
            return Err(Error::argument("classes", classes, "at least 1"));
        }
        Ok(Self {
            counts: vec![0; classes],
        })
    }

    /// Counts predicted classes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a class out of range.
    pub fn add(&mut self, classes: impl IntoIterator<Item = u32>) -> Result<()> {
        let known = self.counts.len();
        for class in classes {
            let count = self.counts.get_mut(class as usize);
            *count.ok_or_else(|| Error::argument("class", class, format!("below {known}")))? += 1;
        }
        Ok(())
    }

    /// The counts.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Sum of all counts.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Number of classes with at least one sample.
    pub fn num_seen(&self) -> usize {
        self.counts.iter().filter(|count| **count > 0).count()
    }

    /// `KL(seen ‖ uniform) = Σ p·ln(p·k)` in nats: 0 for a uniform histogram, `ln k` for a single
    /// class. The measure of Stacked-MNIST (Srivastava et al. 2017,
    /// <https://arxiv.org/abs/1705.07761>). 0 for an empty histogram.
    pub fn kl_to_uniform(&self) -> f64 {
        let k = self.counts.len() as f64;
        self.shares()
            .filter(|p| *p > 0.0)
            .map(|p| p * (p * k).ln())
            .sum()
    }

    /// Total variation from uniform, half of `Σ |p − 1/k|`: 0 for a uniform histogram, `1 − 1/k`
    /// for a single class.
    pub fn total_variation(&self) -> f64 {
        let even = 1.0 / self.counts.len() as f64;
        if self.total() == 0 {
            return 0.0;
        }
        0.5 * self.shares().map(|p| (p - even).abs()).sum::<f64>()
    }

    fn shares(&self) -> impl Iterator<Item = f64> + '_ {
        let total = self.total().max(1) as f64;
        self.counts.iter().map(move |count| *count as f64 / total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_match_closed_forms() {
        let mut histogram = ClassHistogram::new(4).unwrap();
        assert_eq!(
            (
                histogram.kl_to_uniform(),
                histogram.total_variation(),
                histogram.num_seen()
            ),
            (0.0, 0.0, 0)
        );
        histogram.add([0, 1, 2, 3]).unwrap();
        assert_eq!(
            (
                histogram.kl_to_uniform(),
                histogram.total_variation(),
                histogram.num_seen()
            ),
            (0.0, 0.0, 4)
        );
        let mut one = ClassHistogram::new(4).unwrap();
        one.add([2; 8]).unwrap();
        assert!((one.kl_to_uniform() - 4f64.ln()).abs() < 1e-12);
        assert!((one.total_variation() - 0.75).abs() < 1e-12);
        assert_eq!(
            (one.num_seen(), one.total(), one.counts()),
            (1, 8, &[0, 0, 8, 0][..])
        );
        let mut half = ClassHistogram::new(2).unwrap();
        half.add([0, 0, 0, 1]).unwrap();
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((half.kl_to_uniform() - expected).abs() < 1e-12);
        assert!((half.total_variation() - 0.25).abs() < 1e-12);
    }

    #[test]
    fn unknown_classes_are_errors() {
        assert!(ClassHistogram::new(0).is_err());
        let error = ClassHistogram::new(10)
            .unwrap()
            .add([10])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`class` is 10, expected below 10"),
            "{error}"
        );
    }
}
