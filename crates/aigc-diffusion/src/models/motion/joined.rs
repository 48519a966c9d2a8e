//! Files of networks whose layers lie in several fields here, and in one tree of names there.

use crate::{
    json::to_map,
    models::any::{CONFIG, WEIGHTS},
};
use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    params::{ParamVisitor, visit_params},
    weights::{KeyMapping, ParamKey, save_tensors, stored_params},
};
use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// The key of a parameter without the first of these field names that its path begins with.
pub(crate) fn without_field<'a>(key: ParamKey<'a>, fields: &[&str]) -> ParamKey<'a> {
    let rest = fields
        .iter()
        .find_map(|field| key.path.strip_prefix(field)?.strip_prefix('.'));
    ParamKey {
        path: rest.unwrap_or(key.path),
        module: key.module,
    }
}

/// Defines the methods that open a network with the configuration `$config`, whose parameters have
/// the names in files that the function `$key` gives them. [`save`] is its counterpart.
macro_rules! joined_network_methods {
    ($config:ident, $key:path) => {
        aigc_core::open_methods!("diffusion_pytorch_model");
        #[cfg(feature = "download")]
        aigc_core::hub_methods!(pub config: $config, files: $crate::models::files::HUB_FILES);

        fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
            let create = |text: &str| Self::create(text, device);
            open_model(dir, $crate::models::any::STEMS, options, create, $key)
        }

        /// A network from the text of its `config.json` and its weights.
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
            files.load(Self::create(config, device)?, dtype, $key)
        }

        /// A network of the text of a configuration, with initial weights.
        fn create(text: &str, device: &Device) -> Result<Loaded<Self>> {
            let config = $config::from_json(text)?;
            let network = config.init(device)?;
            Ok(config.map(|_| network))
        }
    };
}

pub(in crate::models) use joined_network_methods;

/// Writes a network's directory, with the names that `mapping` gives to its parameters.
///
/// # Errors
/// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
pub(crate) fn save<M: Module>(
    network: &M,
    mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
    config: &str,
    dir: &Path,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    write_atomic(&dir.join(CONFIG), config.as_bytes())?;
    let place = |param: aigc_core::weights::StoredParam| {
        let key = ParamKey {
            path: &param.path,
            module: &param.module,
        };
        let transpose = mapping(key).transpose;
        (param.path, (param.name, transpose))
    };
    let mut values = Values {
        places: stored_params(network, &mapping)
            .into_iter()
            .map(place)
            .collect(),
        found: BTreeMap::new(),
    };
    visit_params(network, &mut values);
    save_tensors(&values.found, &dir.join(WEIGHTS))
}

struct Values {
    /// Name in files by path, and whether files have the transpose.
    places: HashMap<String, (String, bool)>,
    found: BTreeMap<String, TensorData>,
}

impl ParamVisitor for Values {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let Some((name, transpose)) = self.places.get(path) else {
            return;
        };
        let value = match *transpose && D >= 2 {
            true => param.val().swap_dims(0, 1),
            false => param.val(),
        };
        self.found.insert(name.clone(), value.into_data());
    }
}

/// Fields with the names of blocks.
const BLOCK_TYPES: [&str; 2] = ["down_block_types", "up_block_types"];

/// Replaces the ending of the names of all blocks, such as `3D` of `DownBlock3D` by `2D`.
///
/// # Errors
/// [`Error::Config`] for a name with another ending.
pub(crate) fn rename_blocks(fields: &mut Map<String, Value>, from: &str, to: &str) -> Result<()> {
    for field in BLOCK_TYPES {
        for value in fields
            .get_mut(field)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let name = value.as_str().and_then(|name| name.strip_suffix(from));
            let Some(name) = name.map(|stem| format!("{stem}{to}")) else {
                let expected = format!("names of blocks that end in {from}");
                return Err(Error::config(field, value.to_string(), expected));
            };
            *value = name.into();
        }
    }
    Ok(())
}

/// The text of a configuration with names of blocks that end in `ending`.
pub(crate) fn to_text(config: &impl Serialize, class: &str, ending: &str) -> String {
    let mut fields = to_map(config);
    rename_blocks(&mut fields, "2D", ending).expect("names of blocks of images");
    fields.insert("_class_name".into(), class.into());
    serde_json::to_string_pretty(&fields).expect("plain values")
}
