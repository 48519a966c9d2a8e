//! Sound from mel spectra without a network, and distances of sounds from their originals.

use crate::fsdd::RATE;
use aigc_core::{
    Result,
    audio::Waveform,
    burn::tensor::{Device, Tensor},
    dsp::{GriffinLimConfig, MelConfig, PitchConfig},
    eval::audio::{pitch_frame_error, si_snr},
};
use aigc_examples::Progress;
use aigc_gan::vocoder::{VocoderMetrics, VocoderObjectiveConfig};

/// The mel spectra that distances are measured in, and that the vocoder reads.
pub(crate) fn vocoder_mel() -> MelConfig {
    MelConfig::hifi_gan(RATE, 256, 64, 40)
}

/// Griffin-Lim of the mel spectra of sounds, in sixty rounds.
///
/// # Errors
/// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for a sound shorter than a frame;
/// [`Error::Cancelled`](aigc_core::Error::Cancelled) if the evaluation is to stop.
pub(crate) fn griffin_lim(
    config: MelConfig,
    waves: &[Waveform],
    progress: &Progress,
) -> Result<Vec<Waveform>> {
    let (mel, vocoder) = (config.init()?, GriffinLimConfig::new(config).init()?);
    let again = |wave: &Waveform| {
        let samples = vocoder.waveform(&mel.log_mel(wave.channel(0))?)?;
        progress.add(1)?;
        Waveform::mono(samples, config.sample_rate)
    };
    waves.iter().map(again).collect()
}

/// The distances of each sound from its original.
#[derive(Debug, Default)]
pub(crate) struct Distances {
    /// Mean absolute difference of log-mels.
    pub(crate) mel: Vec<f64>,
    /// Multi-resolution distance of spectra, in windows of 10, 25 and 50 ms.
    pub(crate) stft: Vec<f64>,
    /// Scale-invariant signal-to-noise ratio in decibels.
    pub(crate) si_snr: Vec<f64>,
    /// Share of frames with another pitch, one where there is none, or none where there is one.
    pub(crate) pitch: Vec<f64>,
}

impl Distances {
    /// Of sounds that are cut to the length of their originals, or the other way round.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for a sound shorter than a
    /// frame, or values that are not finite.
    pub(crate) fn new(
        estimates: &[Waveform],
        originals: &[Waveform],
        device: &Device,
    ) -> Result<Self> {
        let resolutions = VocoderObjectiveConfig::speech_8khz(0).resolutions;
        let metrics = VocoderMetrics::new(vocoder_mel())?.with_resolutions(&resolutions)?;
        let tracker = PitchConfig::for_mel(&vocoder_mel()).init()?;
        let mut distances = Self::default();
        for (estimate, original) in estimates.iter().zip(originals) {
            let scores = metrics.compare(estimate, original, device)?;
            distances.mel.push(scores.mel);
            distances.stft.push(scores.stft);
            let len = estimate.len().min(original.len());
            let clip = |wave: &Waveform| -> Tensor<3> {
                wave.to_tensor(device).narrow(1, 0, len).unsqueeze_dim(0)
            };
            let (estimate, original) = (clip(estimate), clip(original));
            distances.si_snr.extend(si_snr(&estimate, &original)?);
            let errors = pitch_frame_error(&tracker, &estimate, &original)?;
            distances.pitch.extend(errors);
        }
        Ok(distances)
    }
}

/// The sounds of a batch, each of its own length if there are lengths.
///
/// # Shapes
/// - waves: `[batch, time]`
///
/// # Errors
/// None for a rate above 0.
pub(crate) fn waves_of(waves: &Tensor<2>, lengths: Option<&[usize]>) -> Result<Vec<Waveform>> {
    let [batch, time] = waves.dims();
    let wave = |row: usize| {
        let len = lengths.map_or(time, |lengths| lengths[row].min(time));
        let samples = waves.clone().narrow(0, row, 1).narrow(1, 0, len);
        Waveform::from_tensor(samples, RATE)
    };
    (0..batch).map(wave).collect()
}
