//! Files of T5 in transformers' layout.

use super::{T5Config, T5EncoderModel};
use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    weights::{
        KeyMapping, Loaded, OpenOptions, ParamKey, WeightDtype, WeightReader, open_model,
        pytorch_key, save_weights,
    },
};
use burn::{module::Module, tensor::Device};
use std::path::Path;

/// Stems of the names of weight files.
const STEMS: [&str; 2] = ["model", "pytorch_model"];
/// Names of the embedding of tokens, which files may contain twice.
const TABLES: [&str; 2] = ["shared.weight", "encoder.embed_tokens.weight"];

impl T5EncoderModel {
    aigc_core::open_methods!("model");

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let create = |text: &str| Self::create(text, device);
        let loaded = open_model(dir, &STEMS, options, create, file_key)?;
        Ok(without_table(loaded))
    }

    /// A model from the text of its `config.json` and its weights, which may be a part of a larger
    /// file ([`WeightReader::renamed`]).
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
        let loaded = files.load(Self::create(config, device)?, dtype, file_key)?;
        Ok(without_table(loaded))
    }

    /// A model of the text of a configuration, with initial weights.
    fn create(text: &str, device: &Device) -> Result<Loaded<Self>> {
        T5Config::from_json(text)?.try_map(|config| config.init(device))
    }

    /// Writes a directory that transformers opens: `config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        save_weights(&self.valid(), &dir.join("model.safetensors"))?;
        write_atomic(&dir.join("config.json"), self.config().to_json().as_bytes())
    }
}

/// Name and layout of a parameter in files.
fn file_key(key: ParamKey<'_>) -> KeyMapping {
    match key.path {
        path if path == TABLES[0] => KeyMapping::new(path).or(TABLES[1]),
        _ => pytorch_key(key),
    }
}

/// The report without the second copy of the embedding.
fn without_table<M>(mut loaded: Loaded<M>) -> Loaded<M> {
    let is_table = |name: &String| TABLES.iter().any(|table| name.ends_with(table));
    loaded.unused_tensors.retain(|name| !is_table(name));
    loaded
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::InitWeights,
        testing::values,
        weights::{WeightDtype, save_tensors},
    };
    use burn::tensor::{Int, Tensor, TensorData};
    use std::collections::BTreeMap;

    /// Opens a whole T5 model with its table under the other name, or under both names.
    #[test]
    fn whole_models_and_both_names_of_the_table_open() {
        let config = T5Config {
            vocab_size: 10,
            d_model: 8,
            d_kv: 4,
            d_ff: 6,
            num_layers: 1,
            num_heads: 2,
            ..T5Config::default()
        };
        let device = Device::flex();
        let model = config.init(&device).unwrap().init_weights(1);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let path = dir.path().join("model.safetensors");
        let ids = || Tensor::<2, Int>::from_data([[3, 9]], &device);
        let expected = values(model.forward(ids(), None));
        let files = WeightReader::open(&path).unwrap();
        let mut tensors: BTreeMap<String, TensorData> = files
            .names()
            .map(|name| {
                let shape = files.shape(name).unwrap().to_vec();
                let data = TensorData::new(files.read(name).unwrap(), shape);
                (name.to_owned(), data)
            })
            .collect();
        tensors.insert(TABLES[1].into(), tensors[TABLES[0]].clone());
        let decoder = "decoder.block.0.layer.0.SelfAttention.q.weight";
        for name in [decoder, "decoder.embed_tokens.weight", "lm_head.weight"] {
            tensors.insert(name.into(), TensorData::new(vec![0f32], [1]));
        }
        for both in [true, false] {
            if !both {
                tensors.remove(TABLES[0]);
            }
            save_tensors(&tensors, &path).unwrap();
            let opened = T5EncoderModel::from_pretrained(dir.path(), &device).unwrap();
            let unused = [decoder, "decoder.embed_tokens.weight", "lm_head.weight"];
            assert_eq!(opened.unused_tensors, unused, "{both}");
            assert_eq!(values(opened.forward(ids(), None)), expected);
        }
        // In half precision, up to the rounding of the weights.
        let options = OpenOptions::default().with_dtype(WeightDtype::BF16);
        let half = T5EncoderModel::from_pretrained_with(dir.path(), &options, &device).unwrap();
        let found = values(half.forward(ids(), None));
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let worst = apart.fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < 0.1, "{worst}");
        tensors.remove("encoder.final_layer_norm.weight");
        save_tensors(&tensors, &path).unwrap();
        let message = T5EncoderModel::from_pretrained(dir.path(), &device);
        let message = message.unwrap_err().to_string();
        let expected = "missing keys: encoder.final_layer_norm.weight";
        assert!(message.contains(expected), "{message}");
    }
}
