//! The generator of HiFi-GAN with a harmonic source.

use super::{NsfHifiGanConfig, PitchPredictor, pitch::Pitch, source::Source};
use crate::vocoder::{
    Generated, HifiGanResidualBlock, VocoderGenerator,
    checks::check_mel,
    files,
    statistics::{Statistics, normalize},
};
use aigc_core::{
    Error, Result,
    audio::{Vocoder, Waveform},
    check::ensure_argument,
    dsp::{MelConfig, PitchTracker},
    json,
    nn::{Activation, Conv1d, Conv1dConfig},
    ops,
    rng::Rng,
    weights::{KeyMapping, Loaded, OpenOptions},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use std::path::Path;

/// Kernel of the first and of the last layer.
const END_KERNEL: usize = 7;

/// Slope of the leaky ReLU before the last layer, as in HiFi-GAN. With a larger one, silence has to
/// be a sum of values that cancel each other, and training is slower.
const LAST_SLOPE: f64 = 0.01;

/// HiFi-GAN's generator that filters a source, sine waves at multiples of the pitch and noise, as
/// neural source-filter models do (Wang et al. 2019, <https://arxiv.org/abs/1904.12088>; Li et al.
/// 2023, <https://arxiv.org/abs/2309.09493>). The pitch is predicted from the spectrogram.
///
/// ```text
/// log-mel → pitch → source ──────────────┬──────────────────┐
/// log-mel → conv_pre → interpolate → conv + conv(source) → blocks → … → conv_post → waveform
/// ```
///
/// A young [`HifiGan`](crate::vocoder::HifiGan) repeats a pattern in every frame, so it hums at the
/// frame rate; other pitches take long adversarial training. Here the periods are given.
/// Upsampling is linear interpolation and a convolution, since the pattern of a transposed
/// convolution, which repeats with every frame, is a tone of its own (Pons et al. 2021,
/// <https://arxiv.org/abs/2010.14356>), which the network would use in place of the source.
///
/// Trained by a [`VocoderObjective`](crate::vocoder::VocoderObjective), it is given the pitch of
/// the sounds, and the metric `pitch` is the loss of the prediction.
#[derive(Module, Debug)]
pub struct NsfHifiGan {
    /// Predicts the pitch.
    pub pitch: PitchPredictor,
    /// From mels to channels.
    pub conv_pre: Conv1d,
    /// Convolutions behind the interpolations.
    pub upsampler: Vec<Conv1d>,
    /// From the source to the channels behind each interpolation.
    pub source_convs: Vec<Conv1d>,
    /// The blocks behind all upsamplings, as many behind each as there are kernels.
    pub resblocks: Vec<HifiGanResidualBlock>,
    /// From channels to samples.
    pub conv_post: Conv1d,
    /// Mean of each band, `[mels]`; not trained.
    pub mean: Param<Tensor<1>>,
    /// Scale of each band, `[mels]`; not trained.
    pub scale: Param<Tensor<1>>,
    #[module(skip)]
    config: NsfHifiGanConfig,
    #[module(skip)]
    tracker: PitchTracker,
}

impl NsfHifiGan {
    /// The network of a valid configuration.
    pub(super) fn new(config: &NsfHifiGanConfig, device: &Device) -> Result<Self> {
        let initial = config.upsample_initial_channel;
        let conv = |channels, kernel: usize, stride| {
            Conv1dConfig::new(channels, kernel)
                .with_stride(stride)
                .with_padding(kernel / 2)
                .init_scaled(1.0, device)
        };
        let (mut upsampler, mut source_convs, mut resblocks) = (vec![], vec![], vec![]);
        let mut hop = config.hop_length();
        for (layer, rate) in config.upsample_rates.iter().enumerate() {
            let channels = [initial >> layer, initial >> (layer + 1)];
            upsampler.push(conv(channels, 2 * rate + 1, 1));
            // From samples to the positions of this layer.
            hop /= rate;
            let sources = [config.harmonics + 1, channels[1]];
            let source = Conv1dConfig::new(sources, hop + hop / 2 * 2)
                .with_stride(hop)
                .with_padding(hop / 2);
            source_convs.push(source.init_scaled(1.0, device));
            let kernels = config.resblock_kernel_sizes.iter();
            for (kernel, dilations) in kernels.zip(&config.resblock_dilation_sizes) {
                let block =
                    HifiGanResidualBlock::new(channels[1], *kernel, dilations, false, device);
                resblocks.push(block);
            }
        }
        let last = initial >> config.upsample_rates.len();
        let Statistics { mean, scale } = Statistics::none(config.mel_config.n_mels, device);
        Ok(Self {
            pitch: PitchPredictor::new(config, device),
            conv_pre: conv([config.mel_config.n_mels, initial], END_KERNEL, 1),
            upsampler,
            source_convs,
            resblocks,
            conv_post: conv([last, 1], END_KERNEL, 1),
            mean,
            scale,
            tracker: config.pitch_config().init()?,
            config: config.clone(),
        })
    }

    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(
        pub config: NsfHifiGanConfig,
        files: aigc_core::hub_model::ModelFiles::TRANSFORMERS
    );

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let path = dir.join("config.json");
        let config = json::read_file(&path, NsfHifiGanConfig::from_json)?;
        let files = files::open(dir, options.variant.as_deref())?;
        let created = config.try_map(|config| config.init(device))?;
        files.load(created, options.dtype, |key| KeyMapping::new(key.path))
    }

    /// Writes `config.json` and `model.safetensors` to a directory.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        aigc_core::weights::save_pretrained(self, &json::to_map(&self.config), dir.as_ref())
    }

    /// Configuration of the network.
    pub fn config(&self) -> &NsfHifiGanConfig {
        &self.config
    }

    /// Normalises the spectrograms with the mean and the standard deviation of every band over all
    /// frames of these sounds, of which the first channel is taken. Without them, log-mels are far
    /// below 0, and training begins slowly.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sound that is shorter than a frame, of another sample rate
    /// or not finite, or if there is no sound.
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

    /// The pitch of the frames of spectrograms in hertz, 0 for a frame without one, for each
    /// spectrogram.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of mels, or without frames.
    pub fn pitch_of(&self, log_mel: &Tensor<3>) -> Result<Vec<Vec<f32>>> {
        check_mel(log_mel, self.config.mel_config.n_mels, 1)?;
        Ok(self.predict(log_mel.clone()).values())
    }

    /// The waveforms of log-mel spectrograms with a given pitch, such as the predicted one times a
    /// factor. The first phases and the noise of the source are drawn from `rng`.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - pitch: of every frame in hertz, 0 for a frame without one, for each spectrogram
    /// - output: `[batch, frames·hop]`, in `[−1, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of mels, without frames, or for another number
    /// of pitches or one that is negative or above half of the sample rate.
    pub fn vocode_with_pitch(
        &self,
        log_mel: Tensor<3>,
        pitch: &[Vec<f32>],
        rng: &mut Rng,
    ) -> Result<Tensor<2>> {
        let source = self.source(&log_mel, pitch, rng)?;
        Ok(self.filter(log_mel, source))
    }

    /// [`vocode`](Vocoder::vocode) for long spectrograms, `chunk` frames at a time, each computed
    /// by the next call of the iterator: the same sound in less memory, and the first part sooner.
    /// Every chunk is computed with the frames around it on which it depends, so there are no
    /// seams. Pitch and source are computed for the whole at first.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - items: `[batch, time]`
    ///
    /// # Errors
    /// As [`vocode`](Vocoder::vocode); [`Error::InvalidArgument`] if `chunk` is 0.
    pub fn chunks(
        &self,
        log_mel: Tensor<3>,
        chunk: usize,
    ) -> Result<impl Iterator<Item = Tensor<2>> + '_> {
        ensure_argument(chunk > 0, "chunk", chunk, "at least 1 frame")?;
        let pitch = self.pitch_of(&log_mel)?;
        let source = self.source(&log_mel, &pitch, &mut Rng::new(0))?;
        let frames = log_mel.dims()[2];
        let (hop, context) = (self.config.hop_length(), self.config.context_frames());
        Ok((0..frames).step_by(chunk).map(move |start| {
            let end = frames.min(start.saturating_add(chunk));
            let (first, last) = (start.saturating_sub(context), frames.min(end + context));
            let mel = log_mel.clone().narrow(2, first, last - first);
            let source = source.clone().narrow(2, first * hop, (last - first) * hop);
            let wave = self.filter(mel, source);
            wave.narrow(1, (start - first) * hop, (end - start) * hop)
        }))
    }

    fn predict(&self, log_mel: Tensor<3>) -> Pitch {
        let x = normalize(log_mel, &self.mean, &self.scale);
        self.pitch.forward(x, self.activation())
    }

    fn activation(&self) -> Activation {
        Activation::LeakyRelu(self.config.leaky_relu_slope)
    }

    /// The source of spectrograms with this pitch, `[batch, harmonics + 1, frames·hop]`.
    fn source(&self, log_mel: &Tensor<3>, pitch: &[Vec<f32>], rng: &mut Rng) -> Result<Tensor<3>> {
        let mel = &self.config.mel_config;
        check_mel(log_mel, mel.n_mels, 1)?;
        let [batch, _, frames] = log_mel.dims();
        let fits = pitch.len() == batch && pitch.iter().all(|row| row.len() == frames);
        let lengths: Vec<usize> = pitch.iter().map(Vec::len).collect();
        let expected = format!("{batch} times {frames} values, one for each frame");
        ensure_argument(fits, "pitch", format!("of lengths {lengths:?}"), &expected)?;
        let most = mel.sample_rate as f32 / 2.0;
        let is_bad = |hertz: &&f32| !(0.0..=most).contains(*hertz);
        if let Some(bad) = pitch.iter().flatten().find(is_bad) {
            return Err(Error::argument("pitch", bad, format!("0 to {most} Hz")));
        }
        let source = Source {
            sample_rate: mel.sample_rate,
            hop_length: mel.hop_length,
            harmonics: self.config.harmonics,
        };
        let waves = source.waves(pitch, rng, &log_mel.device());
        Ok(ops::cast(waves, log_mel.dtype()))
    }

    /// The waveforms of spectrograms with their sources.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - source: `[batch, harmonics + 1, frames·hop]`
    /// - output: `[batch, frames·hop]`, in `[−1, 1]`
    fn filter(&self, log_mel: Tensor<3>, source: Tensor<3>) -> Tensor<2> {
        let activation = self.activation();
        let x = normalize(log_mel, &self.mean, &self.scale);
        let mut hidden = self.conv_pre.forward(x);
        let kernels = self.config.resblock_kernel_sizes.len();
        let layers = self.upsampler.iter().zip(&self.source_convs);
        let layers = layers.zip(&self.config.upsample_rates);
        for (((conv, source_conv), rate), blocks) in layers.zip(self.resblocks.chunks(kernels)) {
            let x = conv.forward(interpolate(activation.forward(hidden), *rate));
            let x = x + source_conv.forward(source.clone());
            let outputs = blocks
                .iter()
                .map(|block| block.forward(x.clone(), activation));
            let sum = outputs.reduce(|sum, output| sum + output);
            hidden = sum.expect("a valid configuration has blocks") / kernels as f64;
        }
        let hidden = Activation::LeakyRelu(LAST_SLOPE).forward(hidden);
        let y = self.conv_post.forward(hidden);
        let [batch, _, time] = y.dims();
        Activation::Tanh.forward(y).reshape([batch, time])
    }
}

