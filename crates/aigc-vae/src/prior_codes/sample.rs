//! Samples of a model with quantised latents: codes drawn from a prior, then decoded.

use super::{CodePrior, PriorCondition};
use crate::{
    DiscreteVae,
    math::uniform,
    sample::{check_shape, complete},
};
use aigc_core::{
    Error, Result,
    data::{ClassLabels, label_tensor},
    rng::Rng,
    sampling::{BatchProgress, Samples, SamplingOptions},
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::ops::Range;

/// Codes, with their classes and seed.
#[derive(Clone, Debug)]
pub struct CodeSamples {
    /// The codes of each level, coarsest first, `[n, positions, codebooks]`; fewer than requested
    /// if sampling was stopped.
    pub levels: Vec<Tensor<3, Int>>,
    /// The class of each sample, of class-conditional priors.
    pub labels: Option<Vec<u32>>,
    /// The seed of the samples.
    pub seed: u64,
    /// Whether all requested samples were drawn.
    pub complete: bool,
}

/// Draws codes from the priors of a model and decodes them. Samples are means of `p(x|z)`.
///
/// Each sample has a separate random stream, keyed by the seed and the index of the sample. The
/// first samples of a seed are therefore the same for any number of samples and any batch size.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_vae::{CodePrior, VqSampler, VqVae2};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let vae = VqVae2::from_pretrained("runs/digits-vq/final", &device)?;
/// let top = CodePrior::from_pretrained("runs/digits-top/final", &device)?;
/// let bottom = CodePrior::from_pretrained("runs/digits-bottom/final", &device)?;
/// let samples = VqSampler::new(&*vae, &[&*top, &*bottom], &device)?
///     .with_top_p(0.95)
///     .sample(64, 7)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct VqSampler<'a, V, const X: usize = 4> {
    model: &'a V,
    priors: Vec<&'a CodePrior>,
    device: Device,
    options: SamplingOptions<'a, BatchProgress>,
    filter: Filter,
    classes: ClassLabels,
}

