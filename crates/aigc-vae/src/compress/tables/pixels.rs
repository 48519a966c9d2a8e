//! Frequencies of pixels under a likelihood.

use super::{
    FrequencyTable,
    distributions::{MAX_LEVEL, continuous_bernoulli_cdf, normal_cdf, of_levels},
    grid::{LOG_STEP, inverse_scales, levels, on_grid, outputs},
    mixture::Mixture,
};
use crate::{Likelihood, compress::Rans};
use aigc_core::{Error, Result, check::ensure_argument};
use burn::tensor::Tensor;

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
            Kind::LogisticMixture(mixture) => mixture.values(),
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{LikelihoodKind, compress::tables::testing::normal_mass};
    use aigc_core::rng::Rng;
    use burn::tensor::{Device, TensorData};

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
