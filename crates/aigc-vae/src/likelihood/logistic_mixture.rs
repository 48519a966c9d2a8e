//! Discretised mixtures of logistic distributions (PixelCNN++, Salimans et al. 2017,
//! <https://arxiv.org/abs/1701.05517>, §2.1–2.2).

use super::{soft_clamp, softplus, sum_values};
use crate::math::log_sum_exp;
use aigc_core::{nn::Activation, rng::Rng};
use burn::tensor::{Int, Tensor, TensorData, activation};

/// Most components; they multiply the memory of the last layer.
pub(super) const MAX_COMPONENTS: usize = 100;

/// Half the distance of two levels, in `[−1, 1]`.
const HALF_LEVEL: f64 = 1.0 / 255.0;

/// Range of the logarithms of the scales, in `[−1, 1]`. The lower limit is that of the paper's
/// program; at the upper one, the levels between the two ends are equally probable, and the two
/// ends have nearly all of the mass.
const LOG_SCALE: [f64; 2] = [-7.0, 7.0];

/// A logit, a mean and a scale per channel, and a coefficient per pair of channels:
/// `1 + 2·c + c·(c − 1)/2`.
pub(super) fn outputs_per_component(channels: usize) -> usize {
    channels
        .saturating_add(1)
        .saturating_mul(channels.saturating_add(2))
        / 2
}

/// Mixtures of logistic distributions over the 256 levels `0, 1/255, …, 1`: one mixture for the
/// channels of each position.
///
/// A level has the probability that the logistic distribution has between the levels' midpoints;
/// the lowest level has all of it below, and the highest one all of it above. Within a component,
/// the location of a channel is its mean plus a linear function of the values of the channels
/// before it. Means, scales and coefficients refer to values in `[−1, 1]`, that is `2·x − 1`.
///
/// `X` is the rank of a batch of samples; `positions` is the product of the axes after the
/// channels.
#[derive(Clone, Debug)]
pub struct LogisticMixture<const X: usize = 4> {
    /// Logits of the components, `[batch, components, positions]`.
    pub logits: Tensor<3>,
    /// Means, `[batch, channels, components, positions]`.
    pub means: Tensor<4>,
    /// Logarithms of the scales, `[batch, channels, components, positions]`.
    pub log_scales: Tensor<4>,
    /// Factors, in `(−1, 1)`, of the values of earlier channels: first of channel 0 for channel 1,
    /// then of 0 and 1 for channel 2, and so on; `[batch, pairs, components, positions]`. `None`
    /// with one channel.
    pub coefficients: Option<Tensor<4>>,
    /// Shape of the samples.
    shape: [usize; X],
}

impl<const X: usize> LogisticMixture<X> {
    /// The mixtures for the `output` of a decoder: `components` logits, `channels·components`
    /// means and as many logarithms of scales, clamped softly to `[−7, 7]`, and
    /// `channels·(channels − 1)/2·components` arguments of the hyperbolic tangent that gives the
    /// coefficients.
    ///
    /// # Shapes
    /// - output: `[batch, components·(channels + 1)·(channels + 2)/2, …]`
    ///
    /// # Panics
    /// If `output` does not have such a number of channels.
    pub fn new(components: usize, output: Tensor<X>) -> Self {
        let mut shape = output.dims();
        let [batch, outputs] = [shape[0], shape[1]];
        let needed = |channels| components.saturating_mul(outputs_per_component(channels));
        let channels = (1..=outputs).find(|c| needed(*c) >= outputs).unwrap_or(0);
        assert!(
            channels > 0 && needed(channels) == outputs,
            "{outputs} outputs of a decoder are not mixtures of {components} logistic distributions"
        );
        shape[1] = channels;
        let positions = shape[2..].iter().product::<usize>();
        let output: Tensor<3> = output.reshape([batch, outputs, positions]);
        let take = |first: usize, count: usize| {
            let part = (output.clone()).narrow(1, first * components, count * components);
            part.reshape::<4, _>([batch, count, components, positions])
        };
        let pairs = channels * (channels - 1) / 2;
        Self {
            logits: take(0, 1).squeeze_dim(1),
            means: take(1, channels),
            log_scales: soft_clamp(take(1 + channels, channels), LOG_SCALE),
            coefficients: (pairs > 0)
                .then(|| Activation::Tanh.forward(take(1 + 2 * channels, pairs))),
            shape,
        }
    }

