//! The files of a pretrained model on the Hugging Face hub: configuration, tokenizer, weights.

use crate::{
    Error, Result,
    check::ensure_argument,
    data::download::ProgressFn,
    hub::Hub,
    weights::{shard_files, weight_files},
};
use std::path::{Path, PathBuf};

/// Names of the files that models of a family have on the hub.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelFiles<'a> {
    /// Directories of a repository that may have the files, preferred ones first; `""` is its root.
    /// The first one that has the configuration is used. Without any, the files are at the root.
    pub directories: &'a [&'a str],
    /// All files except the weights, the configuration first. Only the configuration is required.
    pub config_files: &'a [&'a str],
    /// Stems of the names of weight files, such as `model`, preferred ones first. The first weights
    /// that the repository has are downloaded: safetensors, else `.bin`; a whole file, else an
    /// index and all shards that it names. Without any stem, no weights are downloaded.
    pub stems: &'a [&'a str],
    /// Variant of the weights, such as `fp16`. `None` downloads the weights without a variant.
    pub variant: Option<&'a str>,
}

impl ModelFiles<'static> {
    /// A model of transformers, at the root.
    pub const TRANSFORMERS: Self = Self {
        directories: &[],
        config_files: &["config.json"],
        stems: &["model", "pytorch_model"],
        variant: None,
    };
    /// A model of diffusers, at the root.
    pub const DIFFUSERS: Self = Self {
        stems: &["diffusion_pytorch_model"],
        ..Self::TRANSFORMERS
    };
}

impl ModelFiles<'_> {
    /// Downloads the files of `repo` at `revision` (a branch, a tag or a commit) that are not in
    /// the cache, and returns their directory. All files are of one commit. `check` validates the
    /// configuration before the other files are downloaded.
    ///
    /// # Errors
    /// [`Error::Download`] for files that cannot be downloaded or that the repository does not
    /// have; the error of `check`; [`Error::InvalidArgument`] for an invalid name;
    /// [`Error::Io`] if the cache cannot be written.
    pub fn snapshot(
        &self,
        hub: &Hub,
        repo: &str,
        revision: &str,
        check: impl FnOnce(&Path) -> Result<()>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        if let Some(variant) = self.variant {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            ensure_argument(
                !variant.is_empty() && variant.chars().all(is_word),
                "variant",
                format!("{variant:?}"),
                "a name of letters, digits and `_`",
            )?;
        }
        let (directory, config) = self.find_config(hub, repo, revision, progress)?;
        check(&config)?;
        // The branch may move to another commit during the download.
        let depth = 1 + Path::new(directory).components().count();
        let commit = config.ancestors().nth(depth).and_then(Path::file_name);
        let commit = commit.unwrap_or_default().to_string_lossy();
        let dir = config.parent().unwrap_or(&config).to_path_buf();

        let wanted: Vec<String> = self
            .config_files
            .iter()
            .map(|file| join(directory, file))
            .collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        hub.snapshot_download(repo, &commit, &wanted, progress)?;

        let weights: Vec<String> = weight_files(self.stems, self.variant)
            .iter()
            .map(|file| join(directory, file))
            .collect();
        if weights.is_empty() {
            return Ok(dir);
        }
        // If the cache has weights, no other weights are downloaded.
        for file in &weights {
            if hub.try_load_from_cache(repo, &commit, file)?.is_some() {
                shards(hub, repo, &commit, file, progress)?;
                return Ok(dir);
            }
        }
        for file in &weights {
            if hub.download(repo, &commit, file, progress)?.is_some() {
                shards(hub, repo, &commit, file, progress)?;
                return Ok(dir);
            }
        }
        let hint = match self.variant {
            None => "; weights of a variant, such as fp16, are opened by `from_hub_with_variant`",
            Some(_) => "",
        };
        Err(lacks(hub, repo, &format!("{}{hint}", weights.join(", "))))
    }

    /// The first directory that has the configuration, and the configuration. If the hub cannot be
    /// reached, the cache may have that of a directory further down.
    fn find_config(
        &self,
        hub: &Hub,
        repo: &str,
        revision: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(&str, PathBuf)> {
        let config = self.config_files.first().copied().unwrap_or_default();
        let directories: &[&str] = match self.directories {
            [] => &[""],
            directories => directories,
        };
        let (mut failed, mut names) = (None, vec![]);
        for directory in directories {
            let name = join(directory, config);
            let found = match &failed {
                None => hub.download(repo, revision, &name, progress),
                Some(_) => hub.try_load_from_cache(repo, revision, &name),
            };
            match found {
                Ok(Some(path)) => return Ok((*directory, path)),
                Ok(None) => names.push(name),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| lacks(hub, repo, &names.join(", "))))
    }
}

/// The name in the repository of a file in a directory of it.
fn join(directory: &str, file: &str) -> String {
    match directory {
        "" => file.into(),
        directory => format!("{directory}/{file}"),
    }
}

