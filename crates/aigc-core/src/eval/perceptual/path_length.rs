//! Perceptual path length of a generator.

use super::interpolation::{LatentInterpolation, normalize};
use crate::{Error, Result, check::ensure, rng::Rng};
use burn::tensor::{Device, Tensor, TensorData};

/// Configuration of [`perceptual_path_length`].
#[derive(Clone, Debug, PartialEq)]
pub struct PathLengthConfig {
    /// Size of a latent vector.
    pub latent_dim: usize,
    /// Number of paths.
    pub samples: usize,
    /// Paths in a batch; the generator gets twice as many latent vectors at a time.
    pub batch_size: usize,
    /// Distance along the path between the two images, from 0 to 1. Far below the default, the
    /// images differ by no more than the rounding of 32 bits.
    pub epsilon: f64,
    /// The path between two latent vectors.
    pub interpolation: LatentInterpolation,
    /// Percentiles below and above which distances are left out; `None` keeps all.
    pub discard_percentiles: Option<[f64; 2]>,
    /// Seed of the latent vectors.
    pub seed: u64,
}

impl PathLengthConfig {
    /// 10,000 paths of latent vectors of `latent_dim` numbers in batches of 32; otherwise
    /// torch-fidelity's defaults: straight lines, a distance of 10⁻⁴, percentiles 1 and 99.
    pub fn new(latent_dim: usize) -> Self {
        Self {
            latent_dim,
            samples: 10_000,
            batch_size: 32,
            epsilon: 1e-4,
            interpolation: LatentInterpolation::Lerp,
            discard_percentiles: Some([1.0, 99.0]),
            seed: 0,
        }
    }

    fn validate(&self) -> Result<()> {
        let sizes = [
            ("latent_dim", self.latent_dim),
            ("samples", self.samples),
            ("batch_size", self.batch_size),
        ];
        for (field, size) in sizes {
            ensure(size > 0, field, size, "at least 1")?;
        }
        let epsilon = self.epsilon;
        ensure(
            epsilon > 0.0 && epsilon <= 1.0,
            "epsilon",
            epsilon,
            "above 0, at most 1",
        )?;
        match self.discard_percentiles {
            Some([low, high]) => ensure(
                0.0 < low && low < high && high < 100.0,
                "discard_percentiles",
                format!("{:?}", [low, high]),
                "two numbers between 0 and 100, the lower one first",
            ),
            None => Ok(()),
        }
    }
}

/// The result of [`perceptual_path_length`].
#[derive(Clone, Debug, PartialEq)]
pub struct PathLength {
    /// Mean of the distances that were kept.
    pub mean: f64,
    /// Their standard deviation, with their number as divisor.
    pub std: f64,
    /// The distances that were kept, in the order of the paths.
    pub raw: Vec<f64>,
}

/// The perceptual path length of a generator (Karras et al. 2018,
/// <https://arxiv.org/abs/1812.04948>, equation 2, with both images at the start of the path, as
/// torch-fidelity has it): the mean of `d(G(z₀), G(z(ε))) / ε²`, where `z(ε)` is the point at `ε`
/// on a path from `z₀` to another latent vector. The lower, the smoother the generator.
///
/// `generate` maps latent vectors `[batch, latent_dim]` on `device` to images in `[0, 1]`. The
/// first half of a batch has the starts of paths and the second half, in the same order, the
/// points at `ε`: a conditional generator must give both halves the same classes. `distance` is
/// [`Lpips::forward`](super::Lpips::forward) with VGG16, or another distance of each pair of images
/// that is quadratic in small differences.
///
/// Latent vectors are normal; for [`LatentInterpolation::SlerpUnit`] they are uniform on the unit
/// sphere. torch-fidelity's generators return 8 bits per channel and its distance resizes images to
/// 64×64 by default; here nothing is rounded or resized but by the two closures.
///
/// ```
/// # use aigc_core::{device::device, eval::{PathLengthConfig, perceptual_path_length}};
/// # use burn::tensor::Tensor;
/// # fn main() -> aigc_core::Result<()> {
/// let config = PathLengthConfig {
///     samples: 100,
///     ..PathLengthConfig::new(4)
/// };
/// let generate = |z: Tensor<2>| {
///     let [batch, _] = z.dims();
///     Ok(z.reshape([batch, 1, 2, 2]))
/// };
/// let distance = |a: Tensor<4>, b: Tensor<4>| {
///     let difference = (a - b).flatten::<2>(1, 3);
///     Ok((difference.clone() * difference).mean_dim(1).squeeze_dim::<1>(1))
/// };
/// let length = perceptual_path_length(generate, distance, &config, &device("flex")?)?;
/// // The mean square of a difference of two normal numbers is 2.
/// assert!((length.mean - 2.0).abs() < 0.6);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Config`] for values out of range; [`Error::InvalidArgument`] if `generate` or
/// `distance` returns another number of results than it gets samples, or a distance is not finite;
/// errors of the two closures.
pub fn perceptual_path_length(
    generate: impl FnMut(Tensor<2>) -> Result<Tensor<4>>,
    distance: impl FnMut(Tensor<4>, Tensor<4>) -> Result<Tensor<1>>,
    config: &PathLengthConfig,
    device: &Device,
) -> Result<PathLength> {
    config.validate()?;
    // Streams of their own, so that the latent vectors do not depend on the size of a batch.
    let mut starts = Rng::stream(config.seed, "perceptual path length: starts", 0);
    let mut ends = Rng::stream(config.seed, "perceptual path length: ends", 0);
    let latents = |count: usize| {
        let draw = |rng: &mut Rng| {
            let mut latents = rng.normal_vec(count * config.latent_dim);
            if config.interpolation == LatentInterpolation::SlerpUnit {
                normalize(&mut latents, config.latent_dim);
            }
            latents
        };
        (draw(&mut starts), draw(&mut ends))
    };
    measure(generate, distance, latents, config, device)
}

