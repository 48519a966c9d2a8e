//! Expectation maximisation of Gaussian mixtures, in `f64` on the host.
//!
//! The points are divided in fixed ranges, which the processors share. Sums are taken range by
//! range, so that the result does not depend on the number of processors.

use super::CovarianceType;
use aigc_core::{Error, Result, check, rng::Rng};
use serde::{Deserialize, Serialize};
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Configuration of expectation maximisation (Dempster et al. 1977). Fields have the names of those
/// of scikit-learn's `GaussianMixture`, where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmConfig {
    /// Limit on the number of iterations.
    pub max_iter: usize,
    /// Iterations end when the mean log-likelihood of the points rises by less than this, in nats.
    pub tol: f64,
    /// Number of starts; the one that ends with the highest log-likelihood is kept.
    pub n_init: usize,
    /// Lower bound on the variance in every direction, in the square of the units of the points. It
    /// is a constraint and not added to the covariances, so that the log-likelihood never falls.
    /// 1e-30 or above.
    pub min_variance: f64,
    /// Seed of the starts.
    pub seed: u64,
}

impl Default for EmConfig {
    fn default() -> Self {
        Self {
            max_iter: 100,
            tol: 1e-3,
            n_init: 1,
            min_variance: 1e-6,
            seed: 0,
        }
    }
}

impl EmConfig {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::sizes(&[
            ("max_iter", self.max_iter, 1 << 20),
            ("n_init", self.n_init, 1 << 10),
        ])?;
        check::non_negative("tol", self.tol)?;
        check::ensure(
            self.min_variance >= MIN_VARIANCE && self.min_variance.is_finite(),
            "min_variance",
            self.min_variance,
            "a finite number, 1e-30 or above",
        )
    }
}

/// Least bound on variances. The inverse of smaller ones overflows in 32 bits.
const MIN_VARIANCE: f64 = 1e-30;

/// Points in rows.
pub(super) struct Points {
    values: Vec<f64>,
    dim: usize,
    count: usize,
}

impl Points {
    /// The points of these rows.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no points, they differ in length or have no
    /// dimensions, or a value is not finite.
    pub(super) fn new(rows: &[Vec<f32>]) -> Result<Self> {
        let dim = rows.first().map_or(0, Vec::len);
        check::ensure_argument(dim > 0, "latents", "empty", "vectors with dimensions")?;
        if let Some(row) = rows.iter().find(|row| row.len() != dim) {
            let expected = format!("{dim} values each, as the first vector");
            return Err(Error::argument("latents", row.len(), expected));
        }
        let values: Vec<f64> = rows.iter().flatten().map(|x| f64::from(*x)).collect();
        if let Some(value) = values.iter().find(|x| !x.is_finite()) {
            return Err(Error::argument("latents", value, "finite numbers"));
        }
        Ok(Self {
            values,
            dim,
            count: rows.len(),
        })
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    /// Variance of each dimension.
    fn variances(&self) -> Vec<f64> {
        let n = self.count as f64;
        let mut mean = vec![0.0; self.dim];
        let mut variance = vec![0.0; self.dim];
        for row in self.values.chunks_exact(self.dim) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / n);
        }
        for row in self.values.chunks_exact(self.dim) {
            let deviations = row.iter().zip(&mean).map(|(x, m)| (x - m).powi(2));
            let sums = variance.iter_mut().zip(deviations);
            sums.for_each(|(v, d)| *v += d / n);
        }
        variance
    }

    /// The fixed ranges that processors share.
    fn ranges(&self) -> Vec<Range<usize>> {
        const MIN: usize = 1024;
        let size = self.count.div_ceil(64).max(MIN);
        (0..self.count)
            .step_by(size)
            .map(|start| start..(start + size).min(self.count))
            .collect()
    }
}

