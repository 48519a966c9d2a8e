//! Integer frequencies: of any alphabet, of latents in bins, of pixels under a likelihood.
//!
//! Encoder and decoder must compute the same integers. All computations from a network's outputs to
//! frequencies are on the host in `f64`, by additions, multiplications, divisions and the functions
//! of the crate `libm`, which are the same on every machine. The outputs themselves are rounded to
//! a coarse grid first, so that most differences in their last digits vanish. A value close to the
//! middle between two grid points can still be rounded to either: that is why files have checksums.

use super::rans::{Interval, Rans};
use crate::{Likelihood, LogisticMixture};
use aigc_core::{Error, Result, check::ensure_argument};
use burn::tensor::Tensor;
use std::f64::consts::SQRT_2;

/// Bits of the sum of all frequencies of a table.
pub const PRECISION: u32 = 24;

/// The largest number of symbols of a table.
pub const MAX_SYMBOLS: usize = 1 << 16;

/// The largest number of bits of a latent's bin.
pub const MAX_LATENT_BITS: u8 = 12;

/// Grid of logits and of logarithms of scales. Rounding by up to half a step lengthens the code of
/// a black or white pixel by less than 4e-5 nats on average.
const LOG_STEP: f64 = 1.0 / 32.0;
/// Grid of means of pixels, in levels.
const LEVEL_STEP: f64 = 1.0 / 32.0;
/// Grid of the coefficients between channels, half a step of which moves a mean by at most a 64th
/// of a level.
const COEFFICIENT_STEP: f64 = 1.0 / 4096.0;
/// Grid of means of latents.
const LATENT_STEP: f64 = 1.0 / 1024.0;

/// The highest level of an 8-bit pixel.
const MAX_LEVEL: f64 = 255.0;

/// Frequencies of the symbols `0..len` that sum to `2^PRECISION`, each at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrequencyTable {
    /// Sums of the frequencies before each symbol, and the sum of all.
    cumulative: Vec<u32>,
}

impl FrequencyTable {
    /// Frequencies proportional to `probabilities`, which need not sum to 1. They are mixed with
    /// `len / 2^PRECISION` of the uniform distribution, so that every symbol has a frequency: each
    /// symbol needs at most 24 bits, and 256 symbols need less than 3e-5 bits more than they would
    /// otherwise.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no symbols or more than [`MAX_SYMBOLS`], or a
    /// probability is negative or not finite, or all are 0.
    pub fn from_probabilities(probabilities: &[f64]) -> Result<Self> {
        let symbols = probabilities.len();
        ensure_argument(
            (1..=MAX_SYMBOLS).contains(&symbols),
            "probabilities",
            format!("{symbols} numbers"),
            "1 to 65536 numbers",
        )?;
        let expected = "finite numbers, 0 or above, not all 0";
        if let Some(wrong) = probabilities
            .iter()
            .find(|p| !(p.is_finite() && **p >= 0.0))
        {
            return Err(Error::argument("probabilities", wrong, expected));
        }
        let largest = probabilities.iter().copied().fold(0.0, f64::max);
        ensure_argument(largest > 0.0, "probabilities", largest, expected)?;
        // Relative to the largest, neither the sum nor its inverse can overflow.
        let probabilities: Vec<f64> = probabilities.iter().map(|p| p / largest).collect();
        let sum: f64 = probabilities.iter().sum();
        let total = 1u32 << PRECISION;
        let shared = f64::from(total - symbols as u32) / sum;
        let (mut below, mut cumulative) = (0.0f64, Vec::with_capacity(symbols + 1));
        // Partial sums of numbers that are not negative never fall, and neither do their multiples
        // and integer parts: the frequency of a symbol is 1 plus a number that is not negative.
        for (symbol, probability) in probabilities.iter().enumerate() {
            cumulative.push((below * shared) as u32 + symbol as u32);
            below += probability;
        }
        // Rounding could let a sum exceed the total by a little.
        let last = total - symbols as u32;
        for (symbol, start) in cumulative.iter_mut().enumerate() {
            *start = (*start).min(last + symbol as u32);
        }
        cumulative.push(total);
        Ok(Self { cumulative })
    }

    /// Frequencies of a softmax over `logits`, which are rounded to multiples of 1/32.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as for [`from_probabilities`](Self::from_probabilities), or if a
    /// logit is not finite.
    pub fn from_logits(logits: &[f32]) -> Result<Self> {
        let logits = on_grid("logits", logits, LOG_STEP)?;
        Self::from_probabilities(&softmax(&logits))
    }

