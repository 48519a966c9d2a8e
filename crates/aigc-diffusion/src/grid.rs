//! Spacings of timesteps and sigmas.

use crate::schedule::NoiseScheduleConfig;
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How the steps of sampling are spread over the steps of the forward process (Lin et al. 2024,
/// table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimestepSpacing {
    /// Evenly spaced from the first step to the last, both included.
    Linspace,
    /// Multiples of a whole number of steps, from the first step on.
    Leading,
    /// Evenly spaced downwards from the last step.
    Trailing,
}

/// What follows the last network call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinalSigmas {
    /// σ = 0: a sample without noise.
    Zero,
    /// The σ of the first step of the forward process.
    SigmaMin,
}

/// `T`, the steps of the forward process, and `n`, those of sampling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    pub(crate) train: usize,
    pub(crate) sample: usize,
}

impl Steps {
    pub(crate) fn new(train: usize, sample: usize) -> Result<Self> {
        if sample == 0 || sample > train {
            return Err(Error::argument(
                "steps",
                sample,
                format!("1 to num_train_timesteps ({train})"),
            ));
        }
        Ok(Self { train, sample })
    }

    /// Steps of the forward process between two of sampling, rounded down.
    pub(crate) fn stride(self) -> usize {
        self.train / self.sample
    }

    /// Falling times, as DDPM and related schedulers space them: whole numbers.
    pub(crate) fn whole(self, spacing: TimestepSpacing, offset: usize) -> Result<Vec<f64>> {
        let times = match spacing {
            TimestepSpacing::Linspace => (0..self.sample).rev().map(|i| self.line(i)).collect(),
            other => self.real(other, offset)?,
        };
        self.within(
            times.into_iter().map(f64::round_ties_even).collect(),
            offset,
        )
    }

    /// Falling times, as samplers over σ space them: where they do not start or end at a whole
    /// number, in between.
    pub(crate) fn real(self, spacing: TimestepSpacing, offset: usize) -> Result<Vec<f64>> {
        self.check_offset(offset)?;
        let times: Vec<f64> = match spacing {
            TimestepSpacing::Linspace => (0..self.sample)
                .rev()
                .map(|i| in_32_bits(self.line(i)))
                .collect(),
            TimestepSpacing::Leading => (0..self.sample)
                .rev()
                .map(|i| (i * self.stride() + offset) as f64)
                .collect(),
            TimestepSpacing::Trailing => self.trailing(self.train),
        };
        self.within(times, offset)
    }

    /// Falling whole times, as the solvers in λ space them: one step more than is run, without its
    /// last.
    pub(crate) fn solver(
        self,
        spacing: TimestepSpacing,
        offset: usize,
        last: usize,
    ) -> Result<Vec<f64>> {
        self.check_offset(offset)?;
        let n = self.sample;
        if spacing == TimestepSpacing::Leading && n >= last {
            return Err(Error::argument(
                "steps",
                n,
                format!("less than {last}, for times a whole number apart"),
            ));
        }
        let times = match spacing {
            TimestepSpacing::Linspace => (1..=n)
                .rev()
                .map(|i| at(0.0, last as f64 - 1.0, i, n + 1).round_ties_even())
                .collect(),
            TimestepSpacing::Leading => (1..=n)
                .rev()
                .map(|i| (i * (last / (n + 1)) + offset) as f64)
                .collect(),
            TimestepSpacing::Trailing => self.trailing(last),
        };
        self.within(times, offset)
    }

    fn line(self, i: usize) -> f64 {
        at(0.0, self.train as f64 - 1.0, i, self.sample)
    }

    /// From `last` down. The distance is rounded as NumPy's `arange` rounds it: that decides which
    /// whole number a half becomes. (For a few numbers of steps, 61 among them, `arange` gives one
    /// time too many; here it is as many as requested.)
    fn trailing(self, last: usize) -> Vec<f64> {
        let (last, step) = (last as f64, self.train as f64 / self.sample as f64);
        let distance = (last - step) - last;
        (0..self.sample)
            .map(|i| (last + i as f64 * distance).round_ties_even() - 1.0)
            .collect()
    }

    fn check_offset(self, offset: usize) -> Result<()> {
        if offset < self.train {
            return Ok(());
        }
        Err(Error::config(
            "steps_offset",
            offset,
            format!("less than num_train_timesteps ({})", self.train),
        ))
    }

