//! Means and scales of the bands of spectrograms.

use aigc_core::{Result, audio::Waveform, check::ensure_argument, dsp::MelConfig, ops};
use burn::{
    module::Param,
    tensor::{Device, Tensor},
};

/// Variance below which a band is left at its scale.
const LEAST_VARIANCE: f64 = 1e-8;

/// Mean and scale of each band, `[mels]`, which are not trained.
#[derive(Debug)]
pub(super) struct Statistics {
    pub(super) mean: Param<Tensor<1>>,
    pub(super) scale: Param<Tensor<1>>,
}

impl Statistics {
    /// Those that change nothing.
    pub(super) fn none(bands: usize, device: &Device) -> Self {
        Self::new(&vec![0.0; bands], &vec![1.0; bands], device)
    }

    pub(super) fn new(mean: &[f32], scale: &[f32], device: &Device) -> Self {
        let param = |values: &[f32]| {
            Param::from_tensor(Tensor::<1>::from_floats(values, device)).set_require_grad(false)
        };
        Self {
            mean: param(mean),
            scale: param(scale),
        }
    }

    /// Mean and standard deviation of every band over all frames of the first channels of sounds.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for a sound that is shorter
    /// than a frame, of another sample rate or not finite, or if there is no sound.
    pub(super) fn of<'a>(
        config: &MelConfig,
        sounds: impl IntoIterator<Item = &'a Waveform>,
        device: &Device,
    ) -> Result<Self> {
        let (mel, bands) = (config.init()?, config.n_mels);
        let (mut frames, mut sums) = (0usize, vec![[0.0f64; 2]; bands]);
        for sound in sounds {
            let (rate, expected) = (sound.sample_rate(), config.sample_rate);
            let expected = format!("{expected}, the rate of the spectrograms");
            ensure_argument(rate == config.sample_rate, "sample_rate", rate, &expected)?;
            let log_mel = mel.log_mel(sound.channel(0))?;
            frames += log_mel.len();
            for frame in log_mel.values().chunks_exact(bands) {
                for (sums, value) in sums.iter_mut().zip(frame) {
                    sums[0] += value;
                    sums[1] += value * value;
                }
            }
        }
        ensure_argument(frames > 0, "sounds", "none", "at least one sound")?;
        let count = frames as f64;
        let mean: Vec<f32> = sums.iter().map(|sums| (sums[0] / count) as f32).collect();
        let deviation = |[sum, squares]: &[f64; 2]| {
            let variance = squares / count - (sum / count).powi(2);
            if variance > LEAST_VARIANCE {
                variance.sqrt() as f32
            } else {
                1.0
            }
        };
        let scale: Vec<f32> = sums.iter().map(deviation).collect();
        Ok(Self::new(&mean, &scale, device))
    }
}

/// Spectrograms less the mean, over the scale of each band.
///
/// # Shapes
/// - log_mel: `[batch, mels, frames]`
/// - mean and scale: `[mels]`
pub(super) fn normalize(
    log_mel: Tensor<3>,
    mean: &Param<Tensor<1>>,
    scale: &Param<Tensor<1>>,
) -> Tensor<3> {
    let (dtype, bands) = (log_mel.dtype(), log_mel.dims()[1]);
    let [mean, scale] =
        [mean, scale].map(|value| ops::cast(value.val().detach(), dtype).reshape([1, bands, 1]));
    (log_mel - mean) / scale
}
