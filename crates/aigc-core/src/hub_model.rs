//! The files of a pretrained model on the Hugging Face hub: configuration, tokenizer, weights.

use crate::{Error, Result, data::download::ProgressFn, hub::Hub, weights::shard_files};
use std::path::{Path, PathBuf};

/// Names of the files that models of a family have on the hub.
#[derive(Clone, Copy, Debug)]
pub struct ModelFiles<'a> {
    /// All files except the weights, the configuration first. Only the configuration is required.
    pub config_files: &'a [&'a str],
    /// Possible names of the weights, preferred ones first. The first one that the repository has
    /// is downloaded; for an index (`.index.json`), all shards that it names.
    pub weights: &'a [&'a str],
}

impl ModelFiles<'_> {
    /// Downloads the files of `repo` at `revision` (a branch, a tag or a commit) that are not in
    /// the cache, and returns their directory. All files are of one commit. `check` validates the
    /// configuration before weights are downloaded.
    ///
    /// # Errors
    /// [`Error::Download`] for files that cannot be downloaded or that the repository does not
    /// have; the error of `check`; [`Error::Config`] for an invalid name; [`Error::Io`] if the
    /// cache cannot be written.
    pub fn snapshot(
        &self,
        hub: &Hub,
        repo: &str,
        revision: &str,
        check: impl FnOnce(&Path) -> Result<()>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let dir = hub.snapshot_download(repo, revision, self.config_files, progress)?;
        // The branch may move to another commit during the download.
        let commit = dir.file_name().unwrap_or_default().to_string_lossy();
        let config = self.config_files.first().copied().unwrap_or_default();
        let config = hub
            .download(repo, &commit, config, progress)?
            .ok_or_else(|| lacks(hub, repo, config))?;
        check(&config)?;
        // If the cache has weights, no other weights are downloaded.
        for file in self.weights {
            if hub.try_load_from_cache(repo, &commit, file)?.is_some() {
                shards(hub, repo, &commit, file, progress)?;
                return Ok(dir);
            }
        }
        for file in self.weights {
            if hub.download(repo, &commit, file, progress)?.is_some() {
                shards(hub, repo, &commit, file, progress)?;
                return Ok(dir);
            }
        }
        Err(lacks(hub, repo, &self.weights.join(", ")))
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