    /// `len` symbols of the same frequency; frequencies differ by 1 if `len` is not a power of 2.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `len` is 0 or above [`MAX_SYMBOLS`].
    pub fn uniform(len: usize) -> Result<Self> {
        let symbols = len.min(MAX_SYMBOLS + 1);
        Self::from_probabilities(&vec![1.0; symbols])
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.cumulative.len() - 1
    }

    /// Whether there are no symbols: a table has at least one.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The interval of a symbol.
    ///
    /// # Panics
    /// If there is no such symbol.
    pub fn interval(&self, symbol: usize) -> Interval {
        let (start, end) = (self.cumulative[symbol], self.cumulative[symbol + 1]);
        Interval {
            start,
            size: end - start,
        }
    }

    /// The symbol to which a number below `2^PRECISION` belongs.
    pub fn symbol(&self, slot: u32) -> usize {
        self.cumulative.partition_point(|start| *start <= slot) - 1
    }

    /// Bits that a symbol needs.
    ///
    /// # Panics
    /// If there is no such symbol.
    pub fn bits(&self, symbol: usize) -> f64 {
        f64::from(PRECISION) - f64::from(self.interval(symbol).size).log2()
    }

    /// Pushes a symbol.
    ///
    /// # Panics
    /// If there is no such symbol.
    pub fn push(&self, symbol: usize, rans: &mut Rans) {
        rans.push(self.interval(symbol), PRECISION);
    }

    /// Pops a symbol.
    pub fn pop(&self, rans: &mut Rans) -> usize {
        rans.pop(PRECISION, |slot| {
            let symbol = self.symbol(slot);
            (symbol, self.interval(symbol))
        })
    }
}

/// Rounds outputs of a network to multiples of `step`.
fn on_grid(name: &str, outputs: &[f32], step: f64) -> Result<Vec<f64>> {
    ensure_finite(name, outputs)?;
    let round = |x: &f32| (f64::from(*x) / step).round() * step;
    Ok(outputs.iter().map(round).collect())
}

/// Fails if an output of a network is not finite.
pub(super) fn ensure_finite(name: &str, outputs: &[f32]) -> Result<()> {
    match outputs.iter().find(|x| !x.is_finite()) {
        Some(x) => Err(Error::argument(name, x, "a finite output of the network")),
        None => Ok(()),
    }
}

/// Exponentials of `logits`, scaled so that the largest is 1.
fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials = logits.iter().map(|logit| libm::exp(logit - largest));
    exponentials.collect()
}

/// The distribution function of the standard normal distribution. The error is that of
/// `libm::erfc`, below 1 unit in the last place.
fn normal_cdf(x: f64) -> f64 {
    // Beyond, the result differs from 0 or 1 by less than 1e-17.
    if x.abs() > 8.5 {
        return if x < 0.0 { 0.0 } else { 1.0 };
    }
    0.5 * libm::erfc(-x / SQRT_2)
}

/// The distribution function of the standard logistic distribution.
fn logistic_cdf(x: f64) -> f64 {
    // Beyond, the result differs from 0 or 1 by less than 1e-17.
    if x.abs() > 40.0 {
        return if x < 0.0 { 0.0 } else { 1.0 };
    }
    1.0 / (1.0 + libm::exp(-x))
}

/// The distribution function at `x` in `[0, 1]` of the continuous Bernoulli distribution with this
/// logit, `(e^(l·x) − 1) / (eˡ − 1)`.
fn continuous_bernoulli_cdf(x: f64, logit: f64) -> f64 {
    if logit == 0.0 {
        x
    } else if logit < 0.0 {
        libm::expm1(logit * x) / libm::expm1(logit)
    } else {
        1.0 - continuous_bernoulli_cdf(1.0 - x, -logit)
    }
}

/// The inverse of [`normal_cdf`], by bisection.
fn normal_quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (-8.5, 8.5);
    // An interval of 17/2^60 is smaller than the distance of neighbouring numbers above 0.1.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// A division of the real line into `2^bits` bins that are equally probable under a standard normal
/// distribution, the prior of a latent (Townsend et al. 2019, <https://arxiv.org/abs/1901.04866>,
/// app. B).
#[derive(Clone, Debug)]
pub struct LatentBins {
    bits: u8,
    /// Limits between neighbouring bins.
    edges: Vec<f64>,
    /// The median of each bin.
    medians: Vec<f32>,
}