impl<'a, V: DiscreteVae<X>, const X: usize> VqSampler<'a, V, X> {
    /// A sampler with one prior for each level of codes, coarsest first; with a batch size of 64,
    /// random classes, temperature 1, and all codes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is not one prior for each level, a prior is not over the
    /// codes of its level or is conditioned on other codes than those of the level above, or
    /// class-conditional priors differ in their number of classes.
    pub fn new(model: &'a V, priors: &[&'a CodePrior], device: &Device) -> Result<Self> {
        let shapes = model.code_shapes();
        if priors.len() != shapes.len() {
            let expected = format!("{}, one for each level of codes", shapes.len());
            return Err(Error::argument("priors", priors.len(), expected));
        }
        let mut classes = None;
        for (level, (prior, shape)) in priors.iter().zip(&shapes).enumerate() {
            let config = prior.config();
            if config.codes != *shape {
                let expected = format!("a prior over {shape}, for level {level}");
                return Err(Error::argument("priors", config.codes, expected));
            }
            if let Some(above) = config.above {
                let known = level.checked_sub(1).map(|level| shapes[level]);
                if known != Some(above) {
                    let expected = match known {
                        Some(known) => format!("a prior conditioned on {known}"),
                        None => "a prior without a level above, for level 0".to_string(),
                    };
                    return Err(Error::argument("priors", above, expected));
                }
            }
            match (classes, config.num_classes) {
                (Some(known), Some(count)) if known != count => {
                    let expected = format!("{known} classes, as of another level");
                    return Err(Error::argument("priors", count, expected));
                }
                (None, count) => classes = count,
                _ => (),
            }
        }
        Ok(Self {
            model,
            priors: priors.to_vec(),
            device: device.clone(),
            options: SamplingOptions::new(64),
            filter: Filter::default(),
            classes: ClassLabels::Random,
        })
    }

    /// Sets the divisor of the logits. Below 1, samples are more typical and less varied; at 0, the
    /// most probable code is taken.
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.filter.temperature = temperature;
        self
    }

    /// Draws from the `k` most probable codes only.
    pub fn with_top_k(mut self, k: usize) -> Self {
        self.filter.top_k = Some(k);
        self
    }

    /// Draws from the most probable codes only: the fewest with a total probability of at least
    /// `p`, of those that top-k leaves (Holtzman et al. 2020, <https://arxiv.org/abs/1904.09751>).
    pub fn with_top_p(mut self, p: f64) -> Self {
        self.filter.top_p = p;
        self
    }

    aigc_core::sampling_methods!('a);

    /// Draws the codes of `n` samples, and decodes them.
    ///
    /// # Shapes
    /// - `values` of the output: `[n, …]` of the model's sample shape
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` or the batch size is 0, an option is out of range, or the
    /// priors do not have a requested class; [`Error::Cancelled`] if cancelled before the end of
    /// the first batch.
    pub fn sample(&self, n: usize, seed: u64) -> Result<Samples<X>> {
        let decode = |codes: Vec<Tensor<3, Int>>| self.model.decode_codes(&codes).mean();
        let (parts, labels, complete) = self.draw_batches(n, seed, decode)?;
        let values = Tensor::cat(parts, 0);
        Ok(Samples::new((values, complete), labels, seed))
    }

    /// Draws the codes of `n` samples. [`sample`](Self::sample) decodes the same codes.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn sample_codes(&self, n: usize, seed: u64) -> Result<CodeSamples> {
        let (parts, labels, complete) = self.draw_batches(n, seed, |codes| codes)?;
        let level = |level: usize| {
            let codes = parts.iter().map(|part| part[level].clone());
            Tensor::cat(codes.collect(), 0)
        };
        Ok(CodeSamples {
            levels: (0..self.priors.len()).map(level).collect(),
            labels,
            seed,
            complete,
        })
    }

    /// The log-probability of the codes of samples under the priors, in nats, summed over the
    /// levels. Divided by `−ln 2`, it is the number of bits that the codes of a sample need.
    ///
    /// # Shapes
    /// - x: `[n, …]` of the model's sample shape
    /// - output: `[n]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `x` contains no samples, they do not have the shape of the
    /// model's samples, or the labels of class-conditional priors are missing or do not fit;
    /// [`Error::Cancelled`] if cancelled.
    pub fn log_prob(&self, x: Tensor<X>, labels: Option<&[u32]>) -> Result<Tensor<1>> {
        let n = x.dims()[0];
        check_shape("x", &x, self.model.input_shape())?;
        let labels = ClassLabels::of_given(labels, self.num_classes(), n)?;
        let log_prob = self.options.collect(n, |batch| {
            let x = x.clone().narrow(0, batch.start, batch.len());
            let codes = self.model.encode_codes(x);
            let levels = (0..codes.len()).map(|level| {
                let condition = self.condition(level, &codes, labels.as_deref(), &batch);
                self.priors[level].log_prob_unchecked(codes[level].clone(), &condition)
            });
            Ok(levels.reduce(|a, b| a + b).expect("a model has levels"))
        })?;
        complete(log_prob, "evaluation of codes")
    }

    fn num_classes(&self) -> Option<usize> {
        let mut priors = self.priors.iter();
        priors.find_map(|prior| prior.config().num_classes)
    }

    /// The condition of the prior of a level; `codes` are those of the levels above.
    fn condition(
        &self,
        level: usize,
        codes: &[Tensor<3, Int>],
        labels: Option<&[u32]>,
        batch: &Range<usize>,
    ) -> PriorCondition {
        let config = self.priors[level].config();
        let labels = labels.filter(|_| config.num_classes.is_some());
        PriorCondition {
            class_labels: labels.map(|labels| label_tensor(&labels[batch.clone()], &self.device)),
            above: config.above.map(|_| codes[level - 1].clone()),
        }
    }

    /// Draws `n` samples in batches. Returns what `keep` makes of the codes of each batch, the
    /// labels of the samples that were drawn, and whether they are all.
    fn draw_batches<T>(
        &self,
        n: usize,
        seed: u64,
        keep: impl Fn(Vec<Tensor<3, Int>>) -> T,
    ) -> Result<(Vec<T>, Option<Vec<u32>>, bool)> {
        self.filter.validate()?;
        let mut rng = Rng::stream(seed, "vq/classes", 0);
        let mut labels = self.classes.resolve(self.num_classes(), n, &mut rng)?;
        let (parts, done) = self.options.collect_parts(n, |batch| {
            Ok(self.draw(&batch, labels.as_deref(), seed).map(&keep))
        })?;
        if let Some(labels) = &mut labels {
            labels.truncate(done);
        }
        Ok((parts, labels, done == n))
    }

    /// Draws the codes of a batch, level by level; `None` if cancelled.
    fn draw(
        &self,
        batch: &Range<usize>,
        labels: Option<&[u32]>,
        seed: u64,
    ) -> Option<Vec<Tensor<3, Int>>> {
        let mut levels: Vec<Tensor<3, Int>> = Vec::new();
        for (level, prior) in self.priors.iter().enumerate() {
            let shape = prior.config().codes;
            let (rows, n) = (batch.len(), shape.num_indices());
            let condition = self.condition(level, &levels, labels, batch);
            let purpose = format!("vq/codes/{level}");
            let mut streams: Vec<Rng> = batch
                .clone()
                .map(|index| Rng::stream(seed, &purpose, index as u64))
                .collect();
            let mut decoder = prior.decoder(rows, &condition);
            let mut codes = vec![0i32; rows * n];
            let mut previous = None;
            for at in 0..n {
                if self.options.cancel.is_cancelled() {
                    return None;
                }
                let logits = decoder.next_logits(previous);
                let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
                let rows_of_logits = logits.chunks_exact(shape.num_codes);
                let drawn: Vec<i32> = rows_of_logits
                    .zip(&mut streams)
                    .map(|(logits, rng)| self.filter.draw(logits, rng) as i32)
                    .collect();
                for (row, code) in drawn.iter().enumerate() {
                    codes[row * n + at] = *code;
                }
                let drawn = TensorData::new(drawn, [rows]);
                previous = Some(Tensor::from_data(drawn, &self.device));
            }
            let codes = TensorData::new(codes, [rows, shape.positions(), shape.codebooks]);
            levels.push(Tensor::from_data(codes, &self.device));
        }
        Some(levels)
    }
}

