//! The network that predicts magnitudes.

use super::{ConvNextBlock, MagnitudeVocoderConfig, block::KERNEL, objective::LEAST_POWER};
use crate::vocoder::{
    checks::check_mel,
    files,
    statistics::{Statistics, normalize},
};
use aigc_core::{
    Result,
    audio::{Vocoder, Waveform},
    dsp::{Frames, GriffinLim, MelConfig, MelSpectrogram},
    json,
    nn::{Conv1d, Conv1dConfig, Initializer, LayerNorm, LayerNormConfig},
    ops,
    weights::{Loaded, OpenOptions, pytorch_key},
};
use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Tensor, TensorData},
};
use std::path::Path;

/// A network that predicts the magnitudes of spectra from log-mels, as the post-processing network
/// of Tacotron does (Wang et al. 2017, <https://arxiv.org/abs/1703.10135>, §3.4); their angles are
/// found by the fast algorithm of Griffin and Lim, as in [`GriffinLim`].
///
/// ```text
/// log-mel → smooth magnitudes ──────────────────────────────────────┐
/// log-mel → conv_pre → ConvNeXt blocks → norm → conv_post → exp → product → angles → waveform
/// ```
///
/// The filters of a mel spectrogram hide the harmonics above about 1 kHz, and without a network its
/// sound is hollow. The network predicts factors of the
/// [smooth magnitudes](MelSpectrogram::smooth_magnitudes) of the mels. This is regression: minutes
/// of training without discriminators are enough.
///
/// A [`MagnitudeObjective`](crate::vocoder::MagnitudeObjective) trains it.
#[derive(Module, Debug)]
pub struct MagnitudeVocoder {
    /// From mels to channels.
    pub conv_pre: Conv1d,
    /// ConvNeXt blocks, applied in sequence.
    pub blocks: Vec<ConvNextBlock>,
    /// Normalises the channels of each frame.
    pub norm: LayerNorm,
    /// From channels to logarithms of the factors of magnitudes.
    pub conv_post: Conv1d,
    /// Mean of each band, `[mels]`; not trained.
    pub mean: Param<Tensor<1>>,
    /// Scale of each band, `[mels]`; not trained.
    pub scale: Param<Tensor<1>>,
    #[module(skip)]
    config: MagnitudeVocoderConfig,
    #[module(skip)]
    mel: MelSpectrogram,
    #[module(skip)]
    angles: GriffinLim,
}

