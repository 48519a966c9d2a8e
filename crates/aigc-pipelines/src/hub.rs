//! Files of pipelines on the Hugging Face hub: the index, and of its parts those that are opened.

use crate::model_index::{INDEX, ModelIndex};
use aigc_core::{Error, Result, data::download::ProgressFn, hub::Hub, hub_model::ModelFiles, json};
use aigc_diffusion::{
    MotionAdapterConfig, StableAudioDitConfig, StableAudioProjectionConfig, UNet1dConfig,
    UNet2dConditionConfig, UNetMotionConfig, WanTransformer3dConfig,
};
use aigc_encoders::{clip::ClipTextConfig, t5::T5Config};
use aigc_vae::{AutoencoderKlConfig, AutoencoderKlWanConfig, codec::AutoencoderOobleckConfig};
use std::path::{Path, PathBuf};

/// `from_hub` and `from_hub_with` of a pipeline with options of opening; the text says what these
/// options are.
macro_rules! hub_methods_with {
    ($options:ty, $text:literal) => {
        /// Opens a pipeline of the Hugging Face hub by its name (`organisation/name`) and revision
        /// (a branch, a tag or a commit); files that are not in the hub's cache are downloaded.
        /// Also returns the directory of the files.
        ///
        /// # Errors
        /// As [`snapshot`](Self::snapshot) and [`from_pretrained`](Self::from_pretrained);
        /// [`Error::Config`](aigc_core::Error::Config) without a home directory for the cache.
        pub fn from_hub(
            repo: &str,
            revision: &str,
            device: &burn::tensor::Device,
            progress: &mut aigc_core::data::download::ProgressFn<'_>,
        ) -> aigc_core::Result<(aigc_core::weights::Loaded<Self>, std::path::PathBuf)> {
            let options = <$options>::default();
            Self::from_hub_with(repo, revision, &options, device, progress)
        }

        #[doc = concat!("[`from_hub`](Self::from_hub) ", $text)]
        ///
        /// # Errors
        /// As [`from_hub`](Self::from_hub).
        pub fn from_hub_with(
            repo: &str,
            revision: &str,
            options: &$options,
            device: &burn::tensor::Device,
            progress: &mut aigc_core::data::download::ProgressFn<'_>,
        ) -> aigc_core::Result<(aigc_core::weights::Loaded<Self>, std::path::PathBuf)> {
            let hub = aigc_core::hub::Hub::from_env()?;
            let dir = Self::snapshot(&hub, repo, revision, options, progress)?;
            Ok((Self::from_pretrained_with(&dir, options, device)?, dir))
        }
    };
}
pub(crate) use hub_methods_with;

/// Files of tokenizers of transformers.
pub(crate) const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
];

/// Which repository at which commit.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) repo: &'a str,
    pub(crate) commit: &'a str,
}

impl Source<'_> {
    /// Downloads those of the files of a directory that the repository has.
    ///
    /// # Errors
    /// As [`Hub::snapshot_download`].
    pub(crate) fn files(
        self,
        dir: &str,
        names: &[&str],
        progress: &mut ProgressFn<'_>,
    ) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| format!("{dir}/{name}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = self
            .hub
            .snapshot_download(self.repo, self.commit, &names, progress);
        found.map(drop)
    }

    /// Downloads the `files` of a directory.
    ///
    /// # Errors
    /// As [`ModelFiles::snapshot`].
    pub(crate) fn model(
        self,
        dir: &str,
        files: ModelFiles<'_>,
        check: impl FnOnce(&Path) -> Result<()>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<()> {
        let files = ModelFiles {
            directories: &[dir],
            ..files
        };
        let got = files.snapshot(self.hub, self.repo, self.commit, check, progress);
        got.map(drop)
    }
}

/// What is downloaded of a pipeline with a [`ModelIndex`].
pub(crate) struct PipelineFiles<'a> {
    /// Classes of the pipeline.
    pub(crate) classes: &'a [&'a str],
    /// Names of parts.
    pub(crate) parts: &'a [&'a str],
    /// Whether a pipeline with this index opens the part that it has by this name.
    pub(crate) is_opened: &'a dyn Fn(&ModelIndex, &str) -> bool,
}

impl PipelineFiles<'_> {
    /// Downloads the files of a pipeline, and returns their directory. All configurations are
    /// checked before weights are downloaded.
    ///
    /// # Errors
    /// As [`ModelFiles::snapshot`]; [`Error::Data`] if the index or a configuration is that of
    /// another pipeline.
    pub(crate) fn snapshot(
        &self,
        hub: &Hub,
        repo: &str,
        revision: &str,
        variant: Option<&str>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let dir = hub.snapshot_download(repo, revision, &[INDEX], progress)?;
        // The branch may move to another commit during the download.
        let commit = dir.file_name().unwrap_or_default().to_string_lossy();
        let source = Source {
            hub,
            repo,
            commit: &commit,
        };
        let index = ModelIndex::open(&dir, self.classes)?;
        let mut models = vec![];
        for &name in self.parts {
            let Some((_, class)) = index.part(name) else {
                continue;
            };
            match name {
                _ if !(self.is_opened)(&index, name) => (),
                "scheduler" => source.files(name, &["scheduler_config.json"], progress)?,
                "tokenizer" => source.files(name, &TOKENIZER_FILES, progress)?,
                _ => {
                    let files = files_of(name);
                    let config = ModelFiles {
                        stems: &[],
                        ..files
                    };
                    let check =
                        |path: &Path| json::read_file(path, |text| check_config(class, text));
                    source.model(name, config, check, progress)?;
                    models.push((name, ModelFiles { variant, ..files }));
                }
            }
        }
        index.scheduler().map(drop)?;
        for (name, files) in models {
            source.model(name, files, |_| Ok(()), progress)?;
        }
        Ok(dir)
    }
}

/// The files of a part by its name.
pub(crate) fn files_of(name: &str) -> ModelFiles<'static> {
    let networks = ["transformer", "controlnet"];
    match name {
        "motion_adapter" | "projection_model" | "unet" | "vae" => ModelFiles::DIFFUSERS,
        _ if networks.iter().any(|network| name.starts_with(network)) => ModelFiles::DIFFUSERS,
        _ => ModelFiles::TRANSFORMERS,
    }
}

/// Checks the text of the configuration of a part of this class.
fn check_config(class: &str, text: &str) -> Result<()> {
    match class {
        "AutoencoderKL" => AutoencoderKlConfig::from_json(text).map(drop),
        "AutoencoderKLWan" => AutoencoderKlWanConfig::from_json(text).map(drop),
        "AutoencoderOobleck" => AutoencoderOobleckConfig::from_json(text).map(drop),
        "CLIPTextModel" => ClipTextConfig::from_json(text).map(drop),
        "MotionAdapter" => MotionAdapterConfig::from_json(text).map(drop),
        "StableAudioDiTModel" => StableAudioDitConfig::from_json(text).map(drop),
        "StableAudioProjectionModel" => StableAudioProjectionConfig::from_json(text).map(drop),
        "T5EncoderModel" | "UMT5EncoderModel" => T5Config::from_json(text).map(drop),
        "UNet1DModel" => UNet1dConfig::from_json(text).map(drop),
        "UNet2DConditionModel" => UNet2dConditionConfig::from_json(text).map(drop),
        "UNetMotionModel" => UNetMotionConfig::from_json(text).map(drop),
        "WanTransformer3DModel" => WanTransformer3dConfig::from_json(text).map(drop),
        other => {
            let expected = "the class of a part that pipelines of sound and video have";
            Err(Error::config("_class_name", other, expected))
        }
    }
}