/// Results of `work` for `0..count` in order, computed by all processors.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(count);
    if threads <= 1 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let index = next.fetch_add(1, Ordering::Relaxed);
        (index < count).then(|| (index, work(index)))
    };
    let mut results: Vec<(usize, T)> = thread::scope(|scope| {
        let run = || std::iter::from_fn(take).collect::<Vec<_>>();
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, Vec<(usize, T)>>| {
            let joined = handle.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().flat_map(join).collect()
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// One Gaussian of a mixture.
#[derive(Clone, Debug)]
pub(super) struct Component {
    pub(super) weight: f64,
    pub(super) mean: Vec<f64>,
    /// The factor `P` of the precision, `Σ⁻¹ = PᵀP`: its diagonal for diagonal covariances, else a
    /// lower triangular matrix, row by row.
    pub(super) factor: Vec<f64>,
    /// The log-density at the mean.
    log_peak: f64,
}

impl Component {
    fn new(weight: f64, mean: Vec<f64>, factor: Vec<f64>) -> Self {
        let dim = mean.len();
        let diagonal: f64 = match factor.len() == dim {
            true => factor.iter().map(|f| f.ln()).sum(),
            false => (0..dim).map(|i| factor[i * dim + i].ln()).sum(),
        };
        let log_peak = diagonal - 0.5 * dim as f64 * (2.0 * std::f64::consts::PI).ln();
        Self {
            weight,
            mean,
            factor,
            log_peak,
        }
    }

    /// A component with these variances and no correlations.
    fn uncorrelated(
        weight: f64,
        mean: Vec<f64>,
        variances: &[f64],
        covariance: CovarianceType,
    ) -> Self {
        let dim = mean.len();
        let diagonal = variances.iter().map(|v| 1.0 / v.sqrt());
        let factor = match covariance {
            CovarianceType::Diagonal => diagonal.collect(),
            CovarianceType::Full => {
                let mut factor = vec![0.0; dim * dim];
                diagonal
                    .enumerate()
                    .for_each(|(i, f)| factor[i * dim + i] = f);
                factor
            }
        };
        Self::new(weight, mean, factor)
    }
}

/// Number of points that inner loops work on at once, dimension by dimension.
const TILE: usize = 64;

/// Differences of at most [`TILE`] points from `centre`, in the first `dims` dimensions:
/// `[dims][TILE]`, zero beyond the points.
fn load_tile(
    points: &Points,
    range: Range<usize>,
    centre: &[f64],
    dims: usize,
    tile: &mut Vec<f64>,
) {
    tile.clear();
    tile.resize(dims * TILE, 0.0);
    for (column, index) in range.enumerate() {
        let row = points.row(index).iter().zip(centre).take(dims);
        row.enumerate()
            .for_each(|(j, (x, c))| tile[j * TILE + column] = x - c);
    }
}

/// `Σ aᵢ·bᵢ` with independent partial sums, which vector instructions can compute.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        let products = a.iter().zip(b).map(|(a, b)| a * b);
        let lanes = sums.iter_mut().zip(products);
        lanes.for_each(|(sum, product)| *sum += product);
    }
    sums.iter().sum()
}

/// The tiles of a range.
fn tiles(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range
        .clone()
        .step_by(TILE)
        .map(move |start| start..(start + TILE).min(end))
}

/// The responsibilities of the components for a range of points.
struct Responsibilities {
    range: Range<usize>,
    /// Component by component, `[components][points]`.
    values: Vec<f64>,
    /// Sum of the log-densities of the points.
    log_likelihood: f64,
    /// The least log-density and its point.
    worst: (f64, usize),
}

/// Expectation: the responsibilities `w_k·N_k(x) / Σ_j w_j·N_j(x)` of all points.
fn expectation(
    points: &Points,
    components: &[Component],
    covariance: CovarianceType,
) -> Vec<Responsibilities> {
    let ranges = points.ranges();
    in_parallel(ranges.len(), |index| {
        expectation_of_range(points, components, covariance, ranges[index].clone())
    })
}

fn expectation_of_range(
    points: &Points,
    components: &[Component],
    covariance: CovarianceType,
    range: Range<usize>,
) -> Responsibilities {
    let (dim, length) = (points.dim, range.len());
    let mut values = vec![0.0; components.len() * length];
    let (mut log_likelihood, mut worst) = (0.0, (f64::INFINITY, range.start));
    let mut tile = Vec::new();
    for part in tiles(&range) {
        let (offset, size) = (part.start - range.start, part.len());
        for (k, component) in components.iter().enumerate() {
            load_tile(points, part.clone(), &component.mean, dim, &mut tile);
            let mut squares = [0.0; TILE];
            let mut add = |whitened: &[f64]| {
                let sums = squares.iter_mut().zip(whitened);
                sums.for_each(|(square, y)| *square += y * y);
            };
            for i in 0..dim {
                let mut whitened = [0.0; TILE];
                let mut accumulate = |factor: f64, column: &[f64]| {
                    let sums = whitened.iter_mut().zip(column);
                    sums.for_each(|(y, x)| *y += factor * x);
                };
                match covariance {
                    CovarianceType::Diagonal => {
                        accumulate(component.factor[i], &tile[i * TILE..(i + 1) * TILE]);
                    }
                    CovarianceType::Full => {
                        let row = &component.factor[i * dim..i * dim + i + 1];
                        let columns = row.iter().zip(tile.chunks_exact(TILE));
                        columns.for_each(|(factor, column)| accumulate(*factor, column));
                    }
                }
                add(&whitened);
            }
            let at_mean = component.weight.ln() + component.log_peak;
            for (column, square) in squares[..size].iter().enumerate() {
                values[k * length + offset + column] = at_mean - 0.5 * square;
            }
        }
        for column in offset..offset + size {
            let terms = || (0..components.len()).map(|k| k * length + column);
            let largest = terms().map(|t| values[t]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = terms().map(|t| (values[t] - largest).exp()).sum();
            let log_density = largest + sum.ln();
            terms().for_each(|t| values[t] = (values[t] - log_density).exp());
            log_likelihood += log_density;
            if log_density < worst.0 {
                worst = (log_density, range.start + column);
            }
        }
    }
    Responsibilities {
        range,
        values,
        log_likelihood,
        worst,
    }
}

/// Mean log-likelihood of the points in nats.
fn mean_log_likelihood(points: &Points, parts: &[Responsibilities]) -> f64 {
    let sum: f64 = parts.iter().map(|part| part.log_likelihood).sum();
    sum / points.count as f64
}

/// Number of points of each component, `Σ` of its responsibilities.
fn counts(parts: &[Responsibilities], components: usize) -> Vec<f64> {
    let mut counts = vec![0.0; components];
    for part in parts {
        let length = part.range.len();
        for (k, count) in counts.iter_mut().enumerate() {
            let values = &part.values[k * length..(k + 1) * length];
            *count += values.iter().sum::<f64>();
        }
    }
    counts
}

/// A component with fewer points is empty: it keeps its mean and covariance.
const EMPTY: f64 = 1e-9;

/// Maximisation: weights, means and covariances of the responsibilities.
fn maximisation(
    points: &Points,
    components: &[Component],
    covariance: CovarianceType,
    parts: &[Responsibilities],
    min_variance: f64,
) -> Vec<Component> {
    /// Rows of a covariance that one task computes.
    const ROWS: usize = 16;
    let dim = points.dim;
    let counts = counts(parts, components.len());
    let step = match covariance {
        CovarianceType::Diagonal => dim,
        CovarianceType::Full => ROWS,
    };
    let tasks: Vec<(usize, Range<usize>)> = (0..components.len())
        .filter(|k| counts[*k] >= EMPTY)
        .flat_map(|k| (0..dim).step_by(step).map(move |row| (k, row)))
        .map(|(k, row)| (k, row..(row + step).min(dim)))
        .collect();
    let moments = in_parallel(tasks.len(), |index| {
        let (k, rows) = tasks[index].clone();
        moments(points, parts, k, &components[k].mean, rows, covariance)
    });
    let mut first = vec![Vec::with_capacity(dim); components.len()];
    let mut second = vec![Vec::new(); components.len()];
    for ((k, _), (means, squares)) in tasks.iter().zip(moments) {
        first[*k].extend(means);
        second[*k].extend(squares);
    }
    let update = |k: usize| {
        let (old, count) = (&components[k], counts[k]);
        let weight = count / points.count as f64;
        if count < EMPTY {
            return Component {
                weight,
                ..old.clone()
            };
        }
        let shift: Vec<f64> = first[k].iter().map(|sum| sum / count).collect();
        let mean = old.mean.iter().zip(&shift).map(|(m, s)| m + s).collect();
        let factor = match covariance {
            CovarianceType::Diagonal => {
                let variances = second[k].iter().zip(&shift);
                variances
                    .map(|(square, s)| (square / count - s * s).max(min_variance).sqrt().recip())
                    .collect()
            }
            CovarianceType::Full => {
                // The rows of the lower triangle follow each other.
                let mut matrix = vec![0.0; dim * dim];
                let mut sums = second[k].iter();
                for i in 0..dim {
                    for j in 0..=i {
                        let sum = sums.next().copied().unwrap_or(0.0);
                        let value = sum / count - shift[i] * shift[j];
                        matrix[i * dim + j] = value;
                        matrix[j * dim + i] = value;
                    }
                }
                precision_factor(matrix, dim, min_variance)
            }
        };
        Component::new(weight, mean, factor)
    };
    in_parallel(components.len(), update)
}

/// Sums over the points of `r·d_i` and `r·d_i·d_j` for the responsibilities `r` of component `k`
/// and the differences `d` from its `centre`, for these rows `i`. With diagonal covariances
/// `j = i`, else `j` is from 0 to `i`.
fn moments(
    points: &Points,
    parts: &[Responsibilities],
    k: usize,
    centre: &[f64],
    rows: Range<usize>,
    covariance: CovarianceType,
) -> (Vec<f64>, Vec<f64>) {
    let columns = |i: usize| match covariance {
        CovarianceType::Diagonal => i..i + 1,
        CovarianceType::Full => 0..i + 1,
    };
    let mut first = vec![0.0; rows.len()];
    let mut second = vec![0.0; rows.clone().map(|i| columns(i).len()).sum()];
    let mut tile = Vec::new();
    for part in parts {
        let length = part.range.len();
        let all = &part.values[k * length..(k + 1) * length];
        for range in tiles(&part.range) {
            let start = range.start - part.range.start;
            let mut weights = [0.0; TILE];
            weights[..range.len()].copy_from_slice(&all[start..start + range.len()]);
            load_tile(points, range, centre, rows.end, &mut tile);
            let column = |i: usize| &tile[i * TILE..(i + 1) * TILE];
            let mut sums = second.iter_mut();
            for (first, i) in first.iter_mut().zip(rows.clone()) {
                let mut weighted = weights;
                let products = weighted.iter_mut().zip(column(i));
                products.for_each(|(w, d)| *w *= d);
                *first += weighted.iter().sum::<f64>();
                for (j, sum) in columns(i).zip(&mut sums) {
                    *sum += dot(&weighted, column(j));
                }
            }
        }
    }
    (first, second)
}

/// The lower triangular `P` with `PᵀP = Σ⁻¹`, where `Σ` is the covariance matrix with its
/// eigenvalues raised to at least `floor`: among the matrices with such eigenvalues, the one of the
/// highest likelihood.
fn precision_factor(mut matrix: Vec<f64>, dim: usize, floor: f64) -> Vec<f64> {
    let raised = |matrix: &[f64], by: f64| {
        let mut matrix = matrix.to_vec();
        (0..dim).for_each(|i| matrix[i * dim + i] += by);
        matrix
    };
    // A matrix minus the floor has a factor if all eigenvalues are above the floor.
    if cholesky(raised(&matrix, -floor), dim).is_none() {
        matrix = raise_eigenvalues(matrix, dim, floor);
    }
    let mut added = 0.0;
    loop {
        match cholesky(raised(&matrix, added), dim) {
            Some(factor) => return invert_lower(&factor, dim),
            // Rounding errors of a matrix of very different eigenvalues.
            None => added = f64::max(2.0 * added, floor),
        }
    }
}

/// The Cholesky factor, lower triangular and row by row; `None` unless the matrix is positive
/// definite.
fn cholesky(mut matrix: Vec<f64>, dim: usize) -> Option<Vec<f64>> {
    for i in 0..dim {
        for j in 0..=i {
            let (above, row) = matrix.split_at(i * dim);
            let other = if i == j { row } else { &above[j * dim..] };
            let products = row[..j].iter().zip(&other[..j]).map(|(a, b)| a * b);
            let rest = row[j] - products.sum::<f64>();
            let value = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / above[j * dim + j],
            };
            matrix[i * dim + j] = value;
        }
        matrix[i * dim + i + 1..(i + 1) * dim].fill(0.0);
    }
    Some(matrix)
}

/// The inverse of a lower triangular matrix.
fn invert_lower(matrix: &[f64], dim: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; dim * dim];
    for i in 0..dim {
        let diagonal = matrix[i * dim + i];
        inverse[i * dim + i] = 1.0 / diagonal;
        for j in 0..i {
            let products = (j..i).map(|k| matrix[i * dim + k] * inverse[k * dim + j]);
            inverse[i * dim + j] = -products.sum::<f64>() / diagonal;
        }
    }
    inverse
}

