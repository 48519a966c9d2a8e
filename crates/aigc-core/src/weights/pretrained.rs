//! Model directories: `config.json` and weights.

use super::{
    Loaded, OpenOptions, RenamedField, WeightReader, open::CONFIG, renamed_key, save_weights,
};
use crate::{DataFault, Error, Result, checkpoint::write_atomic, json};
#[cfg(feature = "download")]
use crate::{data::download::ProgressFn, hub::Hub, hub_model::ModelFiles};
use burn::module::Module;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::Path;
#[cfg(feature = "download")]
use std::path::PathBuf;

/// Stems of the names of weight files in a directory.
const STEMS: &[&str] = &["model"];

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
    load_pretrained_with(dir, &OpenOptions::default(), renamed, init)
}

/// [`load_pretrained`] for a variant of the weights, or with a type for the parameters.
///
/// # Errors
/// As [`load_pretrained`]; if the variant is missing, the [`Error::Weights`] lists the existing
/// files.
pub fn load_pretrained_with<C, M>(
    dir: &Path,
    options: &OpenOptions,
    renamed: &[RenamedField],
    init: impl FnOnce(&C) -> Result<M>,
) -> Result<Loaded<M>>
where
    C: Serialize + DeserializeOwned + PartialEq,
    M: Module,
{
    let (config, unused_fields) = read_config::<C>(&dir.join(CONFIG))?;
    let created = Loaded::new(init(&config)?).with_unused_fields(unused_fields);
    let files = WeightReader::from_dir_with_variant(dir, STEMS, options.variant.as_deref())?;
    let mut loaded = files.load(created, options.dtype, |key| renamed_key(key, renamed))?;
    // PyTorch's counter of batches is not used.
    let is_used = |name: &String| !name.ends_with("num_batches_tracked");
    loaded.unused_tensors.retain(is_used);
    Ok(loaded)
}

/// Downloads the files of the hub that [`load_pretrained_with`] opens, and returns their
/// directory. `check` validates the configuration before weights are downloaded.
///
/// # Errors
/// As [`ModelFiles::snapshot`]; [`Error::Data`] with the file and the field at fault if the
/// configuration is that of another model, or `check` refuses it.
#[cfg(feature = "download")]
pub fn download_pretrained<C>(
    hub: &Hub,
    repo: &str,
    revision: &str,
    variant: Option<&str>,
    check: impl FnOnce(&C) -> Result<()>,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf>
where
    C: Serialize + DeserializeOwned + PartialEq,
{
    let files = ModelFiles {
        config_files: &[CONFIG],
        stems: STEMS,
        variant,
        ..ModelFiles::default()
    };
    let check = |path: &Path| {
        let (config, _) = read_config::<C>(path)?;
        check(&config).map_err(|error| Error::data(path, DataFault::Mismatch(error.to_string())))
    };
    files.snapshot(hub, repo, revision, check, progress)
}

/// Writes `model.safetensors` and then `config.json` to a directory, which is created if it is
/// missing.
///
/// # Errors
/// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
pub fn save_pretrained<C: Serialize, M: Module>(model: &M, config: &C, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let path = dir.join(CONFIG);
    let text = serde_json::to_vec_pretty(config)
        .map_err(|error| Error::data(&path, DataFault::Mismatch(error.to_string())))?;
    save_weights(&model.clone().valid(), &dir.join("model.safetensors"))?;
    write_atomic(&path, &text)
}

/// The configuration in a file, and the fields of the file that the configuration does not have.
fn read_config<C>(path: &Path) -> Result<(C, Vec<String>)>
where
    C: Serialize + DeserializeOwned + PartialEq,
{
    json::read_file(path, |text| {
        let fault = |error: serde_json::Error| {
            Error::Json(format!("not a configuration of these models: {error}"))
        };
        let json = json::parse(text)?;
        let config: C = serde_json::from_value(json.clone()).map_err(fault)?;
        let Value::Object(fields) = json else {
            return Ok((config, vec![]));
        };
        let known = serde_json::to_value(&config).map_err(fault)?;
        // A field that is not written back is unused, unless it is a former name: without a former
        // name, the configuration differs or is invalid.
        let candidates: Vec<String> = fields
            .keys()
            .filter(|name| known.get(name.as_str()).is_none())
            .cloned()
            .collect();
        let same_without = |names: &[String]| {
            let mut rest = fields.clone();
            for name in names {
                rest.remove(name);
            }
            serde_json::from_value::<C>(rest.into()).is_ok_and(|rest| rest == config)
        };
        let unused = if candidates.is_empty() || same_without(&candidates) {
            candidates
        } else {
            let all = candidates.into_iter();
            all.filter(|name| same_without(std::slice::from_ref(name)))
                .collect()
        };
        Ok((config, unused))
    })
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

        // A variant beside the usual weights opens by its name only.
        let other = init(&config).unwrap().init_weights(2);
        save_weights(&other, &dir.path().join("model.ema.safetensors")).unwrap();
        for (variant, expected) in [(None, &model), (Some("ema"), &other)] {
            let options = OpenOptions {
                variant: variant.map(str::to_owned),
                ..OpenOptions::default()
            };
            let loaded = load_pretrained_with(dir.path(), &options, &[], init).unwrap();
            assert_eq!(weight(&loaded.layer), weight(&expected.layer));
        }
        let options = OpenOptions::default().with_variant("fp16");
        let missing = load_pretrained_with(dir.path(), &options, &[], init);
        let message = missing.unwrap_err().to_string();
        assert!(message.contains("variant fp16"), "{message}");

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

        // Python writes constants that JSON does not have.
        let json = "{\"width\": 3, \"low\": -Infinity, \"colour\": NaN}";
        std::fs::write(dir.path().join(CONFIG), json).unwrap();
        let loaded = load_pretrained(dir.path(), &renamed, init).unwrap();
        let mut unused = loaded.unused_fields.clone();
        unused.sort();
        assert_eq!(unused, ["colour", "low"]);
        std::fs::write(dir.path().join(CONFIG), "{\"features\": \"three\"}").unwrap();
        let message = load_pretrained(dir.path(), &renamed, init)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("config.json: not a configuration of these models"),
            "{message}"
        );
    }
}
