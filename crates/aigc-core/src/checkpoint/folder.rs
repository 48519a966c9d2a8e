//! The run folder and its checkpoints.

use super::atomic::{sweep_temporary, sync, sync_folder, write_atomic};
use crate::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::Read,
    path::{Path, PathBuf},
};

const MANIFEST: &str = "manifest.json";
/// Larger JSON files are not ours.
const MAX_JSON: u64 = 64 << 20;

/// Where a run keeps everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// A folder for a new run.
    ///
    /// # Errors
    /// [`Error::Config`] if a run is there already (nothing is ever overwritten), [`Error::Io`] if
    /// it cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let run = Self { path: path.into() };
        if run.config_path().exists() || run.checkpoints_dir().is_dir() {
            return Err(Error::config(
                "run folder",
                run.path.display(),
                "a folder without a run in it; resume that run, or choose another folder",
            ));
        }
        run.make_folders()?;
        Ok(run)
    }

    /// The folder of an existing run.
    ///
    /// # Errors
    /// [`Error::Config`] if no run is there.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let run = Self { path: path.into() };
        if !run.config_path().is_file() && !run.checkpoints_dir().is_dir() {
            return Err(Error::config(
                "run folder",
                run.path.display(),
                "a folder with a run in it",
            ));
        }
        run.make_folders()?;
        Ok(run)
    }

    fn make_folders(&self) -> Result<()> {
        for folder in [
            self.path.clone(),
            self.samples_dir(),
            self.checkpoints_dir(),
        ] {
            fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            if let Some(parent) = folder
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
            {
                sync_folder(parent)?;
            }
        }
        Ok(())
    }

    /// A folder for a new run: `path-1`, or the number after the largest there is.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_next(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::create(numbered(path, largest(path).map_or(1, |n| n + 1)))
    }

    /// The run with the largest number among `path-1`, `path-2`, …
    ///
    /// # Errors
    /// [`Error::Config`] if there is none.
    pub fn open_latest(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let newest = largest(path).ok_or_else(|| {
            Error::config(
                "run folder",
                numbered(path, 1).display(),
                "a folder with a run in it",
            )
        })?;
        Self::open(numbered(path, newest))
    }

    /// Keeps other trainers out of this folder until the lock is dropped or the process ends.
    ///
    /// # Errors
    /// [`Error::Config`] if another one is in it.
    pub(crate) fn lock(&self) -> Result<RunLock> {
        let path = self.path.join(".lock");
        let file = File::create(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::config(
                "run folder",
                self.path.display(),
                "a folder in which nobody else is training",
            )),
            Err(TryLockError::Error(source)) => Err(Error::io(&path)(source)),
        }
    }

    /// Puts back what a killed run was about to exchange, and removes what it left half-made.
    pub(crate) fn recover(&self) -> Result<()> {
        for folder in [self.path.clone(), self.samples_dir(), self.final_dir()] {
            sweep_temporary(&folder)?;
        }
        for ending in ["old", "tmp"] {
            for (step, path) in self.hidden(ending)? {
                let named = self.checkpoint_path(step);
                if !named.exists() && Checkpoint::open(&path, step).is_ok() {
                    fs::rename(&path, &named).map_err(Error::io(&path))?;
                }
            }
        }
        self.sweep()
    }

    /// Hidden checkpoint folders with this ending, by step.
    fn hidden(&self, ending: &str) -> Result<Vec<(usize, PathBuf)>> {
        let folder = self.checkpoints_dir();
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let step = name
                .strip_prefix('.')
                .and_then(|n| n.strip_suffix(&format!(".{ending}")))
                .and_then(step_of);
            found.extend(step.map(|step| (step, path)));
        }
        Ok(found)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.json`: model, trainer and data as they were given.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is not what it should be, [`Error::Io`] if it is not there.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        read_json(&self.config_path())
    }

    /// `metrics.jsonl`.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `loss.svg`.
    pub fn plot_path(&self) -> PathBuf {
        self.path.join("loss.svg")
    }

    /// `samples/`.
    pub fn samples_dir(&self) -> PathBuf {
        self.path.join("samples")
    }

    /// `samples/step-000500.ending` for step 500.
    pub fn sample_path(&self, step: usize, ending: &str) -> PathBuf {
        self.samples_dir()
            .join(format!("{}.{ending}", step_name(step)))
    }

    /// `final/`, with the trained model's `config.json` and `model.safetensors`.
    pub fn final_dir(&self) -> PathBuf {
        self.path.join("final")
    }

    /// `checkpoints/`.
    pub fn checkpoints_dir(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Folder of the checkpoint of `step`.
    pub fn checkpoint_path(&self, step: usize) -> PathBuf {
        self.checkpoints_dir().join(step_name(step))
    }

    /// Steps of the checkpoints on disk, oldest first, whole or not.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed.
    pub fn checkpoint_steps(&self) -> Result<Vec<usize>> {
        let folder = self.checkpoints_dir();
        let mut steps = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let entry = entry.map_err(Error::io(&folder))?;
            if entry.path().is_dir() {
                steps.extend(entry.file_name().to_str().and_then(step_of));
            }
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Starts the checkpoint of `step`. It does not exist until [`CheckpointWriter::commit`].
    ///
    /// # Errors
    /// [`Error::Io`] if its folder cannot be made.
    pub fn write_checkpoint(&self, step: usize) -> Result<CheckpointWriter> {
        let folder = self.checkpoint_path(step);
        let temporary = self
            .checkpoints_dir()
            .join(format!(".{}.tmp", step_name(step)));
        self.sweep()?;
        fs::create_dir_all(&temporary).map_err(Error::io(&temporary))?;
        Ok(CheckpointWriter { folder, temporary })
    }

    /// Opens the newest checkpoint and verifies every file of it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none, or if it is damaged; it then names the file at fault
    /// and the newest intact checkpoint before it.
    pub fn latest_checkpoint(&self) -> Result<Checkpoint> {
        match self.checkpoint_steps()?.last() {
            Some(step) => self.checkpoint(*step),
            None => Err(Error::checkpoint(
                self.checkpoints_dir(),
                "there is no checkpoint in it",
            )),
        }
    }

    /// Opens the checkpoint of `step` and verifies every file of it.
    ///
    /// # Errors
    /// Like [`latest_checkpoint`](Self::latest_checkpoint).
    pub fn checkpoint(&self, step: usize) -> Result<Checkpoint> {
        let folder = self.checkpoint_path(step);
        Checkpoint::open(&folder, step).map_err(|error| self.with_fallback(step, error))
    }

    /// Adds the newest intact checkpoint before `step` to an error about that step's.
    pub fn with_fallback(&self, step: usize, error: Error) -> Error {
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

    /// Removes all checkpoints but the newest `keep` and those of the steps in `also`, and what
    /// killed runs left.
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

    /// Takes a checkpoint's name away: a run killed in between leaves a folder to sweep, not half a
    /// checkpoint.
    fn hide(&self, step: usize) -> Result<()> {
        let (folder, hidden) = (
            self.checkpoint_path(step),
            self.checkpoints_dir()
                .join(format!(".{}.gone", step_name(step))),
        );
        fs::rename(&folder, &hidden).map_err(Error::io(&folder))
    }

    /// Removes what hidden checkpoints and killed runs left.
    fn sweep(&self) -> Result<()> {
        let folder = self.checkpoints_dir();
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
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

/// Held while a trainer is at work in a run folder; the system releases it when the process ends,
/// however it ends.
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

/// Reads a JSON file of ours.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let size = fs::metadata(path).map_err(Error::io(path))?.len();
    if size > MAX_JSON {
        return Err(Error::checkpoint(
            path,
            format!("{size} bytes are too many for this file"),
        ));
    }
    let text = fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(|error| Error::checkpoint(path, error))
}

/// Writes a JSON file atomically, for people to read.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| Error::checkpoint(path, error))?;
    text.push(b'\n');
    write_atomic(path, &text)
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut chunk).map_err(Error::io(path))? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(&chunk[..n]),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    step: usize,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

impl FileEntry {
    fn of(path: &Path) -> Result<Self> {
        let bytes = fs::metadata(path).map_err(Error::io(path))?.len();
        let sha256 = sha256(path)?;
        Ok(Self { bytes, sha256 })
    }
}

/// A checkpoint being written.
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: PathBuf,
    temporary: PathBuf,
}

impl CheckpointWriter {
    /// Where to write the file called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// Writes `value` as the JSON file called `name`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        write_json(&self.path(name), value)
    }

    /// Adds the manifest, syncs everything, and gives the folder its name.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn commit(self, step: usize) -> Result<PathBuf> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.temporary).map_err(Error::io(&self.temporary))? {
            let path = entry.map_err(Error::io(&self.temporary))?.path();
            sync(&path)?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            files.insert(name, FileEntry::of(&path)?);
        }
        write_json(
            &self.temporary.join(MANIFEST),
            &Manifest {
                format: 1,
                step,
                files,
            },
        )?;
        sync_folder(&self.temporary)?;
        if self.folder.exists() {
            // The same step again, after a resume: the new one is as good, and complete.
            let doomed = self.temporary.with_extension("old"); // `recover` puts it back if this is interrupted
            fs::rename(&self.folder, &doomed).map_err(Error::io(&self.folder))?;
        }
        fs::rename(&self.temporary, &self.folder).map_err(Error::io(&self.folder))?;
        if let Some(parent) = self.folder.parent() {
            sync_folder(parent)?;
        }
        Ok(self.folder)
    }
}

/// A checkpoint whose files have all been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    folder: PathBuf,
    step: usize,
}

impl Checkpoint {
    /// Verifies the checkpoint in `folder`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the file that is missing, truncated or altered.
    pub fn open(folder: &Path, step: usize) -> Result<Self> {
        let manifest_path = folder.join(MANIFEST);
        if !manifest_path.is_file() {
            return Err(Error::checkpoint(manifest_path, "missing"));
        }
        let manifest: Manifest = read_json(&manifest_path)?;
        if (manifest.format, manifest.step) != (1, step) {
            let found = format!("format {} of step {}", manifest.format, manifest.step);
            return Err(Error::checkpoint(
                manifest_path,
                format!("{found}, expected format 1 of step {step}"),
            ));
        }
        for (name, expected) in &manifest.files {
            let path = folder.join(name);
            if Path::new(name).components().count() != 1 || !path.is_file() {
                return Err(Error::checkpoint(path, "missing"));
            }
            let found = FileEntry::of(&path)?;
            if found.bytes != expected.bytes {
                let reason = format!(
                    "truncated or grown: {} bytes, expected {}",
                    found.bytes, expected.bytes
                );
                return Err(Error::checkpoint(path, reason));
            }
            if found != *expected {
                return Err(Error::checkpoint(
                    path,
                    "altered: its SHA-256 is not the one in the manifest",
                ));
            }
        }
        for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
            let name = entry.map_err(Error::io(folder))?.file_name();
            let name = name.to_string_lossy();
            if name != MANIFEST && !manifest.files.contains_key(&*name) {
                return Err(Error::checkpoint(
                    folder.join(&*name),
                    "not in the manifest",
                ));
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            step,
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.folder
    }

    /// Number of steps that had been made.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Path of the file called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads the JSON file called `name`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is not what it should be.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        read_json(&self.path(name))
    }
}
