//! Bootstrap intervals of distances between sets of features.

use super::{
    Features, GaussianMoments, MmdKernel, check_count, check_pair,
    frechet::{FrechetReference, moments_of},
    mmd::{CMMD_SCALE, cmmd_blocks},
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
/// covariance: seconds to minutes for 2,048 features, so begin with few rounds. Before each round,
/// `on_round` is called with the number of finished ones; its error ends the work.
///
/// About 63 % of the samples are in a drawn set, and the distance is larger for fewer samples. This
/// bias, the mean of all rounds over the distance itself, is subtracted. The interval is that of
/// the distance for this number of samples, which is itself larger than that of infinitely many.
/// Where the distance is near that of two draws from one distribution, or samples are few for their
/// width, the interval is up to two and a half times too wide: safe, but not sharp.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for different widths, fewer than two
/// samples, fewer than 20 rounds, or a confidence outside (0, 1); errors of `on_round`.
pub fn frechet_interval(
    reference: &GaussianMoments,
    samples: &Features,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
    mut on_round: impl FnMut(usize) -> Result<()>,
) -> Result<(f64, f64)> {
    check_count(samples, 2)?;
    let reference = FrechetReference::new(reference)?;
    let mut done = 0;
    let (low, high) = centred_bootstrap(samples.len(), rounds, confidence, rng, |items| {
        // The last call is for the distance itself.
        if done < rounds {
            on_round(done)?;
            done += 1;
        }
        reference.distance(&moments_of(samples, items)?)
    })?;
    Ok((low.max(0.0), high))
}

/// A percentile bootstrap interval of the unbiased
/// [discrepancy](super::maximum_mean_discrepancy) of all samples; with [`MmdKernel::KID`], of KID
/// without subsets. Both sets are drawn with replacement. Pairs of a sample with a copy of itself
/// are left out, or they would shift the interval. Near zero the interval is up to two and a half
/// times too wide, as that of any discrepancy.
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
    let found = drawn_means(a, b, rounds, confidence, rng, |a, b, each| {
        kernel.for_each_block(a, b, each);
        Ok(())
    })?;
    let value = |[in_a, in_b, between]: [f64; 3]| in_a + in_b - 2.0 * between;
    percentile_interval(found.into_iter().map(value).collect(), confidence)
}

/// A percentile bootstrap interval of [CMMD](super::cmmd), with its scale. Both sets are drawn with
/// replacement. As in [`mmd_interval`], pairs of a sample with a copy of itself are left out; the
/// pairs of each sample with itself, which CMMD has, weigh as much as without copies.
///
/// Near zero the interval is too wide, as that of [`mmd_interval`]. Memory: `rounds` numbers per
/// sample.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for different widths, fewer than 20
/// samples or rounds, a confidence outside (0, 1), or a row of zeros.
pub fn cmmd_interval(
    a: &Features,
    b: &Features,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
) -> Result<(f64, f64)> {
    let found = drawn_means(a, b, rounds, confidence, rng, cmmd_blocks)?;
    // The kernel less 1 is 0 for a sample with itself.
    let others = [a.len(), b.len()].map(|n| 1.0 - 1.0 / n as f64);
    let value = |[in_a, in_b, between]: [f64; 3]| {
        CMMD_SCALE * (others[0] * in_a + others[1] * in_b - 2.0 * between)
    };
    let (low, high) = percentile_interval(found.into_iter().map(value).collect(), confidence)?;
    Ok((low.max(0.0), high))
}

/// Means of a kernel in each round, whose samples are drawn with replacement: over pairs of
/// different samples of `a`, of `b`, and over pairs of both sets. `blocks` calls its last argument
/// as [`MmdKernel::for_each_block`] does.
fn drawn_means(
    a: &Features,
    b: &Features,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
    blocks: impl Fn(&Features, &Features, &mut dyn FnMut(usize, &[f64])) -> Result<()>,
) -> Result<Vec<[f64; 3]>> {
    // Fewer could draw a single sample in a round, which has no pairs.
    check_pair(a, b, 20)?;
    check_bootstrap(rounds, confidence)?;
    let (drawn_a, drawn_b) = (draws(a.len(), rounds, rng), draws(b.len(), rounds, rng));
    let (mut of_a, mut of_b) = (Within::new(&drawn_a), Within::new(&drawn_b));
    blocks(a, a, &mut |first, values| of_a.add(first, values))?;
    blocks(b, b, &mut |first, values| of_b.add(first, values))?;
    let mut between = vec![0.0; rounds];
    blocks(a, b, &mut |first, values| {
        add_quadratic(&mut between, values, first, &drawn_a, &drawn_b);
    })?;
    let pairs = a.len() as f64 * b.len() as f64;
    let within = of_a.means().into_iter().zip(of_b.means());
    let found = within.zip(between);
    Ok(found
        .map(|((in_a, in_b), between)| [in_a, in_b, between / pairs])
        .collect())
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

/// Sums of a kernel over pairs of different samples of a set, for each round.
struct Within<'a> {
    drawn: &'a Mat<f64>,
    sums: Vec<f64>,
}

