//! What can be done with the latents of samples: interpolation along different curves, arithmetic,
//! directions of attributes, traversals.

mod attributes;
mod geodesic;

pub use attributes::{AttributeDirection, AttributeMethod};
pub use geodesic::{Geodesic, GeodesicConfig};

use crate::{
    Posterior, Vae,
    sample::{VaeSampler, check_shape, complete},
};
use aigc_core::{Error, Result, latent::slerp};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// The curve along which latents are interpolated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Interpolation {
    /// A great arc (Shoemake 1985): the mass of a normal prior is close to a sphere.
    #[default]
    Spherical,
    /// A straight line.
    Linear,
    /// The curve along which the decoded samples change least (Arvanitidis et al. 2018; Chen et al.
    /// 2018); see [`VaeSampler::geodesic`].
    Geodesic(GeodesicConfig),
}

impl<V: Vae<X, Z>, const X: usize, const Z: usize> VaeSampler<'_, V, X, Z> {
    /// The modes of the posteriors of samples; for a Gaussian, their means.
    ///
    /// # Shapes
    /// - x: `[n, …]` of the model's sample shape; images in `[0, 1]`
    /// - output: `[n, …]` of the model's latent shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `x` contains no samples or does not have the shape of the
    /// model's samples, or the classes do not fit; [`Error::Cancelled`] if cancelled.
    pub fn latents(&self, x: Tensor<X>) -> Result<Tensor<Z>> {
        self.latents_of("x", x)
    }

    /// [`latents`](Self::latents) of an argument with this name.
    fn latents_of(&self, argument: &str, x: Tensor<X>) -> Result<Tensor<Z>> {
        self.check_samples(argument, &x)?;
        let labels = self.labels(x.dims()[0])?;
        let modes = self.options.collect(x.dims()[0], |batch| {
            let condition = self.condition(labels.as_deref(), &batch);
            let x = x.clone().narrow(0, batch.start, batch.len());
            Ok(self.model.encode_with(x, &condition).mode())
        })?;
        complete(modes, "encoding")
    }

    /// Interpolates between the samples of `from` and `to` along a curve of latents, in `frames`
    /// frames with both ends.
    ///
    /// # Shapes
    /// - from and to: `[n, …]` of the model's sample shape; images in `[0, 1]`
    /// - output: `frames` tensors of the same shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples or fewer than two frames (for a geodesic,
    /// not from 3 to 4,096), the samples do not have the shape of the model's samples, the two
    /// batches differ in shape, or the classes do not fit; [`Error::Config`] if the configuration
    /// of a geodesic is out of range; [`Error::Cancelled`] if cancelled.
    pub fn interpolate_along(
        &self,
        from: Tensor<X>,
        to: Tensor<X>,
        frames: usize,
        interpolation: &Interpolation,
    ) -> Result<Vec<Tensor<X>>> {
        if frames < 2 {
            return Err(Error::argument("frames", frames, "at least 2"));
        }
        same_shape("to", &to, "from", &from)?;
        let (from, to) = (self.latents_of("from", from)?, self.latents_of("to", to)?);
        let shape: [usize; Z] = from.dims();
        let at = |frame: usize| frame as f64 / (frames - 1) as f64;
        let latents: Vec<Tensor<Z>> = match interpolation {
            Interpolation::Linear => (0..frames)
                .map(|frame| from.clone() * (1.0 - at(frame)) + to.clone() * at(frame))
                .collect(),
            Interpolation::Spherical => {
                let (from, to) = (flat(from), flat(to));
                let frame =
                    |frame| slerp(from.clone(), to.clone(), at(frame)).reshape::<Z, _>(shape);
                (0..frames).map(frame).collect()
            }
            Interpolation::Geodesic(config) => self.geodesic(from, to, frames, config)?.latents,
        };
        (latents.into_iter())
            .map(|z| complete(self.decode_batches(z)?, "interpolation"))
            .collect()
    }

    /// Adds the difference of `a` and `b` to `c`: decodes `z(a) − z(b) + z(c)` for corresponding
    /// samples, with `z` the [latents](Self::latents) of a sample.
    ///
    /// # Shapes
    /// - a, b, c and output: `[n, …]` of the model's sample shape; images in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples, they do not have the shape of the
    /// model's samples, or the batches differ in shape; [`Error::Cancelled`] if cancelled.
    pub fn arithmetic(&self, a: Tensor<X>, b: Tensor<X>, c: Tensor<X>) -> Result<Tensor<X>> {
        same_shape("b", &b, "a", &a)?;
        same_shape("c", &c, "a", &a)?;
        let z = self.latents_of("a", a)? - self.latents_of("b", b)? + self.latents_of("c", c)?;
        complete(self.decode_batches(z)?, "latent arithmetic")
    }

    /// Decodes the latents of samples with one dimension set to each of `values`: what the
    /// dimension means. Dimensions of latent maps are counted channel by channel, row by row.
    ///
    /// # Shapes
    /// - x: `[n, …]` of the model's sample shape; images in `[0, 1]`
    /// - output: a tensor of the same shape for each value
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples, they do not have the shape of the
    /// model's samples, or `dimension` is not a dimension of the latents; [`Error::Cancelled`] if
    /// cancelled.
    pub fn traverse(
        &self,
        x: Tensor<X>,
        dimension: usize,
        values: &[f64],
    ) -> Result<Vec<Tensor<X>>> {
        let latent = self.model.latent_dim();
        if dimension >= latent {
            let expected = format!("below {latent}, the number of latent dimensions");
            return Err(Error::argument("dimension", dimension, expected));
        }
        let mut unit = vec![0.0; latent];
        unit[dimension] = 1.0;
        let z = self.vectors_of(x)?;
        let unit = self.row(&unit);
        let others = z.clone() - z * unit.clone();
        self.decode_each(
            values
                .iter()
                .map(|value| others.clone() + unit.clone() * *value),
        )
    }

    /// Decodes the latents of samples, moved along a direction by each of `steps`.
    ///
    /// # Shapes
    /// - x: `[n, …]` of the model's sample shape; images in `[0, 1]`
    /// - output: a tensor of the same shape for each step
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples, they do not have the shape of the
    /// model's samples, or the direction has another number of dimensions than the latents;
    /// [`Error::Cancelled`] if cancelled.
    pub fn traverse_direction(
        &self,
        x: Tensor<X>,
        direction: &AttributeDirection,
        steps: &[f64],
    ) -> Result<Vec<Tensor<X>>> {
        let latent = self.model.latent_dim();
        if direction.direction.len() != latent {
            return Err(Error::argument(
                "direction",
                format!("of {} dimensions", direction.direction.len()),
                format!("of {latent}, as the latents"),
            ));
        }
        let z = self.vectors_of(x)?;
        let direction = self.row(&direction.direction);
        self.decode_each(
            steps
                .iter()
                .map(|step| z.clone() + direction.clone() * *step),
        )
    }

    /// The direction of an attribute in the space of latents, from samples that have it and samples
    /// that do not.
    ///
    /// # Shapes
    /// - x: `[n, …]` of the model's sample shape; images in `[0, 1]`
    /// - has_attribute: n values
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples, or they do not have the shape of the
    /// model's samples; those of [`AttributeDirection::new`]; [`Error::Cancelled`] if cancelled.
    pub fn attribute_direction(
        &self,
        x: Tensor<X>,
        has_attribute: &[bool],
        method: AttributeMethod,
    ) -> Result<AttributeDirection> {
        let z: Vec<f64> = self.vectors_of(x)?.into_data().iter::<f64>().collect();
        AttributeDirection::new(&z, self.model.latent_dim(), has_attribute, method)
    }

    /// The latents of samples, which must have exactly the shape of the model's samples, as vectors
    /// `[n, latent_dim]`.
    fn vectors_of(&self, x: Tensor<X>) -> Result<Tensor<2>> {
        check_shape("x", &x, self.model.sample_shape())?;
        Ok(flat(self.latents(x)?))
    }

    /// Decodes latents `[n, latent_dim]` one after the other.
    fn decode_each(&self, latents: impl Iterator<Item = Tensor<2>>) -> Result<Vec<Tensor<X>>> {
        latents
            .map(|z| {
                let shape: [usize; Z] = self.model.latent_shape().batched(z.dims()[0]);
                complete(self.decode_batches(z.reshape::<Z, _>(shape))?, "traversal")
            })
            .collect()
    }

    /// Values of the latent dimensions, `[1, latent_dim]`.
    fn row(&self, values: &[f64]) -> Tensor<2> {
        let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        let shape = [1, values.len()];
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }
}

