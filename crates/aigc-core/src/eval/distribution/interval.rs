//! Bootstrap intervals of distances between sets of features.

use super::{
    Features, GaussianMoments, MmdKernel, check_count, check_pair,
    frechet::{FrechetReference, moments_of},
};
use crate::{
    Result,
    eval::{
        centred_bootstrap,
        estimate::{check_bootstrap, percentile_interval},
    },
    rng::Rng,
};
use faer::{Mat, MatRef};

/// A bootstrap interval of the [Fréchet distance](super::frechet_distance) between fixed moments
/// and `samples`, whose rows are drawn with replacement. Each round computes and decomposes a
/// covariance: seconds to minutes for 2,048 features, so begin with few rounds.
///
/// About 63 % of the samples are in a drawn set, and the distance is larger for fewer samples. This
/// bias, the mean of all rounds over the distance itself, is subtracted. The interval is that of
/// the distance for this number of samples, which is itself larger than that of infinitely many.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for different widths, fewer than two
/// samples, fewer than 20 rounds, or a confidence outside (0, 1).
pub fn frechet_interval(
    reference: &GaussianMoments,
    samples: &Features,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
) -> Result<(f64, f64)> {
    check_count(samples, 2)?;
    let reference = FrechetReference::new(reference)?;
    let (low, high) = centred_bootstrap(samples.len(), rounds, confidence, rng, |items| {
        reference.distance(&moments_of(samples, items)?)
    })?;
    Ok((low.max(0.0), high))
}

/// A percentile bootstrap interval of the unbiased
/// [discrepancy](super::maximum_mean_discrepancy) of all samples; with [`MmdKernel::KID`], of KID
/// without subsets. Both sets are drawn with replacement. Pairs of a sample with a copy of itself
/// are left out, or they would shift the interval.
///
/// The kernel is computed once for all rounds. Memory: `rounds` numbers per sample.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a kernel out of range, different
/// widths, fewer than 20 samples or rounds, a confidence outside (0, 1), or features so large that
/// the kernel overflows.
pub fn mmd_interval(
    a: &Features,
    b: &Features,
    kernel: MmdKernel,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
) -> Result<(f64, f64)> {
    kernel.validate()?;
    // Fewer could draw a single sample in a round, which has no pairs.
    check_pair(a, b, 20)?;
    check_bootstrap(rounds, confidence)?;
    let (drawn_a, drawn_b) = (draws(a.len(), rounds, rng), draws(b.len(), rounds, rng));
    let mut found = within(&kernel, a, &drawn_a);
    for (value, within) in found.iter_mut().zip(within(&kernel, b, &drawn_b)) {
        *value += within;
    }
    let mut between = vec![0.0; rounds];
    kernel.for_each_block(a, b, |first, values| {
        add_quadratic(&mut between, values, first, &drawn_a, &drawn_b);
    });
    let pairs = a.len() as f64 * b.len() as f64;
    for (value, between) in found.iter_mut().zip(between) {
        *value -= 2.0 * between / pairs;
    }
    percentile_interval(found, confidence)
}

/// How often each of `n` items is drawn in each round, `[n, rounds]`.
fn draws(n: usize, rounds: usize, rng: &mut Rng) -> Mat<f64> {
    let mut drawn = Mat::<f64>::zeros(n, rounds);
    for round in 0..rounds {
        for _ in 0..n {
            drawn[(rng.random_index(n), round)] += 1.0;
        }
    }
    drawn
}

/// Mean of the kernel over pairs of different samples, for each round.
fn within(kernel: &MmdKernel, x: &Features, drawn: &Mat<f64>) -> Vec<f64> {
    let n = x.len();
    let mut sums = vec![0.0; drawn.ncols()];
    kernel.for_each_block(x, x, |first, values| {
        let mut values = values.to_vec();
        for (row, values) in values.chunks_exact_mut(n).enumerate() {
            values[first + row] = 0.0;
        }
        add_quadratic(&mut sums, &values, first, drawn, drawn);
    });
    for (round, sum) in sums.iter_mut().enumerate() {
        let squares = drawn.col_as_slice(round).iter().map(|count| count * count);
        *sum /= (n * n) as f64 - squares.sum::<f64>();
    }
    sums
}

