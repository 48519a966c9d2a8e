//! Sampling, reconstruction and interpolation with a trained model.

use crate::{Condition, ConditionKind, Interpolation, Vae};
use aigc_core::{
    Error, Result,
    check::ensure_argument,
    data::{ClassLabels, SampleBatch, SampleShape},
    encoder::Posterior,
    rng::Rng,
    sampling::{BatchProgress, Samples, SamplingOptions},
};
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::Range;

/// Samples, reconstructs and interpolates with a trained VAE. All results are means of `p(x|z)`.
///
/// A class-conditional model samples random classes, or those of
/// [`with_classes`](Self::with_classes). The methods that do not draw from the prior need classes,
/// one for each sample of a result; [`reconstruct_batch`](Self::reconstruct_batch) takes the labels
/// of its batch.
///
/// A model that takes vectors or encoder hidden states ([`ConditionKind`]) needs them from
/// [`with_vectors`](Self::with_vectors) and
/// [`with_encoder_hidden_states`](Self::with_encoder_hidden_states), for one sample or for each
/// sample of a result; all methods return [`Error::InvalidArgument`] if they are missing or do not
/// fit.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_vae::{AnyVae, VaeSampler};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let vae = AnyVae::from_pretrained("runs/digits-vae-1/final", &device)?;
/// let samples = VaeSampler::new(&*vae, &device).with_temperature(0.8).sample(64, 7)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct VaeSampler<'a, V, const X: usize = 4, const Z: usize = 2> {
    pub(crate) model: &'a V,
    pub(crate) device: Device,
    pub(crate) options: SamplingOptions<'a, BatchProgress>,
    temperature: f64,
    classes: ClassLabels,
    /// Vectors and encoder hidden states, of one sample or of each.
    given: Condition,
}

impl<'a, V: Vae<X, Z>, const X: usize, const Z: usize> VaeSampler<'a, V, X, Z> {
    /// A sampler with a batch size of 256, temperature 1 and random classes.
    pub fn new(model: &'a V, device: &Device) -> Self {
        Self {
            model,
            device: device.clone(),
            options: SamplingOptions::new(256),
            temperature: 1.0,
            classes: ClassLabels::Random,
            given: Condition::none(),
        }
    }

    /// Sets the factor of the standard deviations of the [prior](Vae::sample_prior). Below 1,
    /// samples are more typical and less varied.
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets the vectors of the samples, `[1, vector_dim]` for all or `[n, vector_dim]` for n of
    /// them.
    pub fn with_vectors(mut self, vectors: Tensor<2>) -> Self {
        self.given.vectors = Some(vectors);
        self
    }

    /// Sets the encoder hidden states of the samples, such as those of a text encoder,
    /// `[1, tokens, width]` for all or `[n, tokens, width]` for n of them.
    pub fn with_encoder_hidden_states(mut self, states: Tensor<3>) -> Self {
        self.given.encoder_hidden_states = Some(states);
        self
    }

