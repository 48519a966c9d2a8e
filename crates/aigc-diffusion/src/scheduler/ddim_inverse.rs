//! DDIM run backwards: from an image to the noise that DDIM generates it from (Song et al. 2021,
//! section 5.4).

use super::{Alphas, DdimScheduler, Scheduler};
use crate::{
    clip::Clip,
    grid::{Steps, TimestepSpacing},
    plan::{ModelCall, SamplingPlan, Term},
    prediction::PredictionType,
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `DDIMInverseScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DdimInverseScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// Whether predicted clean samples are kept within the range.
    pub clip_sample: bool,
    /// See [`Clip::Range`].
    pub clip_sample_range: f64,
    /// Whether an image has no noise, or as much as after the first step.
    pub set_alpha_to_one: bool,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
}

impl Default for DdimInverseScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            clip_sample: true,
            clip_sample_range: 1.0,
            set_alpha_to_one: true,
            steps_offset: 0,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Leading,
            rescale_betas_zero_snr: false,
        }
    }
}

impl From<&DdimScheduler> for DdimInverseScheduler {
    /// The way back of this one, over the same times and through the same noise.
    fn from(forward: &DdimScheduler) -> Self {
        Self {
            noise: forward.noise.clone(),
            clip_sample: forward.clipping.clip_sample,
            clip_sample_range: forward.clipping.clip_sample_range,
            set_alpha_to_one: forward.set_alpha_to_one,
            steps_offset: forward.steps_offset,
            prediction_type: forward.prediction_type,
            timestep_spacing: forward.timestep_spacing,
            rescale_betas_zero_snr: forward.rescale_betas_zero_snr,
        }
    }
}

impl Scheduler for DdimInverseScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        if self.timestep_spacing == TimestepSpacing::Linspace {
            return Err(Error::config(
                "timestep_spacing",
                "linspace",
                "leading or trailing",
            ));
        }
        if self.prediction_type == PredictionType::Sample && self.set_alpha_to_one {
            let expected = "epsilon or v_prediction, unless `set_alpha_to_one` is false: x₀ alone \
                            does not determine noise of level 0";
            return Err(Error::config("prediction_type", "sample", expected));
        }
        let alphas = Alphas::new(
            &self.noise,
            self.rescale_betas_zero_snr,
            self.set_alpha_to_one,
        )?;
        let spread = Steps::new(self.noise.num_train_timesteps, steps)?;
        let mut times = spread.whole(self.timestep_spacing, self.steps_offset)?;
        times.reverse();
        let call = |(k, time): (usize, &f64)| {
            let (level, noisier) = (
                alphas.level(time - spread.stride() as f64),
                alphas.level(*time),
            );
            let next = vec![
                (Term::X0(k), noisier.alpha),
                (Term::Epsilon(k), noisier.sigma),
            ];
            Ok(ModelCall::new(
                *time,
                level,
                self.prediction_type.coefficients(level)?,
                next,
            ))
        };
        let calls = times.iter().enumerate().map(call).collect::<Result<_>>()?;
        Ok(SamplingPlan {
            clip: Clip::range_if(self.clip_sample, self.clip_sample_range)?,
            ..SamplingPlan::new(1.0, calls)?
        })
    }
}