/// A symmetric matrix with its eigenvalues raised to at least `floor`.
fn raise_eigenvalues(matrix: Vec<f64>, dim: usize, floor: f64) -> Vec<f64> {
    let (values, vectors) = symmetric_eigen(matrix, dim);
    let mut raised = vec![0.0; dim * dim];
    for (value, vector) in values.iter().zip(vectors.chunks_exact(dim)) {
        let value = value.max(floor);
        for i in 0..dim {
            let scaled = value * vector[i];
            let row = raised[i * dim..(i + 1) * dim].iter_mut();
            row.zip(vector).for_each(|(sum, v)| *sum += scaled * v);
        }
    }
    raised
}

/// Eigenvalues and eigenvectors (in rows) of a symmetric matrix, by Jacobi's rotations (Golub and
/// Van Loan 2013, §8.5).
fn symmetric_eigen(mut a: Vec<f64>, dim: usize) -> (Vec<f64>, Vec<f64>) {
    /// Convergence is quadratic: matrices of hundreds of dimensions take about ten sweeps.
    const MAX_SWEEPS: usize = 40;
    let mut vectors = vec![0.0; dim * dim];
    (0..dim).for_each(|i| vectors[i * dim + i] = 1.0);
    let norm: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..MAX_SWEEPS {
        let below = (0..dim).flat_map(|p| (0..p).map(move |q| (p, q)));
        let rest: f64 = below.map(|(p, q)| a[p * dim + q].powi(2)).sum();
        if rest <= 1e-30 * norm {
            break;
        }
        for p in 0..dim {
            for q in p + 1..dim {
                let off = a[p * dim + q];
                if off == 0.0 {
                    continue;
                }
                let theta = (a[q * dim + q] - a[p * dim + p]) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for k in 0..dim {
                    let (x, y) = (a[k * dim + p], a[k * dim + q]);
                    a[k * dim + p] = c * x - s * y;
                    a[k * dim + q] = s * x + c * y;
                }
                for k in 0..dim {
                    let (x, y) = (a[p * dim + k], a[q * dim + k]);
                    a[p * dim + k] = c * x - s * y;
                    a[q * dim + k] = s * x + c * y;
                }
                for k in 0..dim {
                    let (x, y) = (vectors[p * dim + k], vectors[q * dim + k]);
                    vectors[p * dim + k] = c * x - s * y;
                    vectors[q * dim + k] = s * x + c * y;
                }
            }
        }
    }
    ((0..dim).map(|i| a[i * dim + i]).collect(), vectors)
}