impl LatentBins {
    /// `2^bits` bins.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `bits` is 1 to [`MAX_LATENT_BITS`].
    pub fn new(bits: u8) -> Result<Self> {
        ensure_argument(
            (1..=MAX_LATENT_BITS).contains(&bits),
            "latent_bits",
            bits,
            "1 to 12",
        )?;
        let bins = 1usize << bits;
        let quantile = |half_bins: usize| normal_quantile(half_bins as f64 / (2 * bins) as f64);
        Ok(Self {
            bits,
            edges: (1..bins).map(|bin| quantile(2 * bin)).collect(),
            medians: (0..bins).map(|bin| quantile(2 * bin + 1) as f32).collect(),
        })
    }

    /// Bits of the number of a bin.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The latent in the middle of a bin, its median.
    ///
    /// # Panics
    /// If there is no such bin.
    pub fn median(&self, bin: usize) -> f32 {
        self.medians[bin]
    }

    /// The bin of a latent, which must not be NaN.
    pub fn bin(&self, latent: f32) -> usize {
        self.edges
            .partition_point(|edge| *edge <= f64::from(latent))
    }

    /// The frequencies of the bins under a normal distribution, whose mean is rounded to multiples
    /// of 1/1024 and whose `log σ²` to multiples of 1/32.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `mean` or `logvar` is not finite.
    pub fn posterior(&self, mean: f32, logvar: f32) -> Result<FrequencyTable> {
        let mean = on_grid("mean", &[mean], LATENT_STEP)?[0];
        // Limits at which a distribution lies in one bin, or is flat over all of them.
        let logvar = on_grid("logvar", &[logvar.clamp(-60.0, 60.0)], LOG_STEP)?[0];
        let precision = libm::exp(-0.5 * logvar);
        let below = self
            .edges
            .iter()
            .map(|edge| normal_cdf((edge - mean) * precision));
        FrequencyTable::from_probabilities(&differences(below))
    }
}

/// Probabilities of the intervals between limits, given the distribution function at each.
fn differences(below: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut last = 0.0f64;
    // Differences of nearly equal numbers may come out negative.
    below
        .chain([1.0])
        .map(|below| (below - std::mem::replace(&mut last, below)).max(0.0))
        .collect()
}

/// The distributions of the values of one image under a likelihood. A value is coded after all
/// values before it, on which its distribution may depend.
#[derive(Clone, Debug)]
pub struct PixelTables {
    /// Number of values.
    values: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Logits of white.
    Bernoulli(Vec<f64>),
    /// Logits.
    ContinuousBernoulli(Vec<f64>),
    /// Means and inverse standard deviations, in levels.
    Gaussian(Vec<f64>, Vec<f64>),
    LogisticMixture(Mixture),
}

/// A [`LogisticMixture`] on the host, in levels.
#[derive(Clone, Debug)]
struct Mixture {
    components: usize,
    positions: usize,
    /// `[components, positions]`
    logits: Vec<f64>,
    /// `[channels, components, positions]`
    means: Vec<f64>,
    /// `[channels, components, positions]`
    inverse_scales: Vec<f64>,
    /// `[pairs, components, positions]`
    coefficients: Vec<f64>,
}

impl PixelTables {
    /// The distributions of the 256 levels of a pixel, or of black and white for a Bernoulli
    /// likelihood. The densities of the other likelihoods are integrated over the interval of
    /// values that round to a level, and over all values beyond the first and the last one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the likelihood is not that of one sample, or an output of the
    /// network is not finite; [`Error::Unsupported`] for [`Likelihood::OptimalGaussian`].
    pub fn new(likelihood: &Likelihood) -> Result<Self> {
        let one = |x: &Tensor<4>| {
            let batch = x.dims()[0];
            ensure_argument(batch == 1, "likelihood", batch, "that of one sample")
        };
        let kind = match likelihood {
            Likelihood::Bernoulli { logits } => {
                one(logits)?;
                Kind::Bernoulli(on_grid("logits", &outputs(logits), LOG_STEP)?)
            }
            Likelihood::ContinuousBernoulli { logits } => {
                one(logits)?;
                Kind::ContinuousBernoulli(on_grid("logits", &outputs(logits), LOG_STEP)?)
            }
            Likelihood::Gaussian { mean, std } => {
                one(mean)?;
                let means = levels("mean", mean, MAX_LEVEL, 0.0)?;
                let inverse = vec![1.0 / (std * MAX_LEVEL); means.len()];
                Kind::Gaussian(means, inverse)
            }
            Likelihood::LearnedGaussian { mean, log_std } => {
                one(mean)?;
                let inverse = inverse_scales("log_std", log_std, MAX_LEVEL)?;
                Kind::Gaussian(levels("mean", mean, MAX_LEVEL, 0.0)?, inverse)
            }
            Likelihood::LogisticMixture(mixture) => {
                one(&mixture.means)?;
                Kind::LogisticMixture(Mixture::new(mixture)?)
            }
            Likelihood::OptimalGaussian { .. } => {
                return Err(Error::unsupported(
                    "the optimal Gaussian likelihood",
                    "compression",
                    "its standard deviation is that of the image to decode; train the model with \
                     another likelihood, such as a mixture of logistics",
                ));
            }
        };
        let values = match &kind {
            Kind::Bernoulli(all) | Kind::ContinuousBernoulli(all) | Kind::Gaussian(all, _) => {
                all.len()
            }
            Kind::LogisticMixture(mixture) => mixture.means.len() / mixture.components,
        };
        Ok(Self { values, kind })
    }

