//! Affine resampling of images.

use burn::tensor::{Tensor, TensorData};

/// An affine map of pixel coordinates relative to the image's centre, from the result to the
/// source: `[[a, b, c], [d, e, f]]` maps `(x, y)` to `(a·x + b·y + c, d·x + e·y + f)`.
pub(super) type Affine = [[f64; 3]; 2];

/// The identity.
pub(super) const IDENTITY: Affine = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];

/// The composition: first `inner`, then `outer`.
pub(super) fn compose(outer: Affine, inner: Affine) -> Affine {
    std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            let sum: f64 = (0..2).map(|k| outer[i][k] * inner[k][j]).sum();
            sum + if j == 2 { outer[i][2] } else { 0.0 }
        })
    })
}

/// Values beyond the border.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// Black.
    Black,
    /// Reflection.
    Mirrored,
}

/// Resamples each image of `x` through its map, with bilinear interpolation; differentiable in `x`.
///
/// # Shapes
/// - x and output: `[batch, channels, height, width]` in `[−1, 1]`
pub(super) fn warp(x: Tensor<4>, maps: &[Affine], beyond: Beyond) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let (device, pixels) = (x.device(), height * width);
    let mut corners: [(Vec<i32>, Vec<f32>); 4] = Default::default();
    for map in maps {
        for row in 0..height {
            for column in 0..width {
                let (u, v) = (
                    column as f64 - (width as f64 - 1.0) / 2.0,
                    row as f64 - (height as f64 - 1.0) / 2.0,
                );
                let at = |r: [f64; 3]| r[0] * u + r[1] * v + r[2];
                let (sx, sy) = (
                    at(map[0]) + (width as f64 - 1.0) / 2.0,
                    at(map[1]) + (height as f64 - 1.0) / 2.0,
                );
                // Rounding errors must not make an integer translation fractional.
                let snap = |s: f64| {
                    if (s - s.round()).abs() < 1e-9 {
                        s.round()
                    } else {
                        s
                    }
                };
                let (sx, sy) = (snap(sx), snap(sy));
                let (fx, fy) = (sx - sx.floor(), sy - sy.floor());
                for (corner, (dx, dy)) in corners.iter_mut().zip([(0, 0), (1, 0), (0, 1), (1, 1)]) {
                    let weight = (if dx == 1 { fx } else { 1.0 - fx })
                        * (if dy == 1 { fy } else { 1.0 - fy });
                    let place = |s: f64, d: i64, side: usize| -> Option<usize> {
                        let at = s.floor() as i64 + d;
                        if (0..side as i64).contains(&at) {
                            return Some(at as usize);
                        }
                        if beyond == Beyond::Black || side < 2 {
                            return None;
                        }
                        // Reflection without repeating the border has the period 2·(side − 1).
                        let period = 2 * (side as i64 - 1);
                        let at = at.rem_euclid(period);
                        Some(at.min(period - at) as usize)
                    };
                    let (place, weight) = match (place(sx, dx, width), place(sy, dy, height)) {
                        (Some(column), Some(row)) => (row * width + column, weight),
                        _ => (0, 0.0),
                    };
                    corner.0.push(place as i32);
                    corner.1.push(weight as f32);
                }
            }
        }
    }
    let flat = x.reshape([batch, channels, pixels]);
    // Black is −1, so values are interpolated relative to −1, not to 0.
    let flat = flat + 1.0;
    let mut sum: Option<Tensor<3>> = None;
    for (places, weights) in corners {
        if weights.iter().all(|weight| *weight == 0.0) {
            continue;
        }
        let places = Tensor::<3, burn::tensor::Int>::from_data(
            TensorData::new(places, [batch, 1, pixels]),
            &device,
        );
        let weights = Tensor::<3>::from_data(TensorData::new(weights, [batch, 1, pixels]), &device);
        let part = flat
            .clone()
            .gather(2, places.expand([batch, channels, pixels]))
            * weights;
        sum = Some(match sum {
            Some(sum) => sum + part,
            None => part,
        });
    }
    let sum = sum.unwrap_or_else(|| flat.zeros_like());
    (sum - 1.0).reshape([batch, channels, height, width])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::Device;

    #[test]
    fn warp_translates_mirrors_and_rotates() {
        let device = Device::flex();
        let x = Tensor::<4>::from_floats(
            [[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]],
            &device,
        );
        let through = |map| values(warp(x.clone(), &[map], Beyond::Black));
        assert_eq!(through(IDENTITY), values(x.clone()));
        // Each pixel of the result is taken from one column to the right: the image moves left, and
        // black enters at the right.
        assert_eq!(
            through([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
            [2.0, 3.0, -1.0, 5.0, 6.0, -1.0, 8.0, 9.0, -1.0]
        );
        let mirrored = values(warp(
            x.clone(),
            &[[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]],
            Beyond::Mirrored,
        ));
        assert_eq!(mirrored, [2.0, 3.0, 2.0, 5.0, 6.0, 5.0, 8.0, 9.0, 8.0]);
        assert_eq!(
            through([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
            [3.0, 2.0, 1.0, 6.0, 5.0, 4.0, 9.0, 8.0, 7.0]
        );
        // Rotation by 90°.
        assert_eq!(
            through([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]),
            [7.0, 4.0, 1.0, 8.0, 5.0, 2.0, 9.0, 6.0, 3.0]
        );
        let half = through([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]);
        assert_eq!(half[..2], [1.5, 2.5]);
    }

    #[test]
    fn warp_gradients_return_to_their_sources() {
        let device = Device::flex().autodiff();
        let x = Tensor::<4>::from_floats([[[[0.0, 0.0], [0.0, 0.0]]]], &device).require_grad();
        let y = warp(
            x.clone(),
            &[[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]],
            Beyond::Black,
        );
        let weights = Tensor::<4>::from_floats([[[[1.0, 2.0], [3.0, 4.0]]]], &device);
        let gradients = (y * weights).sum().backward();
        assert_eq!(values(x.grad(&gradients).unwrap()), [0.0, 1.0, 0.0, 3.0]);
    }

    #[test]
    fn affine_maps_compose() {
        let shift = [[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]];
        let rotation = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]];
        // First the rotation, then the translation.
        assert_eq!(
            compose(shift, rotation),
            [[0.0, -1.0, 2.0], [1.0, 0.0, 3.0]]
        );
        assert_eq!(
            compose(rotation, shift),
            [[0.0, -1.0, -3.0], [1.0, 0.0, 2.0]]
        );
    }
}
