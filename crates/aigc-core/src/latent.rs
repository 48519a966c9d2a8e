//! Interpolation in latent spaces.

use burn::tensor::Tensor;

/// Spherical interpolation between corresponding rows of `a` and `b`: `a` at `t = 0`, `b` at 1.
/// Normal noise in many dimensions lies near a sphere, and so do its interpolations. Linear for
/// rows that are nearly parallel or opposite, where the arc is not unique.
///
/// # Shapes
/// - a, b and output: `[batch, latent]`
pub fn slerp(a: Tensor<2>, b: Tensor<2>, t: f64) -> Tensor<2> {
    const PARALLEL: f64 = 0.9995;
    let norm = |x: &Tensor<2>| (x.clone() * x.clone()).sum_dim(1).sqrt().clamp_min(1e-8);
    let cosine = (a.clone() * b.clone()).sum_dim(1) / (norm(&a) * norm(&b));
    let straight = a.clone() * (1.0 - t) + b.clone() * t;
    let along = cosine.clone().abs().greater_elem(PARALLEL).expand(a.dims());
    let angle = cosine.clamp(-PARALLEL, PARALLEL).acos();
    let weight = |s: f64| (angle.clone() * s).sin() / angle.clone().sin();
    (a * weight(1.0 - t) + b * weight(t)).mask_where(along, straight)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn slerp_keeps_radius_and_meets_ends() {
        let device = Device::flex();
        let (a, b) = (
            Tensor::from_floats([[3.0, 0.0]], &device),
            Tensor::from_floats([[0.0, 3.0]], &device),
        );
        let half = 3.0 * 0.5f32.sqrt();
        for (t, expected) in [(0.0, [3.0, 0.0]), (0.5, [half, half]), (1.0, [0.0, 3.0])] {
            let got = slerp(a.clone(), b.clone(), t)
                .into_data()
                .try_into_vec::<f32>()
                .unwrap();
            assert!(
                (got[0] - expected[0]).abs() < 1e-5 && (got[1] - expected[1]).abs() < 1e-5,
                "{got:?}"
            );
        }
        let same = slerp(a.clone(), a.clone(), 0.3)
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        assert!((same[0] - 3.0).abs() < 1e-5, "{same:?}");
        let opposite = slerp(a.clone(), a * -0.5, 0.5)
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        assert!(
            (opposite[0] - 0.75).abs() < 1e-5 && opposite[1] == 0.0,
            "{opposite:?}"
        );
    }
}
