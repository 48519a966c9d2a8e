//! Sampling from a trained generator, without autodiff.

use crate::Generator;
use aigc_core::{
    Error, Result,
    data::{ClassLabels, label_tensor},
    latent::slerp,
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    rng::Rng,
    sampling::{BatchProgress, Samples, SamplingOptions},
};
use burn::{
    module::Param,
    tensor::{Device, Int, Tensor, TensorData},
};
use std::collections::BTreeMap;

/// Samples from a generator. Values are in the [range](Generator::value_range) of the data: images
/// in `[0, 1]`.
///
/// Each sample has a separate noise stream, keyed by the seed and the index of the sample. The
/// first samples of a seed are therefore the same for any number of samples and any batch size.
///
/// ```no_run
/// # use aigc_gan::{AnyGan, GanSampler};
/// # use aigc_core::device::device;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let gan = AnyGan::from_pretrained("runs/digits-gan-1/final", &device)?;
/// let samples = GanSampler::new(&gan.generator, &device).with_truncation(2.0).sample(64, 7)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct GanSampler<'a, G, const D: usize = 4> {
    generator: &'a G,
    device: Device,
    options: SamplingOptions<'a, BatchProgress>,
    truncation: Option<f64>,
    classes: ClassLabels,
}

impl<'a, G: Generator<D>, const D: usize> GanSampler<'a, G, D> {
    /// A sampler with a batch size of 250, random classes and no truncation.
    pub fn new(generator: &'a G, device: &Device) -> Self {
        Self {
            generator,
            device: device.clone(),
            options: SamplingOptions::new(250),
            truncation: None,
            classes: ClassLabels::Random,
        }
    }

    /// Draws noise values outside `[−bound, bound]` again; `bound` is at least 0.01. Samples become
    /// less varied and more typical (Brock et al. 2019, <https://arxiv.org/abs/1809.11096>, §3.1).
    pub fn with_truncation(mut self, bound: f64) -> Self {
        self.truncation = Some(bound);
        self
    }