    fn within(self, times: Vec<f64>, offset: usize) -> Result<Vec<f64>> {
        if times[0] > self.train as f64 - 1.0 {
            let most = offset.saturating_sub((times[0] - self.train as f64 + 1.0) as usize);
            return Err(Error::config(
                "steps_offset",
                offset,
                format!("at most {most} for {} steps", self.sample),
            ));
        }
        match times.iter().find(|time| **time < 0.0) {
            Some(_) => Err(Error::argument(
                "steps",
                self.sample,
                "steps that stay within the forward process",
            )),
            None => Ok(times),
        }
    }
}

/// Point `i` of `n` on the line from `start` to `end`, both included; rounded as NumPy's
/// `linspace`.
pub(crate) fn at(start: f64, end: f64, i: usize, n: usize) -> f64 {
    match i {
        0 => start,
        i if i + 1 == n => end,
        i => start + i as f64 * ((end - start) / (n - 1) as f64),
    }
}

/// The value of a 32-bit table.
pub(crate) fn in_32_bits(value: f64) -> f64 {
    f64::from(value as f32)
}

/// Flags that select the spacing of the sigmas; without any, the sigmas are those of the
/// timesteps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigmaScheduleFlags {
    /// Sigmas are evenly spaced in `σ^(1/7)` (Karras et al. 2022,
    /// <https://arxiv.org/abs/2206.00364>, equation 5).
    pub use_karras_sigmas: bool,
    /// Sigmas are evenly spaced in `ln σ`.
    pub use_exponential_sigmas: bool,
    /// Sigmas are quantiles of a beta distribution (Lee et al. 2024,
    /// <https://arxiv.org/abs/2407.12173>).
    pub use_beta_sigmas: bool,
}

/// The spacing of the sigmas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigmaSpacing {
    /// The sigmas of the timesteps.
    Timesteps,
    /// Evenly spaced in `σ^(1/7)`.
    Karras,
    /// Evenly spaced in `ln σ`.
    Exponential,
    /// Quantiles of `Beta(0.6, 0.6)`.
    Beta,
    /// Evenly spaced in `λ = −ln σ` (Lu et al. 2022, <https://arxiv.org/abs/2206.00927>).
    Lu,
    /// Evenly spaced in the `σ` of a flow, then shifted.
    Flow,
}

impl SigmaScheduleFlags {
    /// The spacing that the flags select.
    ///
    /// # Errors
    /// [`Error::Config`] if more than one flag is true.
    pub fn spacing(&self) -> Result<SigmaSpacing> {
        self.with(&[])
    }

    /// The spacing that these flags and `others` select.
    pub(crate) fn with(&self, others: &[(&str, bool, SigmaSpacing)]) -> Result<SigmaSpacing> {
        let own = [
            (
                "use_karras_sigmas",
                self.use_karras_sigmas,
                SigmaSpacing::Karras,
            ),
            (
                "use_exponential_sigmas",
                self.use_exponential_sigmas,
                SigmaSpacing::Exponential,
            ),
            ("use_beta_sigmas", self.use_beta_sigmas, SigmaSpacing::Beta),
        ];
        let chosen: Vec<_> = own
            .iter()
            .chain(others)
            .filter(|(_, chosen, _)| *chosen)
            .collect();
        match chosen[..] {
            [] => Ok(SigmaSpacing::Timesteps),
            [(_, _, spacing)] => Ok(*spacing),
            [(first, ..), (second, ..), ..] => Err(Error::config(
                *second,
                true,
                format!("false, since `{first}` is true"),
            )),
        }
    }
}

/// The σ of a variance-exploding process that has the signal-to-noise ratio of `ᾱ`, `√((1 − ᾱ)/ᾱ)`.
#[derive(Clone, Debug)]
pub(crate) struct SigmaTable {
    pub(crate) sigmas: Vec<f64>,
    logs: Vec<f64>,
}

impl SigmaTable {
    pub(crate) fn new(alphas_cumprod: &[f64]) -> Self {
        let sigma = |alpha: &f64| in_32_bits(((1.0 - alpha) / alpha).sqrt());
        let sigmas: Vec<f64> = alphas_cumprod.iter().map(sigma).collect();
        // In 32 bits too: where times are cut to whole numbers, a last digit decides which.
        let logs = sigmas.iter().map(|sigma| in_32_bits(sigma.ln())).collect();
        Self { sigmas, logs }
    }

