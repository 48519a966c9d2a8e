//! Files of weights as others write them: safetensors, whole or in shards, and what PyTorch pickles.

use super::weights::list;
use crate::{
    Error, Result,
    params::{Replace, map_params},
};
use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use half::{bf16, f16};
use pytorch_reader::{DType as PickledType, PytorchReader};
use safetensors::{Dtype, tensor::Metadata};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// How much of an old file may be pickles.
const LONGEST_PICKLE: u64 = 1 << 24;

/// The longest header of a safetensors file, as its reference implementation has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// Tensors in files, each read when it is asked for: no more memory than the tensors themselves.
pub struct WeightReader {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
    files: Vec<Mutex<File>>,
}

struct Stored {
    shape: Vec<usize>,
    place: Place,
}

enum Place {
    /// Bytes of one of the files.
    Bytes {
        file: usize,
        start: u64,
        dtype: Dtype,
    },
    Pickled(pytorch_reader::Tensor),
}

/// Where a model's tensor stands in files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its names, the usual one first; without any, it is not looked for and stays as it is.
    pub names: Vec<String>,
    /// Whether its two axes are the other way round there.
    pub transposed: bool,
}

impl std::fmt::Debug for WeightReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightReader").field("path", &self.path).field("tensors", &self.tensors.len()).finish()
    }
}

impl WeightReader {
    /// Opens the weights of a folder: `STEM.safetensors` or `STEM.safetensors.index.json` with the shards that it names, for
    /// the first of the stems that is there, then the same with `.bin`.
    ///
    /// # Errors
    /// [`Error::Weights`] if there are none, or they are broken.
    pub fn from_dir(folder: &Path, stems: &[&str]) -> Result<Self> {
        let names = ["safetensors", "bin"].iter().flat_map(|kind| {
            stems.iter().flat_map(move |stem| [format!("{stem}.{kind}"), format!("{stem}.{kind}.index.json")])
        });
        let names: Vec<String> = names.collect();
        match names.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
            Some(path) => Self::open(&path),
            None => Err(Error::weights(folder, format!("none of {} is there", names.join(", ")))),
        }
    }

    /// Opens a file by the end of its name: `.safetensors`, `.index.json` with the shards that it names, or anything else as
    /// what PyTorch pickles. Pickles are read and never run.
    ///
    /// # Errors
    /// [`Error::Weights`] if it is broken; [`Error::Io`] if it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut all = Self { path: path.into(), tensors: BTreeMap::new(), files: Vec::new() };
        let name = path.to_string_lossy();
        if name.ends_with(".safetensors") {
            all.add_safetensors(path)?;
        } else if name.ends_with(".json") {
            for shard in shards(path)? {
                if shard.extension().is_some_and(|kind| kind == "safetensors") {
                    all.add_safetensors(&shard)?;
                } else {
                    all.add_pickled(&shard)?;
                }
            }
        } else {
            all.add_pickled(path)?;
        }
        Ok(all)
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
            return Err(wrong(format!("no safetensors file: a header of {size} bytes in a file of {length}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(Error::io(path))?;
        // Refuses what overlaps, leaves gaps or does not fit its shape.
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
        let expected = (8 + size).saturating_add(metadata.data_len() as u64);
        if length != expected {
            return Err(wrong(format!("truncated or oversized: {length} bytes, {expected} by its header")));
        }
        for (name, info) in metadata.tensors() {
            let start = 8 + size + info.data_offsets.0 as u64;
            let place = Place::Bytes { file: self.files.len(), start, dtype: info.dtype };
            self.tensors.insert(name, Stored { shape: info.shape.clone(), place });
        }
        self.files.push(Mutex::new(file));
        Ok(())
    }

    fn add_pickled(&mut self, path: &Path) -> Result<()> {
        let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
        let code = named_code(path)?;
        if !code.is_empty() {
            let reason = format!(
                "names code that opening it elsewhere would run ({}); nothing was run, and nothing read: ask for safetensors",
                code.into_iter().collect::<Vec<_>>().join(", ")
            );
            return Err(Error::weights(path, reason));
        }
        // Training programs keep the weights beside other things.
        let inside = |key: &&str| PytorchReader::with_top_level_key(path, key).ok().filter(|reader| !reader.is_empty());
        let reader = match ["model", "state_dict"].iter().find_map(inside) {
            Some(reader) => reader,
            None => PytorchReader::new(path).map_err(|error| Error::weights(path, error))?,
        };
        for (name, tensor) in reader.into_tensors() {
            // A view may claim to be larger than what it is a view of.
            if tensor.byte_len() as u64 > length {
                let reason = format!("{name} claims {} bytes, the file has {length}", tensor.byte_len());
                return Err(Error::weights(path, reason));
            }
            self.tensors.insert(name, Stored { shape: tensor.shape().to_vec(), place: Place::Pickled(tensor) });
        }
        Ok(())
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| &tensor.shape[..])
    }

    /// Numbers of a tensor, as 32-bit floats.
    ///
    /// # Errors
    /// [`Error::Weights`] if there is no such tensor, or it holds no floats; [`Error::Io`] if it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let wrong = |reason: String| Error::weights(&self.path, reason);
        let tensor = self.tensors.get(name).ok_or_else(|| wrong(format!("there is no {name}")))?;
        let n: usize = tensor.shape.iter().product();
        match &tensor.place {
            Place::Bytes { file, start, dtype } => {
                let mut file = self.files[*file].lock().unwrap_or_else(|e| e.into_inner());
                file.seek(SeekFrom::Start(*start)).map_err(Error::io(&self.path))?;
                let mut bytes = |size: usize| {
                    let mut bytes = vec![0; n * size];
                    file.read_exact(&mut bytes).map(|()| bytes).map_err(Error::io(&self.path))
                };
                match dtype {
                    // Straight into place.
                    Dtype::F32 => {
                        let mut values = vec![0f32; n];
                        file.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(Error::io(&self.path))?;
                        if cfg!(target_endian = "big") {
                            values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
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
                    PickledType::F32 => Ok(bytes.chunks_exact(4).map(|b| f32::from_ne_bytes(array(b))).collect()),
                    PickledType::F16 => Ok(halves(&bytes, |bits| f16::from_bits(bits).to_f32())),
                    PickledType::BF16 => Ok(halves(&bytes, |bits| bf16::from_bits(bits).to_f32())),
                    PickledType::F64 => Ok(doubles(&bytes)),
                    other => Err(wrong(format!("{name} holds {other:?}, not floats"))),
                }
            }
        }
    }

    /// Gives every tensor of `model` what `source` says, by the tensor's path. Tensors that the model does not have are
    /// allowed where `spare` says so.
    ///
    /// # Errors
    /// [`Error::Weights`] names all tensors that are missing, of another shape, or too many; and what [`read`](Self::read)
    /// says.
    pub fn fill<M: Module>(
        &self,
        model: M,
        source: impl Fn(&str) -> Source,
        spare: impl Fn(&str) -> bool,
    ) -> Result<M> {
        let mut fill =
            Fill { files: self, source: &source, used: BTreeSet::new(), missing: vec![], unfit: vec![], failed: None };
        let model = map_params(model, &mut fill);
        let Fill { used, missing, unfit, failed, .. } = fill;
        let foreign = self.names().filter(|name| !used.contains(*name) && !spare(name)).map(str::to_owned).collect();
        let kinds: [(&str, Vec<String>); 3] =
            [("does not fit", unfit), ("lacks", missing), ("holds what the model does not have", foreign)];
        let problems: Vec<String> = kinds
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| list(what, names.into_iter()))
            .collect();
        match failed {
            _ if !problems.is_empty() => Err(Error::weights(&self.path, problems.join("; "))),
            Some(error) => Err(error),
            None => Ok(model),
        }
    }
}