/// If `file` is an index, downloads the files that it names.
fn shards(
    hub: &Hub,
    repo: &str,
    commit: &str,
    file: &str,
    progress: &mut ProgressFn<'_>,
) -> Result<()> {
    let Some(index) = hub
        .try_load_from_cache(repo, commit, file)?
        .filter(|_| file.ends_with(".json"))
    else {
        return Ok(());
    };
    // The names in an index are those of files beside it.
    let dir = file.rsplit_once('/').map(|(dir, _)| format!("{dir}/"));
    let dir = dir.unwrap_or_default();
    for shard in shard_files(&index)? {
        let name = shard.file_name().unwrap_or_default().to_string_lossy();
        let shard = format!("{dir}{name}");
        hub.download(repo, commit, &shard, progress)?
            .ok_or_else(|| lacks(hub, repo, &shard))?;
    }
    Ok(())
}

fn lacks(hub: &Hub, repo: &str, what: &str) -> Error {
    Error::Download {
        url: format!("{}/{repo}", hub.endpoint),
        reason: format!("the repository has no {what}"),
    }
}

/// Defines the methods of a model that open it by its name on the Hugging Face hub: `from_hub`,
/// `snapshot`, and both for a variant of the weights. The arguments are `pub`, or nothing in a
/// trait, and a function that downloads the files and returns their directory:
/// `fn(&Hub, repo: &str, revision: &str, variant: Option<&str>, &mut ProgressFn<'_>) ->
/// Result<PathBuf>`. The model has `from_pretrained` and `from_pretrained_with_variant`, which open
/// that directory.
///
/// `config: C, files: F` in place of the function downloads `F`, a constant
/// [`ModelFiles`](crate::hub_model::ModelFiles), and checks the configuration with
/// `C::from_json(&str) -> Result<_>`.
#[macro_export]
macro_rules! hub_methods {
    ($vis:vis config: $config:ty, files: $files:expr) => {
        $crate::hub_methods!($vis Self::download);

        /// Downloads the model's files of the hub, and returns their directory.
        fn download(
            hub: &$crate::hub::Hub,
            repo: &str,
            revision: &str,
            variant: ::std::option::Option<&str>,
            progress: &mut $crate::data::download::ProgressFn<'_>,
        ) -> $crate::Result<::std::path::PathBuf> {
            let files = $crate::hub_model::ModelFiles { variant, ..$files };
            let check = |path: &::std::path::Path| {
                $crate::json::read_file(path, |text| <$config>::from_json(text).map(drop))
            };
            files.snapshot(hub, repo, revision, check, progress)
        }
    };
    ($vis:vis $download:path) => {
        /// Opens a model of the Hugging Face hub by its name (`gpt2`, `organisation/name`) and
        /// revision (a branch, a tag or a commit); files that are not in the hub's cache are
        /// downloaded. Also returns the directory of the files.
        ///
        /// # Errors
        /// As [`snapshot`](Self::snapshot) and [`from_pretrained`](Self::from_pretrained);
        /// [`Error::Config`](aigc_core::Error::Config) without a home directory for the cache.
        $vis fn from_hub(
            repo: &str,
            revision: &str,
            device: &$crate::burn::tensor::Device,
            progress: &mut $crate::data::download::ProgressFn<'_>,
        ) -> $crate::Result<($crate::weights::Loaded<Self>, ::std::path::PathBuf)> {
            let dir = Self::snapshot(&$crate::hub::Hub::from_env()?, repo, revision, progress)?;
            Ok((Self::from_pretrained(&dir, device)?, dir))
        }

        /// [`from_hub`](Self::from_hub) for a variant of the weights, such as `fp16`.
        ///
        /// # Errors
        /// As [`from_hub`](Self::from_hub).
        $vis fn from_hub_with_variant(
            repo: &str,
            revision: &str,
            variant: &str,
            device: &$crate::burn::tensor::Device,
            progress: &mut $crate::data::download::ProgressFn<'_>,
        ) -> $crate::Result<($crate::weights::Loaded<Self>, ::std::path::PathBuf)> {
            let hub = $crate::hub::Hub::from_env()?;
            let dir = Self::snapshot_with_variant(&hub, repo, revision, variant, progress)?;
            Ok((Self::from_pretrained_with_variant(&dir, variant, device)?, dir))
        }

        /// Downloads the files of the hub that [`from_pretrained`](Self::from_pretrained) opens,
        /// and returns their directory: configuration and weights, as safetensors if the
        /// repository has any, else as PyTorch's pickles.
        ///
        /// # Errors
        /// [`Error::Download`](aigc_core::Error::Download) for files that cannot be downloaded or
        /// that the repository does not have; [`Error::Data`](aigc_core::Error::Data) if the
        /// configuration is that of another model, before weights are downloaded;
        /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for an invalid name;
        /// [`Error::Io`](aigc_core::Error::Io) if the cache cannot be written.
        $vis fn snapshot(
            hub: &$crate::hub::Hub,
            repo: &str,
            revision: &str,
            progress: &mut $crate::data::download::ProgressFn<'_>,
        ) -> $crate::Result<::std::path::PathBuf> {
            $download(hub, repo, revision, None, progress)
        }

        /// [`snapshot`](Self::snapshot) for a variant of the weights, such as `fp16`; the weights
        /// without a variant are not downloaded.
        ///
        /// # Errors
        /// As [`snapshot`](Self::snapshot).
        $vis fn snapshot_with_variant(
            hub: &$crate::hub::Hub,
            repo: &str,
            revision: &str,
            variant: &str,
            progress: &mut $crate::data::download::ProgressFn<'_>,
        ) -> $crate::Result<::std::path::PathBuf> {
            $download(hub, repo, revision, Some(variant), progress)
        }
    };
}
