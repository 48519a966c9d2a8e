//! Tensors in files, in the formats of other libraries.

use super::pickle;
use crate::{Error, Result};
use half::{bf16, f16};
use pytorch_reader::DType as PickledType;
use safetensors::{Dtype, tensor::Metadata};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Limit on the header of a safetensors file, that of the reference implementation, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// File extensions of weights, preferred ones first. All but the first are pickles.
const ENDINGS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "ckpt"];

/// Tensors in files. Each is read when it is requested, so no more memory is used than for the
/// tensors.
pub struct WeightReader {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
    files: Vec<Mutex<File>>,
    notes: Vec<String>,
}

struct Stored {
    shape: Vec<usize>,
    place: Place,
}

enum Place {
    /// A range of bytes of one of the files.
    Bytes {
        file: usize,
        start: u64,
        dtype: Dtype,
    },
    Pickled(pytorch_reader::Tensor),
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
    /// Opens the weights of a directory for the first of `stems` that has any: `STEM.safetensors`,
    /// its shards with or without their index, or the same for pickles (`.bin`, `.pt`, `.pth`,
    /// `.ckpt`). If there are only weights of one variant (`STEM.fp16.safetensors`), they are
    /// opened, and a [note](Self::notes) names the variant.
    ///
    /// # Errors
    /// [`Error::Weights`] if there are no weights, only some of the shards, only several variants,
    /// or broken files.
    pub fn from_dir(dir: &Path, stems: &[&str]) -> Result<Self> {
        Self::from_dir_with_variant(dir, stems, None)
    }

    /// [`from_dir`](Self::from_dir) for a variant: `Some("fp16")` opens `STEM.fp16.safetensors` and
    /// so on. `None` opens what [`from_dir`](Self::from_dir) opens.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir); if the variant is missing, the [`Error::Weights`] lists the
    /// existing files.
    pub fn from_dir_with_variant(
        dir: &Path,
        stems: &[&str],
        variant: Option<&str>,
    ) -> Result<Self> {
        let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
        let mut files: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        // Preferred ones first.
        let groups: Vec<Vec<Candidate>> = ENDINGS
            .iter()
            .flat_map(|ending| stems.iter().map(move |stem| (stem, ending)))
            .map(|(stem, ending)| {
                let files = files.iter();
                files
                    .filter_map(|file| Candidate::parse(file, stem, ending))
                    .collect()
            })
            .collect();
        // Without a variant, whole weights of any ending come before those of a variant.
        let mut chosen = variant;
        let holds = |group: &&Vec<Candidate>, name: Option<&str>| {
            group.iter().any(|c| c.variant.as_deref() == name)
        };
        if variant.is_none() && !groups.iter().any(|group| holds(&group, None)) {
            let all = groups.iter().flatten();
            let variants: BTreeSet<&str> = all.filter_map(|c| c.variant.as_deref()).collect();
            if variants.len() > 1 {
                let names: Vec<&str> = variants.into_iter().collect();
                let reason = format!(
                    "holds the variants {}; choose one with `from_pretrained_with_variant`, \
                     `load_pretrained_with_variant` or `WeightReader::from_dir_with_variant`",
                    names.join(", ")
                );
                return Err(Error::weights(dir, reason));
            }
            chosen = variants.first().copied();
        }
        if let Some(group) = groups.iter().find(|group| holds(group, chosen)) {
            let group: Vec<&Candidate> = group
                .iter()
                .filter(|c| c.variant.as_deref() == chosen)
                .collect();
            let mut reader = Self::open_candidates(dir, &group)?;
            if let (Some(only), None) = (chosen, variant) {
                reader.notes.push(format!(
                    "{}: the variant {only} is the only one there",
                    dir.display()
                ));
            }
            return Ok(reader);
        }
        let named: Vec<String> = stems
            .iter()
            .map(|stem| format!("{stem}.safetensors"))
            .collect();
        let variant = variant
            .map(|variant| format!(" of the variant {variant}"))
            .unwrap_or_default();
        let found = if files.is_empty() {
            "nothing".into()
        } else {
            files.join(", ")
        };
        let reason = format!(
            "no weights{variant} ({}, shards or .bin); the directory holds {found}",
            named.join(", ")
        );
        Err(Error::weights(dir, reason))
    }