/// Adds `Σ wᵢ·kᵢⱼ·vⱼ` of a block of kernel values, for each round.
fn add_quadratic(sums: &mut [f64], values: &[f64], first: usize, w: &Mat<f64>, v: &Mat<f64>) {
    let (rows, columns) = (values.len() / v.nrows(), v.nrows());
    let block = MatRef::from_row_major_slice(values, rows, columns);
    let products = block * v;
    for (round, sum) in sums.iter_mut().enumerate() {
        let weights = &w.col_as_slice(round)[first..first + rows];
        let products = products.col_as_slice(round);
        *sum += weights
            .iter()
            .zip(products)
            .map(|(w, p)| w * p)
            .sum::<f64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::distribution::{MmdEstimator, maximum_mean_discrepancy, tests::normal};

    fn shifted(seed: u64, n: usize, by: f32) -> Features {
        let values = normal(seed, n, 2).values().iter().map(|x| x + by).collect();
        Features::new(values, 2).unwrap()
    }

    /// With many samples for their width, the interval is around the distance.
    #[test]
    fn frechet_interval_holds_the_distance() {
        let all: Vec<usize> = (0..400).collect();
        let real = moments_of(&normal(1, 400, 2), &all).unwrap();
        let samples = shifted(2, 400, 1.0);
        let distance = real
            .frechet_distance(&moments_of(&samples, &all).unwrap())
            .unwrap();
        let mut rng = Rng::new(3);
        let (low, high) = frechet_interval(&real, &samples, 200, 0.95, &mut rng).unwrap();
        assert!(low < distance && distance < high, "{low} {distance} {high}");
        // Twice the shift of 1 times the error of a mean, in two dimensions.
        let half = 1.96 * 2.0 * (2.0f64 / 400.0).sqrt();
        assert!((high - low) / 2.0 < 1.5 * half && (high - low) / 2.0 > 0.5 * half);
        // Few samples for their width: drawn sets are much farther from the reference.
        let all: Vec<usize> = (0..30).collect();
        let (real, few) = (
            moments_of(&normal(4, 30, 12), &all).unwrap(),
            normal(5, 30, 12),
        );
        let distance = real
            .frechet_distance(&moments_of(&few, &all).unwrap())
            .unwrap();
        let (low, high) = frechet_interval(&real, &few, 100, 0.95, &mut rng).unwrap();
        assert!(low < distance && distance < high, "{low} {distance} {high}");
        let wide = normal(1, 5, 3);
        assert!(frechet_interval(&real, &wide, 20, 0.9, &mut rng).is_err());
        assert!(frechet_interval(&real, &samples, 2, 0.9, &mut rng).is_err());
    }

    /// The interval lies around the discrepancy, and is as wide as that of independent samples.
    #[test]
    fn discrepancy_interval_holds_the_discrepancy() {
        let kernel = MmdKernel::Gaussian { sigma: 1.5 };
        let distance = |a: &Features, b: &Features| {
            maximum_mean_discrepancy(a, b, kernel, MmdEstimator::Unbiased).unwrap()
        };
        let (a, b) = (normal(1, 150, 2), shifted(2, 150, 1.0));
        let (low, high) = mmd_interval(&a, &b, kernel, 400, 0.95, &mut Rng::new(4)).unwrap();
        let found = distance(&a, &b);
        assert!(low < found && found < high, "{low} {found} {high}");
        let again: Vec<f64> = (0..60)
            .map(|i| distance(&normal(100 + i, 150, 2), &shifted(200 + i, 150, 1.0)))
            .collect();
        let mean = again.iter().sum::<f64>() / 60.0;
        let squares = again.iter().map(|value| (value - mean).powi(2));
        let half = 1.96 * (squares.sum::<f64>() / 59.0).sqrt();
        let ratio = (high - low) / 2.0 / half;
        assert!((0.6..1.6).contains(&ratio), "{ratio}");
    }

    /// Everything drawn once: the discrepancy itself.
    #[test]
    fn single_draw_of_all_is_the_discrepancy() {
        let (a, b) = (normal(5, 25, 3), normal(6, 30, 3));
        let once = |x: &Features| Mat::from_fn(x.len(), 1, |_, _| 1.0);
        let kernel = MmdKernel::KID;
        let mut between = [0.0];
        kernel.for_each_block(&a, &b, |first, values| {
            add_quadratic(&mut between, values, first, &once(&a), &once(&b));
        });
        let found = within(&kernel, &a, &once(&a))[0] + within(&kernel, &b, &once(&b))[0]
            - 2.0 * between[0] / (25.0 * 30.0);
        let expected = maximum_mean_discrepancy(&a, &b, kernel, MmdEstimator::Unbiased).unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }

    #[test]
    fn invalid_arguments_are_errors() {
        let (a, few) = (normal(0, 20, 2), normal(0, 19, 2));
        let error = |b: &Features, rounds, confidence| {
            let found = mmd_interval(&a, b, MmdKernel::KID, rounds, confidence, &mut Rng::new(0));
            found.unwrap_err().to_string()
        };
        assert!(error(&few, 20, 0.9).contains("`samples` is 19, expected at least 20"));
        assert!(error(&a, 19, 0.9).contains("`rounds` is 19"));
        assert!(error(&a, 20, 1.0).contains("`confidence` is 1"));
    }
}