    aigc_core::sampling_methods!('a);

    /// Draws `n` latents from the prior and decodes them, with their classes if the model is
    /// class-conditional. With a standard normal prior, the first samples of a seed are the same
    /// for every `n`.
    ///
    /// # Shapes
    /// - `values` of the output: `[n, …]` of the model's sample shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` or the batch size is 0, the temperature is negative or not
    /// finite, or the model does not have a requested class; [`Error::Cancelled`] if cancelled
    /// before the first batch.
    pub fn sample(&self, n: usize, seed: u64) -> Result<Samples<X>> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::argument(
                "temperature",
                self.temperature,
                "a finite number, 0 or above",
            ));
        }
        let num_classes = self.condition_kind(n)?.num_classes;
        let mut rng = Rng::stream(seed, "vae/classes", 0);
        let labels = self.classes.resolve(num_classes, n, &mut rng)?;
        let mut rng = Rng::new(seed);
        let drawn = self.options.collect(n, |batch| {
            let (model, temperature) = (self.model, self.temperature);
            let condition = self.condition(labels.as_deref(), &batch);
            let count = batch.len();
            let z = model.sample_prior(count, &condition, temperature, &mut rng, &self.device);
            Ok(model.decode_with(z, &condition).mean())
        })?;
        Ok(Samples::new(drawn, labels, seed))
    }

    /// Reconstructs samples from the mode of their posterior.
    ///
    /// # Shapes
    /// - x and output: `[n, …]` of a shape that the model [accepts](Vae::accepts); images in
    ///   `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `x` contains no samples, the model does not accept their
    /// shape, or the classes do not fit; [`Error::Cancelled`] if cancelled.
    pub fn reconstruct(&self, x: Tensor<X>) -> Result<Tensor<X>> {
        self.check_samples("x", &x)?;
        let labels = self.labels(x.dims()[0])?;
        self.reconstruct_labelled(x, labels.as_deref())
    }

    /// [`reconstruct`](Self::reconstruct) for the samples of a batch, with their labels if the
    /// model is class-conditional.
    ///
    /// # Shapes
    /// - output: `[len, …]` of the samples' shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the batch is empty, the model does not
    /// [accept](Vae::accepts) the shape of its samples, or a class-conditional model gets no labels
    /// or unknown ones; [`Error::Cancelled`] if cancelled.
    pub fn reconstruct_batch(&self, batch: &impl SampleBatch<X>) -> Result<Tensor<X>> {
        let shape = batch.sample_shape();
        if !self.model.accepts(shape) {
            let accepted = self.model.sample_shape();
            let expected = format!("a shape that the model accepts, such as {accepted}");
            return Err(Error::argument("samples", shape, expected));
        }
        let labels = self.condition_kind(batch.len())?.labels(batch)?;
        self.reconstruct_labelled(batch.to_tensor(&self.device), labels)
    }

    fn reconstruct_labelled(&self, x: Tensor<X>, labels: Option<&[u32]>) -> Result<Tensor<X>> {
        let reconstructed = self.options.collect(x.dims()[0], |batch| {
            let condition = self.condition(labels, &batch);
            let x = x.clone().narrow(0, batch.start, batch.len());
            let z = self.model.encode_with(x, &condition).mode();
            Ok(self.model.decode_with(z, &condition).mean())
        })?;
        complete(reconstructed, "reconstruction")
    }

    /// Interpolates between the samples of `from` and `to`, in `frames` frames with both ends.
    /// Latents move along a great arc (Shoemake 1985), because the mass of a normal prior is close
    /// to a sphere.
    ///
    /// # Shapes
    /// - from and to: `[n, …]` of the model's sample shape; images in `[0, 1]`
    /// - output: `frames` tensors of the same shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples or fewer than two frames, the samples do
    /// not have the shape of the model's samples, the two batches differ in shape, or the classes
    /// do not fit; [`Error::Cancelled`] if cancelled.
    pub fn interpolate(
        &self,
        from: Tensor<X>,
        to: Tensor<X>,
        frames: usize,
    ) -> Result<Vec<Tensor<X>>> {
        self.interpolate_along(from, to, frames, &Interpolation::Spherical)
    }

    /// Decodes a grid over two latent dimensions: `side × side` samples, row by row. The dimension
    /// `axes[0]` rises from row to row and `axes[1]` from column to column, over the central 90 %
    /// of a standard normal prior, −1.645 to 1.645; all others are 0.
    ///
    /// # Shapes
    /// - output: `[side², …]` of the model's sample shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `side` is from 2 to 1024, both `axes` are latent
    /// dimensions and the classes fit; [`Error::Cancelled`] if cancelled.
    pub fn latent_grid(&self, axes: [usize; 2], side: usize) -> Result<Tensor<X>> {
        let latent = self.model.latent_dim();
        if !(2..=1024).contains(&side) {
            return Err(Error::argument("side", side, "2 to 1024"));
        }
        if let Some(axis) = axes.iter().find(|axis| **axis >= latent) {
            let expected = format!("below {latent}, the number of latent dimensions");
            return Err(Error::argument("axes", axis, expected));
        }
        let at = |k: usize| 1.645 * (2.0 * k as f32 / (side - 1) as f32 - 1.0);
        let labels = self.labels(side * side)?;
        let grid = self.options.collect(side * side, |batch| {
            let mut z = vec![0.0; batch.len() * latent];
            for (index, point) in batch.clone().zip(z.chunks_exact_mut(latent)) {
                point[axes[0]] = at(index / side);
                point[axes[1]] = at(index % side);
            }
            let shape: [usize; Z] = self.model.latent_shape().batched(batch.len());
            let z = Tensor::from_data(TensorData::new(z, shape), &self.device);
            let condition = self.condition(labels.as_deref(), &batch);
            Ok(self.model.decode_with(z, &condition).mean())
        })?;
        complete(grid, "latent grid")
    }

    pub(crate) fn decode_batches(&self, z: Tensor<Z>) -> Result<(Tensor<X>, bool)> {
        let labels = self.labels(z.dims()[0])?;
        self.options.collect(z.dims()[0], |batch| {
            let condition = self.condition(labels.as_deref(), &batch);
            let z = z.clone().narrow(0, batch.start, batch.len());
            Ok(self.model.decode_with(z, &condition).mean())
        })
    }

    /// The classes of `n` given samples or latents, of a class-conditional model.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless they are set, known to the model and as many; as
    /// [`condition_kind`](Self::condition_kind).
    pub(crate) fn labels(&self, n: usize) -> Result<Option<Vec<u32>>> {
        match (&self.classes, self.condition_kind(n)?.num_classes) {
            (ClassLabels::Random, Some(count)) => Err(Error::argument(
                "classes",
                "missing",
                format!("one below {count} for each sample: call `with_classes`"),
            )),
            // Nothing is drawn.
            (classes, count) => classes.resolve(count, n, &mut Rng::new(0)),
        }
    }

    /// The conditions that the model takes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if vectors or encoder hidden states are missing, are not those of
    /// one sample or of `n`, or do not fit the model.
    fn condition_kind(&self, n: usize) -> Result<ConditionKind> {
        let (kind, given) = (self.model.condition_kind(), &self.given);
        if let Some((field, width)) = kind.missing(given) {
            let expected = format!("of width {width}: call `with_{field}`");
            return Err(Error::argument(field, "missing", expected));
        }
        let vectors = given.vectors.as_ref().map(|x| x.dims()[0]);
        let states = given.encoder_hidden_states.as_ref().map(|x| x.dims()[0]);
        for (field, rows) in [("vectors", vectors), ("encoder_hidden_states", states)] {
            let expected = format!("those of 1 sample or of {n}");
            let fits = rows.is_none_or(|rows| rows == 1 || (rows == n && n > 0));
            let found = format!("of {} samples", rows.unwrap_or(0));
            ensure_argument(fits, field, found, &expected)?;
        }
        kind.check(&self.condition(None, &(0..1)), 1)?;
        Ok(kind)
    }

    /// Fails unless the model can encode samples of this shape.
    pub(crate) fn check_samples(&self, argument: &str, x: &Tensor<X>) -> Result<()> {
        match self.model.accepts(SampleShape::of_batch(x)) {
            true => Ok(()),
            false => check_shape(argument, x, self.model.sample_shape()),
        }
    }

    /// The condition of a batch of samples with these classes.
    pub(crate) fn condition(&self, labels: Option<&[u32]>, batch: &Range<usize>) -> Condition {
        let labels = labels.map(|labels| &labels[batch.clone()]);
        let Condition {
            vectors,
            encoder_hidden_states,
            ..
        } = &self.given;
        Condition {
            vectors: vectors.as_ref().map(|x| rows(x, batch)),
            encoder_hidden_states: encoder_hidden_states.as_ref().map(|x| rows(x, batch)),
            ..Condition::of_labels(labels, &self.device)
        }
    }
}

