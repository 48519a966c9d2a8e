//! Using what was learned. Nothing here needs autodiff; pictures come out in `[0, 1]`.

use crate::Generator;
use aigc_core::{
    Error, Result,
    data::ClassLabels,
    latent::slerp,
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    rng::Rng,
};
use burn::{
    module::Param,
    tensor::{Device, Int, Tensor, TensorData},
};
use std::collections::BTreeMap;

/// How many samples are made in one forward pass.
const AT_ONCE: usize = 250;

/// Makes pictures with a generator.
///
/// ```no_run
/// # use aigc_gan::{GanSampler, load};
/// # use aigc_core::{device::device, rng::Rng};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let gan = load("runs/digits-gan-1/final".as_ref(), &device)?;
/// let pictures = GanSampler::new(&gan.generator, &device).truncated(2.0)?.sample(64, &mut Rng::new(7))?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct GanSampler<'a, G> {
    generator: &'a G,
    device: Device,
    truncation: Option<f64>,
    classes: ClassLabels,
}

impl<'a, G: Generator> GanSampler<'a, G> {
    /// A sampler without truncation, of any class.
    pub fn new(generator: &'a G, device: &Device) -> Self {
        Self {
            generator,
            device: device.clone(),
            truncation: None,
            classes: ClassLabels::Random,
        }
    }

    /// Draws noise again until each number is within ± `bound`: less variety, more typical samples
    /// (Brock et al. 2019,
    /// <https://arxiv.org/abs/1809.11096>, §3.1).
    ///
    /// # Errors
    /// [`Error::Config`] unless `bound` is at least 0.01.
    pub fn with_truncation(self, bound: f64) -> Result<Self> {
        if bound.is_nan() || bound < 0.01 {
            return Err(Error::config("truncation", bound, "at least 0.01"));
        }
        Ok(Self {
            truncation: Some(bound),
            ..self
        })
    }

    /// Makes these classes.
    pub fn with_classes(self, classes: ClassLabels) -> Self {
        Self { classes, ..self }
    }

    /// Noise for `n` samples, `[n, latent]`.
    pub fn sample_latents(&self, n: usize, rng: &mut Rng) -> Tensor<2> {
        let latent = self.generator.latent_dim();
        let mut values = rng.normal_vec(n * latent);
        if let Some(bound) = self.truncation {
            for value in &mut values {
                while f64::from(value.abs()) > bound {
                    *value = rng.normal_vec(1)[0];
                }
            }
        }
        Tensor::from_data(TensorData::new(values, [n, latent]), &self.device)
    }

    /// `n` pictures.
    ///
    /// # Shapes
    /// - output: `[n, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::Config`] if `n` is 0 or a class is not one of the generator's.
    pub fn sample(&self, n: usize, rng: &mut Rng) -> Result<Tensor<4>> {
        let z = self.sample_latents(n, rng);
        let classes = self.classes.resolve(self.generator.num_classes(), n, rng)?;
        self.decode(z, classes)
    }

    /// Pictures and the classes that were asked for.
    ///
    /// # Errors
    /// [`Error::Config`] as [`sample`](Self::sample), and if the generator has no classes.
    pub fn sample_with_labels(&self, n: usize, rng: &mut Rng) -> Result<(Tensor<4>, Vec<u32>)> {
        let z = self.sample_latents(n, rng);
        let Some(classes) = self.classes.resolve(self.generator.num_classes(), n, rng)? else {
            return Err(Error::config(
                "classes",
                "asked for",
                "nothing; the generator has no classes",
            ));
        };
        Ok((self.decode(z, Some(classes.clone()))?, classes))
    }

    /// A row for each class, of the same noise in each column.
    ///
    /// # Shapes
    /// - output: `[classes·columns, channels, height, width]` in `[0, 1]`, row by row
    ///
    /// # Errors
    /// [`Error::Config`] if there are no columns, or the generator has no classes.
    pub fn class_grid(&self, columns: usize, rng: &mut Rng) -> Result<Tensor<4>> {
        let Some(classes) = self.generator.num_classes() else {
            return Err(Error::config(
                "classes",
                "a grid",
                "nothing; the generator has no classes",
            ));
        };
        let z = self.sample_latents(columns, rng).repeat_dim(0, classes);
        self.decode(
            z,
            Some(
                (0..classes as u32)
                    .flat_map(|class| vec![class; columns])
                    .collect(),
            ),
        )
    }

