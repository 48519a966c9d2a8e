//! Checkpoints of trainings: the tensors of their `state_dict` among values of many kinds, some of
//! which `pytorch-reader` refuses, such as the classes of callbacks as keys.

use super::{
    Pickle,
    machine::{Id, Machine, Value},
};
use crate::{Error, Result, weights::stored::Place};
use pytorch_reader::DType;
use safetensors::Dtype;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex},
};

/// The most dictionaries and lists around a tensor.
const DEEPEST: usize = 32;

/// Where a storage lies in the file, in bytes.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

/// The tensors of a checkpoint with their shapes, as bytes of the file.
///
/// # Errors
/// [`Error::Weights`] if the file is broken or has none, or if a tensor is not contiguous;
/// [`Error::Io`] if it cannot be read.
pub(super) fn tensors(path: &Path, pickle: &Pickle) -> Result<Vec<(String, Vec<usize>, Place)>> {
    let wrong = |reason: String| Error::weights(path, reason);
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (values, root, storages) = match &pickle.root {
        Some(folder) => {
            let (values, root, _) = Machine::read(&pickle.bytes).map_err(wrong)?;
            let storages = archived(path, &file, folder)?;
            (values, root, storages)
        }
        None => legacy(path, &mut file, &pickle.bytes)?,
    };
    let file = Arc::new(Mutex::new(file));
    let found = named(&values, state_dict(&values, root));
    let tensor = |(name, id): (String, Id)| {
        let Value::Tensor {
            key,
            dtype,
            first,
            shape,
            steps,
        } = &values[id]
        else {
            unreachable!("only tensors are named");
        };
        let wrong = |what: &str| Error::weights(path, format!("{name} {what}"));
        let range = storages
            .get(key)
            .ok_or_else(|| wrong("has no data in the file"))?;
        let len = contiguous(shape, steps).ok_or_else(|| wrong("is not contiguous"))?;
        let size = dtype.size();
        let end = first.checked_add(len).and_then(|end| end.checked_mul(size));
        if end.is_none_or(|end| end as u64 > range.len) {
            return Err(wrong("is larger than its data"));
        }
        let place = Place::Bytes {
            file: file.clone(),
            start: range.start + (first * size) as u64,
            len,
            dtype: stored(*dtype),
        };
        Ok((name.clone(), shape.clone(), place))
    };
    found.into_iter().map(tensor).collect()
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

/// The number of elements of a tensor that is contiguous.
fn contiguous(shape: &[usize], steps: &[usize]) -> Option<usize> {
    if shape.len() != steps.len() {
        return None;
    }
    let mut len = 1usize;
    for (size, step) in shape.iter().zip(steps).rev() {
        if *size > 1 && *step != len {
            return None;
        }
        len = len.checked_mul(*size)?;
    }
    Some(len)
}

/// The dictionary under `state_dict` or `model`, else the root.
fn state_dict(values: &[Value], root: Id) -> Id {
    let Value::Dict(entries) = &values[root] else {
        return root;
    };
    let inner = |name: &str| {
        let is_it = |(key, value): &&(Id, Id)| {
            matches!(&values[*key], Value::Text(text) if text == name)
                && !named(values, *value).is_empty()
        };
        entries.iter().find(is_it).map(|(_, value)| *value)
    };
    ["model", "state_dict"]
        .into_iter()
        .find_map(inner)
        .unwrap_or(root)
}

/// The tensors in dictionaries and lists below `root`, under the names of their keys joined by
/// dots. A container that occurs twice is entered once.
fn named(values: &[Value], root: Id) -> Vec<(String, Id)> {
    let mut found = BTreeMap::new();
    let mut entered = HashSet::new();
    let mut rest = vec![(String::new(), root, 0)];
    while let Some((name, id, depth)) = rest.pop() {
        let inner = |key: &str| match name.is_empty() {
            true => key.to_owned(),
            false => format!("{name}.{key}"),
        };
        match &values[id] {
            Value::Tensor { .. } => drop(found.insert(name, id)),
            Value::Dict(_) | Value::Items(_) if depth == DEEPEST || !entered.insert(id) => {}
            Value::Dict(entries) => rest.extend(entries.iter().filter_map(|(key, value)| {
                let key = match &values[*key] {
                    Value::Text(key) => inner(key),
                    Value::Int(key) => inner(&key.to_string()),
                    _ => return None,
                };
                Some((key, *value, depth + 1))
            })),
            Value::Items(items) => {
                let items = items.iter().enumerate();
                rest.extend(items.map(|(at, item)| (inner(&at.to_string()), *item, depth + 1)));
            }
            _ => {}
        }
    }
    found.into_iter().collect()
}

/// The storages of an archive: the files `FOLDER/data/KEY`, which are not compressed.
fn archived(path: &Path, file: &File, folder: &str) -> Result<HashMap<String, Range>> {
    let wrong = |error: zip::result::ZipError| Error::weights(path, error);
    let mut archive = zip::ZipArchive::new(file).map_err(wrong)?;
    let mut storages = HashMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(wrong)?;
        let name = entry.name().map_err(wrong)?.into_owned();
        let key = name
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix("data/"));
        let Some(key) = key else {
            continue;
        };
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(Error::weights(path, format!("{name} is compressed")));
        }
        let start = entry.data_start().unwrap_or(u64::MAX);
        let range = Range {
            start,
            len: entry.size(),
        };
        storages.insert(key.to_owned(), range);
    }
    let length = file.metadata().map_err(Error::io(path))?.len();
    let ends_outside = |range: &Range| {
        range
            .start
            .checked_add(range.len)
            .is_none_or(|end| end > length)
    };
    match storages.iter().find(|(_, range)| ends_outside(range)) {
        Some((key, _)) => Err(Error::weights(
            path,
            format!("data/{key} ends beyond the file"),
        )),
        None => Ok(storages),
    }
}