/// Which codes are drawn from, and how probable they become.
#[derive(Clone, Copy, Debug)]
struct Filter {
    temperature: f64,
    top_k: Option<usize>,
    top_p: f64,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
        }
    }
}

impl Filter {
    fn validate(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let expected = "a finite number, 0 or above";
            return Err(Error::argument("temperature", self.temperature, expected));
        }
        if self.top_k == Some(0) {
            return Err(Error::argument("top_k", 0, "at least 1"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let expected = "a number above 0, at most 1";
            return Err(Error::argument("top_p", self.top_p, expected));
        }
        Ok(())
    }

    /// Draws a code.
    fn draw(&self, logits: &[f32], rng: &mut Rng) -> usize {
        let best = |best: usize, (index, logit): (usize, &f32)| match *logit > logits[best] {
            true => index,
            false => best,
        };
        let best = logits.iter().enumerate().fold(0, best);
        if self.temperature == 0.0 {
            return best;
        }
        let largest = f64::from(logits[best]);
        let weight = |logit: &f32| ((f64::from(*logit) - largest) / self.temperature).exp();
        let mut weights: Vec<f64> = logits.iter().map(weight).collect();
        let top_k = self.top_k.unwrap_or(usize::MAX);
        if top_k < weights.len() || self.top_p < 1.0 {
            self.leave_top(&mut weights, top_k);
        }
        let total: f64 = weights.iter().sum();
        let mut left = uniform(rng) * total;
        for (code, weight) in weights.iter().enumerate() {
            if *weight > 0.0 {
                left -= weight;
                if left < 0.0 {
                    return code;
                }
            }
        }
        // Rounding can leave a remainder after the last code.
        best
    }

    /// Sets the weights of all codes but the most probable ones to 0.
    fn leave_top(&self, weights: &mut [f64], top_k: usize) {
        let mut order: Vec<usize> = (0..weights.len()).collect();
        // A stable sort: of equal weights, the first come first.
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
        let kept = &order[..top_k.min(order.len())];
        let total: f64 = kept.iter().map(|code| weights[*code]).sum();
        let mut sum = 0.0;
        let mut count = kept.len();
        if self.top_p < 1.0 {
            for (index, code) in kept.iter().enumerate() {
                sum += weights[*code];
                if sum >= self.top_p * total {
                    count = index + 1;
                    break;
                }
            }
        }
        order[count..].iter().for_each(|code| weights[*code] = 0.0);
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{CodePriorConfig, CodeShape, FiniteScalarQuantizerConfig, VqVae2, VqVae2Config};
    use aigc_core::{
        CancelToken,
        data::ImageShape,
        rng::InitWeights,
        testing::{assert_close, values},
    };
    use std::ops::ControlFlow;

    fn model() -> VqVae2 {
        let config = VqVae2Config {
            channels: 4,
            residual_blocks: 0,
            top: FiniteScalarQuantizerConfig::new(&[3, 2]).into(),
            bottom: FiniteScalarQuantizerConfig::new(&[4, 2]).into(),
            ..VqVae2Config::new(ImageShape::new(1, 8, 8))
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    fn configs(model: &VqVae2) -> [CodePriorConfig; 2] {
        let shapes = model.code_shapes();
        let tiny = |codes: CodeShape| CodePriorConfig {
            d_model: 16,
            n_layer: 1,
            n_head: 2,
            above_blocks: 0,
            ..CodePriorConfig::new(codes)
        };
        let top = CodePriorConfig {
            num_classes: Some(3),
            ..tiny(shapes[0])
        };
        let bottom = CodePriorConfig {
            above: Some(shapes[0]),
            ..tiny(shapes[1])
        };
        [top, bottom]
    }

    fn init(config: &CodePriorConfig) -> CodePrior {
        config.init(&Device::flex()).unwrap().init_weights(2)
    }

    fn indices(codes: &Tensor<3, Int>) -> Vec<i64> {
        codes.to_data().iter::<i64>().collect()
    }

    /// Frequencies of codes are the filtered probabilities.
    #[test]
    fn draws_follow_the_filtered_probabilities() {
        let p = [0.1f64, 0.4, 0.2, 0.3];
        let logits = p.map(|p| p.ln() as f32 + 7.0);
        let n = 20_000;
        let filter = Filter::default();
        for (filter, expected) in [
            (filter, p),
            (
                Filter {
                    temperature: 0.0,
                    ..filter
                },
                [0.0, 1.0, 0.0, 0.0],
            ),
            (
                Filter {
                    temperature: 0.5,
                    ..filter
                },
                // Squares over 0.30.
                p.map(|p| p * p / 0.3),
            ),
            (
                Filter {
                    top_k: Some(2),
                    ..filter
                },
                [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0],
            ),
            (
                Filter {
                    top_p: 0.75,
                    ..filter
                },
                [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0],
            ),
            (
                // Of the three that top-k leaves, the first two have 7/9.
                Filter {
                    top_k: Some(3),
                    top_p: 0.75,
                    ..filter
                },
                [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0],
            ),
            (
                Filter {
                    top_p: 1e-9,
                    ..filter
                },
                [0.0, 1.0, 0.0, 0.0],
            ),
        ] {
            let mut counts = [0.0f64; 4];
            let mut rng = Rng::new(3);
            for _ in 0..n {
                counts[filter.draw(&logits, &mut rng)] += 1.0 / f64::from(n);
            }
            for (found, p) in counts.iter().zip(expected) {
                // Five standard deviations.
                let tolerance = 5.0 * (p * (1.0 - p) / f64::from(n)).sqrt() + 1e-9;
                assert!((found - p).abs() <= tolerance, "{filter:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn first_samples_do_not_depend_on_their_number() {
        let model = model();
        let [top, bottom] = configs(&model).map(|config| init(&config));
        let device = Device::flex();
        let sampler = VqSampler::new(&model, &[&top, &bottom], &device).unwrap();
        let all = sampler
            .clone()
            .with_batch_size(5)
            .sample_codes(5, 9)
            .unwrap();
        assert_eq!(all.levels[0].dims(), [5, 4, 1]);
        assert_eq!(all.levels[1].dims(), [5, 16, 1]);
        assert!(all.complete && all.labels.as_ref().unwrap().len() == 5);
        let few = sampler
            .clone()
            .with_batch_size(2)
            .sample_codes(3, 9)
            .unwrap();
        for (all, few) in all.levels.iter().zip(&few.levels) {
            assert_eq!(indices(&all.clone().narrow(0, 0, 3)), indices(few));
        }
        assert_eq!(all.labels.as_ref().unwrap()[..3], few.labels.unwrap());
        let other = sampler.sample_codes(5, 10).unwrap();
        assert_ne!(indices(&other.levels[1]), indices(&all.levels[1]));
        // Samples are the decoded codes.
        let samples = sampler.with_batch_size(4).sample(5, 9).unwrap();
        assert_eq!(samples.values.dims(), [5, 1, 8, 8]);
        let decoded = model.decode_codes(&all.levels).mean();
        assert_close(&values(samples.values), &values(decoded), 1e-5);
    }

    #[test]
    fn sampling_stops_between_batches() {
        let model = model();
        let [top, bottom] = configs(&model).map(|config| init(&config));
        let device = Device::flex();
        let sampler = VqSampler::new(&model, &[&top, &bottom], &device)
            .unwrap()
            .with_batch_size(2)
            .with_classes(ClassLabels::All(1));
        let cancel = CancelToken::new();
        cancel.cancel();
        let cancelled = sampler.clone().with_cancel(cancel).sample(7, 0);
        assert!(matches!(cancelled, Err(Error::Cancelled { .. })));
        let mut seen = Vec::new();
        let stopped = sampler
            .with_callback(|progress| {
                seen.push(progress.done);
                match progress.done {
                    4 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })
            .sample(7, 0)
            .unwrap();
        assert_eq!(seen, [2, 4]);
        assert_eq!((stopped.values.dims()[0], stopped.complete), (4, false));
        assert_eq!(stopped.labels.unwrap(), [1; 4]);
    }

    /// The log-probability of codes is the sum over the levels.
    #[test]
    fn log_prob_is_that_of_all_levels() {
        let model = model();
        let [top, bottom] = configs(&model).map(|config| init(&config));
        let device = Device::flex();
        let x = Rng::new(4).uniform([3, 1, 8, 8], 0.0, 1.0, &device);
        let sampler = VqSampler::new(&model, &[&top, &bottom], &device)
            .unwrap()
            .with_batch_size(2);
        let labels = [2, 0, 1];
        let found = values(sampler.log_prob(x.clone(), Some(&labels)).unwrap());
        let codes = model.encode_codes(x.clone());
        let first = top.log_prob(
            codes[0].clone(),
            &PriorCondition {
                class_labels: Some(label_tensor(&labels, &device)),
                above: None,
            },
        );
        let second = bottom.log_prob(
            codes[1].clone(),
            &PriorCondition {
                class_labels: None,
                above: Some(codes[0].clone()),
            },
        );
        assert_close(&found, &values(first + second), 1e-4);
        let message = sampler.log_prob(x, None).unwrap_err().to_string();
        assert!(message.contains("`labels` is missing"), "{message}");
        let narrow = Tensor::zeros([3, 1, 8, 4], &device);
        let message = sampler.log_prob(narrow, Some(&labels)).unwrap_err();
        let message = message.to_string();
        assert!(
            message.contains("`x` is a batch of 1×8×4, expected a batch of 1×8×8"),
            "{message}"
        );
    }

    #[test]
    fn priors_and_options_that_do_not_fit_are_named() {
        let model = model();
        let device = Device::flex();
        let [top_config, bottom_config] = configs(&model);
        let [top, bottom] = [&top_config, &bottom_config].map(init);
        let without = init(&CodePriorConfig {
            above: None,
            num_classes: Some(4),
            ..bottom_config.clone()
        });
        let wrong = init(&CodePriorConfig {
            above: Some(bottom_config.codes),
            ..bottom_config
        });
        let message = |priors: &[&CodePrior]| match VqSampler::new(&model, priors, &device) {
            Ok(_) => "fits".to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(message(&[&top, &bottom]), "fits");
        for (priors, expected) in [
            (&[&top][..], "`priors` is 1, expected 2, one for each level"),
            (&[&bottom, &top], "expected a prior over 2×2×1 codes of 6"),
            (&[&top, &wrong], "expected a prior conditioned on 2×2×1"),
            (&[&top, &without], "`priors` is 4, expected 3 classes"),
        ] {
            let found = message(priors);
            assert!(found.contains(expected), "{found}");
        }
        let sampler = || VqSampler::new(&model, &[&top, &bottom], &device).unwrap();
        for (sampler, n, expected) in [
            (sampler(), 0, "`n` is 0"),
            (sampler().with_batch_size(0), 1, "`batch_size` is 0"),
            (sampler().with_temperature(-1.0), 1, "`temperature` is -1"),
            (sampler().with_top_k(0), 1, "`top_k` is 0"),
            (sampler().with_top_p(1.5), 1, "`top_p` is 1.5"),
            (
                sampler().with_classes(ClassLabels::All(3)),
                1,
                "`classes` is 3, expected below 3",
            ),
        ] {
            let message = sampler.sample(n, 0).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
