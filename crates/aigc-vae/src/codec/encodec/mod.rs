//! Encodec (Défossez et al. 2022, <https://arxiv.org/abs/2210.13438>), with the files of
//! transformers' `EncodecModel`.
//!
//! | file | content |
//! |---|---|
//! | `config`, `checks` | the configuration |
//! | `layers`, `seanet` | the convolutional and recurrent encoder and decoder |
//! | `chunks` | sounds in overlapping chunks |
//! | `state`, `stream` | sounds in pieces, without seams |

mod checks;
mod chunks;
mod config;
mod layers;
mod seanet;
mod state;
mod stream;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use chunks::EncodecFrames;
pub use config::{EncodecConfig, EncodecNorm};
pub use stream::{EncodecDecodeStream, EncodecEncodeStream};

use super::{
    codes::{check_codes, check_wave},
    files::{self, CodecFiles},
    objective::{Reconstruction, TrainableCodec},
};
use crate::{Quantizer, QuantizerOutput, ResidualQuantizer, quantizer::nearest_rows};
use aigc_core::{
    Error, Result,
    audio::AudioCodec,
    nn::layer_key,
    rng::Rng,
    weights::{KeyMapping, Loaded, ParamKey, WeightDtype, WeightReader},
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use layers::Style;
use seanet::Seanet;
use std::path::Path;

/// Added to the volume of a sound that is divided by it.
const LEAST_VOLUME: f64 = 1e-8;

/// A codec of sound: a convolutional network with a recurrent layer, whose latents are quantised by
/// the sum of codes of several codebooks.
///
/// As an [`AudioCodec`], it has all codebooks. A model of a configuration with `normalize` or
/// `chunk_length_s` keeps more beside the codes: [`encode_frames`](Self::encode_frames).
///
/// ```no_run
/// # use aigc_core::{audio::{AudioCodec, Waveform, read_audio}, device::device};
/// # use aigc_vae::codec::EncodecModel;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let codec = EncodecModel::from_pretrained("encodec_24khz", &device)?;
/// let wave = read_audio("speech.wav")?.to_mono().resample(codec.sample_rate())?;
/// let codes = codec.encode(wave.to_tensor(&device).unsqueeze())?; // [1, 32, frames]
/// let decoded = codec.decode(codes.narrow(1, 0, 8))?; // at 6 kbit/s
/// let decoded = Waveform::from_tensor(decoded.squeeze_dim(0), codec.sample_rate())?;
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct EncodecModel {
    encoder: Seanet,
    decoder: Seanet,
    quantizer: ResidualQuantizer,
    #[module(skip)]
    config: EncodecConfig,
}

impl EncodecModel {
    pub(super) fn new(config: &EncodecConfig, weight_norm: bool, device: &Device) -> Result<Self> {
        config.validate()?;
        let style = Style {
            config,
            weight_norm,
            device,
        };
        Ok(Self {
            encoder: Seanet::encoder(&style),
            decoder: Seanet::decoder(&style),
            quantizer: config.quantizer().init(device)?,
            config: config.clone(),
        })
    }

    /// Configuration of the model.
    pub fn config(&self) -> &EncodecConfig {
        &self.config
    }

    /// The quantiser of the latents.
    pub fn quantizer(&self) -> &ResidualQuantizer {
        &self.quantizer
    }

    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(
        pub config: EncodecConfig,
        files: aigc_core::hub_model::ModelFiles::TRANSFORMERS
    );

    /// A model from the text of its `config.json` and its weights, which may be a part of a larger
    /// file ([`WeightReader::subset`]).
    ///
    /// # Errors
    /// [`Error::Config`] names the field, [`Error::Weights`] the tensors that do not fit.
    pub fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        Self::load_weights(Self::parse(config)?, files, dtype, device)
    }

    /// Writes `config.json` and `model.safetensors` to a directory. transformers opens it unless
    /// the model was [folded](Self::fold_weight_norm).
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        files::save(self, &self.config.to_json(), dir.as_ref())
    }

    /// The model without weight norm, which computes the same with less work. transformers does not
    /// open its files.
    pub fn fold_weight_norm(self) -> Self {
        Self {
            encoder: self.encoder.fold(),
            decoder: self.decoder.fold(),
            ..self
        }
    }

    /// The latents of sounds, which are divided by their volume if the configuration says so.
    ///
    /// # Shapes
    /// - wave: `[batch, audio_channels, time]`
    /// - output: `[batch, hidden_size, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of channels, or no samples.
    pub fn embeddings(&self, wave: Tensor<3>) -> Result<Tensor<3>> {
        check_wave(&wave, self.config.audio_channels, 1)?;
        Ok(self.encoder.forward(self.normalized(wave).0))
    }

    /// The codes of latents, of the first codebooks.
    ///
    /// # Shapes
    /// - embeddings: `[batch, hidden_size, frames]`
    /// - output: `[batch, num_quantizers, frames]`
    ///
    /// # Panics
    /// If there are not as many codebooks, none are asked for, or the latents have other channels.
    pub fn quantize(&self, embeddings: Tensor<3>, num_quantizers: usize) -> Tensor<3, Int> {
        let [batch, dim, frames] = embeddings.dims();
        let rows = embeddings.swap_dims(1, 2).reshape([batch * frames, dim]);
        let mut residual = rows.without_autodiff();
        let stages = &self.quantizer.stages[..num_quantizers];
        let codes = stages.iter().map(|stage| {
            let table = stage.table().without_autodiff();
            let indices = nearest_rows(residual.clone(), table.clone());
            residual = residual.clone() - table.select(0, indices.clone());
            indices.reshape([batch, 1, frames])
        });
        Tensor::cat(codes.collect(), 1)
    }

    /// The latents of codes, which the decoder reads.
    ///
    /// # Shapes
    /// - codes: `[batch, codebooks, frames]`
    /// - output: `[batch, hidden_size, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for more codebooks than the model has, no frames, or a code that
    /// a codebook does not have.
    pub fn dequantize(&self, codes: Tensor<3, Int>) -> Result<Tensor<3>> {
        check_codes(
            &codes,
            self.quantizer.codebooks(),
            self.config.codebook_size,
        )?;
        Ok(self.latents_of(codes))
    }

    /// [`dequantize`](Self::dequantize) for codes that have been checked.
    fn latents_of(&self, codes: Tensor<3, Int>) -> Tensor<3> {
        let values = self.quantizer.decode_codes(codes.swap_dims(1, 2));
        values.swap_dims(1, 2)
    }

    /// Sounds divided by the volume of the mean of their channels, and the volume, `[batch, 1, 1]`,
    /// if the configuration says so.
    fn normalized(&self, wave: Tensor<3>) -> (Tensor<3>, Option<Tensor<3>>) {
        if !self.config.normalize {
            return (wave, None);
        }
        let mono = wave.clone().mean_dim(1);
        let volume = (mono.clone() * mono).mean_dim(2).sqrt() + LEAST_VOLUME;
        (wave / volume.clone(), Some(volume))
    }

    /// Fails if the codes of a sound are not all that decoding it needs.
    fn check_whole(&self, method: &str) -> Result<()> {
        let hint = "use encode_frames and decode_frames";
        let by = format!("{method} of EncodecModel");
        if self.config.normalize {
            return Err(Error::unsupported("normalize", by, hint));
        }
        match self.config.chunk_length_s {
            Some(_) => Err(Error::unsupported("chunk_length_s", by, hint)),
            None => Ok(()),
        }
    }
}