    /// Pictures on the great arc from noise to noise, each pair at `frames` places, both ends
    /// included.
    ///
    /// # Shapes
    /// - output: `frames` of `[pairs, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::Config`] if there are no pairs or fewer than two frames.
    pub fn interpolate(
        &self,
        pairs: usize,
        frames: usize,
        rng: &mut Rng,
    ) -> Result<Vec<Tensor<4>>> {
        if frames < 2 {
            return Err(Error::config("frames", frames, "at least 2"));
        }
        let (from, to) = (
            self.sample_latents(pairs, rng),
            self.sample_latents(pairs, rng),
        );
        let classes = self
            .classes
            .resolve(self.generator.num_classes(), pairs, rng)?;
        let at = |k: usize| k as f64 / (frames - 1) as f64;
        (0..frames)
            .map(|k| self.decode(slerp(from.clone(), to.clone(), at(k)), classes.clone()))
            .collect()
    }

    /// What the generator makes of `z`.
    ///
    /// # Shapes
    /// - z: `[n, latent]`
    /// - output: `[n, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::Config`] if there is no row, the width is not the generator's, or the classes do
    /// not fit.
    pub fn decode(&self, z: Tensor<2>, classes: Option<Vec<u32>>) -> Result<Tensor<4>> {
        let [n, width] = z.dims();
        if n == 0 {
            return Err(Error::config("n", n, "at least 1"));
        }
        if width != self.generator.latent_dim() {
            return Err(Error::config(
                "z",
                width,
                format!("{} latent dimensions", self.generator.latent_dim()),
            ));
        }
        let classes = match (self.generator.num_classes(), classes) {
            (None, _) => None,
            (Some(count), Some(classes)) => {
                Some(ClassLabels::PerSample(classes).validate(count, n)?)
            }
            (Some(count), None) => {
                return Err(Error::config(
                    "classes",
                    "missing",
                    format!("one below {count} for each sample"),
                ));
            }
        };
        let parts = (0..n).step_by(AT_ONCE).map(|start| {
            let count = AT_ONCE.min(n - start);
            let class = classes.as_ref().map(|classes| {
                let part: Vec<i32> = classes[start..start + count]
                    .iter()
                    .map(|class| *class as i32)
                    .collect();
                Tensor::from_data(TensorData::new(part, [count]), &self.device)
            });
            let made = self
                .generator
                .generate(z.clone().narrow(0, start, count), class);
            ((made + 1.0) * 0.5).clamp(0.0, 1.0)
        });
        Ok(Tensor::cat(parts.collect(), 0))
    }
}

/// The generator with batch normalisation's running statistics measured anew, as means over
/// `passes` batches of `size` samples ("standing statistics": Brock et al. 2019, §4). An averaged
/// generator has the live one's statistics, which are not its own.
///
/// # Errors
/// [`Error::Config`] if there are no passes, or fewer than two samples in one.
pub fn standing_statistics<G: Generator>(
    generator: &G,
    passes: usize,
    size: usize,
    rng: &mut Rng,
    device: &Device,
) -> Result<G> {
    if passes == 0 || size < 2 {
        return Err(Error::config(
            "passes",
            format!("{passes} of {size}"),
            "at least 1 pass of at least 2 samples",
        ));
    }
    let device = device.clone().autodiff();
    // What a pass leaves of statistics that all were `start`.
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
        let z = rng.normal([size, generator.latent_dim()], &device);
        let class = generator.num_classes().map(|classes| {
            let classes: Vec<i32> = (0..size)
                .map(|_| rng.random_index(classes) as i32)
                .collect();
            Tensor::from_data(TensorData::new(classes, [size]), &device)
        });
        // A layer leaves (1 − m)·start + m·batch. Two starts give its momentum m and the batch's
        // own statistics.
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

/// Makes all running statistics one value.
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

/// Puts running statistics in their place.
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
