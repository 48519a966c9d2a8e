//! Oobleck: the autoencoder of Stable Audio (Evans et al. 2024,
//! <https://arxiv.org/abs/2407.14358>), with the files of diffusers' `AutoencoderOobleck`.

mod config;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::AutoencoderOobleckConfig;

use super::{
    codes::check_wave,
    files::{self, CONFIG},
    waves::{WaveDecoder, WaveEncoder, WaveStyle, frames, least_samples},
};
use crate::{DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
use aigc_core::{
    Result,
    data::SampleShape,
    encoder::{Autoencoder, Posterior},
    json,
    nn::{Activation, layer_key},
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Files of weights.
const STEM: &str = "diffusion_pytorch_model";
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

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let config = json::read_file(&dir.join(CONFIG), AutoencoderOobleckConfig::from_json)?;
        let variant = options.variant.as_deref();
        let files = WeightReader::from_dir_with_variant(dir, &[STEM], variant)?;
        Self::load(config, &files, options.dtype, device)
    }

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
        Self::load(
            AutoencoderOobleckConfig::from_json(config)?,
            files,
            dtype,
            device,
        )
    }

    fn load(
        config: Loaded<AutoencoderOobleckConfig>,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let init =
            |config: &AutoencoderOobleckConfig, has_norm| Self::new(config, has_norm, device);
        files::load(config, files, dtype, init, layer_key)
    }

    /// Writes a directory that diffusers opens: `config.json` and
    /// `diffusion_pytorch_model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if a
    /// file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        files::save(self, &self.config.to_json(), STEM, dir.as_ref(), layer_key)
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
        let frames = frames(self.config.sample_size, &self.config.downsampling_ratios);
        // A valid `sample_size` has a frame at least.
        SampleShape::new(&[self.config.decoder_input_channels, frames.unwrap_or(1)])
    }
}

impl Autoencoder<3, 3> for AutoencoderOobleck {
    fn encode(&self, x: Tensor<3>) -> Box<dyn Posterior<3>> {
        Box::new(self.gaussian(x))
    }

    fn decode(&self, z: Tensor<3>) -> Tensor<3> {
        self.decode_latents(z)
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
        Likelihood::new(LIKELIHOOD, self.decode_latents(z))
    }

    fn latent_shape(&self) -> SampleShape {
        self.latents()
    }

    fn sample_shape(&self) -> SampleShape {
        self.shape()
    }

    fn accepts(&self, shape: SampleShape) -> bool {
        let least = least_samples(&self.config.downsampling_ratios);
        matches!(shape.dims(), [channels, time]
            if *channels == self.config.audio_channels && *time >= least)
    }
}
