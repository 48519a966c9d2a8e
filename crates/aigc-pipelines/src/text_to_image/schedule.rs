//! The calls of the network for a request: steps, the size of the image, and the strength with
//! which an image is changed.

use super::families::PipelineFamily;
use aigc_core::{Error, Result};
use aigc_diffusion::{AnyScheduler, SamplingPlan, Scheduler};

/// What decides the calls of the network.
pub(crate) struct Schedule<'a> {
    pub(crate) family: PipelineFamily,
    pub(crate) scheduler: &'a AnyScheduler,
    /// Noise of DDIM's steps.
    pub(crate) eta: f64,
    /// Tokens of an image, patches of 2×2 latents.
    pub(crate) tokens: usize,
}

impl Schedule<'_> {
    /// The calls from noise, or from an image of which `strength` is replaced.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for too many steps, or a strength that leaves none;
    /// [`Error::Config`] for options of the scheduler that do not fit.
    pub(crate) fn plan(&self, steps: usize, strength: Option<f64>) -> Result<SamplingPlan> {
        let start = strength.map_or(Ok(0), |strength| self.start(steps, strength))?;
        let mut scheduler = self.scheduler.clone();
        let plan = match &mut scheduler {
            // The steps of a latent consistency model divide what the strength leaves.
            AnyScheduler::Lcm(lcm) => {
                lcm.strength = strength.unwrap_or(1.0);
                lcm.plan(steps)
            }
            AnyScheduler::FlowEuler(flow) => {
                flow.image_seq_len = Some(self.tokens);
                match self.family {
                    // FLUX.1's pipelines do not use the spacing of the scheduler.
                    PipelineFamily::Flux => flow
                        .plan_of_sigmas(&falling(steps))
                        .and_then(|plan| plan.starting_at(start)),
                    _ => flow.plan_from(steps, start),
                }
            }
            AnyScheduler::Ddim(ddim) => {
                ddim.eta = self.eta;
                ddim.plan_from(steps, start)
            }
            other => other.plan_from(steps, start * calls_per_step(other)),
        };
        plan.map_err(|error| match error {
            // The field of the request.
            Error::InvalidArgument {
                argument,
                value,
                expected,
            } if argument == "steps" => Error::argument("num_inference_steps", value, expected),
            other => other,
        })
    }

    /// The first step from an image of which `strength` is replaced.
    fn start(&self, steps: usize, strength: f64) -> Result<usize> {
        let replaced = steps as f64 * strength;
        let start = match self.family {
            // As diffusers rounds in each.
            PipelineFamily::StableDiffusion3 | PipelineFamily::Flux => {
                (steps as f64 - replaced).max(0.0) as usize
            }
            _ => steps - (replaced as usize).min(steps),
        };
        if start < steps {
            return Ok(start);
        }
        let expected = format!("at least {:.3}, a step of {steps}", 1.0 / steps as f64);
        Err(Error::argument("strength", strength, expected))
    }

    /// Whether the scheduler has steps with as much noise as `eta` says.
    pub(crate) fn has_eta(&self) -> bool {
        matches!(self.scheduler, AnyScheduler::Ddim(_))
    }

    /// Whether diffusers draws noise in every call, even if a step does not use it.
    pub(crate) fn draws_every_call(&self) -> bool {
        matches!(self.scheduler, AnyScheduler::Kdpm2Ancestral(_))
    }
}

/// Calls of the network in a step.
fn calls_per_step(scheduler: &AnyScheduler) -> usize {
    match scheduler {
        AnyScheduler::Heun(_)
        | AnyScheduler::Kdpm2(_)
        | AnyScheduler::Kdpm2Ancestral(_)
        | AnyScheduler::FlowHeun(_) => 2,
        _ => 1,
    }
}

/// `steps` numbers from 1 to `1/steps`.
fn falling(steps: usize) -> Vec<f64> {
    let last = 1.0 / steps as f64;
    let distance = (last - 1.0) / steps.saturating_sub(1).max(1) as f64;
    (0..steps).map(|k| 1.0 + k as f64 * distance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_diffusion::{DdimScheduler, FlowEulerScheduler, HeunScheduler, LcmScheduler};

    fn times(family: PipelineFamily, scheduler: AnyScheduler, strength: Option<f64>) -> Vec<f64> {
        let schedule = Schedule {
            family,
            scheduler: &scheduler,
            eta: 0.0,
            tokens: 16,
        };
        schedule.plan(10, strength).unwrap().times()
    }

    #[test]
    fn strength_is_the_part_of_the_steps() {
        let ddim = || AnyScheduler::from(DdimScheduler::default());
        let all = times(PipelineFamily::StableDiffusion, ddim(), None);
        let some = |strength| times(PipelineFamily::StableDiffusion, ddim(), Some(strength));
        assert_eq!(some(1.0), all);
        assert_eq!(some(0.65), all[4..]);
        // Two calls a step.
        let heun = || AnyScheduler::from(HeunScheduler::default());
        let all = times(PipelineFamily::StableDiffusionXl, heun(), None);
        assert_eq!(
            times(PipelineFamily::StableDiffusionXl, heun(), Some(0.65)),
            all[8..]
        );
        // Another rounding.
        let flow = || AnyScheduler::from(FlowEulerScheduler::default());
        let all = times(PipelineFamily::StableDiffusion3, flow(), None);
        assert_eq!(
            times(PipelineFamily::StableDiffusion3, flow(), Some(0.65)),
            all[3..]
        );
        let lcm = LcmScheduler::default().into();
        let found = times(PipelineFamily::LatentConsistency, lcm, Some(0.5));
        assert_eq!((found.len(), found[0]), (10, 499.0));
    }

    #[test]
    fn strength_without_steps_is_an_error() {
        let scheduler = AnyScheduler::from(DdimScheduler::default());
        let family = PipelineFamily::StableDiffusion;
        let schedule = Schedule {
            family,
            scheduler: &scheduler,
            eta: 0.0,
            tokens: 16,
        };
        let message = schedule.plan(10, Some(0.05)).unwrap_err().to_string();
        assert!(
            message.contains("`strength` is 0.05, expected at least 0.100"),
            "{message}"
        );
        let message = schedule.plan(2000, None).unwrap_err().to_string();
        assert!(
            message.contains("`num_inference_steps` is 2000"),
            "{message}"
        );
    }

    #[test]
    fn flux_steps_are_even() {
        assert_eq!(falling(4), [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(falling(1), [1.0]);
        let flow = FlowEulerScheduler {
            shift: 1.0,
            ..FlowEulerScheduler::default()
        };
        let found = times(PipelineFamily::Flux, flow.into(), None);
        assert!((found[9] - 100.0).abs() < 1e-3, "{found:?}");
    }
}
