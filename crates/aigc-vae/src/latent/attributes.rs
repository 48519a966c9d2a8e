//! Directions of attributes in the space of latents.

use crate::math::cholesky;
use aigc_core::{Error, Result};

/// How the direction of an attribute is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum AttributeMethod {
    /// The mean of the latents with the attribute minus the mean of those without it (White 2016,
    /// <https://arxiv.org/abs/1609.04468>).
    ClassMeans,
    /// Ridge regression of the attribute on the latents: a linear classifier in closed form. Other
    /// than the class means, it does not follow what is only correlated with the attribute.
    Ridge {
        /// Factor `α` of the penalty `α·|w|²`, above 0, beside the sum of the squared errors.
        alpha: f64,
    },
}

/// The direction of an attribute, and a linear prediction of it.
#[derive(Clone, Debug, PartialEq)]
pub struct AttributeDirection {
    /// The direction, `[latent_dim]`. A step of 1 moves a latent without the attribute to one with
    /// it: by the difference of the class means, or, for ridge regression, by the shortest way that
    /// raises the prediction by 1.
    pub direction: Vec<f64>,
    /// Weights `w` of the prediction `w·z + intercept`, `[latent_dim]`. The prediction is 0 without
    /// the attribute and 1 with it.
    pub weights: Vec<f64>,
    /// Constant of the prediction.
    pub intercept: f64,
}

/// Limit on the unknowns of ridge regression, whose matrix takes 8 bytes for each pair.
const MAX_UNKNOWNS: usize = 8192;

impl AttributeDirection {
    /// The direction of an attribute from latents with and without it.
    ///
    /// # Shapes
    /// - latents: `[n, latent_dim]`, row by row
    /// - has_attribute: n values
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the numbers of values do not fit each other, a latent is not
    /// finite, no latent has the attribute or all have it, the latents do not depend on the
    /// attribute, or the penalty of a ridge regression is out of range.
    pub fn new(
        latents: &[f64],
        latent_dim: usize,
        has_attribute: &[bool],
        method: AttributeMethod,
    ) -> Result<Self> {
        let with = has_attribute.iter().filter(|has| **has).count();
        if with == 0 || with == has_attribute.len() {
            return Err(Error::argument(
                "has_attribute",
                format!("true for {with} of {} samples", has_attribute.len()),
                "samples with the attribute and samples without it",
            ));
        }
        match method {
            AttributeMethod::ClassMeans => {
                check_latents(latents, latent_dim, has_attribute.len())?;
                Self::class_means(latents, latent_dim, has_attribute)
            }
            AttributeMethod::Ridge { alpha } => {
                let targets: Vec<f64> = has_attribute.iter().map(|has| f64::from(*has)).collect();
                Self::ridge(latents, latent_dim, &targets, alpha)
            }
        }
    }

    fn class_means(latents: &[f64], latent_dim: usize, has_attribute: &[bool]) -> Result<Self> {
        let mean = |class: bool| {
            let count = has_attribute.iter().filter(|has| **has == class).count();
            let mut mean = vec![0.0; latent_dim];
            for (z, has) in latents.chunks_exact(latent_dim).zip(has_attribute) {
                if *has == class {
                    add_scaled(&mut mean, z, 1.0 / count as f64);
                }
            }
            mean
        };
        let (with, without) = (mean(true), mean(false));
        let direction: Vec<f64> = with.iter().zip(&without).map(|(a, b)| a - b).collect();
        let square = nonzero_square(&direction)?;
        // The projection on the line between the means, which are at 0 and 1.
        let weights: Vec<f64> = direction.iter().map(|value| value / square).collect();
        Ok(Self {
            intercept: -dot(&weights, &without),
            direction,
            weights,
        })
    }