fn square_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// Uniform on `[0, 1)`.
fn uniform(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Centres far from each other: each next one is a point, drawn with probability proportional to
/// the square of its distance to the nearest centre (k-means++, Arthur and Vassilvitskii 2007).
fn spread_centres(points: &Points, count: usize, rng: &mut Rng) -> Vec<Vec<f64>> {
    let ranges = points.ranges();
    let mut distances = vec![f64::INFINITY; points.count];
    let mut next = rng.random_index(points.count);
    let mut centres = Vec::with_capacity(count);
    loop {
        let centre = points.row(next).to_vec();
        let nearer = in_parallel(ranges.len(), |index| {
            let near = |i: usize| square_distance(points.row(i), &centre).min(distances[i]);
            ranges[index].clone().map(near).collect::<Vec<_>>()
        });
        distances = nearer.concat();
        centres.push(centre);
        if centres.len() == count {
            return centres;
        }
        let total: f64 = distances.iter().sum();
        next = match total > 0.0 {
            true => {
                let mut left = uniform(rng) * total;
                let drawn = distances.iter().position(|distance| {
                    left -= distance;
                    left < 0.0
                });
                drawn.unwrap_or_else(|| rng.random_index(points.count))
            }
            // All points are centres already.
            false => rng.random_index(points.count),
        };
    }
}

/// The nearest centre of each point.
fn nearest_centres(points: &Points, centres: &[Vec<f64>]) -> Vec<usize> {
    let ranges = points.ranges();
    let nearest = |i: usize| {
        let distances = centres.iter().map(|c| square_distance(points.row(i), c));
        let best = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or(0, |(k, _)| k)
    };
    let parts = in_parallel(ranges.len(), |index| {
        ranges[index].clone().map(nearest).collect::<Vec<_>>()
    });
    parts.concat()
}

/// Components at the centres of k-means, with the points nearest to each.
fn initial_components(
    points: &Points,
    count: usize,
    covariance: CovarianceType,
    min_variance: f64,
    rng: &mut Rng,
) -> Vec<Component> {
    /// Iterations of k-means; the components move on anyway.
    const ITERATIONS: usize = 10;
    let mut centres = spread_centres(points, count, rng);
    let mut labels = nearest_centres(points, &centres);
    for _ in 0..ITERATIONS {
        let mut sizes = vec![0.0; count];
        let mut sums = vec![vec![0.0; points.dim]; count];
        for (index, label) in labels.iter().enumerate() {
            sizes[*label] += 1.0;
            let sum = sums[*label].iter_mut().zip(points.row(index));
            sum.for_each(|(sum, x)| *sum += x);
        }
        for ((centre, sum), size) in centres.iter_mut().zip(sums).zip(sizes) {
            // A centre without points stays where it is.
            if size > 0.0 {
                *centre = sum.into_iter().map(|x| x / size).collect();
            }
        }
        let moved = nearest_centres(points, &centres);
        if moved == labels {
            break;
        }
        labels = moved;
    }
    let variances = floored(points.variances(), min_variance);
    let components: Vec<Component> = centres
        .into_iter()
        .map(|centre| Component::uncorrelated(1.0, centre, &variances, covariance))
        .collect();
    let one_hot = |range: Range<usize>| {
        let length = range.len();
        let mut values = vec![0.0; count * length];
        for (column, label) in labels[range.clone()].iter().enumerate() {
            values[label * length + column] = 1.0;
        }
        Responsibilities {
            range,
            values,
            log_likelihood: 0.0,
            worst: (0.0, 0),
        }
    };
    let parts: Vec<_> = points.ranges().into_iter().map(one_hot).collect();
    maximisation(points, &components, covariance, &parts, min_variance)
}

fn floored(mut variances: Vec<f64>, floor: f64) -> Vec<f64> {
    variances.iter_mut().for_each(|v| *v = v.max(floor));
    variances
}

/// Moves one empty component to the point of the least density, with the weight of one point and
/// the variances of all points, if that raises the log-likelihood for certain: the other weights
/// shrink by `1 − 1/n`, which costs at most one nat for all points together. Returns its index.
fn revive(
    points: &Points,
    components: &mut [Component],
    covariance: CovarianceType,
    parts: &[Responsibilities],
    variances: &[f64],
    revived: &[bool],
) -> Option<usize> {
    let counts = counts(parts, components.len());
    let k = (0..components.len()).find(|k| counts[*k] < EMPTY && !revived[*k])?;
    let worst = parts.iter().map(|part| part.worst);
    let (log_density, index) = worst.min_by(|a, b| a.0.total_cmp(&b.0))?;
    let n = points.count as f64;
    let mean = points.row(index).to_vec();
    let component = Component::uncorrelated(1.0 / n, mean, variances, covariance);
    if component.log_peak - n.ln() - 1.0 - 1e-6 <= log_density {
        return None;
    }
    for other in components.iter_mut() {
        other.weight *= 1.0 - 1.0 / n;
    }
    components[k] = component;
    Some(k)
}

/// A fitted mixture.
#[derive(Clone, Debug)]
pub(super) struct Fitted {
    pub(super) components: Vec<Component>,
    /// Mean log-likelihood of the points in nats before each iteration and after the last.
    pub(super) log_likelihoods: Vec<f64>,
    pub(super) converged: bool,
}

/// Fits a mixture of `count` components.
pub(super) fn fit(
    points: &Points,
    count: usize,
    covariance: CovarianceType,
    config: &EmConfig,
) -> Fitted {
    let start = |index: usize| {
        let mut rng = Rng::stream(config.seed, "mixture", index as u64);
        fit_once(points, count, covariance, config, &mut rng)
    };
    let last = |fitted: &Fitted| fitted.log_likelihoods.last().copied();
    (1..config.n_init)
        .map(start)
        .fold(start(0), |best, other| match last(&other) > last(&best) {
            true => other,
            false => best,
        })
}

fn fit_once(
    points: &Points,
    count: usize,
    covariance: CovarianceType,
    config: &EmConfig,
    rng: &mut Rng,
) -> Fitted {
    let floor = config.min_variance;
    let variances = floored(points.variances(), floor);
    let mut revived = vec![false; count];
    let mut fitted = Fitted {
        components: Vec::new(),
        log_likelihoods: Vec::new(),
        converged: false,
    };
    let mut components = initial_components(points, count, covariance, floor, rng);
    let mut was_revived = false;
    for iteration in 0..=config.max_iter {
        let parts = expectation(points, &components, covariance);
        let found = mean_log_likelihood(points, &parts);
        let before = fitted.log_likelihoods.last().copied();
        // Near the maximum, rounding errors are larger than the steps.
        if before.is_some_and(|before| found < before) {
            fitted.converged = true;
            break;
        }
        fitted.log_likelihoods.push(found);
        fitted.components.clone_from(&components);
        if iteration == config.max_iter {
            break;
        }
        let empty = revive(
            points,
            &mut components,
            covariance,
            &parts,
            &variances,
            &revived,
        );
        if let Some(k) = empty {
            (revived[k], was_revived) = (true, true);
            continue;
        }
        let settled = before.is_some_and(|before| found - before < config.tol);
        if settled && !was_revived {
            fitted.converged = true;
            break;
        }
        was_revived = false;
        components = maximisation(points, &components, covariance, &parts, floor);
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of a mixture in the plane, given by weight, mean and lower Cholesky factor.
    fn draw(n: usize, seed: u64, mixture: &[(f64, [f64; 2], [f64; 3])]) -> Vec<Vec<f32>> {
        let mut rng = Rng::new(seed);
        (0..n)
            .map(|_| {
                let mut left = uniform(&mut rng);
                let drawn = mixture.iter().find(|(weight, ..)| {
                    left -= weight;
                    left < 0.0
                });
                let (_, mean, [a, b, c]) = drawn.unwrap_or(&mixture[0]);
                let normals = rng.normal_vec(2);
                let (x, y) = (f64::from(normals[0]), f64::from(normals[1]));
                vec![(mean[0] + a * x) as f32, (mean[1] + b * x + c * y) as f32]
            })
            .collect()
    }

    const THREE: [(f64, [f64; 2], [f64; 3]); 3] = [
        (0.5, [0.0, 0.0], [1.0, 0.6, 0.5]),
        (0.3, [6.0, 1.0], [0.5, 0.0, 1.2]),
        (0.2, [-2.0, 6.0], [0.8, -0.4, 0.4]),
    ];

    /// The covariance matrix of a component: the inverse of `PᵀP`.
    fn covariance_of(component: &Component) -> [f64; 3] {
        let f = &component.factor;
        let (a, b, c) = match f.len() {
            2 => (f[0], 0.0, f[1]),
            _ => (f[0], f[2], f[3]),
        };
        let precision = [a * a + b * b, b * c, c * c];
        let det = precision[0] * precision[2] - precision[1].powi(2);
        [precision[2] / det, -precision[1] / det, precision[0] / det]
    }

    #[test]
    fn known_mixture_is_recovered() {
        let n = 6000;
        let points = Points::new(&draw(n, 3, &THREE)).unwrap();
        let config = EmConfig {
            tol: 1e-6,
            n_init: 4,
            ..EmConfig::default()
        };
        let fitted = fit(&points, 3, CovarianceType::Full, &config);
        assert!(fitted.converged);
        for (weight, mean, [a, b, c]) in THREE {
            let component = fitted
                .components
                .iter()
                .min_by(|x, y| {
                    let far = |c: &Component| square_distance(&c.mean, &mean);
                    far(x).total_cmp(&far(y))
                })
                .unwrap();
            // Five standard errors of the estimates from that many points.
            let count = n as f64 * weight;
            let error = 5.0 * (weight * (1.0 - weight) / n as f64).sqrt();
            assert!((component.weight - weight).abs() < error, "{component:?}");
            let truth = [a * a, a * b, b * b + c * c];
            let found = covariance_of(component);
            for (axis, variance) in [(0, truth[0]), (1, truth[2])] {
                let error = 5.0 * (variance / count).sqrt();
                assert!(
                    (component.mean[axis] - mean[axis]).abs() < error,
                    "{component:?}"
                );
            }
            // The variance of an estimate of `Σ_ij` is `(Σ_ii·Σ_jj + Σ_ij²) / count`.
            for (index, [i, j]) in [[0, 0], [0, 2], [2, 2]].into_iter().enumerate() {
                let variance = truth[i] * truth[j] + truth[index].powi(2);
                let error = 5.0 * (variance / count).sqrt();
                assert!(
                    (found[index] - truth[index]).abs() < error,
                    "{found:?} {truth:?}"
                );
            }
        }
    }

    /// Without the stop at rounding errors, from starts of overlapping and superfluous components.
    #[test]
    fn log_likelihood_never_falls() {
        let rows = draw(1500, 4, &THREE);
        let points = Points::new(&rows).unwrap();
        for covariance in [CovarianceType::Diagonal, CovarianceType::Full] {
            // The second floor is active: it is above the smallest variances of the components.
            for floor in [1e-6, 0.4] {
                let mut rng = Rng::new(5);
                let mut components = initial_components(&points, 7, covariance, floor, &mut rng);
                let mut found = Vec::new();
                for _ in 0..40 {
                    let parts = expectation(&points, &components, covariance);
                    found.push(mean_log_likelihood(&points, &parts));
                    components = maximisation(&points, &components, covariance, &parts, floor);
                    let sum: f64 = components.iter().map(|c| c.weight).sum();
                    assert!((sum - 1.0).abs() < 1e-9);
                }
                let rises = found.windows(2).all(|pair| pair[1] >= pair[0] - 1e-12);
                assert!(rises, "{covariance:?} {floor}: {found:?}");
                assert!(
                    found[39] > found[0] + 1e-3,
                    "{covariance:?} {floor}: {found:?}"
                );
            }
        }
    }

    /// The log-likelihood by the definition of the density.
    #[test]
    fn log_likelihood_is_that_of_the_density() {
        let rows = draw(200, 6, &THREE);
        let points = Points::new(&rows).unwrap();
        let components =
            initial_components(&points, 3, CovarianceType::Full, 1e-6, &mut Rng::new(1));
        let parts = expectation(&points, &components, CovarianceType::Full);
        let by_hand: f64 = rows
            .iter()
            .map(|row| {
                let density = |component: &Component| {
                    let [xx, xy, yy] = covariance_of(component);
                    let det = xx * yy - xy * xy;
                    let x = f64::from(row[0]) - component.mean[0];
                    let y = f64::from(row[1]) - component.mean[1];
                    let square = (yy * x * x - 2.0 * xy * x * y + xx * y * y) / det;
                    let scale = 2.0 * std::f64::consts::PI * det.sqrt();
                    component.weight * (-0.5 * square).exp() / scale
                };
                components.iter().map(density).sum::<f64>().ln()
            })
            .sum::<f64>()
            / 200.0;
        let found = mean_log_likelihood(&points, &parts);
        assert!((found - by_hand).abs() < 1e-10, "{found} {by_hand}");
    }

    /// More components than different points: weights of 0, no NaN, and the floor as variance.
    #[test]
    fn empty_components_keep_the_fit_finite() {
        let rows: Vec<Vec<f32>> = (0..90).map(|i| vec![(i % 3) as f32 * 4.0, 1.0]).collect();
        let points = Points::new(&rows).unwrap();
        for covariance in [CovarianceType::Diagonal, CovarianceType::Full] {
            let config = EmConfig {
                min_variance: 0.01,
                ..EmConfig::default()
            };
            let fitted = fit(&points, 5, covariance, &config);
            let weights: f64 = fitted.components.iter().map(|c| c.weight).sum();
            assert!((weights - 1.0).abs() < 1e-9);
            // Three groups of equal points: `ln 1/3 − ln 2π·0.01` per point.
            let best = -(3.0 * 2.0 * std::f64::consts::PI * 0.01f64).ln();
            let found = *fitted.log_likelihoods.last().unwrap();
            assert!((found - best).abs() < 1e-6, "{covariance:?} {found} {best}");
        }
    }

    /// An empty component moves to a point far from all others, where a second start is needed.
    #[test]
    fn empty_component_moves_to_the_worst_point() {
        let mut rows = draw(300, 7, &[(1.0, [0.0, 0.0], [1.0, 0.0, 1.0])]);
        rows.push(vec![60.0, 60.0]);
        let points = Points::new(&rows).unwrap();
        let covariance = CovarianceType::Diagonal;
        let unit = |weight, at: f64| {
            Component::uncorrelated(weight, vec![at, at], &[1.0, 1.0], covariance)
        };
        let mut components = vec![unit(1.0, 0.0), unit(0.0, -500.0)];
        let parts = expectation(&points, &components, covariance);
        let before = mean_log_likelihood(&points, &parts);
        let variances = points.variances();
        let revived = [false; 2];
        let k = revive(
            &points,
            &mut components,
            covariance,
            &parts,
            &variances,
            &revived,
        );
        assert_eq!(k, Some(1));
        assert_eq!(components[1].mean, [60.0, 60.0]);
        let parts = expectation(&points, &components, covariance);
        assert!(mean_log_likelihood(&points, &parts) > before);
        let again = revive(
            &points,
            &mut components,
            covariance,
            &parts,
            &variances,
            &[false, true],
        );
        assert_eq!(again, None);
    }

    #[test]
    fn factors_invert_the_matrix_with_raised_eigenvalues() {
        // Eigenvalues 3, 1 and 0, the last below the floor; eigenvectors by construction.
        let (u, v) = ([0.6, 0.8, 0.0], [-0.8, 0.6, 0.0]);
        let matrix = |values: [f64; 3]| {
            let entry = |k: usize| {
                let (i, j) = (k / 3, k % 3);
                let last = f64::from(u8::from(i == 2 && j == 2));
                values[0] * u[i] * u[j] + values[1] * v[i] * v[j] + values[2] * last
            };
            (0..9).map(entry).collect::<Vec<_>>()
        };
        let factor = precision_factor(matrix([3.0, 1.0, 0.0]), 3, 0.25);
        let expected = matrix([3.0, 1.0, 0.25]);
        for i in 0..3 {
            for j in 0..3 {
                // Σ·PᵀP must be the identity.
                let precision = |k: usize| {
                    (0..3)
                        .map(|m| factor[m * 3 + k] * factor[m * 3 + j])
                        .sum::<f64>()
                };
                let product: f64 = (0..3).map(|k| expected[i * 3 + k] * precision(k)).sum();
                let identity = f64::from(u8::from(i == j));
                assert!((product - identity).abs() < 1e-10, "{i} {j} {product}");
            }
        }
    }

    #[test]
    fn bad_points_are_rejected() {
        let message = |rows: &[Vec<f32>]| Points::new(rows).err().unwrap().to_string();
        assert!(message(&[]).contains("latents"));
        assert!(message(&[vec![1.0], vec![1.0, 2.0]]).contains("1 values each"));
        assert!(message(&[vec![f32::NAN]]).contains("finite"));
        let config = EmConfig {
            max_iter: 0,
            ..EmConfig::default()
        };
        assert!(
            config
                .validate()
                .unwrap_err()
                .to_string()
                .contains("max_iter")
        );
    }
}
