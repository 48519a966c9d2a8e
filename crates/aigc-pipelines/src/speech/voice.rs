//! A voice of VITS: from symbols to waveforms.

use super::VitsDecoder;
use aigc_core::{
    Result, json,
    rng::Rng,
    weights::{Loaded, OpenOptions, WeightReader},
};
use aigc_vae::speech::{VitsConfig, VitsLatents, VitsModel, VitsOptions};
use burn::tensor::{Bool, Device, Int, Tensor};
use std::path::Path;

/// File of the configuration.
const CONFIG: &str = "config.json";
/// Stems of the names of weight files.
const STEMS: [&str; 2] = ["model", "pytorch_model"];

/// VITS with its decoder.
#[derive(Clone, Debug)]
pub struct VitsVoice {
    /// Symbols to latents.
    pub model: VitsModel,
    /// Latents to sound.
    pub decoder: VitsDecoder,
}

/// The waveforms of texts, with the latents that they were decoded from.
#[derive(Clone, Debug)]
pub struct VitsSpeech {
    /// Latents and durations.
    pub latents: VitsLatents,
    /// Waveforms, `[batch, time]`.
    pub waveform: Tensor<2>,
    /// Number of samples of each text; samples after them are padding.
    pub lengths: Vec<usize>,
}

impl VitsVoice {
    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(
        pub config: VitsConfig,
        files: aigc_core::hub_model::ModelFiles::TRANSFORMERS
    );

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let config = json::read_file(&dir.join(CONFIG), VitsConfig::from_json)?;
        let files = WeightReader::from_dir_with_variant(dir, &STEMS, options.variant.as_deref())?;
        let mut decoder = VitsDecoder::from_weights(&config.value, &files, options.dtype, device)?;
        // The report of the model has the notes about the files, too.
        decoder.notes.clear();
        let mut model = VitsModel::from_weights(config, &files, options.dtype, device)?;
        let decoder = model.merge(decoder);
        Ok(model.map(|model| Self { model, decoder }))
    }

    /// The sound of the symbols of texts, with the noise of `rng`.
    ///
    /// # Shapes
    /// - input_ids: `[batch, tokens]`
    /// - attention_mask: `[batch, tokens]`, true for tokens and false for padding
    ///
    /// # Errors
    /// As [`VitsModel::latents`].
    pub fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        options: &VitsOptions,
        rng: &mut Rng,
    ) -> Result<VitsSpeech> {
        self.decode(
            self.model
                .latents(input_ids, attention_mask, options, rng)?,
        )
    }

    /// The sound of latents.
    ///
    /// # Errors
    /// As [`VitsDecoder::decode`].
    pub fn decode(&self, latents: VitsLatents) -> Result<VitsSpeech> {
        let speaker = latents.speaker.as_ref();
        let waveform = self.decoder.decode(latents.latents.clone(), speaker)?;
        let hop = self.model.config().hop_length();
        Ok(VitsSpeech {
            lengths: latents.frames.iter().map(|frames| frames * hop).collect(),
            latents,
            waveform,
        })
    }
}
