//! What the denoising loops of all pipelines share: the calls of the network, and a check of every
//! step.

use aigc_core::{Error, Result};
use aigc_diffusion::{AnyScheduler, SamplingPlan, Scheduler};
use burn::tensor::Tensor;

/// The calls of the network.
///
/// # Errors
/// [`Error::InvalidArgument`] names the field `num_inference_steps` of a request if the scheduler
/// does not have as many steps.
pub(crate) fn plan(scheduler: &AnyScheduler, num_inference_steps: usize) -> Result<SamplingPlan> {
    scheduler
        .plan(num_inference_steps)
        .map_err(|error| match error {
            Error::InvalidArgument {
                argument,
                value,
                expected,
            } if argument == "steps" => Error::argument("num_inference_steps", value, expected),
            other => other,
        })
}

/// Whether all numbers are finite.
pub(crate) fn is_finite<const D: usize>(x: &Tensor<D>) -> bool {
    // Zero times infinity is not a number.
    let zero = (x.clone() * 0.0).sum().into_data();
    zero.iter::<f32>().all(|sum| sum == 0.0)
}

/// Fails if numbers are not finite after a step, counted from 1.
///
/// # Errors
/// [`Error::NotFiniteSamples`] with `what` and the step.
pub(crate) fn check_finite<const D: usize>(
    x: &Tensor<D>,
    what: &str,
    step: usize,
    num_steps: usize,
) -> Result<()> {
    if is_finite(x) {
        return Ok(());
    }
    Err(Error::NotFiniteSamples {
        what: what.into(),
        step: Some((step, num_steps)),
        hint: "weights in 16 bits may have overflowed: open the pipeline with 32 bits, or choose \
               another scheduler or a lower guidance scale"
            .into(),
    })
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_diffusion::DdimScheduler;
    use burn::tensor::Device;

    #[test]
    fn steps_that_are_not_finite_are_named() {
        let check = |value: f32| {
            let x = Tensor::<2>::from_floats([[1.0, value], [f32::MAX, f32::MIN]], &Device::flex());
            check_finite(&x, "the latents", 3, 7)
        };
        check(0.5).unwrap();
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let message = check(value).unwrap_err().to_string();
            assert!(message.contains("the latents"), "{message}");
            assert!(message.contains('3') && message.contains('7'), "{message}");
        }
    }

    #[test]
    fn errors_name_the_field_of_the_request() {
        let scheduler = AnyScheduler::from(DdimScheduler::default());
        assert_eq!(plan(&scheduler, 5).unwrap().len(), 5);
        let message = plan(&scheduler, 2000).unwrap_err().to_string();
        assert!(
            message.contains("`num_inference_steps` is 2000"),
            "{message}"
        );
    }
}
