//! The vocoder of a program: a trained one of a folder, or none.

use crate::reported;
use aigc_core::{
    DataFault, Error, Result,
    audio::Vocoder,
    burn::tensor::Device,
    dsp::{GriffinLimConfig, MelConfig},
    json,
};
use aigc_gan::vocoder::{
    HifiGan, MagnitudeVocoder, MagnitudeVocoderConfig, NsfHifiGan, NsfHifiGanConfig, UnivNet,
    UnivNetConfig,
};
use serde_json::Value;
use std::path::Path;

/// Opens the HiFi-GAN, with or without a harmonic source, the UnivNet or the vocoder of predicted
/// magnitudes in `folder`, which must read mels of the configuration `mel`; without a folder, it is
/// Griffin-Lim, which reads any. The folder is one of transformers, of `save_pretrained`, or the
/// `final` of a run. Its report goes to standard error.
///
/// # Errors
/// [`Error::Data`] naming the file, and the first field of the mels that differs; errors of opening
/// the model.
pub fn open_vocoder(
    folder: Option<&Path>,
    mel: &MelConfig,
    device: &Device,
) -> Result<Box<dyn Vocoder>> {
    let Some(folder) = folder else {
        return Ok(Box::new(GriffinLimConfig::new(*mel).init()?));
    };
    let kind = model_type(folder)?;
    let vocoder: Box<dyn Vocoder> = match kind.as_deref() {
        Some(UnivNetConfig::MODEL_TYPE) => {
            Box::new(reported(UnivNet::from_pretrained(folder, device)?).fold())
        }
        Some(NsfHifiGanConfig::MODEL_TYPE) => {
            Box::new(reported(NsfHifiGan::from_pretrained(folder, device)?))
        }
        Some(MagnitudeVocoderConfig::MODEL_TYPE) => {
            Box::new(reported(MagnitudeVocoder::from_pretrained(folder, device)?))
        }
        _ => Box::new(reported(HifiGan::from_pretrained(folder, device)?).fold()),
    };
    mel.check_same(vocoder.mel_config()).map_err(|error| {
        let reason = format!("the vocoder reads other mels than the model makes: {error}");
        Error::data(folder.join("config.json"), DataFault::Mismatch(reason))
    })?;
    Ok(vocoder)
}

/// The `model_type` in the `config.json` of a folder, if it has one.
///
/// # Errors
/// [`Error::Io`] or [`Error::Json`] if the file cannot be read.
pub fn model_type(folder: &Path) -> Result<Option<String>> {
    let config = json::read_file(&folder.join("config.json"), json::parse_object)?;
    let kind = config.get("model_type").and_then(Value::as_str);
    Ok(kind.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{device::device, rng::InitWeights};
    use aigc_gan::vocoder::HifiGanConfig;

    #[test]
    fn vocoders_of_other_mels_are_refused_by_field() {
        let device = device("flex").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = HifiGanConfig::speech_8khz();
        let mel = config.mel();
        let network = config.init(&device).unwrap().init_weights(0);
        network.save_pretrained(folder.path()).unwrap();
        let opened = open_vocoder(Some(folder.path()), &mel, &device).unwrap();
        assert_eq!(opened.mel_config(), &mel);

        let other = MelConfig { floor: 1e-9, ..mel };
        let error = open_vocoder(Some(folder.path()), &other, &device).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("config.json") && error.contains("`floor` is 1e-5, expected 1e-9"),
            "{error}"
        );
        let plain = open_vocoder(None, &other, &device).unwrap();
        assert_eq!(plain.mel_config(), &other);
        assert!(open_vocoder(Some(&folder.path().join("none")), &mel, &device).is_err());
    }
}
