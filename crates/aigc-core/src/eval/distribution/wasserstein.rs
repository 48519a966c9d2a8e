//! Wasserstein distances in one dimension and over random projections.

use super::{Features, check_pair};
use crate::{Error, Result, eval::features::pairwise::for_each_block, rng::Rng};

/// Number of directions that are projected on at once.
const DIRECTIONS: usize = 16;

/// The Wasserstein distance of order `order` between two sets of numbers, which may differ in size:
/// `(∫ |F⁻¹(u) − G⁻¹(u)|^p du)^(1/p)` over their quantiles, exactly. Order 1 is
/// `scipy.stats.wasserstein_distance`.
///
/// # Errors
/// [`Error::InvalidArgument`] for an order outside 1 to 100 or one whose powers overflow, an empty
/// set, or a value that is not finite.
pub fn wasserstein_1d(a: &[f64], b: &[f64], order: u32) -> Result<f64> {
    check_order(order)?;
    for values in [a, b] {
        if values.is_empty() {
            return Err(Error::argument("values", "empty", "at least 1"));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::argument("values", value, "finite numbers"));
        }
    }
    root(transport(&mut a.to_vec(), &mut b.to_vec(), order), order)
}

/// The sliced Wasserstein distance of order `order`: `(mean over directions of Wₚᵖ)^(1/p)` of the
/// samples projected on `projections` random directions (Bonneel et al. 2015, in the form of the
/// Python package POT). The sets may have different numbers of samples. It is 0 for equal sets
/// only, if there are enough directions, where a Fréchet distance compares no more than two
/// moments.
///
/// # Errors
/// [`Error::InvalidArgument`] for an order outside 1 to 100 or one whose powers overflow, no
/// projections, different widths, or an empty set.
pub fn sliced_wasserstein(
    a: &Features,
    b: &Features,
    order: u32,
    projections: usize,
    seed: u64,
) -> Result<f64> {
    if projections == 0 {
        return Err(Error::argument("projections", projections, "at least 1"));
    }
    let width = a.width();
    let mut rng = Rng::stream(seed, "sliced-wasserstein", 0);
    let mut directions = Vec::with_capacity(projections * width);
    while directions.len() < projections * width {
        let draws = rng.normal_vec(width);
        let squares = draws.iter().map(|x| f64::from(*x).powi(2));
        let length = squares.sum::<f64>().sqrt();
        if length > 0.0 {
            directions.extend(draws.iter().map(|x| (f64::from(*x) / length) as f32));
        }
    }
    sliced_wasserstein_along(a, b, order, &Features::new(directions, width)?)
}

/// The sliced Wasserstein distance over given directions, one in each row, of length 1.
///
/// # Errors
/// [`Error::InvalidArgument`] for an order outside 1 to 100 or one whose powers overflow, different
/// widths, an empty set, or no directions.
pub fn sliced_wasserstein_along(
    a: &Features,
    b: &Features,
    order: u32,
    directions: &Features,
) -> Result<f64> {
    check_order(order)?;
    check_pair(a, b, 1)?;
    check_pair(a, directions, 1)?;
    let all: Vec<usize> = (0..directions.len()).collect();
    let mut sum = 0.0;
    for some in all.chunks(DIRECTIONS) {
        let some = directions.select(some);
        let (mut on_a, mut on_b) = (project(&some, a), project(&some, b));
        let pairs = on_a
            .chunks_exact_mut(a.len())
            .zip(on_b.chunks_exact_mut(b.len()));
        sum += pairs.map(|(a, b)| transport(a, b, order)).sum::<f64>();
    }
    root(sum / directions.len() as f64, order)
}

fn root(cost: f64, order: u32) -> Result<f64> {
    match cost.is_finite() {
        true => Ok(cost.powf(1.0 / f64::from(order))),
        false => {
            let expected = "so small that no power of a distance overflows";
            Err(Error::argument("order", order, expected))
        }
    }
}

fn check_order(order: u32) -> Result<()> {
    if !(1..=100).contains(&order) {
        return Err(Error::argument("order", order, "1 to 100"));
    }
    Ok(())
}