impl MagnitudeVocoder {
    /// The network of a valid configuration.
    pub(super) fn new(config: &MagnitudeVocoderConfig, device: &Device) -> Result<Self> {
        let (mels, dim) = (config.mel_config.n_mels, config.dim);
        let mel = config.mel_config.init()?;
        let Statistics { mean, scale } = Statistics::none(mels, device);
        Ok(Self {
            conv_pre: Conv1dConfig::new([mels, dim], KERNEL)
                .with_padding(KERNEL / 2)
                .init(device),
            blocks: (0..config.num_layers)
                .map(|_| ConvNextBlock::new(config, device))
                .collect(),
            norm: LayerNormConfig::new(dim).init(device),
            // All factors begin as 1.
            conv_post: Conv1dConfig::new([dim, mel.stft().bins()], 1)
                .with_initializer(Initializer::ZEROS)
                .init(device),
            mean,
            scale,
            angles: config.griffin_lim().init()?,
            mel,
            config: config.clone(),
        })
    }

    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(
        pub config: MagnitudeVocoderConfig,
        files: aigc_core::hub_model::ModelFiles::TRANSFORMERS
    );

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let path = dir.join("config.json");
        let config = json::read_file(&path, MagnitudeVocoderConfig::from_json)?;
        let files = files::open(dir, options.variant.as_deref())?;
        let created = config.try_map(|config| config.init(device))?;
        files.load(created, options.dtype, pytorch_key)
    }

    /// Writes `config.json` and `model.safetensors` to a directory.
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if a
    /// file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        aigc_core::weights::save_pretrained(self, &json::to_map(&self.config), dir.as_ref())
    }

    /// Configuration of the network.
    pub fn config(&self) -> &MagnitudeVocoderConfig {
        &self.config
    }

    /// Normalises the spectrograms with the mean and the standard deviation of every band over all
    /// frames of these sounds, of which the first channel is taken. Without them, log-mels are far
    /// below 0, and training begins slowly.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for a sound that is shorter
    /// than a frame, of another sample rate or not finite, or if there is no sound.
    pub fn with_statistics_of<'a>(
        self,
        sounds: impl IntoIterator<Item = &'a Waveform>,
    ) -> Result<Self> {
        let device = self.mean.lazy_device();
        let Statistics { mean, scale } = Statistics::of(&self.config.mel_config, sounds, &device)?;
        Ok(Self {
            mean,
            scale,
            ..self
        })
    }

    /// The magnitudes of the spectra of log-mels: factors of the smooth ones, which are at least
    /// 3.2e-4. They are at most `n_fft`, more than a signal in `[−1, 1]` has.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`, not empty
    /// - output: `[batch, bins, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for another number of mels, or
    /// without frames.
    pub fn magnitudes(&self, log_mel: Tensor<3>) -> Result<Tensor<3>> {
        Ok(self.exp(self.log_magnitudes(log_mel)?))
    }

    /// Magnitudes of their logarithms, at most `n_fft`: a young network may predict logarithms
    /// whose exponentials are not finite.
    pub(super) fn exp(&self, log: Tensor<3>) -> Tensor<3> {
        log.clamp_max((self.config.mel_config.n_fft as f64).ln())
            .exp()
    }

    /// Natural logarithms of the magnitudes.
    pub(super) fn log_magnitudes(&self, log_mel: Tensor<3>) -> Result<Tensor<3>> {
        check_mel(&log_mel, self.config.mel_config.n_mels, 1)?;
        let x = normalize(log_mel.clone(), &self.mean, &self.scale);
        let blocks = self.blocks.iter();
        let x = blocks.fold(self.conv_pre.forward(x), |x, block| block.forward(x));
        let x = self.norm.forward(x.swap_dims(1, 2)).swap_dims(1, 2);
        let factors = ops::cast(self.conv_post.forward(x), DType::F32);
        let smooth = self.mel.smooth_magnitudes(log_mel);
        Ok(factors + smooth.clamp_min(LEAST_POWER.sqrt()).log())
    }
}

impl Vocoder for MagnitudeVocoder {
    fn mel_config(&self) -> &MelConfig {
        &self.config.mel_config
    }