    /// Number of values of the image.
    pub fn len(&self) -> usize {
        self.values
    }

    /// Whether the image has no values.
    pub fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// Pushes an image, so that [`pop`](Self::pop) returns it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of values is not that of the likelihood, or a pixel
    /// is neither black nor white under a Bernoulli likelihood.
    pub fn push(&self, pixels: &[u8], rans: &mut Rans) -> Result<()> {
        self.check(pixels)?;
        for index in (0..self.values).rev() {
            let symbol = self.symbol(pixels[index])?;
            self.table(&pixels[..index])?.push(symbol, rans);
        }
        Ok(())
    }

    /// Pops an image.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the likelihood has no probabilities, as with a standard
    /// deviation of 0.
    pub fn pop(&self, rans: &mut Rans) -> Result<Vec<u8>> {
        let mut pixels = Vec::with_capacity(self.values);
        for _ in 0..self.values {
            let symbol = self.table(&pixels)?.pop(rans);
            pixels.push(match &self.kind {
                Kind::Bernoulli(_) => [0, u8::MAX][symbol],
                _ => symbol as u8,
            });
        }
        Ok(pixels)
    }

    /// Bits that an image needs.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn bits(&self, pixels: &[u8]) -> Result<f64> {
        self.check(pixels)?;
        let bits = |index: usize| -> Result<f64> {
            let symbol = self.symbol(pixels[index])?;
            Ok(self.table(&pixels[..index])?.bits(symbol))
        };
        (0..self.values).map(bits).sum()
    }

    fn check(&self, pixels: &[u8]) -> Result<()> {
        let expected = format!("{}, as of the likelihood", self.values);
        let fits = pixels.len() == self.values;
        ensure_argument(fits, "number of values", pixels.len(), &expected)
    }

    /// The symbol of a value.
    fn symbol(&self, pixel: u8) -> Result<usize> {
        match (&self.kind, pixel) {
            (Kind::Bernoulli(_), 0) => Ok(0),
            (Kind::Bernoulli(_), u8::MAX) => Ok(1),
            (Kind::Bernoulli(_), _) => Err(Error::argument(
                "pixels",
                pixel,
                "0 or 255, black or white, for a Bernoulli likelihood; binarise the images, or \
                 train the model with the likelihood of a mixture of logistics",
            )),
            _ => Ok(usize::from(pixel)),
        }
    }

    /// The frequencies of the value that follows the values `before`.
    fn table(&self, before: &[u8]) -> Result<FrequencyTable> {
        let index = before.len();
        let probabilities = match &self.kind {
            Kind::Bernoulli(logits) => {
                let logit = logits[index];
                vec![
                    1.0 / (1.0 + libm::exp(logit)),
                    1.0 / (1.0 + libm::exp(-logit)),
                ]
            }
            Kind::ContinuousBernoulli(logits) => {
                of_levels(|x| continuous_bernoulli_cdf(x / MAX_LEVEL, logits[index]))
            }
            Kind::Gaussian(means, inverse) => {
                of_levels(|x| normal_cdf((x - means[index]) * inverse[index]))
            }
            Kind::LogisticMixture(mixture) => mixture.probabilities(before),
        };
        FrequencyTable::from_probabilities(&probabilities)
    }
}