impl Vocoder for NsfHifiGan {
    fn mel_config(&self) -> &MelConfig {
        &self.config.mel_config
    }

    /// With the predicted pitch. The noise is always the same for a shape, so that a spectrogram
    /// always has the same sound. The pitch is read to the host.
    fn vocode(&self, log_mel: Tensor<3>) -> Result<Tensor<2>> {
        let pitch = self.pitch_of(&log_mel)?;
        self.vocode_with_pitch(log_mel, &pitch, &mut Rng::new(0))
    }
}

impl VocoderGenerator for NsfHifiGan {
    /// With the pitch of the targets, which is found on the host, and new noise. The loss `pitch`
    /// is that of the predicted pitch.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the spectrograms do not fit the network or the targets.
    fn generate(&self, log_mel: Tensor<3>, target: &Tensor<2>, rng: &mut Rng) -> Result<Generated> {
        check_mel(&log_mel, self.config.mel_config.n_mels, 1)?;
        let ([sounds, _, frames], [batch, time]) = (log_mel.dims(), target.dims());
        let expected = format!("[{sounds}, time], with samples");
        let found = format!("{:?}", target.dims());
        ensure_argument(batch == sounds && time > 0, "target", found, &expected)?;
        let samples: Vec<f32> = target.clone().detach().into_data().iter::<f32>().collect();
        let rows = samples.chunks(time);
        let pitch: Vec<Vec<f32>> = rows.map(|row| self.tracker.track(row, frames)).collect();
        let values = TensorData::new(pitch.concat(), [batch, frames]);
        let predicted = self.predict(log_mel.clone());
        let loss = predicted.loss(Tensor::from_data(values, &log_mel.device()));
        Ok(Generated {
            wave: self.vocode_with_pitch(log_mel, &pitch, rng)?,
            losses: vec![("pitch", loss)],
        })
    }
}

