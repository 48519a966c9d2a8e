//! What sampling starts from: noise, images, noisy images.

use super::{DiffusionSampler, Job, carry::Carried};
use crate::{
    denoiser::Denoiser,
    plan::ModelCall,
    prediction::NoiseLevel,
    scheduler::{DdimInverseScheduler, Scheduler},
};
use aigc_core::{Error, Result, data::ValueRange, latent::slerp, sampling::Samples};
use burn::tensor::Tensor;
use std::ops::Range;

impl<N: Denoiser<D>, const D: usize> DiffusionSampler<'_, N, D> {
    /// Standard normal noise, as [`sample`](Self::sample) starts from it.
    ///
    /// # Shapes
    /// - output: `[n, channels, …]`
    pub fn noise(&self, n: usize, seed: u64) -> Tensor<D> {
        self.start(seed, 0..n)
    }

    /// `n` images.
    ///
    /// If a token or a callback stops sampling, the samples of the batches up to then are returned,
    /// and [`complete`](Samples::complete) is false. If it stops between two calls of a batch, the
    /// values of that batch, the last one, are the predictions x̂₀ of the latest call.
    ///
    /// # Shapes
    /// - values: `[n, channels, …]` in the range of the data
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` is 0, for a class that the network does not have, or for a
    /// setting that does not fit the network; [`Error::Config`] for guidance out of range, or a
    /// scheduler that does not fit the network or the autoencoder; [`Error::Cancelled`] if it was
    /// cancelled before the first call of the network; errors of a [`Guide`](crate::Guide).
    pub fn sample(&self, n: usize, seed: u64) -> Result<Samples<D>> {
        let job = self.job(n, &self.plan, seed)?;
        self.in_batches(job, |job, images| {
            let x = self.start(seed, images.clone()) * self.plan.init_noise_sigma;
            self.carry(x, job, images)
        })
    }

    /// Images of given noise, `[n, channels, …]`, standard normal. `seed` is for the noise that a
    /// scheduler adds on the way, and for the classes.
    ///
    /// # Errors
    /// As [`sample`](Self::sample), or if the noise is not of the sampler's shape.
    pub fn sample_from_noise(&self, noise: &Tensor<D>, seed: u64) -> Result<Samples<D>> {
        let n = self.check_samples(noise, "noise")?;
        let job = self.job(n, &self.plan, seed)?;
        self.in_batches(job, |job, images| {
            let noise = noise.clone().narrow(0, images.start, images.len());
            self.carry(noise * self.plan.init_noise_sigma, job, images)
        })
    }

    /// Image to image (Meng et al. 2022, <https://arxiv.org/abs/2108.01073>): noise is added to
    /// images and removed again. `strength` is the share of the steps that are run, from above 0,
    /// which changes next to nothing, to 1. The scheduler begins there as at its first call
    /// ([`plan_from`](Scheduler::plan_from)).
    ///
    /// # Shapes
    /// - images: `[n, channels, …]` in the range of the data, `[0, 1]` for images
    ///
    /// # Errors
    /// As [`sample`](Self::sample), for a strength out of range, or images of another shape.
    pub fn img2img(&self, images: &Tensor<D>, strength: f64, seed: u64) -> Result<Samples<D>> {
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::argument("strength", strength, "above 0, at most 1"));
        }
        let n = self.check_images(images)?;
        let run = ((self.plan.len() as f64 * strength) as usize).max(1);
        let plan = self.plan_from(self.plan.len() - run)?;
        let originals = images;
        let job = self.job(n, &plan, seed)?;
        self.in_batches(job, |job, images| {
            let noise = self.start(seed, images.clone());
            let x = plan.add_noise(0, self.encode(originals, images.clone()), noise);
            self.carry(x, job, images)
        })
    }

    /// Removes noise of a known standard deviation from images: a noisy image is an intermediate
    /// sample. The standard deviation is that of values in the range of the data, `[0, 1]` for
    /// images. With a scheduler that adds fresh noise (DDPM, DDIM with `eta` 1), the result is
    /// drawn from the posterior of clean images. Noise is added up to the level of the next call
    /// before; with many steps that is next to nothing.
    ///
    /// # Shapes
    /// - images: `[n, channels, …]` in the range of the data, but for the noise
    ///
    /// # Errors
    /// As [`sample`](Self::sample), for an autoencoder, whose latent maps have other noise, for no
    /// noise or more than sampling begins with, and for images of another shape.
    pub fn denoise(&self, images: &Tensor<D>, noise_std: f64, seed: u64) -> Result<Samples<D>> {
        self.without_autoencoder("the noise is in the images")?;
        let n = self.check_images(images)?;
        let ratio = |call: &ModelCall| call.level.sigma / call.level.alpha;
        // How much `ValueRange::normalize` scales values: [0, 1] becomes [−1, 1].
        let scale = match self.space.range {
            ValueRange::Unit => 2.0,
            ValueRange::Symmetric | ValueRange::Unbounded => 1.0,
        };
        let noise = scale * noise_std;
        let calls = &self.plan.calls;
        let at = calls.iter().rposition(|call| ratio(call) >= noise);
        let Some(at) = at.filter(|_| noise > 0.0) else {
            let most = ratio(&calls[0]) / scale;
            return Err(Error::argument(
                "noise_std",
                noise_std,
                format!("above 0, at most {most:.4}"),
            ));
        };
        let plan = self.plan_from(at)?;
        let NoiseLevel { alpha, sigma } = plan.calls[0].level;
        let more = (sigma.powi(2) - (alpha * noise).powi(2)).max(0.0).sqrt();
        let noisy = images;
        let job = self.job(n, &plan, seed)?;
        self.in_batches(job, |job, images| {
            let added = self.start(seed, images.clone()) * more;
            let x = self.encode(noisy, images.clone()) * alpha + added;
            self.carry(x, job, images)
        })
    }

    /// The noise that DDIM generates these images from (Song et al. 2021, section 5.4), for
    /// [`sample_from_noise`](Self::sample_from_noise) of a sampler with the
    /// [`DdimScheduler`](crate::DdimScheduler) that the inverse was made
    /// [from](DdimInverseScheduler::from), and the same seed, which draws the same classes.
    ///
    /// # Shapes
    /// - images and output: `[n, channels, …]`; images in the range of the data
    ///
    /// # Errors
    /// As [`sample`](Self::sample), as the scheduler's plan, for images of another shape, for
    /// guidance or a [`Guide`](crate::Guide), for a scheduler that clips beside an autoencoder;
    /// [`Error::Cancelled`] if it is stopped.
    pub fn invert(
        &self,
        images: &Tensor<D>,
        scheduler: &DdimInverseScheduler,
        steps: usize,
        seed: u64,
    ) -> Result<Tensor<D>> {
        for (argument, given) in [
            ("guide", self.guide.is_some()),
            ("guidance", self.guidance.is_some()),
        ] {
            if given {
                return Err(Error::argument(
                    argument,
                    "given",
                    "none; inversion has no guidance",
                ));
            }
        }
        let n = self.check_images(images)?;
        let plan = scheduler.plan(steps)?;
        let job = self.job(n, &plan, seed)?;
        let mut parts = Vec::new();
        for part in self.options.batches(n)? {
            if self.options.cancel.is_cancelled() {
                return Err(Error::cancelled("inversion"));
            }
            let x = self.encode(images, part.clone());
            let carried = self.carry(x, &job, part)?;
            if carried.stopped {
                return Err(Error::cancelled("inversion"));
            }
            parts.push(carried.x);
        }
        Ok(Tensor::cat(parts, 0))
    }

    /// `frames` images between two noises: along the great arc between them, ends included (Song et
    /// al. 2021, section 5.3). One class for all frames of a pair.
    ///
    /// # Shapes
    /// - from and to: `[pairs, channels, …]`, standard normal
    /// - output: `frames` of `[pairs, channels, …]` in the range of the data
    ///
    /// # Errors
    /// As [`sample_from_noise`](Self::sample_from_noise), or for fewer than two frames;
    /// [`Error::Cancelled`] if it is stopped.
    pub fn interpolate(
        &self,
        from: &Tensor<D>,
        to: &Tensor<D>,
        frames: usize,
        seed: u64,
    ) -> Result<Vec<Tensor<D>>> {
        if frames < 2 {
            return Err(Error::argument("frames", frames, "at least 2"));
        }
        self.check_samples(from, "from")?;
        if from.dims() != to.dims() {
            return Err(Error::argument(
                "to",
                format!("{:?}", to.dims()),
                format!("{:?}, like `from`", from.dims()),
            ));
        }
        let flat_dims = [from.dims()[0], self.shape.numel()];
        let flat = |x: &Tensor<D>| -> Tensor<2> { x.clone().reshape(flat_dims) };
        let at = |k: usize| k as f64 / (frames - 1) as f64;
        let frame = |k: usize| {
            let noise: Tensor<D> = slerp(flat(from), flat(to), at(k)).reshape(from.dims());
            let samples = self.sample_from_noise(&noise, seed)?;
            match samples.complete {
                true => Ok(samples.values),
                false => Err(Error::cancelled("interpolation")),
            }
        };
        (0..frames).map(frame).collect()
    }

    /// For each class in turn `columns` images, which start from the same noise in every class.
    ///
    /// # Errors
    /// As [`sample`](Self::sample), or if there are no columns, or the network has no classes.
    pub fn class_grid(&self, columns: usize, seed: u64) -> Result<Samples<D>> {
        let (Some(real), null_class) = self.class_counts()? else {
            return Err(Error::argument(
                "class_grid",
                "requested",
                "a network with classes",
            ));
        };
        self.validate(&self.plan, null_class)?;
        let classes: Vec<u32> = (0..real as u32)
            .flat_map(|class| vec![class; columns])
            .collect();
        let job = Job {
            plan: &self.plan,
            total: classes.len(),
            classes: Some(classes),
            null_class,
            seed,
        };
        let noise = self.noise(columns, seed);
        self.in_batches(job, |job, images| {
            let one = |i: usize| noise.clone().narrow(0, i % columns, 1);
            let x = Tensor::cat(images.clone().map(one).collect(), 0);
            self.carry(x * self.plan.init_noise_sigma, job, images)
        })
    }

    /// Fails if there is an autoencoder.
    pub(super) fn without_autoencoder(&self, why: &str) -> Result<()> {
        match self.space.latent {
            None => Ok(()),
            Some(_) => Err(Error::argument(
                "autoencoder",
                "given",
                format!("none; {why}"),
            )),
        }
    }

    /// All samples of a job, batch by batch. `carry` takes the samples of a batch to the end. Like
    /// `SamplingOptions::collect`, it fails if it was cancelled before the first batch.
    pub(super) fn in_batches(
        &self,
        job: Job<'_>,
        carry: impl Fn(&Job<'_>, Range<usize>) -> Result<Carried<D>>,
    ) -> Result<Samples<D>> {
        let (mut parts, mut complete, mut count) = (Vec::new(), true, 0);
        for images in self.options.batches(job.total)? {
            if self.options.cancel.is_cancelled() {
                complete = false;
                break;
            }
            count = images.end;
            let carried = carry(&job, images)?;
            parts.push(self.space.decode(carried.x));
            if carried.stopped {
                complete = false;
                break;
            }
        }
        if parts.is_empty() {
            return Err(Error::cancelled("sampling"));
        }
        Ok(Samples {
            values: Tensor::cat(parts, 0),
            labels: job.classes.map(|mut classes| {
                classes.truncate(count);
                classes
            }),
            seed: job.seed,
            complete,
        })
    }
}
