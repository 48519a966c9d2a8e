//! Files of VITS in transformers' layout.

use super::{VitsConfig, VitsModel};
use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    json,
    nn::layer_key,
    weights::{
        Loaded, OpenOptions, Originals, StoredParam, WeightDtype, WeightReader, edit_params,
        save_tensors, stored_params,
    },
};
use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// File of the configuration.
const CONFIG: &str = "config.json";
/// Stems of the names of weight files.
const STEMS: [&str; 2] = ["model", "pytorch_model"];
/// What the names of the decoder's weights begin with.
const DECODER: &str = "decoder.";
/// End of the path of a gain of weight normalisation.
const GAIN: &str = ".weight_norm.gain";

impl VitsModel {
    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(
        pub config: VitsConfig,
        files: aigc_core::hub_model::ModelFiles::TRANSFORMERS
    );

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let config = json::read_file(&dir.join(CONFIG), VitsConfig::from_json)?;
        let files = WeightReader::from_dir_with_variant(dir, &STEMS, options.variant.as_deref())?;
        Self::from_weights(config, &files, options.dtype, device)
    }

    /// A model of a configuration and weights. The weights of the decoder, `decoder.*`, are left
    /// out, and are not reported as unused.
    ///
    /// # Errors
    /// [`Error::Config`] names the field, [`Error::Weights`] all tensors that are missing or do not
    /// fit.
    pub fn from_weights(
        config: Loaded<VitsConfig>,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let files = files.filtered(|name| !name.starts_with(DECODER));
        let created = config.try_map(|config| config.init(device))?;
        files.load(created, dtype, layer_key)
    }

    /// Writes `config.json` and `model.safetensors`, with transformers' names. Transformers also
    /// expects the weights of a decoder.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        save_tensors(&self.tensors()?, &dir.join("model.safetensors"))?;
        write_atomic(&dir.join(CONFIG), self.config().to_json().as_bytes())
    }

    /// The weights under transformers' names.
    fn tensors(&self) -> Result<BTreeMap<String, TensorData>> {
        let params = stored_params(self, layer_key);
        let normalized: BTreeSet<&str> = params
            .iter()
            .filter_map(|param| param.path.strip_suffix(GAIN))
            .collect();
        let mut tensors = BTreeMap::new();
        // Changes nothing: this is the way to values as files have them.
        let read = |param: &StoredParam, value: &dyn Fn() -> Tensor<2>| {
            let mut shape = param.shape.clone();
            let layer = param.path.strip_suffix(".weight");
            let direction = layer.filter(|layer| normalized.contains(layer));
            let name = match (param.path.strip_suffix(GAIN), direction) {
                (Some(layer), _) => {
                    shape.extend([1, 1]);
                    format!("{layer}.parametrizations.weight.original0")
                }
                (None, Some(layer)) => format!("{layer}.parametrizations.weight.original1"),
                (None, None) => param.name.clone(),
            };
            let values: Vec<f32> = value().into_data().iter::<f32>().collect();
            tensors.insert(name, TensorData::new(values, shape));
            Ok(None)
        };
        edit_params(self.valid(), layer_key, &mut Originals::default(), read)?;
        Ok(tensors)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::speech::VitsOptions;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::values,
    };
    use burn::tensor::Int;

    #[test]
    fn models_open_as_they_were_saved() {
        let device = Device::flex();
        for stochastic in [true, false] {
            let config = VitsConfig {
                vocab_size: 6,
                hidden_size: 8,
                num_hidden_layers: 1,
                ffn_dim: 8,
                flow_size: 4,
                spectrogram_bins: 5,
                use_stochastic_duration_prediction: stochastic,
                num_speakers: 2,
                speaker_embedding_size: 3,
                depth_separable_num_layers: 2,
                duration_predictor_num_flows: 2,
                posterior_encoder_num_wavenet_layers: 2,
                ..VitsConfig::default()
            };
            let model = config.init(&device).unwrap().init_weights(1);
            let dir = tempfile::tempdir().unwrap();
            model.save_pretrained(dir.path()).unwrap();
            let names = WeightReader::open(&dir.path().join("model.safetensors")).unwrap();
            let gain = "flow.flows.0.wavenet.in_layers.0.parametrizations.weight.original0";
            assert_eq!(names.shape(gain), Some(&[16, 1, 1][..]));
            assert!(names.contains("text_encoder.encoder.layers.0.attention.q_proj.weight"));
            assert!(names.names().all(|name| !name.contains("weight_norm")));
            let files = std::fs::read_dir(dir.path()).unwrap().flatten();
            let mut files: Vec<_> = files.map(|entry| entry.file_name()).collect();
            files.sort();
            assert_eq!(files, ["config.json", "model.safetensors"]);
            let opened = VitsModel::from_pretrained(dir.path(), &device).unwrap();
            assert!(opened.warnings().is_empty(), "{opened}");
            let speak = |model: &VitsModel| {
                let ids = Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
                let options = VitsOptions {
                    speaker: Some(1),
                    ..VitsOptions::default()
                };
                let speech = model
                    .latents(ids, None, &options, &mut Rng::new(1))
                    .unwrap();
                values(speech.latents)
            };
            assert_eq!(speak(&opened), speak(&model));
        }
    }
}
