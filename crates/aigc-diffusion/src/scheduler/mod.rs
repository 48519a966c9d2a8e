//! Schedulers: how samples are denoised in a number of steps; one file a family.

mod consistency;
#[cfg(test)]
mod convergence;
mod cosine_dpm_solver;
mod ddim;
mod ddim_inverse;
mod ddpm;
mod deis;
mod dpm;
mod dpm_multistep;
mod dpm_singlestep;
mod edm;
mod euler;
mod euler_ancestral;
mod file;
mod flow;
mod heun;
mod ipndm;
mod kdpm2;
mod lms;
mod pndm;
mod unipc;
mod ve;
mod vp;

pub use consistency::{LcmScheduler, TcdScheduler};
pub use cosine_dpm_solver::CosineDpmMultistepScheduler;
pub use ddim::DdimScheduler;
pub use ddim_inverse::DdimInverseScheduler;
pub use ddpm::{DdpmScheduler, VarianceType};
pub use deis::DeisScheduler;
pub use dpm::{DpmAlgorithm, SolverType};
pub use dpm_multistep::DpmMultistepScheduler;
pub use dpm_singlestep::DpmSinglestepScheduler;
pub use edm::{EdmConfig, EdmDpmScheduler, EdmEulerScheduler, EdmSpacing};
pub use euler::{EulerScheduler, SigmaInterpolation, TimestepType};
pub use euler_ancestral::EulerAncestralScheduler;
pub use file::AnyScheduler;
pub use flow::{FlowEulerScheduler, FlowHeunScheduler, TimeShiftType};
pub use heun::HeunScheduler;
pub use ipndm::IpndmScheduler;
pub use kdpm2::{Kdpm2AncestralScheduler, Kdpm2Scheduler};
pub use lms::LmsScheduler;
pub use pndm::PndmScheduler;
pub use unipc::{UniPcScheduler, UniPcSolver};
pub use vp::{Clipping, Thresholding};

pub(crate) use vp::Alphas;

use crate::{
    clip::Clip,
    plan::{LinearCombination, ModelCall, SamplingPlan, Term},
    prediction::{NoiseLevel, PredictionCoefficients},
};
use aigc_core::{Error, Result};
use std::collections::HashSet;

/// A solver that turns noise into samples. Samplers keep a copy of it.
pub trait Scheduler: Clone + 'static {
    /// Everything that sampling in `steps` steps computes. Methods that call the network twice a
    /// step have more calls than steps.
    ///
    /// # Errors
    /// [`Error::Config`] names a field that is out of range or contradicts another;
    /// [`Error::InvalidArgument`] for a number of steps that the scheduler does not support.
    fn plan(&self, steps: usize) -> Result<SamplingPlan>;

    /// The calls from call `at` on, for a sample with the [noise level](SamplingPlan::add_noise) of
    /// that call: what sampling computes that starts from an image. Methods that use earlier calls
    /// begin as at their first call, as diffusers' do; where that is not implemented, as
    /// [`SamplingPlan::starting_at`] does.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); [`Error::InvalidArgument`] if there are no calls from there on.
    fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
        self.plan(steps)?.starting_at(at)
    }
}

impl SamplingPlan {
    /// A plan without clipping. Its first call sees noise of standard deviation `init_noise_sigma`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a weight would be infinite, as with two identical timesteps.
    pub fn new(init_noise_sigma: f64, calls: Vec<ModelCall>) -> Result<Self> {
        let plan = Self {
            init_noise_sigma,
            clip: Clip::None,
            use_clipped_model_output: false,
            calls,
        };
        let finite = |sum: &LinearCombination| sum.iter().all(|(_, weight)| weight.is_finite());
        let both = |(a, b): (f64, f64)| a.is_finite() && b.is_finite();
        let used: HashSet<Term> = plan
            .calls
            .iter()
            .flat_map(|call| call.corrector.iter().chain(&call.update))
            .map(|(source, _)| *source)
            .collect();
        let sound = |(k, call): (usize, &ModelCall)| {
            let reading = both(call.coefficients.x0)
                && (both(call.coefficients.epsilon) || !used.contains(&Term::Epsilon(k)));
            reading && call.time.is_finite() && finite(&call.update) && finite(&call.corrector)
        };
        match plan.calls.iter().enumerate().position(|call| !sound(call)) {
            None if init_noise_sigma.is_finite() => Ok(plan),
            wrong => {
                let value = format!("{} (call {})", plan.len(), wrong.unwrap_or(0));
                Err(Error::argument(
                    "steps",
                    value,
                    "options without two identical timesteps: fewer steps, or another timestep \
                     spacing",
                ))
            }
        }
    }
}

impl ModelCall {
    /// A call with an unscaled input at `time`, where samples have the noise level `level`.
    /// `update` are the weights of the next sample.
    pub fn new(
        time: f64,
        level: NoiseLevel,
        coefficients: PredictionCoefficients,
        update: LinearCombination,
    ) -> Self {
        Self {
            time,
            level,
            input_scale: 1.0,
            coefficients,
            network_level: level,
            corrector: vec![],
            update,
            variance: None,
        }
    }
}
