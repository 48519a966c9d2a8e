//! Toy data: mixtures of Gaussians in the plane, the smallest test of mode coverage.

use aigc_core::{
    Error, Result, check,
    data::{Dataset, SampleBatch, SampleShape},
    rng::Rng,
};
use burn::tensor::{Device, Tensor, TensorData};

/// Equally likely isotropic Gaussians in the plane. As a [`Dataset`] it has the points drawn by
/// [`with_points`](Self::with_points).
#[derive(Clone, Debug)]
pub struct GaussianMixtureData {
    centres: Vec<[f64; 2]>,
    sigma: f64,
    points: Vec<[f32; 2]>,
}

/// How well samples cover a [`GaussianMixtureData`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModeCoverage {
    /// Modes with at least one sample within 3σ.
    pub modes: usize,
    /// Fraction of samples within 3σ of a mode; `1 − e^−4.5`, 98.9 %, for the mixture itself.
    pub high_quality_fraction: f64,
    /// Number of samples within 3σ of the mode that has the fewest, divided by the number per mode
    /// if all samples were distributed evenly: 0 if a mode is missing, at best 1. `modes` counts a
    /// mode from its first sample on; this ratio also shows whether a mode has too few samples.
    pub rarest_mode_ratio: f64,
}

impl GaussianMixtureData {
    /// `modes` Gaussians of standard deviation `sigma`, evenly spaced on a circle of `radius` (Metz
    /// et al. 2017, <https://arxiv.org/abs/1611.02163>).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn ring(modes: usize, radius: f64, sigma: f64) -> Result<Self> {
        let angle = |k: usize| std::f64::consts::TAU * k as f64 / modes as f64;
        Self::new(
            (0..modes)
                .map(|k| [radius * angle(k).cos(), radius * angle(k).sin()])
                .collect(),
            sigma,
        )
    }

    /// A grid of `side × side` Gaussians of standard deviation `sigma`, `spacing` apart, around the
    /// origin (Srivastava et al. 2017, <https://arxiv.org/abs/1705.07761>).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn grid(side: usize, spacing: f64, sigma: f64) -> Result<Self> {
        let at = |k: usize| spacing * (k as f64 - (side as f64 - 1.0) / 2.0);
        Self::new(
            (0..side * side)
                .map(|k| [at(k / side), at(k % side)])
                .collect(),
            sigma,
        )
    }

    /// Gaussians of standard deviation `sigma` at `centres`.
    ///
    /// # Errors
    /// [`Error::Config`] if there are no centres, one is not finite, or `sigma` is not above 0.
    pub fn new(centres: Vec<[f64; 2]>, sigma: f64) -> Result<Self> {
        if centres.is_empty() {
            return Err(Error::config("centres", 0, "at least 1"));
        }
        if let Some(centre) = centres
            .iter()
            .find(|centre| !centre.iter().all(|v| v.is_finite()))
        {
            return Err(Error::config(
                "centres",
                format!("{centre:?}"),
                "finite numbers",
            ));
        }
        check::positive("sigma", sigma)?;
        Ok(Self {
            centres,
            sigma,
            points: Vec::new(),
        })
    }

    /// Draws the points of the data set: `count` points, the same for the same seed.
    pub fn with_points(mut self, count: usize, seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "mixture", 0);
        let draw = |_| {
            let centre = self.centres[rng.random_index(self.centres.len())];
            let noise = rng.normal_vec(2);
            std::array::from_fn(|axis| (centre[axis] + self.sigma * f64::from(noise[axis])) as f32)
        };
        self.points = (0..count).map(draw).collect();
        self
    }

    /// Number of modes.
    pub fn modes(&self) -> usize {
        self.centres.len()
    }

    /// Centres of the Gaussians.
    pub fn centres(&self) -> &[[f64; 2]] {
        &self.centres
    }

    /// Measures how well `points` cover the modes.
    pub fn coverage(&self, points: &[[f32; 2]]) -> ModeCoverage {
        let mut counts = vec![0_usize; self.centres.len()];
        for point in points {
            // If modes overlap, the nearest one counts.
            let square = |centre: &[f64; 2]| {
                (0..2)
                    .map(|axis| (f64::from(point[axis]) - centre[axis]).powi(2))
                    .sum::<f64>()
            };
            let nearest = (0..counts.len())
                .min_by(|a, b| square(&self.centres[*a]).total_cmp(&square(&self.centres[*b])));
            if let Some(mode) =
                nearest.filter(|mode| square(&self.centres[*mode]) <= 9.0 * self.sigma * self.sigma)
            {
                counts[mode] += 1;
            }
        }
        let points = points.len().max(1) as f64;
        let rarest = counts.iter().copied().min().unwrap_or(0) as f64;
        ModeCoverage {
            modes: counts.iter().filter(|count| **count > 0).count(),
            high_quality_fraction: counts.iter().sum::<usize>() as f64 / points,
            rarest_mode_ratio: rarest * counts.len() as f64 / points,
        }
    }
}