    /// The logarithm of the probability of the levels `x` in nats. A value between two levels
    /// counts as an interval as wide as a level around it.
    ///
    /// # Shapes
    /// - x: `[batch, channels, …]`, in `[0, 1]`
    /// - output: `[batch]`
    pub fn log_prob(&self, x: Tensor<X>) -> Tensor<1> {
        let [batch, channels, _, positions] = self.means.dims();
        let x = x.reshape([batch, channels, 1, positions]) * 2.0 - 1.0;
        sum_values(self.log_prob_of_positions(x))
    }

    /// `log Σ π·p(x)` of every position, for `x` in `[−1, 1]`.
    ///
    /// # Shapes
    /// - x: `[batch, channels, 1, positions]`
    /// - output: `[batch, 1, positions]`
    fn log_prob_of_positions(&self, x: Tensor<4>) -> Tensor<3> {
        let weights = activation::log_softmax(self.logits.clone(), 1);
        log_sum_exp(weights + self.log_prob_of_components(x), 1)
    }

    /// The log-probability of all channels under every component, for `x` in `[−1, 1]`.
    ///
    /// # Shapes
    /// - x: `[batch, channels, 1, positions]`
    /// - output: `[batch, components, positions]`
    fn log_prob_of_components(&self, x: Tensor<4>) -> Tensor<3> {
        // 1 for levels with a midpoint above them, and with one below them.
        let not_highest = x.clone().lower_elem(1.0 - HALF_LEVEL).float();
        let not_lowest = x.clone().greater_elem(HALF_LEVEL - 1.0).float();
        let inverse = (-self.log_scales.clone()).exp();
        // With u and l the scaled midpoints above and below, σ(u) − σ(l) is
        // σ(u)·σ(−l)·(1 − e^−(u−l)): no difference of nearly equal numbers, however small or far
        // from the mean the interval is. The last factor is written with the hyperbolic tangent
        // t of (u − l)/2, as 2t/(1 + t), which is exact for small differences.
        let tanh = Activation::Tanh.forward(inverse.clone() * HALF_LEVEL);
        let width = (tanh.clone() * 2.0).log() - tanh.log1p();
        let centred = x.clone() - self.locations(x);
        let upper = (centred.clone() + HALF_LEVEL) * inverse.clone();
        let lower = (centred - HALF_LEVEL) * inverse;
        let log_prob = width * (not_highest.clone() * not_lowest.clone())
            - softplus(-upper) * not_highest
            - softplus(lower) * not_lowest;
        log_prob.sum_dim(1).squeeze_dim(1)
    }

    /// The locations of all channels, given the values `x` in `[−1, 1]` of the channels before.
    ///
    /// # Shapes
    /// - x: `[batch, channels, 1, positions]`
    /// - output: `[batch, channels, components, positions]`
    fn locations(&self, x: Tensor<4>) -> Tensor<4> {
        if self.coefficients.is_none() {
            return self.means.clone();
        }
        let channels = x.dims()[1];
        let part = |channel| x.clone().narrow(1, channel, 1);
        let values: Vec<Tensor<4>> = (0..channels).map(part).collect();
        let locations = (0..channels).map(|channel| self.location(channel, &values));
        Tensor::cat(locations.collect(), 1)
    }

    /// The location of a channel, given the values of at least all channels before.
    ///
    /// # Shapes
    /// - values: `[batch, 1, 1 or components, positions]`, in `[−1, 1]`
    /// - output: `[batch, 1, components, positions]`
    fn location(&self, channel: usize, values: &[Tensor<4>]) -> Tensor<4> {
        let mean = self.means.clone().narrow(1, channel, 1);
        let Some(coefficients) = &self.coefficients else {
            return mean;
        };
        let first = channel * channel.saturating_sub(1) / 2;
        (0..channel).fold(mean, |location, before| {
            let coefficient = coefficients.clone().narrow(1, first + before, 1);
            location + coefficient * values[before].clone()
        })
    }

