//! Pipelines of the Hugging Face hub: of a repository, the files that the index's parts need.

use super::{
    families::PipelineFamily,
    index::{ENCODER_STEMS, INDEX, Index, NETWORK_STEM},
    open::PipelineOpenOptions,
    pipeline::TextToImagePipeline,
};
use aigc_core::{
    Error, Result, data::download::ProgressFn, hub::Hub, hub_model::ModelFiles, weights::Loaded,
};
use burn::tensor::Device;
use std::path::PathBuf;

/// Files of tokenizers of transformers.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
];

/// How the reason of an [`Error::Download`] begins if the hub answered that there is no such file.
const LACKS: &str = "the repository has no";

impl TextToImagePipeline {
    /// Opens a pipeline of the Hugging Face hub by its name (`organisation/name`) and revision (a
    /// branch, a tag or a commit); files that are not in the hub's cache are downloaded. Also
    /// returns the directory of the files.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot) and [`from_pretrained`](Self::from_pretrained);
    /// [`Error::Config`] without a home directory for the cache.
    pub fn from_hub(
        repo: &str,
        revision: &str,
        device: &Device,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(Loaded<Self>, PathBuf)> {
        let options = PipelineOpenOptions::default();
        Self::from_hub_with(repo, revision, &options, device, progress)
    }

    /// [`from_hub`](Self::from_hub) for a variant of the weights, with weights in half precision,
    /// with parts that are opened when they are needed, or without some.
    ///
    /// # Errors
    /// As [`from_hub`](Self::from_hub).
    pub fn from_hub_with(
        repo: &str,
        revision: &str,
        options: &PipelineOpenOptions,
        device: &Device,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(Loaded<Self>, PathBuf)> {
        let dir = Self::snapshot(&Hub::from_env()?, repo, revision, options, progress)?;
        let loaded = Self::from_pretrained_with(&dir, options, device)?;
        Ok((loaded, dir))
    }

    /// Downloads the files of the hub that
    /// [`from_pretrained_with`](Self::from_pretrained_with) opens with these options, and returns
    /// their directory. Parts that are not opened are not downloaded.
    ///
    /// # Errors
    /// [`Error::Download`] for files that cannot be downloaded or that the repository does not
    /// have; [`Error::Data`] if the index is that of another pipeline, before weights are
    /// downloaded; [`Error::InvalidArgument`] for an invalid name; [`Error::Io`] if the cache
    /// cannot be written.
    pub fn snapshot(
        hub: &Hub,
        repo: &str,
        revision: &str,
        options: &PipelineOpenOptions,
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let dir = hub.snapshot_download(repo, revision, &[INDEX], progress)?;
        // The branch may move to another commit during the download.
        let commit = dir.file_name().unwrap_or_default().to_string_lossy();
        let index = Index::open(&dir, &options.without)?;
        let weights = |dir: &str, stems: &[&str], progress: &mut ProgressFn<'_>| {
            let get = |variant, progress: &mut ProgressFn<'_>| {
                let files = ModelFiles {
                    directories: &[dir],
                    config_files: &["config.json"],
                    stems,
                    variant,
                };
                files.snapshot(hub, repo, &commit, |_| Ok(()), progress)
            };
            let variant = options.variant.as_deref();
            let is_network = ["unet", "transformer"].contains(&dir);
            match get(variant, progress) {
                // A part without the variant is opened as it is.
                Err(Error::Download { reason, .. })
                    if variant.is_some() && !is_network && reason.starts_with(LACKS) =>
                {
                    get(None, progress)
                }
                got => got,
            }
        };
        for (name, class) in index.opened() {
            let files: &[&str] = match name {
                "scheduler" => &["scheduler_config.json"],
                "feature_extractor" => &["preprocessor_config.json"],
                _ if PipelineFamily::TOKENIZERS.contains(&name) => &TOKENIZER_FILES,
                "unet" | "transformer" | "vae" | "controlnet" => {
                    weights(name, &[NETWORK_STEM], progress)?;
                    &[]
                }
                _ => {
                    weights(name, ENCODER_STEMS, progress)?;
                    &[]
                }
            };
            if !files.is_empty() {
                let wanted: Vec<String> =
                    files.iter().map(|file| format!("{name}/{file}")).collect();
                let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                hub.snapshot_download(repo, &commit, &wanted, progress)?;
            }
            if class == "MultiControlNetModel" {
                // Directories `controlnet_1`, `controlnet_2`, …
                for dir in (1..).map(|which| format!("{name}_{which}")) {
                    let config = format!("{dir}/config.json");
                    if hub.download(repo, &commit, &config, progress)?.is_none() {
                        break;
                    }
                    weights(&dir, &[NETWORK_STEM], progress)?;
                }
            }
        }
        Ok(dir)
    }
}
