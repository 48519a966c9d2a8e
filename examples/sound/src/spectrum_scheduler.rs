//! How spectra are sampled by diffusion.

use aigc_diffusion::{DpmMultistepScheduler, SigmaScheduleFlags, Thresholding};

/// DPM-Solver++ with the noise levels of Karras et al. (2022, <https://arxiv.org/abs/2206.00364>).
/// Predictions are thresholded to the range of the spectra.
pub fn spectrum_scheduler() -> DpmMultistepScheduler {
    DpmMultistepScheduler {
        threshold: Thresholding {
            thresholding: true,
            ..Thresholding::default()
        },
        sigmas: SigmaScheduleFlags {
            use_karras_sigmas: true,
            ..SigmaScheduleFlags::default()
        },
        ..DpmMultistepScheduler::default()
    }
}