struct Fill<'a, S> {
    files: &'a WeightReader,
    source: &'a S,
    used: BTreeSet<String>,
    missing: Vec<String>,
    unfit: Vec<String>,
    failed: Option<Error>,
}

impl<S: Fn(&str) -> Source> Replace for Fill<'_, S> {
    fn replace<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Source { names, transposed } = (self.source)(path);
        if names.is_empty() {
            return param;
        }
        let Some(name) = names.iter().find(|name| self.files.tensors.contains_key(*name)) else {
            self.missing.extend(names.into_iter().next());
            return param;
        };
        self.used.insert(name.clone());
        let mut expected: Vec<usize> = param.lazy_shape().to_vec();
        if transposed {
            expected.reverse();
        }
        let found = &self.files.tensors[name].shape;
        if *found != expected {
            self.unfit.push(format!("{name} ({found:?}, expected {expected:?})"));
            return param;
        }
        // Nothing is read for a model that will not be whole.
        if self.failed.is_some() || !self.missing.is_empty() || !self.unfit.is_empty() {
            return param;
        }
        match self.files.read(name) {
            Ok(values) => {
                let values = if transposed { turned(&values, expected[D - 1]) } else { values };
                let data = TensorData::new(values, param.lazy_shape());
                let (id, tensor) = (param.id, Tensor::from_data(data, &param.lazy_device()));
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}

/// The transpose of a matrix, in order in memory, which a backend's transpose need not be.
fn turned(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns)).copied().collect()
}

/// The files that an index of shards names, all of them beside it.
///
/// # Errors
/// [`Error::Weights`] if it is no index, or names a file that is not beside it; [`Error::Io`] if it cannot be read.
pub fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |reason: String| Error::weights(index, reason);
    let text = std::fs::read_to_string(index).map_err(Error::io(index))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| wrong("no weight_map".into()))?;
    let names: BTreeSet<&str> = map.values().filter_map(|name| name.as_str()).collect();
    let folder = index.parent().unwrap_or(Path::new(""));
    let path = |name: &str| match Path::new(name).file_name() {
        Some(plain) if plain == name => Ok(folder.join(name)),
        _ => Err(wrong(format!("names {name:?}, which is no file beside it"))),
    };
    names.into_iter().map(path).collect()
}