/// Latents as vectors, `[n, latent_dim]`.
fn flat<const Z: usize>(z: Tensor<Z>) -> Tensor<2> {
    z.flatten(1, Z - 1)
}

/// Fails unless two arguments have the same shape.
fn same_shape<const D: usize>(
    argument: &str,
    x: &Tensor<D>,
    other: &str,
    y: &Tensor<D>,
) -> Result<()> {
    if x.dims() == y.dims() {
        return Ok(());
    }
    Err(Error::argument(
        argument,
        format!("{:?}", x.dims()),
        format!("{:?}, as `{other}`", y.dims()),
    ))
}

#[cfg(all(test, feature = "flex"))]
mod testing {
    //! Models whose decoder is a known surface.

    use crate::{Likelihood, LikelihoodKind, Vae};
    use aigc_core::{data::SampleShape, encoder::Deterministic};
    use burn::{module::Module, tensor::Tensor};

    /// A surface with two coordinates.
    #[derive(Clone, Copy, Debug)]
    pub(super) enum Kind {
        /// `(2u, −v, u + v)`.
        Plane,
        /// `(r·cos φ, r·sin φ, 0)` for coordinates `(r, φ)`: a flat metric in curved coordinates.
        Polar,
        /// The pseudosphere `(cos u / v, sin u / v, arcosh v − √(1 − 1/v²))` for `v > 1`, with the
        /// metric `(du² + dv²) / v²` of the hyperbolic half-plane.
        Pseudosphere,
        /// `(0, 0, 0)`.
        Constant,
    }