    /// Computes the values of all channels one after the other: `value` gets the location of a
    /// channel and the logarithm of its scale.
    ///
    /// # Shapes
    /// - output: `[batch, channels, components, positions]`, in `[−1, 1]`
    fn channel_by_channel(
        &self,
        mut value: impl FnMut(Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let channels = self.means.dims()[1];
        let mut values: Vec<Tensor<4>> = Vec::with_capacity(channels);
        for channel in 0..channels {
            let location = self.location(channel, &values);
            values.push(value(
                location,
                self.log_scales.clone().narrow(1, channel, 1),
            ));
        }
        Tensor::cat(values, 1)
    }

    /// The samples of values `[batch, channels, 1, positions]` in `[−1, 1]`.
    fn samples(&self, values: Tensor<4>) -> Tensor<X> {
        ((values + 1.0) * 0.5).reshape(self.shape)
    }

    /// The mean, `[batch, channels, …]`, in `[0, 1]`: that of the logistic distributions clipped to
    /// `[0, 1]`, in closed form, which is at most half a level from the mean of the levels. For the
    /// location of a channel, the channels before have their means in the component; this is exact
    /// but for the clipping.
    pub fn mean(&self) -> Tensor<X> {
        let means = self.channel_by_channel(|location, log_scale| {
            // −1 + ∫ σ((m − x)/s) dx over [−1, 1].
            let (scale, inverse) = (log_scale.clone().exp(), (-log_scale).exp());
            let above = softplus((location.clone() + 1.0) * inverse.clone());
            let below = softplus((location - 1.0) * inverse);
            ((above - below) * scale - 1.0).clamp(-1.0, 1.0)
        });
        let weights = activation::softmax(self.logits.clone(), 1).unsqueeze_dim::<4>(1);
        self.samples((means * weights).sum_dim(2))
    }

    /// An approximation of the most probable sample, `[batch, channels, …]`: of the samples at the
    /// locations of the components, the one that is most probable under the mixture.
    pub fn mode(&self) -> Tensor<X> {
        let candidates = self.channel_by_channel(|location, _| nearest_level(location));
        let components = candidates.dims()[2];
        let log_probs: Vec<Tensor<3>> = (0..components)
            .map(|k| self.log_prob_of_positions(candidates.clone().narrow(2, k, 1)))
            .collect();
        let best = Tensor::cat(log_probs, 1).argmax(1);
        self.samples(select(candidates, best))
    }

    /// Draws a sample, `[batch, channels, …]`, of levels.
    pub fn sample(&self, rng: &mut Rng) -> Tensor<X> {
        let device = self.logits.device();
        // Uniform numbers without 0 and 1, whose logarithms or logits are infinite.
        let mut uniform = |count: usize| rng.uniform_vec(count, f32::EPSILON, 1.0 - f32::EPSILON);
        // The component with the largest sum of logit and Gumbel noise has its probability.
        let [batch, components, positions] = self.logits.dims();
        let noise = TensorData::new(uniform(batch * components * positions), self.logits.dims());
        let gumbel = -(-Tensor::<3>::from_data(noise, &device).log()).log();
        let chosen = (self.logits.clone() + gumbel).argmax(1);
        let select = |x: &Tensor<4>| select(x.clone(), chosen.clone());
        let component = Self {
            logits: Tensor::zeros([batch, 1, positions], &device),
            means: select(&self.means),
            log_scales: select(&self.log_scales),
            coefficients: self.coefficients.as_ref().map(select),
            shape: self.shape,
        };
        let values = component.channel_by_channel(|location, log_scale| {
            let noise = TensorData::new(uniform(batch * positions), location.dims());
            let noise = Tensor::<4>::from_data(noise, &device);
            let logistic = noise.clone().log() - (-noise + 1.0).log();
            nearest_level(location + logistic * log_scale.exp())
        });
        self.samples(values)
    }
}

/// The nearest level in `[−1, 1]`.
fn nearest_level(x: Tensor<4>) -> Tensor<4> {
    ((x.clamp(-1.0, 1.0) + 1.0) * (0.5 / HALF_LEVEL)).round() * (2.0 * HALF_LEVEL) - 1.0
}

/// The components of `x` with these indices.
///
/// # Shapes
/// - x: `[batch, channels, components, positions]`
/// - indices: `[batch, 1, positions]`
/// - output: `[batch, channels, 1, positions]`
fn select(x: Tensor<4>, indices: Tensor<3, Int>) -> Tensor<4> {
    let channels = x.dims()[1];
    let indices = indices.unsqueeze_dim::<4>(1).repeat_dim(1, channels);
    x.gather(2, indices)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{Likelihood, LikelihoodKind};
    use aigc_core::testing::values;
    use burn::tensor::Device;

    /// The output of a decoder for three channels. Every row has the numbers of two components:
    /// logits, means, logarithms of scales, arguments of coefficients.
    const THREE_CHANNELS: [[f64; 2]; 10] = [
        [0.3, -0.5],
        [-0.2, 0.5],
        [0.1, -0.8],
        [0.6, 0.0],
        [-2.0, -1.0],
        [-1.0, -2.5],
        [-1.5, -0.5],
        [0.4, -1.2],
        [-0.7, 0.3],
        [0.9, 0.2],
    ];

    /// The output of a decoder for one channel, and the same with narrow components.
    const ONE_CHANNEL: [[f64; 2]; 3] = [[0.3, -0.5], [-0.5, 0.9], [-2.0, -1.0]];
    const NARROW: [[f64; 2]; 3] = [[0.3, -0.5], [-0.5, 0.5], [-3.0, -6.0]];

    fn signed(level: usize) -> f64 {
        2.0 * level as f64 / 255.0 - 1.0
    }

    /// The probability of a level, as the difference of two values of the distribution function.
    fn probability(level: usize, location: f64, raw_log_scale: f64) -> f64 {
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        let above = softplus(raw_log_scale + 7.0) - 7.0;
        let scale = (7.0 - softplus(7.0 - above)).exp();
        let below = |edge: f64| 1.0 / (1.0 + ((location - edge) / scale).exp());
        let upper = match level {
            255 => 1.0,
            _ => below(signed(level) + 1.0 / 255.0),
        };
        let lower = match level {
            0 => 0.0,
            _ => below(signed(level) - 1.0 / 255.0),
        };
        upper - lower
    }

    /// The probability of the levels of all channels of a position.
    fn by_hand(output: &[[f64; 2]], levels: &[usize]) -> f64 {
        let channels = levels.len();
        let total = output[0][0].exp() + output[0][1].exp();
        let component = |k: usize| {
            let mut product = output[0][k].exp() / total;
            let mut pair = 1 + 2 * channels;
            for (channel, level) in levels.iter().enumerate() {
                let mut location = output[1 + channel][k];
                for before in &levels[..channel] {
                    location += output[pair][k].tanh() * signed(*before);
                    pair += 1;
                }
                product *= probability(*level, location, output[1 + channels + channel][k]);
            }
            product
        };
        component(0) + component(1)
    }

    /// `n` positions with the same output, `[1, outputs, n]`.
    fn positions<const K: usize>(output: &[[f64; K]], n: usize, device: &Device) -> Tensor<3> {
        let numbers: Vec<f32> = output.iter().flatten().map(|x| *x as f32).collect();
        let count = numbers.len();
        let one = Tensor::from_data(TensorData::new(numbers, [1, count, 1]), device);
        one.repeat_dim(2, n)
    }

    fn of(components: usize, output: Tensor<3>) -> Likelihood<3> {
        Likelihood::new(LikelihoodKind::LogisticMixture { components }, output)
    }

    /// All 256 levels, `[256, 1, 1]`.
    fn all_levels(device: &Device) -> Tensor<3> {
        let levels: Vec<f32> = (0..256).map(|level| level as f32 / 255.0).collect();
        Tensor::from_data(TensorData::new(levels, [256, 1, 1]), device)
    }

    #[test]
    fn outputs_of_a_component_are_counted() {
        assert_eq!(outputs_per_component(1), 3);
        assert_eq!(outputs_per_component(3), 10);
        for c in 1..20 {
            assert_eq!(outputs_per_component(c), 1 + 2 * c + c * (c - 1) / 2);
        }
    }

    #[test]
    #[should_panic(expected = "5 outputs of a decoder are not mixtures of 2")]
    fn other_numbers_of_outputs_panic() {
        of(2, Tensor::zeros([1, 5, 1], &Device::flex()));
    }

    #[test]
    fn log_prob_is_a_difference_of_distribution_functions() {
        let device = Device::flex();
        let all = [
            [0, 128, 255],
            [255, 0, 3],
            [10, 20, 30],
            [200, 255, 0],
            [254, 1, 127],
        ];
        for levels in all {
            let x: Vec<f32> = levels.iter().map(|level| *level as f32 / 255.0).collect();
            let x = Tensor::from_data(TensorData::new(x, [1, 3, 1]), &device);
            let likelihood = of(2, positions(&THREE_CHANNELS, 1, &device));
            let found = f64::from(values(likelihood.log_prob(x))[0]);
            let expected = by_hand(&THREE_CHANNELS, &levels).ln();
            assert!(
                (found - expected).abs() < 2e-4,
                "{levels:?}: {found} {expected}"
            );
        }
    }

    /// Narrow and wide, inside and far outside.
    #[test]
    fn probabilities_of_all_levels_sum_to_one() {
        let device = Device::flex();
        for (mean, log_scale) in [
            (0.0, 0.0),
            (-3.0, -2.0),
            (1.5, -9.0),
            (0.3, -7.0),
            (0.0, 50.0),
            (40.0, -7.0),
        ] {
            let output = positions(&[[0.0], [mean], [log_scale]], 1, &device).repeat_dim(0, 256);
            let log_prob = of(1, output).log_prob(all_levels(&device));
            let sum: f64 = values(log_prob).iter().map(|p| f64::from(*p).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-4, "{mean} {log_scale}: {sum}");
        }
    }

    #[test]
    fn extreme_outputs_have_finite_gradients() {
        let device = Device::flex().autodiff();
        let n = 64;
        let signs = Rng::new(3).uniform_vec(20 * n, -1.0, 1.0);
        let extreme = signs.iter().map(|s| 1e4 * s.signum()).collect::<Vec<f32>>();
        let output =
            Tensor::<3>::from_data(TensorData::new(extreme, [1, 20, n]), &device).require_grad();
        for level in [0.0, 0.5, 1.0] {
            let x = Tensor::full([1, 3, n], level, &device);
            let log_prob = of(2, output.clone()).log_prob(x);
            assert!(values(log_prob.clone()).iter().all(|p| p.is_finite()));
            let gradient = output.grad(&log_prob.backward()).unwrap();
            assert!(values(gradient).iter().all(|g| g.is_finite()), "{level}");
        }
    }

    #[test]
    fn mean_is_that_of_the_levels() {
        let device = Device::flex();
        // Half a level where the scale is below a level.
        for (output, tolerance) in [(ONE_CHANNEL, 1e-5), (NARROW, 1.0 / 510.0)] {
            let found = f64::from(values(of(2, positions(&output, 1, &device)).mean())[0]);
            let expected: f64 = (0..256)
                .map(|level| level as f64 / 255.0 * by_hand(&output, &[level]))
                .sum();
            assert!((found - expected).abs() < tolerance, "{found} {expected}");
        }
    }

    #[test]
    fn mode_is_the_most_probable_level() {
        let found = values(of(2, positions(&NARROW, 1, &Device::flex())).mode())[0];
        let best = (0..256usize)
            .max_by(|a, b| by_hand(&NARROW, &[*a]).total_cmp(&by_hand(&NARROW, &[*b])))
            .unwrap();
        assert!((found * 255.0 - best as f32).abs() < 1e-3, "{found} {best}");
    }

    /// Within five standard deviations of the mean and of the share of the highest level.
    #[test]
    fn samples_have_the_probabilities_of_the_levels() {
        let n = 20_000;
        let samples = of(2, positions(&ONE_CHANNEL, n, &Device::flex())).sample(&mut Rng::new(2));
        let levels: Vec<f64> = (values(samples).iter())
            .map(|x| f64::from(*x) * 255.0)
            .collect();
        assert!(
            levels
                .iter()
                .all(|level| (level - level.round()).abs() < 1e-3)
        );
        let expected: Vec<f64> = (0..256).map(|k| by_hand(&ONE_CHANNEL, &[k])).collect();
        let moment = |power: i32| -> f64 {
            (expected.iter().enumerate())
                .map(|(level, p)| p * (level as f64).powi(power))
                .sum()
        };
        let mean = levels.iter().sum::<f64>() / n as f64;
        let deviation = ((moment(2) - moment(1).powi(2)) / n as f64).sqrt();
        assert!((mean - moment(1)).abs() < 5.0 * deviation, "{mean}");
        let share = levels.iter().filter(|level| level.round() == 255.0).count() as f64 / n as f64;
        let deviation = (expected[255] * (1.0 - expected[255]) / n as f64).sqrt();
        assert!((share - expected[255]).abs() < 5.0 * deviation, "{share}");
    }

    /// The second channel is `0.1 + tanh(0.5)·` the first one, plus logistic noise; the least
    /// squares slope is within five standard deviations.
    #[test]
    fn sampled_channels_are_coupled_linearly() {
        let n = 20_000;
        let output = [[0.0], [0.0], [0.1], [-2.0], [-4.0], [0.5]];
        let samples = of(1, positions(&output, n, &Device::flex())).sample(&mut Rng::new(6));
        let samples = values(samples * 2.0 - 1.0);
        let (first, second) = samples.split_at(n);
        let [mut products, mut squares] = [0.0, 0.0];
        for (a, b) in first.iter().zip(second) {
            let (a, b) = (f64::from(*a), f64::from(*b) - 0.1);
            products += a * b;
            squares += a * a;
        }
        let slope = products / squares;
        // The standard deviation of a logistic distribution is `π/√3` scales.
        let noise = std::f64::consts::PI / 3f64.sqrt() * (-3.9f64).exp();
        assert!(
            (slope - 0.5f64.tanh()).abs() < 5.0 * noise / squares.sqrt(),
            "{slope}"
        );
    }
}
