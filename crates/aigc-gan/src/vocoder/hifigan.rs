//! The generator of HiFi-GAN.

use super::{
    HifiGanConfig, HifiGanStream,
    checks::check_mel,
    files,
    statistics::{Statistics, normalize},
};
use aigc_core::{
    Error, Result,
    audio::{Vocoder, Waveform},
    check::ensure_argument,
    dsp::MelConfig,
    json,
    nn::{Activation, Conv1d, Conv1dConfig, ConvTranspose1d, ConvTranspose1dConfig},
    weights::{KeyMapping, Loaded, OpenOptions},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Kernel of the first and of the last layer.
const END_KERNEL: usize = 7;

/// Slope of the leaky ReLU before the last layer: PyTorch's default, whatever the configuration
/// says.
const LAST_SLOPE: f64 = 0.01;

/// The generator of HiFi-GAN: a waveform from a log-mel spectrogram by transposed convolutions,
/// with residual blocks of several kernels and dilations in between (Kong et al. 2020,
/// <https://arxiv.org/abs/2010.05646>). The fields have the names of transformers'
/// `SpeechT5HifiGan`.
#[derive(Module, Debug)]
pub struct HifiGan {
    /// From mels to channels.
    pub conv_pre: Conv1d,
    /// Upsampling.
    pub upsampler: Vec<ConvTranspose1d>,
    /// The blocks behind all upsamplings, as many behind each as there are kernels.
    pub resblocks: Vec<HifiGanResidualBlock>,
    /// From channels to samples.
    pub conv_post: Conv1d,
    /// Mean of each band, `[mels]`; not trained.
    pub mean: Param<Tensor<1>>,
    /// Scale of each band, `[mels]`; not trained.
    pub scale: Param<Tensor<1>>,
    #[module(skip)]
    config: HifiGanConfig,
    #[module(skip)]
    mel: MelConfig,
}

/// Pairs of convolutions, the first of each dilated, each pair with a shortcut.
#[derive(Module, Debug)]
pub struct HifiGanResidualBlock {
    /// Dilated convolutions.
    pub convs1: Vec<Conv1d>,
    /// Convolutions behind them.
    pub convs2: Vec<Conv1d>,
}

impl HifiGanResidualBlock {
    pub(super) fn new(
        channels: usize,
        kernel: usize,
        dilations: &[usize],
        weight_norm: bool,
        device: &Device,
    ) -> Self {
        let conv = |dilation: usize| {
            Conv1dConfig::new([channels, channels], kernel)
                .with_dilation(dilation)
                .with_padding((kernel - 1) / 2 * dilation)
                .with_weight_norm(weight_norm)
                .init_scaled(1.0, device)
        };
        Self {
            convs1: dilations.iter().map(|dilation| conv(*dilation)).collect(),
            convs2: dilations.iter().map(|_| conv(1)).collect(),
        }
    }

    /// Applies the block.
    ///
    /// # Shapes
    /// - x and output: `[batch, channels, time]`
    ///
    /// # Panics
    /// If `x` does not have the number of channels.
    pub fn forward(&self, x: Tensor<3>, activation: Activation) -> Tensor<3> {
        let pairs = self.convs1.iter().zip(&self.convs2);
        pairs.fold(x, |x, (first, second)| {
            let y = first.forward(activation.forward(x.clone()));
            second.forward(activation.forward(y)) + x
        })
    }

    fn fold(self) -> Self {
        Self {
            convs1: self.convs1.into_iter().map(Conv1d::fold).collect(),
            convs2: self.convs2.into_iter().map(Conv1d::fold).collect(),
        }
    }
}

impl HifiGan {
    /// The network of a valid configuration.
    pub(super) fn new(config: &HifiGanConfig, device: &Device) -> Self {
        let (norm, initial) = (config.weight_norm, config.upsample_initial_channel);
        let end = |channels| {
            Conv1dConfig::new(channels, END_KERNEL)
                .with_padding(END_KERNEL / 2)
                .with_weight_norm(norm)
                .init_scaled(1.0, device)
        };
        let (mut upsampler, mut resblocks) = (Vec::new(), Vec::new());
        let rates = config.upsample_rates.iter();
        for (layer, (rate, kernel)) in rates.zip(&config.upsample_kernel_sizes).enumerate() {
            let channels = [initial >> layer, initial >> (layer + 1)];
            let upsampling = ConvTranspose1dConfig::new(channels, *kernel)
                .with_stride(*rate)
                .with_padding((kernel - rate) / 2)
                .with_weight_norm(norm);
            upsampler.push(upsampling.init_scaled(1.0, device));
            let kernels = config.resblock_kernel_sizes.iter();
            for (kernel, dilations) in kernels.zip(&config.resblock_dilation_sizes) {
                let block =
                    HifiGanResidualBlock::new(channels[1], *kernel, dilations, norm, device);
                resblocks.push(block);
            }
        }
        let Statistics { mean, scale } = Statistics::none(config.model_in_dim, device);
        let last = initial >> config.upsample_rates.len();
        Self {
            conv_pre: end([config.model_in_dim, initial]),
            upsampler,
            resblocks,
            conv_post: end([last, 1]),
            mean,
            scale,
            mel: config.mel(),
            config: config.clone(),
        }
    }

    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(
        pub config: HifiGanConfig,
        files: aigc_core::hub_model::ModelFiles::TRANSFORMERS
    );

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let path = dir.join("config.json");
        let mut config = json::read_file(&path, HifiGanConfig::from_json)?;
        let files = files::open(dir, options.variant.as_deref())?;
        config.value.weight_norm = files::are_normalized(&files);
        if config.value.mel_config.is_none() {
            let note = "config.json has no `mel_config`: the spectrograms are taken to be those of \
                        SpeechT5; `with_mel_config` sets others";
            config.notes.push(note.into());
        }
        let created = config.try_map(|config| config.init(device))?;
        files.load(created, options.dtype, |key| KeyMapping::new(key.path))
    }

    /// Writes `config.json` and `model.safetensors` to a directory, which transformers opens as
    /// `SpeechT5HifiGan`: weights without normalisation, and the configuration of the spectrograms.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let plain = self.clone().fold();
        aigc_core::weights::save_pretrained(&plain, &plain.config.to_fields(), dir.as_ref())
    }

    /// Configuration of the network.
    pub fn config(&self) -> &HifiGanConfig {
        &self.config
    }

    /// Sets the configuration of the spectrograms, for files without one.
    ///
    /// # Errors
    /// [`Error::Config`] if the network does not have this number of bands or samples per frame, or
    /// this sample rate.
    pub fn with_mel_config(self, mel: MelConfig) -> Result<Self> {
        let config = HifiGanConfig {
            mel_config: Some(mel),
            ..self.config
        };
        config.validate()?;
        Ok(Self {
            config,
            mel,
            ..self
        })
    }

    /// Normalises the spectrograms with these values of each band before anything else, as
    /// [`HifiGanConfig::normalize_before`] says.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of values than bands, or if a value is not
    /// finite or a scale is not above 0.
    pub fn with_statistics(self, mean: &[f32], scale: &[f32]) -> Result<Self> {
        let bands = self.config.model_in_dim;
        for (name, values) in [("mean", mean), ("scale", scale)] {
            let expected = format!("{bands}, one for each band");
            ensure_argument(values.len() == bands, name, values.len(), &expected)?;
            let is_bad = |x: &&f32| !x.is_finite() || (name == "scale" && **x <= 0.0);
            if let Some(bad) = values.iter().find(is_bad) {
                return Err(Error::argument(name, bad, "finite values, scales above 0"));
            }
        }
        let device = self.mean.lazy_device();
        Ok(self.normalized(Statistics::new(mean, scale, &device)))
    }

    /// [`with_statistics`](Self::with_statistics) with the mean and the standard deviation of every
    /// band over all frames of these sounds, of which the first channel is taken. Without them,
    /// log-mels are far below 0, and training begins slowly.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sound that is shorter than a frame, of another sample rate
    /// or not finite, or if there is no sound.
    pub fn with_statistics_of<'a>(
        self,
        sounds: impl IntoIterator<Item = &'a Waveform>,
    ) -> Result<Self> {
        let device = self.mean.lazy_device();
        let statistics = Statistics::of(&self.mel, sounds, &device)?;
        Ok(self.normalized(statistics))
    }

    /// The network that normalises spectrograms with these statistics.
    fn normalized(self, statistics: Statistics) -> Self {
        let Statistics { mean, scale } = statistics;
        let config = HifiGanConfig {
            normalize_before: true,
            ..self.config
        };
        Self {
            mean,
            scale,
            config,
            ..self
        }
    }

    /// The network without weight normalisation, which computes the same with less work.
    pub fn fold(self) -> Self {
        let config = HifiGanConfig {
            weight_norm: false,
            mel_config: Some(self.mel),
            ..self.config
        };
        let resblocks = self.resblocks.into_iter();
        Self {
            conv_pre: self.conv_pre.fold(),
            upsampler: self
                .upsampler
                .into_iter()
                .map(ConvTranspose1d::fold)
                .collect(),
            resblocks: resblocks.map(HifiGanResidualBlock::fold).collect(),
            conv_post: self.conv_post.fold(),
            config,
            ..self
        }
    }

    /// The waveforms of log-mel spectrograms.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - output: `[batch, time]`, in `[−1, 1]`; `frames` times the hop length, and a few samples
    ///   more if a kernel of an upsampling and its rate are not both even or both odd
    ///
    /// # Panics
    /// For another number of mels, or without frames.
    pub fn forward(&self, log_mel: Tensor<3>) -> Tensor<2> {
        let activation = Activation::LeakyRelu(self.config.leaky_relu_slope);
        let mut x = log_mel;
        if self.config.normalize_before {
            x = normalize(x, &self.mean, &self.scale);
        }
        let mut hidden = self.conv_pre.forward(x);
        let kernels = self.config.resblock_kernel_sizes.len();
        for (upsampling, blocks) in self.upsampler.iter().zip(self.resblocks.chunks(kernels)) {
            let x = upsampling.forward(activation.forward(hidden));
            let outputs = blocks
                .iter()
                .map(|block| block.forward(x.clone(), activation));
            let sum = outputs.reduce(|sum, output| sum + output);
            hidden = sum.expect("a valid configuration has blocks") / kernels as f64;
        }
        let hidden = Activation::LeakyRelu(LAST_SLOPE).forward(hidden);
        let y = Activation::Tanh.forward(self.conv_post.forward(hidden));
        let [batch, _, time] = y.dims();
        y.reshape([batch, time])
    }

    /// Makes the sound of a spectrogram that comes in pieces.
    pub fn stream(&self) -> HifiGanStream<'_> {
        HifiGanStream::new(self)
    }

    /// [`vocode`](Vocoder::vocode) for long spectrograms, `chunk` frames at a time: the same sound
    /// in less memory. Every chunk is computed with the frames around it on which it depends, so
    /// there are no seams.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - output: `[batch, time]`
    ///
    /// # Errors
    /// As [`vocode`](Vocoder::vocode); [`Error::InvalidArgument`] if `chunk` is 0.
    pub fn vocode_in_chunks(&self, log_mel: Tensor<3>, chunk: usize) -> Result<Tensor<2>> {
        ensure_argument(chunk > 0, "chunk", chunk, "at least 1 frame")?;
        check_mel(&log_mel, self.config.model_in_dim, 1)?;
        let (frames, mut stream, mut parts) = (log_mel.dims()[2], self.stream(), Vec::new());
        for start in (0..frames).step_by(chunk) {
            let piece = log_mel.clone().narrow(2, start, chunk.min(frames - start));
            parts.extend(stream.push(piece)?);
        }
        parts.extend(stream.finish());
        Ok(Tensor::cat(parts, 1))
    }
}

impl Vocoder for HifiGan {
    fn mel_config(&self) -> &MelConfig {
        &self.mel
    }

    fn vocode(&self, log_mel: Tensor<3>) -> Result<Tensor<2>> {
        check_mel(&log_mel, self.config.model_in_dim, 1)?;
        Ok(self.forward(log_mel))
    }
}
