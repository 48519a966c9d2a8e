//! GPT-2 by name, from the Hugging Face hub.

use super::{Gpt2, Gpt2Config};
use aigc_core::{Error, Result, data::download::ProgressFn, hub::Hub, json, weights::shard_files};
use burn::tensor::Device;
use std::path::PathBuf;

/// All but the weights; configuration first.
const SMALL: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
];
/// Weights, the best first.
const WEIGHTS: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

impl Gpt2 {
    /// Opens a model of the hub by its name there (`gpt2`, `distilgpt2`, `organisation/name`),
    /// fetching what is not in the hub's cache; `gpt2` is 0.5 GB, `gpt2-xl` 6 GB. Also gives the
    /// folder with its files, for [`tokenizer::from_pretrained`](crate::tokenizer::from_pretrained)
    /// and the others that open folders.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch) and [`open`](Self::open).
    pub fn download(
        name: &str,
        device: &Device,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(Self, PathBuf)> {
        let folder = Self::fetch(&Hub::from_env()?, name, "main", progress)?;
        let (model, _) = Self::open(&folder, device)?;
        Ok((model, folder))
    }

    /// The folder with the files of a model of the hub, at a revision (a branch, a tag or a
    /// commit): configuration, tokenizer, and weights, as safetensors if there are any, else as
    /// what PyTorch pickles.
    ///
    /// # Errors
    /// [`Error::Download`] for files that cannot be had, saying what to do; [`Error::Data`] if it
    /// is no GPT-2, before its weights are fetched; [`Error::Config`] for a name that is none;
    /// [`Error::Io`] if the cache cannot be written.
    pub fn fetch(
        hub: &Hub,
        name: &str,
        revision: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let folder = hub.snapshot_download(name, revision, SMALL, progress)?;
        // What follows is of the same commit, whatever becomes of the revision meanwhile.
        let commit = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let config = hub.download(name, &commit, SMALL[0], progress)?;
        let config = config.ok_or_else(|| lacks(hub, name, SMALL[0]))?;
        json::read_file(&config, Gpt2Config::from_json)?;
        // Weights that are in the cache need no others.
        for file in WEIGHTS {
            if hub.try_load_from_cache(name, &commit, file)?.is_some() {
                fetch_shards(hub, name, &commit, file, progress)?;
                return Ok(folder);
            }
        }
        for file in WEIGHTS {
            if hub.download(name, &commit, file, progress)?.is_some() {
                fetch_shards(hub, name, &commit, file, progress)?;
                return Ok(folder);
            }
        }
        Err(lacks(hub, name, &WEIGHTS.join(", ")))
    }
}

/// If `file` is an index, fetches the files that it names.
fn fetch_shards(
    hub: &Hub,
    name: &str,
    commit: &str,
    file: &str,
    progress: &mut ProgressFn<'_>,
) -> Result<()> {
    let Some(index) = hub
        .try_load_from_cache(name, commit, file)?
        .filter(|_| file.ends_with(".json"))
    else {
        return Ok(());
    };
    for shard in shard_files(&index)? {
        let shard = shard.file_name().unwrap_or_default().to_string_lossy();
        hub.download(name, commit, &shard, progress)?
            .ok_or_else(|| lacks(hub, name, &shard))?;
    }
    Ok(())
}

fn lacks(hub: &Hub, name: &str, what: &str) -> Error {
    Error::Download {
        url: format!("{}/{name}", hub.endpoint),
        reason: format!("the repository has no {what}"),
    }
}