/// Functions and classes that a pickle names, other than those that tensors are made of.
fn named_code(path: &Path) -> Result<BTreeSet<String>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut pickle = Vec::new();
    match zip::ZipArchive::new(&file) {
        Ok(mut archive) => {
            let name =
                archive.file_names().flatten().find(|name| name.ends_with("data.pkl")).map(|name| name.into_owned());
            if let Some(name) = name {
                let entry = archive.by_name(&name).map_err(|error| Error::weights(path, error))?;
                entry.take(pytorch_reader::MAX_PICKLE_SIZE).read_to_end(&mut pickle).map_err(Error::io(path))?;
            }
        }
        // Before archives, pickles came first and the numbers behind them.
        Err(_) => {
            File::open(path)
                .and_then(|file| file.take(LONGEST_PICKLE).read_to_end(&mut pickle))
                .map_err(Error::io(path))?;
        }
    }
    let known =
        |name: &str| ["torch.", "collections.", "numpy.", "_codecs."].iter().any(|module| name.starts_with(module));
    Ok(globals(&pickle).into_iter().filter(|name| !known(name)).collect())
}

/// What `GLOBAL` (`c`, module, name, a line each) and `INST` (`i`) name; and what stands before `STACK_GLOBAL`.
fn globals(pickle: &[u8]) -> BTreeSet<String> {
    let is_word = |bytes: &[u8]| {
        bytes.len() > 1
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(b))
            && !bytes[0].is_ascii_digit()
    };
    let line =
        |from: usize| pickle.get(from..)?.iter().take(200).position(|b| *b == b'\n').map(|n| &pickle[from..from + n]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // A string with its length in one byte, ending before `end`, and where it begins.
    let string_before = |end: usize| {
        (2..end.min(200)).find_map(|n| {
            let start = end - n;
            let holds = pickle[start] == 0x8c && usize::from(pickle[start + 1]) == n - 2;
            (holds && is_word(&pickle[start + 2..end])).then(|| (start, text(&pickle[start + 2..end])))
        })
    };
    // Memoizing (`MEMOIZE`) may stand between.
    let skip = |end: usize| if end > 0 && pickle[end - 1] == 0x94 { end - 1 } else { end };
    let mut names = BTreeSet::new();
    let mut at = 0;
    while at < pickle.len() {
        let byte = pickle[at];
        at += 1;
        if matches!(byte, b'c' | b'i')
            && let Some(module) = line(at).filter(|module| is_word(module))
            && let Some(name) = line(at + 1 + module.len()).filter(|name| is_word(name))
        {
            names.insert(format!("{}.{}", text(module), text(name)));
            at += module.len() + name.len() + 2;
        } else if byte == 0x93
            && let Some((start, name)) = string_before(skip(at - 1))
            && let Some((_, module)) = string_before(skip(start))
        {
            names.insert(format!("{module}.{name}"));
        }
    }
    names
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks of this size")
}

fn halves(bytes: &[u8], value: impl Fn(u16) -> f32) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| value(u16::from_le_bytes(array(b)))).collect()
}

fn doubles(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes(array(b)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_code_are_found_in_old_and_new_pickles() {
        let names = |pickle: &[u8]| globals(pickle).into_iter().collect::<Vec<_>>();
        assert_eq!(names(b"\x80\x02ccollections\nOrderedDict\nq\x00)R."), ["collections.OrderedDict"]);
        assert_eq!(names(b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00exit\x85R."), ["posix.system"]);
        // Protocol 4: module and name as strings, remembered or not.
        assert_eq!(names(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."), ["posix.system"]);
        assert_eq!(names(b"\x80\x04\x8c\x05posix\x8c\x06system\x93."), ["posix.system"]);
        assert_eq!(names(b"c\n\nc1\n2\n\x93\x94\x93"), [] as [&str; 0]);
    }

    #[test]
    fn broken_files_are_refused_without_reading_what_they_promise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let file = |header: &str, data: &[u8]| {
            let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
            std::fs::write(&path, bytes).unwrap();
        };
        let says = |what: &str| {
            let error = WeightReader::open(&path).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("model.safetensors"), "{what}: {error}");
        };
        std::fs::write(&path, b"short").unwrap();
        says("truncated");
        std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
        says("a header of");
        file("{", b"");
        says("EOF");
        let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        file(two, &[0; 7]);
        says("truncated or oversized");
        file(r#"{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#, &[0; 8]);
        says("truncated or oversized");
        file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, &[0; 8]);
        says("invalid");
        file(two, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        let files = WeightReader::open(&path).unwrap();
        assert_eq!((files.read("a").unwrap(), files.shape("a")), (vec![1.0, -2.0], Some(&[2][..])));
        assert!(files.read("b").unwrap_err().to_string().contains("there is no b"));
        // An index that leads out of its folder.
        let index = folder.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map": {"a": "../model.safetensors"}}"#).unwrap();
        assert!(WeightReader::open(&index).unwrap_err().to_string().contains("no file beside it"));
        assert!(
            WeightReader::from_dir(&folder.path().join("none"), &["model"])
                .unwrap_err()
                .to_string()
                .contains("model.bin")
        );
    }
}
