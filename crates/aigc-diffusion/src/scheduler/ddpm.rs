//! DDPM: the learned reverse of the forward process, noise at every step (Ho et al. 2020,
//! <https://arxiv.org/abs/2006.11239>).

use super::{Alphas, Clipping, Scheduler};
use crate::{
    grid::{Steps, TimestepSpacing},
    plan::{LearnedVariance, ModelCall, SamplingPlan, Term},
    prediction::PredictionType,
    schedule::NoiseScheduleConfig,
};
use aigc_core::Result;
use serde::{Deserialize, Serialize};

/// Which variance a step back has, between the two that are right for the extremes of data (section
/// 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VarianceType {
    /// `β̃`, right for a single datum.
    FixedSmall,
    /// The same, by its logarithm.
    FixedSmallLog,
    /// `β`, right for standard normal data.
    FixedLarge,
    /// The same, by its logarithm.
    FixedLargeLog,
    /// Predicted by the network, in as many channels again.
    Learned,
    /// Between the two, interpolated by the network (Nichol & Dhariwal 2021).
    LearnedRange,
}

/// Options and scheduler in one; the fields are those of diffusers' `DDPMScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DdpmScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// The variance of a denoising step.
    pub variance_type: VarianceType,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Clipping of predicted clean samples.
    #[serde(flatten)]
    pub clipping: Clipping,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
}

impl Default for DdpmScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            variance_type: VarianceType::FixedSmall,
            prediction_type: PredictionType::Epsilon,
            clipping: Clipping::default(),
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 0,
            rescale_betas_zero_snr: false,
        }
    }
}

impl Scheduler for DdpmScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        let alphas = Alphas::new(&self.noise, self.rescale_betas_zero_snr, true)?;
        let times = Steps::new(self.noise.num_train_timesteps, steps)?
            .whole(self.timestep_spacing, self.steps_offset)?;
        let call = |(k, time): (usize, &f64)| {
            let before = times.get(k + 1).copied().unwrap_or(-1.0);
            let (alpha, alpha_before) = (alphas.at(*time), alphas.at(before));
            // Equation 7, with α and β of a step over several steps of the forward process.
            let ratio = alpha / alpha_before;
            let (rest, rest_before, beta) = (1.0 - alpha, 1.0 - alpha_before, 1.0 - ratio);
            let mut next = vec![
                (Term::X0(k), alpha_before.sqrt() * beta / rest),
                (Term::Sample(k), ratio.sqrt() * rest_before / rest),
            ];
            let small = (rest_before / rest * beta).max(1e-20);
            let mut variance = None;
            if *time > 0.0 {
                let deviation = match self.variance_type {
                    VarianceType::FixedSmall | VarianceType::FixedSmallLog => small.sqrt(),
                    VarianceType::FixedLarge | VarianceType::FixedLargeLog => beta.sqrt(),
                    VarianceType::Learned => {
                        variance = Some(LearnedVariance::Direct);
                        1.0
                    }
                    VarianceType::LearnedRange => {
                        variance = Some(LearnedVariance::Between {
                            low: small.ln(),
                            high: beta.ln(),
                        });
                        1.0
                    }
                };
                next.push((Term::Noise, deviation));
            }
            let level = alphas.level(*time);
            let reading = self.prediction_type.coefficients(level)?;
            Ok(ModelCall {
                variance,
                ..ModelCall::new(*time, level, reading, next)
            })
        };
        let calls = times.iter().enumerate().map(call).collect::<Result<_>>()?;
        Ok(SamplingPlan {
            clip: self.clipping.clip()?,
            ..SamplingPlan::new(1.0, calls)?
        })
    }
}
