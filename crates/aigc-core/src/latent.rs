//! Latent spaces: into them, out of them, and ways through them.

use crate::data::ImageShape;
use burn::tensor::Tensor;

/// A way from images to latent maps and back, so that one model can work in the latent space of another (Rombach et al. 2022,
/// <https://arxiv.org/abs/2112.10752>).
pub trait Autoencoder: std::fmt::Debug {
    /// Latent maps of images.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]` in `[0, 1]`
    /// - output: `[batch, …]` of [`latent_shape`](Self::latent_shape)
    ///
    /// # Panics
    /// If the images are not of a shape that it knows.
    fn encode(&self, x: Tensor<4>) -> Tensor<4>;

    /// Images of latent maps.
    ///
    /// # Shapes
    /// - z: `[batch, …]` of [`latent_shape`](Self::latent_shape)
    /// - output: `[batch, channels, height, width]` in `[0, 1]`
    ///
    /// # Panics
    /// If the maps are not of that shape.
    fn decode(&self, z: Tensor<4>) -> Tensor<4>;

    /// Shape of an image.
    fn image_shape(&self) -> ImageShape;

    /// Shape of a latent map.
    fn latent_shape(&self) -> ImageShape;
}

/// Spherical interpolation between the rows of `a` and `b`, from `a` at `t = 0` to `b` at 1: normal noise in many dimensions
/// lies near a sphere, and stays there. Straight where two rows are (nearly) parallel or opposite, which leaves no arc to go.
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
    fn the_great_arc_keeps_the_radius_and_meets_its_ends() {
        let device = Device::flex();
        let (a, b) = (Tensor::from_floats([[3.0, 0.0]], &device), Tensor::from_floats([[0.0, 3.0]], &device));
        let half = 3.0 * 0.5f32.sqrt();
        for (t, expected) in [(0.0, [3.0, 0.0]), (0.5, [half, half]), (1.0, [0.0, 3.0])] {
            let got = slerp(a.clone(), b.clone(), t).into_data().try_into_vec::<f32>().unwrap();
            assert!((got[0] - expected[0]).abs() < 1e-5 && (got[1] - expected[1]).abs() < 1e-5, "{got:?}");
        }
        let same = slerp(a.clone(), a.clone(), 0.3).into_data().try_into_vec::<f32>().unwrap();
        assert!((same[0] - 3.0).abs() < 1e-5, "{same:?}");
        let opposite = slerp(a.clone(), a * -0.5, 0.5).into_data().try_into_vec::<f32>().unwrap();
        assert!((opposite[0] - 0.75).abs() < 1e-5 && opposite[1] == 0.0, "{opposite:?}");
    }
}