    /// The magnitudes are read to the host, where the angles are found from the same first guess
    /// every time.
    ///
    /// # Errors
    /// Also if there are too few frames for the padding of the spectrograms, or mels that are not
    /// finite.
    fn vocode(&self, log_mel: Tensor<3>) -> Result<Tensor<2>> {
        let device = log_mel.device();
        let magnitudes = self.magnitudes(log_mel)?.detach().swap_dims(1, 2);
        let [batch, frames, bins] = magnitudes.dims();
        let values: Vec<f64> = magnitudes.into_data().iter::<f64>().collect();
        let mut waves = Vec::new();
        for clip in values.chunks_exact(frames * bins) {
            let magnitudes = Frames::new(clip.to_vec(), bins)?;
            waves.extend(self.angles.waveform_of_magnitudes(&magnitudes)?);
        }
        let shape = [batch, waves.len() / batch];
        Ok(Tensor::from_data(TensorData::new(waves, shape), &device))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        dsp::{GriffinLimConfig, MelPadding},
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    fn small() -> MagnitudeVocoderConfig {
        MagnitudeVocoderConfig {
            mel_config: MelConfig::hifi_gan(8000, 128, 30, 12),
            dim: 8,
            intermediate_dim: 16,
            num_layers: 2,
            rounds: 8,
            ..MagnitudeVocoderConfig::speech_8khz()
        }
    }

    /// A network whose last layer is not 0.
    fn random(config: &MagnitudeVocoderConfig, device: &Device) -> MagnitudeVocoder {
        let mut vocoder = config.init(device).unwrap().init_weights(1);
        let conv = Conv1dConfig::new([config.dim, 65], 1).init(device);
        vocoder.conv_post = conv.init_weights(2);
        vocoder
    }

    /// Two moving tones.
    fn sound(len: usize) -> Vec<f32> {
        let sample = |i: usize| {
            let time = i as f32 / 8000.0;
            (2800.0 * time + 900.0 * time * time).sin() * 0.4 + (7100.0 * time).sin() * 0.2
        };
        (0..len).map(sample).collect()
    }

    fn log_mel(config: &MelConfig, samples: &[f32], device: &Device) -> Tensor<3> {
        let wave = Tensor::<1>::from_floats(samples, device).unsqueeze_dim(0);
        config.init().unwrap().log_mel_tensor(wave)
    }

    /// The waveforms are those that Griffin and Lim's algorithm makes of the magnitudes, of every
    /// spectrogram its own.
    #[test]
    fn waveforms_have_the_predicted_magnitudes() {
        let device = Device::flex();
        for padding in [MelPadding::Hop, MelPadding::Center, MelPadding::None] {
            let mut config = small();
            (config.mel_config.padding, config.momentum) = (padding, 0.5);
            let vocoder = random(&config, &device);
            let mel = log_mel(&config.mel_config, &sound(1200), &device);
            let two = Tensor::cat(vec![mel.clone() - 1.0, mel], 0);
            let [_, _, frames] = two.dims();
            let found = vocoder.vocode(two.clone()).unwrap();
            let magnitudes = vocoder.magnitudes(two).unwrap();
            assert_eq!(magnitudes.dims(), [2, 65, frames]);
            let rows = magnitudes.swap_dims(1, 2).narrow(0, 1, 1);
            let rows: Vec<f64> = values(rows).into_iter().map(f64::from).collect();
            let angles = GriffinLimConfig {
                rounds: 8,
                momentum: 0.5,
                ..GriffinLimConfig::new(config.mel_config)
            };
            let expected = angles
                .init()
                .unwrap()
                .waveform_of_magnitudes(&Frames::new(rows, 65).unwrap());
            let expected = expected.unwrap();
            assert_eq!(found.dims(), [2, expected.len()]);
            assert_close(&values(found.narrow(0, 1, 1)), &expected, 1e-6);
        }
    }

    /// A network without training has the smooth magnitudes.
    #[test]
    fn magnitudes_begin_smooth() {
        let device = Device::flex();
        let vocoder = small().init(&device).unwrap().init_weights(1);
        let mel = log_mel(&small().mel_config, &sound(1200), &device);
        let found = vocoder.magnitudes(mel.clone()).unwrap();
        let smooth = vocoder.mel.smooth_magnitudes(mel);
        let smooth = smooth.clamp_min(LEAST_POWER.sqrt());
        assert_close(&values(found), &values(smooth), 1e-5);
    }

    /// A magnitude depends on no frames but those around it.
    #[test]
    fn context_is_that_of_the_convolutions() {
        let device = Device::flex();
        let config = small();
        let vocoder = random(&config, &device);
        let (frames, at) = (60, 30);
        let mel: Tensor<3> = Rng::new(3).normal([1, 12, frames], &device);
        let changed = mel.clone().slice_fill([0..1, 0..12, at..at + 1], 9.0);
        let [one, other] = [mel, changed].map(|mel| vocoder.magnitudes(mel).unwrap());
        let change = values((one - other).abs().max_dim(1));
        let context = config.context_frames();
        let reached = |frame: &usize| change[*frame] > 0.0;
        let reached: Vec<usize> = (0..frames).filter(reached).collect();
        assert_eq!(reached, (at - context..=at + context).collect::<Vec<_>>());
    }

    #[test]
    fn models_are_opened_as_they_were_saved() {
        let device = Device::flex();
        let dir = tempfile::tempdir().unwrap();
        let waves = [Waveform::mono(sound(4000), 8000).unwrap()];
        let mel = log_mel(&small().mel_config, &sound(900), &device);
        let magnitudes =
            |vocoder: &MagnitudeVocoder| values(vocoder.magnitudes(mel.clone()).unwrap());
        let plain = random(&small(), &device);
        let before = magnitudes(&plain);
        let vocoder = plain.with_statistics_of(&waves).unwrap();
        assert_ne!(magnitudes(&vocoder), before);
        vocoder.save_pretrained(dir.path()).unwrap();
        let opened = MagnitudeVocoder::from_pretrained(dir.path(), &device).unwrap();
        assert_eq!(opened.config(), vocoder.config());
        assert_eq!(magnitudes(&opened), magnitudes(&vocoder));
    }

    #[test]
    fn spectrograms_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let vocoder = small().init(&device).unwrap();
        let message = |bands, frames| {
            let mel = Tensor::zeros([1, bands, frames], &device);
            vocoder.vocode(mel).unwrap_err().to_string()
        };
        assert!(message(11, 9).contains("`log_mel`"), "{}", message(11, 9));
        assert!(message(12, 1).contains("`samples`"), "{}", message(12, 1));
    }
}
