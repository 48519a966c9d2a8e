//! Measures of sound.
//!
//! | item | what it measures |
//! |---|---|
//! | [`LogMel`] | features of clips or of frames, for Fréchet distances |
//! | [`spectral_convergence`], [`log_magnitude_distance`] | the distance of spectra |
//! | [`multi_resolution_stft`] | the same at several resolutions, as vocoders are trained |
//! | [`mel_distance`] | the distance of log-mels at several scales, as codecs are trained |
//! | [`log_spectral_distance`] | the distance of spectra in decibels |
//! | [`pitch_frame_error`] | frames with another pitch |
//! | [`snr`], [`si_sdr`], [`si_snr`] | the strength of a signal against its error in decibels |
//!
//! Sound is `[batch, channels, time]` in `[-1, 1]`. All is computed on the host, but for pitch with
//! 64 bits, with the transforms of [`dsp`](crate::dsp).

mod log_mel;
mod mel;
mod pitch;
mod ratio;
mod spectral;

pub use log_mel::LogMel;
pub use mel::mel_distance;
pub use pitch::pitch_frame_error;
pub use ratio::{si_sdr, si_snr, snr};
pub use spectral::{
    log_magnitude_distance, log_spectral_distance, multi_resolution_stft, spectral_convergence,
};

use crate::{Error, Result, check::ensure_argument};
use burn::tensor::Tensor;

/// The channels of the clips of a batch.
type Clips = Vec<Vec<Vec<f32>>>;

/// The values of waveforms `[batch, channels, time]`.
fn clips(waveforms: &Tensor<3>, argument: &str) -> Result<Clips> {
    let dims = waveforms.dims();
    ensure_argument(
        !dims.contains(&0),
        argument,
        format!("{dims:?}"),
        "at least one clip, channel and sample",
    )?;
    let values: Vec<f32> = waveforms.to_data().iter::<f32>().collect();
    if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::argument(argument, bad, "finite values"));
    }
    let channels = |clip: &[f32]| -> Vec<Vec<f32>> {
        clip.chunks_exact(dims[2]).map(<[f32]>::to_vec).collect()
    };
    Ok(values
        .chunks_exact(dims[1] * dims[2])
        .map(channels)
        .collect())
}

/// The values of estimates and their targets.
fn pairs(estimates: &Tensor<3>, targets: &Tensor<3>) -> Result<(Clips, Clips)> {
    ensure_argument(
        estimates.dims() == targets.dims(),
        "estimates",
        format!("{:?}", estimates.dims()),
        &format!("{:?}, like the targets", targets.dims()),
    )?;
    Ok((clips(estimates, "estimates")?, clips(targets, "targets")?))
}