    /// The table of a noise configuration; where its end is pure noise, the last σ is 4096 instead
    /// of infinite.
    pub(crate) fn of(noise: &NoiseScheduleConfig, zero_snr: bool) -> Result<Self> {
        if !zero_snr {
            return Ok(Self::new(&noise.alphas_cumprod()?));
        }
        let mut alphas = noise.alphas_cumprod_zero_snr()?;
        *alphas.last_mut().expect("two or more") = 2f64.powi(-24);
        Ok(Self::new(&alphas))
    }

    pub(crate) fn min(&self) -> f64 {
        self.sigmas[0]
    }

    pub(crate) fn max(&self) -> f64 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// σ at a time between two steps.
    pub(crate) fn sigma(&self, time: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let low = (time.floor() as usize).min(last);
        let high = (low + 1).min(last);
        self.sigmas[low] + (time - low as f64) * (self.sigmas[high] - self.sigmas[low])
    }

    /// The time at which the process has this σ, linear in `ln σ` between steps.
    pub(crate) fn time(&self, sigma: f64) -> f64 {
        let log = sigma.max(1e-10).ln();
        let low = self
            .logs
            .partition_point(|other| *other <= log)
            .clamp(1, self.logs.len() - 1)
            - 1;
        let share = (self.logs[low] - log) / (self.logs[low] - self.logs[low + 1]);
        low as f64 + share.clamp(0.0, 1.0)
    }
}

/// Falling σ from `range.0` to `range.1`.
pub(crate) fn spaced(spacing: SigmaSpacing, range: (f64, f64), n: usize) -> Vec<f64> {
    let (max, min) = range;
    match spacing {
        SigmaSpacing::Karras => karras(min, max, 7.0, n),
        SigmaSpacing::Beta => (0..n)
            .map(|i| min + beta_quantile(1.0 - at(0.0, 1.0, i, n)) * (max - min))
            .collect(),
        SigmaSpacing::Lu | SigmaSpacing::Exponential => exponential(min, max, n),
        SigmaSpacing::Timesteps | SigmaSpacing::Flow => unreachable!("not computed from a range"),
    }
}

/// `n` falling σ, evenly in `σ^(1/ρ)`.
pub(crate) fn karras(min: f64, max: f64, rho: f64, n: usize) -> Vec<f64> {
    let (low, high) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    (0..n).map(|i| at(high, low, i, n).powf(rho)).collect()
}

/// `n` falling σ, evenly in `ln σ`.
pub(crate) fn exponential(min: f64, max: f64, n: usize) -> Vec<f64> {
    (0..n).map(|i| at(max.ln(), min.ln(), i, n).exp()).collect()
}

/// The quantile of `Beta(0.6, 0.6)`, by bisection of its distribution function.
fn beta_quantile(p: f64) -> f64 {
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p);
    }
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if beta_cdf(middle) < p {
            low = middle
        } else {
            high = middle
        }
    }
    0.5 * (low + high)
}

/// `∫₀ˣ t^(a−1) (1−t)^(a−1) dt`, `a = 0.6`, against twice its value at a half; `x` at most a half.
/// The binomial series of the second factor, integrated term by term, converges like `x^n`.
fn beta_cdf(x: f64) -> f64 {
    const A: f64 = 0.6;
    let part = |x: f64| {
        let (mut sum, mut term) = (0.0, 1.0);
        for n in 0..80 {
            sum += term / (A + f64::from(n));
            term *= x * (f64::from(n) + 1.0 - A) / (f64::from(n) + 1.0);
        }
        x.powf(A) * sum
    };
    part(x) / (2.0 * part(0.5))
}

/// The noise levels of a sampler over `σ/α`.
#[derive(Clone, Debug)]
pub(crate) struct SigmaGrid {
    /// One for each step.
    pub(crate) times: Vec<f64>,
    /// One for each step, and the one after the last.
    pub(crate) sigmas: Vec<f64>,
}

