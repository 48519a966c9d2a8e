//! Noise schedules: the share of the image and of the noise after `t` steps.
//!
//! The forward process keeps `x_t = √ᾱ_t · x₀ + √(1 − ᾱ_t) · ε` with `ᾱ_t = Π (1 − β_s)` (Ho et al.
//! 2020,
//! <https://arxiv.org/abs/2006.11239>, equation 4).

use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The shape of `β` over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BetaSchedule {
    /// A straight line (Ho et al. 2020).
    Linear,
    /// The square of a straight line between the roots (latent diffusion, Rombach et al. 2022).
    ScaledLinear,
    /// `ᾱ_t = cos²((t/T + 0.008) / 1.008 · π/2)`, each β at most 0.999 (Nichol & Dhariwal 2021,
    /// equation 17).
    #[serde(rename = "squaredcos_cap_v2")]
    Cosine,
    /// A logistic curve from −6 to 6 (GeoDiff, Xu et al. 2022).
    Sigmoid,
    /// `ᾱ` of a Laplace-distributed log signal-to-noise ratio (Hang et al. 2024,
    /// <https://arxiv.org/abs/2407.03297>).
    Laplace,
}

/// The noise of a discrete forward process. Written as diffusers writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseScheduleConfig {
    /// Steps of the forward process.
    pub num_train_timesteps: usize,
    /// The first β.
    pub beta_start: f64,
    /// The last β.
    pub beta_end: f64,
    /// The shape of β between the first and the last.
    pub beta_schedule: BetaSchedule,
    /// The values of β themselves, in place of `beta_start`, `beta_end` and `beta_schedule`.
    pub trained_betas: Option<Vec<f64>>,
}

impl Default for NoiseScheduleConfig {
    /// A thousand steps with β on a straight line from 1e-4 to 0.02 (Ho et al. 2020).
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
        }
    }
}

impl NoiseScheduleConfig {
    /// The cosine schedule of `num_train_timesteps` steps.
    pub fn cosine(num_train_timesteps: usize) -> Self {
        Self {
            num_train_timesteps,
            beta_schedule: BetaSchedule::Cosine,
            ..Self::default()
        }
    }

    /// `ᾱ_0 … ᾱ_{T−1}`.
    ///
    /// β and 1 − β are rounded to 32 bits, as they were when the networks in circulation were
    /// trained: at the first steps `1 − ᾱ` is so small that the rounding shows.
    ///
    /// # Errors
    /// [`Error::Config`] names a field out of range.
    pub fn alphas_cumprod(&self) -> Result<Vec<f64>> {
        Ok(cumprod(&self.betas()?))
    }

    /// The same, scaled and shifted so that the last is 0: the last step is pure noise (Lin et al.
    /// 2024,
    /// <https://arxiv.org/abs/2305.08891>, algorithm 1).
    ///
    /// # Errors
    /// [`Error::Config`] names a field out of range.
    pub fn alphas_cumprod_zero_snr(&self) -> Result<Vec<f64>> {
        let roots: Vec<f32> = cumprod(&self.betas()?)
            .into_iter()
            .map(|alpha| (alpha as f32).sqrt())
            .collect();
        let (first, last) = (roots[0], roots[roots.len() - 1]);
        if first <= last {
            return Err(Error::config("trained_betas", "all 0", "noise that grows"));
        }
        let scaled = roots
            .into_iter()
            .map(|root| (root - last) * (first / (first - last)));
        let squares: Vec<f32> = scaled.map(|root| root * root).collect();
        let ratios = squares.windows(2).map(|pair| pair[1] / pair[0]);
        let betas: Vec<f32> = [squares[0]]
            .into_iter()
            .chain(ratios)
            .map(|alpha| 1.0 - alpha)
            .collect();
        Ok(cumprod(&betas))
    }

    fn betas(&self) -> Result<Vec<f32>> {
        let n = self.num_train_timesteps;
        if !(2..=1_000_000).contains(&n) {
            return Err(Error::config("num_train_timesteps", n, "2 to 1,000,000"));
        }
        if let Some(betas) = &self.trained_betas {
            if betas.len() != n {
                let expected = format!("{n} values, as many as num_train_timesteps");
                return Err(Error::config(
                    "trained_betas",
                    format!("of length {}", betas.len()),
                    expected,
                ));
            }
            if let Some(beta) = betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
                return Err(Error::config(
                    "trained_betas",
                    beta,
                    "0 or more, less than 1",
                ));
            }
            return Ok(betas.iter().map(|beta| *beta as f32).collect());
        }
        if !(self.beta_start > 0.0 && self.beta_start < 1.0) {
            return Err(Error::config(
                "beta_start",
                self.beta_start,
                "more than 0, less than 1",
            ));
        }
        if !(self.beta_end >= self.beta_start && self.beta_end < 1.0) {
            return Err(Error::config(
                "beta_end",
                self.beta_end,
                "at least beta_start, less than 1",
            ));
        }
        let line = |start: f64, end: f64| {
            (0..n).map(move |i| start + (end - start) * i as f64 / (n - 1) as f64)
        };
        let bar = |alpha: fn(f64) -> f64| {
            let at = move |i: usize| alpha(i as f64 / n as f64);
            (0..n)
                .map(move |i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32)
                .collect()
        };
        Ok(match self.beta_schedule {
            BetaSchedule::Linear => line(self.beta_start, self.beta_end)
                .map(|beta| beta as f32)
                .collect(),
            BetaSchedule::ScaledLinear => {
                let roots =
                    line(self.beta_start.sqrt(), self.beta_end.sqrt()).map(|root| root as f32);
                roots.map(|root| root * root).collect()
            }
            BetaSchedule::Sigmoid => {
                let (start, range) = (
                    self.beta_start as f32,
                    (self.beta_end - self.beta_start) as f32,
                );
                line(-6.0, 6.0)
                    .map(|x| (1.0 / (1.0 + (-x).exp())) as f32 * range + start)
                    .collect()
            }
            BetaSchedule::Cosine => bar(|t| {
                ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
                    .cos()
                    .powi(2)
            }),
            BetaSchedule::Laplace => bar(|t| {
                let snr =
                    (-0.5 * (0.5 - t).signum() * (1.0 - 2.0 * (0.5 - t).abs() + 1e-6).ln()).exp();
                (snr / (1.0 + snr)).sqrt()
            }),
        })
    }
}