    /// Ridge regression of any targets on latents: minimises `Σ (w·z + b − target)² + α·|w|²` over
    /// weights and intercept (Hoerl and Kennard 1970), in 64 bits and in closed form. A step of 1
    /// along the direction raises the prediction by 1.
    ///
    /// # Shapes
    /// - latents: `[n, latent_dim]`, row by row
    /// - targets: n values
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the numbers of values do not fit each other, a value is not
    /// finite, `alpha` is not above 0, the prediction does not depend on the latents, or there are
    /// more than 8,192 both of latents and of dimensions.
    pub fn ridge(latents: &[f64], latent_dim: usize, targets: &[f64], alpha: f64) -> Result<Self> {
        let n = targets.len();
        check_latents(latents, latent_dim, n)?;
        if let Some(target) = targets.iter().find(|target| !target.is_finite()) {
            return Err(Error::argument("targets", target, "finite numbers"));
        }
        if !alpha.is_finite() || alpha <= 0.0 {
            return Err(Error::argument("alpha", alpha, "a finite number above 0"));
        }
        let unknowns = latent_dim.min(n);
        if unknowns > MAX_UNKNOWNS {
            let expected = format!("at most {MAX_UNKNOWNS} latents or dimensions");
            return Err(Error::argument("latents", unknowns, expected));
        }
        let mut mean = vec![0.0; latent_dim];
        for z in latents.chunks_exact(latent_dim) {
            add_scaled(&mut mean, z, 1.0 / n as f64);
        }
        let target_mean = targets.iter().sum::<f64>() / n as f64;
        let centred: Vec<f64> = (latents.chunks_exact(latent_dim))
            .flat_map(|z| z.iter().zip(&mean).map(|(z, mean)| z - mean))
            .collect();
        let targets: Vec<f64> = targets.iter().map(|target| target - target_mean).collect();
        let rows: Vec<&[f64]> = centred.chunks_exact(latent_dim).collect();
        let weights = if latent_dim <= n {
            // (ZᵀZ + α)·w = Zᵀ·t
            let mut matrix = vec![0.0; latent_dim * latent_dim];
            let mut right = vec![0.0; latent_dim];
            for (z, target) in rows.iter().zip(&targets) {
                add_scaled(&mut right, z, *target);
                for (row, value) in matrix.chunks_exact_mut(latent_dim).zip(*z) {
                    add_scaled(row, z, *value);
                }
            }
            solve(matrix, right, alpha)
        } else {
            // w = Zᵀ·(ZZᵀ + α)⁻¹·t, which has fewer unknowns.
            let products = rows
                .iter()
                .flat_map(|a| rows.iter().map(move |b| dot(a, b)));
            let factors = solve(products.collect(), targets, alpha);
            factors.map(|factors| {
                let mut weights = vec![0.0; latent_dim];
                for (z, factor) in rows.iter().zip(&factors) {
                    add_scaled(&mut weights, z, *factor);
                }
                weights
            })
        };
        let Some(weights) = weights else {
            return Err(Error::argument(
                "alpha",
                alpha,
                "large enough to solve for the weights",
            ));
        };
        let square = nonzero_square(&weights)?;
        Ok(Self {
            direction: weights.iter().map(|weight| weight / square).collect(),
            intercept: target_mean - dot(&weights, &mean),
            weights,
        })
    }

    /// The prediction for a latent, 0 without the attribute and 1 with it.
    ///
    /// # Panics
    /// If the latent has another number of dimensions.
    pub fn predict(&self, z: &[f64]) -> f64 {
        assert_eq!(z.len(), self.weights.len(), "dimensions of a latent");
        dot(&self.weights, z) + self.intercept
    }
}

fn check_latents(latents: &[f64], latent_dim: usize, n: usize) -> Result<()> {
    if latent_dim == 0 {
        return Err(Error::argument("latent_dim", 0, "at least 1"));
    }
    if n == 0 || n.checked_mul(latent_dim) != Some(latents.len()) {
        return Err(Error::argument(
            "latents",
            format!("{} values", latents.len()),
            format!("{n} latents of {latent_dim} dimensions, at least 1"),
        ));
    }
    match latents.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::argument("latents", value, "finite numbers")),
        None => Ok(()),
    }
}

/// The squared norm of a direction.
fn nonzero_square(direction: &[f64]) -> Result<f64> {
    let square = dot(direction, direction);
    if square > 0.0 && square.is_finite() {
        return Ok(square);
    }
    Err(Error::argument(
        "latents",
        "without a direction",
        "latents that depend on the attribute",
    ))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(sum: &mut [f64], x: &[f64], factor: f64) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += factor * x;
    }
}

