//! Schedulers: from noise to image in so many steps, one file a family.

mod consistency;
#[cfg(test)]
mod convergence;
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
mod kdpm2;
mod lms;
mod pndm;
mod unipc;
mod ve;
mod vp;

pub use consistency::{LcmScheduler, TcdScheduler};
pub use ddim::DdimScheduler;
pub use ddim_inverse::DdimInverseScheduler;
pub use ddpm::{DdpmScheduler, VarianceType};
pub use deis::DeisScheduler;
pub use dpm::{Algorithm, SolverType};
pub use dpm_multistep::DpmMultistepScheduler;
pub use dpm_singlestep::DpmSinglestepScheduler;
pub use edm::{EdmConfig, EdmDpmScheduler, EdmEulerScheduler, EdmSpacing};
pub use euler::{EulerScheduler, Interpolation, TimeKind};
pub use euler_ancestral::EulerAncestralScheduler;
pub use file::{AnyScheduler, Opened};
pub use flow::{FlowEulerScheduler, FlowHeunScheduler, TimeShift};
pub use heun::HeunScheduler;
pub use kdpm2::{Kdpm2AncestralScheduler, Kdpm2Scheduler};
pub use lms::LmsScheduler;
pub use pndm::PndmScheduler;
pub use unipc::{Bh, UniPcScheduler};
pub use vp::{Clipping, Thresholding};

pub(crate) use vp::Alphas;

use crate::{
    clip::Clip,
    plan::{Call, Plan, Sum},
    prediction::{Level, Reading},
};
use aigc_core::Result;

/// A way from noise to image.
pub trait Scheduler {
    /// Everything that sampling in so many steps does. Methods that ask the network twice a step make more calls than steps.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names a field that is out of range or contradicts another, or `steps`.
    fn plan(&self, steps: usize) -> Result<Plan>;
}

impl Plan {
    /// No clipping.
    pub(crate) fn new(initial_scale: f64, calls: Vec<Call>) -> Self {
        Self { initial_scale, clip: Clip::None, epsilon_follows_clip: false, calls }
    }
}

impl Call {
    /// A network that sees the sample as it is.
    pub(crate) fn new(time: f64, level: Level, reading: Reading, next: Sum) -> Self {
        Self { time, level, input: 1.0, reading, seen: level, correct: vec![], next, variance: None }
    }
}
