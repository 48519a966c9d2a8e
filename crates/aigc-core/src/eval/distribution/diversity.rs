//! How far the samples of one set are apart.

use super::{Features, check_count};
use crate::{
    Error, Result,
    eval::{
        ClassHistogram, Estimate,
        features::pairwise::{for_each_upper_block, squared_distance, squared_norms},
    },
    rng::Rng,
};
use std::collections::BTreeMap;

/// The mean Euclidean distance of all pairs of different samples. Its time grows with the square of
/// the number of samples; [`sampled_pairwise_distance`] takes some of the pairs. Distances come
/// from inner products, so those of equal samples are as small as rounding allows, not exactly 0.
///
/// The standard error is that of a mean over pairs of independent samples (Hoeffding 1948): twice
/// the deviation of the samples' mean distances to all others, over the root of their number.
///
/// # Errors
/// [`Error::InvalidArgument`] for fewer than two samples.
pub fn mean_pairwise_distance(x: &Features) -> Result<Estimate> {
    check_count(x, 2)?;
    let (n, norms) = (x.len(), squared_norms(x));
    let mut sums = vec![0.0; n];
    for_each_upper_block(x, |first, products| {
        for (row, products) in products.chunks_exact(n - first).enumerate() {
            let i = first + row;
            for (j, product) in (i + 1..n).zip(&products[row + 1..]) {
                let distance = (norms[i] + norms[j] - 2.0 * product).max(0.0).sqrt();
                sums[i] += distance;
                sums[j] += distance;
            }
        }
    });
    let others = (n - 1) as f64;
    let means: Vec<f64> = sums.iter().map(|sum| sum / others).collect();
    let estimate = Estimate::from_samples(&means)?;
    Ok(Estimate {
        standard_error: 2.0 * estimate.standard_error,
        ..estimate
    })
}

/// The mean Euclidean distance of at least `pairs` random pairs of different samples, with its
/// standard error.
///
/// Pairs that share a sample depend on each other: however many are drawn, a variance of `4·ζ/n`
/// stays, with `ζ` the covariance of two distances from the same sample (Hoeffding 1948). So each
/// sample that is drawn is compared with two others.
///
/// # Errors
/// [`Error::InvalidArgument`] for fewer than two samples or two pairs.
pub fn sampled_pairwise_distance(x: &Features, pairs: usize, seed: u64) -> Result<Estimate> {
    check_count(x, 2)?;
    if pairs < 2 {
        return Err(Error::argument("pairs", pairs, "at least 2"));
    }
    let mut rng = Rng::stream(seed, "pairwise-distance", 0);
    let draws: Vec<[f64; 2]> = (0..pairs.div_ceil(2))
        .map(|_| {
            let i = rng.random_index(x.len());
            [(); 2].map(|()| {
                let j = rng.random_index(x.len() - 1);
                let j = j + usize::from(j >= i);
                squared_distance(x.row(i), x.row(j)).sqrt()
            })
        })
        .collect();
    let estimate = Estimate::from_samples(draws.as_flattened())?;
    let product = |[a, b]: &[f64; 2]| (a - estimate.mean) * (b - estimate.mean);
    let covariance = draws.iter().map(product).sum::<f64>() / draws.len() as f64;
    let shared = 4.0 * covariance.max(0.0) / x.len() as f64;
    Ok(Estimate {
        standard_error: estimate.standard_error.hypot(shared.sqrt()),
        ..estimate
    })
}

/// The samples of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassSpread {
    /// The class.
    pub class: u32,
    /// Number of its samples.
    pub count: usize,
    /// Mean Euclidean distance of its pairs; `None` for a single sample.
    pub distance: Option<f64>,
}

/// The [mean pairwise distance](mean_pairwise_distance) within each class that occurs, in order of
/// the classes. A class that has collapsed to few images has a small one, which the distance over
/// all classes does not show.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are no samples, or not one class per sample.
pub fn intra_class_distance(x: &Features, classes: &[u32]) -> Result<Vec<ClassSpread>> {
    check_count(x, 1)?;
    if classes.len() != x.len() {
        let expected = format!("{}, the number of samples", x.len());
        return Err(Error::argument("classes", classes.len(), expected));
    }
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (sample, class) in classes.iter().enumerate() {
        members.entry(*class).or_default().push(sample);
    }
    members
        .into_iter()
        .map(|(class, rows)| {
            let distance = match rows.len() {
                1 => None,
                _ => Some(mean_pairwise_distance(&x.select(&rows))?.mean),
            };
            Ok(ClassSpread {
                class,
                count: rows.len(),
                distance,
            })
        })
        .collect()
}

/// Entropy of a class histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassEntropy {
    /// `−Σ p·ln p` in nats: 0 for a single class, `ln k` for a uniform histogram of `k` classes.
    pub nats: f64,
    /// The share of `ln k`, from 0 to 1; 1 if there is only one class to choose from.
    pub normalized: f64,
}

