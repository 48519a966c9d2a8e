//! What every step of a request looks at.

use aigc_core::{CancelToken, Error, Result};
use burn::tensor::Tensor;

/// Fails if the request is to stop.
pub(super) fn stop_if(cancel: &CancelToken) -> Result<()> {
    match cancel.is_cancelled() {
        true => Err(Error::cancelled("making a video")),
        false => Ok(()),
    }
}

/// Fails if latents are not finite after a step, counted from 1.
pub(super) fn check_finite(latents: &Tensor<5>, step: usize, steps: usize) -> Result<()> {
    // Zero times infinity is not a number.
    let zero = (latents.clone() * 0.0).sum().into_data();
    if zero.iter::<f32>().all(|sum| sum == 0.0) {
        return Ok(());
    }
    Err(Error::NotFiniteSamples {
        what: "the latents".into(),
        step: Some((step, steps)),
        hint: "weights in 16 bits may have overflowed: open the pipeline with 32 bits, or choose \
               another scheduler or a lower guidance scale"
            .into(),
    })
}