impl CodecFiles for EncodecModel {
    type Config = EncodecConfig;

    const STEMS: &'static [&'static str] = &["model", "pytorch_model"];

    fn parse(text: &str) -> Result<Loaded<EncodecConfig>> {
        EncodecConfig::from_json(text)
    }

    fn create(config: &EncodecConfig, has_norm: bool, device: &Device) -> Result<Self> {
        let weight_norm = has_norm && config.norm_type == EncodecNorm::WeightNorm;
        Self::new(config, weight_norm, device)
    }

    fn stored_key(key: ParamKey<'_>) -> KeyMapping {
        encodec_key(key)
    }
}

impl AudioCodec for EncodecModel {
    fn sample_rate(&self) -> u32 {
        self.config.sampling_rate
    }

    fn channels(&self) -> usize {
        self.config.audio_channels
    }

    fn hop_length(&self) -> usize {
        self.config.hop_length()
    }

    fn num_codebooks(&self) -> usize {
        self.quantizer.codebooks()
    }

    fn codebook_size(&self) -> usize {
        self.config.codebook_size
    }

    /// # Errors
    /// Also [`Error::Unsupported`] for a model that normalises sounds or cuts them into chunks.
    fn encode(&self, wave: Tensor<3>) -> Result<Tensor<3, Int>> {
        self.check_whole("encode")?;
        let embeddings = self.embeddings(wave)?;
        Ok(self.quantize(embeddings, self.quantizer.codebooks()))
    }

    /// # Errors
    /// Also [`Error::Unsupported`] for a model that normalises sounds or cuts them into chunks.
    fn decode(&self, codes: Tensor<3, Int>) -> Result<Tensor<3>> {
        self.check_whole("decode")?;
        Ok(self.decoder.forward(self.dequantize(codes)?))
    }
}

impl TrainableCodec for EncodecModel {
    /// Sounds are not cut into chunks.
    fn reconstruct(&self, wave: Tensor<3>, rng: &mut Rng) -> Reconstruction {
        let (wave, volume) = self.normalized(wave);
        let embeddings = self.encoder.forward(wave);
        let [_, dim, frames] = embeddings.dims();
        let (values, output) = self.quantizer.quantize_map(embeddings, Some(rng));
        let decoded = self.decoder.forward(values);
        // Means over the values of a sample, as the distances of sounds are.
        let scale = 1.0 / (dim * frames) as f64;
        let losses = output.losses.iter();
        let losses = losses
            .map(|(name, loss)| (*name, loss.clone() * scale))
            .collect();
        Reconstruction {
            wave: match volume {
                Some(volume) => decoded * volume,
                None => decoded,
            },
            codes: output.codes.clone().swap_dims(1, 2),
            losses,
            update: Some(output.for_update()),
        }
    }

    fn update_codebooks(self, outputs: &[QuantizerOutput]) -> Self {
        Self {
            quantizer: self.quantizer.update(outputs),
            ..self
        }
    }
}

/// Where transformers stores a parameter.
fn encodec_key(key: ParamKey<'_>) -> KeyMapping {
    let renamed = [
        (".codes", ".codebook.embed"),
        (".sums", ".codebook.embed_avg"),
        (".counts", ".codebook.cluster_size"),
        (".started", ".codebook.inited"),
    ];
    let Some(stage) = key.path.strip_prefix("quantizer.stages.") else {
        return layer_key(key);
    };
    let name = renamed.iter().find_map(|(here, there)| {
        let index = stage.strip_suffix(here)?;
        Some(format!("quantizer.layers.{index}{there}"))
    });
    match name {
        Some(name) => KeyMapping::new(name).or(key.path),
        None => layer_key(key),
    }
}
