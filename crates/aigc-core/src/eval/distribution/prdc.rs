//! Precision, recall, density and coverage.

use super::check_pair;
use crate::{
    Error, Result,
    eval::{
        Features,
        estimate::{check_bootstrap, percentile_interval},
        features::pairwise::{squared_distance, squared_norm},
    },
    rng::Rng,
};
use aigc_kernels::product::{Matrix, multiply};

/// How far samples are real, and how far real data is covered by samples. Each set is described by
/// balls around its samples that reach to their `k`-th nearest neighbour in the set.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Prdc {
    /// Share of samples inside a ball of a real sample (Kynkäänniemi et al. 2019,
    /// <https://arxiv.org/abs/1904.06991>): quality.
    pub precision: f64,
    /// Share of real samples inside a ball of a generated sample: diversity.
    pub recall: f64,
    /// Number of balls of real samples that a sample is in, on average, over `k` (Naeem et al.
    /// 2020, <https://arxiv.org/abs/2002.09797>, equation 4): quality, less sensitive to single
    /// real samples that are far from all others. Above 1 where samples are typical.
    pub density: f64,
    /// Share of real samples whose ball has a generated sample in it (equation 5): diversity.
    pub coverage: f64,
}

/// Settings of [`Prdc`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrdcConfig {
    /// The neighbour that a ball reaches to; 5 by default, as in the package prdc. torch-fidelity
    /// has 3.
    pub nearest_k: usize,
    /// Whether the surface of a ball is part of it, as in torch-fidelity; in prdc it is not. It
    /// matters for repeated samples only.
    pub inclusive: bool,
}

impl Default for PrdcConfig {
    fn default() -> Self {
        Self {
            nearest_k: 5,
            inclusive: false,
        }
    }
}

impl PrdcConfig {
    /// Compares generated with real samples.
    ///
    /// # Errors
    /// As [`per_sample`](Self::per_sample).
    pub fn compute(&self, real: &Features, fake: &Features) -> Result<Prdc> {
        Ok(self.per_sample(real, fake)?.prdc())
    }

    /// Compares generated with real samples, and keeps what was found of each, for intervals.
    ///
    /// Distances are computed in 32 bits; where rounding could change a comparison, in 64. Memory
    /// grows with the number of samples times `nearest_k` and times their width, not with the
    /// square of the number of samples.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `nearest_k` is 0, the numbers of features differ, or a set has
    /// no more than `nearest_k` samples.
    pub fn per_sample(&self, real: &Features, fake: &Features) -> Result<PrdcSamples> {
        let k = self.nearest_k;
        if k == 0 {
            return Err(Error::argument("nearest_k", k, "at least 1"));
        }
        check_pair(real, fake, k.saturating_add(1))?;
        let centre = mean(real);
        let scale = scale(&[real, fake], &centre);
        let real = Points::new(real, &centre, scale);
        let fake = Points::new(fake, &centre, scale);
        let (real_radii, fake_radii) = (radii(&real, k), radii(&fake, k));
        let mut inside = vec![0usize; fake.len()];
        let mut recalled = vec![false; real.len()];
        let mut covered = vec![false; real.len()];
        let within = |square: f64, radius: f64| match self.inclusive {
            true => square <= radius,
            false => square < radius,
        };
        for_each_tile(&real, &fake, false, |i0, j0, products, columns| {
            for (i, products) in (i0..).zip(products.chunks_exact(columns)) {
                let (radius, norm) = (real_radii[i], real.norms[i]);
                for (j, product) in (j0..).zip(products) {
                    let mut square = norm + fake.norms[j] - 2.0 * f64::from(*product);
                    let slack = real.slack(i, &fake, j);
                    let near = square - slack;
                    if near > radius && near > fake_radii[j] {
                        continue;
                    }
                    let doubtful = |radius: f64| (square - radius).abs() <= slack;
                    if doubtful(radius) || doubtful(fake_radii[j]) {
                        square = real.exact_square(i, &fake, j);
                    }
                    if within(square, radius) {
                        inside[j] += 1;
                        covered[i] = true;
                    }
                    recalled[i] |= within(square, fake_radii[j]);
                }
            }
        });
        Ok(PrdcSamples {
            nearest_k: k,
            balls: inside,
            recalled,
            covered,
        })
    }
}

/// What was found of each sample.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrdcSamples {
    /// The neighbour that balls reach to.
    pub nearest_k: usize,
    /// Number of balls of real samples that each generated sample is in.
    pub balls: Vec<usize>,
    /// Whether each real sample is inside a ball of a generated one.
    pub recalled: Vec<bool>,
    /// Whether the ball of each real sample has a generated one in it.
    pub covered: Vec<bool>,
}

impl PrdcSamples {
    /// The four measures.
    pub fn prdc(&self) -> Prdc {
        let all = |n: usize| (0..n).collect::<Vec<_>>();
        self.of(&all(self.balls.len()), &all(self.covered.len()))
    }

