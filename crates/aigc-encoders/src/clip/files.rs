//! Directories of models, as transformers has them.

use aigc_core::{
    Error, Result,
    checkpoint::{write_atomic, write_atomic_with},
    json,
    weights::{
        KeyMapping, Loaded, OpenOptions, ParamKey, WeightDtype, WeightReader, pytorch_key,
        save_weights,
    },
};
use burn::module::Module;
use serde_json::{Map, Value};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

/// Name of the configuration in a model's directory.
const CONFIG: &str = "config.json";
/// Stems of the names of weight files in a model's directory.
const STEMS: &[&str] = &["model", "pytorch_model"];

/// Defines the methods that open and save a model with the configuration `$config`. The model has
/// `load(Loaded<$config>, &WeightReader, WeightDtype, &Device)` and `to_json`. `scalars` are
/// vectors of one value that transformers has as numbers without axes.
macro_rules! clip_methods {
    ($config:ident) => {
        clip_methods!($config, scalars: &[]);
    };
    ($config:ident, scalars: $scalars:expr) => {
        aigc_core::open_methods!("model");

        fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
            let (config, files) = $crate::clip::files::open(dir, options, $config::from_json)?;
            Self::load(config, &files, options.dtype, device)
        }

        /// A model from the text of its `config.json` and its weights, which may be a part of a
        /// larger file ([`WeightReader::renamed`]).
        ///
        /// # Errors
        /// [`Error::Config`](aigc_core::Error::Config) names the field,
        /// [`Error::Weights`](aigc_core::Error::Weights) all tensors that are missing or do not
        /// fit.
        pub fn from_weights(
            config: &str,
            files: &WeightReader,
            dtype: WeightDtype,
            device: &Device,
        ) -> Result<Loaded<Self>> {
            Self::load($config::from_json(config)?, files, dtype, device)
        }

        /// Writes a directory that transformers opens: `config.json` and `model.safetensors`.
        ///
        /// # Errors
        /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if
        /// a file cannot be written.
        pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
            $crate::clip::files::save(self, &self.to_json(), $scalars, dir.as_ref())
        }
    };
}
pub(super) use clip_methods;

/// The configuration and the weights in a model's directory.
pub(super) fn open<C>(
    dir: &Path,
    options: &OpenOptions,
    from_json: impl FnOnce(&str) -> Result<Loaded<C>>,
) -> Result<(Loaded<C>, WeightReader)> {
    let config = json::read_file(&dir.join(CONFIG), from_json)?;
    let files = WeightReader::from_dir_with_variant(dir, STEMS, options.variant.as_deref())?;
    Ok((config, files))
}

/// Writes a model's directory, which is created if it is missing.
pub(super) fn save<M: Module>(model: &M, config: &str, scalars: &[&str], dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    write_atomic_with(&dir.join("model.safetensors"), |path| {
        save_weights(&model.clone().valid(), path)?;
        match scalars {
            [] => Ok(()),
            _ => remove_axes(path, scalars),
        }
    })?;
    write_atomic(&dir.join(CONFIG), config.as_bytes())
}

/// Gives tensors of one value the shape `[]` in a safetensors file; burn has no tensors without
/// axes. The header keeps its length, because it may end with spaces.
fn remove_axes(path: &Path, scalars: &[&str]) -> Result<()> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io(path))?;
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(Error::io(path))?;
    let mut header = vec![0; u64::from_le_bytes(size) as usize];
    file.read_exact(&mut header).map_err(Error::io(path))?;
    let wrong = |error: serde_json::Error| Error::weights(path, error);
    let mut fields: Map<String, Value> = serde_json::from_slice(&header).map_err(wrong)?;
    for name in scalars {
        if let Some(tensor) = fields.get_mut(*name) {
            tensor["shape"] = Value::Array(vec![]);
        }
    }
    let text = serde_json::to_vec(&fields).map_err(wrong)?;
    if text.len() > header.len() {
        return Err(Error::weights(path, "the header has no room"));
    }
    header.fill(b' ');
    header[..text.len()].copy_from_slice(&text);
    file.seek(SeekFrom::Start(8)).map_err(Error::io(path))?;
    file.write_all(&header).map_err(Error::io(path))
}

/// Whether there is a tensor with this name, or with a prefix before it.
pub(super) fn has(reader: &WeightReader, name: &str) -> bool {
    let suffix = format!(".{name}");
    reader
        .names()
        .any(|stored| stored == name || stored.ends_with(&suffix))
}

/// Loads the weights of a model.
pub(super) fn load<M: Module>(
    files: &WeightReader,
    created: Loaded<M>,
    dtype: WeightDtype,
    mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
) -> Result<Loaded<M>> {
    let mut loaded = files.load(created, dtype, mapping)?;
    // Older files have a table of the numbers 0, 1, 2, …
    let is_table = |name: &String| name.ends_with("position_ids");
    loaded.unused_tensors.retain(|name| !is_table(name));
    Ok(loaded)
}

/// The name of a parameter, which may lack `prefix` in files.
pub(super) fn optional_prefix(key: ParamKey<'_>, prefix: &str) -> KeyMapping {
    let mapping = pytorch_key(key);
    let bare: Vec<String> = mapping
        .candidates
        .iter()
        .filter_map(|name| name.strip_prefix(prefix).map(str::to_owned))
        .collect();
    bare.into_iter().fold(mapping, KeyMapping::or)
}
