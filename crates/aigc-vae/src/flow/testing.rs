//! What the tests of all flows share.

use super::Flow;
use aigc_core::{
    params::{ParamMapper, map_params},
    rng::Rng,
    testing::values,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};

struct Perturb {
    std: f64,
    rng: Rng,
}

impl ParamMapper for Perturb {
    fn map<const D: usize>(&mut self, _path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| self.rng.normal(value.dims(), &value.device()) * self.std)
    }
}

/// The module with all weights drawn from a normal distribution: flows begin close to the identity,
/// where most mistakes do not show.
pub(crate) fn perturbed<M: Module>(module: M, std: f64, seed: u64) -> M {
    let rng = Rng::new(seed);
    map_params(module, &mut Perturb { std, rng })
}

/// Rows of numbers as a tensor.
pub(crate) fn rows(values: &[f64], width: usize) -> Tensor<2> {
    let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
    let shape = [values.len() / width, width];
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// The Jacobian `∂f_i/∂x_j` at `x`, row by row, from central differences of fourth order. All
/// points are evaluated as one batch.
pub(crate) fn jacobian(x: &[f64], f: impl Fn(Tensor<2>) -> Tensor<2>) -> Vec<f64> {
    const STEP: f64 = 0.04;
    // Offsets in steps and their weights: (8·(f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h.
    const STENCIL: [(f64, f64); 4] = [(1.0, 8.0), (-1.0, -8.0), (2.0, -1.0), (-2.0, 1.0)];
    let n = x.len();
    let mut points = Vec::new();
    for j in 0..n {
        for (offset, _) in STENCIL {
            let mut point = x.to_vec();
            point[j] += offset * STEP;
            points.extend(point);
        }
    }
    let images = values(f(rows(&points, n)));
    let mut jacobian = vec![0.0; n * n];
    for (row, image) in images.chunks(n).enumerate() {
        let (j, (_, weight)) = (row / STENCIL.len(), STENCIL[row % STENCIL.len()]);
        for (i, value) in image.iter().enumerate() {
            jacobian[i * n + j] += weight * f64::from(*value) / (12.0 * STEP);
        }
    }
    jacobian
}

/// `log |det A|`, by Gaussian elimination with pivots.
pub(crate) fn log_abs_det(matrix: &[f64], n: usize) -> f64 {
    let mut a = matrix.to_vec();
    let mut log_det = 0.0;
    for column in 0..n {
        let size = |row: &usize| a[row * n + column].abs();
        let pivot = (column..n)
            .max_by(|p, q| size(p).total_cmp(&size(q)))
            .unwrap();
        for k in 0..n {
            a.swap(column * n + k, pivot * n + k);
        }
        log_det += a[column * n + column].abs().ln();
        for row in column + 1..n {
            let factor = a[row * n + column] / a[column * n + column];
            for k in column..n {
                a[row * n + k] -= factor * a[column * n + k];
            }
        }
    }
    log_det
}

/// Compares a flow's log-determinants with its numerical Jacobian, and its inverse with its forward
/// direction, at three points.
#[track_caller]
pub(crate) fn check_flow(flow: &impl Flow) {
    let (n, points) = (flow.dim(), 3);
    let mut rng = Rng::new(11);
    let draw = |rng: &mut Rng, count: usize| -> Vec<f64> {
        let normals = rng.normal_vec(count);
        normals.iter().map(|x| f64::from(*x)).collect()
    };
    let x = draw(&mut rng, points * n);
    let context = flow
        .context_dim()
        .map(|width| rows(&draw(&mut rng, points * width), width));
    let input = rows(&x, n);
    let (y, log_det) = flow.forward(input.clone(), context.as_ref());
    assert_eq!(y.dims(), [points, n]);
    assert_eq!(log_det.dims(), [points]);
    for (index, found) in values(log_det.clone()).into_iter().enumerate() {
        let jacobian = jacobian(&x[index * n..(index + 1) * n], |near| {
            let count = near.dims()[0];
            let context = context.clone().map(|c| {
                let one = c.narrow(0, index, 1);
                one.repeat_dim(0, count)
            });
            flow.forward(near, context.as_ref()).0
        });
        let expected = log_abs_det(&jacobian, n);
        assert!(
            (f64::from(found) - expected).abs() < 2e-3,
            "log-determinant {found}, expected {expected}"
        );
    }
    let (back, log_det_back) = flow.inverse(y, context.as_ref()).unwrap();
    let error = (back - input).abs().max().into_scalar::<f32>();
    assert!(error < 1e-4, "inverse of forward differs by {error}");
    let error = (log_det + log_det_back).abs().max().into_scalar::<f32>();
    assert!(error < 1e-3, "log-determinants differ by {error}");
}

mod tests {
    use super::*;

    #[test]
    fn jacobian_and_determinant_are_those_of_a_known_map() {
        // f(a, b) = (a·b, sin a): det = −a·cos a.
        let x = [0.7, -1.2];
        let found = jacobian(&x, |p| {
            let (a, b) = (p.clone().narrow(1, 0, 1), p.narrow(1, 1, 1));
            Tensor::cat(vec![a.clone() * b, a.sin()], 1)
        });
        for (found, expected) in found.iter().zip([-1.2, 0.7, 0.7f64.cos(), 0.0]) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        let expected = (0.7 * 0.7f64.cos()).ln();
        assert!((log_abs_det(&found, 2) - expected).abs() < 2e-4);
        let singular_first_pivot = [0.0, 2.0, 3.0, 5.0];
        assert!((log_abs_det(&singular_first_pivot, 2) - 6f64.ln()).abs() < 1e-12);
    }
}
