//! Oobleck: the autoencoder of Stable Audio (Evans et al. 2024,
//! <https://arxiv.org/abs/2407.14358>), with the files of diffusers' `AutoencoderOobleck`.

mod config;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::AutoencoderOobleckConfig;

use super::{
    codes::check_wave,
    files::{self, CodecFiles},
    waves::{WaveDecoder, WaveEncoder, WaveStyle, decoded_samples, frames, least_samples},
};
use crate::{DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
use aigc_core::{
    Result,
    data::SampleShape,
    encoder::{Autoencoder, Posterior},
    nn::{Activation, PaddingMode},
    ops,
    weights::{Loaded, WeightDtype, WeightReader},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Least standard deviation of the posterior.
const LEAST_STD: f64 = 1e-4;
/// Distribution of decoded samples, for training as a [`Vae`].
const LIKELIHOOD: LikelihoodKind = LikelihoodKind::Gaussian(0.1);

/// A convolutional autoencoder of sound whose latents have a Gaussian posterior.
///
/// It is the first stage of latent diffusion as an [`Autoencoder`], and is trained as a [`Vae`],
/// also against a discriminator ([`AdversarialVaeObjective`](crate::AdversarialVaeObjective)), on
/// sounds of `sample_size` samples. Decoded samples are a Gaussian with a standard deviation of
/// 0.1.
///
/// ```no_run
/// # use aigc_core::{audio::read_audio, device::device};
/// # use aigc_vae::codec::AutoencoderOobleck;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let vae = AutoencoderOobleck::from_pretrained("stable-audio-open-1.0/vae", &device)?;
/// let wave = read_audio("music.wav")?.to_stereo().resample(44_100)?;
/// let posterior = vae.posterior(wave.to_tensor(&device).unsqueeze())?; // [1, 64, frames]
/// let decoded = vae.decode_latents(posterior.mode());
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct AutoencoderOobleck {
    encoder: WaveEncoder,
    decoder: WaveDecoder,
    #[module(skip)]
    config: AutoencoderOobleckConfig,
}

impl AutoencoderOobleck {
    fn new(config: &AutoencoderOobleckConfig, weight_norm: bool, device: &Device) -> Result<Self> {
        config.validate()?;
        let style = WaveStyle {
            weight_norm,
            log_beta: true,
            device,
        };
        let [down, up] = config.widths();
        let (sound, ratios) = (config.audio_channels, &config.downsampling_ratios);
        let reversed: Vec<usize> = ratios.iter().rev().copied().collect();
        let (moments, latent) = (config.encoder_hidden_size, config.decoder_input_channels);
        Ok(Self {
            encoder: WaveEncoder::new(style, [sound, moments], &down, ratios),
            decoder: WaveDecoder::new(style, [latent, sound], &up, &reversed, false),
            config: config.clone(),
        })
    }

    /// Configuration of the model.
    pub fn config(&self) -> &AutoencoderOobleckConfig {
        &self.config
    }

    aigc_core::open_methods!("diffusion_pytorch_model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(pub config: AutoencoderOobleckConfig, files: crate::models::HUB_FILES);

    /// A model from the text of its `config.json` and its weights, which may be a part of a larger
    /// file ([`WeightReader::subset`]).
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names the field,
    /// [`Error::Weights`](aigc_core::Error::Weights) the tensors that do not fit.
    pub fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        Self::load_weights(Self::parse(config)?, files, dtype, device)
    }

    /// Writes `config.json` and `diffusion_pytorch_model.safetensors` to a directory. diffusers
    /// opens it unless the model was [folded](Self::fold_weight_norm).
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if a
    /// file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        files::save(self, &self.config.to_json(), dir.as_ref())
    }

    /// The model without weight norm, which computes the same with less work. diffusers does not
    /// open its files.
    pub fn fold_weight_norm(self) -> Self {
        Self {
            encoder: self.encoder.fold(),
            decoder: self.decoder.fold(),
            ..self
        }
    }

    /// The posterior of the latents of sounds of any length.
    ///
    /// # Shapes
    /// - wave: `[batch, audio_channels, time]`, in `[−1, 1]`
    /// - latents: `[batch, decoder_input_channels, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for another number of
    /// channels, or fewer samples than a latent needs.
    pub fn posterior(&self, wave: Tensor<3>) -> Result<DiagonalGaussian<3>> {
        let least = least_samples(&self.config.downsampling_ratios);
        check_wave(&wave, self.config.audio_channels, least)?;
        Ok(self.gaussian(wave))
    }

    /// Means of the latents of sounds, and what standard deviations are made of,
    /// `ln(1 + e^scale) + 10⁻⁴`; the `scale` of diffusers.
    ///
    /// # Shapes
    /// - wave: `[batch, audio_channels, time]`
    /// - output: `[batch, decoder_input_channels, frames]` each
    ///
    /// # Panics
    /// For another number of channels, or fewer samples than a latent needs.
    pub fn moments(&self, wave: Tensor<3>) -> [Tensor<3>; 2] {
        let moments = self.encoder.forward(wave);
        let latent = self.config.decoder_input_channels;
        [0, latent].map(|first| moments.clone().narrow(1, first, latent))
    }

    fn gaussian(&self, wave: Tensor<3>) -> DiagonalGaussian<3> {
        let [mean, scale] = self.moments(wave);
        let std = Activation::Softplus.forward(scale) + LEAST_STD;
        DiagonalGaussian {
            mean,
            logvar: std.log() * 2.0,
        }
    }

    /// The sounds of latents.
    ///
    /// # Shapes
    /// - latents: `[batch, decoder_input_channels, frames]`
    /// - output: `[batch, audio_channels, time]`, in `[−1, 1]` and around it
    ///
    /// # Panics
    /// If the latents have other channels, or no frames.
    pub fn decode_latents(&self, latents: Tensor<3>) -> Tensor<3> {
        self.decoder.forward(latents)
    }

    fn shape(&self) -> SampleShape {
        SampleShape::new(&[self.config.audio_channels, self.config.sample_size])
    }

    fn latents(&self) -> SampleShape {
        SampleShape::new(&[self.config.decoder_input_channels, self.sample_frames()])
    }

    /// Frames of a sound of `sample_size` samples.
    fn sample_frames(&self) -> usize {
        let frames = frames(self.config.sample_size, &self.config.downsampling_ratios);
        // A valid `sample_size` has a frame at least.
        frames.unwrap_or(1)
    }

    /// Samples that [`decode_samples`](Self::decode_samples) makes of `frames` frames.
    fn samples_of(&self, frames: usize) -> usize {
        match frames == self.sample_frames() {
            true => self.config.sample_size,
            false => decoded_samples(frames, &self.config.downsampling_ratios),
        }
    }

    /// The sounds of latents. Those of as many frames as a sound of `sample_size` samples has are
    /// cut to this length, or filled with zeros: the networks round lengths if a ratio is odd or
    /// `sample_size` is not a multiple of the hop.
    fn decode_samples(&self, latents: Tensor<3>) -> Tensor<3> {
        let frames = latents.dims()[2];
        let decoded = self.decode_latents(latents);
        if frames != self.sample_frames() {
            return decoded;
        }
        let (time, expected) = (decoded.dims()[2], self.config.sample_size);
        match time < expected {
            true => ops::pad1d(decoded, [0, expected - time], PaddingMode::Zeros),
            false => decoded.narrow(2, 0, expected),
        }
    }
}

impl CodecFiles for AutoencoderOobleck {
    type Config = AutoencoderOobleckConfig;

    const STEMS: &'static [&'static str] = &["diffusion_pytorch_model"];

    fn parse(text: &str) -> Result<Loaded<AutoencoderOobleckConfig>> {
        AutoencoderOobleckConfig::from_json(text)
    }

    fn create(config: &AutoencoderOobleckConfig, has_norm: bool, device: &Device) -> Result<Self> {
        Self::new(config, has_norm, device)
    }
}

