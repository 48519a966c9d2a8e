//! Few-step sampling of distilled networks: latent consistency models (Luo et al. 2023,
//! <https://arxiv.org/abs/2310.04378>) and trajectory consistency distillation (Zheng et al. 2024,
//! <https://arxiv.org/abs/2402.19159>).

use super::{Alphas, Clipping, Scheduler};
use crate::{
    plan::{ModelCall, SamplingPlan, Term},
    prediction::PredictionType,
    schedule::{BetaSchedule, NoiseScheduleConfig},
};
use aigc_core::{Error, Result, check};
use serde::{Deserialize, Serialize};

fn noise() -> NoiseScheduleConfig {
    NoiseScheduleConfig {
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: BetaSchedule::ScaledLinear,
        ..NoiseScheduleConfig::default()
    }
}

/// Falling times among the `original` that the network was distilled at, of which those below
/// `strength` are used.
fn times(train: usize, original: usize, steps: usize, strength: f64) -> Result<Vec<f64>> {
    if original == 0 || original > train {
        let expected = format!("1 to num_train_timesteps ({train})");
        return Err(Error::config(
            "original_inference_steps",
            original,
            expected,
        ));
    }
    check::fraction("strength", strength)?;
    let used = (original as f64 * strength) as usize;
    if steps == 0 || steps > used {
        let expected = match used == original {
            true => format!("1 to original_inference_steps ({original})"),
            false => format!("1 to {used}, of original_inference_steps ({original}) by strength"),
        };
        return Err(Error::argument("steps", steps, expected));
    }
    // In floats, as NumPy spreads the steps: where a step is not exact, a time may be the next one.
    let step = used as f64 / steps as f64;
    let before = |k: usize| (k as f64 * step) as usize;
    Ok((0..steps)
        .map(|k| ((used - before(k)) * (train / original) - 1) as f64)
        .collect())
}

/// Options and scheduler in one; the fields are those of diffusers' `LCMScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LcmScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// Steps that the network was distilled at.
    pub original_inference_steps: usize,
    /// Clipping of predicted clean samples.
    #[serde(flatten)]
    pub clipping: Clipping,
    /// Whether the step past the first leaves no noise, or as much as the first.
    pub set_alpha_to_one: bool,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Of the time, where the network's part grows with it.
    pub timestep_scaling: f64,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
    /// The part of the process that sampling starts in, 0 to 1: how much of an image is replaced.
    /// (An argument of sampling, not written to a file.)
    #[serde(skip, default = "one")]
    pub strength: f64,
}

fn one() -> f64 {
    1.0
}

impl Default for LcmScheduler {
    fn default() -> Self {
        Self {
            noise: noise(),
            original_inference_steps: 50,
            clipping: Clipping::NONE,
            set_alpha_to_one: true,
            prediction_type: PredictionType::Epsilon,
            timestep_scaling: 10.0,
            rescale_betas_zero_snr: false,
            strength: one(),
        }
    }
}

impl Scheduler for LcmScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        let alphas = Alphas::new(
            &self.noise,
            self.rescale_betas_zero_snr,
            self.set_alpha_to_one,
        )?;
        let times = times(
            self.noise.num_train_timesteps,
            self.original_inference_steps,
            steps,
            self.strength,
        )?;
        let call = |(k, time): (usize, &f64)| {
            // Boundary conditions: at time 0 the network's part is nothing (Song et al. 2023,
            // equation 5).
            const DATA: f64 = 0.5;
            let scaled = time * self.timestep_scaling;
            let all = scaled * scaled + DATA * DATA;
            let (skip, out) = (DATA * DATA / all, scaled / all.sqrt());
            let denoised =
                |scale: f64| vec![(Term::X0(k), scale * out), (Term::Sample(k), scale * skip)];
            let next = match times.get(k + 1) {
                None => denoised(1.0),
                Some(before) => {
                    let level = alphas.level(*before);
                    let mut next = denoised(level.alpha);
                    next.push((Term::Noise, level.sigma));
                    next
                }
            };
            let level = alphas.level(*time);
            Ok(ModelCall::new(
                *time,
                level,
                self.prediction_type.coefficients(level)?,
                next,
            ))
        };
        let calls = times.iter().enumerate().map(call).collect::<Result<_>>()?;
        Ok(SamplingPlan {
            clip: self.clipping.clip()?,
            ..SamplingPlan::new(1.0, calls)?
        })
    }
}

/// Options and scheduler in one; the fields are those of diffusers' `TCDScheduler` that its steps
/// use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TcdScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// Steps that the network was distilled at.
    pub original_inference_steps: usize,
    /// Whether the step past the first leaves no noise, or as much as the first.
    pub set_alpha_to_one: bool,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
    /// γ of the paper: how far past the next time a step goes before noise is added, 0 to 1. (An
    /// argument of sampling, not written to a file.)
    #[serde(skip, default = "three_tenths")]
    pub eta: f64,
}

fn three_tenths() -> f64 {
    0.3
}

impl Default for TcdScheduler {
    fn default() -> Self {
        Self {
            noise: noise(),
            original_inference_steps: 50,
            set_alpha_to_one: true,
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
            eta: three_tenths(),
        }
    }
}

impl Scheduler for TcdScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(Error::config("eta", self.eta, "0 to 1"));
        }
        let alphas = Alphas::new(
            &self.noise,
            self.rescale_betas_zero_snr,
            self.set_alpha_to_one,
        )?;
        let times = times(
            self.noise.num_train_timesteps,
            self.original_inference_steps,
            steps,
            1.0,
        )?;
        let call = |(k, time): (usize, &f64)| {
            let before = times.get(k + 1).copied();
            let passed = ((1.0 - self.eta) * before.unwrap_or(0.0)).floor();
            let through = alphas.level(passed);
            let mut next = vec![
                (Term::X0(k), through.alpha),
                (Term::Epsilon(k), through.sigma),
            ];
            if let Some(before) = before.filter(|_| self.eta > 0.0) {
                let ratio = alphas.at(before) / alphas.at(passed);
                next.iter_mut()
                    .for_each(|(_, weight)| *weight *= ratio.sqrt());
                next.push((Term::Noise, (1.0 - ratio).max(0.0).sqrt()));
            }
            let level = alphas.level(*time);
            Ok(ModelCall::new(
                *time,
                level,
                self.prediction_type.coefficients(level)?,
                next,
            ))
        };
        SamplingPlan::new(
            1.0,
            times.iter().enumerate().map(call).collect::<Result<_>>()?,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_are_those_of_distillation() {
        let all = |train, original, steps| times(train, original, steps, 1.0);
        assert_eq!(all(1000, 50, 4).unwrap(), [999.0, 759.0, 499.0, 259.0]);
        assert_eq!(all(1000, 50, 1).unwrap(), [999.0]);
        assert!(all(1000, 50, 51).is_err() && all(1000, 0, 1).is_err() && all(10, 50, 1).is_err());
        // The times of diffusers for half of the process.
        assert_eq!(
            times(1000, 50, 4, 0.5).unwrap(),
            [499.0, 379.0, 259.0, 139.0]
        );
        assert!(times(1000, 50, 4, 0.05).is_err());
        // 11·(30 / 22) is less than 15 in floats.
        assert_eq!(times(1000, 50, 22, 0.6).unwrap()[11], 319.0);
    }
}