/// The pickles of a file in the format before archives (a magic number, the version, the system,
/// the checkpoint, the keys of its storages) and the storages after them, each with its length.
fn legacy(
    path: &Path,
    file: &mut File,
    bytes: &[u8],
) -> Result<(Vec<Value>, Id, HashMap<String, Range>)> {
    let wrong = |reason: String| Error::weights(path, reason);
    let mut at = 0;
    let mut next = || {
        let (values, root, len) = Machine::read(&bytes[at..]).map_err(wrong)?;
        at += len;
        Ok((values, root))
    };
    for _ in 0..3 {
        next()?;
    }
    let (values, root) = next()?;
    let (keys, list) = next()?;
    let types: HashMap<&String, DType> = values
        .iter()
        .filter_map(|value| match value {
            Value::Storage { key, dtype } => Some((key, *dtype)),
            _ => None,
        })
        .collect();
    let Value::Items(list) = &keys[list] else {
        return Err(wrong("no list of storages".into()));
    };
    let length = file.metadata().map_err(Error::io(path))?.len();
    let (mut start, mut storages) = (at as u64, HashMap::new());
    for key in list {
        let key = match &keys[*key] {
            Value::Text(key) => key.clone(),
            Value::Int(key) => key.to_string(),
            _ => return Err(wrong("a storage without a key".into())),
        };
        let Some(dtype) = types.get(&key) else {
            return Err(wrong(format!("the storage {key} has an unknown type")));
        };
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut count))
            .map_err(Error::io(path))?;
        let len = u64::from_le_bytes(count).checked_mul(dtype.size() as u64);
        let end = len.and_then(|len| start.checked_add(8)?.checked_add(len));
        let (Some(len), Some(end)) = (len, end.filter(|end| *end <= length)) else {
            return Err(wrong(format!("the storage {key} ends beyond the file")));
        };
        let range = Range {
            start: start + 8,
            len,
        };
        storages.insert(key, range);
        start = end;
    }
    Ok((values, root, storages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::WeightReader;
    use std::path::PathBuf;

    /// A checkpoint as PyTorch Lightning 1.4 writes it, with torch 2.15 in both formats: half,
    /// brain and single precision, integers, a view, a parameter, shared tensors; besides them
    /// callbacks by their class, states of an optimizer, numbers of numpy and large integers.
    const FILES: [&[u8]; 2] = [
        include_bytes!("lightning.ckpt"),
        include_bytes!("lightning-legacy.ckpt"),
    ];

    fn file(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join("model.ckpt");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn checkpoints_of_lightning_open() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in FILES {
            let reader = WeightReader::open(&file(&dir, bytes)).unwrap();
            let shapes: Vec<_> = reader
                .names()
                .map(|name| (name, reader.shape(name).unwrap()))
                .collect();
            let expected: [(&str, &[usize]); 9] = [
                ("b", &[4]),
                ("model.diffusion_model.w", &[3, 4]),
                ("model_ema.w", &[3, 4]),
                ("p", &[2]),
                ("position_ids", &[1, 5]),
                ("scalar", &[]),
                ("t1", &[2, 2]),
                ("t2", &[2, 2]),
                ("view", &[2, 4]),
            ];
            assert_eq!(shapes, expected);
            let read = |name: &str| reader.read(name).unwrap();
            assert_eq!(read("b"), [0.19140625, 1.265625, -1.2890625, -0.79296875]);
            let half = read("model.diffusion_model.w");
            assert_eq!(half[..3], [1.541_015_6, -0.293_457_03, -2.1796875]);
            assert_eq!(read("view"), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
            assert_eq!((read("scalar"), read("p")), (vec![2.5], vec![1.0; 2]));
            assert!(read("t1") == read("t2") && read("t1")[1] == -0.718_480_05);
            assert_eq!(reader.read_int("position_ids").unwrap(), [0, 1, 2, 3, 4]);
        }
    }

    /// Truncated and changed files are errors, or other values, and never a panic.
    #[test]
    fn broken_checkpoints_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let read_all = |bytes: &[u8]| {
            let path = file(&dir, bytes);
            let pickle = Pickle::read(&path)?;
            tensors(&path, &pickle).map(|tensors| tensors.len())
        };
        for bytes in FILES {
            assert_eq!(read_all(bytes).unwrap(), 9);
            for len in (0..bytes.len()).step_by(61) {
                let found = read_all(&bytes[..len]);
                assert!(found.is_err(), "{len} of {} bytes: {found:?}", bytes.len());
            }
            for at in (0..bytes.len()).step_by(13) {
                for change in [0x01, 0x80, 0xff] {
                    let mut changed = bytes.to_vec();
                    changed[at] ^= change;
                    let _ = read_all(&changed);
                }
            }
        }
    }

    #[test]
    fn small_pickles_stay_small() {
        // A dictionary that contains itself, and a chain of lists of which each holds the one
        // before twice.
        let mut bytes = b"}q\x00X\x01\x00\x00\x00ah\x00s".to_vec();
        bytes.extend(b"]q\x01");
        for _ in 0..200 {
            bytes.extend(b"(h\x01h\x01lq\x01");
        }
        bytes.extend(b"\x86.");
        let (values, root, len) = Machine::read(&bytes).unwrap();
        assert_eq!(len, bytes.len());
        assert!(named(&values, root).is_empty() && values.len() < 300);
        for (bytes, reason) in [
            (&b"h\x00."[..], "recalls"),
            (b".", "empty stack"),
            (b"(0.", "empty stack"),
            (b"X\xff\xff\xff\xff", "truncated"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "truncated"),
            (b"\xfe", "instruction 0xfe"),
        ] {
            let error = Machine::read(bytes).err().unwrap();
            assert!(error.contains(reason), "{error}");
        }
    }
}
