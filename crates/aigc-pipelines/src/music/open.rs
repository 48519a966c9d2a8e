//! Opening directories.

use super::{MusicRequest, MusicgenPipeline};
#[cfg(feature = "download")]
use crate::hub::TOKENIZER_FILES;
use crate::{methods::pipeline_methods, model_index::merge};
use aigc_core::{
    Error, Result, json,
    weights::{Loaded, OpenOptions, WeightReader},
};
#[cfg(feature = "download")]
use aigc_core::{data::download::ProgressFn, hub::Hub, hub_model::ModelFiles};
#[cfg(feature = "download")]
use aigc_encoders::t5::T5Config;
use aigc_encoders::{t5::T5EncoderModel, tokenizer::T5Tokenizer};
#[cfg(feature = "download")]
use aigc_text::music::MusicgenDecoderConfig;
use aigc_text::music::{MultiStreamLm, MusicgenDecoder};
#[cfg(feature = "download")]
use aigc_vae::codec::EncodecConfig;
use aigc_vae::codec::EncodecModel;
use burn::tensor::Device;
use serde_json::{Map, Value};
use std::path::Path;
#[cfg(feature = "download")]
use std::path::PathBuf;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const MODEL_TYPE: &str = "musicgen";
/// Stems of the names of weight files.
const STEMS: [&str; 2] = ["model", "pytorch_model"];

/// The text of a part's configuration, whose `model_type` has to be `kind`.
fn part(fields: &Map<String, Value>, name: &str, kind: &str) -> Result<String> {
    match fields.get(name) {
        Some(part @ Value::Object(fields)) => match fields.get("model_type") {
            Some(other) if other != kind => {
                Err(Error::config(format!("{name}.model_type"), other, kind))
            }
            _ => Ok(part.to_string()),
        },
        Some(other) => Err(Error::config(name, other, "an object of fields")),
        None => Err(Error::config(
            name,
            "missing",
            "the configuration of this part",
        )),
    }
}

/// The texts of the configurations of text encoder, decoder and codec, of that of a pipeline. The
/// decoder reads the whole.
fn parts(text: &str) -> Result<[String; 3]> {
    let fields = json::parse_object(text)?;
    match fields.get("model_type") {
        Some(kind) if kind == MODEL_TYPE => (),
        other => {
            let found = other.map_or_else(|| "missing".into(), Value::to_string);
            return Err(Error::config("model_type", found, MODEL_TYPE));
        }
    }
    part(&fields, "decoder", "musicgen_decoder")?;
    let text_encoder = part(&fields, "text_encoder", "t5")?;
    let codec = part(&fields, "audio_encoder", "encodec")?;
    Ok([text_encoder, text.to_owned(), codec])
}

impl MusicgenPipeline {
    pipeline_methods!(
        "Opens a directory of MusicGen, as transformers writes it: `config.json`, \
         `generation_config.json`, `model.safetensors` (or shards, or a pickle) with all parts, \
         and the files of T5's tokenizer."
    );

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let [text, decoder, codec] = json::read_file(&dir.join(CONFIG), parts)?;
        let variant = options.variant.as_deref();
        let files = WeightReader::from_dir_with_variant(dir, &STEMS, variant)?;
        let dtype = options.dtype;
        let mut report = Loaded::new(());
        report.notes.extend(files.notes().iter().cloned());

        let own = files.subset("text_encoder.");
        let mut text_encoder = T5EncoderModel::from_weights(&text, &own, dtype, device)?;
        // Notes about the files are in the report already.
        text_encoder.notes.clear();
        let text_encoder = merge(&mut report, "text_encoder", text_encoder);
        let own = files.subset("audio_encoder.");
        let mut codec = EncodecModel::from_weights(&codec, &own, dtype, device)?;
        codec.notes.clear();
        let codec = merge(&mut report, "audio_encoder", codec);
        let codec = codec.fold_weight_norm();
        let mut decoder = MusicgenDecoder::from_weights(&decoder, &files, dtype, device)?;
        decoder.notes.clear();
        let decoder = merge(&mut report, "decoder", decoder);
        let defaults = defaults(&dir.join(GENERATION), decoder.pad_token_id())?;

        let tokenizer = T5Tokenizer::from_pretrained(dir)?;
        let pipeline = Self::new(tokenizer, text_encoder, decoder, codec, device)?;
        Ok(report.map(|()| pipeline.with_defaults(&defaults)))
    }

    /// Downloads the pipeline's files of the hub, and returns their directory.
    #[cfg(feature = "download")]
    fn download(
        hub: &Hub,
        repo: &str,
        revision: &str,
        variant: Option<&str>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let names = [&[CONFIG, GENERATION][..], &TOKENIZER_FILES].concat();
        let files = ModelFiles {
            config_files: &names,
            variant,
            ..ModelFiles::TRANSFORMERS
        };
        let check = |text: &str| {
            let [text, decoder, codec] = parts(text)?;
            T5Config::from_json(&text)?;
            MusicgenDecoderConfig::from_json(&decoder)?;
            EncodecConfig::from_json(&codec).map(drop)
        };
        let check = |path: &Path| json::read_file(path, check);
        files.snapshot(hub, repo, revision, check, progress)
    }
}

/// The values of `generation_config.json`, if there is one. Lengths in the file are ignored, since
/// requests have them.
fn defaults(path: &Path, pad: u32) -> Result<MusicRequest> {
    if !path.is_file() {
        return Ok(MusicRequest::default());
    }
    json::read_file(path, |text| {
        let mut fields = json::parse_object(text)?;
        fields.retain(|_, value| !value.is_null());
        // Every sequence begins with the token of empty places.
        let start = ["decoder_start_token_id", "bos_token_id"];
        let start = start.iter().find_map(|field| {
            let value = fields.get(*field)?;
            Some((*field, value))
        });
        if let Some((field, value)) = start.filter(|(_, value)| value.as_u64() != Some(pad.into()))
        {
            let expected = format!("{pad}, the pad_token_id of the decoder");
            return Err(Error::config(field, value, expected));
        }
        let known = [
            "do_sample",
            "top_k",
            "top_p",
            "temperature",
            "guidance_scale",
        ];
        fields.retain(|field, _| known.contains(&field.as_str()));
        serde_json::from_value(Value::Object(fields))
            .map_err(|error| Error::Json(error.to_string()))
    })
}
