//! The generator of UnivNet.

use super::{
    super::{checks::check_mel, files},
    UnivNetConfig, UnivNetKernelPredictor, location_variable_convolution,
};
use aigc_core::{
    Error, Result,
    audio::Vocoder,
    dsp::MelConfig,
    json,
    nn::{Activation, Conv1d, Conv1dConfig, ConvTranspose1d, ConvTranspose1dConfig, PaddingMode},
    ops,
    rng::Rng,
    weights::{KeyMapping, Loaded, OpenOptions},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Kernel of the first and of the last layer.
const END_KERNEL: usize = 7;

/// Fewest frames: the first layer mirrors its input by half a kernel.
const LEAST_FRAMES: usize = END_KERNEL / 2 + 1;

/// The generator of UnivNet (Jang et al. 2021, <https://arxiv.org/abs/2106.07889>). The fields have
/// the names of transformers' `UnivNetModel`.
#[derive(Module, Debug)]
pub struct UnivNet {
    /// From noise to channels.
    pub conv_pre: Conv1d,
    /// Upsampling blocks.
    pub resblocks: Vec<UnivNetLvcBlock>,
    /// From channels to samples.
    pub conv_post: Conv1d,
    #[module(skip)]
    config: UnivNetConfig,
    #[module(skip)]
    mel: MelConfig,
}

/// Upsampling and residual convolutions with predicted kernels.
#[derive(Module, Debug)]
pub struct UnivNetLvcBlock {
    /// Upsampling.
    pub convt_pre: ConvTranspose1d,
    /// Predicts the kernels of all convolutions.
    pub kernel_predictor: UnivNetKernelPredictor,
    /// The convolutions.
    pub resblocks: Vec<UnivNetLvcResidualBlock>,
}

/// A dilated convolution and one with predicted kernels, gated, with a shortcut.
#[derive(Module, Debug)]
pub struct UnivNetLvcResidualBlock {
    /// The dilated convolution.
    pub conv: Conv1d,
}

impl UnivNetLvcResidualBlock {
    fn forward(
        &self,
        x: Tensor<3>,
        (kernels, biases): (Tensor<5>, Tensor<3>),
        activation: Activation,
    ) -> Tensor<3> {
        let y = activation.forward(self.conv.forward(activation.forward(x.clone())));
        let y = location_variable_convolution(y, kernels, biases);
        let channels = x.dims()[1];
        let gate = Activation::Sigmoid.forward(y.clone().narrow(1, 0, channels));
        x + gate * Activation::Tanh.forward(y.narrow(1, channels, channels))
    }
}

impl UnivNetLvcBlock {
    fn new(config: &UnivNetConfig, index: usize, device: &Device) -> Self {
        let (channels, norm) = (config.model_hidden_channels, config.weight_norm);
        let (stride, kernel, dilations) = (
            config.resblock_stride_sizes[index],
            config.resblock_kernel_sizes[index],
            &config.resblock_dilation_sizes[index],
        );
        let odd = stride % 2;
        let residual = |dilation: &usize| UnivNetLvcResidualBlock {
            conv: Conv1dConfig::new([channels, channels], kernel)
                .with_dilation(*dilation)
                .with_padding(dilation * (kernel - 1) / 2)
                .with_weight_norm(norm)
                .init(device),
        };
        Self {
            convt_pre: ConvTranspose1dConfig::new([channels, channels], 2 * stride)
                .with_stride(stride)
                .with_padding(stride / 2 + odd)
                .with_output_padding(odd)
                .with_weight_norm(norm)
                .init(device),
            kernel_predictor: UnivNetKernelPredictor::new(config, kernel, dilations.len(), device),
            resblocks: dilations.iter().map(residual).collect(),
        }
    }

    fn forward(&self, x: Tensor<3>, log_mel: Tensor<3>, activation: Activation) -> Tensor<3> {
        let x = self.convt_pre.forward(activation.forward(x));
        let kernels = self.kernel_predictor.forward(log_mel, activation);
        let layers = self.resblocks.iter().zip(kernels);
        layers.fold(x, |x, (block, kernels)| {
            block.forward(x, kernels, activation)
        })
    }

    fn fold(self) -> Self {
        let fold = |block: UnivNetLvcResidualBlock| UnivNetLvcResidualBlock {
            conv: block.conv.fold(),
        };
        Self {
            convt_pre: self.convt_pre.fold(),
            kernel_predictor: self.kernel_predictor.fold(),
            resblocks: self.resblocks.into_iter().map(fold).collect(),
        }
    }
}

impl UnivNet {
    /// The network of a valid configuration.
    pub(super) fn new(config: &UnivNetConfig, device: &Device) -> Self {
        let end = |channels| {
            Conv1dConfig::new(channels, END_KERNEL)
                .with_weight_norm(config.weight_norm)
                .init(device)
        };
        let (noise, hidden) = (config.model_in_channels, config.model_hidden_channels);
        let block = |index| UnivNetLvcBlock::new(config, index, device);
        Self {
            conv_pre: end([noise, hidden]),
            resblocks: (0..config.resblock_stride_sizes.len()).map(block).collect(),
            conv_post: end([hidden, 1]),
            mel: config.mel(),
            config: config.clone(),
        }
    }

    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(
        pub config: UnivNetConfig,
        files: aigc_core::hub_model::ModelFiles::TRANSFORMERS
    );

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let path = dir.join("config.json");
        let mut config = json::read_file(&path, UnivNetConfig::from_json)?;
        let files = files::open(dir, options.variant.as_deref())?;
        config.value.weight_norm = files::are_normalized(&files);
        if config.value.mel_config.is_none() {
            let note = "config.json has no `mel_config`: the spectrograms are taken to be those of \
                        the paper; `with_mel_config` sets others";
            config.notes.push(note.into());
        }
        let created = config.try_map(|config| config.init(device))?;
        files.load(created, options.dtype, |key| KeyMapping::new(key.path))
    }

    /// Writes `config.json` and `model.safetensors` to a directory, which transformers opens as
    /// `UnivNetModel`: weights without normalisation, and the configuration of the spectrograms.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let plain = self.clone().fold();
        aigc_core::weights::save_pretrained(&plain, &plain.config.to_fields(), dir.as_ref())
    }

    /// Configuration of the network.
    pub fn config(&self) -> &UnivNetConfig {
        &self.config
    }

    /// Sets the configuration of the spectrograms, for files without one.
    ///
    /// # Errors
    /// [`Error::Config`] if the network does not have this number of bands or samples per frame.
    pub fn with_mel_config(self, mel: MelConfig) -> Result<Self> {
        let config = UnivNetConfig {
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

    /// The network without weight normalisation, which computes the same with less work.
    pub fn fold(self) -> Self {
        let config = UnivNetConfig {
            weight_norm: false,
            mel_config: Some(self.mel),
            ..self.config
        };
        Self {
            conv_pre: self.conv_pre.fold(),
            resblocks: self
                .resblocks
                .into_iter()
                .map(UnivNetLvcBlock::fold)
                .collect(),
            conv_post: self.conv_post.fold(),
            config,
            ..self
        }
    }

    /// The waveforms of log-mel spectrograms and noise.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`, at least four frames
    /// - noise: `[batch, channels, frames]`, standard normal
    /// - output: `[batch, frames·hop]`, in `[−1, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for other shapes.
    pub fn forward(&self, log_mel: Tensor<3>, noise: Tensor<3>) -> Result<Tensor<2>> {
        check_mel(&log_mel, self.config.num_mel_bins, LEAST_FRAMES)?;
        let ([batch, _, frames], found) = (log_mel.dims(), noise.dims());
        let expected = [batch, self.config.model_in_channels, frames];
        if found != expected {
            return Err(Error::argument(
                "noise",
                format!("{found:?}"),
                format!("{expected:?}, [batch, channels, frames]"),
            ));
        }
        let activation = Activation::LeakyRelu(self.config.leaky_relu_slope);
        let mirrored = |x| ops::pad1d(x, [END_KERNEL / 2; 2], PaddingMode::Reflect);
        let mut hidden = self.conv_pre.forward(mirrored(noise));
        for block in &self.resblocks {
            hidden = block.forward(hidden, log_mel.clone(), activation);
        }
        let y = self.conv_post.forward(mirrored(activation.forward(hidden)));
        let [batch, _, time] = y.dims();
        Ok(Activation::Tanh.forward(y).reshape([batch, time]))
    }

    /// [`forward`](Self::forward) with the next noise of `rng`.
    pub(in crate::vocoder) fn vocode_with_noise(
        &self,
        log_mel: Tensor<3>,
        rng: &mut Rng,
    ) -> Result<Tensor<2>> {
        check_mel(&log_mel, self.config.num_mel_bins, LEAST_FRAMES)?;
        let [batch, _, frames] = log_mel.dims();
        let shape = [batch, self.config.model_in_channels, frames];
        let noise = rng.normal(shape, &log_mel.device());
        self.forward(log_mel, noise)
    }
}

impl Vocoder for UnivNet {
    fn mel_config(&self) -> &MelConfig {
        &self.mel
    }

    /// The noise is always the same for a shape, so that a spectrogram always has the same sound.
    /// [`forward`](UnivNet::forward) takes other noise; in training, the noise is
    /// [drawn](crate::vocoder::VocoderGenerator::generate).
    fn vocode(&self, log_mel: Tensor<3>) -> Result<Tensor<2>> {
        self.vocode_with_noise(log_mel, &mut Rng::new(0))
    }
}
