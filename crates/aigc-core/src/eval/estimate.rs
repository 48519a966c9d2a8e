//! Means with their uncertainty.

use crate::{Error, Result, rng::Rng};

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Sample mean.
    pub mean: f64,
    /// Standard error of the mean: the standard deviation of the values over the root of their
    /// number.
    pub standard_error: f64,
    /// Number of values.
    pub count: usize,
}

impl Estimate {
    /// Mean and standard error of independent values.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than two values.
    pub fn from_samples(values: &[f64]) -> Result<Self> {
        let count = values.len();
        if count < 2 {
            return Err(Error::argument("values", count, "at least 2"));
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let variance = values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / (count - 1) as f64;
        Ok(Self {
            mean,
            standard_error: (variance / count as f64).sqrt(),
            count,
        })
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(3);
        write!(
            f,
            "{:.digits$} ± {:.digits$}",
            self.mean, self.standard_error
        )
    }
}

/// A percentile bootstrap interval (Efron 1979). `statistic` is computed for `rounds` samples of
/// `n` items, drawn with replacement; the returned bounds exclude a fraction `(1 − confidence)/2`
/// of its values on each side.
///
/// # Errors
/// [`Error::InvalidArgument`] for no items, fewer than 20 rounds, a confidence outside (0, 1), or a
/// statistic that is NaN; errors of `statistic`.
pub fn bootstrap(
    n: usize,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
    mut statistic: impl FnMut(&[usize]) -> Result<f64>,
) -> Result<(f64, f64)> {
    if n == 0 {
        return Err(Error::argument("n", n, "at least 1"));
    }
    check_bootstrap(rounds, confidence)?;
    let found = (0..rounds)
        .map(|_| statistic(&(0..n).map(|_| rng.random_index(n)).collect::<Vec<_>>()))
        .collect::<Result<Vec<f64>>>()?;
    percentile_interval(found, confidence)
}

/// Fails for settings that give no interval.
pub(super) fn check_bootstrap(rounds: usize, confidence: f64) -> Result<()> {
    if rounds < 20 {
        return Err(Error::argument("rounds", rounds, "at least 20"));
    }
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(Error::argument("confidence", confidence, "between 0 and 1"));
    }
    Ok(())
}

/// A [`bootstrap`] interval of a statistic that drawing with replacement shifts, such as a distance
/// between sets or an entropy: repeated items make a set less varied. For a statistic in which
/// items are compared with each other, [`half_sampling`] is better.
///
/// The bias, the mean of all rounds less the statistic of all items, is subtracted.
///
/// # Errors
/// As [`bootstrap`].
pub fn centred_bootstrap(
    n: usize,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
    mut statistic: impl FnMut(&[usize]) -> Result<f64>,
) -> Result<(f64, f64)> {
    let all: Vec<usize> = (0..n).collect();
    let mut found = Vec::new();
    bootstrap(n, rounds, confidence, rng, |items| {
        let value = statistic(items)?;
        found.push(value);
        Ok(value)
    })?;
    centred_interval(found, statistic(&all)?, 1.0, confidence)
}

/// An interval of a statistic in which items are compared with each other, such as a number of
/// different n-grams or [self-BLEU](super::text::SelfBleu), by random halves (delete-d jackknife;
/// Shao and Wu 1989, <https://doi.org/10.1214/aos/1176347263>). An item that a bootstrap draws
/// twice would be compared with itself; a half has each item once at most.
///
/// Halves deviate from their mean as whole samples do from theirs. These deviations are laid around
/// the statistic of all items. Where pairs of items matter, the interval is a little too wide: by
/// about 15 % for self-BLEU.
///
/// # Errors
/// [`Error::InvalidArgument`] for fewer than four items, fewer than 20 rounds, a confidence outside
/// (0, 1), or a statistic that is NaN; errors of `statistic`.
pub fn half_sampling(
    n: usize,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
    mut statistic: impl FnMut(&[usize]) -> Result<f64>,
) -> Result<(f64, f64)> {
    if n < 4 {
        return Err(Error::argument("n", n, "at least 4"));
    }
    check_bootstrap(rounds, confidence)?;
    let half = n / 2;
    let found = (0..rounds)
        .map(|_| {
            let mut items = rng.permutation(n);
            items.truncate(half);
            statistic(&items)
        })
        .collect::<Result<Vec<f64>>>()?;
    let all: Vec<usize> = (0..n).collect();
    // The variance of a mean of m of n items is (n − m)/m times that of all.
    let factor = (half as f64 / (n - half) as f64).sqrt();
    centred_interval(found, statistic(&all)?, factor, confidence)
}

/// The percentile interval of values that are moved to the mean `centre`, with `factor` times their
/// deviations.
pub(super) fn centred_interval(
    found: Vec<f64>,
    centre: f64,
    factor: f64,
    confidence: f64,
) -> Result<(f64, f64)> {
    let mean = found.iter().sum::<f64>() / found.len() as f64;
    let moved = found.iter().map(|value| centre + factor * (value - mean));
    percentile_interval(moved.collect(), confidence)
}

