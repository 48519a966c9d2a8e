//! DDIM: the same network with as much noise as one likes, down to none (Song et al. 2021,
//! <https://arxiv.org/abs/2010.02502>).

use super::{Alphas, Clipping, Scheduler};
use crate::{
    grid::{Steps, TimestepSpacing},
    plan::{ModelCall, SamplingPlan, Term},
    prediction::PredictionType,
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `DDIMScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DdimScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// Clipping of predicted clean samples.
    #[serde(flatten)]
    pub clipping: Clipping,
    /// Whether the step past the first leaves no noise, or as much as the first.
    pub set_alpha_to_one: bool,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
    /// 0: no fresh noise. 1: as much as DDPM. (An argument of sampling, not written to a file.)
    #[serde(skip)]
    pub eta: f64,
}

impl Default for DdimScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            clipping: Clipping::default(),
            set_alpha_to_one: true,
            steps_offset: 0,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Leading,
            rescale_betas_zero_snr: false,
            eta: 0.0,
        }
    }
}

impl Scheduler for DdimScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(Error::config("eta", self.eta, "0 to 1"));
        }
        let alphas = Alphas::new(
            &self.noise,
            self.rescale_betas_zero_snr,
            self.set_alpha_to_one,
        )?;
        let spread = Steps::new(self.noise.num_train_timesteps, steps)?;
        let times = spread.whole(self.timestep_spacing, self.steps_offset)?;
        let call = |(k, time): (usize, &f64)| {
            let (alpha, before) = (alphas.at(*time), alphas.at(time - spread.stride() as f64));
            // Equation 16, and equation 12.
            let deviation = self.eta
                * ((1.0 - before) / (1.0 - alpha) * (1.0 - alpha / before))
                    .max(0.0)
                    .sqrt();
            let towards = (1.0 - before - deviation * deviation).max(0.0).sqrt();
            let mut next = vec![(Term::X0(k), before.sqrt()), (Term::Epsilon(k), towards)];
            if self.eta > 0.0 {
                next.push((Term::Noise, deviation));
            }
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