/// Solves `(A + α·I)·x = b` for a symmetric matrix, row by row; `None` if the sum is not positive
/// definite.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>, alpha: f64) -> Option<Vec<f64>> {
    let n = b.len();
    a.iter_mut().step_by(n + 1).for_each(|x| *x += alpha);
    let l = cholesky(a, n)?;
    // L·y = b, then Lᵀ·x = y.
    for i in 0..n {
        b[i] = (b[i] - dot(&l[i * n..i * n + i], &b[..i])) / l[i * n + i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| l[k * n + i] * b[k]).sum();
        b[i] = (b[i] - known) / l[i * n + i];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;

    fn normal(seed: u64, n: usize) -> Vec<f64> {
        let values = Rng::new(seed).normal_vec(n);
        values.into_iter().map(f64::from).collect()
    }

    #[test]
    fn solve_inverts_a_known_matrix() {
        // [[4, 2], [2, 3]]·[1, −2] = [0, −4], with 1 of the diagonal as the penalty.
        let found = solve(vec![3.0, 2.0, 2.0, 2.0], vec![0.0, -4.0], 1.0).unwrap();
        assert!((found[0] - 1.0).abs() < 1e-12 && (found[1] + 2.0).abs() < 1e-12);
        assert_eq!(solve(vec![1.0, 2.0, 2.0, 1.0], vec![1.0, 1.0], 0.0), None);
    }

    #[test]
    fn class_means_are_at_zero_and_one() {
        let latents = [0.0, 0.0, 2.0, 1.0, 1.0, 3.0, 3.0, 4.0];
        let has = [false, true, false, true];
        let found =
            AttributeDirection::new(&latents, 2, &has, AttributeMethod::ClassMeans).unwrap();
        assert_eq!(found.direction, [2.0, 1.0]);
        assert!(found.predict(&[0.5, 1.5]).abs() < 1e-12);
        assert!((found.predict(&[2.5, 2.5]) - 1.0).abs() < 1e-12);
    }

    /// The gradient of the penalised squared error is 0 at the solution, in both forms.
    #[test]
    fn ridge_solves_its_normal_equations() {
        for (n, d) in [(40, 3), (5, 12)] {
            let latents: Vec<f64> = normal(1, n * d).iter().map(|z| 3.0 * z + 1.0).collect();
            let (targets, alpha) = (normal(2, n), 0.7);
            let found = AttributeDirection::ridge(&latents, d, &targets, alpha).unwrap();
            let errors: Vec<f64> = (latents.chunks_exact(d).zip(&targets))
                .map(|(z, target)| found.predict(z) - target)
                .collect();
            assert!(errors.iter().sum::<f64>().abs() < 1e-9);
            for (unit, weight) in found.weights.iter().enumerate() {
                let products = latents.chunks_exact(d).zip(&errors);
                let slope: f64 = products.map(|(z, error)| z[unit] * error).sum();
                assert!((slope + alpha * weight).abs() < 1e-9, "{n} {d} {unit}");
            }
            // A step along the direction raises the prediction by 1.
            let z = &latents[..d];
            let moved: Vec<f64> = z.iter().zip(&found.direction).map(|(z, v)| z + v).collect();
            assert!((found.predict(&moved) - found.predict(z) - 1.0).abs() < 1e-9);
        }
    }

    /// The attribute is the sign of one dimension; another dimension is correlated with it. Ridge
    /// regression weighs the correlated dimension less than the class means do.
    #[test]
    fn ridge_ignores_what_is_only_correlated() {
        let noise = normal(3, 4000);
        let latents: Vec<f64> = noise
            .chunks_exact(2)
            .flat_map(|e| [e[0], e[0] + 0.5 * e[1]])
            .collect();
        let has: Vec<bool> = latents.chunks_exact(2).map(|z| z[0] > 0.0).collect();
        let ratio = |method| {
            let found = AttributeDirection::new(&latents, 2, &has, method).unwrap();
            found.direction[1] / found.direction[0]
        };
        let means = ratio(AttributeMethod::ClassMeans);
        let ridge = ratio(AttributeMethod::Ridge { alpha: 1.0 });
        // The exact ratios are 1 and 0; they deviate by about 0.014 and 0.034.
        assert!(
            (means - 1.0).abs() < 0.1 && ridge.abs() < 0.2,
            "{means} {ridge}"
        );
    }

    #[test]
    fn invalid_arguments_are_errors() {
        let message = |latents: &[f64], d, has: &[bool], method| {
            let error = AttributeDirection::new(latents, d, has, method).unwrap_err();
            error.to_string()
        };
        let means = AttributeMethod::ClassMeans;
        let has = [true, false];
        assert!(message(&[1.0, 2.0], 1, &[true, true], means).contains("true for 2 of 2 samples"));
        assert!(message(&[1.0, 2.0, 3.0], 1, &has, means).contains("is 3 values, expected 2"));
        assert!(message(&[1.0, f64::NAN], 1, &has, means).contains("finite"));
        assert!(message(&[], 0, &has, means).contains("`latent_dim` is 0"));
        assert!(message(&[1.0, 1.0], 1, &has, means).contains("depend on the attribute"));
        let ridge = AttributeMethod::Ridge { alpha: 0.0 };
        assert!(message(&[1.0, 2.0], 1, &has, ridge).contains("`alpha` is 0"));
        let constant = AttributeMethod::Ridge { alpha: 1.0 };
        assert!(message(&[1.0, 1.0], 1, &has, constant).contains("depend on the attribute"));
    }
}