/// The bounds that exclude a fraction `(1 − confidence)/2` of the values on each side.
pub(super) fn percentile_interval(mut found: Vec<f64>, confidence: f64) -> Result<(f64, f64)> {
    if found.iter().any(|value| value.is_nan()) {
        return Err(Error::argument(
            "statistic",
            "NaN",
            "a number in every round",
        ));
    }
    found.sort_by(f64::total_cmp);
    let last = found.len() - 1;
    let at = |share: f64| found[(share * last as f64).round() as usize];
    let outside = 0.5 * (1.0 - confidence);
    Ok((at(outside), at(1.0 - outside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_has_its_standard_error() {
        let estimate = Estimate::from_samples(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(estimate.mean, 2.5);
        assert!((estimate.standard_error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(format!("{estimate:.2}"), "2.50 ± 0.65");
        assert!(Estimate::from_samples(&[1.0]).is_err());
    }

    /// For the mean of normal values, the interval is nearly the mean ± 1.96 standard errors.
    #[test]
    fn bootstrap_interval_of_mean_matches_normal() {
        let mut rng = Rng::new(0);
        let values: Vec<f64> = rng.normal_vec(400).into_iter().map(f64::from).collect();
        let estimate = Estimate::from_samples(&values).unwrap();
        let mean = |items: &[usize]| {
            Ok(items.iter().map(|i| values[*i]).sum::<f64>() / items.len() as f64)
        };
        let (low, high) = bootstrap(400, 2000, 0.95, &mut rng, mean).unwrap();
        let half = 1.96 * estimate.standard_error;
        assert!((low - (estimate.mean - half)).abs() < 0.15 * half, "{low}");
        assert!(
            (high - (estimate.mean + half)).abs() < 0.15 * half,
            "{high}"
        );
        assert!(bootstrap(0, 100, 0.9, &mut rng, |_| Ok(0.0)).is_err());
        assert!(bootstrap(3, 2, 0.9, &mut rng, |_| Ok(0.0)).is_err());
        assert!(bootstrap(3, 100, 1.0, &mut rng, |_| Ok(0.0)).is_err());
        let nan = bootstrap(3, 100, 0.9, &mut rng, |items| {
            Ok(if items[0] == 0 { f64::NAN } else { 1.0 })
        });
        assert!(nan.unwrap_err().to_string().contains("`statistic` is NaN"));
    }

    /// Of 200 distinct items, a round draws about 63 %; the number of distinct ones is centred at
    /// 200 nevertheless.
    #[test]
    fn centred_interval_holds_a_shifted_statistic() {
        let distinct = |items: &[usize]| {
            let set: std::collections::BTreeSet<&usize> = items.iter().collect();
            Ok(set.len() as f64)
        };
        let mut rng = Rng::new(3);
        let (_, high) = bootstrap(200, 100, 0.95, &mut rng, distinct).unwrap();
        assert!(high < 150.0, "{high}");
        let (low, high) = centred_bootstrap(200, 100, 0.95, &mut rng, distinct).unwrap();
        assert!(
            (185.0..200.0).contains(&low) && (200.0..215.0).contains(&high),
            "{low} {high}"
        );
        assert!(centred_bootstrap(0, 100, 0.95, &mut rng, distinct).is_err());
    }

    /// The mean of an odd number of values: ± 1.96 standard errors.
    #[test]
    fn halves_give_the_normal_interval_of_a_mean() {
        let mut rng = Rng::new(8);
        let values: Vec<f64> = rng.normal_vec(41).into_iter().map(f64::from).collect();
        let estimate = Estimate::from_samples(&values).unwrap();
        let mean = |items: &[usize]| {
            Ok(items.iter().map(|i| values[*i]).sum::<f64>() / items.len() as f64)
        };
        let (low, high) = half_sampling(41, 4000, 0.95, &mut rng, mean).unwrap();
        let half = 1.96 * estimate.standard_error;
        for (found, expected) in [(low, estimate.mean - half), (high, estimate.mean + half)] {
            assert!((found - expected).abs() < 0.1 * half, "{found} {expected}");
        }
        assert!(half_sampling(3, 100, 0.95, &mut rng, mean).is_err());
        assert!(half_sampling(4, 19, 0.95, &mut rng, mean).is_err());
    }

    /// All items differ, always. A bootstrap repeats items, and finds a spread that is not there.
    #[test]
    fn halves_do_not_compare_items_with_themselves() {
        let share = |items: &[usize]| {
            let set: std::collections::BTreeSet<&usize> = items.iter().collect();
            Ok(set.len() as f64 / items.len() as f64)
        };
        let mut rng = Rng::new(4);
        let found = half_sampling(50, 100, 0.95, &mut rng, share).unwrap();
        assert_eq!(found, (1.0, 1.0));
        let (low, high) = centred_bootstrap(50, 100, 0.95, &mut rng, share).unwrap();
        assert!(high - low > 0.05, "{low} {high}");
    }

    /// The share of different values among 30 of 40: the interval holds the mean of such samples
    /// about as often as it says.
    #[test]
    fn halves_cover_as_often_as_they_say() {
        let share = |values: &[usize], items: &[usize]| {
            let set: std::collections::BTreeSet<usize> = items.iter().map(|i| values[*i]).collect();
            set.len() as f64 / items.len() as f64
        };
        let all: Vec<usize> = (0..30).collect();
        let mut rng = Rng::new(6);
        // E: 40·(1 − (39/40)³⁰) different values.
        let expected = 40.0 * (1.0 - (39.0f64 / 40.0).powi(30)) / 30.0;
        let mut hits = 0;
        for _ in 0..100 {
            let values: Vec<usize> = (0..30).map(|_| rng.random_index(40)).collect();
            let of = |items: &[usize]| Ok(share(&values, items));
            let (low, high) = half_sampling(30, 100, 0.9, &mut rng, of).unwrap();
            let value = share(&values, &all);
            assert!(low <= value && value <= high, "{low} {value} {high}");
            hits += usize::from(low <= expected && expected <= high);
        }
        assert!(hits >= 80, "{hits}");
    }
}