/// The entropy of the shares of the classes.
///
/// # Errors
/// [`Error::InvalidArgument`] for a histogram without samples.
pub fn class_entropy(histogram: &ClassHistogram) -> Result<ClassEntropy> {
    let total = histogram.total();
    if total == 0 {
        return Err(Error::argument("samples", total, "at least 1"));
    }
    let shares = histogram.counts().iter().filter(|count| **count > 0);
    let terms = shares.map(|count| {
        let share = *count as f64 / total as f64;
        -share * share.ln()
    });
    // A single class gives −0.
    let nats = terms.sum::<f64>().max(0.0);
    let most = (histogram.counts().len() as f64).ln();
    Ok(ClassEntropy {
        nats,
        normalized: if most > 0.0 { nats / most } else { 1.0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::distribution::tests::normal;

    /// The corners of a 3-4-5 triangle.
    #[test]
    fn mean_distance_matches_closed_form() {
        let x = Features::new(vec![0.0, 0.0, 3.0, 0.0, 0.0, 4.0], 2).unwrap();
        let found = mean_pairwise_distance(&x).unwrap();
        assert!((found.mean - 4.0).abs() < 1e-9, "{found}");
        // Mean distances of 3.5, 4 and 4.5 to the others.
        assert!((found.standard_error - 2.0 * 0.5 / 3f64.sqrt()).abs() < 1e-9);
        let sampled = sampled_pairwise_distance(&x, 4000, 1).unwrap();
        assert!(
            (sampled.mean - 4.0).abs() < 5.0 * sampled.standard_error,
            "{sampled}"
        );
        assert_eq!(sampled.count, 4000);
        let same = Features::new([1.0, 2.0].repeat(4), 2).unwrap();
        assert!(mean_pairwise_distance(&same).unwrap().mean < 1e-6);
    }

    #[test]
    fn sampled_distance_agrees_with_exact_one() {
        let x = normal(3, 200, 5);
        let exact = mean_pairwise_distance(&x).unwrap().mean;
        let sampled = sampled_pairwise_distance(&x, 2000, 4).unwrap();
        assert!(
            (sampled.mean - exact).abs() < 4.0 * sampled.standard_error,
            "{sampled} {exact}"
        );
    }

    /// The standard errors are the deviation over independent sets, also with far more pairs than
    /// samples.
    #[test]
    fn standard_errors_match_independent_sets() {
        let sets: Vec<Features> = (0..60).map(|i| normal(50 + i, 100, 5)).collect();
        let exact = |x: &Features| mean_pairwise_distance(x).unwrap();
        let sampled = |x: &Features| sampled_pairwise_distance(x, 4000, 6).unwrap();
        for estimate in [&exact as &dyn Fn(&Features) -> Estimate, &sampled] {
            let found: Vec<Estimate> = sets.iter().map(estimate).collect();
            let means: Vec<f64> = found.iter().map(|one| one.mean).collect();
            let errors: Vec<f64> = found.iter().map(|one| one.standard_error).collect();
            let over_sets = Estimate::from_samples(&means).unwrap().standard_error * 60f64.sqrt();
            let ratio = Estimate::from_samples(&errors).unwrap().mean / over_sets;
            assert!((0.7..1.4).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn spread_is_of_each_class() {
        let x = Features::new(vec![0.0, 10.0, 2.0, 10.0, 7.0], 1).unwrap();
        let spread = intra_class_distance(&x, &[0, 3, 0, 3, 1]).unwrap();
        let classes: Vec<_> = spread.iter().map(|one| (one.class, one.count)).collect();
        assert_eq!(classes, [(0, 2), (1, 1), (3, 2)]);
        assert!((spread[0].distance.unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(spread[1].distance, None);
        assert!(spread[2].distance.unwrap() < 1e-6);
    }

    #[test]
    fn entropy_matches_closed_forms() {
        let of = |classes: usize, seen: &[u32]| {
            let mut histogram = ClassHistogram::new(classes).unwrap();
            histogram.add(seen.iter().copied()).unwrap();
            class_entropy(&histogram)
        };
        let even = of(4, &[0, 1, 2, 3]).unwrap();
        assert!((even.nats - 4f64.ln()).abs() < 1e-12 && (even.normalized - 1.0).abs() < 1e-12);
        let half = of(4, &[1, 1, 3, 3]).unwrap();
        assert!((half.nats - 2f64.ln()).abs() < 1e-12 && (half.normalized - 0.5).abs() < 1e-12);
        let one = of(4, &[2, 2]).unwrap();
        assert_eq!((one.nats, one.normalized), (0.0, 0.0));
        assert_eq!(of(1, &[0]).unwrap().normalized, 1.0);
        assert!(
            of(4, &[])
                .unwrap_err()
                .to_string()
                .contains("`samples` is 0")
        );
    }

    #[test]
    fn invalid_arguments_are_errors() {
        let one = normal(0, 1, 2);
        let error = mean_pairwise_distance(&one).unwrap_err().to_string();
        assert!(
            error.contains("`samples` is 1, expected at least 2"),
            "{error}"
        );
        assert!(sampled_pairwise_distance(&one, 5, 0).is_err());
        let error = sampled_pairwise_distance(&normal(0, 3, 2), 1, 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`pairs` is 1"), "{error}");
        let error = intra_class_distance(&one, &[0, 1]).unwrap_err().to_string();
        assert!(error.contains("`classes` is 2, expected 1"), "{error}");
        let none = Features::empty(2).unwrap();
        let error = intra_class_distance(&none, &[]).unwrap_err().to_string();
        assert!(error.contains("`samples` is 0"), "{error}");
    }
}