impl Autoencoder<3, 3> for AutoencoderOobleck {
    fn encode(&self, x: Tensor<3>) -> Box<dyn Posterior<3>> {
        Box::new(self.gaussian(x))
    }

    fn decode(&self, z: Tensor<3>) -> Tensor<3> {
        self.decode_samples(z)
    }

    fn sample_shape(&self) -> SampleShape {
        self.shape()
    }

    fn latent_shape(&self) -> SampleShape {
        self.latents()
    }
}

impl Vae<3, 3> for AutoencoderOobleck {
    type Posterior = DiagonalGaussian<3>;

    fn encode(&self, x: Tensor<3>) -> DiagonalGaussian<3> {
        self.gaussian(x)
    }

    fn decode(&self, z: Tensor<3>) -> Likelihood<3> {
        Likelihood::new(LIKELIHOOD, self.decode_samples(z))
    }

    fn latent_shape(&self) -> SampleShape {
        self.latents()
    }

    fn sample_shape(&self) -> SampleShape {
        self.shape()
    }

    fn accepts(&self, shape: SampleShape) -> bool {
        let [channels, time] = *shape.dims() else {
            return false;
        };
        let frames = frames(time, &self.config.downsampling_ratios);
        let keeps_length = |frames| self.samples_of(frames) == time;
        channels == self.config.audio_channels && frames.is_some_and(keeps_length)
    }
}