/// `rate` times as many values, linear between the centres of those given and constant outside, as
/// `torch.nn.functional.interpolate` has them with `mode="linear"`.
///
/// # Shapes
/// - x: `[batch, channels, time]`
/// - output: `[batch, channels, time·rate]`
fn interpolate(x: Tensor<3>, rate: usize) -> Tensor<3> {
    let [batch, channels, time] = x.dims();
    if time == 1 {
        return x.repeat_dim(2, rate);
    }
    let (first, last) = (x.clone().narrow(2, 0, 1), x.clone().narrow(2, time - 1, 1));
    let before = Tensor::cat(vec![first, x.clone().narrow(2, 0, time - 1)], 2);
    let after = Tensor::cat(vec![x.clone().narrow(2, 1, time - 1), last], 2);
    // Position in a value's own width, from −1/2 to 1/2, and the share of each neighbour there.
    let positions = (0..rate).map(|step| (step as f32 + 0.5) / rate as f32 - 0.5);
    let shares = |sign: f32| {
        let shares = positions.clone().map(|at| (sign * at).max(0.0));
        let shares: Vec<f32> = shares.collect();
        let shares = Tensor::<1>::from_floats(shares.as_slice(), &x.device());
        ops::cast(shares, x.dtype()).reshape([1, 1, 1, rate])
    };
    let step = |other: Tensor<3>, sign| -> Tensor<4> {
        (other - x.clone()).unsqueeze_dim::<4>(3) * shares(sign)
    };
    let steps = step(before, -1.0) + step(after, 1.0);
    let x: Tensor<4> = x.clone().unsqueeze_dim(3);
    (x + steps).reshape([batch, channels, time * rate])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
    };

    fn small() -> NsfHifiGanConfig {
        NsfHifiGanConfig {
            mel_config: MelConfig::hifi_gan(8000, 128, 30, 12),
            upsample_initial_channel: 16,
            upsample_rates: vec![5, 3, 2],
            resblock_kernel_sizes: vec![3, 5],
            harmonics: 4,
            pitch_channels: 8,
            ..NsfHifiGanConfig::speech_8khz()
        }
    }

    fn spectra(batch: usize, frames: usize, device: &Device) -> Tensor<3> {
        Rng::new(5).normal([batch, 12, frames], device)
    }

    #[test]
    fn interpolation_is_linear() {
        let x = Tensor::<3>::from_floats([[[0.0, 4.0, 2.0]]], &Device::flex());
        let expected = [
            0.0, 0.0, 0.5, 1.5, 2.5, 3.5, 3.75, 3.25, 2.75, 2.25, 2.0, 2.0,
        ];
        assert_close(&values(interpolate(x.clone(), 4)), &expected, 1e-6);
        let expected = [
            0.0,
            0.0,
            4.0 / 3.0,
            8.0 / 3.0,
            4.0,
            10.0 / 3.0,
            8.0 / 3.0,
            2.0,
            2.0,
        ];
        assert_close(&values(interpolate(x.clone(), 3)), &expected, 1e-6);
        assert_close(&values(interpolate(x.narrow(2, 1, 1), 3)), &[4.0; 3], 0.0);
    }

    #[test]
    fn chunks_are_the_whole_without_seams() {
        let device = Device::flex();
        let vocoder = small().init(&device).unwrap().init_weights(1);
        let log_mel = spectra(2, 60, &device);
        let one = vocoder.vocode(log_mel.clone().narrow(2, 0, 1)).unwrap();
        assert_eq!(one.dims(), [2, 30]);
        let whole = vocoder.vocode(log_mel.clone()).unwrap();
        assert_eq!(whole.dims(), [2, 1800]);
        assert!(values(whole.clone()).iter().any(|x| x.abs() > 1e-3));
        for chunk in [1, 7, 60, 100] {
            let parts = vocoder.chunks(log_mel.clone(), chunk).unwrap().collect();
            let joined = Tensor::cat(parts, 1);
            assert_close(&values(joined), &values(whole.clone()), 1e-5);
        }
        assert!(vocoder.chunks(log_mel, 0).is_err());
    }

    /// For a constant spectrogram and no noise, the waveform repeats with the period of the given
    /// pitch.
    #[test]
    fn sound_repeats_with_the_given_pitch() {
        let device = Device::flex();
        let mut vocoder = small().init(&device).unwrap().init_weights(1);
        for conv in &mut vocoder.source_convs {
            // Silences the channel of noise.
            conv.weight = conv.weight.clone().map(|weight| {
                let [out, channels, kernel] = weight.dims();
                let noise = Tensor::zeros([out, 1, kernel], &device);
                Tensor::cat(vec![weight.narrow(1, 0, channels - 1), noise], 1)
            });
        }
        let log_mel = spectra(1, 1, &device).repeat_dim(2, 80);
        let wave = |hertz: f32| {
            let pitch = [vec![hertz; 80]];
            let wave = vocoder.vocode_with_pitch(log_mel.clone(), &pitch, &mut Rng::new(2));
            values(wave.unwrap())[900..1500].to_vec()
        };
        // Positions have a period of a frame, 30 samples, which divides three of the pitch.
        for (hertz, period) in [(80.0, 100), (160.0, 50)] {
            let (wave, both) = (wave(hertz), 3 * period);
            let distance = |lag: usize| -> f32 {
                let pairs = wave.iter().zip(&wave[lag..]);
                pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>()
            };
            let (same, other) = (distance(both), distance(both + period / 2));
            assert!(same < 1e-3 * other && other > 0.0, "{same} {other}");
        }
    }

    /// All weights of network and predictor have gradients, and the noise differs from step to
    /// step.
    #[test]
    fn training_reaches_all_weights() {
        let device = Device::flex().autodiff();
        let vocoder = small().init(&device).unwrap().init_weights(1);
        let target: Tensor<2> = Rng::new(4).normal([2, 600], &device);
        let log_mel = spectra(2, 20, &device);
        let generated = |seed| {
            let mut rng = Rng::new(seed);
            vocoder
                .generate(log_mel.clone(), &target, &mut rng)
                .unwrap()
        };
        let Generated { wave, losses } = generated(1);
        assert_ne!(values(wave.clone()), values(generated(2).wave));
        assert_eq!(values(wave.clone()), values(generated(1).wave));
        let (name, loss) = losses.into_iter().next().unwrap();
        assert_eq!(name, "pitch");
        let gradients = (wave.powi_scalar(2).sum() + loss).backward();
        let reached = |conv: &Conv1d| {
            let gradient = conv.weight.val().grad(&gradients).unwrap();
            values(gradient.abs().sum())[0] > 0.0
        };
        let convs = [&vocoder.conv_pre, &vocoder.conv_post, &vocoder.pitch.output];
        assert!(convs.into_iter().all(reached));
        let lists = [
            &vocoder.upsampler,
            &vocoder.source_convs,
            &vocoder.pitch.convs,
        ];
        assert!(lists.into_iter().flatten().all(reached));
    }

    #[test]
    fn models_are_opened_as_they_were_saved() {
        let device = Device::flex();
        let dir = tempfile::tempdir().unwrap();
        let waves: Vec<f32> = (0..4000).map(|t| (t as f32 * 0.07).sin()).collect();
        let waves = [Waveform::mono(waves, 8000).unwrap()];
        let vocoder = small().init(&device).unwrap().init_weights(1);
        let vocoder = vocoder.with_statistics_of(&waves).unwrap();
        vocoder.save_pretrained(dir.path()).unwrap();
        let opened = NsfHifiGan::from_pretrained(dir.path(), &device).unwrap();
        assert_eq!(opened.config(), vocoder.config());
        let log_mel = spectra(1, 9, &device);
        let sound = |vocoder: &NsfHifiGan| values(vocoder.vocode(log_mel.clone()).unwrap());
        assert_eq!(sound(&opened), sound(&vocoder));
    }

    #[test]
    fn pitches_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let vocoder = small().init(&device).unwrap();
        for pitch in [
            vec![vec![100.0; 9]],
            vec![vec![100.0; 10]; 2],
            vec![vec![-1.0; 10]],
            vec![vec![f32::NAN; 10]],
            vec![vec![4001.0; 10]],
        ] {
            let log_mel = spectra(1, 10, &device);
            let found = vocoder.vocode_with_pitch(log_mel, &pitch, &mut Rng::new(0));
            let error = found.unwrap_err().to_string();
            assert!(error.contains("`pitch`"), "{error}");
        }
        assert!(vocoder.vocode(Tensor::zeros([1, 11, 5], &device)).is_err());
    }
}