/// [`perceptual_path_length`] for given latent vectors, such as those of another distribution or
/// of a mapping network; `latent_dim`, `samples` and `seed` of the configuration are ignored.
///
/// # Shapes
/// - starts and ends: `[paths, latent]`
///
/// # Errors
/// As [`perceptual_path_length`], and [`Error::InvalidArgument`] if the shapes differ, there are no
/// latent vectors, or a value is not finite.
pub fn perceptual_path_length_between(
    generate: impl FnMut(Tensor<2>) -> Result<Tensor<4>>,
    distance: impl FnMut(Tensor<4>, Tensor<4>) -> Result<Tensor<1>>,
    starts: &Tensor<2>,
    ends: &Tensor<2>,
    config: &PathLengthConfig,
) -> Result<PathLength> {
    let [samples, latent_dim] = starts.dims();
    if ends.dims() != starts.dims() || samples == 0 || latent_dim == 0 {
        let expected = format!("{:?}, like the starts, and not empty", starts.dims());
        return Err(Error::argument(
            "ends",
            format!("{:?}", ends.dims()),
            expected,
        ));
    }
    let config = PathLengthConfig {
        latent_dim,
        samples,
        ..config.clone()
    };
    config.validate()?;
    let values = |argument: &str, x: &Tensor<2>| {
        let values: Vec<f32> = x.to_data().iter::<f32>().collect();
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => Err(Error::argument(argument, value, "finite values")),
        }
    };
    let (a, b) = (values("starts", starts)?, values("ends", ends)?);
    let mut taken = 0;
    let latents = |count: usize| {
        let range = taken * latent_dim..(taken + count) * latent_dim;
        taken += count;
        (a[range.clone()].to_vec(), b[range].to_vec())
    };
    measure(generate, distance, latents, &config, &starts.device())
}

/// The path length; `latents` returns the starts and the ends of the next paths.
fn measure(
    mut generate: impl FnMut(Tensor<2>) -> Result<Tensor<4>>,
    mut distance: impl FnMut(Tensor<4>, Tensor<4>) -> Result<Tensor<1>>,
    mut latents: impl FnMut(usize) -> (Vec<f32>, Vec<f32>),
    config: &PathLengthConfig,
    device: &Device,
) -> Result<PathLength> {
    let width = config.latent_dim;
    let mut distances: Vec<f64> = Vec::new();
    while distances.len() < config.samples {
        let count = config.batch_size.min(config.samples - distances.len());
        let (mut z, ends) = latents(count);
        let rows = z.chunks_exact(width).zip(ends.chunks_exact(width));
        let points: Vec<f32> = rows
            .flat_map(|(a, b)| config.interpolation.at(a, b, config.epsilon))
            .collect();
        z.extend(points);
        let z = Tensor::<2>::from_data(TensorData::new(z, [2 * count, width]), device);
        let images = generate(z)?;
        check_count("generate", images.dims()[0], 2 * count)?;
        let (a, b) = (
            images.clone().narrow(0, 0, count),
            images.narrow(0, count, count),
        );
        let found = distance(a, b)?;
        check_count("distance", found.dims()[0], count)?;
        for value in found.into_data().iter::<f64>() {
            let scaled = value / config.epsilon.powi(2);
            if !scaled.is_finite() {
                let found = format!("{value} for path {}", distances.len());
                let expected = "values that are finite, also over the square of `epsilon`";
                return Err(Error::argument("distance", found, expected));
            }
            distances.push(scaled);
        }
    }
    let raw = match config.discard_percentiles {
        Some(percentiles) => without_tails(distances, percentiles),
        None => distances,
    };
    let count = raw.len() as f64;
    let mean = raw.iter().sum::<f64>() / count;
    let variance = raw.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    Ok(PathLength {
        mean,
        std: variance.sqrt(),
        raw,
    })
}

fn check_count(argument: &str, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::argument(
            argument,
            format!("a closure that returned {found} results"),
            format!("{expected}, one for each of its samples"),
        )),
    }
}

