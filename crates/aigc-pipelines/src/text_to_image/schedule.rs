//! The calls of the network for a request: steps, the size of the image, and the strength with
//! which an image is changed.

use super::families::PipelineFamily;
use aigc_core::{Error, Result, check::ensure_argument, json};
use aigc_diffusion::{AnyScheduler, SamplingPlan, Scheduler};
use serde_json::Value;

/// What decides the calls of the network.
pub(crate) struct Schedule<'a> {
    pub(crate) family: PipelineFamily,
    pub(crate) scheduler: &'a AnyScheduler,
    /// Noise of the steps of DDIM and TCD.
    pub(crate) eta: f64,
    /// Tokens of an image, patches of 2×2 latents.
    pub(crate) tokens: usize,
    /// Parts of the process at which the calls begin and end, where another network makes the
    /// rest.
    pub(crate) denoising: [Option<f64>; 2],
}

impl Schedule<'_> {
    /// The calls from noise, or from an image of which `strength` is replaced.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for too many steps, or a strength or part that leaves none;
    /// [`Error::Config`] for options of the scheduler that do not fit.
    pub(crate) fn plan(&self, steps: usize, strength: Option<f64>) -> Result<SamplingPlan> {
        let plan = self.plan_of_steps(steps, strength);
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

    fn plan_of_steps(&self, steps: usize, strength: Option<f64>) -> Result<SamplingPlan> {
        let scheduler = self.configured(strength);
        let own_strength = self.scheduler_takes_strength();
        let at = match (self.denoising[0], strength.filter(|_| !own_strength)) {
            (Some(part), _) => self.first_call(&self.plan_from(&scheduler, steps, 0)?, part)?,
            (None, Some(strength)) => self.start(steps, strength)? * calls_per_step(&scheduler),
            (None, None) => 0,
        };
        let mut plan = self.plan_from(&scheduler, steps, at)?;
        if let Some(part) = self.denoising[1] {
            let cutoff = self.cutoff(part);
            let within = plan.times().iter().filter(|time| **time >= cutoff).count();
            plan.calls.truncate(within);
            if plan.is_empty() {
                let expected = "a part of the process with a step before it";
                return Err(Error::argument("denoising_end", part, expected));
            }
        }
        Ok(plan)
    }

    /// The scheduler with the values that are arguments of sampling.
    fn configured(&self, strength: Option<f64>) -> AnyScheduler {
        let mut scheduler = self.scheduler.clone();
        match &mut scheduler {
            AnyScheduler::Lcm(lcm) if self.scheduler_takes_strength() => {
                lcm.strength = strength.unwrap_or(1.0);
            }
            AnyScheduler::FlowEuler(flow) => flow.image_seq_len = Some(self.tokens),
            AnyScheduler::Ddim(ddim) => ddim.eta = self.eta,
            AnyScheduler::Tcd(tcd) => tcd.eta = self.eta,
            _ => {}
        }
        scheduler
    }

    /// Whether the steps divide what the strength leaves, as in diffusers' pipelines of latent
    /// consistency models. In others, steps of that scheduler are left out, as of any.
    fn scheduler_takes_strength(&self) -> bool {
        let is_lcm = matches!(self.scheduler, AnyScheduler::Lcm(_));
        self.family == PipelineFamily::LatentConsistency && is_lcm
    }

    /// The calls from call `at` on.
    fn plan_from(&self, scheduler: &AnyScheduler, steps: usize, at: usize) -> Result<SamplingPlan> {
        match scheduler {
            // FLUX.1's pipelines do not use the spacing of the scheduler.
            AnyScheduler::FlowEuler(flow) if self.family == PipelineFamily::Flux => {
                let limit = flow.num_train_timesteps;
                let expected = format!("1 to num_train_timesteps ({limit})");
                let fits = (1..=limit).contains(&steps);
                ensure_argument(fits, "steps", steps, &expected)?;
                flow.plan_of_sigmas(&falling(steps))?.starting_at(at)
            }
            other => other.plan_from(steps, at),
        }
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

    /// The first call after a part of the process. Both calls of a step are made.
    fn first_call(&self, plan: &SamplingPlan, part: f64) -> Result<usize> {
        let cutoff = self.cutoff(part);
        let mut calls = plan.times().iter().filter(|time| **time < cutoff).count();
        if calls_per_step(self.scheduler) == 2 && calls.is_multiple_of(2) {
            calls += 1;
        }
        if calls == 0 {
            let expected = "a part of the process with a step behind it";
            return Err(Error::argument("denoising_start", part, expected));
        }
        Ok(plan.len().saturating_sub(calls))
    }

    /// The time at a part of the process.
    fn cutoff(&self, part: f64) -> f64 {
        let fields = json::parse_object(&self.scheduler.to_json()).unwrap_or_default();
        let train = fields.get("num_train_timesteps").and_then(Value::as_f64);
        let train = train.unwrap_or(1000.0);
        (train - part * train).round_ties_even()
    }

    /// Whether the scheduler has steps with as much noise as `eta` says.
    pub(crate) fn has_eta(&self) -> bool {
        matches!(self.scheduler, AnyScheduler::Ddim(_) | AnyScheduler::Tcd(_))
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
    use aigc_diffusion::{
        DdimScheduler, EulerScheduler, FlowEulerScheduler, HeunScheduler, LcmScheduler,
        TcdScheduler, Term,
    };

    fn times(family: PipelineFamily, scheduler: AnyScheduler, strength: Option<f64>) -> Vec<f64> {
        let schedule = Schedule {
            family,
            scheduler: &scheduler,
            eta: 0.0,
            tokens: 16,
            denoising: [None; 2],
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
        let lcm = || AnyScheduler::from(LcmScheduler::default());
        let found = times(PipelineFamily::LatentConsistency, lcm(), Some(0.5));
        assert_eq!((found.len(), found[0]), (10, 499.0));
        // A pipeline of Stable Diffusion leaves steps of this scheduler out, as of any.
        let all = times(PipelineFamily::StableDiffusion, lcm(), None);
        let found = times(PipelineFamily::StableDiffusion, lcm(), Some(0.5));
        assert_eq!(found, all[5..]);
    }

    /// The parts of two networks are all steps, each of them once.
    #[test]
    fn parts_of_the_process_make_the_whole() {
        let calls = |scheduler: &AnyScheduler, denoising| {
            let schedule = Schedule {
                family: PipelineFamily::StableDiffusionXl,
                scheduler,
                eta: 0.0,
                tokens: 16,
                denoising,
            };
            schedule.plan(10, None).map(|plan| plan.times())
        };
        for scheduler in [
            AnyScheduler::from(DdimScheduler::default()),
            EulerScheduler::default().into(),
            HeunScheduler::default().into(),
        ] {
            let all = calls(&scheduler, [None; 2]).unwrap();
            for part in [0.25, 0.5, 0.8] {
                let first = calls(&scheduler, [None, Some(part)]).unwrap();
                let second = calls(&scheduler, [Some(part), None]).unwrap();
                assert!(!first.is_empty() && !second.is_empty());
                assert_eq!(second, all[all.len() - second.len()..]);
                assert_eq!(first, all[..first.len()]);
                let twice = usize::from(calls_per_step(&scheduler) == 2);
                let both = first.len() + second.len();
                assert!(
                    (all.len()..=all.len() + twice).contains(&both),
                    "{part} {both}"
                );
            }
        }
        // Times of ten steps are 900, 800, …: those of 200 and more are the first 80 %.
        let ddim = DdimScheduler::default().into();
        assert_eq!(calls(&ddim, [None, Some(0.8)]).unwrap().len(), 8);
        assert_eq!(calls(&ddim, [Some(0.8), None]).unwrap(), [100.0, 0.0]);
        let message = calls(&ddim, [None, Some(0.05)]).unwrap_err().to_string();
        assert!(message.contains("`denoising_end` is 0.05"), "{message}");
        let message = calls(&ddim, [Some(0.9999), None]).unwrap_err().to_string();
        assert!(message.contains("`denoising_start` is 0.9999"), "{message}");
    }

    /// diffusers' pipelines tell TCD their own `eta`.
    #[test]
    fn eta_is_that_of_the_options() {
        let draws = |eta| {
            let scheduler = AnyScheduler::from(TcdScheduler::default());
            let schedule = Schedule {
                family: PipelineFamily::StableDiffusion,
                scheduler: &scheduler,
                eta,
                tokens: 16,
                denoising: [None; 2],
            };
            let plan = schedule.plan(4, None).unwrap();
            let noisy = |term: &(Term, f64)| term.0 == Term::Noise;
            plan.calls[0].update.iter().any(noisy)
        };
        assert!(!draws(0.0) && draws(0.3));
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
            denoising: [None; 2],
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
        let scheduler = AnyScheduler::from(FlowEulerScheduler::default());
        let schedule = Schedule {
            family: PipelineFamily::Flux,
            scheduler: &scheduler,
            eta: 0.0,
            tokens: 16,
            denoising: [None; 2],
        };
        let message = schedule.plan(usize::MAX, None).unwrap_err().to_string();
        assert!(message.contains("`num_inference_steps`"), "{message}");
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
