//! Fields of transformers' configurations of CLIP.

use aigc_core::{Error, Result, json, weights::Loaded};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// `model_type` of a pair of encoders.
pub(super) const PAIR_TYPE: &str = "clip";
/// Width of embeddings where files do not say it.
pub(super) const PROJECTION_DIM: usize = 512;

/// Fields that do not affect the outputs: metadata of the file, and settings of text generation
/// that older versions of transformers write to every configuration.
const INERT: &[&str] = &[
    "_commit_hash",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// The fields of a part of a pair. transformers lets `<part>_dict`, a field of older files, replace
/// the part.
pub(super) fn part<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
) -> Option<&'a Map<String, Value>> {
    let older = fields.get(&format!("{name}_dict"));
    older
        .and_then(Value::as_object)
        .or_else(|| fields.get(name).and_then(Value::as_object))
}

/// A configuration of these fields; null means the default.
pub(super) fn read<C: Serialize + DeserializeOwned + Default>(
    fields: &Map<String, Value>,
) -> Result<Loaded<C>> {
    let given = fields.iter().filter(|(_, value)| !value.is_null());
    let given = given.map(|(name, value)| (name.clone(), value.clone()));
    let mut loaded: Loaded<C> = json::from_map_with_defaults(&given.collect())?;
    loaded
        .unused_fields
        .retain(|field| !INERT.contains(&field.as_str()));
    Ok(loaded)
}

/// The fields of one encoder: those of the file, or those of a part of a pair. The second value is
/// whether `architectures` says that the output is projected.
pub(super) fn encoder_fields(
    text: &str,
    model_type: &str,
    part_name: &str,
) -> Result<(Map<String, Value>, bool)> {
    let fields = json::parse_object(text)?;
    let kind = fields.get("model_type").and_then(Value::as_str);
    if let Some(other) = kind.filter(|kind| ![model_type, PAIR_TYPE].contains(kind)) {
        let expected = format!("{model_type} or {PAIR_TYPE}");
        return Err(Error::config("model_type", other, expected));
    }
    let names = fields.get("architectures").and_then(Value::as_array);
    let is_projected = |name: &Value| {
        name.as_str()
            .is_some_and(|name| name.ends_with("WithProjection") || name == "CLIPModel")
    };
    let with_projection = names.is_some_and(|names| names.iter().any(is_projected));
    let Some(part) = part(&fields, part_name) else {
        return Ok((fields, with_projection));
    };
    let mut part = part.clone();
    // Both projections of a pair have the width of the pair.
    let width = fields
        .get("projection_dim")
        .filter(|width| !width.is_null());
    let width = width.cloned().unwrap_or(PROJECTION_DIM.into());
    part.insert("projection_dim".into(), width);
    Ok((part, with_projection))
}

/// The fields of a configuration, with those by which transformers knows the model.
pub(super) fn with_type<C: Serialize>(config: &C, model_type: &str) -> Map<String, Value> {
    let mut fields = json::to_map(config);
    fields.insert("model_type".into(), model_type.into());
    fields
}

pub(super) fn to_text(mut fields: Map<String, Value>, architecture: &str) -> String {
    fields.insert("architectures".into(), vec![architecture].into());
    serde_json::to_string_pretty(&fields).expect("plain values")
}