    /// The measures of some of the samples, which may repeat.
    fn of(&self, fake: &[usize], real: &[usize]) -> Prdc {
        let share = |flags: &[bool]| {
            let count = real.iter().filter(|i| flags[**i]).count();
            count as f64 / real.len() as f64
        };
        let precise = fake.iter().filter(|j| self.balls[**j] > 0).count();
        let balls: usize = fake.iter().map(|j| self.balls[*j]).sum();
        Prdc {
            precision: precise as f64 / fake.len() as f64,
            recall: share(&self.recalled),
            density: balls as f64 / (self.nearest_k * fake.len()) as f64,
            coverage: share(&self.covered),
        }
    }

    /// Percentile bootstrap intervals of the four measures: `[low, high]`. Samples of both sets are
    /// drawn with replacement; the balls stay as they are.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than 20 rounds, or a confidence outside (0, 1).
    pub fn intervals(&self, rounds: usize, confidence: f64, rng: &mut Rng) -> Result<[Prdc; 2]> {
        check_bootstrap(rounds, confidence)?;
        let mut draw = |n: usize| -> Vec<usize> { (0..n).map(|_| rng.random_index(n)).collect() };
        let found: Vec<Prdc> = (0..rounds)
            .map(|_| self.of(&draw(self.balls.len()), &draw(self.covered.len())))
            .collect();
        let interval =
            |of: fn(&Prdc) -> f64| percentile_interval(found.iter().map(of).collect(), confidence);
        let precision = interval(|prdc| prdc.precision)?;
        let recall = interval(|prdc| prdc.recall)?;
        let density = interval(|prdc| prdc.density)?;
        let coverage = interval(|prdc| prdc.coverage)?;
        let side = |of: fn((f64, f64)) -> f64| Prdc {
            precision: of(precision),
            recall: of(recall),
            density: of(density),
            coverage: of(coverage),
        };
        Ok([side(|(low, _)| low), side(|(_, high)| high)])
    }
}

/// Samples, moved and scaled so that their values are about 1 and smaller, which keeps the digits
/// of distances, and products in the range of 32 bits.
struct Points<'a> {
    exact: &'a Features,
    /// A power of two: scaled distances are exact where those of the samples are.
    scale: f64,
    values: Vec<f32>,
    /// Squared norms of the moved values.
    norms: Vec<f64>,
    /// Norm of each sample times the root of twice the rounding error of a product of unit vectors.
    errors: Vec<f64>,
    /// Products that are too small for 32 bits become 0: limit on their sum.
    underflow: f64,
}

impl<'a> Points<'a> {
    fn new(exact: &'a Features, centre: &[f64], scale: f64) -> Self {
        let moved = exact.rows().flat_map(|row| {
            let pairs = row.iter().zip(centre);
            pairs.map(|(x, c)| ((f64::from(*x) - c) * scale) as f32)
        });
        let values: Vec<f32> = moved.collect();
        let norms: Vec<f64> = values
            .chunks_exact(exact.width())
            .map(squared_norm)
            .collect();
        // A sum of n products is off by at most n units of rounding of ‖x‖·‖y‖ (Higham 2002,
        // equation 3.7), for which n + 2 leaves a margin. A squared distance has twice the product.
        let unit = (exact.width() + 2) as f64 * f64::from(f32::EPSILON) / 2.0;
        let errors = norms
            .iter()
            .map(|norm| (2.0 * norm * unit).sqrt())
            .collect();
        Self {
            exact,
            scale,
            values,
            norms,
            errors,
            underflow: exact.width() as f64 * 16.0 * f64::from(f32::MIN_POSITIVE),
        }
    }

    fn len(&self) -> usize {
        self.norms.len()
    }

    /// Limit on the error of a squared distance that is computed from a product in 32 bits.
    fn slack(&self, i: usize, other: &Self, j: usize) -> f64 {
        // Moving rounds each value by half a unit of x, so a squared distance by at most
        // ε·(‖x‖ + ‖y‖)², which also bounds the rounding of the norms.
        let moving = 2.0 * f64::from(f32::EPSILON) * (self.norms[i] + other.norms[j]);
        self.errors[i] * other.errors[j] + moving + self.underflow
    }

    /// The squared distance of the scaled samples.
    fn exact_square(&self, i: usize, other: &Self, j: usize) -> f64 {
        squared_distance(self.exact.row(i), other.exact.row(j)) * (self.scale * self.scale)
    }
}

/// A power of two by which the largest distance of a value from `centre` becomes about 1.
fn scale(sets: &[&Features], centre: &[f64]) -> f64 {
    let mut largest = 0.0f64;
    for row in sets.iter().flat_map(|set| set.rows()) {
        for (value, centre) in row.iter().zip(centre) {
            largest = largest.max((f64::from(*value) - centre).abs());
        }
    }
    match largest > 0.0 {
        true => 2f64.powi(-(largest.log2().floor() as i32)),
        false => 1.0,
    }
}

