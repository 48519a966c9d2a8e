//! One checkpoint: written under a temporary name, verified by its manifest.

use super::json::{read_json, write_json};
use crate::{
    Error, Result,
    fs::{sha256, sync, sync_dir},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const MANIFEST: &str = "manifest.json";

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
    dir: PathBuf,
    temporary: PathBuf,
}

impl CheckpointWriter {
    /// Writes to `temporary`, which becomes `dir`.
    pub(super) fn new(dir: PathBuf, temporary: PathBuf) -> Self {
        Self { dir, temporary }
    }

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

    /// Writes the manifest, syncs all files and renames the directory to its final name.
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
        sync_dir(&self.temporary)?;
        if self.dir.exists() {
            // A checkpoint of this step exists already, from before a resume: the new one replaces
            // it. If this is interrupted, `recover` puts the old one back.
            let replaced = self.temporary.with_extension("old");
            fs::rename(&self.dir, &replaced).map_err(Error::io(&self.dir))?;
        }
        fs::rename(&self.temporary, &self.dir).map_err(Error::io(&self.dir))?;
        if let Some(parent) = self.dir.parent() {
            sync_dir(parent)?;
        }
        Ok(self.dir)
    }
}

/// A checkpoint whose files have all been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    dir: PathBuf,
    step: usize,
}

impl Checkpoint {
    /// Verifies the checkpoint in `dir`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the file that is missing, truncated or altered.
    pub fn open(dir: &Path, step: usize) -> Result<Self> {
        let manifest_path = dir.join(MANIFEST);
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
            let path = dir.join(name);
            if Path::new(name).components().count() != 1 || !path.is_file() {
                return Err(Error::checkpoint(path, "missing"));
            }
            let found = FileEntry::of(&path)?;
            if found.bytes != expected.bytes {
                let reason = format!(
                    "truncated or oversized: {} bytes, expected {}",
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
        for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
            let name = entry.map_err(Error::io(dir))?.file_name();
            let name = name.to_string_lossy();
            if name != MANIFEST && !manifest.files.contains_key(&*name) {
                return Err(Error::checkpoint(dir.join(&*name), "not in the manifest"));
            }
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            step,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Number of training steps before the checkpoint.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Path of the file called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads the JSON file called `name`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it does not parse as `T`.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        read_json(&self.path(name))
    }
}
