//! Files of codecs, whose layers have weight norm under one of two names, or none.

use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    json,
    nn::layer_key,
    params::{ParamVisitor, visit_params},
    weights::{
        KeyMapping, Loaded, OpenOptions, ParamKey, TensorSource, WeightDtype, WeightReader,
        save_tensors, stored_params,
    },
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use std::{collections::BTreeMap, path::Path};

/// File of a model's configuration.
const CONFIG: &str = "config.json";

/// Fields of the configurations of transformers that say nothing about the network.
const IDLE: &[&str] = &[
    "architectures",
    "model_type",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "return_dict",
    "output_hidden_states",
    "feature_extractor_type",
];

/// Ends of the names of gains: both of PyTorch, and that of this library.
const GAINS: [&str; 3] = [
    "weight_g",
    "parametrizations.weight.original0",
    "weight_norm.gain",
];

/// Reads a configuration of transformers: `model_type` has to be `kind` if it is there.
pub(super) fn fields_of(
    text: &str,
    kind: &str,
) -> Result<serde_json::Map<String, serde_json::Value>> {
    let mut fields = json::parse_object(text)?;
    if let Some(other) = fields.get("model_type").filter(|found| *found != kind) {
        return Err(Error::config("model_type", other, kind));
    }
    fields.retain(|field, _| !IDLE.contains(&field.as_str()));
    Ok(fields)
}

/// A codec with a directory of files: `config.json` and weights.
pub(super) trait CodecFiles: Module {
    /// The configuration.
    type Config;

    /// Stems of the names of weight files. The first is the one that is written.
    const STEMS: &'static [&'static str];

    /// The configuration in the text of `config.json`.
    fn parse(text: &str) -> Result<Loaded<Self::Config>>;

    /// The codec of a configuration. `has_norm` says whether the files have gains of weight norm.
    fn create(config: &Self::Config, has_norm: bool, device: &Device) -> Result<Self>;

    /// Where files have a parameter.
    fn stored_key(key: ParamKey<'_>) -> KeyMapping {
        layer_key(key)
    }

    /// Opens a directory.
    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let config = json::read_file(&dir.join(CONFIG), Self::parse)?;
        let variant = options.variant.as_deref();
        let files = WeightReader::from_dir_with_variant(dir, Self::STEMS, variant)?;
        Self::load_weights(config, &files, options.dtype, device)
    }

    /// The codec of a configuration with the weights of files.
    fn load_weights(
        config: Loaded<Self::Config>,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let has_norm = files.names().any(is_gain);
        let files = with_vectors(files.clone())?;
        let created = config.try_map(|config| Self::create(&config, has_norm, device))?;
        files.load(created, dtype, Self::stored_key)
    }
}

fn is_gain(name: &str) -> bool {
    GAINS.iter().any(|gain| name.ends_with(gain))
}

/// The files with gains, which PyTorch stores as `[outputs, 1, 1]`, as vectors.
fn with_vectors(files: WeightReader) -> Result<WeightReader> {
    let source = |name: &str| {
        let source = TensorSource::new(name, name);
        match files.shape(name) {
            Some([outputs, rest @ ..]) if is_gain(name) && rest.iter().all(|size| *size == 1) => {
                source.reshaped(vec![*outputs])
            }
            _ => source,
        }
    };
    let sources: Vec<TensorSource> = files.names().map(source).collect();
    files.renamed(sources)
}

/// Writes a codec's directory, with the names and shapes of PyTorch's weight norm.
pub(super) fn save<M: CodecFiles>(model: &M, config: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let model = model.valid();
    let mut values = Values::default();
    visit_params(&model, &mut values);
    let normed: Vec<String> = values.0.keys().filter_map(|path| layer(path)).collect();
    let mut tensors = BTreeMap::new();
    for param in stored_params(&model, M::stored_key) {
        let Some(data) = values.0.remove(&param.path) else {
            continue;
        };
        let (name, data) = if layer(&param.path).is_some() {
            let outputs = data.num_elements();
            let gains: Vec<f32> = data.iter::<f32>().collect();
            (param.name, TensorData::new(gains, [outputs, 1, 1]))
        } else {
            let parent = param.path.strip_suffix(".weight");
            let is_direction = parent.is_some_and(|parent| normed.iter().any(|of| of == parent));
            match is_direction {
                true => (format!("{}_v", param.name), data),
                false => (param.name, data),
            }
        };
        tensors.insert(name, data);
    }
    save_tensors(&tensors, &dir.join(format!("{}.safetensors", M::STEMS[0])))?;
    write_atomic(&dir.join(CONFIG), config.as_bytes())
}

/// The path of the layer that the gain at `path` belongs to.
fn layer(path: &str) -> Option<String> {
    path.strip_suffix(".weight_norm.gain").map(str::to_owned)
}

/// The values of all parameters, by path.
#[derive(Default)]
struct Values(BTreeMap<String, TensorData>);

impl ParamVisitor for Values {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.0.insert(path.into(), param.val().into_data());
    }
}