/// The values between two percentiles, which are rounded to values further out (NumPy's methods
/// `lower` and `higher`).
fn without_tails(values: Vec<f64>, [low, high]: [f64; 2]) -> Vec<f64> {
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let position = |percentile: f64| percentile / 100.0 * last as f64;
    let low = sorted[position(low).floor() as usize];
    let high = sorted[(position(high).ceil() as usize).min(last)];
    let kept = values.into_iter();
    kept.filter(|value| (low..=high).contains(value)).collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    fn squares(a: Tensor<4>, b: Tensor<4>) -> Result<Tensor<1>> {
        let difference = (a - b).flatten::<2>(1, 3);
        let squares = difference.clone() * difference;
        Ok(squares.sum_dim(1).squeeze_dim::<1>(1))
    }

    fn pixels(z: Tensor<2>) -> Result<Tensor<4>> {
        let [batch, width] = z.dims();
        Ok(z.reshape([batch, 1, 1, width]))
    }

    /// For the identity, the length of a straight path is ‖b − a‖², and that of an arc its squared
    /// angle.
    #[test]
    fn identity_has_lengths_of_paths() {
        let device = Device::flex();
        let a = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &device);
        let b = Tensor::<2>::from_floats([[0.0, 1.0], [0.0, -0.5]], &device);
        for (interpolation, expected) in [
            (LatentInterpolation::Lerp, [2.0, 2.25]),
            // Opposite vectors: the straight line, unless its point gets unit length.
            (LatentInterpolation::SlerpAny, [2.4674, 2.25]),
            (LatentInterpolation::SlerpUnit, [2.4674, 0.0]),
        ] {
            let config = PathLengthConfig {
                interpolation,
                epsilon: 1e-2,
                discard_percentiles: None,
                ..PathLengthConfig::new(2)
            };
            let found = perceptual_path_length_between(pixels, squares, &a, &b, &config);
            let found = found.unwrap();
            for (found, expected) in found.raw.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-3, "{found} {expected}");
            }
            assert!((found.mean - (expected[0] + expected[1]) / 2.0).abs() < 1e-3);
        }
    }

    #[test]
    fn lengths_do_not_depend_on_the_size_of_a_batch() {
        let device = Device::flex();
        for interpolation in [LatentInterpolation::Lerp, LatentInterpolation::SlerpUnit] {
            let of = |batch_size| {
                let config = PathLengthConfig {
                    samples: 50,
                    batch_size,
                    interpolation,
                    ..PathLengthConfig::new(3)
                };
                perceptual_path_length(pixels, squares, &config, &device).unwrap()
            };
            assert_eq!(of(50), of(7));
            // Of 50 sorted distances, the outermost are the percentiles themselves.
            assert_eq!(of(50).raw.len(), 50);
        }
    }

    #[test]
    fn tails_are_left_out() {
        let values: Vec<f64> = (0..=200).map(f64::from).rev().collect();
        let kept = without_tails(values, [1.0, 99.0]);
        assert_eq!(
            (kept[0], kept[kept.len() - 1], kept.len()),
            (198.0, 2.0, 197)
        );
        assert_eq!(without_tails(vec![3.0], [1.0, 99.0]), [3.0]);
    }

    #[test]
    fn bad_arguments_are_errors() {
        let device = Device::flex();
        let message = |config: PathLengthConfig| {
            let result = perceptual_path_length(pixels, squares, &config, &device);
            result.unwrap_err().to_string()
        };
        let config = PathLengthConfig::new(2);
        let text = message(PathLengthConfig {
            epsilon: 0.0,
            ..config.clone()
        });
        assert!(text.contains("`epsilon` is 0"), "{text}");
        let text = message(PathLengthConfig {
            discard_percentiles: Some([99.0, 1.0]),
            ..config.clone()
        });
        assert!(text.contains("`discard_percentiles`"), "{text}");
        assert!(message(PathLengthConfig::new(0)).contains("`latent_dim` is 0"));
        let one = |z: Tensor<2>| pixels(z.narrow(0, 0, 1));
        let text = perceptual_path_length(one, squares, &config, &device).unwrap_err();
        let text = text.to_string();
        assert!(text.contains("`generate`") && text.contains("64"), "{text}");
        let broken =
            |a: Tensor<4>, b: Tensor<4>| -> Result<Tensor<1>> { Ok(squares(a, b)? * f32::NAN) };
        let text = perceptual_path_length(pixels, broken, &config, &device).unwrap_err();
        let text = text.to_string();
        assert!(text.contains("`distance` is NaN for path 0"), "{text}");
        let text = message(PathLengthConfig {
            epsilon: 1e-200,
            ..config.clone()
        });
        assert!(text.contains("square of `epsilon`"), "{text}");
        let z = Tensor::<2>::zeros([2, 2], &device);
        let other = Tensor::<2>::zeros([3, 2], &device);
        let text = perceptual_path_length_between(pixels, squares, &z, &other, &config);
        let text = text.unwrap_err().to_string();
        assert!(text.contains("`ends` is [3, 2]"), "{text}");
    }
}
