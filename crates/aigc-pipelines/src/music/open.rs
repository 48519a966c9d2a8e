//! Opening directories.

use super::{MusicRequest, MusicgenPipeline};
use aigc_core::{
    Error, Result, json,
    weights::{Loaded, OpenOptions, WeightReader},
};
use aigc_encoders::{t5::T5EncoderModel, tokenizer::T5Tokenizer};
use aigc_text::music::{MultiStreamLm, MusicgenDecoder};
use aigc_vae::codec::EncodecModel;
use burn::tensor::Device;
use serde_json::{Map, Value};
use std::path::Path;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const MODEL_TYPE: &str = "musicgen";
/// Stems of the names of weight files.
const STEMS: [&str; 2] = ["model", "pytorch_model"];

/// The text of a part's configuration, which has to be one of a kind of models.
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

/// Adds the name of a part to its report.
fn merge<T>(report: &mut Loaded<()>, name: &str, mut part: Loaded<T>) -> T {
    for list in [&mut part.unused_fields, &mut part.unused_tensors] {
        list.iter_mut()
            .for_each(|text| *text = format!("{name}.{text}"));
    }
    part.notes.clear();
    report.merge(part)
}

impl MusicgenPipeline {
    /// Opens a directory of MusicGen, as transformers writes it: `config.json`,
    /// `generation_config.json`, `model.safetensors` (or shards, or a pickle) with all parts, and
    /// the files of T5's tokenizer. What is returned says what was not used.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field, [`Error::Config`] a
    /// field of a part, [`Error::Weights`] the tensors that do not fit.
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        Self::from_pretrained_with(dir, &OpenOptions::default(), device)
    }

    /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights, or with parameters
    /// in half precision.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(
        dir: impl AsRef<Path>,
        options: &OpenOptions,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let dir = dir.as_ref();
        let [text, decoder, codec] = json::read_file(&dir.join(CONFIG), |text| {
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
        })?;
        let variant = options.variant.as_deref();
        let files = WeightReader::from_dir_with_variant(dir, &STEMS, variant)?;
        let dtype = options.dtype;
        let mut report = Loaded::new(());
        report.notes.extend(files.notes().iter().cloned());

        let own = files.subset("text_encoder.");
        let text_encoder = T5EncoderModel::from_weights(&text, &own, dtype, device)?;
        let text_encoder = merge(&mut report, "text_encoder", text_encoder);
        let own = files.subset("audio_encoder.");
        let codec = EncodecModel::from_weights(&codec, &own, dtype, device)?;
        let codec = merge(&mut report, "audio_encoder", codec);
        let codec = codec.fold_weight_norm();
        let decoder = MusicgenDecoder::from_weights(&decoder, &files, dtype, device)?;
        let decoder = merge(&mut report, "decoder", decoder);
        let defaults = defaults(&dir.join(GENERATION), decoder.pad_token_id())?;

        let tokenizer = T5Tokenizer::from_pretrained(dir)?;
        let pipeline = Self::new(tokenizer, text_encoder, decoder, codec, device)?;
        Ok(report.map(|()| pipeline.with_defaults(&defaults)))
    }
}

/// The options of a directory, if it has any. Lengths are those of requests.
fn defaults(path: &Path, pad: u32) -> Result<MusicRequest> {
    if !path.is_file() {
        return Ok(MusicRequest::default());
    }
    json::read_file(path, |text| {
        let mut fields = json::parse_object(text)?;
        fields.retain(|_, value| !value.is_null());
        // The model begins with the token of empty places.
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