impl<'a> Within<'a> {
    fn new(drawn: &'a Mat<f64>) -> Self {
        let sums = vec![0.0; drawn.ncols()];
        Self { drawn, sums }
    }

    fn add(&mut self, first: usize, values: &[f64]) {
        let mut values = values.to_vec();
        for (row, values) in values.chunks_exact_mut(self.drawn.nrows()).enumerate() {
            values[first + row] = 0.0;
        }
        add_quadratic(&mut self.sums, &values, first, self.drawn, self.drawn);
    }

    fn means(self) -> Vec<f64> {
        let n = self.drawn.nrows() as f64;
        let sums = self.sums.into_iter().enumerate();
        sums.map(|(round, sum)| {
            let drawn = self.drawn.col_as_slice(round).iter();
            sum / (n * n - drawn.map(|count| count * count).sum::<f64>())
        })
        .collect()
    }
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
    use crate::{
        Error,
        eval::distribution::{MmdEstimator, cmmd, maximum_mean_discrepancy, tests::normal},
    };

    fn shifted(seed: u64, n: usize, by: f32) -> Features {
        let values = normal(seed, n, 2).values().iter().map(|x| x + by).collect();
        Features::new(values, 2).unwrap()
    }

    fn quiet(_: usize) -> Result<()> {
        Ok(())
    }

    /// Half the width of an interval, over that of the distances of independent sets.
    fn relative_width((low, high): (f64, f64), again: impl Iterator<Item = f64>) -> f64 {
        let again: Vec<f64> = again.collect();
        let n = again.len() as f64;
        let mean = again.iter().sum::<f64>() / n;
        let squares = again.iter().map(|value| (value - mean).powi(2));
        (high - low) / 2.0 / (1.96 * (squares.sum::<f64>() / (n - 1.0)).sqrt())
    }

    /// Far from the reference, the interval is as wide as the distance varies; with few samples for
    /// their width and no distance, it is wider, and never much narrower.
    #[test]
    fn frechet_intervals_are_as_wide_as_the_distance_varies() {
        let all = |x: &Features| moments_of(x, &(0..x.len()).collect::<Vec<_>>()).unwrap();
        let width = |real: &Features, samples: &dyn Fn(u64) -> Features, rounds| {
            let real = all(real);
            let mut rng = Rng::new(3);
            let found = frechet_interval(&real, &samples(2), rounds, 0.95, &mut rng, quiet);
            let again = (0..60).map(|i| real.frechet_distance(&all(&samples(100 + i))).unwrap());
            relative_width(found.unwrap(), again)
        };
        let far = width(&normal(1, 400, 2), &|seed| shifted(seed, 400, 1.0), 200);
        assert!((0.6..1.6).contains(&far), "{far}");
        let near = width(&normal(4, 30, 12), &|seed| normal(seed, 30, 12), 100);
        assert!((0.8..4.0).contains(&near), "{near}");
    }

    #[test]
    fn invalid_frechet_intervals_are_errors() {
        let samples = normal(1, 30, 2);
        let real = moments_of(&samples, &(0..30).collect::<Vec<_>>()).unwrap();
        let mut rng = Rng::new(3);
        let wide = normal(1, 5, 3);
        assert!(frechet_interval(&real, &wide, 20, 0.9, &mut rng, quiet).is_err());
        assert!(frechet_interval(&real, &samples, 2, 0.9, &mut rng, quiet).is_err());
    }

