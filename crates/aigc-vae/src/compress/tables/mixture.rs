//! Probabilities of pixels under a mixture of logistics.

use super::{
    distributions::{MAX_LEVEL, logistic_cdf, of_levels, softmax},
    grid::{COEFFICIENT_STEP, LOG_STEP, inverse_scales, levels, on_grid, outputs},
};
use crate::LogisticMixture;
use aigc_core::Result;

/// A [`LogisticMixture`] on the host, in levels.
#[derive(Clone, Debug)]
pub(super) struct Mixture {
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

impl Mixture {
    pub(super) fn new(mixture: &LogisticMixture) -> Result<Self> {
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

    /// Number of values of the image.
    pub(super) fn values(&self) -> usize {
        self.means.len() / self.components
    }

    /// The probabilities of the levels of the value that follows the values `before`. All channels
    /// of a position are in one component, so earlier channels tell how probable each component is.
    pub(super) fn probabilities(&self, before: &[u8]) -> Vec<f64> {
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