impl Dataset for GaussianMixtureData {
    type Item = [f32; 2];

    fn len(&self) -> usize {
        self.points.len()
    }

    fn get(&self, index: usize) -> Result<[f32; 2]> {
        Ok(self.points[index])
    }
}

/// A batch of points in the plane: samples of shape `[2]`.
#[derive(Clone, Debug)]
pub struct PointBatch(Vec<[f32; 2]>);

/// Collates points into a batch.
pub fn collate_points(points: Vec<[f32; 2]>) -> PointBatch {
    PointBatch(points)
}

impl PointBatch {
    /// Shape of a point, `[2]`.
    pub fn shape() -> SampleShape {
        SampleShape::new(&[2])
    }
}

impl SampleBatch<2> for PointBatch {
    fn to_tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.0.concat(), [self.0.len(), 2]), device)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> SampleShape {
        Self::shape()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_of_the_mixture_itself_is_complete() {
        for mixture in [
            GaussianMixtureData::ring(8, 1.0, 0.05),
            GaussianMixtureData::grid(5, 2.0, 0.05),
        ] {
            let mixture = mixture.unwrap().with_points(20_000, 1);
            let coverage = mixture.coverage(&mixture.points);
            assert_eq!(coverage.modes, mixture.modes());
            // Five standard errors around 1 − e^−4.5.
            let expected = 1.0 - (-4.5f64).exp();
            let error = (expected * (1.0 - expected) / 20_000.0).sqrt();
            assert!(
                (coverage.high_quality_fraction - expected).abs() < 5.0 * error,
                "{coverage:?}"
            );
            // The rarest of 25 modes with 800 samples each, whose standard deviation is 28.
            assert!(
                (0.82..1.0).contains(&coverage.rarest_mode_ratio),
                "{coverage:?}"
            );
        }
    }

    #[test]
    fn coverage_counts_samples_per_mode() {
        let ring = GaussianMixtureData::ring(4, 2.0, 0.1).unwrap();
        let expected = [[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]];
        for (centre, expected) in ring.centres().iter().zip(&expected) {
            assert!(
                (centre[0] - expected[0]).abs() < 1e-12 && (centre[1] - expected[1]).abs() < 1e-12
            );
        }
        let grid = GaussianMixtureData::grid(5, 2.0, 0.05).unwrap();
        assert_eq!(
            (grid.centres()[0], grid.centres()[12], grid.centres()[24]),
            ([-4.0, -4.0], [0.0, 0.0], [4.0, 4.0])
        );
        assert_eq!(
            grid.coverage(&[[0.0, 0.0], [1.0, 1.0]]),
            ModeCoverage {
                modes: 1,
                high_quality_fraction: 0.5,
                rarest_mode_ratio: 0.0
            }
        );
        let [left, right] = [[-2.0, 0.0], [2.0, 0.0]];
        let coverage = GaussianMixtureData::ring(2, 2.0, 0.1)
            .unwrap()
            .coverage(&[left, right, right, right]);
        assert_eq!(
            coverage,
            ModeCoverage {
                modes: 2,
                high_quality_fraction: 1.0,
                rarest_mode_ratio: 0.5
            }
        );
        assert!(
            GaussianMixtureData::ring(0, 1.0, 0.1).is_err()
                && GaussianMixtureData::grid(2, 1.0, 0.0).is_err()
        );
        assert!(GaussianMixtureData::ring(3, f64::NAN, 0.1).is_err());
    }
}