    /// Opens a single file, else an index, else all shards.
    fn open_candidates(dir: &Path, candidates: &[&Candidate]) -> Result<Self> {
        for kind in [Kind::Whole, Kind::Index] {
            if let Some(candidate) = candidates.iter().find(|c| c.kind == kind) {
                return Self::open(&dir.join(&candidate.file));
            }
        }
        let of = candidates.iter().filter_map(|c| {
            if let Kind::Shard(_, of) = c.kind {
                Some(of)
            } else {
                None
            }
        });
        let of = of.max().unwrap_or(0);
        let here: BTreeSet<u32> = candidates
            .iter()
            .filter_map(|c| match c.kind {
                Kind::Shard(i, n) if n == of => Some(i),
                _ => None,
            })
            .collect();
        let absent: Vec<String> = (1..=of)
            .filter(|i| !here.contains(i))
            .take(16)
            .map(|i| format!("{i} of {of}"))
            .collect();
        if !absent.is_empty() {
            return Err(Error::weights(
                dir,
                format!("shards are missing: {}", absent.join(", ")),
            ));
        }
        let mut all = Self::empty(dir);
        for candidate in candidates
            .iter()
            .filter(|c| matches!(c.kind, Kind::Shard(_, n) if n == of))
        {
            all.add(&dir.join(&candidate.file))?;
        }
        Ok(all)
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.into(),
            tensors: BTreeMap::new(),
            files: vec![],
            notes: vec![],
        }
    }

    /// Opens a file by its extension: `.safetensors`, `.index.json` with the shards that it names,
    /// or a pickle of PyTorch's for any other. Pickles are read without executing them.
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

    fn add(&mut self, path: &Path) -> Result<()> {
        refuse_placeholders(path)?;
        if path.extension().is_some_and(|kind| kind == "safetensors") || has_json_header(path)? {
            return self.add_safetensors(path);
        }
        for (name, tensor) in pickle::tensors(path)? {
            let shape = tensor.shape().to_vec();
            let place = Place::Pickled(tensor);
            self.insert(name, Stored { shape, place });
        }
        Ok(())
    }

    fn insert(&mut self, name: String, tensor: Stored) {
        self.tensors.insert(name, tensor);
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
        // Fails for tensors that overlap, leave gaps or do not fit their shapes.
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
        let expected = (8 + size).saturating_add(metadata.data_len() as u64);
        if length != expected {
            return Err(wrong(format!(
                "truncated or oversized: {length} bytes, {expected} by its header"
            )));
        }
        for (name, info) in metadata.tensors() {
            let start = 8 + size + info.data_offsets.0 as u64;
            let place = Place::Bytes {
                file: self.files.len(),
                start,
                dtype: info.dtype,
            };
            self.insert(
                name,
                Stored {
                    shape: info.shape.clone(),
                    place,
                },
            );
        }
        self.files.push(Mutex::new(file));
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

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor; `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| &tensor.shape[..])
    }

    /// The values of a tensor, as 32-bit floats.
    ///
    /// # Errors
    /// [`Error::Weights`] if there is no such tensor or it has no floats; [`Error::Io`] if it
    /// cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let wrong = |reason: String| Error::weights(&self.path, reason);
        let tensor = self.stored(name)?;
        let n: usize = tensor.shape.iter().product();
        match &tensor.place {
            Place::Bytes { file, start, dtype } => {
                let mut file = self.files[*file].lock().unwrap_or_else(|e| e.into_inner());
                file.seek(SeekFrom::Start(*start))
                    .map_err(Error::io(&self.path))?;
                let mut bytes = |size: usize| {
                    let mut bytes = vec![0; n * size];
                    file.read_exact(&mut bytes)
                        .map(|()| bytes)
                        .map_err(Error::io(&self.path))
                };
                match dtype {
                    // Read directly into the result.
                    Dtype::F32 => {
                        let mut values = vec![0f32; n];
                        file.read_exact(bytemuck::cast_slice_mut(&mut values))
                            .map_err(Error::io(&self.path))?;
                        if cfg!(target_endian = "big") {
                            values.iter_mut().for_each(|value| {
                                *value = f32::from_bits(value.to_bits().swap_bytes())
                            });
                        }
                        Ok(values)
                    }
                    Dtype::F16 => Ok(halves(&bytes(2)?, |bits| f16::from_bits(bits).to_f32())),
                    Dtype::BF16 => Ok(halves(&bytes(2)?, |bits| bf16::from_bits(bits).to_f32())),
                    Dtype::F64 => Ok(doubles(&bytes(8)?)),
                    other => Err(wrong(format!("{name} holds {other:?}, not floats"))),
                }
            }
            Place::Pickled(tensor) => {
                let bytes = tensor.read().map_err(|error| wrong(error.to_string()))?;
                match tensor.dtype() {
                    PickledType::F32 => Ok(bytes
                        .chunks_exact(4)
                        .map(|b| f32::from_ne_bytes(array(b)))
                        .collect()),
                    PickledType::F16 => Ok(halves(&bytes, |bits| f16::from_bits(bits).to_f32())),
                    PickledType::BF16 => Ok(halves(&bytes, |bits| bf16::from_bits(bits).to_f32())),
                    PickledType::F64 => Ok(doubles(&bytes)),
                    other => Err(wrong(format!("{name} holds {other:?}, not floats"))),
                }
            }
        }
    }

    /// The values of a tensor of integers or booleans, as 64-bit integers.
    ///
    /// # Errors
    /// [`Error::Weights`] if there is no such tensor, it has floats, or a value is above the
    /// largest 64-bit integer; [`Error::Io`] if it cannot be read.
    pub fn read_int(&self, name: &str) -> Result<Vec<i64>> {
        let (kind, bytes) = self.read_bytes(name)?;
        let wrong = |reason: String| Error::weights(&self.path, format!("{name} holds {reason}"));
        Ok(match kind {
            PickledType::I64 => elements(&bytes, i64::from_ne_bytes),
            PickledType::I32 => elements(&bytes, |b| i32::from_ne_bytes(b).into()),
            PickledType::I16 => elements(&bytes, |b| i16::from_ne_bytes(b).into()),
            PickledType::I8 => elements(&bytes, |b| i8::from_ne_bytes(b).into()),
            PickledType::U64 => {
                let signed = |value: u64| {
                    i64::try_from(value)
                        .map_err(|_| wrong(format!("{value}, expected at most {}", i64::MAX)))
                };
                let values = elements(&bytes, u64::from_ne_bytes).into_iter();
                values.map(signed).collect::<Result<_>>()?
            }
            PickledType::U32 => elements(&bytes, |b| u32::from_ne_bytes(b).into()),
            PickledType::U16 => elements(&bytes, |b| u16::from_ne_bytes(b).into()),
            PickledType::U8 | PickledType::Bool => bytes.into_iter().map(i64::from).collect(),
            PickledType::F64 | PickledType::F32 | PickledType::F16 | PickledType::BF16 => {
                return Err(wrong(format!("{kind:?}, expected integers")));
            }
        })
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

    /// The bytes of a tensor in the order of this machine, and the type of its elements.
    fn read_bytes(&self, name: &str) -> Result<(PickledType, Vec<u8>)> {
        let wrong = |reason: String| Error::weights(&self.path, reason);
        let tensor = self.stored(name)?;
        let (file, start, dtype) = match &tensor.place {
            Place::Bytes { file, start, dtype } => (*file, *start, *dtype),
            Place::Pickled(tensor) => {
                let bytes = tensor.read().map_err(|error| wrong(error.to_string()))?;
                return Ok((tensor.dtype(), bytes));
            }
        };
        let kind = match dtype {
            Dtype::F64 => PickledType::F64,
            Dtype::F32 => PickledType::F32,
            Dtype::F16 => PickledType::F16,
            Dtype::BF16 => PickledType::BF16,
            Dtype::I64 => PickledType::I64,
            Dtype::I32 => PickledType::I32,
            Dtype::I16 => PickledType::I16,
            Dtype::I8 => PickledType::I8,
            Dtype::U64 => PickledType::U64,
            Dtype::U32 => PickledType::U32,
            Dtype::U16 => PickledType::U16,
            Dtype::U8 => PickledType::U8,
            Dtype::BOOL => PickledType::Bool,
            other => return Err(wrong(format!("{name} holds {other:?}, expected integers"))),
        };
        let n: usize = tensor.shape.iter().product();
        let mut bytes = vec![0; n * kind.size()];
        let mut file = self.files[file].lock().unwrap_or_else(|e| e.into_inner());
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Error::io(&self.path))?;
        if cfg!(target_endian = "big") {
            bytes
                .chunks_exact_mut(kind.size())
                .for_each(<[u8]>::reverse);
        }
        Ok((kind, bytes))
    }
}

/// A file in a directory that may hold weights.
struct Candidate {
    file: String,
    variant: Option<String>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Index,
    /// Number of the shard, and number of all shards.
    Shard(u32, u32),
}

impl Candidate {
    /// `STEM[.VARIANT].ENDING`, `STEM.ENDING.index[.VARIANT].json` (in older versions of diffusers
    /// `STEM.ENDING[.VARIANT].index.json`) or `STEM[.VARIANT]-00001-of-00005[.VARIANT].ENDING`.
    fn parse(file: &str, stem: &str, ending: &str) -> Option<Self> {
        let rest = file.strip_prefix(stem)?;
        let variant = |name: &str| -> Option<Option<String>> {
            match name.strip_prefix('.') {
                Some(variant) if !variant.is_empty() && !variant.contains('.') => {
                    Some(Some(variant.into()))
                }
                None if name.is_empty() => Some(None),
                _ => None,
            }
        };
        if let Some(middle) = rest
            .strip_prefix(&format!(".{ending}"))
            .and_then(|r| r.strip_suffix(".json"))
        {
            let middle = middle
                .strip_prefix(".index")
                .or_else(|| middle.strip_suffix(".index"))?;
            return Some(Self {
                file: file.into(),
                variant: variant(middle)?,
                kind: Kind::Index,
            });
        }
        let middle = rest.strip_suffix(&format!(".{ending}"))?;
        let Some((before, shard)) = middle.split_once('-') else {
            return Some(Self {
                file: file.into(),
                variant: variant(middle)?,
                kind: Kind::Whole,
            });
        };
        let (number, of) = shard.split_once("-of-")?;
        let (of, after) = of.split_at(of.find('.').unwrap_or(of.len()));
        let kind = Kind::Shard(number.parse().ok()?, of.parse().ok()?);
        Some(Self {
            file: file.into(),
            variant: variant(before)?.or(variant(after)?),
            kind,
        })
    }
}

/// Names of whole weights and of indices of shards, in the order in which
/// [`WeightReader::from_dir`] prefers them. Of the pickles, only `.bin` is published.
#[cfg(feature = "download")]
pub(crate) fn weight_files(stems: &[&str], variant: Option<&str>) -> Vec<String> {
    let variant = variant.map(|name| format!(".{name}")).unwrap_or_default();
    let mut names = vec![];
    for ending in &ENDINGS[..2] {
        for stem in stems {
            names.push(format!("{stem}{variant}.{ending}"));
            names.push(format!("{stem}.{ending}.index{variant}.json"));
            if !variant.is_empty() {
                names.push(format!("{stem}.{ending}{variant}.index.json"));
            }
        }
    }
    names
}

/// The files named by an index of shards, which must be in its directory.
///
/// # Errors
/// [`Error::Weights`] if the file is not an index, or names a file outside its directory;
/// [`Error::Io`] if it cannot be read.
pub fn shard_files(index: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |reason: String| Error::weights(index, reason);
    let text = crate::fs::read_text(index)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let map = json["weight_map"]
        .as_object()
        .ok_or_else(|| wrong("no weight_map".into()))?;
    let names: BTreeSet<&str> = map.values().filter_map(|name| name.as_str()).collect();
    let dir = index.parent().unwrap_or(Path::new(""));
    let path = |name: &str| match Path::new(name).file_name() {
        Some(plain) if plain == name => Ok(dir.join(name)),
        _ => Err(wrong(format!("names {name:?}, which is no file beside it"))),
    };
    names.into_iter().map(path).collect()
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
    if ["<!doctype", "<html", "<?xml"]
        .iter()
        .any(|tag| text.starts_with(tag))
    {
        let reason = "a web page, not weights; the download was answered with an error page";
        return Err(Error::weights(path, reason));
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks of this size")
}

fn elements<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).map(|b| value(array(b))).collect()
}

fn halves(bytes: &[u8], value: impl Fn(u16) -> f32) -> Vec<f32> {
    bytes
        .chunks_exact(2)
        .map(|b| value(u16::from_le_bytes(array(b))))
        .collect()
}

fn doubles(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(8)
        .map(|b| f64::from_le_bytes(array(b)) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A safetensors file with one tensor of this name.
    fn one_tensor(path: &Path, name: &str) {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        let bytes = [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &1f32.to_le_bytes(),
        ]
        .concat();
        std::fs::write(path, bytes).unwrap();
    }

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
        fails_with("invalid");
        std::fs::write(
            &path,
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n",
        )
        .unwrap();
        fails_with("a Git LFS pointer");
        std::fs::write(&path, "\n<!DOCTYPE html><html><body>Not found").unwrap();
        fails_with("a web page");
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

    /// Every name of a weight file that is requested from the hub is one that `from_dir` opens.
    #[cfg(feature = "download")]
    #[test]
    fn weight_files_are_candidates_in_order() {
        assert_eq!(
            weight_files(&["model"], None),
            [
                "model.safetensors",
                "model.safetensors.index.json",
                "model.bin",
                "model.bin.index.json",
            ]
        );
        assert_eq!(
            weight_files(&["model"], Some("fp16"))[..3],
            [
                "model.fp16.safetensors",
                "model.safetensors.index.fp16.json",
                "model.safetensors.fp16.index.json",
            ]
        );
        for variant in [None, Some("fp16")] {
            for name in weight_files(&["model"], variant) {
                let found = ENDINGS
                    .iter()
                    .find_map(|ending| Candidate::parse(&name, "model", ending));
                let found = found.expect("a candidate");
                assert_eq!(found.variant.as_deref(), variant, "{name}");
                assert_eq!(found.kind == Kind::Index, name.ends_with(".json"), "{name}");
            }
        }
    }

    #[test]
    fn directories_open_by_stem_shards_and_variant() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let open = || WeightReader::from_dir(dir.path(), &["model", "pytorch_model"]);
        let names = || open().unwrap().names().collect::<Vec<_>>().join(" ");
        let error = |reader: Result<WeightReader>| reader.unwrap_err().to_string();
        assert!(error(open()).contains("the directory holds nothing"));
        one_tensor(&at("other.safetensors"), "other");
        assert!(error(open()).contains("the directory holds other.safetensors"));
        one_tensor(&at("pytorch_model-00001-of-00002.safetensors"), "first");
        assert!(error(open()).contains("shards are missing: 2 of 2"));
        one_tensor(&at("pytorch_model-00002-of-00002.safetensors"), "second");
        assert_eq!(names(), "first second");
        // Whole weights come before a variant, whatever their stem and ending.
        one_tensor(&at("model.fp16.safetensors"), "half");
        assert_eq!(names(), "first second");
        for i in 1..3 {
            let shard = |ending: &str| at(&format!("pytorch_model-0000{i}-of-00002.{ending}"));
            std::fs::rename(shard("safetensors"), shard("bin")).unwrap();
        }
        assert_eq!(names(), "first second");
        assert!(open().unwrap().notes().is_empty());
        for i in 1..3 {
            std::fs::remove_file(at(&format!("pytorch_model-0000{i}-of-00002.bin"))).unwrap();
        }
        assert_eq!(names(), "half");
        assert!(open().unwrap().notes()[0].contains("the variant fp16 is the only one there"));
        one_tensor(&at("pytorch_model.fp16.bin"), "same variant");
        assert_eq!(names(), "half");
        one_tensor(&at("model.bf16.safetensors"), "brain");
        let several = error(open());
        assert!(
            several.contains("the variants bf16, fp16; choose one"),
            "{several}"
        );
        assert!(several.contains("from_dir_with_variant"), "{several}");
        let of_variant =
            |name| WeightReader::from_dir_with_variant(dir.path(), &["model"], Some(name));
        let bf16 = of_variant("bf16").unwrap();
        assert_eq!(
            (bf16.names().collect::<Vec<_>>(), bf16.notes().len()),
            (vec!["brain"], 0)
        );
        assert!(error(of_variant("fp8")).contains("variant fp8"));
        // Both names of the index of a variant.
        for (variant, index) in [
            ("new", "model.safetensors.index.new.json"),
            ("old", "model.safetensors.old.index.json"),
        ] {
            one_tensor(&at(&format!("{variant} shard")), variant);
            let text = format!(r#"{{"weight_map": {{"{variant}": "{variant} shard"}}}}"#);
            std::fs::write(at(index), text).unwrap();
            let reader = of_variant(variant).unwrap();
            assert_eq!(reader.names().collect::<Vec<_>>(), [variant]);
        }
        one_tensor(&at("model.safetensors"), "full");
        assert_eq!(names(), "full");
        let absent = at("absent");
        assert!(error(WeightReader::from_dir(&absent, &["model"])).contains("absent"));
    }
}
