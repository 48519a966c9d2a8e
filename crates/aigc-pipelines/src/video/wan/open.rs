//! Opening directories.

use super::pipeline::WanPipeline;
use crate::{
    methods::pipeline_methods,
    model_index::{ModelIndex, merge},
};
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
use std::path::Path;

/// The class of the pipeline in diffusers.
const CLASS: &str = "WanPipeline";
/// The class of the networks.
const NETWORK: &str = "WanTransformer3DModel";
/// The setting with which a pipeline has a second network.
const BOUNDARY: &str = "boundary_ratio";
/// Names of parts and settings that are used. `expand_timesteps` gives every token the same time
/// unless a video begins with an image, so it has no effect here.
const USED: [&str; 8] = [
    BOUNDARY,
    "expand_timesteps",
    "scheduler",
    "text_encoder",
    "tokenizer",
    "transformer",
    "transformer_2",
    "vae",
];
/// Classes of tokenizers.
const TOKENIZERS: [&str; 3] = ["T5Tokenizer", "T5TokenizerFast", "AutoTokenizer"];
/// Tokens that prompts are padded or cut to.
const MAX_SEQUENCE_LENGTH: usize = 512;

impl WanPipeline {
    pipeline_methods!(
        classes: &[CLASS],
        parts: &USED,
        is_opened: |index, part| {
            part != "transformer_2" || index.setting(BOUNDARY).is_some()
        }
    );

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let index = ModelIndex::open(dir, &[CLASS])?;
        let mut report = index.unused(&USED);

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
        let boundary = match index.setting(BOUNDARY) {
            None => None,
            Some(ratio) => match ratio.as_f64() {
                Some(ratio) => Some((network("transformer_2")?, ratio)),
                None => {
                    let value = ratio.to_string();
                    return Err(index.wrong(BOUNDARY, &value, "a number or null"));
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