    /// As wide as the discrepancy of independent sets varies; for equal distributions, wider at
    /// most.
    #[test]
    fn discrepancy_intervals_are_as_wide_as_the_discrepancy_varies() {
        let kernel = MmdKernel::Gaussian { sigma: 1.5 };
        let distance = |a: &Features, b: &Features| {
            maximum_mean_discrepancy(a, b, kernel, MmdEstimator::Unbiased).unwrap()
        };
        for (shift, bounds) in [(1.0, 0.6..1.6), (0.0, 0.5..4.0)] {
            let (a, b) = (normal(1, 150, 2), shifted(2, 150, shift));
            let found = mmd_interval(&a, &b, kernel, 400, 0.95, &mut Rng::new(4)).unwrap();
            let again = (0..60).map(|i| {
                let (a, b) = (normal(100 + i, 150, 2), shifted(200 + i, 150, shift));
                distance(&a, &b)
            });
            let ratio = relative_width(found, again);
            assert!(bounds.contains(&ratio), "{shift}: {ratio}");
        }
    }

    /// Everything drawn once: the discrepancy itself.
    #[test]
    fn single_draw_of_all_is_the_discrepancy() {
        let (a, b) = (normal(5, 25, 3), normal(6, 30, 3));
        let once = |x: &Features| Mat::from_fn(x.len(), 1, |_, _| 1.0);
        let (once_a, once_b) = (once(&a), once(&b));
        let kernel = MmdKernel::KID;
        let (mut of_a, mut of_b) = (Within::new(&once_a), Within::new(&once_b));
        let mut between = [0.0];
        kernel.for_each_block(&a, &a, |first, values| of_a.add(first, values));
        kernel.for_each_block(&b, &b, |first, values| of_b.add(first, values));
        kernel.for_each_block(&a, &b, |first, values| {
            add_quadratic(&mut between, values, first, &once_a, &once_b);
        });
        let found = of_a.means()[0] + of_b.means()[0] - 2.0 * between[0] / (25.0 * 30.0);
        let expected = maximum_mean_discrepancy(&a, &b, kernel, MmdEstimator::Unbiased).unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }

    /// The rounds are drawn around CMMD, for any lengths of the rows.
    #[test]
    fn cmmd_interval_holds_cmmd() {
        let (a, b) = (shifted(1, 60, 2.0), shifted(2, 80, -1.0));
        let found = cmmd(&a, &b).unwrap();
        let mut rng = Rng::new(4);
        let (low, high) = cmmd_interval(&a, &b, 300, 0.95, &mut rng).unwrap();
        assert!(
            0.0 < low && low < found && found < high,
            "{low} {found} {high}"
        );
        let longer = Features::new(a.values().iter().map(|x| 4.0 * x).collect(), 2).unwrap();
        let again = cmmd_interval(&longer, &b, 300, 0.95, &mut Rng::new(4)).unwrap();
        assert!((again.0 - low).abs() < 1e-9 && (again.1 - high).abs() < 1e-9);
        // Two sets of one point each: every round is the same.
        let point = |x: f32, y: f32| Features::new([x, y].repeat(20), 2).unwrap();
        let (a, b) = (point(1.0, 0.0), point(0.0, 3.0));
        let (low, high) = cmmd_interval(&a, &b, 20, 0.9, &mut rng).unwrap();
        let expected = 2000.0 * (1.0 - (-0.01f64).exp());
        assert!((low - expected).abs() < 1e-9 && (high - expected).abs() < 1e-9);
        let error = cmmd_interval(&point(0.0, 0.0), &b, 20, 0.9, &mut rng);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("zero in all of row 0"), "{error}");
        assert!(cmmd_interval(&normal(1, 19, 2), &b, 20, 0.9, &mut rng).is_err());
    }

    /// The callback hears of every round, and ends the work.
    #[test]
    fn rounds_can_be_watched_and_stopped() {
        let all: Vec<usize> = (0..30).collect();
        let samples = normal(1, 30, 2);
        let real = moments_of(&samples, &all).unwrap();
        let mut heard = Vec::new();
        let mut rng = Rng::new(2);
        frechet_interval(&real, &samples, 25, 0.9, &mut rng, |round| {
            heard.push(round);
            Ok(())
        })
        .unwrap();
        assert_eq!(heard, (0..25).collect::<Vec<_>>());
        let mut last = 0;
        let stopped = frechet_interval(&real, &samples, 25, 0.9, &mut rng, |round| {
            last = round;
            match round {
                3 => Err(Error::cancelled("the interval")),
                _ => Ok(()),
            }
        });
        assert!(matches!(stopped, Err(Error::Cancelled { .. })));
        assert_eq!(last, 3);
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
