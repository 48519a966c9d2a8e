//! Adaptive discriminator augmentation (Karras et al. 2020, <https://arxiv.org/abs/2006.06676>).

use super::{
    diff_augment::per_image,
    warp::{Affine, Beyond, IDENTITY, compose, warp},
};
use aigc_core::{Result, check, rng::Rng};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Adaptive discriminator augmentation: the probability of augmentation is controlled by the
/// overfitting measure `r_t = E[sign D(x)]` of real samples. It rises while `r_t` is above
/// `target`, and falls otherwise.
///
/// Each transformation is applied to each image with that probability: mirroring, rotation by 90°
/// and integer translation; scaling, rotation, anisotropic scaling and fractional translation in
/// one interpolation; brightness and contrast, and for RGB images luma flip, hue and saturation
/// (appendix B of Karras et al. 2020, without image-space filtering and corruptions).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ada {
    /// Target of the overfitting measure `r_t`.
    pub target: f64,
    /// Number of real samples over which the probability can rise from 0 to 1.
    #[serde(alias = "speed")]
    pub adjustment_samples: f64,
    /// Upper limit of the probability.
    #[serde(alias = "most")]
    pub max_probability: f64,
    /// Whether images are mirrored and rotated by any angle. Turn this off for digits, whose class
    /// would change.
    #[serde(alias = "flips")]
    pub flips_and_rotations: bool,
    /// Whether colours are transformed.
    pub color: bool,
}

impl Default for Ada {
    fn default() -> Self {
        Self {
            target: 0.6,
            adjustment_samples: 500_000.0,
            max_probability: 0.8,
            flips_and_rotations: true,
            color: true,
        }
    }
}

impl Ada {
    pub(super) fn validate(&self) -> Result<()> {
        check::in_range("augment.adaptive.target", self.target, -1.0..=1.0)?;
        check::fraction("augment.adaptive.max_probability", self.max_probability)?;
        check::in_range(
            "augment.adaptive.adjustment_samples",
            self.adjustment_samples,
            1.0..=1e15,
        )
    }

    /// The new probability after a batch of `size` real samples with `r_t = sign`.
    pub(crate) fn adjust(&self, probability: f64, sign: f64, size: usize) -> f64 {
        let step = size as f64 / self.adjustment_samples;
        (probability + if sign > self.target { step } else { -step })
            .clamp(0.0, self.max_probability)
    }

    pub(super) fn apply(&self, x: Tensor<4>, p: f64, rng: &mut Rng) -> Tensor<4> {
        if p <= 0.0 {
            return x;
        }
        let [batch, _, height, width] = x.dims();
        let maps: Vec<Affine> = (0..batch)
            .map(|_| self.geometry(p, rng, [height, width]))
            .collect();
        let x = if maps.iter().all(|map| *map == IDENTITY) {
            x
        } else {
            warp(x, &maps, Beyond::Mirrored)
        };
        if self.color { color(x, p, rng) } else { x }
    }

    /// The map from coordinates of the result to coordinates of the source.
    fn geometry(&self, p: f64, rng: &mut Rng, [height, width]: [usize; 2]) -> Affine {
        let mut map = IDENTITY;
        let chance = |rng: &mut Rng, p: f64| f64::from(rng.uniform_vec(1, 0.0, 1.0)[0]) < p;
        let uniform = |rng: &mut Rng, low: f64, high: f64| {
            f64::from(rng.uniform_vec(1, low as f32, high as f32)[0])
        };
        let normal = |rng: &mut Rng| f64::from(rng.normal_vec(1)[0]);
        let rotate = |angle: f64| {
            [
                [angle.cos(), -angle.sin(), 0.0],
                [angle.sin(), angle.cos(), 0.0],
            ]
        };
        if self.flips_and_rotations && chance(rng, p) && rng.random_index(2) == 1 {
            map = compose(map, [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        }
        if self.flips_and_rotations && height == width && chance(rng, p) {
            let exact: [Affine; 4] = [
                IDENTITY,
                [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]],
                [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]],
                [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]],
            ];
            map = compose(map, exact[rng.random_index(4)]);
        }
        if chance(rng, p) {
            let step =
                |rng: &mut Rng, side: usize| (uniform(rng, -0.125, 0.125) * side as f64).round();
            map = compose(
                map,
                [[1.0, 0.0, step(rng, width)], [0.0, 1.0, step(rng, height)]],
            );
        }
        if chance(rng, p) {
            let scale = (0.2 * normal(rng)).exp2();
            map = compose(map, [[scale, 0.0, 0.0], [0.0, scale, 0.0]]);
        }
        // Rotation before and after anisotropic scaling, so that P(neither) = 1 − p.
        let p_rotate = 1.0 - (1.0 - p).sqrt();
        if chance(rng, p_rotate) {
            map = compose(
                map,
                rotate(
                    uniform(rng, -std::f64::consts::PI, std::f64::consts::PI)
                        * self.rotation_scale(),
                ),
            );
        }
        if chance(rng, p) {
            let stretch = (0.2 * normal(rng)).exp2();
            map = compose(map, [[stretch, 0.0, 0.0], [0.0, 1.0 / stretch, 0.0]]);
        }
        if chance(rng, p_rotate) {
            map = compose(
                map,
                rotate(
                    uniform(rng, -std::f64::consts::PI, std::f64::consts::PI)
                        * self.rotation_scale(),
                ),
            );
        }
        if chance(rng, p) {
            let shift = [
                0.125 * normal(rng) * width as f64,
                0.125 * normal(rng) * height as f64,
            ];
            map = compose(map, [[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]]);
        }
        map
    }

    /// Factor of rotation angles: images with a fixed orientation are rotated only slightly.
    fn rotation_scale(&self) -> f64 {
        if self.flips_and_rotations { 1.0 } else { 0.1 }
    }
}