/// Probabilities of the 256 levels, given the distribution function in levels.
fn of_levels(cdf: impl Fn(f64) -> f64) -> Vec<f64> {
    differences((0..255u8).map(|level| cdf(f64::from(level) + 0.5)))
}

/// Values of a tensor.
fn outputs<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data().iter::<f32>().collect()
}

/// Means in levels, `mean·factor + offset`.
fn levels<const D: usize>(
    name: &str,
    means: &Tensor<D>,
    factor: f64,
    offset: f64,
) -> Result<Vec<f64>> {
    let means = on_grid(name, &outputs(means), LEVEL_STEP / factor)?;
    Ok(means.iter().map(|mean| mean * factor + offset).collect())
}

/// Inverse scales in levels, of logarithms of scales in units of `factor` levels.
fn inverse_scales<const D: usize>(
    name: &str,
    log_scales: &Tensor<D>,
    factor: f64,
) -> Result<Vec<f64>> {
    let log_scales = on_grid(name, &outputs(log_scales), LOG_STEP)?;
    let inverse = |log_scale: &f64| libm::exp(-log_scale) / factor;
    Ok(log_scales.iter().map(inverse).collect())
}

impl Mixture {
    fn new(mixture: &LogisticMixture) -> Result<Self> {
        let [_, _, components, positions] = mixture.means.dims();
        // The model's values are in [−1, 1].
        let factor = 0.5 * MAX_LEVEL;
        let coefficients = match &mixture.coefficients {
            Some(x) => on_grid("coefficients", &outputs(x), COEFFICIENT_STEP)?,
            None => Vec::new(),
        };
        Ok(Self {
            components,
            positions,
            logits: on_grid("logits", &outputs(&mixture.logits), LOG_STEP)?,
            means: levels("means", &mixture.means, factor, factor)?,
            inverse_scales: inverse_scales("log_scales", &mixture.log_scales, factor)?,
            coefficients,
        })
    }

    /// The probabilities of the levels of the value that follows the values `before`. All channels
    /// of a position are in one component, so earlier channels tell how probable each component is.
    fn probabilities(&self, before: &[u8]) -> Vec<f64> {
        let (channel, position) = (before.len() / self.positions, before.len() % self.positions);
        let known: Vec<u8> = (0..channel)
            .map(|earlier| before[earlier * self.positions + position])
            .collect();
        let of_component = |k: usize| self.logits[k * self.positions + position];
        let logits: Vec<f64> = (0..self.components).map(of_component).collect();
        let mut weights = softmax(&logits);
        for (channel, level) in known.iter().enumerate() {
            for (k, weight) in weights.iter_mut().enumerate() {
                let cdf = self.cdf(channel, k, position, &known);
                let level = f64::from(*level);
                let above = if level < MAX_LEVEL {
                    cdf(level + 0.5)
                } else {
                    1.0
                };
                let below = if level > 0.0 { cdf(level - 0.5) } else { 0.0 };
                // No weight becomes 0, so that they never are all 0.
                *weight *= (above - below).max(1e-100);
            }
            let largest = weights.iter().copied().fold(0.0, f64::max);
            weights.iter_mut().for_each(|weight| *weight /= largest);
        }
        let mut sum = vec![0.0; 256];
        for (k, weight) in weights.iter().enumerate() {
            let cdf = self.cdf(channel, k, position, &known);
            for (sum, probability) in sum.iter_mut().zip(of_levels(cdf)) {
                *sum += weight * probability;
            }
        }
        sum
    }

