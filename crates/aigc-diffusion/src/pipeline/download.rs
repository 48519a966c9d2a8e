//! The files of a pipeline on the Hugging Face hub. Components that a pipeline does not open are
//! not downloaded.

use super::{
    INDEX, NETWORK, SCHEDULER, SCHEDULER_CONFIG,
    index::{Index, directories},
};
use crate::{
    models::{AnyDenoiser, any::CONFIG},
    scheduler::AnyScheduler,
};
use aigc_core::{Result, data::download::ProgressFn, hub::Hub, hub_model::ModelFiles};
use std::path::{Path, PathBuf};

/// Downloads the files of a pipeline of the hub, and returns their directory.
pub(super) fn download(
    hub: &Hub,
    repo: &str,
    revision: &str,
    variant: Option<&str>,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf> {
    let dir = hub.snapshot_download(repo, revision, &[INDEX, CONFIG], progress)?;
    // The branch may move to another commit during the download.
    let commit = dir.file_name().unwrap_or_default().to_string_lossy();
    let index = Index::open(&dir)?;

    let places = directories(SCHEDULER);
    let places = places.each_ref().map(String::as_str);
    let files = ModelFiles {
        directories: &places,
        config_files: &[SCHEDULER_CONFIG],
        ..ModelFiles::default()
    };
    let check = |path: &Path| AnyScheduler::open(path, index.scheduler.as_deref()).map(drop);
    files.snapshot(hub, repo, &commit, check, progress)?;

    let (name, class) = index.network.unzip();
    let places = directories(name.as_deref().unwrap_or(NETWORK));
    let places = places.each_ref().map(String::as_str);
    let files = AnyDenoiser::hub_files(&places, variant);
    let check = |path: &Path| AnyDenoiser::check_config(path, class.as_deref());
    files.snapshot(hub, repo, &commit, check, progress)?;
    Ok(dir)
}
