//! Fits of mixtures that are known.

use super::{start::square_distance, *};
use crate::math::uniform;

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
    let components = initial_components(&points, 3, CovarianceType::Full, 1e-6, &mut Rng::new(1));
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
    let unit =
        |weight, at: f64| Component::uncorrelated(weight, vec![at, at], &[1.0, 1.0], covariance);
    let mut components = vec![unit(1.0, 0.0), unit(0.0, -500.0)];
    let parts = expectation(&points, &components, covariance);
    let before = mean_log_likelihood(&points, &parts);
    let variances = points.variances(0.0);
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
