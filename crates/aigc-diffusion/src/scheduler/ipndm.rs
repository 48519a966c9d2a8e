//! Improved PNDM: a linear multistep method for networks over a cosine schedule, of Dance Diffusion
//! (Zhang and Chen 2022, <https://arxiv.org/abs/2204.13902>; Liu et al. 2022,
//! <https://arxiv.org/abs/2202.09778>).

use super::{Scheduler, pndm::MULTISTEP};
use crate::{
    grid::at,
    plan::{LinearCombination, ModelCall, SamplingPlan, Term, check_start},
    prediction::{NoiseLevel, PredictionType},
};
use aigc_core::{Error, Result, check};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_2_PI;

/// Linear multistep of up to four calls; the fields are those of diffusers' `IPNDMScheduler`.
///
/// The network predicts v and receives the angle `2/π·arcsin σ`. The first call sees noise alone;
/// as in diffusers, the step after it keeps that noise, scaled, and nothing of the prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IpndmScheduler {
    /// Most steps.
    pub num_train_timesteps: usize,
    /// The σ of the calls and the one after the last, from 1 down, in place of those of the
    /// schedule: the number of steps is one less than theirs.
    pub trained_betas: Option<Vec<f64>>,
}

impl Default for IpndmScheduler {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            trained_betas: None,
        }
    }
}

/// The least share of a clean sample that a noisy one is divided by.
const LEAST_ALPHA: f64 = 1e-8;

impl Scheduler for IpndmScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        self.plan_from(steps, 0)
    }

    fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
        let levels = self.levels(steps)?;
        check_start(at, steps)?;
        let calls = (at..steps).map(|k| {
            let (from, to) = (levels[k], levels[k + 1]);
            let time = from.sigma.atan2(from.alpha) * FRAC_2_PI;
            let reading = PredictionType::V.coefficients(from)?;
            Ok(ModelCall::new(
                time,
                from,
                reading,
                update(k - at, from, to),
            ))
        });
        SamplingPlan::new(1.0, calls.collect::<Result<_>>()?)
    }
}

impl IpndmScheduler {
    /// The levels of all calls, and the one after the last.
    fn levels(&self, steps: usize) -> Result<Vec<NoiseLevel>> {
        if let Some(betas) = &self.trained_betas {
            for beta in betas {
                check::fraction("trained_betas", *beta)?;
            }
        }
        if steps == 0 || steps > self.num_train_timesteps {
            let expected = format!("1 to num_train_timesteps ({})", self.num_train_timesteps);
            return Err(Error::argument("steps", steps, expected));
        }
        let sigmas: Vec<f32> = match &self.trained_betas {
            Some(betas) if betas.len() != steps + 1 => {
                let expected = format!("one less than the {} trained_betas", betas.len());
                return Err(Error::argument("steps", steps, expected));
            }
            Some(betas) => betas.iter().map(|beta| *beta as f32).collect(),
            None => (0..=steps)
                .map(|k| at(1.0, 0.0, k, steps + 1) as f32)
                .map(|share| (share * std::f32::consts::FRAC_PI_2).sin().powi(2))
                .collect(),
        };
        // In 32 bits, as diffusers: where σ is nearly 1, a last digit of it moves α.
        let level = |sigma: f32| NoiseLevel {
            alpha: f64::from((1.0 - sigma * sigma).sqrt()),
            sigma: f64::from(sigma),
        };
        Ok(sigmas.into_iter().map(level).collect())
    }
}

