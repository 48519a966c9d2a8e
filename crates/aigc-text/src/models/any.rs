//! Any supported language model, by the `model_type` of its configuration.

use super::{CausalLm, Gpt2, LoraConfig, PretrainedModel, pretrained::QuantizablePart};
use crate::{cache::Cache, fields};
use aigc_core::{
    Error, Result,
    weights::{Loaded, WeightReader},
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde_json::{Map, Value};
use std::path::Path;

/// Defines [`AnyCausalLm`] from a table with one line per model family: variant and model type.
macro_rules! causal_lms {
    ($($variant:ident($model:ty)),+ $(,)?) => {
        /// Any supported language model. [`from_pretrained`](PretrainedModel::from_pretrained)
        /// selects the variant by `model_type`.
        #[derive(Module, Debug)]
        #[allow(missing_docs)]
        #[non_exhaustive]
        pub enum AnyCausalLm {
            $($variant($model),)+
        }

        $(impl From<$model> for AnyCausalLm {
            fn from(model: $model) -> Self {
                Self::$variant(model)
            }
        })+

        /// Evaluates `$body` for the model of the variant.
        macro_rules! each {
            ($any:expr, $m:ident => $body:expr) => {
                match $any { $(AnyCausalLm::$variant($m) => $body,)+ }
            };
        }

        impl CausalLm for AnyCausalLm {
            fn vocab_size(&self) -> usize {
                each!(self, model => model.vocab_size())
            }

            fn max_position_embeddings(&self) -> usize {
                each!(self, model => model.max_position_embeddings())
            }

            fn new_cache(&self, batch_size: usize, capacity: usize) -> Box<dyn Cache> {
                each!(self, model => model.new_cache(batch_size, capacity))
            }

            fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
                each!(self, model => model.forward(tokens))
            }

            fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut dyn Cache) -> Tensor<3> {
                each!(self, model => model.forward_cached(tokens, cache))
            }

            fn lm_head(&self, hidden_states: Tensor<3>) -> Tensor<3> {
                each!(self, model => model.lm_head(hidden_states))
            }
        }

        impl PretrainedModel for AnyCausalLm {
            const MODEL_TYPES: &'static [&'static str] = ALL;
            const BLOCK_PREFIX: &'static str = "";

            fn check_config(text: &str) -> Result<()> {
                let model_type = model_type(text)?;
                $(if <$model>::MODEL_TYPES.contains(&model_type.as_str()) {
                    return <$model>::check_config(text);
                })+
                Err(unknown(&model_type))
            }

            fn from_files(
                config: &str,
                files: &WeightReader,
                device: &Device,
            ) -> Result<Loaded<Self>> {
                let model_type = model_type(config)?;
                $(if <$model>::MODEL_TYPES.contains(&model_type.as_str()) {
                    return Ok(<$model>::from_files(config, files, device)?.map(Self::$variant));
                })+
                Err(unknown(&model_type))
            }

            fn config_fields(&self) -> Map<String, Value> {
                each!(self, model => model.config_fields())
            }

            fn save_weights_to(&self, path: &Path) -> Result<()> {
                each!(self, model => model.save_weights_to(path))
            }

            fn parts_mut(&mut self) -> Vec<QuantizablePart<'_>> {
                each!(self, model => model.parts_mut())
            }

            fn is_quantized(&self) -> bool {
                each!(self, model => model.is_quantized())
            }

            fn lora(&self) -> Option<&LoraConfig> {
                each!(self, model => model.lora())
            }

            fn set_lora(&mut self, config: Option<LoraConfig>) {
                each!(self, model => model.set_lora(config))
            }

            fn with_lora(self, config: LoraConfig) -> Result<Self> {
                Ok(match self {
                    $(Self::$variant(model) => Self::$variant(model.with_lora(config)?),)+
                })
            }

            fn save_lora(&self, dir: impl AsRef<Path>) -> Result<()> {
                each!(self, model => model.save_lora(dir))
            }
        }

        /// `model_type` of all families.
        const ALL: &[&str] = &{
            const COUNT: usize = 0 $(+ <$model>::MODEL_TYPES.len())+;
            let (mut all, mut at) = ([""; COUNT], 0);
            $({
                let types = <$model>::MODEL_TYPES;
                let mut i = 0;
                while i < types.len() {
                    all[at] = types[i];
                    (at, i) = (at + 1, i + 1);
                }
            })+
            let _ = at;
            all
        };
    };
}

causal_lms! {
    Gpt2(Gpt2),
}

/// The `model_type` of a configuration; `gpt2` if it is missing, as in nanoGPT's exports.
fn model_type(text: &str) -> Result<String> {
    match fields::parse(text)?.get("model_type") {
        None | Some(Value::Null) => Ok("gpt2".into()),
        Some(Value::String(name)) => Ok(name.clone()),
        Some(other) => Err(Error::config("model_type", other, "a string")),
    }
}

fn unknown(model_type: &str) -> Error {
    Error::config(
        "model_type",
        model_type,
        format!("one of {}", ALL.join(", ")),
    )
}
