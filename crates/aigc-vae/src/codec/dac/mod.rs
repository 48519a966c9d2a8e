//! DAC, the Descript Audio Codec (Kumar et al. 2023, <https://arxiv.org/abs/2306.06546>), with the
//! files of transformers' `DacModel`.

mod config;
mod quantizer;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::DacConfig;
pub use quantizer::{DacOutput, DacQuantizer, DacResidualQuantizer};

use super::{
    codes::{check_codes, check_wave},
    files::{self, CodecFiles},
    objective::{Reconstruction, TrainableCodec},
    waves::{WaveDecoder, WaveEncoder, WaveStyle, frames, least_samples},
};
use aigc_core::{
    Result,
    audio::AudioCodec,
    nn::Activation,
    rng::Rng,
    weights::{Loaded, WeightDtype, WeightReader},
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use std::path::Path;

/// A codec of sound with one channel: a convolutional network with periodic activations, whose
/// latents are quantised by the sum of codes that are looked up in small, normalised spaces.
///
/// Decoded sounds may be a few samples shorter than what was encoded, or longer, where a ratio is
/// odd or the length is not a multiple of the hop.
///
/// ```no_run
/// # use aigc_core::{audio::{AudioCodec, read_audio}, device::device};
/// # use aigc_vae::codec::DacModel;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let codec = DacModel::from_pretrained("dac_16khz", &device)?;
/// let wave = read_audio("speech.wav")?.to_mono().resample(codec.sample_rate())?;
/// let codes = codec.encode(wave.to_tensor(&device).unsqueeze())?; // [1, codebooks, frames]
/// let decoded = codec.decode(codes)?;
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct DacModel {
    encoder: WaveEncoder,
    decoder: WaveDecoder,
    quantizer: DacResidualQuantizer,
    #[module(skip)]
    config: DacConfig,
}

impl DacModel {
    fn new(config: &DacConfig, weight_norm: bool, device: &Device) -> Result<Self> {
        config.validate()?;
        let style = WaveStyle {
            weight_norm,
            log_beta: false,
            device,
        };
        let [down, up] = config.widths();
        let (hidden, ratios) = (config.hidden_size(), &config.downsampling_ratios);
        let reversed: Vec<usize> = ratios.iter().rev().copied().collect();
        Ok(Self {
            encoder: WaveEncoder::new(style, [1, hidden], &down, ratios),
            decoder: WaveDecoder::new(style, [hidden, 1], &up, &reversed, true),
            quantizer: DacResidualQuantizer::new(config, weight_norm, device),
            config: config.clone(),
        })
    }

    /// Configuration of the model.
    pub fn config(&self) -> &DacConfig {
        &self.config
    }

    /// The quantiser of the latents.
    pub fn quantizer(&self) -> &DacResidualQuantizer {
        &self.quantizer
    }

    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(
        pub config: DacConfig,
        files: aigc_core::hub_model::ModelFiles::TRANSFORMERS
    );

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

    /// Writes a directory that transformers opens: `config.json` and `model.safetensors`. The
    /// weights are written [without weight norm](Self::fold_weight_norm), as transformers has them.
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if a
    /// file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let plain = self.valid().fold_weight_norm();
        files::save(&plain, &self.config.to_json(), dir.as_ref())
    }

    /// The model without weight norm, which computes the same with less work.
    pub fn fold_weight_norm(self) -> Self {
        Self {
            encoder: self.encoder.fold(),
            decoder: self.decoder.fold(),
            quantizer: self.quantizer.fold(),
            ..self
        }
    }

    /// The latents of sounds, before they are quantised.
    ///
    /// # Shapes
    /// - wave: `[batch, 1, time]`
    /// - output: `[batch, hidden_size, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for another number of
    /// channels, or fewer samples than a frame needs.
    pub fn embeddings(&self, wave: Tensor<3>) -> Result<Tensor<3>> {
        check_wave(&wave, 1, least_samples(&self.config.downsampling_ratios))?;
        Ok(self.encoder.forward(wave))
    }

    /// The sounds of latents, in `[−1, 1]`.
    ///
    /// # Shapes
    /// - latents: `[batch, hidden_size, frames]`
    /// - output: `[batch, 1, time]`
    ///
    /// # Panics
    /// If the latents have other channels, or no frames.
    pub fn decode_embeddings(&self, latents: Tensor<3>) -> Tensor<3> {
        Activation::Tanh.forward(self.decoder.forward(latents))
    }

    /// The latents of codes, which the decoder reads.
    ///
    /// # Shapes
    /// - codes: `[batch, codebooks, frames]`
    /// - output: `[batch, hidden_size, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for more codebooks than the
    /// model has, no frames, or a code that a codebook does not have.
    pub fn dequantize(&self, codes: Tensor<3, Int>) -> Result<Tensor<3>> {
        check_codes(&codes, self.config.n_codebooks, self.config.codebook_size)?;
        Ok(self.quantizer.dequantize(codes))
    }

    /// Frames of codes of a sound of `time` samples; `None` if it is too short for one.
    pub fn num_frames(&self, time: usize) -> Option<usize> {
        frames(time, &self.config.downsampling_ratios)
    }
}

impl CodecFiles for DacModel {
    type Config = DacConfig;

    const STEMS: &'static [&'static str] = &["model", "pytorch_model"];

    fn parse(text: &str) -> Result<Loaded<DacConfig>> {
        DacConfig::from_json(text)
    }

    fn create(config: &DacConfig, has_norm: bool, device: &Device) -> Result<Self> {
        Self::new(config, has_norm, device)
    }
}

impl AudioCodec for DacModel {
    fn sample_rate(&self) -> u32 {
        self.config.sampling_rate
    }

    fn channels(&self) -> usize {
        1
    }

    fn hop_length(&self) -> usize {
        self.config.hop_length()
    }

    fn num_codebooks(&self) -> usize {
        self.config.n_codebooks
    }

    fn codebook_size(&self) -> usize {
        self.config.codebook_size
    }

    fn encode(&self, wave: Tensor<3>) -> Result<Tensor<3, Int>> {
        let latents = self.embeddings(wave)?;
        let output = self.quantizer.quantize(latents, self.config.n_codebooks);
        Ok(output.codes)
    }

    fn decode(&self, codes: Tensor<3, Int>) -> Result<Tensor<3>> {
        Ok(self.decode_embeddings(self.dequantize(codes)?))
    }
}

impl TrainableCodec for DacModel {
    /// The losses are weighted by the configuration of the codec.
    fn reconstruct(&self, wave: Tensor<3>, rng: &mut Rng) -> Reconstruction {
        let latents = self.encoder.forward(wave);
        let output = self.quantizer.quantize_with(latents, rng);
        let config = &self.config;
        Reconstruction {
            wave: self.decode_embeddings(output.quantized),
            codes: output.codes,
            losses: vec![
                (
                    "commitment",
                    output.commitment * config.commitment_loss_weight,
                ),
                ("codebook", output.codebook * config.codebook_loss_weight),
            ],
            update: None,
        }
    }

    fn least_samples(&self) -> usize {
        least_samples(&self.config.downsampling_ratios)
    }
}