    aigc_core::sampling_methods!('a);

    /// The noise of the first `n` samples of `seed`.
    ///
    /// # Shapes
    /// - output: `[n, latent_dim]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` is 0 or the truncation is below 0.01.
    pub fn sample_latents(&self, n: usize, seed: u64) -> Result<Tensor<2>> {
        self.latents("gan/noise", n, seed)
    }

    fn latents(&self, purpose: &str, n: usize, seed: u64) -> Result<Tensor<2>> {
        if n == 0 {
            return Err(Error::argument("n", n, "at least 1"));
        }
        if let Some(bound) = self.truncation
            && (bound.is_nan() || bound < 0.01)
        {
            return Err(Error::argument("truncation", bound, "at least 0.01"));
        }
        let latent_dim = self.generator.latent_dim();
        let mut values = Vec::with_capacity(n * latent_dim);
        for index in 0..n {
            let mut rng = Rng::stream(seed, purpose, index as u64);
            let mut noise = rng.normal_vec(latent_dim);
            if let Some(bound) = self.truncation {
                for value in &mut noise {
                    while f64::from(value.abs()) > bound {
                        *value = rng.normal_vec(1)[0];
                    }
                }
            }
            values.extend(noise);
        }
        let values = TensorData::new(values, [n, latent_dim]);
        Ok(Tensor::from_data(values, &self.device))
    }

    fn labels(&self, n: usize, seed: u64) -> Result<Option<Vec<u32>>> {
        let mut rng = Rng::stream(seed, "gan/classes", 0);
        self.classes
            .resolve(self.generator.num_classes(), n, &mut rng)
    }

    /// Draws `n` samples, with their classes if the generator is class-conditional.
    ///
    /// # Shapes
    /// - `values` of the output: `[n, …]` of the generator's sample shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` or the batch size is 0, the truncation is below 0.01, or
    /// the generator does not have a requested class; [`Error::Cancelled`] if cancelled before the
    /// first batch.
    pub fn sample(&self, n: usize, seed: u64) -> Result<Samples<D>> {
        let z = self.sample_latents(n, seed)?;
        let labels = self.labels(n, seed)?;
        let drawn = self.generate_batches(z, labels.as_deref())?;
        Ok(Samples::new(drawn, labels, seed))
    }

    /// A grid with one row per class, and the same noise within a column.
    ///
    /// # Shapes
    /// - `values` of the output: `[num_classes·columns, …]` of the generator's sample shape, row by
    ///   row
    ///
    /// # Errors
    /// As [`sample`](Self::sample); [`Error::Unsupported`] for a generator without classes.
    pub fn class_grid(&self, columns: usize, seed: u64) -> Result<Samples<D>> {
        let Some(classes) = self.generator.num_classes() else {
            return Err(Error::unsupported(
                "a class grid",
                "a generator without classes",
                "use `sample`",
            ));
        };
        let z = self.sample_latents(columns, seed)?.repeat_dim(0, classes);
        let labels = (0..classes as u32).flat_map(|class| vec![class; columns]);
        let labels: Vec<u32> = labels.collect();
        let drawn = self.generate_batches(z, Some(&labels))?;
        Ok(Samples::new(drawn, Some(labels), seed))
    }

    /// Interpolates between pairs of noise vectors along the great arc, in `frames` frames with
    /// both ends. The first frame contains the samples of [`sample`](Self::sample).
    ///
    /// # Shapes
    /// - output: `frames` tensors `[pairs, …]` of the generator's sample shape
    ///
    /// # Errors
    /// As [`sample`](Self::sample); [`Error::InvalidArgument`] for fewer than two frames.
    pub fn interpolate(&self, pairs: usize, frames: usize, seed: u64) -> Result<Vec<Tensor<D>>> {
        if frames < 2 {
            return Err(Error::argument("frames", frames, "at least 2"));
        }
        let from = self.sample_latents(pairs, seed)?;
        let to = self.latents("gan/interpolate", pairs, seed)?;
        let labels = self.labels(pairs, seed)?;
        let at = |k: usize| k as f64 / (frames - 1) as f64;
        (0..frames)
            .map(|k| self.generate(slerp(from.clone(), to.clone(), at(k)), labels.as_deref()))
            .collect()
    }

    /// Generates samples from the noise `z`.
    ///
    /// # Shapes
    /// - z: `[n, latent_dim]`
    /// - output: `[n, …]` of the generator's sample shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` is 0, the width of `z` is not the number of latent
    /// dimensions, or labels are missing or do not fit; [`Error::Cancelled`] if cancelled.
    pub fn generate(&self, z: Tensor<2>, labels: Option<&[u32]>) -> Result<Tensor<D>> {
        match self.generate_batches(z, labels)? {
            (values, true) => Ok(values),
            _ => Err(Error::cancelled("sampling")),
        }
    }

    fn generate_batches(&self, z: Tensor<2>, labels: Option<&[u32]>) -> Result<(Tensor<D>, bool)> {
        let [n, width] = z.dims();
        if width != self.generator.latent_dim() {
            return Err(Error::argument(
                "z",
                width,
                format!("{} latent dimensions", self.generator.latent_dim()),
            ));
        }
        let labels = ClassLabels::of_given(labels, self.generator.num_classes(), n)?;
        let range = self.generator.value_range();
        self.options.collect(n, |batch| {
            let z = z.clone().narrow(0, batch.start, batch.len());
            let class = labels
                .as_ref()
                .map(|labels| label_tensor(&labels[batch], &self.device));
            Ok(range.denormalize(self.generator.generate(z, class)))
        })
    }
}

/// Recomputes the running statistics of the generator's batch normalisations, as means over
/// `passes` batches of `batch_size` samples ("standing statistics": Brock et al. 2019, §4). The
/// noise is drawn from `seed`.
///
/// A generator with averaged weights has copies of the running statistics of the trained generator,
/// which do not fit its weights.
///
/// # Errors
/// [`Error::InvalidArgument`] if `passes` is 0, or `batch_size` is below 2.
pub fn standing_statistics<G: Generator<D>, const D: usize>(
    generator: &G,
    passes: usize,
    batch_size: usize,
    seed: u64,
    device: &Device,
) -> Result<G> {
    for (argument, value, least) in [("passes", passes, 1), ("batch_size", batch_size, 2)] {
        if value < least {
            return Err(Error::argument(
                argument,
                value,
                format!("at least {least}"),
            ));
        }
    }
    let mut rng = Rng::stream(seed, "standing", 0);
    let device = device.clone().autodiff();
    // Running statistics after one pass that starts with all of them at `start`.
    let pass = |start: f64, z: &Tensor<2>, class: &Option<Tensor<1, Int>>| {
        let live = map_params(generator.valid(), &mut Fill(start))
            .train()
            .no_grad();
        live.generate(z.clone(), class.clone());
        let mut statistics = Statistics::default();
        visit_params(&live.valid(), &mut statistics);
        statistics.0
    };
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..passes {
        let z = rng.normal([batch_size, generator.latent_dim()], &device);
        let class = generator.num_classes().map(|classes| {
            let classes: Vec<u32> = (0..batch_size)
                .map(|_| rng.random_index(classes) as u32)
                .collect();
            label_tensor(&classes, &device)
        });
        // After a pass a statistic is (1 − m)·start + m·batch. Two starts give its momentum m and
        // the statistic of the batch.
        let (from_zero, from_one) = (pass(0.0, &z, &class), pass(1.0, &z, &class));
        for (path, zero) in from_zero {
            let sum = sums
                .entry(path.clone())
                .or_insert_with(|| vec![0.0; zero.len()]);
            for ((sum, zero), one) in sum.iter_mut().zip(zero).zip(&from_one[&path]) {
                let momentum = (1.0 - (one - zero)).max(1e-6);
                *sum += zero / momentum / passes as f64;
            }
        }
    }
    Ok(map_params(generator.valid(), &mut Set(sums)))
}

fn is_statistic(path: &str) -> bool {
    path.ends_with("running_mean") || path.ends_with("running_var")
}

/// Sets all running statistics to one value.
struct Fill(f64);

impl ParamMapper for Fill {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if is_statistic(path) {
            param.map(|tensor| tensor.full_like(self.0))
        } else {
            param
        }
    }
}

/// Running statistics by path.
#[derive(Default)]
struct Statistics(BTreeMap<String, Vec<f64>>);

impl ParamVisitor for Statistics {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if is_statistic(path) {
            self.0.insert(
                path.to_string(),
                param.val().into_data().iter::<f64>().collect(),
            );
        }
    }
}

/// Sets running statistics by path.
struct Set(BTreeMap<String, Vec<f64>>);

impl ParamMapper for Set {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.0.remove(path) else {
            return param;
        };
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        param.map(|tensor| {
            Tensor::from_data(TensorData::new(values, tensor.dims()), &tensor.device())
        })
    }
}