/// `x ← M·x + c` over the channels of each image, in the paper's order of transformations.
fn color(x: Tensor<4>, p: f64, rng: &mut Rng) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let device = x.device();
    let chance = |rng: &mut Rng| f64::from(rng.uniform_vec(1, 0.0, 1.0)[0]) < p;
    if channels != 3 {
        let (mut scale, mut shift) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
        for _ in 0..batch {
            let brightness = if chance(rng) {
                0.2 * rng.normal_vec(1)[0]
            } else {
                0.0
            };
            let contrast = if chance(rng) {
                (0.5 * rng.normal_vec(1)[0]).exp2()
            } else {
                1.0
            };
            scale.push(contrast);
            shift.push(brightness * contrast);
        }
        return x * per_image(scale, &device) + per_image(shift, &device);
    }
    let (mut matrices, mut shifts) = (Vec::with_capacity(9 * batch), Vec::with_capacity(3 * batch));
    for _ in 0..batch {
        let mut matrix = Matrix::identity();
        let mut shift = [0.0f64; 3];
        if chance(rng) {
            shift = [0.2 * f64::from(rng.normal_vec(1)[0]); 3];
        }
        let mut then = |by: Matrix, shift: &mut [f64; 3]| {
            matrix = by.times(&matrix);
            *shift = by.apply(*shift);
        };
        if chance(rng) {
            then(
                Matrix::identity().scaled((0.5 * f64::from(rng.normal_vec(1)[0])).exp2()),
                &mut shift,
            );
        }
        let grey = Matrix([[1.0 / 3.0; 3]; 3]);
        if chance(rng) && rng.random_index(2) == 1 {
            // Luma flip: reflection at the plane perpendicular to the grey axis.
            then(Matrix::identity().plus(&grey.scaled(-2.0)), &mut shift);
        }
        if chance(rng) {
            then(
                hue(f64::from(rng.uniform_vec(1, -1.0, 1.0)[0]) * std::f64::consts::PI),
                &mut shift,
            );
        }
        if chance(rng) {
            let saturation = f64::from(rng.normal_vec(1)[0]).exp2();
            then(
                grey.plus(
                    &Matrix::identity()
                        .plus(&grey.scaled(-1.0))
                        .scaled(saturation),
                ),
                &mut shift,
            );
        }
        matrices.extend(matrix.0.iter().flatten().map(|v| *v as f32));
        shifts.extend(shift.map(|v| v as f32));
    }
    transform(
        x.reshape([batch, 3, height * width]),
        matrices,
        shifts,
        &device,
    )
    .reshape([batch, 3, height, width])
}

fn transform(x: Tensor<3>, matrices: Vec<f32>, shifts: Vec<f32>, device: &Device) -> Tensor<3> {
    let batch = x.dims()[0];
    let matrices = Tensor::<3>::from_data(TensorData::new(matrices, [batch, 3, 3]), device);
    matrices.matmul(x) + Tensor::<3>::from_data(TensorData::new(shifts, [batch, 3, 1]), device)
}

