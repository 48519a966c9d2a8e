//! Files of codecs, whose layers have weight norm under one of two names, or none.

use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    params::{ParamVisitor, visit_params},
    weights::{
        KeyMapping, Loaded, ParamKey, TensorSource, WeightDtype, WeightReader, save_tensors,
        stored_params,
    },
};
use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use std::{collections::BTreeMap, path::Path};

/// File of a model's configuration.
pub(super) const CONFIG: &str = "config.json";

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
    let mut fields = aigc_core::json::parse_object(text)?;
    if let Some(other) = fields.get("model_type").filter(|found| *found != kind) {
        return Err(Error::config("model_type", other, kind));
    }
    fields.retain(|field, _| !IDLE.contains(&field.as_str()));
    Ok(fields)
}

/// A model of a configuration and files. `init` creates it, with weight norm if the files have it.
pub(super) fn load<C, M: Module>(
    config: Loaded<C>,
    files: &WeightReader,
    dtype: WeightDtype,
    init: impl FnOnce(&C, bool) -> Result<M>,
    mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
) -> Result<Loaded<M>> {
    let has_norm = files.names().any(is_gain);
    let files = with_vectors(files.clone())?;
    let created = config.try_map(|config| init(&config, has_norm))?;
    files.load(created, dtype, mapping)
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

/// Writes a model's directory, with the names and shapes of PyTorch's weight norm.
pub(super) fn save<M: Module>(
    model: &M,
    config: &str,
    stem: &str,
    dir: &Path,
    mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let model = model.valid();
    let mut values = Values::default();
    visit_params(&model, &mut values);
    let normed: Vec<String> = values.0.keys().filter_map(|path| layer(path)).collect();
    let mut tensors = BTreeMap::new();
    for param in stored_params(&model, mapping) {
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
    save_tensors(&tensors, &dir.join(format!("{stem}.safetensors")))?;
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