/// The rows of a batch; one row is that of every sample.
fn rows<const D: usize>(x: &Tensor<D>, batch: &Range<usize>) -> Tensor<D> {
    match x.dims()[0] {
        1 => x.clone().repeat_dim(0, batch.len()),
        _ => x.clone().narrow(0, batch.start, batch.len()),
    }
}

/// Fails unless the samples or latents of a batch are of this shape, that of the model.
///
/// # Errors
/// [`Error::InvalidArgument`] with the name of the argument.
pub(crate) fn check_shape<const D: usize>(
    argument: &str,
    batch: &Tensor<D>,
    expected: SampleShape,
) -> Result<()> {
    let found = SampleShape::of_batch(batch);
    ensure_argument(
        found == expected,
        argument,
        format!("a batch of {found}"),
        &format!("a batch of {expected}"),
    )
}

/// The value if it is complete: a part of it would be of no use.
pub(crate) fn complete<T>((value, complete): (T, bool), operation: &str) -> Result<T> {
    match complete {
        true => Ok(value),
        false => Err(Error::cancelled(operation)),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{AutoencoderKlConfig, GaussianMixtureConfig, MlpVae, MlpVaeConfig, WithPrior};
    use aigc_core::{
        data::{Image, ImageBatch, ImageShape, collate_images},
        rng::InitWeights,
        testing::{assert_close, values},
    };
    use std::ops::ControlFlow;

    fn model(num_classes: Option<usize>) -> MlpVae {
        model_with(ConditionKind {
            num_classes,
            ..ConditionKind::default()
        })
    }

    fn model_with(condition: ConditionKind) -> MlpVae {
        let config = MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 3,
            condition,
            ..MlpVaeConfig::new(ImageShape::new(1, 2, 2))
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    fn images(shape: ImageShape, labels: &[Option<u32>]) -> ImageBatch {
        let image = |(index, label): (usize, &Option<u32>)| Image {
            shape,
            pixels: (0..shape.numel())
                .map(|at| (60 * index + 9 * at) as u8)
                .collect(),
            label: *label,
        };
        collate_images(labels.iter().enumerate().map(image).collect())
    }

    #[test]
    fn samples_have_their_classes() {
        let (model, plain, device) = (model(Some(4)), model(None), Device::flex());
        let sampler = VaeSampler::new(&model, &device).with_batch_size(2);
        let requested = ClassLabels::PerSample(vec![3, 0, 1]);
        let drawn = sampler.clone().with_classes(requested).sample(3, 7);
        let drawn = drawn.unwrap();
        assert_eq!(drawn.labels, Some(vec![3, 0, 1]));
        let z = Rng::new(7).normal([3, 3], &device);
        let condition = Condition::classes(&[3, 0, 1], &device);
        let expected = model.decode_with(z, &condition).mean();
        assert_close(&values(drawn.values), &values(expected), 1e-6);

        let random = sampler.sample(40, 7).unwrap().labels.unwrap();
        assert!((0..4).all(|class| random.contains(&class)), "{random:?}");
        let fewer = sampler.sample(5, 7).unwrap().labels.unwrap();
        assert_eq!(fewer, random[..5]);
        let stopped = sampler.with_callback(|_| ControlFlow::Break(()));
        let stopped = stopped.sample(5, 7).unwrap();
        assert_eq!(stopped.labels.unwrap(), random[..2]);
        let of_plain = VaeSampler::new(&plain, &device).sample(2, 7).unwrap();
        assert_eq!(of_plain.labels, None);

        for (model, classes, expected) in [
            (
                &model,
                ClassLabels::All(4),
                "`classes` is 4, expected below 4",
            ),
            (
                &model,
                ClassLabels::PerSample(vec![0]),
                "`classes` is 1, expected 2",
            ),
            (&plain, ClassLabels::All(0), "the model has no classes"),
        ] {
            let sampler = VaeSampler::new(model, &device).with_classes(classes);
            let message = sampler.sample(2, 0).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn given_samples_need_their_classes() {
        let (model, device) = (model(Some(4)), Device::flex());
        let x: Tensor<4> = Rng::new(2).uniform([3, 1, 2, 2], 0.0, 1.0, &device);
        let y: Tensor<4> = Rng::new(3).uniform([3, 1, 2, 2], 0.0, 1.0, &device);
        let sampler = VaeSampler::new(&model, &device);
        let message = sampler.reconstruct(x.clone()).unwrap_err().to_string();
        assert!(
            message.contains("`classes` is missing, expected one below 4"),
            "{message}"
        );
        assert!(sampler.latents(x.clone()).is_err());
        assert!(sampler.latent_grid([0, 1], 2).is_err());

        let labels = [2, 0, 3];
        let sampler = sampler
            .with_classes(ClassLabels::PerSample(labels.to_vec()))
            .with_batch_size(2);
        let condition = Condition::classes(&labels, &device);
        let z = model.encode_with(x.clone(), &condition).mean;
        let expected = values(model.decode_with(z.clone(), &condition).mean());
        let latents = sampler.latents(x.clone()).unwrap();
        assert_close(&values(latents), &values(z), 1e-6);
        let reconstructed = sampler.reconstruct(x.clone()).unwrap();
        assert_close(&values(reconstructed), &expected, 1e-6);
        let frames = sampler.interpolate(x, y, 3).unwrap();
        assert_close(&values(frames[0].clone()), &expected, 1e-5);
        let grid = sampler
            .with_classes(ClassLabels::All(1))
            .latent_grid([0, 1], 2);
        assert_eq!(grid.unwrap().dims(), [4, 1, 2, 2]);
    }

    #[test]
    fn batches_are_reconstructed_with_their_labels() {
        let (model, plain, device) = (model(Some(4)), model(None), Device::flex());
        let shape = ImageShape::new(1, 2, 2);
        let batch = images(shape, &[Some(2), Some(0), Some(3)]);
        let x = batch.to_tensor(&device);
        let sampler = VaeSampler::new(&model, &device);
        let found = values(sampler.reconstruct_batch(&batch).unwrap());
        let requested = ClassLabels::PerSample(vec![2, 0, 3]);
        let expected = sampler.clone().with_classes(requested);
        let expected = values(expected.reconstruct(x.clone()).unwrap());
        assert_close(&found, &expected, 0.0);
        let of_plain = VaeSampler::new(&plain, &device);
        assert_close(
            &values(of_plain.reconstruct_batch(&batch).unwrap()),
            &values(of_plain.reconstruct(x).unwrap()),
            0.0,
        );
        for (batch, expected) in [
            (images(shape, &[Some(2), None]), "`labels` is missing"),
            (images(shape, &[Some(4)]), "`labels` is 4, expected below 4"),
            (
                images(ImageShape::new(1, 2, 3), &[Some(0)]),
                "`samples` is 1×2×3",
            ),
        ] {
            let message = sampler.reconstruct_batch(&batch).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn samples_of_another_shape_are_named() {
        let (model, device) = (model(None), Device::flex());
        let x = Tensor::zeros([2, 1, 2, 3], &device);
        let refused = VaeSampler::new(&model, &device).reconstruct(x);
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("`x` is a batch of 1×2×3, expected a batch of 1×2×2"),
            "{message}"
        );
    }

    /// One row of vectors is that of every sample, also of batches; the model would work without.
    #[test]
    fn vectors_and_hidden_states_condition_samples() {
        let device = Device::flex();
        let model = model_with(ConditionKind {
            vector_dim: Some(2),
            cross_attention_dim: Some(5),
            ..ConditionKind::default()
        });
        let vectors: Tensor<2> = Rng::new(4).normal([3, 2], &device);
        let states: Tensor<3> = Rng::new(5).normal([3, 4, 5], &device);
        let condition = |rows: usize| Condition {
            vectors: Some(vectors.clone().narrow(0, 0, rows).repeat_dim(0, 3 / rows)),
            encoder_hidden_states: Some(states.clone().narrow(0, 0, rows).repeat_dim(0, 3 / rows)),
            ..Condition::none()
        };
        let unconditional = model_with(ConditionKind::default());
        let plain = VaeSampler::new(&model, &device).with_batch_size(2);
        let sampler = |rows: usize| {
            (plain.clone())
                .with_vectors(vectors.clone().narrow(0, 0, rows))
                .with_encoder_hidden_states(states.clone().narrow(0, 0, rows))
        };
        let batch = images(ImageShape::new(1, 2, 2), &[None, None, None]);
        let x = batch.to_tensor(&device);
        for rows in [1, 3] {
            let (sampler, condition) = (sampler(rows), condition(rows));
            let z: Tensor<2> = Rng::new(7).normal([3, 3], &device);
            let expected = values(model.decode_with(z, &condition).mean());
            let found = values(sampler.sample(3, 7).unwrap().values);
            assert_close(&found, &expected, 1e-6);
            let z = model.encode_with(x.clone(), &condition).mode();
            let expected = values(model.decode_with(z.clone(), &condition).mean());
            let latents = values(sampler.latents(x.clone()).unwrap());
            assert_close(&latents, &values(z), 1e-6);
            for found in [
                sampler.reconstruct(x.clone()),
                sampler.reconstruct_batch(&batch),
            ] {
                assert_close(&values(found.unwrap()), &expected, 1e-6);
            }
        }
        let message = |sampler: VaeSampler<'_, MlpVae>| {
            let error = sampler.sample(2, 0).unwrap_err();
            assert!(sampler.latent_grid([0, 1], 2).is_err());
            error.to_string()
        };
        let wide = Tensor::zeros([1, 3], &device);
        for (sampler, expected) in [
            (
                plain.clone(),
                "`vectors` is missing, expected of width 2: call `with_vectors`",
            ),
            (
                plain.clone().with_vectors(vectors.clone()),
                "`encoder_hidden_states` is missing, expected of width 5",
            ),
            (
                sampler(3),
                "`vectors` is of 3 samples, expected those of 1 sample or of 2",
            ),
            (
                sampler(1).with_vectors(wide),
                "`vectors` is [1, 3], expected [1, 2]",
            ),
            (
                VaeSampler::new(&unconditional, &device)
                    .with_vectors(vectors.clone().narrow(0, 0, 1)),
                "`vectors` is given, expected none, since the model has no `vector_dim`",
            ),
        ] {
            let found = message(sampler);
            assert!(found.contains(expected), "{found}");
        }
    }

    /// The first axis rises from row to row, the second from column to column.
    #[test]
    fn latent_grid_decodes_its_latents() {
        let (model, device) = (model(None), Device::flex());
        let sampler = VaeSampler::new(&model, &device).with_batch_size(4);
        let found = values(sampler.latent_grid([2, 0], 3).unwrap());
        let steps = [-1.645f32, 0.0, 1.645];
        let z: Vec<f32> = (steps.iter())
            .flat_map(|row| steps.iter().flat_map(|column| [*column, 0.0, *row]))
            .collect();
        let z = Tensor::<2>::from_data(TensorData::new(z, [9, 3]), &device);
        assert_close(&found, &values(model.decode(z).mean()), 1e-6);
    }

    /// An autoencoder of convolutions reconstructs images of other sizes, from tensors and batches.
    #[test]
    fn images_of_accepted_sizes_are_reconstructed() {
        let device = Device::flex();
        let config = AutoencoderKlConfig {
            block_out_channels: vec![4, 8],
            norm_num_groups: 2,
            latent_channels: 2,
            ..AutoencoderKlConfig::new(ImageShape::new(1, 8, 8))
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let batch = images(ImageShape::new(1, 4, 12), &[None]);
        let sampler = VaeSampler::<_, 4, 4>::new(&model, &device);
        let expected = sampler.reconstruct(batch.to_tensor(&device)).unwrap();
        assert_eq!(expected.dims(), [1, 1, 4, 12]);
        let found = sampler.reconstruct_batch(&batch).unwrap();
        assert_close(&values(found), &values(expected), 0.0);
        let two_channels = images(ImageShape::new(2, 8, 8), &[None]);
        let refused = sampler.reconstruct_batch(&two_channels).unwrap_err();
        let message = refused.to_string();
        let expected = "`samples` is 2×8×8, expected a shape that the model accepts, such as 1×8×8";
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn temperature_scales_the_prior() {
        let (plain, device) = (model(None), Device::flex());
        let sampler = VaeSampler::new(&plain, &device);
        let found = sampler.clone().with_temperature(0.5).sample(3, 7).unwrap();
        let z: Tensor<2> = Rng::new(7).normal([3, 3], &device) * 0.5;
        let expected = values(plain.decode(z).mean());
        assert_close(&values(found.values), &expected, 1e-6);
        for temperature in [-1.0, f64::NAN] {
            let refused = sampler.clone().with_temperature(temperature).sample(3, 7);
            let message = refused.unwrap_err().to_string();
            assert!(message.contains("`temperature` is "), "{message}");
        }
        // The mean of the only component, not 0.
        let prior = GaussianMixtureConfig::new(1).init(3, &device).unwrap();
        let model = WithPrior::new(plain.clone(), prior.init_weights(5)).unwrap();
        let sampler = VaeSampler::new(&model, &device).with_temperature(0.0);
        let found = sampler.sample(2, 7).unwrap();
        let mean = model.prior.mean.val().repeat_dim(0, 2);
        let expected: Tensor<4> = model.decode(mean).mean();
        assert_close(&values(found.values), &values(expected), 1e-6);
    }
}
