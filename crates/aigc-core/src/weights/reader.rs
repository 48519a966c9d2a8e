//! Tensors in files, in the formats of other libraries.

use super::{
    candidates::shard_files,
    header::Header,
    pickle,
    stored::{Floats, Place, Stored},
};
use crate::{Error, Result, fs::sha256_of};
use burn::tensor::{BoolStore, DType};
use pytorch_reader::DType as ElementType;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Limit on the header of a safetensors file, that of the reference implementation, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// Tensors in files. Each is read when it is requested, so no more memory is used than for the
/// tensors.
#[derive(Clone)]
pub struct WeightReader {
    pub(super) path: PathBuf,
    pub(super) tensors: BTreeMap<String, Stored>,
    pub(super) notes: Vec<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Names in the files of tensors that [`renamed`](Self::renamed) left out.
    pub(super) unreferenced: Vec<String>,
}

impl std::fmt::Debug for WeightReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightReader")
            .field("path", &self.path)
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

impl WeightReader {
    pub(super) fn empty(path: &Path) -> Self {
        Self {
            path: path.into(),
            tensors: BTreeMap::new(),
            notes: vec![],
            metadata: BTreeMap::new(),
            unreferenced: vec![],
        }
    }

    /// Opens a file by its extension: `.safetensors`, `.index.json` with the shards that it names,
    /// or a pickle of PyTorch's for any other. Pickles are read without executing them; of a
    /// checkpoint of a training, the tensors of its `state_dict` or `model` are opened.
    ///
    /// # Errors
    /// [`Error::Weights`] if the file is broken; [`Error::Io`] if it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut all = Self::empty(path);
        if path.to_string_lossy().ends_with(".json") {
            for shard in shard_files(path)? {
                all.add(&shard)?;
            }
        } else {
            all.add(path)?;
        }
        Ok(all)
    }

    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        refuse_placeholders(path)?;
        if path.extension().is_some_and(|kind| kind == "safetensors") || has_json_header(path)? {
            return self.add_safetensors(path);
        }
        let pickle::Contents { tensors, metadata } = pickle::contents(path)?;
        tensors.into_iter().for_each(|tensor| self.insert(tensor));
        self.describe(metadata);
        Ok(())
    }

    fn insert(&mut self, tensor: Stored) {
        self.tensors.insert(tensor.name.clone(), tensor);
    }

    /// Adds metadata; entries of earlier files stay.
    fn describe(&mut self, metadata: BTreeMap<String, String>) {
        for (key, value) in metadata {
            self.metadata.entry(key).or_insert(value);
        }
    }

    fn add_safetensors(&mut self, path: &Path) -> Result<()> {
        let wrong = |reason: String| Error::weights(path, reason);
        let mut file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        let mut size = [0; 8];
        if length < 8 {
            return Err(wrong(format!("truncated: {length} bytes are no header")));
        }
        file.read_exact(&mut size).map_err(Error::io(path))?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER || size > length - 8 {
            return Err(wrong(format!(
                "no safetensors file: a header of {size} bytes in a file of {length}"
            )));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(Error::io(path))?;
        let header = Header::parse(&header).map_err(wrong)?;
        let expected = (8 + size).saturating_add(header.data_len as u64);
        if length != expected {
            return Err(wrong(format!(
                "truncated or oversized: {length} bytes, {expected} by its header"
            )));
        }
        let (path, file): (Arc<Path>, _) = (path.into(), Arc::new(Mutex::new(file)));
        for (name, info) in header.tensors {
            let place = Place::Bytes {
                file: file.clone(),
                start: 8 + size + info.data_offsets.0 as u64,
                len: info.shape.iter().product(),
                dtype: info.dtype,
            };
            self.insert(Stored {
                name,
                shape: info.shape,
                path: path.clone(),
                place,
                steps: vec![],
            });
        }
        self.describe(header.metadata);
        Ok(())
    }

    /// The file, index or directory that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes for the user on the choice of files.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The `__metadata__` of safetensors files, and the numbers and texts beside the tensors of
    /// pickles, such as `global_step`; those of the first file, if several differ.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The files that the tensors are in, in order.
    pub fn files(&self) -> Vec<&Path> {
        let paths: BTreeSet<&Path> = self.tensors.values().map(|tensor| &*tensor.path).collect();
        paths.into_iter().collect()
    }

    /// SHA-256 of the [files](Self::files) one after the other, in hexadecimal; of one file, what
    /// `sha256sum` prints. The files are read to their ends.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read.
    pub fn hash(&self) -> Result<String> {
        hash_files(self.files())
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape of a tensor; `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| &tensor.shape[..])
    }

    /// Type of a tensor's elements in the file, but `F16` for floats of 8 bits, as which they are
    /// read; `None` if there is no such tensor, or tensors do not have this type here.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        let tensor = self.tensors.get(name)?;
        if tensor.f8().is_some() {
            return Some(DType::F16);
        }
        Some(match tensor.element_type().ok()? {
            ElementType::F64 => DType::F64,
            ElementType::F32 => DType::F32,
            ElementType::F16 => DType::F16,
            ElementType::BF16 => DType::BF16,
            ElementType::I64 => DType::I64,
            ElementType::I32 => DType::I32,
            ElementType::I16 => DType::I16,
            ElementType::I8 => DType::I8,
            ElementType::U64 => DType::U64,
            ElementType::U32 => DType::U32,
            ElementType::U16 => DType::U16,
            ElementType::U8 => DType::U8,
            ElementType::Bool => DType::Bool(BoolStore::Native),
        })
    }

    /// Name of the type of a tensor's elements in the file, such as `BF16` or `F8_E4M3`; `None` if
    /// there is no such tensor.
    pub fn type_name(&self, name: &str) -> Option<String> {
        self.tensors.get(name).map(Stored::type_name)
    }

    /// The values of a tensor, as 32-bit floats.
    ///
    /// # Errors
    /// [`Error::Weights`] if there is no such tensor or it has no floats; [`Error::Io`] if it
    /// cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.read_floats(name).map(Floats::into_f32)
    }

    pub(super) fn read_floats(&self, name: &str) -> Result<Floats> {
        self.stored(name)?.floats()
    }

    /// The values of a tensor of integers or booleans, as 64-bit integers.
    ///
    /// # Errors
    /// [`Error::Weights`] if there is no such tensor, it has floats, or a value is above the
    /// largest 64-bit integer; [`Error::Io`] if it cannot be read.
    pub fn read_int(&self, name: &str) -> Result<Vec<i64>> {
        self.stored(name)?.integers()
    }

    /// The values of a tensor of booleans, or of integers that are 0 or 1.
    ///
    /// # Errors
    /// As [`read_int`](Self::read_int); [`Error::Weights`] for other integers.
    pub fn read_bool(&self, name: &str) -> Result<Vec<bool>> {
        let flag = |value| match value {
            0 => Ok(false),
            1 => Ok(true),
            other => {
                let reason = format!("{name} holds {other}, expected booleans (0 or 1)");
                Err(Error::weights(&self.path, reason))
            }
        };
        self.read_int(name)?.into_iter().map(flag).collect()
    }

    fn stored(&self, name: &str) -> Result<&Stored> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::weights(&self.path, format!("there is no tensor {name}")))
    }
}

/// SHA-256 of files one after the other, in hexadecimal.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read.
pub fn hash_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<String> {
    sha256_of(paths)
}

/// Whether a file begins like a safetensors file, whatever its name: a length and a JSON object.
fn has_json_header(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(9).read_to_end(&mut start))
        .map_err(Error::io(path))?;
    Ok(start.get(8) == Some(&b'{'))
}

/// Fails for files that a failed download leaves in place of weights.
fn refuse_placeholders(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut start))
        .map_err(Error::io(path))?;
    let text = String::from_utf8_lossy(&start)
        .trim_start()
        .to_ascii_lowercase();
    if text.starts_with("version https://git-lfs") {
        let reason = "a Git LFS pointer, not the weights; fetch the file itself (`git lfs pull`)";
        return Err(Error::weights(path, reason));
    }
    if start.starts_with(b"GGUF") {
        let reason = "a GGUF file, whose quantised weights are not read; expected safetensors or a \
                      pickle of PyTorch's";
        return Err(Error::weights(path, reason));
    }
    if ["<!doctype", "<html", "<?xml"]
        .iter()
        .any(|tag| text.starts_with(tag))
    {
        let reason = "a web page, not weights; the download was answered with an error page";
        return Err(Error::weights(path, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_files_are_refused_before_allocating() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let file = |header: &str, data: &[u8]| {
            let bytes = [
                &(header.len() as u64).to_le_bytes()[..],
                header.as_bytes(),
                data,
            ]
            .concat();
            std::fs::write(&path, bytes).unwrap();
        };
        let fails_with = |what: &str| {
            let error = WeightReader::open(&path).unwrap_err().to_string();
            assert!(
                error.contains(what) && error.contains("model.safetensors"),
                "{what}: {error}"
            );
        };
        std::fs::write(&path, b"short").unwrap();
        fails_with("truncated");
        std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
        fails_with("a header of");
        file("{", b"");
        fails_with("EOF");
        let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        file(two, &[0; 7]);
        fails_with("truncated or oversized");
        file(
            r#"{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#,
            &[0; 8],
        );
        fails_with("truncated or oversized");
        file(
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            &[0; 8],
        );
        fails_with("a has 8 bytes, which is not the size of [3] in F32");
        std::fs::write(
            &path,
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n",
        )
        .unwrap();
        fails_with("a Git LFS pointer");
        std::fs::write(&path, "\n<!DOCTYPE html><html><body>Not found").unwrap();
        fails_with("a web page");
        std::fs::write(&path, b"GGUF\x03\0\0\0").unwrap();
        fails_with("a GGUF file");
        file(two, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        let files = WeightReader::open(&path).unwrap();
        assert_eq!(
            (files.read("a").unwrap(), files.shape("a")),
            (vec![1.0, -2.0], Some(&[2][..]))
        );
        assert!(
            files
                .read("b")
                .unwrap_err()
                .to_string()
                .contains("there is no tensor b")
        );
        // An index with a path outside its directory.
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map": {"a": "../model.safetensors"}}"#).unwrap();
        assert!(
            WeightReader::open(&index)
                .unwrap_err()
                .to_string()
                .contains("no file beside it")
        );
    }

    /// Floats of 8 bits, which have no type in memory, are read as 16.
    #[test]
    fn floats_of_8_bits_are_widened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let header = concat!(
            r#"{"a":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},"#,
            r#""b":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[3,4]}}"#
        );
        let bytes = [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &[0x38, 0x7e, 0xb8, 0x3e],
        ]
        .concat();
        std::fs::write(&path, bytes).unwrap();
        let reader = WeightReader::open(&path).unwrap();
        assert_eq!(reader.read("a").unwrap(), [1.0, 448.0, -1.0]);
        assert_eq!(reader.read("b").unwrap(), [1.5]);
        assert_eq!(reader.dtype("a"), Some(DType::F16));
        assert_eq!(reader.type_name("a").as_deref(), Some("F8_E4M3"));
        let floats = reader.read_floats("a").unwrap();
        assert!(matches!(floats, Floats::F16(values) if values.len() == 3));
    }
}
