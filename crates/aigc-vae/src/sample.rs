//! Sampling, reconstruction and interpolation with a trained model.

use crate::Vae;
use aigc_core::{
    CancelToken, Error, Result,
    encoder::Posterior,
    latent::slerp,
    rng::Rng,
    sampling::{BatchProgress, Samples, SamplingOptions},
};
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::ControlFlow;

/// Samples, reconstructs and interpolates with a trained VAE. All results are means of `p(x|z)`.
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
    model: &'a V,
    device: Device,
    options: SamplingOptions<'a, BatchProgress>,
    temperature: f64,
}

impl<'a, V: Vae<X, Z>, const X: usize, const Z: usize> VaeSampler<'a, V, X, Z> {
    /// A sampler with a batch size of 256 and temperature 1.
    pub fn new(model: &'a V, device: &Device) -> Self {
        Self {
            model,
            device: device.clone(),
            options: SamplingOptions::new(256),
            temperature: 1.0,
        }
    }

    /// Sets the factor that latents drawn from the prior are multiplied by. Below 1, samples are
    /// more typical and less varied.
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets the number of samples per pass of the network, which limits the memory of large
    /// requests.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.options.batch_size = batch_size;
        self
    }

    /// Stops between two batches once `cancel` is cancelled.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.options.cancel = cancel;
        self
    }

    /// Calls `callback` after each batch; `ControlFlow::Break` stops sampling.
    pub fn with_callback(
        mut self,
        callback: impl FnMut(&BatchProgress) -> ControlFlow<()> + 'a,
    ) -> Self {
        self.options = self.options.on_progress(callback);
        self
    }

    /// Draws `n` latents from the prior and decodes them. The first samples of a seed are the same
    /// for every `n`.
    ///
    /// # Shapes
    /// - `values` of the output: `[n, …]` of the model's sample shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` or the batch size is 0, or the temperature is negative or
    /// not finite; [`Error::Cancelled`] if cancelled before the first batch.
    pub fn sample(&self, n: usize, seed: u64) -> Result<Samples<X>> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::argument(
                "temperature",
                self.temperature,
                "a finite number, 0 or above",
            ));
        }
        if n == 0 {
            return Err(Error::argument("n", n, "at least 1"));
        }
        let mut rng = Rng::new(seed);
        let z = self.model.sample_prior(n, &mut rng, &self.device) * self.temperature;
        let (values, complete) = self.decode_batches(z)?;
        Ok(Samples {
            values,
            labels: None,
            seed,
            complete,
        })
    }

    /// Reconstructs samples from the mode of their posterior.
    ///
    /// # Shapes
    /// - x and output: `[n, …]` of the model's sample shape; images in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `x` contains no samples; [`Error::Cancelled`] if cancelled.
    ///
    /// # Panics
    /// If the samples do not have the shape of the model's samples.
    pub fn reconstruct(&self, x: Tensor<X>) -> Result<Tensor<X>> {
        let n = x.dims()[0];
        let reconstructed = self.options.collect(n, |batch| {
            let x = x.clone().narrow(0, batch.start, batch.len());
            Ok(self.model.decode(self.model.encode(x).mode()).mean())
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
    /// [`Error::InvalidArgument`] if there are fewer than two frames, or the two batches differ in
    /// shape; [`Error::Cancelled`] if cancelled.
    ///
    /// # Panics
    /// If the samples do not have the shape of the model's samples.
    pub fn interpolate(
        &self,
        from: Tensor<X>,
        to: Tensor<X>,
        frames: usize,
    ) -> Result<Vec<Tensor<X>>> {
        if frames < 2 {
            return Err(Error::argument("frames", frames, "at least 2"));
        }
        if from.dims() != to.dims() {
            return Err(Error::argument(
                "to",
                format!("{:?}", to.dims()),
                format!("{:?}, as `from`", from.dims()),
            ));
        }
        let latent = |x| self.model.encode(x).mode().flatten::<2>(1, Z - 1);
        let (a, b) = (latent(from), latent(to));
        let shape = self.model.latent_shape().batched(a.dims()[0]);
        let at = |k: usize| k as f64 / (frames - 1) as f64;
        (0..frames)
            .map(|k| {
                let z: Tensor<Z> = slerp(a.clone(), b.clone(), at(k)).reshape::<Z, _>(shape);
                complete(self.decode_batches(z)?, "interpolation")
            })
            .collect()
    }

    /// Decodes a grid over two latent dimensions: `side × side` samples, row by row. The dimensions
    /// `axes` cover the central 90 % of a standard normal prior; all others are 0.
    ///
    /// # Shapes
    /// - output: `[side², …]` of the model's sample shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `side` is from 2 to 1024 and both `axes` are latent
    /// dimensions; [`Error::Cancelled`] if cancelled.
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
        let mut z = vec![0.0; side * side * latent];
        for (index, point) in z.chunks_exact_mut(latent).enumerate() {
            point[axes[0]] = at(index / side);
            point[axes[1]] = at(index % side);
        }
        let shape: [usize; Z] = self.model.latent_shape().batched(side * side);
        let z = Tensor::from_data(TensorData::new(z, shape), &self.device);
        complete(self.decode_batches(z)?, "latent grid")
    }

    fn decode_batches(&self, z: Tensor<Z>) -> Result<(Tensor<X>, bool)> {
        self.options.collect(z.dims()[0], |batch| {
            let z = z.clone().narrow(0, batch.start, batch.len());
            Ok(self.model.decode(z).mean())
        })
    }
}

/// The value if it is complete: a part of it would be of no use.
fn complete<T>((value, complete): (T, bool), operation: &str) -> Result<T> {
    match complete {
        true => Ok(value),
        false => Err(Error::cancelled(operation)),
    }
}