    /// A model that encodes the first two values of a sample as its latents.
    #[derive(Module, Debug)]
    pub(super) struct Surface {
        #[module(skip)]
        kind: Kind,
    }

    impl Surface {
        pub(super) fn new(kind: Kind) -> Self {
            Self { kind }
        }
    }

    impl Vae<2, 2> for Surface {
        type Posterior = Deterministic<2>;

        fn encode(&self, x: Tensor<2>) -> Deterministic<2> {
            Deterministic(x.narrow(1, 0, 2))
        }

        fn decode(&self, z: Tensor<2>) -> Likelihood<2> {
            let (u, v) = (z.clone().narrow(1, 0, 1), z.narrow(1, 1, 1));
            let values = match self.kind {
                Kind::Plane => vec![u.clone() * 2.0, -v.clone(), u + v],
                Kind::Polar => vec![
                    u.clone() * v.clone().cos(),
                    u.clone() * v.clone().sin(),
                    u * 0.0,
                ],
                Kind::Pseudosphere => {
                    let root = (v.clone() * v.clone() - 1.0).sqrt();
                    vec![
                        u.clone().cos() / v.clone(),
                        u.sin() / v.clone(),
                        (v.clone() + root.clone()).log() - root / v,
                    ]
                }
                Kind::Constant => {
                    let zeros = Tensor::zeros([u.dims()[0], 3], &u.device().without_autodiff());
                    return Likelihood::new(LikelihoodKind::Gaussian(0.1), zeros);
                }
            };
            Likelihood::new(LikelihoodKind::Gaussian(0.1), Tensor::cat(values, 1))
        }

        fn latent_shape(&self) -> SampleShape {
            SampleShape::new(&[2])
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[3])
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::testing::{Kind, Surface};
    use super::*;
    use aigc_core::{
        CancelToken,
        testing::{assert_close, values},
    };
    use burn::tensor::Device;

    fn samples(rows: &[[f32; 3]]) -> Tensor<2> {
        let values = TensorData::new(rows.concat(), [rows.len(), 3]);
        Tensor::from_data(values, &Device::flex())
    }

    fn plane(u: f32, v: f32) -> [f32; 3] {
        [2.0 * u, -v, u + v]
    }