/// Products of `1 − β` up to each step; the values of a 32-bit table.
fn cumprod(betas: &[f32]) -> Vec<f64> {
    let mut product = 1.0;
    let next = |beta: &f32| {
        product *= f64::from(1.0 - beta);
        f64::from(product as f32)
    };
    betas.iter().map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(beta_schedule: BetaSchedule) -> Vec<f64> {
        NoiseScheduleConfig {
            beta_schedule,
            ..NoiseScheduleConfig::default()
        }
        .alphas_cumprod()
        .unwrap()
    }

    /// `ln ᾱ` of a straight line by Stirling-free summation of `ln(1 − β)` in 64 bits, and closed
    /// forms of the others.
    #[test]
    fn tables_match_their_closed_forms() {
        let linear = table(BetaSchedule::Linear);
        let mut sum = 0.0;
        for (i, alpha) in linear.iter().enumerate() {
            sum += (-(1e-4 + (0.02 - 1e-4) * i as f64 / 999.0)).ln_1p();
            assert!((alpha.ln() - sum).abs() < 2e-6, "{i}: {} {sum}", alpha.ln());
        }
        let cosine = table(BetaSchedule::Cosine);
        let f = |t: f64| {
            ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
                .cos()
                .powi(2)
        };
        for (i, alpha) in cosine.iter().enumerate().take(998) {
            let expected = f((i + 1) as f64 / 1000.0) / f(0.0);
            assert!((alpha - expected).abs() < 1e-6, "{i}: {alpha} {expected}");
        }
        for schedule in [
            BetaSchedule::ScaledLinear,
            BetaSchedule::Sigmoid,
            BetaSchedule::Laplace,
        ] {
            let all = table(schedule);
            assert!(
                all.windows(2).all(|pair| pair[1] < pair[0]) && all[0] < 1.0 && all[999] > 0.0,
                "{schedule:?}"
            );
        }
        // Half of the logistic curve's noise comes from each side of its middle.
        let middle = NoiseScheduleConfig {
            beta_schedule: BetaSchedule::Sigmoid,
            ..NoiseScheduleConfig::default()
        }
        .betas()
        .unwrap();
        assert!((middle[499] + middle[500] - (1e-4 + 0.02) as f32).abs() < 1e-8);
    }

    #[test]
    fn zero_terminal_snr_keeps_the_first_step() {
        for beta_schedule in [BetaSchedule::Linear, BetaSchedule::ScaledLinear] {
            let config = NoiseScheduleConfig {
                beta_schedule,
                ..NoiseScheduleConfig::default()
            };
            let (before, after) = (
                config.alphas_cumprod().unwrap(),
                config.alphas_cumprod_zero_snr().unwrap(),
            );
            assert!((before[0] - after[0]).abs() < 1e-6 && after[999] == 0.0);
            // The roots are an affine map of what they were.
            let map = |i: usize| {
                (after[i].sqrt() - after[0].sqrt()) / (before[i].sqrt() - before[0].sqrt())
            };
            assert!(
                (map(300) - map(900)).abs() < 1e-4,
                "{} {}",
                map(300),
                map(900)
            );
        }
    }

    #[test]
    fn schedule_rejects_values_by_name() {
        let ok = NoiseScheduleConfig::default();
        for (config, field) in [
            (
                NoiseScheduleConfig {
                    num_train_timesteps: 1,
                    ..ok.clone()
                },
                "num_train_timesteps",
            ),
            (
                NoiseScheduleConfig {
                    beta_start: 0.0,
                    ..ok.clone()
                },
                "beta_start",
            ),
            (
                NoiseScheduleConfig {
                    beta_end: 1.0,
                    ..ok.clone()
                },
                "beta_end",
            ),
            (
                NoiseScheduleConfig {
                    beta_end: f64::NAN,
                    ..ok.clone()
                },
                "beta_end",
            ),
            (
                NoiseScheduleConfig {
                    trained_betas: Some(vec![0.1; 3]),
                    ..ok.clone()
                },
                "trained_betas",
            ),
            (
                NoiseScheduleConfig {
                    trained_betas: Some(vec![1.5; 1000]),
                    ..ok.clone()
                },
                "trained_betas",
            ),
        ] {
            let message = config.alphas_cumprod().unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
        let flat = NoiseScheduleConfig {
            trained_betas: Some(vec![0.0; 1000]),
            ..ok
        };
        assert!(flat.alphas_cumprod_zero_snr().is_err());
    }
}