    /// The distribution function, in levels, of a channel in component `k`, given the levels
    /// `known` of at least all channels before.
    fn cdf(
        &self,
        channel: usize,
        k: usize,
        position: usize,
        known: &[u8],
    ) -> impl Fn(f64) -> f64 + use<> {
        let at = |row: usize| (row * self.components + k) * self.positions + position;
        let first = channel * channel.saturating_sub(1) / 2;
        let mut location = self.means[at(channel)];
        for (before, level) in known[..channel].iter().enumerate() {
            let value = f64::from(*level) - 0.5 * MAX_LEVEL;
            location += self.coefficients[at(first + before)] * value;
        }
        let inverse = self.inverse_scales[at(channel)];
        move |x| logistic_cdf((x - location) * inverse)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::LikelihoodKind;
    use aigc_core::rng::Rng;
    use burn::tensor::{Device, TensorData};

    const TOTAL: f64 = (1u32 << PRECISION) as f64;

    #[test]
    fn frequencies_sum_exactly_and_approximate_probabilities() {
        let mut rng = Rng::new(1);
        for case in 0..60usize {
            let symbols = match case {
                0 => 1,
                1 => 2,
                2 => MAX_SYMBOLS,
                _ => 1 + rng.random_index(600),
            };
            // Numbers of very different sizes, and zeros.
            let mut probabilities: Vec<f64> = (0..symbols)
                .map(|_| match rng.random_index(3) {
                    0 => 0.0,
                    1 => 1e-12,
                    _ => 10f64.powi(rng.random_index(12) as i32),
                })
                .collect();
            probabilities[0] += 1e-3;
            let table = FrequencyTable::from_probabilities(&probabilities).unwrap();
            assert_eq!(table.len(), symbols);
            let sum: f64 = probabilities.iter().sum();
            let mut start = 0;
            for (symbol, probability) in probabilities.iter().enumerate() {
                let interval = table.interval(symbol);
                assert_eq!(interval.start, start);
                assert!(interval.size >= 1);
                let difference = f64::from(interval.size) / TOTAL - probability / sum;
                assert!(
                    difference.abs() <= (symbols + 2) as f64 / TOTAL,
                    "{difference}"
                );
                for slot in [interval.start, interval.start + interval.size - 1] {
                    assert_eq!(table.symbol(slot), symbol);
                }
                start += interval.size;
            }
            assert_eq!(start, 1 << PRECISION);
        }
        for wrong in [&[][..], &[0.0, 0.0], &[1.0, f64::NAN], &[-1.0, 2.0]] {
            let error = FrequencyTable::from_probabilities(wrong).unwrap_err();
            assert!(error.to_string().contains("`probabilities`"), "{error}");
        }
        assert!(FrequencyTable::from_logits(&[0.0, f32::INFINITY]).is_err());
    }

    /// Sums and inverses of very small and very large numbers would overflow.
    #[test]
    fn frequencies_depend_on_the_ratios_of_probabilities_only() {
        let expected = FrequencyTable::uniform(2).unwrap();
        for size in [1e-320, 1e-300, 1e300, f64::MAX] {
            let table = FrequencyTable::from_probabilities(&[size, size]).unwrap();
            assert_eq!(table, expected, "{size}");
        }
        assert!(FrequencyTable::from_probabilities(&[f64::INFINITY, 1.0]).is_err());
    }

    #[test]
    fn logits_are_rounded_before_the_softmax() {
        let table = FrequencyTable::from_logits(&[1.0, 0.0, -2.0]).unwrap();
        // The same on a machine whose last digits differ.
        let other = FrequencyTable::from_logits(&[1.000_01, -1e-6, -1.999_99]).unwrap();
        assert_eq!(table, other);
        let sum = 1f64.exp() + 1.0 + (-2f64).exp();
        for (symbol, logit) in [1f64, 0.0, -2.0].into_iter().enumerate() {
            let bits = -(logit.exp() / sum).log2();
            assert!((table.bits(symbol) - bits).abs() < 1e-5);
        }
        assert_eq!(FrequencyTable::uniform(4).unwrap().bits(3), 2.0);
    }

    /// `∫ exp(−½((x − μ)/σ)²) / (σ√2π)` by Simpson's rule.
    fn normal_mass(low: f64, high: f64, mean: f64, std: f64) -> f64 {
        let density = |x: f64| {
            let scaled = (x - mean) / std;
            (-0.5 * scaled * scaled).exp() / (std * std::f64::consts::TAU.sqrt())
        };
        let (n, step) = (200, (high - low) / 200.0);
        let weight = |i: usize| match i {
            0 | 200 => 1.0,
            _ => [2.0, 4.0][i % 2],
        };
        let terms = (0..=n).map(|i| weight(i) * density(low + i as f64 * step));
        terms.sum::<f64>() * step / 3.0
    }

    #[test]
    fn bins_are_equally_probable_under_the_prior() {
        for bits in [1, 4, 10] {
            let bins = LatentBins::new(bits).unwrap();
            let prior = bins.posterior(0.0, 0.0).unwrap();
            assert_eq!(prior.len(), 1 << bits);
            let size = TOTAL / f64::from(1u32 << bits);
            for bin in 0..prior.len() {
                assert!((f64::from(prior.interval(bin).size) - size).abs() <= 2.0);
                assert_eq!(bins.bin(bins.median(bin)), bin);
            }
            for (bin, edges) in bins.edges.windows(2).enumerate() {
                let mass = normal_mass(edges[0], edges[1], 0.0, 1.0);
                assert!((mass * f64::from(1u32 << bits) - 1.0).abs() < 1e-6);
                let half = normal_mass(edges[0], f64::from(bins.median(bin + 1)), 0.0, 1.0);
                assert!((half / mass - 0.5).abs() < 1e-3);
            }
        }
        assert_eq!(LatentBins::new(3).unwrap().bin(-50.0), 0);
        assert_eq!(LatentBins::new(3).unwrap().bin(50.0), 7);
        for bits in [0, MAX_LATENT_BITS + 1] {
            let error = LatentBins::new(bits).unwrap_err().to_string();
            assert!(error.contains("`latent_bits`"), "{error}");
        }
    }

    #[test]
    fn posterior_frequencies_are_masses_of_the_bins() {
        let bins = LatentBins::new(6).unwrap();
        for (mean, logvar) in [(0.5f32, -2.0f32), (-1.25, 0.5), (2.0, -6.0)] {
            let table = bins.posterior(mean, logvar).unwrap();
            let std = (f64::from(logvar) / 2.0).exp();
            for (bin, edges) in bins.edges.windows(2).enumerate() {
                let mass = normal_mass(edges[0], edges[1], f64::from(mean), std);
                let frequency = f64::from(table.interval(bin + 1).size) / TOTAL;
                assert!(
                    (frequency - mass).abs() < 70.0 / TOTAL,
                    "{frequency} {mass}"
                );
            }
        }
        // Very narrow, very wide and far away.
        let narrow = bins.posterior(0.3, -200.0).unwrap();
        assert!(narrow.bits(bins.bin(0.3)) < 1e-4);
        let wide = bins.posterior(0.0, 200.0).unwrap();
        assert!((wide.bits(0) - 1.0).abs() < 1e-3 && (wide.bits(63) - 1.0).abs() < 1e-3);
        assert!(bins.posterior(1e30, 0.0).unwrap().bits(63) < 1e-4);
        assert!(bins.posterior(f32::NAN, 0.0).is_err());
        assert!(bins.posterior(0.0, f32::NAN).is_err());
    }

    const KINDS: [LikelihoodKind; 5] = [
        LikelihoodKind::Bernoulli,
        LikelihoodKind::ContinuousBernoulli,
        LikelihoodKind::Gaussian(0.1),
        LikelihoodKind::LearnedGaussian,
        LikelihoodKind::LogisticMixture { components: 3 },
    ];

    fn likelihood(kind: LikelihoodKind, channels: usize, seed: u64) -> Likelihood {
        let shape = [1, kind.outputs(channels), 4, 5];
        Likelihood::new(kind, Rng::new(seed).normal(shape, &Device::flex()))
    }

    /// The pixels nearest to a sample of the likelihood.
    fn sampled(likelihood: &Likelihood, seed: u64) -> Vec<u8> {
        let sample = outputs(&likelihood.sample(&mut Rng::new(seed)));
        let level = |x: &f32| (x * 255.0).round().clamp(0.0, 255.0) as u8;
        sample.iter().map(level).collect()
    }

    fn tensor(pixels: &[u8], shape: [usize; 4]) -> Tensor<4> {
        let values = pixels.iter().map(|p| f32::from(*p) / 255.0).collect();
        Tensor::from_data(TensorData::new::<f32, _>(values, shape), &Device::flex())
    }

    #[test]
    fn images_of_every_likelihood_are_popped_as_pushed() {
        for kind in KINDS {
            for channels in [1, 3] {
                let likelihood = likelihood(kind, channels, 2);
                let tables = PixelTables::new(&likelihood).unwrap();
                let first = sampled(&likelihood, 3);
                assert_eq!(tables.len(), first.len());
                let second = match kind {
                    LikelihoodKind::Bernoulli => vec![255; first.len()],
                    // Improbable values too.
                    _ => (0..first.len()).map(|i| (i * 37 % 256) as u8).collect(),
                };
                let mut rans = Rans::new();
                tables.push(&first, &mut rans).unwrap();
                tables.push(&second, &mut rans).unwrap();
                let needed = tables.bits(&first).unwrap() + tables.bits(&second).unwrap();
                assert!(
                    (rans.bits() - needed).abs() < 0.002 * needed + 32.0,
                    "{kind:?}"
                );
                assert_eq!(tables.pop(&mut rans).unwrap(), second, "{kind:?}");
                assert_eq!(tables.pop(&mut rans).unwrap(), first, "{kind:?}");
                assert_eq!(rans.to_bytes(), [1]);
            }
        }
    }

    /// The length of a code is the log-likelihood in bits, up to the rounding to the grid.
    #[test]
    fn bits_are_the_log_likelihood() {
        for kind in [
            LikelihoodKind::Bernoulli,
            LikelihoodKind::LogisticMixture { components: 1 },
            LikelihoodKind::LogisticMixture { components: 4 },
        ] {
            for channels in [1, 3] {
                let likelihood = likelihood(kind, channels, 4);
                let pixels = sampled(&likelihood, 5);
                let x = tensor(&pixels, [1, channels, 4, 5]);
                let log_prob = f64::from(likelihood.log_prob(x).into_scalar::<f32>());
                let expected = -log_prob / std::f64::consts::LN_2;
                let bits = PixelTables::new(&likelihood)
                    .unwrap()
                    .bits(&pixels)
                    .unwrap();
                let tolerance = 0.02 * pixels.len() as f64;
                assert!(
                    (bits - expected).abs() < tolerance,
                    "{kind:?} {bits} {expected}"
                );
            }
        }
    }

    /// Densities are integrated over the values that round to a level.
    #[test]
    fn densities_are_integrated_over_levels() {
        let device = Device::flex();
        let mean = Tensor::<4>::full([1, 1, 1, 1], 0.5, &device);
        let log_std = Tensor::<4>::full([1, 1, 1, 1], -2.0, &device);
        let std = (-2f64).exp();
        for likelihood in [
            Likelihood::Gaussian {
                mean: mean.clone(),
                std,
            },
            Likelihood::LearnedGaussian { mean, log_std },
        ] {
            let tables = PixelTables::new(&likelihood).unwrap();
            for (level, low, high) in [
                (0u8, -5.0, 0.5 / 255.0),
                (100, 99.5 / 255.0, 100.5 / 255.0),
                (255, 254.5 / 255.0, 5.0),
            ] {
                let mass = normal_mass(low, high, 0.5, std);
                let bits = tables.bits(&[level]).unwrap();
                assert!((bits + mass.log2()).abs() < 5e-3, "{level}: {bits} {mass}");
            }
        }
        for logit in [-3.0f64, 0.0, 0.03125, 6.0] {
            let logits = Tensor::full([1, 1, 1, 1], logit, &device);
            let tables = PixelTables::new(&Likelihood::ContinuousBernoulli { logits }).unwrap();
            // The density over [0, 1] is proportional to e^(l·x).
            let mass = |low: f64, high: f64| match logit {
                0.0 => high - low,
                _ => ((logit * high).exp() - (logit * low).exp()) / (logit.exp() - 1.0),
            };
            for (level, low, high) in [
                (0u8, 0.0, 0.5 / 255.0),
                (77, 76.5 / 255.0, 77.5 / 255.0),
                (255, 254.5 / 255.0, 1.0),
            ] {
                let bits = tables.bits(&[level]).unwrap();
                assert!(
                    (bits + mass(low, high).log2()).abs() < 0.01,
                    "{logit} {level}"
                );
            }
        }
    }

    #[test]
    fn unusable_likelihoods_and_pixels_are_errors() {
        let device = Device::flex();
        let error = |likelihood: Likelihood| PixelTables::new(&likelihood).unwrap_err();
        let mean = Tensor::<4>::zeros([1, 1, 2, 2], &device);
        let message = error(Likelihood::OptimalGaussian { mean: mean.clone() }).to_string();
        assert!(message.contains("is not supported"), "{message}");
        let logits = mean.clone() / 0.0;
        let message = error(Likelihood::Bernoulli { logits }).to_string();
        assert!(message.contains("`logits` is NaN"), "{message}");
        let logits = Tensor::cat(vec![mean.clone(), mean.clone()], 0);
        let message = error(Likelihood::Bernoulli { logits }).to_string();
        assert!(message.contains("one sample"), "{message}");
        let tables = PixelTables::new(&Likelihood::Bernoulli { logits: mean }).unwrap();
        let grey = tables.push(&[0, 255, 17, 0], &mut Rans::new());
        let message = grey.unwrap_err().to_string();
        assert!(message.contains("`pixels` is 17"), "{message}");
        let few = tables.push(&[0, 255], &mut Rans::new()).unwrap_err();
        assert!(few.to_string().contains("is 2, expected 4"), "{few}");
    }
}