/// The next sample after call `k`: the noise of the last calls, extrapolated, and the clean sample
/// that the sample has besides this noise.
fn update(k: usize, from: NoiseLevel, to: NoiseLevel) -> LinearCombination {
    let newest = MULTISTEP[k.min(MULTISTEP.len() - 1)];
    let noise = |scale: f64| {
        let weights = newest.iter().enumerate();
        weights.map(move |(ago, weight)| (Term::Epsilon(k - ago), scale * weight))
    };
    if from.alpha < LEAST_ALPHA {
        // The sample is noise alone, and leaves no clean sample.
        return noise(to.sigma).collect();
    }
    let share = to.alpha / from.alpha;
    [(Term::Sample(k), share)]
        .into_iter()
        .chain(noise(to.sigma - share * from.sigma))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample whose clean part is predicted without error ends there; its noise is unchanged.
    #[test]
    fn true_predictions_end_at_the_clean_sample() {
        let plan = IpndmScheduler::default().plan(40).unwrap();
        let (clean, noise) = (0.7, -1.3);
        for (k, call) in plan.calls.iter().enumerate().skip(1) {
            let NoiseLevel { alpha, sigma } = call.level;
            let sample = alpha * clean + sigma * noise;
            let next = call.update.iter().map(|(term, weight)| {
                weight
                    * match term {
                        Term::Sample(_) => sample,
                        Term::Epsilon(_) => noise,
                        other => panic!("{other:?} at {k}"),
                    }
            });
            let next: f64 = next.sum();
            let expected = plan.calls.get(k + 1).map_or(clean, |call| {
                call.level.alpha * clean + call.level.sigma * noise
            });
            assert!((next - expected).abs() < 1e-6, "{k}: {next} {expected}");
        }
    }

    /// The first call sees noise alone: the step after it scales this noise.
    #[test]
    fn first_step_keeps_the_noise() {
        let plan = IpndmScheduler::default().plan(10).unwrap();
        let next = plan.calls[1].level.sigma;
        assert_eq!(plan.calls[0].update, [(Term::Epsilon(0), next)]);
        // Noise is x there, whatever the network predicts.
        let (x, v) = plan.calls[0].coefficients.epsilon;
        assert!((x - 1.0).abs() < 1e-12 && v.abs() < 1e-12, "{x} {v}");
    }

    /// A plan that starts later has the same levels; its steps use its own calls alone, one more
    /// each time.
    #[test]
    fn later_starts_begin_with_low_orders() {
        let scheduler = IpndmScheduler::default();
        let (whole, late) = (scheduler.plan(9), scheduler.plan_from(9, 4));
        let (whole, late) = (whole.unwrap(), late.unwrap());
        assert_eq!(late.times(), &whole.times()[4..]);
        for (k, call) in late.calls.iter().enumerate() {
            let noise = |(term, _): &&(Term, f64)| matches!(term, Term::Epsilon(_));
            assert_eq!(call.update.iter().filter(noise).count(), (k + 1).min(4));
            let sum: f64 = call.update.iter().filter(noise).map(|(_, w)| w).sum();
            let next = late.calls.get(k + 1).map(|call| call.level);
            let next = next.unwrap_or(NoiseLevel {
                alpha: 1.0,
                sigma: 0.0,
            });
            let expected = next.sigma - next.alpha / call.level.alpha * call.level.sigma;
            assert!((sum - expected).abs() < 1e-9, "{k}: {sum} {expected}");
        }
        let message = scheduler.plan_from(9, 9).unwrap_err().to_string();
        assert!(message.contains("`at` is 9"), "{message}");
    }

    #[test]
    fn times_fall_from_one() {
        let times = IpndmScheduler::default().plan(10).unwrap().times();
        assert!((times[0] - 1.0).abs() < 1e-6 && times[9] > 0.0);
        assert!(times.windows(2).all(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn trained_betas_replace_the_schedule() {
        let scheduler = IpndmScheduler {
            trained_betas: Some(vec![0.9, 0.5, 0.0]),
            ..IpndmScheduler::default()
        };
        let plan = scheduler.plan(2).unwrap();
        assert!((plan.calls[1].level.sigma - 0.5).abs() < 1e-6);
        let message = scheduler.plan(5).unwrap_err().to_string();
        assert!(
            message.contains("`steps` is 5, expected one less"),
            "{message}"
        );
        let wrong = IpndmScheduler {
            trained_betas: Some(vec![1.5, 0.0]),
            ..IpndmScheduler::default()
        };
        let message = wrong.plan(1).unwrap_err().to_string();
        assert!(message.contains("`trained_betas` is 1.5"), "{message}");
    }
}
