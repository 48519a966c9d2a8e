//! How probable a model finds images, in bits per dimension.
//!
//! Images are of 256 values; `x₀` in `[−1, 1]` is the middle of a bin. Two bounds from above on
//! `−log₂ p(x₀)`, each of one draw of noise for each image:
//!
//! - [`BitsPerDim::variational_bound`]: the variational bound of the steps themselves (Ho et al.
//!   2020, equation 5);
//! - [`BitsPerDim::probability_flow`]: by the probability flow (Song et al. 2021,
//!   <https://arxiv.org/abs/2011.13456>, section 4.3), which carries densities exactly from the
//!   first noise level to the last; the first level is reached by noise, whose entropy is known,
//!   and left by the same decoder as in the other bound.

use crate::{
    denoiser::{Conditioning, Denoiser, check_sample_is_input},
    grid::SigmaTable,
    guidance::differentiable,
    objective::combine,
    prediction::{NoiseLevel, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::{
    Error, Result,
    data::{ImageBatch, ValueRange},
    rng::Rng,
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::{
    f64::consts::{LN_2, PI},
    ops::Range,
};

/// Measures how probable a network of a variance-preserving process in steps finds images.
#[derive(Clone, Debug)]
pub struct BitsPerDim<'a, D> {
    network: &'a D,
    alphas: Vec<f64>,
    prediction: PredictionType,
    device: Device,
}

impl<'a, D: Denoiser> BitsPerDim<'a, D> {
    /// For a network that was trained with this noise and prediction.
    ///
    /// # Errors
    /// [`Error::Config`] for noise that is out of range, or a prediction that is not defined there.
    pub fn new(
        network: &'a D,
        noise: &NoiseScheduleConfig,
        prediction: PredictionType,
        device: &Device,
    ) -> Result<Self> {
        let alphas = noise.alphas_cumprod()?;
        for alpha in &alphas {
            prediction.coefficients(NoiseLevel::variance_preserving(*alpha))?;
        }
        Ok(Self {
            network,
            alphas,
            prediction,
            device: device.clone(),
        })
    }

    /// An upper bound on the bits per dimension of each image: the Kullback–Leibler divergences of
    /// all steps, with the posterior's variances, and the first step's decoder.
    ///
    /// The divergences are estimated from at most `terms` steps. The steps are divided into at most
    /// `terms` parts, evenly in the logarithm of the signal-to-noise ratio, and one step of each
    /// part is drawn for each image. If `terms` is the number of steps, all steps are evaluated.
    ///
    /// `classes`: the class of each image, for a class-conditional network.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `terms` is 0 or more than there are steps, or images or
    /// classes do not fit the network.
    pub fn variational_bound(
        &self,
        batch: &ImageBatch,
        classes: Option<&[u32]>,
        terms: usize,
        rng: &mut Rng,
    ) -> Result<Vec<f64>> {
        let steps = self.alphas.len();
        if !(1..=steps).contains(&terms) {
            return Err(Error::argument(
                "terms",
                terms,
                format!("1 to {steps}, the steps"),
            ));
        }
        let (x0, class) = self.ready(batch, classes)?;
        let snr = |step: usize| self.alphas[step] / (1.0 - self.alphas[step]);
        // The last step against the standard normal (the divergence of two normals).
        let last = self.alphas[steps - 1];
        let constant = 0.5 * (-(1.0 - last).ln() - last);
        let squares = per_image(&(x0.clone() * x0.clone()));
        let width = (x0.dims()[1] * x0.dims()[2] * x0.dims()[3]) as f64;
        let mut nats: Vec<f64> = squares
            .iter()
            .map(|square| 0.5 * last * square + constant * width)
            .collect();
        let mut add = |more: Vec<f64>| {
            nats.iter_mut()
                .zip(more)
                .for_each(|(sum, more)| *sum += more)
        };
        add(self.decoder(&x0, &class, rng));
        for part in parts(&self.alphas, terms) {
            let drawn: Vec<usize> = (0..batch.len())
                .map(|_| part.start + rng.random_index(part.len()))
                .collect();
            let noise = rng.normal(x0.dims(), &self.device);
            let error = self.clean(&x0, noise, &drawn, &class) - x0.clone();
            // Equation 8, in terms of x₀: half the difference of the signal-to-noise ratios (Kingma
            // et al. 2021).
            let weight = |step: &usize| 0.5 * (snr(step - 1) - snr(*step)) * part.len() as f64;
            let squares = per_image(&(error.clone() * error));
            add(squares
                .into_iter()
                .zip(&drawn)
                .map(|(square, step)| square * weight(step))
                .collect());
        }
        Ok(nats.into_iter().map(|nats| nats / width / LN_2).collect())
    }

    /// An upper bound on the bits per dimension of each image by the probability flow, in `steps`
    /// steps of Heun's method evenly in the logarithm of `σ/α`; the divergence is estimated with
    /// one random direction (Hutchinson 1989).
    ///
    /// `classes`: the class of each image, for a class-conditional network.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no steps, or images or classes do not fit the
    /// network.
    pub fn probability_flow(
        &self,
        batch: &ImageBatch,
        classes: Option<&[u32]>,
        steps: usize,
        rng: &mut Rng,
    ) -> Result<Vec<f64>> {
        if steps == 0 {
            return Err(Error::argument("steps", steps, "at least 1"));
        }
        let (x0, class) = self.ready(batch, classes)?;
        let width = (x0.dims()[1] * x0.dims()[2] * x0.dims()[3]) as f64;
        let sigma = NoiseLevel::variance_preserving(self.alphas[0]);
        let first = sigma.sigma / sigma.alpha;
        let decoder = self.decoder(&x0, &class, rng);
        let y = x0.clone() + rng.normal(x0.dims(), &self.device) * first;
        let density = self.log_density(y, &class, steps, rng);
        // −E[ln p(x₀|y)] − E[ln p(y)] + E[ln q(y|x₀)], the last minus a normal's entropy.
        let entropy = 0.5 * width * (1.0 + (2.0 * PI * first * first).ln());
        Ok(decoder
            .iter()
            .zip(density)
            .map(|(d, p)| (d - p - entropy) / width / LN_2)
            .collect())
    }

    /// `ln p(y)` of samples at the first noise level, `y = x₀ + σ/α·ε`.
    fn log_density(
        &self,
        mut y: Tensor<4>,
        class: &Option<Tensor<1, Int>>,
        steps: usize,
        rng: &mut Rng,
    ) -> Vec<f64> {
        let table = SigmaTable::new(&self.alphas);
        let live = differentiable(self.network);
        let (from, to) = (table.min().ln(), table.max().ln());
        let h = (to - from) / steps as f64;
        let mut log = vec![0.0; y.dims()[0]];
        for k in 0..steps {
            let u = from + h * k as f64;
            // Signs of a fair coin.
            let values: Vec<f32> = rng.uniform_vec(y.shape().num_elements(), -1.0, 1.0);
            let signs = values.into_iter().map(f32::signum).collect();
            let direction = Tensor::from_data(TensorData::new(signs, y.dims()), &self.device);
            let at =
                |y: Tensor<4>, u: f64| self.slope(&live, y, u.exp(), &table, class, &direction);
            let (first, divergence) = at(y.clone(), u);
            let (second, later) = at(y.clone() + first.clone() * h, u + h);
            y = y + (first + second) * (0.5 * h);
            for (log, (a, b)) in log.iter_mut().zip(divergence.iter().zip(later)) {
                *log += 0.5 * h * (a + b);
            }
        }
        // All that is left at the end is noise, x ~ N(0, I), y = x/α.
        let alpha = self.alphas[self.alphas.len() - 1].sqrt();
        let width = y.shape().num_elements() / y.dims()[0];
        let normal = 0.5 * width as f64 * (2.0 * PI / (alpha * alpha)).ln();
        let squares = per_image(&(y.clone() * y));
        log.iter()
            .zip(squares)
            .map(|(log, square)| log - 0.5 * square * alpha * alpha - normal)
            .collect()
    }

    /// `dy/d ln s = s·ε̂` and its divergence along a direction, for `y = x/α` and `s = σ/α`.
    fn slope(
        &self,
        live: &D,
        y: Tensor<4>,
        s: f64,
        table: &SigmaTable,
        class: &Option<Tensor<1, Int>>,
        direction: &Tensor<4>,
    ) -> (Tensor<4>, Vec<f64>) {
        let level = NoiseLevel::preserving_ratio(s);
        let (a, b) = self
            .prediction
            .coefficients(level)
            .expect("read at every level before")
            .epsilon;
        let leaf = y.autodiff().require_grad();
        let x = leaf.clone() * level.alpha;
        let channels = x.dims()[1];
        let time = Tensor::full([x.dims()[0]], table.time(s), &x.device());
        let condition = Conditioning {
            class_labels: class.clone().map(Tensor::autodiff),
            ..Conditioning::default()
        };
        let output = live
            .predict(x.clone(), time, &condition)
            .narrow(1, 0, channels);
        let slope = (x * a + output * b) * s;
        let along = (slope.clone() * direction.clone().autodiff()).sum();
        let gradient = leaf
            .grad(&along.backward())
            .expect("the slope depends on the sample");
        (slope.inner(), per_image(&(gradient * direction.clone())))
    }

    /// `−ln p(x₀ | x₁)`: a normal about the predicted clean sample with the first step's variance,
    /// in bins of which the outermost go on for ever (Ho et al. 2020, equation 13).
    fn decoder(&self, x0: &Tensor<4>, class: &Option<Tensor<1, Int>>, rng: &mut Rng) -> Vec<f64> {
        let mean = self.clean(
            x0,
            rng.normal(x0.dims(), &self.device),
            &vec![0; x0.dims()[0]],
            class,
        );
        let deviation = (1.0 - self.alphas[0]).sqrt();
        let (x0, batch) = (host(x0), x0.dims()[0]);
        let nats: Vec<f64> = host(&mean)
            .into_iter()
            .zip(x0)
            .map(|(mean, x)| bin(x, mean, deviation))
            .collect();
        nats.chunks_exact(nats.len() / batch)
            .map(|image| image.iter().sum())
            .collect()
    }

    /// The clean samples that the network predicts at the noise of a step each, within the range of
    /// images.
    fn clean(
        &self,
        x0: &Tensor<4>,
        noise: Tensor<4>,
        steps: &[usize],
        class: &Option<Tensor<1, Int>>,
    ) -> Tensor<4> {
        let levels: Vec<NoiseLevel> = steps
            .iter()
            .map(|step| NoiseLevel::variance_preserving(self.alphas[*step]))
            .collect();
        let of =
            |number: &dyn Fn(&NoiseLevel) -> f64| levels.iter().map(number).collect::<Vec<f64>>();
        let x = combine(
            x0,
            &of(&|level| level.alpha),
            &noise,
            &of(&|level| level.sigma),
        );
        let times: Vec<f32> = steps.iter().map(|step| *step as f32).collect();
        let time = Tensor::from_data(TensorData::new(times, [steps.len()]), &self.device);
        let condition = Conditioning {
            class_labels: class.clone(),
            ..Conditioning::default()
        };
        let output = self
            .network
            .predict(x.clone(), time, &condition)
            .narrow(1, 0, x.dims()[1]);
        let reading = |level: &NoiseLevel| {
            self.prediction
                .coefficients(*level)
                .expect("read at every level before")
                .x0
        };
        combine(
            &x,
            &of(&|level| reading(level).0),
            &output,
            &of(&|level| reading(level).1),
        )
        .clamp(-1.0, 1.0)
    }

    fn ready(
        &self,
        batch: &ImageBatch,
        classes: Option<&[u32]>,
    ) -> Result<(Tensor<4>, Option<Tensor<1, Int>>)> {
        self.network.check_shape(batch.shape().into())?;
        check_sample_is_input(self.network)?;
        let vectors = match (
            self.network.cross_attention_dim(),
            self.network.class_embedding_dim(),
        ) {
            (Some(_), _) => Some("with cross-attention"),
            (None, Some(_)) => Some("with class embeddings for each sample"),
            (None, None) => None,
        };
        if let Some(network) = vectors {
            let expected = "one with classes or without conditions";
            return Err(Error::argument("network", network, expected));
        }
        let class = match (self.network.num_classes(), classes) {
            (None, None) => None,
            (Some(known), Some(classes)) => {
                if classes.len() != batch.len() {
                    return Err(Error::argument(
                        "classes",
                        classes.len(),
                        format!("{}, one for each image", batch.len()),
                    ));
                }
                if let Some(class) = classes.iter().find(|class| **class as usize >= known) {
                    return Err(Error::argument("classes", class, format!("below {known}")));
                }
                let classes: Vec<i32> = classes.iter().map(|class| *class as i32).collect();
                let count = classes.len();
                Some(Tensor::from_data(
                    TensorData::new(classes, [count]),
                    &self.device,
                ))
            }
            (known, _) => {
                let expected = if known.is_some() {
                    "one for each image"
                } else {
                    "none, for this network"
                };
                return Err(Error::argument(
                    "classes",
                    if known.is_some() { "missing" } else { "given" },
                    expected,
                ));
            }
        };
        let images = ValueRange::Unit.normalize(batch.to_tensor(&self.device));
        Ok((images, class))
    }
}

/// The steps after the first in `terms` parts at most, each of a step at least, evenly in `ln SNR`;
/// all alone if there are as many terms as steps.
fn parts(alphas: &[f64], terms: usize) -> Vec<Range<usize>> {
    let steps = alphas.len();
    if terms + 1 >= steps {
        return (1..steps).map(|step| step..step + 1).collect();
    }
    let log = |step: usize| (alphas[step] / (1.0 - alphas[step])).ln();
    let (high, low) = (log(1), log(steps - 1));
    let part = |step: usize| ((high - log(step)) / (high - low) * terms as f64) as usize;
    let mut starts: Vec<usize> = vec![1];
    starts.extend((2..steps - 1).filter(|step| part(*step) > part(step - 1)));
    starts
        .iter()
        .enumerate()
        .map(|(k, start)| *start..starts.get(k + 1).copied().unwrap_or(steps))
        .collect()
}

/// `−ln` of a normal's probability of the bin of 2/255 about `x`.
fn bin(x: f64, mean: f64, deviation: f64) -> f64 {
    const HALF: f64 = 1.0 / 255.0;
    let z = |edge: f64| (edge - mean) / deviation;
    let (low, high) = (z(x - HALF), z(x + HALF));
    let probability = if x < -1.0 + HALF {
        cdf(high)
    } else if x > 1.0 - HALF {
        cdf(-low)
    } else if low > 0.0 {
        // Both on one side: as small numbers, which are exact there.
        cdf(-low) - cdf(-high)
    } else {
        cdf(high) - cdf(low)
    };
    if probability > 1e-290 {
        return -probability.ln();
    }
    // So far out that it underflows: the density at the nearer edge.
    let nearest = if low > 0.0 { low } else { -high };
    0.5 * nearest * nearest + (nearest * (2.0 * PI).sqrt()).ln()
}

/// The standard normal's distribution function, relative precision 1e-7 in the lower tail too: the
/// complementary error function by its continued fraction far out, by its series near 0 (Abramowitz
/// & Stegun 1964, 7.1.14 and 7.1.6).
fn cdf(z: f64) -> f64 {
    if z > 0.0 {
        return 1.0 - cdf(-z);
    }
    let x = -z / 2f64.sqrt();
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return 0.5 - (-x * x).exp() * sum / PI.sqrt();
    }
    let tail = (1..60)
        .rev()
        .fold(x, |rest, n| x + 0.5 * f64::from(n) / rest);
    0.5 * (-x * x).exp() / (PI.sqrt() * tail)
}

fn host(x: &Tensor<4>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Sums over everything but the batch.
fn per_image(x: &Tensor<4>) -> Vec<f64> {
    x.clone()
        .flatten::<2>(1, 3)
        .sum_dim(1)
        .into_data()
        .iter::<f64>()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Gaussian;
    use aigc_core::{
        data::{Image, ImageShape, collate_images},
        device::device,
        eval::Estimate,
    };

    /// Against another implementation (scipy.stats.norm.cdf).
    #[test]
    fn normal_cdf_is_accurate_in_the_tails() {
        for (z, expected) in [
            (0.0, 0.5),
            (1.0, 0.8413447460685429),
            (-2.0, 0.022750131948179195),
            (-3.6, 0.00015910859015753364),
            (-8.0, 6.220960574271785e-16),
            (-20.0, 2.7536241186062337e-89),
        ] {
            assert!((cdf(z) / expected - 1.0).abs() < 1e-9, "{z}: {}", cdf(z));
        }
        // All bins together hold everything.
        for (mean, deviation) in [(0.0, 0.3), (-0.99, 0.01), (0.7, 1e-3)] {
            let all: f64 = (0..256)
                .map(|i| (-bin(f64::from(i) / 127.5 - 1.0, mean, deviation)).exp())
                .sum();
            assert!((all - 1.0).abs() < 1e-9, "{mean} {deviation}: {all}");
        }
        assert!(bin(1.0, -1.0, 1e-3).is_finite());
    }

    #[test]
    fn quantised_parts_exclude_the_first_step() {
        let alphas = NoiseScheduleConfig::default().alphas_cumprod().unwrap();
        for terms in [1, 7, 100, 999, 1000] {
            let parts = parts(&alphas, terms);
            assert!(
                parts.len() <= terms && parts.iter().all(|part| !part.is_empty()),
                "{terms}: {parts:?}"
            );
            assert_eq!(
                parts.into_iter().flatten().collect::<Vec<_>>(),
                (1..1000).collect::<Vec<_>>()
            );
        }
    }

    const DEVIATION: f64 = 0.2;

    /// Normal images, in 256 values.
    fn images(n: usize) -> ImageBatch {
        let shape = ImageShape::new(1, 4, 4);
        let mut rng = Rng::new(8);
        let mut pixel = || {
            ((f64::from(rng.normal_vec(1)[0]) * DEVIATION + 1.0) * 127.5)
                .round()
                .clamp(0.0, 255.0) as u8
        };
        collate_images(
            (0..n)
                .map(|_| Image {
                    shape,
                    pixels: (0..16).map(|_| pixel()).collect(),
                    label: None,
                })
                .collect(),
        )
    }

    /// The truth for normal values in bins of 2/255.
    fn truth() -> f64 {
        0.5 * (2.0 * PI * std::f64::consts::E * DEVIATION * DEVIATION).log2()
            - (2.0 / 255.0f64).log2()
    }

    #[test]
    fn exact_network_reaches_the_entropy() {
        let flex = device("flex").unwrap();
        let network = Gaussian::new(0.0, DEVIATION, &flex);
        let likelihood = BitsPerDim::new(
            &network,
            &NoiseScheduleConfig::default(),
            PredictionType::Epsilon,
            &flex,
        )
        .unwrap();
        let batch = images(400);
        let all = Estimate::from_samples(
            &likelihood
                .variational_bound(&batch, None, 1000, &mut Rng::new(0))
                .unwrap(),
        )
        .unwrap();
        let some = Estimate::from_samples(
            &likelihood
                .variational_bound(&batch, None, 200, &mut Rng::new(1))
                .unwrap(),
        )
        .unwrap();
        let flow = Estimate::from_samples(
            &likelihood
                .probability_flow(&batch, None, 60, &mut Rng::new(2))
                .unwrap(),
        )
        .unwrap();
        // By the flow nothing is lost but the decoder's thousandths. The steps' bound is what its
        // terms are for normal values, whose clean sample is uncertain by d²/(1 + d²·SNR).
        let snr: Vec<f64> = likelihood
            .alphas
            .iter()
            .map(|alpha| alpha / (1.0 - alpha))
            .collect();
        let uncertain = |snr: f64| DEVIATION.powi(2) / (1.0 + snr * DEVIATION.powi(2));
        let steps: f64 = (1..1000)
            .map(|k| 0.5 * (snr[k - 1] - snr[k]) * uncertain(snr[k]))
            .sum();
        let variance = 1.0 - likelihood.alphas[0];
        let decoder = 0.5 * ((2.0 * PI * variance).ln() + uncertain(snr[0]) / variance)
            - (2.0 / 255.0f64).ln();
        let last = likelihood.alphas[999];
        let prior = 0.5 * (last * DEVIATION.powi(2) - last - (1.0 - last).ln());
        let expected = (steps + decoder + prior) / LN_2;
        for (estimate, expected) in [(all, expected), (some, expected), (flow, truth())] {
            let off = (estimate.mean - expected).abs();
            assert!(
                off < 0.02 + 3.0 * estimate.standard_error,
                "{estimate}, expected {expected:.3}"
            );
        }
        // One that knows it wrongly finds it less probable.
        let wrong = Gaussian::new(0.3, DEVIATION, &flex);
        let wrong = BitsPerDim::new(
            &wrong,
            &NoiseScheduleConfig::default(),
            PredictionType::Epsilon,
            &flex,
        )
        .unwrap();
        let worse = Estimate::from_samples(
            &wrong
                .probability_flow(&batch, None, 60, &mut Rng::new(2))
                .unwrap(),
        )
        .unwrap();
        assert!(worse.mean > flow.mean + 0.5, "{worse} {flow}");
    }

    /// The density at the first level has a closed form; Heun's method comes to it with second
    /// order.
    #[test]
    fn flow_density_has_second_order() {
        let flex = device("flex").unwrap();
        let network = Gaussian::new(0.1, DEVIATION, &flex);
        let likelihood = BitsPerDim::new(
            &network,
            &NoiseScheduleConfig::default(),
            PredictionType::Epsilon,
            &flex,
        )
        .unwrap();
        let y = Rng::new(3).normal([16, 1, 4, 4], &flex) * DEVIATION + 0.1;
        let variance = DEVIATION.powi(2) + SigmaTable::new(&likelihood.alphas).min().powi(2);
        let centred = y.clone() - 0.1;
        let exact: Vec<f64> = per_image(&(centred.clone() * centred))
            .iter()
            .map(|square| -0.5 * square / variance - 8.0 * (2.0 * PI * variance).ln())
            .collect();
        let error = |steps: usize| {
            let found = likelihood.log_density(y.clone(), &None, steps, &mut Rng::new(0));
            found
                .iter()
                .zip(&exact)
                .map(|(a, b)| (a - b).abs())
                .sum::<f64>()
                / 16.0
        };
        let [coarse, fine] = [20, 40].map(error);
        assert!((3.0..5.5).contains(&(coarse / fine)), "{coarse} {fine}");
        assert!(error(200) < 0.1, "{}", error(200));
    }

    #[test]
    fn bits_per_dim_rejects_arguments_by_name() {
        let flex = device("flex").unwrap();
        let (plain, conditional) = (
            Gaussian::new(0.0, 1.0, &flex),
            Gaussian::new(0.0, 1.0, &flex).with_classes(3),
        );
        let of = |network| {
            BitsPerDim::new(
                network,
                &NoiseScheduleConfig::default(),
                PredictionType::Epsilon,
                &flex,
            )
            .unwrap()
        };
        let (batch, mut rng) = (images(2), Rng::new(0));
        for (message, expected) in [
            (
                of(&plain)
                    .variational_bound(&batch, None, 0, &mut rng)
                    .unwrap_err(),
                "`terms` is 0",
            ),
            (
                of(&plain)
                    .variational_bound(&batch, None, 1001, &mut rng)
                    .unwrap_err(),
                "`terms` is 1001",
            ),
            (
                of(&plain)
                    .probability_flow(&batch, None, 0, &mut rng)
                    .unwrap_err(),
                "`steps` is 0",
            ),
            (
                of(&plain)
                    .probability_flow(&batch, Some(&[0, 0]), 1, &mut rng)
                    .unwrap_err(),
                "`classes` is given",
            ),
            (
                of(&conditional)
                    .probability_flow(&batch, None, 1, &mut rng)
                    .unwrap_err(),
                "`classes` is missing",
            ),
            (
                of(&conditional)
                    .probability_flow(&batch, Some(&[0]), 1, &mut rng)
                    .unwrap_err(),
                "`classes` is 1, expected 2",
            ),
            (
                of(&conditional)
                    .probability_flow(&batch, Some(&[0, 3]), 1, &mut rng)
                    .unwrap_err(),
                "`classes` is 3, expected below 3",
            ),
        ] {
            let message = message.to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
