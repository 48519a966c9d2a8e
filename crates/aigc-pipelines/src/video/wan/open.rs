//! Opening directories.

use super::pipeline::WanPipeline;
use crate::video::directory::{Index, merge};
use aigc_core::{
    Result,
    weights::{Loaded, OpenOptions},
};
use aigc_diffusion::WanTransformer3dModel;
use aigc_encoders::{
    t5::{T5EncoderModel, T5TextEncoder},
    tokenizer::T5Tokenizer,
};
use aigc_vae::AutoencoderKlWan;
use burn::tensor::Device;
use serde_json::Value;
use std::path::Path;

/// The class of the pipeline in diffusers.
const CLASS: &str = "WanPipeline";
/// The class of the networks.
const NETWORK: &str = "WanTransformer3DModel";
/// Classes of tokenizers.
const TOKENIZERS: [&str; 3] = ["T5Tokenizer", "T5TokenizerFast", "AutoTokenizer"];
/// Tokens that prompts are padded or cut to.
const MAX_SEQUENCE_LENGTH: usize = 512;

impl WanPipeline {
    /// Opens a pipeline's directory, as diffusers writes it: `model_index.json` and a directory for
    /// each part. What is returned says what was not used.
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) for a missing file;
    /// [`Error::Data`](aigc_core::Error::Data) names file and field,
    /// [`Error::Weights`](aigc_core::Error::Weights) the tensors that do not fit.
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
        let index = Index::open(dir, &[CLASS])?;
        let mut report = Loaded::new(());

        let tokenizer = T5Tokenizer::from_pretrained(index.needed("tokenizer", &TOKENIZERS)?.0)?;
        let (path, _) = index.needed("text_encoder", &["UMT5EncoderModel"])?;
        let encoder = T5EncoderModel::from_pretrained_with(path, options, device)?;
        let encoder = merge(&mut report, "text_encoder", encoder);
        let encoder =
            T5TextEncoder::new(tokenizer, encoder)?.with_max_length(MAX_SEQUENCE_LENGTH)?;

        let mut network = |name: &str| -> Result<WanTransformer3dModel> {
            let (path, _) = index.needed(name, &[NETWORK])?;
            let network = WanTransformer3dModel::from_pretrained_with(path, options, device)?;
            Ok(merge(&mut report, name, network))
        };
        let first = network("transformer")?;
        let boundary = match index.fields.get("boundary_ratio") {
            None | Some(Value::Null) => None,
            Some(ratio) => match ratio.as_f64() {
                Some(ratio) => Some((network("transformer_2")?, ratio)),
                None => {
                    let value = ratio.to_string();
                    return Err(index.wrong("boundary_ratio", &value, "a number or null"));
                }
            },
        };
        if let (None, Some((_, class))) = (&boundary, index.part("transformer_2")) {
            let note =
                format!("transformer_2 ({class}) was not opened: there is no boundary_ratio");
            report.notes.push(note);
        }

        let (path, _) = index.needed("vae", &["AutoencoderKLWan"])?;
        let vae = AutoencoderKlWan::from_pretrained_with(path, options, device)?;
        let vae = merge(&mut report, "vae", vae);
        let scheduler = merge(&mut report, "scheduler", index.scheduler()?);

        let name = dir.file_name().unwrap_or(dir.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let pipeline = Self::new(name, encoder, first, vae, scheduler, device)?;
        let pipeline = match boundary {
            Some((second, ratio)) => pipeline.with_transformer_2(second, ratio)?,
            None => pipeline,
        };
        Ok(report.map(|()| pipeline))
    }
}
