//! Shortest curves in the space of latents, measured by the decoded samples.

use super::{flat, same_shape};
use crate::{
    Condition, Vae,
    sample::{VaeSampler, check_shape, complete},
};
use aigc_core::{CancelToken, Error, Result, check, data::SampleShape};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Configuration of [`VaeSampler::geodesic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GeodesicConfig {
    /// Largest number of gradient steps.
    pub max_steps: usize,
    /// Size of the first step; 1 is the Newton step of a decoder that stretches all directions as
    /// it stretches the straight line. Steps that raise the energy are undone, and the next one is
    /// halved.
    pub learning_rate: f64,
    /// The minimisation of a curve ends after ten accepted steps in a row that lowered its energy
    /// by less than this fraction.
    pub tolerance: f64,
}

impl Default for GeodesicConfig {
    fn default() -> Self {
        Self {
            max_steps: 200,
            learning_rate: 1.0,
            tolerance: 1e-5,
        }
    }
}

impl GeodesicConfig {
    fn validate(&self) -> Result<()> {
        check::in_range("max_steps", self.max_steps, 1..=1_000_000)?;
        check::positive("learning_rate", self.learning_rate)?;
        check::non_negative("tolerance", self.tolerance)
    }
}

/// Curves of latents between pairs of ends, and their measures: sums over the segments between
/// neighbouring points `z`, whose decoded samples are `g(z)`.
#[derive(Clone, Debug)]
pub struct Geodesic<const Z: usize = 2> {
    /// The points of the curves with both ends: a tensor `[n, …]` of the latent shape for each
    /// frame.
    pub latents: Vec<Tensor<Z>>,
    /// Energy `Σ |g(z_{t+1}) − g(z_t)|²` of each of the n curves.
    pub energies: Vec<f64>,
    /// Length `Σ |g(z_{t+1}) − g(z_t)|` of each curve.
    pub lengths: Vec<f64>,
    /// Energy of the straight line between the ends, in as many segments; never below that of the
    /// curve.
    pub straight_energies: Vec<f64>,
    /// Length of the straight line.
    pub straight_lengths: Vec<f64>,
}

impl<V: Vae<X, Z>, const X: usize, const Z: usize> VaeSampler<'_, V, X, Z> {
    /// Computes geodesics of the metric that the decoder pulls back to the latents (Arvanitidis et
    /// al. 2018, <https://arxiv.org/abs/1710.11379>; Chen et al. 2018,
    /// <https://arxiv.org/abs/1711.01204>): curves of `frames` points that minimise the energy
    /// `Σ |g(z_{t+1}) − g(z_t)|²`, with `g` the mean of `p(x|z)`. Along them the decoded samples
    /// change least and at a constant speed.
    ///
    /// The curves begin as straight lines. Their inner points follow the gradient of the energy,
    /// which is multiplied by the inverse of the Laplace matrix of the curve, so that the number of
    /// steps does not grow with the number of points. Only steps that lower the energy of a curve
    /// are accepted. A minimum need not be the global one. The model is evaluated without dropout
    /// and with the running statistics of its layers.
    ///
    /// # Shapes
    /// - from and to: `[n, …]` of the model's latent shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no pairs, the number of frames is not from 3 to
    /// 4,096, the batches do not have the shape of the model's latents or differ in shape, or the
    /// classes do not fit; [`Error::Config`] if the configuration is out of range;
    /// [`Error::Cancelled`] if cancelled.
    pub fn geodesic(
        &self,
        from: Tensor<Z>,
        to: Tensor<Z>,
        frames: usize,
        config: &GeodesicConfig,
    ) -> Result<Geodesic<Z>> {
        config.validate()?;
        // The matrix that smooths the gradient has a value for each pair of frames.
        check::ensure_argument((3..=4096).contains(&frames), "frames", frames, "3 to 4096")?;
        same_shape("to", &to, "from", &from)?;
        let shape = self.model.latent_shape();
        let n = from.dims()[0];
        check_shape("from", &from, shape)?;
        let labels = self.labels(n)?;
        let (from, to) = (flat(from.inner()), flat(to.inner()));
        let minimiser = Minimiser {
            model: self.model.valid(),
            shape,
            inner: frames - 2,
            smoother: inverse_laplacian(frames - 2, &from.device()),
            config,
            cancel: &self.options.cancel,
        };
        let mut options = self.options.clone();
        if options.batch_size > 0 {
            options.batch_size = (options.batch_size / (frames - 2)).max(1);
        }
        let mut measures = Vec::with_capacity(n);
        let curves = options.collect(n, |pairs| {
            let part = |z: &Tensor<2>| z.clone().narrow(0, pairs.start, pairs.len());
            let condition = self.condition(labels.as_deref(), &pairs);
            let (curves, measured) = minimiser.minimise(part(&from), part(&to), &condition)?;
            measures.extend(measured);
            Ok(curves)
        })?;
        let curves = complete(curves, "geodesic")?;
        let frame = |index: usize| {
            let points = curves.clone().narrow(1, index, 1);
            points.reshape::<Z, _>(shape.batched::<Z>(n))
        };
        let each = |of: fn(&Measures) -> f64| measures.iter().map(of).collect();
        Ok(Geodesic {
            latents: (0..frames).map(frame).collect(),
            energies: each(|measures| measures.curve.energy),
            lengths: each(|measures| measures.curve.length),
            straight_energies: each(|measures| measures.straight.energy),
            straight_lengths: each(|measures| measures.straight.length),
        })
    }
}

/// Energy and length of a curve.
#[derive(Clone, Copy, Debug)]
struct Measure {
    energy: f64,
    length: f64,
}

/// Measures of a curve and of the straight line between its ends.
#[derive(Clone, Copy, Debug)]
struct Measures {
    curve: Measure,
    straight: Measure,
}

struct Minimiser<'a, V, const X: usize, const Z: usize> {
    /// The model without autodiff: gradients are computed for latents only.
    model: V,
    shape: SampleShape,
    /// Number of points between the ends.
    inner: usize,
    /// `[inner, inner]`.
    smoother: Tensor<2>,
    config: &'a GeodesicConfig,
    cancel: &'a CancelToken,
}

/// A curve while it is minimised.
#[derive(Clone, Copy, Debug)]
struct Progress {
    measure: Measure,
    /// Size of the next step.
    size: f64,
    /// Size below which the minimisation ends.
    least_size: f64,
    /// Number of accepted steps that changed little.
    settled: usize,
}

impl Progress {
    /// Number of such steps after which the minimisation ends.
    const SETTLED: usize = 10;

    fn new(measure: Measure, size: f64) -> Self {
        Self {
            measure,
            size,
            least_size: 1e-6 * size,
            settled: 0,
        }
    }

    /// Accepts or refuses a step by the measure of the curve after it.
    fn accept(&mut self, tried: Measure, tolerance: f64) -> bool {
        let accepted = tried.energy < self.measure.energy;
        if accepted {
            let changed = 1.0 - tried.energy / self.measure.energy > tolerance;
            self.settled = if changed { 0 } else { self.settled + 1 };
            self.measure = tried;
            self.size *= 1.5;
        } else {
            self.size *= 0.5;
            if self.size <= self.least_size {
                self.settled = Self::SETTLED;
            }
        }
        accepted
    }
}

impl<V: Vae<X, Z>, const X: usize, const Z: usize> Minimiser<'_, V, X, Z> {
    /// Minimises the energies of curves.
    ///
    /// # Shapes
    /// - from and to: `[n, latent_dim]`
    /// - output: `[n, frames, latent_dim]`, and the measures of the n curves
    fn minimise(
        &self,
        from: Tensor<2>,
        to: Tensor<2>,
        condition: &Condition,
    ) -> Result<(Tensor<3>, Vec<Measures>)> {
        let ([n, latent], device) = (from.dims(), from.device());
        let (from, to) = (from.reshape([n, 1, latent]), to.reshape([n, 1, latent]));
        let ends = [&from, &to].map(|end| self.decode(end.clone(), condition));
        let conditions = condition.repeat(self.inner).autodiff();
        let segments = (self.inner + 1) as f64;
        let at = |point: usize| {
            let t = point as f64 / segments;
            from.clone() * (1.0 - t) + to.clone() * t
        };
        let mut points = Tensor::cat((1..=self.inner).map(at).collect(), 1);
        let (straight, mut gradient) = self.evaluate(points.clone(), &ends, &conditions);
        let mut curves = self.start(&from, &to, &straight);
        for _ in 0..self.config.max_steps {
            if self.cancel.is_cancelled() {
                return Err(Error::cancelled("geodesic"));
            }
            let sizes: Vec<f32> = curves.iter().map(|curve| curve.size as f32).collect();
            let sizes = Tensor::<3>::from_data(TensorData::new(sizes, [n, 1, 1]), &device);
            let trial = points.clone() - self.smooth(gradient.clone()) * sizes;
            let (tried, slope) = self.evaluate(trial.clone(), &ends, &conditions);
            let accepted: Vec<bool> = (curves.iter_mut().zip(tried))
                .map(|(curve, tried)| curve.accept(tried, self.config.tolerance))
                .collect();
            let mask = Tensor::<1, Bool>::from_data(TensorData::new(accepted, [n]), &device);
            let mask: Tensor<3, Bool> = mask.reshape([n, 1, 1]).expand(points.dims());
            points = points.mask_where(mask.clone(), trial);
            gradient = gradient.mask_where(mask, slope);
            if curves
                .iter()
                .all(|curve| curve.settled >= Progress::SETTLED)
            {
                break;
            }
        }
        let measures = (curves.into_iter().zip(straight)).map(|(curve, straight)| Measures {
            curve: curve.measure,
            straight,
        });
        Ok((Tensor::cat(vec![from, points, to], 1), measures.collect()))
    }

    /// The decoded samples of points, `[n, points, latent_dim]` to `[n, points, values]`, under the
    /// conditions of all curves for the first point, then for the next one.
    fn decode(&self, points: Tensor<3>, conditions: &Condition) -> Tensor<3> {
        let [n, count, _] = points.dims();
        let points = points.swap_dims(0, 1);
        let z = points.reshape::<Z, _>(self.shape.batched::<Z>(n * count));
        let x = self.model.decode_with(z, conditions).mean();
        let values = x.shape().num_elements() / (n * count);
        x.reshape([count, n, values]).swap_dims(0, 1)
    }

    /// Measures of the curves with these inner points, and the gradient of their energies in the
    /// points.
    ///
    /// # Shapes
    /// - points and the gradient: `[n, inner, latent_dim]`
    /// - ends: the decoded ends, `[n, 1, values]`
    fn evaluate(
        &self,
        points: Tensor<3>,
        ends: &[Tensor<3>; 2],
        conditions: &Condition,
    ) -> (Vec<Measure>, Tensor<3>) {
        let leaf = points.clone().autodiff().require_grad();
        let [first, last] = ends.clone().map(Tensor::autodiff);
        let samples = self.decode(leaf.clone(), conditions).autodiff();
        let samples = Tensor::cat(vec![first, samples, last], 1);
        let segments = self.inner + 1;
        let steps = samples.clone().narrow(1, 1, segments) - samples.narrow(1, 0, segments);
        let squares = (steps.clone() * steps).sum_dim(2);
        let total = squares.clone().sum();
        // A decoder that does not use its input leaves no graph.
        let gradient = match total.is_tracked() {
            true => leaf.grad(&total.backward()),
            false => None,
        };
        let squares: Vec<f64> = squares.inner().into_data().iter::<f64>().collect();
        let measure = |squares: &[f64]| Measure {
            energy: squares.iter().sum(),
            length: squares.iter().map(|square| square.sqrt()).sum(),
        };
        (
            squares.chunks_exact(segments).map(measure).collect(),
            gradient.unwrap_or_else(|| points.zeros_like()),
        )
    }

    /// The straight lines with the sizes of the first steps: those of Newton's method, were the
    /// decoder linear and stretched all directions by the same factor. The energy is then
    /// `c·Σ |z_{t+1} − z_t|²`, with a Hessian of `2c` times the Laplace matrix.
    fn start(&self, from: &Tensor<3>, to: &Tensor<3>, straight: &[Measure]) -> Vec<Progress> {
        let line = to.clone() - from.clone();
        let squares = (line.clone() * line).sum_dim(2).into_data();
        let energies = squares
            .iter::<f64>()
            .map(|square| square / (self.inner + 1) as f64);
        let curves = energies.zip(straight).map(|(latent, straight)| {
            let size = 0.5 * self.config.learning_rate * latent / straight.energy;
            Progress::new(*straight, if size.is_finite() { size } else { 0.0 })
        });
        curves.collect()
    }

    /// Multiplies by the inverse of the Laplace matrix along the curves, `[n, inner, latent_dim]`.
    fn smooth(&self, gradient: Tensor<3>) -> Tensor<3> {
        let [n, inner, latent] = gradient.dims();
        let rows = gradient.swap_dims(1, 2).reshape([n * latent, inner]);
        let smooth = rows.matmul(self.smoother.clone());
        smooth.reshape([n, latent, inner]).swap_dims(1, 2)
    }
}

/// The inverse of the matrix with 2 on the diagonal and −1 beside it, in closed form: `min(i, j)·(m
/// + 1 − max(i, j)) / (m + 1)` with indices from 1 to m.
fn inverse_laplacian(m: usize, device: &Device) -> Tensor<2> {
    let entry = |index: usize| {
        let (i, j) = (index / m + 1, index % m + 1);
        (i.min(j) * (m + 1 - i.max(j))) as f32 / (m + 1) as f32
    };
    let values: Vec<f32> = (0..m * m).map(entry).collect();
    Tensor::from_data(TensorData::new(values, [m, m]), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        ConditionKind, MlpVaeConfig,
        latent::testing::{Kind, Surface},
    };
    use aigc_core::{
        data::{ClassLabels, ImageShape},
        rng::InitWeights,
        testing::{assert_close, values},
    };

    fn latents(rows: &[[f32; 2]]) -> Tensor<2> {
        let values = TensorData::new(rows.concat(), [rows.len(), 2]);
        Tensor::from_data(values, &Device::flex())
    }

    fn geodesic(kind: Kind, from: &[[f32; 2]], to: &[[f32; 2]], frames: usize) -> Geodesic {
        let model = Surface::new(kind);
        let sampler = VaeSampler::new(&model, &Device::flex());
        let config = GeodesicConfig {
            tolerance: 1e-7,
            ..GeodesicConfig::default()
        };
        sampler
            .geodesic(latents(from), latents(to), frames, &config)
            .unwrap()
    }

    #[test]
    fn inverse_laplacian_inverts_the_laplace_matrix() {
        let m = 7;
        let inverse = values(inverse_laplacian(m, &Device::flex()));
        for i in 0..m {
            for j in 0..m {
                let at = |row: usize| inverse[row * m + j];
                let below = if i + 1 < m { at(i + 1) } else { 0.0 };
                let above = if i > 0 { at(i - 1) } else { 0.0 };
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((2.0 * at(i) - below - above - expected).abs() < 1e-5);
            }
        }
    }

    /// On a plane the straight line is the geodesic, and its energy is `length² / segments`.
    #[test]
    fn geodesic_on_a_plane_is_the_straight_line() {
        let found = geodesic(Kind::Plane, &[[1.0, 2.0]], &[[4.0, -2.0]], 6);
        for (frame, z) in found.latents.iter().enumerate() {
            let t = frame as f32 / 5.0;
            assert_close(&values(z.clone()), &[1.0 + 3.0 * t, 2.0 - 4.0 * t], 1e-3);
        }
        // The ends differ by (6, 4, −1).
        let length = 53.0f64.sqrt();
        assert!((found.lengths[0] - length).abs() < 1e-3, "{found:?}");
        assert!((found.energies[0] - 53.0 / 5.0).abs() < 1e-3, "{found:?}");
        assert!(found.energies[0] <= found.straight_energies[0]);
    }

    /// In polar coordinates the straight line is an arc of a circle, here of 120° and 90°, and the
    /// geodesic is its chord.
    #[test]
    fn geodesic_in_polar_coordinates_is_the_chord() {
        let third = 2.0 * std::f32::consts::PI / 3.0;
        let (from, to) = (
            [[1.0, 0.0], [2.0, -0.5]],
            [[1.0, third], [2.0, third * 0.75 - 0.5]],
        );
        let found = geodesic(Kind::Polar, &from, &to, 17);
        for (pair, (radius, angle)) in [(1.0f64, f64::from(third)), (2.0, f64::from(third) * 0.75)]
            .into_iter()
            .enumerate()
        {
            let chord = 2.0 * radius * (angle / 2.0).sin();
            assert!(
                (found.lengths[pair] / chord - 1.0).abs() < 1e-3,
                "{found:?}"
            );
            assert!((found.energies[pair] / (chord * chord / 16.0) - 1.0).abs() < 2e-3);
            // The chords of an arc in 16 parts.
            let arc = 16.0 * 2.0 * radius * (angle / 32.0).sin();
            assert!((found.straight_lengths[pair] / arc - 1.0).abs() < 1e-4);
            assert!(found.lengths[pair] < 0.91 * found.straight_lengths[pair]);
            // The chord is at the constant distance `radius·cos(angle/2)` from the origin.
            let start = f64::from(from[pair][1]);
            for z in &found.latents {
                let z = values(z.clone());
                let (r, phi) = (f64::from(z[2 * pair]), f64::from(z[2 * pair + 1]));
                let distance = r * (phi - start - angle / 2.0).cos();
                assert!((distance - radius * (angle / 2.0).cos()).abs() < 0.02 * radius);
            }
        }
    }

    /// Geodesics of the hyperbolic half-plane are half circles around points of the axis `v = 0`,
    /// and the distance of two points is `arcosh(1 + |difference|² / 2·v₁·v₂)`.
    #[test]
    fn geodesic_of_the_hyperbolic_plane_is_a_half_circle() {
        let (a, b) = (1.5f32, 1.2f32);
        let found = geodesic(Kind::Pseudosphere, &[[-a, b]], &[[a, b]], 33);
        let (a, b) = (f64::from(a), f64::from(b));
        let distance = (1.0 + 4.0 * a * a / (2.0 * b * b)).acosh();
        // The segments in space are shorter than the curve on the surface.
        assert!(
            (found.lengths[0] / distance - 1.0).abs() < 3e-3,
            "{found:?}"
        );
        assert!(
            found.lengths[0] < 0.86 * found.straight_lengths[0],
            "{found:?}"
        );
        let radius = (a * a + b * b).sqrt();
        for z in &found.latents {
            let z = values(z.clone());
            let r = f64::from(z[0]).hypot(f64::from(z[1]));
            assert!((r / radius - 1.0).abs() < 0.02, "{r} {radius}");
        }
    }

    #[test]
    fn energy_is_never_above_that_of_the_straight_line() {
        let model = Surface::new(Kind::Polar);
        let (from, to) = (
            [[1.0, 0.0], [0.5, 1.0], [1.0, 2.0]],
            [[1.0, 3.0], [2.0, 2.5], [1.0, 2.0]],
        );
        let one = geodesic(Kind::Polar, &from, &to, 9);
        for learning_rate in [0.1, 1.0, 1000.0] {
            // In batches of one pair, whose curves do not depend on the others.
            let sampler = VaeSampler::new(&model, &Device::flex()).with_batch_size(2);
            let config = GeodesicConfig {
                learning_rate,
                max_steps: 30,
                ..GeodesicConfig::default()
            };
            let found = sampler
                .geodesic(latents(&from), latents(&to), 9, &config)
                .unwrap();
            for pair in 0..3 {
                let (energy, straight) = (found.energies[pair], found.straight_energies[pair]);
                assert!(energy <= straight, "{energy} {straight}");
                assert!((straight - one.straight_energies[pair]).abs() < 1e-5);
            }
            assert!(found.energies[1] < 0.99 * found.straight_energies[1]);
            // The ends of the last pair are the same point.
            assert!(found.energies[2] < 1e-9);
        }
        let still = geodesic(Kind::Constant, &[[0.0, 1.0]], &[[1.0, 1.0]], 3);
        assert_eq!((still.energies[0], still.straight_energies[0]), (0.0, 0.0));
        assert_eq!(values(still.latents[1].clone()), [0.5, 1.0]);
    }

    /// A curve depends on its own class only.
    #[test]
    fn curves_have_their_classes() {
        let device = Device::flex();
        let config = MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 2,
            condition: ConditionKind {
                num_classes: Some(3),
                ..ConditionKind::default()
            },
            ..MlpVaeConfig::new(ImageShape::new(1, 2, 2))
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let sampler = VaeSampler::new(&model, &device);
        let config = GeodesicConfig {
            max_steps: 3,
            ..GeodesicConfig::default()
        };
        let (from, to) = ([[1.0, 2.0], [-1.0, 0.5]], [[-3.0, 1.0], [2.0, 2.0]]);
        let both = (sampler.clone())
            .with_classes(ClassLabels::PerSample(vec![2, 0]))
            .geodesic(latents(&from), latents(&to), 5, &config)
            .unwrap();
        for (pair, class) in [2, 0].into_iter().enumerate() {
            let one = (sampler.clone())
                .with_classes(ClassLabels::All(class))
                .geodesic(latents(&[from[pair]]), latents(&[to[pair]]), 5, &config)
                .unwrap();
            assert!((one.energies[0] / both.energies[pair] - 1.0).abs() < 1e-3);
            assert!((one.straight_lengths[0] / both.straight_lengths[pair] - 1.0).abs() < 1e-3);
        }
        let refused = sampler.geodesic(latents(&from), latents(&to), 5, &config);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("`classes` is missing"), "{message}");
    }

    #[test]
    fn invalid_arguments_are_errors() {
        let model = Surface::new(Kind::Plane);
        let cancel = CancelToken::new();
        let sampler = VaeSampler::new(&model, &Device::flex()).with_cancel(cancel.clone());
        let ends = || (latents(&[[0.0, 0.0]]), latents(&[[1.0, 1.0]]));
        let message = |frames: usize, config: &GeodesicConfig| {
            let (from, to) = ends();
            let error = sampler.geodesic(from, to, frames, config).unwrap_err();
            error.to_string()
        };
        let config = GeodesicConfig::default();
        assert!(message(2, &config).contains("`frames` is 2, expected 3 to 4096"));
        let still = GeodesicConfig {
            learning_rate: 0.0,
            ..config.clone()
        };
        assert!(message(5, &still).contains("`learning_rate` is 0"));
        let (from, _) = ends();
        let two = latents(&[[0.0, 0.0], [1.0, 1.0]]);
        let error = sampler.geodesic(from, two, 5, &config).unwrap_err();
        assert!(error.to_string().contains("`to` is [2, 2]"), "{error}");
        cancel.cancel();
        assert!(message(5, &config).contains("cancelled"));
    }
}
