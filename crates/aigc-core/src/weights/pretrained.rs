//! Model directories: `config.json` and weights.

use super::{Loaded, RenamedField, WeightReader, renamed_key, save_weights};
use crate::{DataFault, Error, Result, checkpoint::write_atomic};
use burn::module::Module;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::Path;

const CONFIG: &str = "config.json";

/// Opens the model of a directory with `config.json` and `model.safetensors` (or other weights that
/// [`WeightReader::from_dir`] reads), such as the `final` of a run. `init` creates the model of a
/// configuration; `renamed` lists fields with other names in older files.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`], [`Error::Config`] or [`Error::Weights`] with the file and the
/// field, tensor or value at fault.
pub fn load_pretrained<C, M>(
    dir: &Path,
    renamed: &[RenamedField],
    init: impl FnOnce(&C) -> Result<M>,
) -> Result<Loaded<M>>
where
    C: Serialize + DeserializeOwned + PartialEq,
    M: Module,
{
    let (config, unused_fields) = read_config::<C>(&dir.join(CONFIG))?;
    let model = init(&config)?;
    let reader = WeightReader::from_dir(dir, &["model"])?;
    let (model, report) = reader.load_into(model, |key| renamed_key(key, renamed))?;
    let mut loaded = Loaded::new(model).with_unused_fields(unused_fields);
    // PyTorch's counter of batches is not used.
    let unused = report.unused.into_iter();
    loaded.unused_tensors = unused
        .filter(|name| !name.ends_with("num_batches_tracked"))
        .collect();
    loaded.notes = reader.notes().to_vec();
    if let Some(prefix) = report.prefix {
        loaded
            .notes
            .push(format!("the prefix `{prefix}` of all tensors was removed"));
    }
    Ok(loaded)
}

/// Writes `config.json` and `model.safetensors` to a directory, which is created if it is missing.
///
/// # Errors
/// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
pub fn save_pretrained<C: Serialize, M: Module>(model: &M, config: &C, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let path = dir.join(CONFIG);
    let text = serde_json::to_vec_pretty(config)
        .map_err(|error| Error::data(&path, DataFault::Mismatch(error.to_string())))?;
    write_atomic(&path, &text)?;
    save_weights(&model.clone().valid(), &dir.join("model.safetensors"))
}

/// The configuration in a file, and the fields of the file that the configuration does not have.
fn read_config<C>(path: &Path) -> Result<(C, Vec<String>)>
where
    C: Serialize + DeserializeOwned + PartialEq,
{
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let fault = |error: serde_json::Error| {
        Error::data(
            path,
            DataFault::Mismatch(format!("not a configuration of these models: {error}")),
        )
    };
    // Editors on Windows write a byte-order mark.
    let json: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(fault)?;
    let config: C = serde_json::from_value(json.clone()).map_err(fault)?;
    let Value::Object(fields) = json else {
        return Ok((config, vec![]));
    };
    let known = serde_json::to_value(&config).map_err(fault)?;
    // A field that is not written back is unused, unless it is a former name: without a former
    // name, the configuration differs or is invalid.
    let unused = fields.keys().filter(|name| {
        let mut rest = fields.clone();
        rest.remove(*name);
        known.get(name.as_str()).is_none()
            && serde_json::from_value::<C>(rest.into()).is_ok_and(|rest| rest == config)
    });
    let unused = unused.cloned().collect();
    Ok((config, unused))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        nn::{Linear, LinearConfig},
        rng::InitWeights,
    };
    use burn::{module::Module, tensor::Device};
    use serde::Deserialize;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Config {
        #[serde(alias = "width")]
        features: usize,
    }

    #[derive(Module, Debug)]
    struct Model {
        layer: Linear,
    }

    #[derive(Module, Debug)]
    struct Former {
        dense: Linear,
    }

    fn linear(config: &Config) -> Linear {
        LinearConfig::new(config.features, 2).init(&Device::flex())
    }

    fn init(config: &Config) -> Result<Model> {
        let layer = linear(config);
        Ok(Model { layer })
    }

    fn weight(layer: &Linear) -> Vec<f32> {
        layer.weight.val().into_data().iter().collect()
    }

    #[test]
    fn pretrained_models_open_with_former_names() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { features: 3 };
        let model = init(&config).unwrap().init_weights(1);
        save_pretrained(&model, &config, dir.path()).unwrap();
        let loaded = load_pretrained(dir.path(), &[], init).unwrap();
        assert_eq!(weight(&loaded.layer), weight(&model.layer));
        assert!(loaded.warnings().is_empty(), "{loaded}");

        let former = Former {
            dense: model.layer.clone(),
        };
        save_pretrained(&former, &config, dir.path()).unwrap();
        let json = "\u{feff}{\"width\": 3, \"colour\": \"red\"}";
        std::fs::write(dir.path().join(CONFIG), json).unwrap();
        let renamed = [RenamedField {
            name: "layer",
            former: "dense",
        }];
        let loaded = load_pretrained(dir.path(), &renamed, init).unwrap();
        assert_eq!(weight(&loaded.layer), weight(&model.layer));
        assert_eq!(loaded.unused_fields, ["colour"]);
        let message = load_pretrained(dir.path(), &[], init)
            .unwrap_err()
            .to_string();
        assert!(message.contains("missing keys: layer.bias"), "{message}");
    }
}