    #[test]
    fn interpolations_follow_their_curves() {
        let model = Surface::new(Kind::Plane);
        let sampler = VaeSampler::new(&model, &Device::flex()).with_batch_size(1);
        let from = samples(&[[2.0, 0.0, 9.0], [1.0, 3.0, 9.0]]);
        let to = samples(&[[0.0, 2.0, 9.0], [5.0, -1.0, 9.0]]);
        let frames = |interpolation: &Interpolation| {
            sampler.interpolate_along(from.clone(), to.clone(), 5, interpolation)
        };
        let linear = frames(&Interpolation::Linear).unwrap();
        for (frame, found) in linear.into_iter().enumerate() {
            let t = frame as f32 / 4.0;
            let expected = [
                plane(2.0 - 2.0 * t, 2.0 * t),
                plane(1.0 + 4.0 * t, 3.0 - 4.0 * t),
            ];
            assert_close(&values(found), &expected.concat(), 1e-5);
        }
        let spherical = frames(&Interpolation::Spherical).unwrap();
        let expected = sampler.interpolate(from.clone(), to.clone(), 5).unwrap();
        for (frame, (found, expected)) in spherical.into_iter().zip(expected).enumerate() {
            let found = values(found);
            assert_close(&found, &values(expected), 1e-5);
            let angle = std::f32::consts::FRAC_PI_2 * frame as f32 / 4.0;
            assert_close(
                &found[..3],
                &plane(2.0 * angle.cos(), 2.0 * angle.sin()),
                1e-5,
            );
        }
        let few = sampler.interpolate_along(from.clone(), to, 1, &Interpolation::Linear);
        assert!(few.unwrap_err().to_string().contains("`frames` is 1"));
        let one = samples(&[[0.0; 3]]);
        let other = sampler.interpolate_along(from, one, 3, &Interpolation::Linear);
        let message = other.unwrap_err().to_string();
        assert!(
            message.contains("`to` is [1, 3], expected [2, 3]"),
            "{message}"
        );
    }

    #[test]
    fn arithmetic_adds_a_difference() {
        let model = Surface::new(Kind::Plane);
        let sampler = VaeSampler::new(&model, &Device::flex());
        let [a, b, c] = [
            [[1.0, 2.0, 0.0], [0.0, 1.0, 0.0]],
            [[0.5, 4.0, 0.0], [2.0, 2.0, 0.0]],
            [[-1.0, 0.0, 0.0], [3.0, 3.0, 0.0]],
        ]
        .map(|rows| samples(&rows));
        let found = sampler.arithmetic(a.clone(), b, c).unwrap();
        let expected = [plane(-0.5, -2.0), plane(1.0, 2.0)].concat();
        assert_close(&values(found), &expected, 1e-6);
        let one = samples(&[[0.0; 3]]);
        let message = sampler
            .arithmetic(a.clone(), a, one)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`c` is [1, 3], expected [2, 3], as `a`"),
            "{message}"
        );
    }

    #[test]
    fn traversals_move_latents() {
        let model = Surface::new(Kind::Plane);
        let sampler = VaeSampler::new(&model, &Device::flex());
        let x = samples(&[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]]);
        let found = sampler.traverse(x.clone(), 1, &[-1.0, 0.5]).unwrap();
        for (found, value) in found.into_iter().zip([-1.0, 0.5]) {
            let expected = [plane(1.0, value), plane(3.0, value)].concat();
            assert_close(&values(found), &expected, 1e-6);
        }
        let error = sampler
            .traverse(x.clone(), 2, &[0.0])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`dimension` is 2, expected below 2"),
            "{error}"
        );
        // Samples with the attribute are 2 to the right of the others and 1 above.
        let labelled = samples(&[
            [0.0, 0.0, 0.0],
            [2.0, 1.0, 0.0],
            [1.0, 3.0, 0.0],
            [3.0, 4.0, 0.0],
        ]);
        let direction = sampler
            .attribute_direction(
                labelled,
                &[false, true, false, true],
                AttributeMethod::ClassMeans,
            )
            .unwrap();
        let found = sampler.traverse_direction(x.clone(), &direction, &[0.0, 1.0, -0.5]);
        for (found, step) in found.unwrap().into_iter().zip([0.0, 1.0, -0.5]) {
            let moved = |u: f32, v: f32| plane(u + 2.0 * step, v + step);
            let expected = [moved(1.0, 2.0), moved(3.0, 4.0)].concat();
            assert_close(&values(found), &expected, 1e-6);
        }
        let other = AttributeDirection {
            direction: vec![1.0; 3],
            ..direction
        };
        let error = sampler.traverse_direction(x, &other, &[1.0]).unwrap_err();
        assert!(
            error.to_string().contains("of 3 dimensions, expected of 2"),
            "{error}"
        );
    }

    #[test]
    fn cancelled_operations_are_errors() {
        let model = Surface::new(Kind::Plane);
        let cancel = CancelToken::new();
        cancel.cancel();
        let sampler = VaeSampler::new(&model, &Device::flex()).with_cancel(cancel);
        let error = sampler.latents(samples(&[[0.0; 3]])).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    }
}