fn mean(features: &Features) -> Vec<f64> {
    let mut mean = vec![0.0; features.width()];
    for row in features.rows() {
        for (mean, value) in mean.iter_mut().zip(row) {
            *mean += f64::from(*value);
        }
    }
    let count = features.len() as f64;
    mean.into_iter().map(|sum| sum / count).collect()
}

/// Rows and columns of a block of products: 2 MiB.
const TILE: [usize; 2] = [512, 1024];

/// Calls `each` with blocks of the inner products of all pairs: first row, first column, products
/// row by row, number of columns. Of a set with itself, `half` leaves out blocks all of whose pairs
/// another block has in reverse.
fn for_each_tile(
    a: &Points<'_>,
    b: &Points<'_>,
    half: bool,
    mut each: impl FnMut(usize, usize, &[f32], usize),
) {
    let width = a.exact.width();
    let part = |x: &Points<'_>, first: usize, most: usize| {
        let rows = most.min(x.len() - first);
        (first * width..(first + rows) * width, rows)
    };
    for i in (0..a.len()).step_by(TILE[0]) {
        let (range, rows) = part(a, i, TILE[0]);
        let left = Matrix::rows(&a.values[range], width);
        for j in (0..b.len()).step_by(TILE[1]) {
            let (range, columns) = part(b, j, TILE[1]);
            if half && j + columns <= i {
                continue;
            }
            let right = Matrix::rows(&b.values[range], width).t();
            each(
                i,
                j,
                &multiply([rows, columns, width], left, right, None),
                columns,
            );
        }
    }
}

/// Squared distance of every sample to its `k`-th nearest other one.
fn radii(points: &Points<'_>, k: usize) -> Vec<f64> {
    let mut near: Vec<Nearest> = (0..points.len()).map(|_| Nearest::new(k)).collect();
    for_each_tile(points, points, true, |i0, j0, products, columns| {
        for (i, products) in (i0..).zip(products.chunks_exact(columns)) {
            let norm = points.norms[i];
            for (j, product) in (j0..).zip(products) {
                // A block on the diagonal has some pairs twice.
                if j <= i {
                    continue;
                }
                let square = norm + points.norms[j] - 2.0 * f64::from(*product);
                let slack = points.slack(i, points, j);
                near[i].offer(square, slack, j, |other| {
                    points.exact_square(i, points, other)
                });
                near[j].offer(square, slack, i, |other| {
                    points.exact_square(j, points, other)
                });
            }
        }
    });
    let exact = |(i, near): (usize, Nearest)| {
        let candidates = near.found.into_iter();
        let mut squares: Vec<f64> = candidates
            .map(|(_, _, j)| points.exact_square(i, points, j))
            .collect();
        squares.sort_by(f64::total_cmp);
        squares[k - 1]
    };
    near.into_iter().enumerate().map(exact).collect()
}

/// The samples that may be among the `k` nearest.
struct Nearest {
    k: usize,
    /// No sample beyond this squared distance is among them.
    limit: f64,
    /// Squared distance, its possible error, and number of a sample.
    found: Vec<(f64, f64, usize)>,
}

impl Nearest {
    fn new(k: usize) -> Self {
        Self {
            k,
            limit: f64::INFINITY,
            found: Vec::new(),
        }
    }

    /// Takes note of a sample; `exact` computes the squared distance to a sample without error.
    fn offer(&mut self, square: f64, slack: f64, sample: usize, exact: impl Fn(usize) -> f64) {
        // With `k` equal samples, as of a model that has collapsed, nothing is nearer.
        if self.limit == 0.0 || square - slack > self.limit {
            return;
        }
        self.found.push((square, slack, sample));
        if self.found.len() >= 4 * self.k + 16 {
            self.prune(exact);
        }
    }

    /// Forgets samples beyond what the `k`-th nearest is at most.
    fn prune(&mut self, exact: impl Fn(usize) -> f64) {
        let most = |found: &(f64, f64, usize)| found.0 + found.1;
        let mut ends: Vec<f64> = self.found.iter().map(most).collect();
        let (_, limit, _) = ends.select_nth_unstable_by(self.k - 1, f64::total_cmp);
        self.limit = *limit;
        self.found
            .retain(|(square, slack, _)| square - slack <= self.limit);
        // Too many at nearly one distance, which could be all samples.
        if self.found.len() >= 2 * self.k + 8 {
            for (square, slack, sample) in &mut self.found {
                (*square, *slack) = (exact(*sample), 0.0);
            }
            let order = |a: &(f64, f64, usize), b: &(f64, f64, usize)| a.0.total_cmp(&b.0);
            self.found.select_nth_unstable_by(self.k - 1, order);
            self.found.truncate(self.k);
            self.limit = self.found[self.k - 1].0;
        }
    }
}

#[cfg(test)]
mod tests;
