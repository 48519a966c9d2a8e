//! Pipelines of the Hugging Face hub: of a repository, the files that the index's parts need.

use super::{
    families::PipelineFamily,
    index::{INDEX, Index},
    open::PipelineOpenOptions,
    pipeline::TextToImagePipeline,
};
use crate::hub::{Source, TOKENIZER_FILES, files_of, hub_methods_with};
use aigc_core::{Error, Result, data::download::ProgressFn, hub::Hub, hub_model::ModelFiles};
use std::path::PathBuf;

/// How the reason of an [`Error::Download`] begins if the hub answered that there is no such file.
const LACKS: &str = "the repository has no";

impl TextToImagePipeline {
    hub_methods_with!(
        PipelineOpenOptions,
        "for a variant of the weights, with weights in half precision, with parts that are opened \
         when they are needed, or without some."
    );

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
        let source = Source {
            hub,
            repo,
            commit: &commit,
        };
        let weights = |dir: &str, progress: &mut ProgressFn<'_>| {
            let get = |variant: Option<&str>, progress: &mut ProgressFn<'_>| {
                let files = ModelFiles {
                    variant,
                    ..files_of(dir)
                };
                source.model(dir, files, |_| Ok(()), progress)
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
            match name {
                "scheduler" => source.files(name, &["scheduler_config.json"], progress)?,
                "feature_extractor" => {
                    source.files(name, &["preprocessor_config.json"], progress)?
                }
                _ if PipelineFamily::TOKENIZERS.contains(&name) => {
                    source.files(name, &TOKENIZER_FILES, progress)?
                }
                _ => weights(name, progress)?,
            }
            if class == "MultiControlNetModel" {
                // Directories `controlnet_1`, `controlnet_2`, …
                for dir in (1..).map(|which| format!("{name}_{which}")) {
                    let config = format!("{dir}/config.json");
                    if hub.download(repo, &commit, &config, progress)?.is_none() {
                        break;
                    }
                    weights(&dir, progress)?;
                }
            }
        }
        Ok(dir)
    }
}
