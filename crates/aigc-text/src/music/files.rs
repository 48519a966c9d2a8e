//! Files of MusicGen's decoder in transformers' layout.

use super::{MusicgenDecoder, MusicgenDecoderConfig};
use crate::tokens::host;
use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    json,
    weights::{
        KeyMapping, Loaded, OpenOptions, Originals, ParamKey, StoredParam, WeightDtype,
        WeightReader, edit_params, pytorch_key, save_tensors,
    },
};
use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use std::{collections::BTreeMap, path::Path};

const CONFIG: &str = "config.json";
/// Stems of the names of weight files.
const STEMS: [&str; 2] = ["model", "pytorch_model"];
/// Beginnings of the names of other parts of a folder.
const OTHER_PARTS: [&str; 2] = ["text_encoder.", "audio_encoder."];
/// What whole folders, and the decoder alone, put before the names of the network.
const NETWORK: [&str; 3] = ["decoder.model.decoder.", "model.decoder.", ""];
/// What they put before the names of the output layers.
const HEADS: [&str; 2] = ["decoder.", ""];

impl MusicgenDecoder {
    aigc_core::open_methods!("model");

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let config = json::read_file(&dir.join(CONFIG), MusicgenDecoderConfig::from_json)?;
        let variant = options.variant.as_deref();
        let files = WeightReader::from_dir_with_variant(dir, &STEMS, variant)?;
        Self::load(config, &files, options.dtype, device)
    }

    /// A model from the text of a `config.json` and weights, of the decoder alone or of a whole
    /// folder of MusicGen, whose other parts are left out.
    ///
    /// # Errors
    /// [`Error::Config`] names the field, [`Error::Weights`] all tensors that are missing or do not
    /// fit.
    pub fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let config = MusicgenDecoderConfig::from_json(config)?;
        Self::load(config, files, dtype, device)
    }

    fn load(
        config: Loaded<MusicgenDecoderConfig>,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let created = config.try_map(|config| config.init(device))?;
        let is_own = |name: &str| !OTHER_PARTS.iter().any(|part| name.starts_with(part));
        let mut loaded = files.filtered(is_own).load(created, dtype, file_key)?;
        // Older files contain the table of positions, which is computed.
        let is_table = |name: &String| name.ends_with("embed_positions.weights");
        loaded.unused_tensors.retain(|name| !is_table(name));
        Ok(loaded)
    }

    /// Writes a directory of the decoder alone, `config.json` and `model.safetensors`, with the
    /// names of transformers' `MusicgenForCausalLM`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a quantised model; [`Error::Io`] or [`Error::Weights`] if a file
    /// cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        if self.is_quantized() {
            let hint = "save the model before it is quantised";
            return Err(Error::unsupported(
                "a quantised model",
                "save_pretrained",
                hint,
            ));
        }
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let mut tensors = BTreeMap::new();
        // Reads all parameters as files have them, and changes none.
        let collect = |param: &StoredParam, value: &dyn Fn() -> Tensor<2>| {
            let data = TensorData::new(host(value()), param.shape.clone());
            tensors.insert(param.name.clone(), data);
            Ok(None)
        };
        let model = self.clone().valid();
        edit_params(model, saved_key, &mut Originals::default(), collect)?;
        save_tensors(&tensors, &dir.join("model.safetensors"))?;
        write_atomic(&dir.join(CONFIG), self.config().to_json().as_bytes())
    }
}

/// Possible names of a parameter in files.
fn file_key(key: ParamKey<'_>) -> KeyMapping {
    let mapping = pytorch_key(key);
    let prefixes = match key.path.split('.').next() {
        Some("embed_tokens" | "layers" | "layer_norm") => &NETWORK[..],
        Some("lm_heads") => &HEADS[..],
        _ => &[""][..],
    };
    let names = prefixes.iter().flat_map(|prefix| {
        let names = mapping.candidates.iter();
        names.map(move |name| format!("{prefix}{name}"))
    });
    KeyMapping {
        candidates: names.collect(),
        transpose: mapping.transpose,
    }
}

/// The name that [`MusicgenDecoder::save_pretrained`] writes.
fn saved_key(key: ParamKey<'_>) -> KeyMapping {
    let mut mapping = file_key(key);
    mapping
        .candidates
        .retain(|name| !name.starts_with("decoder."));
    mapping
}