/// Inner products with every row of `x`, direction by direction.
fn project(directions: &Features, x: &Features) -> Vec<f64> {
    let mut values = vec![0.0; directions.len() * x.len()];
    for_each_block(directions, x, |first, _, products| {
        let start = first * x.len();
        values[start..start + products.len()].copy_from_slice(products);
    });
    values
}

/// `Wₚᵖ` of two sets of numbers, which are sorted here.
fn transport(a: &mut [f64], b: &mut [f64], order: u32) -> f64 {
    a.sort_unstable_by(f64::total_cmp);
    b.sort_unstable_by(f64::total_cmp);
    let (n, m) = (a.len(), b.len());
    // Shares of the samples in units of 1/(n·m): whole numbers, so steps end where they should.
    let (mut i, mut j, mut at, mut sum) = (0, 0, 0, 0.0);
    while i < n && j < m {
        let (end_a, end_b) = ((i + 1) * m, (j + 1) * n);
        let end = end_a.min(end_b);
        sum += (end - at) as f64 * (a[i] - b[j]).abs().powi(order.cast_signed());
        at = end;
        i += usize::from(end_a == end);
        j += usize::from(end_b == end);
    }
    sum / (n as f64 * m as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::distribution::tests::normal;

    #[test]
    fn distances_of_numbers_match_closed_forms() {
        let w = |a: &[f64], b: &[f64], order| wasserstein_1d(a, b, order).unwrap();
        assert_eq!(w(&[3.0, 1.0], &[1.0, 3.0], 2), 0.0);
        assert!((w(&[0.0, 1.0], &[5.0, 7.0], 1) - 5.5).abs() < 1e-12);
        assert!((w(&[0.0, 1.0], &[5.0, 7.0], 2) - 30.5f64.sqrt()).abs() < 1e-12);
        // Thirds of the mass go 0, 1 and 2.
        assert!((w(&[0.0, 0.0], &[0.0, 1.0, 2.0], 1) - 1.0).abs() < 1e-12);
        // A half stays at 0, a sixth goes from 1 to 0, a third from 1 to 3.
        assert!((w(&[0.0, 1.0], &[0.0, 0.0, 3.0], 1) - 5.0 / 6.0).abs() < 1e-12);
    }

    /// A shift by `s` in one of `d` dimensions has the squared distance `s²/d` on average over
    /// directions.
    #[test]
    fn sliced_distance_of_shift_matches_closed_form() {
        let a = normal(1, 50, 3);
        let moved = a
            .rows()
            .flat_map(|row| [row[0] + 2.0, row[1], row[2]])
            .collect();
        let b = Features::new(moved, 3).unwrap();
        let found = sliced_wasserstein(&a, &b, 2, 4000, 7).unwrap();
        assert!((found * found - 4.0 / 3.0).abs() < 0.1, "{found}");
        assert_eq!(found, sliced_wasserstein(&a, &b, 2, 4000, 7).unwrap());
        assert!(sliced_wasserstein(&a, &a, 1, 10, 7).unwrap() < 1e-12);
        let axis = Features::new(vec![1.0, 0.0, 0.0], 3).unwrap();
        let along = sliced_wasserstein_along(&a, &b, 1, &axis).unwrap();
        assert!((along - 2.0).abs() < 1e-5, "{along}");
    }

    #[test]
    fn invalid_arguments_are_errors() {
        let error = |found: Result<f64>| found.unwrap_err().to_string();
        let a = normal(0, 3, 2);
        assert!(error(wasserstein_1d(&[], &[1.0], 1)).contains("`values` is empty"));
        assert!(error(wasserstein_1d(&[f64::NAN], &[1.0], 1)).contains("NaN"));
        assert!(error(wasserstein_1d(&[0.0], &[1.0], 0)).contains("`order` is 0"));
        assert!(error(wasserstein_1d(&[1e9], &[0.0], 100)).contains("`order` is 100"));
        assert!(error(sliced_wasserstein(&a, &a, 2, 0, 0)).contains("`projections` is 0"));
        let other = normal(0, 3, 4);
        assert!(error(sliced_wasserstein(&a, &other, 2, 5, 0)).contains("`features` is 4"));
        let none = Features::empty(2).unwrap();
        assert!(error(sliced_wasserstein(&a, &none, 2, 5, 0)).contains("`samples` is 0"));
    }
}