/// A rotation about the grey axis (Rodrigues' formula).
fn hue(angle: f64) -> Matrix {
    let (cos, sin, a) = (angle.cos(), angle.sin(), 3f64.sqrt().recip());
    let cross = Matrix([[0.0, -a, a], [a, 0.0, -a], [-a, a, 0.0]]);
    Matrix::identity()
        .scaled(cos)
        .plus(&cross.scaled(sin))
        .plus(&Matrix([[1.0 / 3.0; 3]; 3]).scaled(1.0 - cos))
}

struct Matrix([[f64; 3]; 3]);

impl Matrix {
    fn identity() -> Self {
        Self([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    }

    fn scaled(&self, factor: f64) -> Self {
        Self(self.0.map(|row| row.map(|v| v * factor)))
    }

    fn plus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| {
            std::array::from_fn(|j| self.0[i][j] + other.0[i][j])
        }))
    }

    fn times(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| {
            std::array::from_fn(|j| (0..3).map(|k| self.0[i][k] * other.0[k][j]).sum())
        }))
    }

    fn apply(&self, v: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|i| (0..3).map(|k| self.0[i][k] * v[k]).sum())
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;

    #[test]
    fn probability_follows_the_overfitting_measure() {
        let ada = Ada {
            adjustment_samples: 1000.0,
            max_probability: 0.5,
            ..Ada::default()
        };
        let mut p = 0.0;
        for _ in 0..10 {
            p = ada.adjust(p, 0.9, 100);
        }
        assert!((p - 0.5).abs() < 1e-12, "{p}");
        for _ in 0..2 {
            p = ada.adjust(p, 0.1, 100);
        }
        assert!((p - 0.3).abs() < 1e-12, "{p}");
        assert_eq!(ada.adjust(0.05, -1.0, 100), 0.0);
    }

    #[test]
    fn share_of_augmented_images_follows_probability() {
        let device = Device::flex();
        let x: Tensor<4> = Rng::new(1).uniform([400, 1, 6, 6], -1.0, 1.0, &device);
        let ada = Ada {
            flips_and_rotations: false,
            ..Ada::default()
        };
        assert_eq!(
            values(ada.apply(x.clone(), 0.0, &mut Rng::new(2))),
            values(x.clone())
        );
        let p = 0.1;
        let before = values(x.clone());
        let after = values(ada.apply(x, p, &mut Rng::new(2)));
        let same = before
            .chunks_exact(36)
            .zip(after.chunks_exact(36))
            .filter(|(a, b)| a == b)
            .count() as f64
            / 400.0;
        // Integer translation (which may round to none), scale, two rotations, stretch, fractional
        // translation, brightness, contrast: each is skipped with 1 − p, and the two rotations
        // together.
        let least = (1.0 - p).powi(7);
        assert!((same - least).abs() < 0.1, "{same} {least}");
    }

    #[test]
    fn hue_rotates_about_grey() {
        for angle in [0.3, 2.0] {
            let grey = hue(angle).apply([0.4, 0.4, 0.4]);
            assert!(grey.iter().all(|v| (v - 0.4).abs() < 1e-12));
            let v = hue(angle).apply([1.0, 0.0, 0.0]);
            assert!((v.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-12);
        }
        let third = hue(2.0 * std::f64::consts::PI / 3.0).apply([1.0, 0.0, 0.0]);
        assert!((third[1] - 1.0).abs() < 1e-12, "{third:?}");
    }

    #[test]
    fn ada_is_differentiable_and_keeps_grey_grey() {
        let device = Device::flex().autodiff();
        let x = Tensor::<4>::zeros([4, 3, 8, 8], &device).require_grad();
        let y = Ada::default().apply(x.clone(), 0.8, &mut Rng::new(4));
        let gradients = y.sum().backward();
        assert!(
            values(x.grad(&gradients).unwrap())
                .iter()
                .any(|g| *g != 0.0)
        );
        // Black has no hue: brightness and contrast change it, but its channels stay equal.
        let grey = color(
            Tensor::zeros([20, 3, 2, 2], &Device::flex()),
            1.0,
            &mut Rng::new(5),
        );
        for picture in values(grey).chunks_exact(12) {
            assert!(
                picture.iter().all(|v| (v - picture[0]).abs() < 1e-5) && picture[0] != 0.0,
                "{picture:?}"
            );
        }
    }
}
