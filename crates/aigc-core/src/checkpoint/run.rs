//! The run directory.

use super::{
    dir::{Checkpoint, CheckpointWriter},
    json::read_json,
};
use crate::{
    Error, Result,
    fs::{sweep_temporary, sync_dir},
    train::RunConfig,
};
use serde::de::DeserializeOwned;
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";
const LOCK: &str = ".lock";
const SAMPLES: &str = "samples";
const CHECKPOINTS: &str = "checkpoints";
const NO_RUN: &str = "there is no run in it; name the directory of a run, or start a new one";

/// Why a directory with a model cannot be the directory of a new run.
pub(crate) const OTHER_CONFIG: &str =
    "its config.json is not that of a run, and would be overwritten; choose another directory";

/// The directory with all files of a run.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Directories that did not exist before.
    created: Vec<PathBuf>,
}

impl PartialEq for RunDir {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for RunDir {}

impl RunDir {
    /// Creates the directory of a new run. A directory left by a run that failed before its first
    /// checkpoint is reused.
    ///
    /// # Errors
    /// [`Error::Run`] if the directory already contains a run or a model, which are never
    /// overwritten, or another process is starting a run in it; [`Error::Io`] if the directory
    /// cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let mut run = Self::at(path);
        if run.exists() {
            if !run.is_unstarted()? {
                let reason = if run.has_run_config() || run.has_results() {
                    "there is a run in it already; resume that run or choose another directory"
                } else {
                    OTHER_CONFIG
                };
                return Err(Error::run(&run.path, reason));
            }
            run.lock()?; // fails if another process is about to train in it
        }
        run.make_dirs()?;
        Ok(run)
    }

    fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            created: vec![],
        }
    }

    /// Opens the directory of an existing run.
    ///
    /// # Errors
    /// [`Error::Run`] if the directory contains no run.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let mut run = Self::at(path);
        if !run.exists() {
            return Err(Error::run(&run.path, NO_RUN));
        }
        run.make_dirs()?;
        Ok(run)
    }

    fn exists(&self) -> bool {
        self.config_path().is_file() || self.checkpoints_dir().is_dir()
    }

    /// Whether there is no `config.json`, or it is that of a run.
    pub(crate) fn has_run_config(&self) -> bool {
        let path = self.config_path();
        !path.exists() || read_json::<RunConfig>(&path).is_ok()
    }

    /// Whether training has produced a file. Temporary files do not count.
    fn has_results(&self) -> bool {
        let holds = |dir: PathBuf| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let mut names = entries.map(|entry| entry.file_name());
            names.any(|name| !name.to_string_lossy().ends_with(".tmp"))
        };
        fs::metadata(self.metrics_path()).is_ok_and(|file| file.len() > 0)
            || holds(self.checkpoints_dir())
            || holds(self.samples_dir())
            || self.final_dir().exists()
    }

    /// Whether the directory contains only what a start creates before the first step.
    fn is_unstarted(&self) -> Result<bool> {
        if !self.has_run_config() || self.has_results() {
            return Ok(false);
        }
        for entry in fs::read_dir(&self.path).map_err(Error::io(&self.path))? {
            let name = entry.map_err(Error::io(&self.path))?.file_name();
            let name = name.to_string_lossy();
            let of_start = [CONFIG, METRICS, LOCK, SAMPLES, CHECKPOINTS];
            if !of_start.contains(&&*name) && !name.ends_with(".tmp") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The files that a start writes and that exist already.
    pub(crate) fn files_before_start(&self) -> Vec<PathBuf> {
        let files = self.files_of_start().into_iter();
        files.filter(|file| file.exists()).collect()
    }

    fn files_of_start(&self) -> [PathBuf; 3] {
        [
            self.config_path(),
            self.metrics_path(),
            self.path.join(LOCK),
        ]
    }

    /// Removes the files of a run that ended before its first step, except those that existed
    /// `before`, and the directories that were created for it if they are then empty.
    pub(crate) fn remove_unstarted(&self, before: &[PathBuf]) {
        // Another trainer may be starting here.
        let Ok(lock) = self.lock() else { return };
        if self.has_results() {
            return;
        }
        drop(lock); // systems other than Unix keep open files
        for file in self.files_of_start() {
            if !before.contains(&file) {
                let _ = fs::remove_file(file);
            }
        }
        for dir in self.created.iter().rev() {
            let _ = fs::remove_dir(dir); // fails for a directory that is not empty
        }
    }

    fn make_dirs(&mut self) -> Result<()> {
        for dir in [
            self.path.clone(),
            self.samples_dir(),
            self.checkpoints_dir(),
        ] {
            let is_new = !dir.exists();
            fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_dir(parent)?;
            }
            if is_new {
                self.created.push(dir);
            }
        }
        Ok(())
    }

    /// Creates the directory of a new run: `path-1`, or `path-n` with `n` one above the largest
    /// existing number.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_next(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::create(numbered(path, largest(path).map_or(1, |n| n + 1)))
    }

    /// Opens the run with the largest number among `path-1`, `path-2`, …
    ///
    /// # Errors
    /// [`Error::Run`] if there is none.
    pub fn open_latest(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let newest = largest(path).ok_or_else(|| Error::run(numbered(path, 1), NO_RUN))?;
        Self::open(numbered(path, newest))
    }

    /// Locks the directory against other trainers until the lock is dropped or the process ends.
    ///
    /// # Errors
    /// [`Error::Run`] if another trainer is using it.
    pub(crate) fn lock(&self) -> Result<RunLock> {
        let path = self.path.join(LOCK);
        let file = File::create(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::run(
                &self.path,
                "in use by another trainer; wait for it or choose another directory",
            )),
            Err(TryLockError::Error(source)) => Err(Error::io(&path)(source)),
        }
    }

    /// Restores a checkpoint that a killed run was replacing, and removes its incomplete files.
    pub(crate) fn recover(&self) -> Result<()> {
        for dir in [self.path.clone(), self.samples_dir(), self.final_dir()] {
            sweep_temporary(&dir)?;
        }
        for extension in ["old", "tmp"] {
            for (step, path) in self.hidden(extension)? {
                let named = self.checkpoint_path(step);
                if !named.exists() && Checkpoint::open(&path, step).is_ok() {
                    fs::rename(&path, &named).map_err(Error::io(&path))?;
                }
            }
        }
        self.sweep()
    }

    /// Hidden checkpoint directories with this extension, by step.
    fn hidden(&self, extension: &str) -> Result<Vec<(usize, PathBuf)>> {
        let dir = self.checkpoints_dir();
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::io(&dir))? {
            let path = entry.map_err(Error::io(&dir))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let step = name
                .strip_prefix('.')
                .and_then(|n| n.strip_suffix(&format!(".{extension}")))
                .and_then(step_of);
            found.extend(step.map(|step| (step, path)));
        }
        Ok(found)
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.json`: configuration of model, trainer, objective and data.
    pub fn config_path(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it does not parse as `T`, [`Error::Io`] if it is missing.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        read_json(&self.config_path())
    }

    /// `metrics.jsonl`.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// `loss.svg`.
    pub fn plot_path(&self) -> PathBuf {
        self.path.join("loss.svg")
    }

    /// `samples/`.
    pub fn samples_dir(&self) -> PathBuf {
        self.path.join(SAMPLES)
    }

    /// `samples/step-000500.EXTENSION` for step 500.
    pub fn sample_path(&self, step: usize, extension: &str) -> PathBuf {
        self.samples_dir()
            .join(format!("{}.{extension}", step_name(step)))
    }

    /// `final/`, with the trained model's `config.json` and `model.safetensors`.
    pub fn final_dir(&self) -> PathBuf {
        self.path.join("final")
    }

    /// `checkpoints/`.
    pub fn checkpoints_dir(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// Directory of the checkpoint of `step`.
    pub fn checkpoint_path(&self, step: usize) -> PathBuf {
        self.checkpoints_dir().join(step_name(step))
    }

    /// Steps of the checkpoints on disk, oldest first, complete or damaged.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be listed.
    pub fn checkpoint_steps(&self) -> Result<Vec<usize>> {
        let dir = self.checkpoints_dir();
        let mut steps = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::io(&dir))? {
            let entry = entry.map_err(Error::io(&dir))?;
            if entry.path().is_dir() {
                steps.extend(entry.file_name().to_str().and_then(step_of));
            }
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Starts writing the checkpoint of `step`. The checkpoint exists once
    /// [`CheckpointWriter::commit`] returns.
    ///
    /// # Errors
    /// [`Error::Io`] if its directory cannot be created.
    pub fn write_checkpoint(&self, step: usize) -> Result<CheckpointWriter> {
        let dir = self.checkpoint_path(step);
        let temporary = self
            .checkpoints_dir()
            .join(format!(".{}.tmp", step_name(step)));
        self.sweep()?;
        fs::create_dir_all(&temporary).map_err(Error::io(&temporary))?;
        Ok(CheckpointWriter::new(dir, temporary))
    }

    /// Opens the newest checkpoint and verifies all its files.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none, or if it is damaged; the error then names the broken
    /// file and the newest intact checkpoint before it.
    pub fn latest_checkpoint(&self) -> Result<Checkpoint> {
        match self.checkpoint_steps()?.last() {
            Some(step) => self.checkpoint(*step),
            None => Err(Error::checkpoint(
                self.checkpoints_dir(),
                "there is no checkpoint in it",
            )),
        }
    }

    /// Opens the checkpoint of `step` and verifies all its files.
    ///
    /// # Errors
    /// Like [`latest_checkpoint`](Self::latest_checkpoint).
    pub fn checkpoint(&self, step: usize) -> Result<Checkpoint> {
        let dir = self.checkpoint_path(step);
        Checkpoint::open(&dir, step).map_err(|error| self.with_fallback(step, error))
    }

    /// Adds the newest intact checkpoint before `step` to an error about the checkpoint of `step`.
    pub(crate) fn with_fallback(&self, step: usize, error: Error) -> Error {
        let intact =
            |s: &usize| *s < step && Checkpoint::open(&self.checkpoint_path(*s), *s).is_ok();
        let previous = self
            .checkpoint_steps()
            .ok()
            .and_then(|steps| steps.into_iter().rev().find(intact));
        match error {
            Error::Checkpoint { path, reason, .. } => Error::Checkpoint {
                path,
                reason,
                previous,
            },
            Error::Weights { path, reason } => Error::Checkpoint {
                path,
                reason,
                previous,
            },
            Error::Io { path, source } => Error::Checkpoint {
                path,
                reason: source.to_string(),
                previous,
            },
            other => other,
        }
    }

    /// Removes all checkpoints but the newest `keep` and those of the steps in `also`, and the
    /// temporary files of killed runs.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be removed.
    pub fn prune(&self, keep: usize, also: &[usize]) -> Result<()> {
        let steps = self.checkpoint_steps()?;
        let old = &steps[..steps.len().saturating_sub(keep.max(1))];
        for step in old.iter().filter(|step| !also.contains(step)) {
            self.hide(*step)?;
        }
        self.sweep()
    }

    /// Removes the checkpoint of `step`.
    pub(crate) fn remove(&self, step: usize) -> Result<()> {
        self.hide(step)?;
        self.sweep()
    }

    /// Renames a checkpoint to a hidden name first: a run killed in between leaves a directory to
    /// remove, not half a checkpoint.
    fn hide(&self, step: usize) -> Result<()> {
        let (dir, hidden) = (
            self.checkpoint_path(step),
            self.checkpoints_dir()
                .join(format!(".{}.gone", step_name(step))),
        );
        fs::rename(&dir, &hidden).map_err(Error::io(&dir))
    }

    /// Removes hidden checkpoints and the temporary files of killed runs.
    fn sweep(&self) -> Result<()> {
        let dir = self.checkpoints_dir();
        for entry in fs::read_dir(&dir).map_err(Error::io(&dir))? {
            let path = entry.map_err(Error::io(&dir))?.path();
            if path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(".step-"))
            {
                fs::remove_dir_all(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(())
    }
}

/// Held while a trainer uses a run directory. The operating system releases it when the process
/// ends, even if it is killed.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

fn numbered(path: &Path, n: usize) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}-{n}"))
}

/// The largest `n` for which `path-n` exists.
fn largest(path: &Path) -> Option<usize> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let prefix = format!(
        "{}-",
        path.file_name().unwrap_or_default().to_string_lossy()
    );
    let names = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.strip_prefix(&prefix)?.parse().ok())
        .max()
}

/// The step in a checkpoint's name, if it is one.
fn step_of(name: &str) -> Option<usize> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

fn step_name(step: usize) -> String {
    format!("step-{step:06}")
}