impl SigmaGrid {
    /// Rounded to 32 bits, as networks receive them.
    pub(crate) fn new(times: Vec<f64>, mut sigmas: Vec<f64>, last: f64) -> Self {
        sigmas.push(last);
        Self {
            times,
            sigmas: sigmas.into_iter().map(in_32_bits).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacings_match_the_paper() {
        // Lin et al. 2024, table 2: 1000 steps of the forward process, 10 of sampling (counted from
        // 1 there).
        let steps = Steps::new(1000, 10).unwrap();
        let all = |spacing| steps.whole(spacing, 0).unwrap();
        assert_eq!(
            all(TimestepSpacing::Leading),
            [900., 800., 700., 600., 500., 400., 300., 200., 100., 0.]
        );
        assert_eq!(
            all(TimestepSpacing::Linspace),
            [999., 888., 777., 666., 555., 444., 333., 222., 111., 0.]
        );
        assert_eq!(
            all(TimestepSpacing::Trailing),
            [999., 899., 799., 699., 599., 499., 399., 299., 199., 99.]
        );
        // Where a half is only nearly one: as NumPy rounds.
        let middle =
            |n, spacing, i: usize| Steps::new(1000, n).unwrap().whole(spacing, 0).unwrap()[i];
        assert_eq!(
            middle(27, TimestepSpacing::Linspace, 13),
            (13.0f64 * (999.0 / 26.0)).round_ties_even()
        );
        assert_eq!(
            Steps::new(1000, 30)
                .unwrap()
                .solver(TimestepSpacing::Linspace, 0, 1000)
                .unwrap()[15],
            499.0
        );
        assert_eq!(middle(48, TimestepSpacing::Trailing, 3), 936.0);
        assert!(Steps::new(1000, 0).is_err() && Steps::new(1000, 1001).is_err());
        let message = steps
            .whole(TimestepSpacing::Leading, 200)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`steps_offset` is 200, expected at most 99"),
            "{message}"
        );
        assert!(steps.whole(TimestepSpacing::Leading, usize::MAX).is_err());
    }

    #[test]
    fn time_and_sigma_are_inverse() {
        let table = SigmaTable::of(&NoiseScheduleConfig::default(), false).unwrap();
        for time in [0.0, 1.0, 500.0, 998.0, 999.0] {
            assert!((table.time(table.sigma(time)) - time).abs() < 1e-3);
        }
        assert_eq!((table.time(0.0), table.time(1e9)), (0.0, 999.0));
        let between = table.sigma(500.5);
        assert!((table.time(between) - 500.5).abs() < 1e-2);
        let end = SigmaTable::of(&NoiseScheduleConfig::default(), true)
            .unwrap()
            .max();
        assert!((end - 4096.0).abs() < 1e-3, "{end}");
    }

    #[test]
    fn sigmas_match_their_formulas() {
        let karras = karras(0.002, 80.0, 7.0, 18);
        assert!((karras[0] - 80.0).abs() < 1e-9 && (karras[17] - 0.002).abs() < 1e-12);
        let roots: Vec<f64> = karras.iter().map(|sigma| sigma.powf(1.0 / 7.0)).collect();
        assert!(
            roots
                .windows(3)
                .all(|r| (r[0] - 2.0 * r[1] + r[2]).abs() < 1e-12)
        );
        let even = exponential(0.1, 10.0, 5);
        assert!(
            even.windows(2)
                .all(|pair| (pair[0] / pair[1] - 10f64.sqrt()).abs() < 1e-9)
        );
        // Quantiles of Beta(0.6, 0.6), of another implementation (scipy.stats.beta.ppf).
        let others = [
            (0.1, 0.03958440558878085),
            (0.25, 0.17568037865269498),
            (0.5, 0.5),
            (0.9, 0.9604155944112192),
        ];
        for (p, quantile) in others {
            let found = beta_quantile(p);
            assert!((found - quantile).abs() < 1e-10, "{p}: {found}");
        }
        assert_eq!(
            (beta_quantile(0.0) < 1e-12, beta_quantile(1.0) > 1.0 - 1e-12),
            (true, true)
        );
        let both = SigmaScheduleFlags {
            use_karras_sigmas: true,
            use_beta_sigmas: true,
            ..SigmaScheduleFlags::default()
        };
        let message = both.spacing().unwrap_err().to_string();
        assert!(
            message
                .contains("`use_beta_sigmas` is true, expected false, since `use_karras_sigmas`"),
            "{message}"
        );
    }
}
