//! Checkpoints of trainings: the tensors of their `state_dict` among values of many kinds, some of
//! which `pytorch-reader` refuses, such as the classes of callbacks as keys.

use super::{
    Parsed, Pickle,
    value::{Id, Value},
};
use crate::{
    Error, Result,
    weights::stored::{Place, Step, Stored},
};
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
/// The longest name of a tensor, in bytes.
const LONGEST_NAME: usize = 512;

/// Where a storage lies in the file, in bytes.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

/// The tensors of a checkpoint, as bytes of the file.
///
/// # Errors
/// [`Error::Weights`] if the file is broken, or a tensor does not lie in its storage;
/// [`Error::Io`] if it cannot be read.
pub(super) fn tensors(path: &Path, pickle: &Pickle, parsed: &Parsed) -> Result<Vec<Stored>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let storages = match (&pickle.root, &parsed.keys) {
        (Some(folder), _) => archived(path, &file, folder)?,
        (None, Some((keys, start))) => legacy(path, &mut file, &parsed.values, keys, *start)?,
        (None, None) => HashMap::new(),
    };
    let (values, file) = (&parsed.values, Arc::new(Mutex::new(file)));
    let path: Arc<Path> = path.into();
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
        let wrong = |what: &str| Error::weights(&path, format!("{name} {what}"));
        let range = storages
            .get(key)
            .ok_or_else(|| wrong("has no data in the file"))?;
        let axes = axes(shape, steps).ok_or_else(|| wrong("has impossible sizes or strides"))?;
        let size = dtype.size();
        let end = first
            .checked_add(axes.extent)
            .and_then(|end| end.checked_mul(size));
        if end.is_none_or(|end| end as u64 > range.len) {
            return Err(wrong("is larger than its data"));
        }
        // Rows may be repeated by a stride of 0.
        let bytes = axes.elements.checked_mul(size);
        if bytes.is_none_or(|bytes| bytes as u64 > length) {
            return Err(wrong("is larger than the file"));
        }
        let place = Place::Bytes {
            file: file.clone(),
            start: range.start + (first * size) as u64,
            len: axes.extent,
            dtype: stored(*dtype),
        };
        Ok(Stored {
            name,
            shape: shape.clone(),
            path: path.clone(),
            place,
            steps: axes.gather.into_iter().collect(),
        })
    };
    let found = named(values, state_dict(values, parsed.root));
    found.into_iter().map(tensor).collect()
}

/// Numbers and texts beside the tensors, such as `epoch` and `global_step`.
pub(super) fn metadata(parsed: &Parsed) -> BTreeMap<String, String> {
    let Value::Dict(entries) = &parsed.values[parsed.root] else {
        return BTreeMap::new();
    };
    let entry = |(key, value): &(Id, Id)| {
        let Value::Text(key) = &parsed.values[*key] else {
            return None;
        };
        let value = match &parsed.values[*value] {
            Value::Int(value) => value.to_string(),
            Value::Text(value) if value.len() <= LONGEST_NAME => value.clone(),
            _ => return None,
        };
        Some((key.clone(), value))
    };
    entries.iter().filter_map(entry).collect()
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

/// How the elements of a tensor lie in its storage.
struct Axes {
    elements: usize,
    /// Elements of the storage from the first to the last one of the tensor.
    extent: usize,
    /// `None` if it is contiguous.
    gather: Option<Step>,
}

/// `None` if sizes and strides do not belong together or are too large.
fn axes(shape: &[usize], strides: &[usize]) -> Option<Axes> {
    if shape.len() != strides.len() {
        return None;
    }
    let product = |len: usize, size: &usize| len.checked_mul(*size);
    let elements = shape.iter().try_fold(1, product)?;
    let (mut last, mut inner, mut contiguous) = (0usize, 1usize, true);
    let mut axes = vec![];
    for (size, stride) in shape.iter().zip(strides).rev() {
        // An axis of one element is not stepped along.
        let stride = if *size > 1 { *stride } else { 0 };
        contiguous &= *size <= 1 || stride == inner;
        if elements > 0 {
            inner = inner.checked_mul(*size)?;
            last = (size - 1).checked_mul(stride)?.checked_add(last)?;
        }
        axes.push((*size, stride));
    }
    axes.reverse();
    Some(Axes {
        elements,
        extent: if elements > 0 {
            last.checked_add(1)?
        } else {
            0
        },
        gather: (!contiguous && elements > 0).then(|| Step::Gather(axes.into())),
    })
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
    if let Value::Tensor { .. } = &values[root] {
        return vec![(String::new(), root)];
    }
    let mut found = BTreeMap::new();
    let mut entered = HashSet::new();
    let mut rest = vec![(String::new(), root, 0)];
    while let Some((name, id, depth)) = rest.pop() {
        if depth == DEEPEST || !entered.insert(id) {
            continue;
        }
        let mut visit = |key: &str, id: Id| {
            if name.len() + key.len() >= LONGEST_NAME {
                return;
            }
            let inner = || match name.is_empty() {
                true => key.to_owned(),
                false => format!("{name}.{key}"),
            };
            match &values[id] {
                Value::Tensor { .. } => drop(found.insert(inner(), id)),
                Value::Dict(_) | Value::Items(_) => rest.push((inner(), id, depth + 1)),
                _ => {}
            }
        };
        match &values[id] {
            Value::Dict(entries) => {
                for (key, value) in entries {
                    match &values[*key] {
                        Value::Text(key) => visit(key, *value),
                        Value::Int(key) => visit(&key.to_string(), *value),
                        _ => {}
                    }
                }
            }
            Value::Items(items) => {
                for (at, item) in items.iter().enumerate() {
                    visit(&at.to_string(), *item);
                }
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
    let mut order = String::new();
    if let Ok(entry) = archive.by_name(&format!("{folder}byteorder")) {
        let read = entry.take(16).read_to_string(&mut order);
        read.map_err(Error::io(path))?;
    }
    if order.trim() == "big" {
        let reason = "numbers with the highest byte first are not read";
        return Err(Error::weights(path, reason));
    }
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

/// The storages of a file in the format before archives, from byte `start` on in the order of
/// `keys`, each with its length.
fn legacy(
    path: &Path,
    file: &mut File,
    values: &[Value],
    keys: &[String],
    mut start: u64,
) -> Result<HashMap<String, Range>> {
    let wrong = |reason: String| Error::weights(path, reason);
    let types: HashMap<&str, DType> = values
        .iter()
        .filter_map(|value| match value {
            Value::Storage { key, dtype } => Some((&key[..], *dtype)),
            _ => None,
        })
        .collect();
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut storages = HashMap::new();
    for key in keys {
        let Some(dtype) = types.get(&key[..]) else {
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
        storages.insert(key.clone(), range);
        start = end;
    }
    Ok(storages)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{machine::Machine, value::Fault},
        *,
    };
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
            let parsed = pickle.parse();
            let parsed = parsed.map_err(|fault| Error::weights(&path, fault))?;
            tensors(&path, &pickle, &parsed).map(|tensors| tensors.len())
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
        let read = Machine::read(&bytes).expect("a pickle");
        assert_eq!(read.len, bytes.len());
        assert!(named(&read.values, read.root).is_empty() && read.values.len() < 300);
        for (bytes, reason) in [
            (&b"h\x00."[..], "recalls"),
            (b".", "empty stack"),
            (b"(0.", "empty stack"),
            (b"X\xff\xff\xff\xff", "truncated"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "truncated"),
            (b"\xfe", "instruction 0xfe"),
        ] {
            let error = Machine::read(bytes).err().expect(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    /// A key of a mebibyte before thousands of others would give names of gibibytes.
    #[test]
    fn keys_and_values_are_bounded() {
        let text = |text: &[u8]| {
            let len = (text.len() as u32).to_le_bytes();
            [&b"X"[..], &len, text].concat()
        };
        let long = [&b"}"[..], &text(&vec![b'a'; 1 << 20]), b"}s."].concat();
        let many = [&b"("[..], &vec![b'N'; (1 << 22) + 1], b"l."].concat();
        for (bytes, reason) in [(long, "a key of 1048576 bytes"), (many, "4194304 values")] {
            match Machine::read(&bytes) {
                Err(Fault::TooLarge(found)) => assert!(found.contains(reason), "{found}"),
                _ => panic!("{reason}"),
            }
        }
        // A tensor below several keys of 100 bytes: its name has a limit.
        let tensor = Value::Tensor {
            key: "0".into(),
            dtype: DType::F32,
            first: 0,
            shape: vec![],
            steps: vec![],
        };
        let mut values = vec![Value::Text("b".repeat(100)), tensor];
        for depth in 1..8 {
            values.push(Value::Dict(vec![(0, values.len() - 1)]));
            let found = named(&values, values.len() - 1);
            assert_eq!(found.len(), usize::from(depth < 6), "{depth}");
        }
    }

    /// Strides as PyTorch has them: of a transpose, of channels last, of a repeated row.
    #[test]
    fn strides_give_extents() {
        let of = |shape: &[usize], strides: &[usize]| {
            let axes = axes(shape, strides)?;
            Some((axes.elements, axes.extent, axes.gather.is_some()))
        };
        assert_eq!(of(&[2, 3], &[3, 1]), Some((6, 6, false)));
        assert_eq!(of(&[2, 1, 3], &[3, 77, 1]), Some((6, 6, false)));
        assert_eq!(of(&[3, 2], &[1, 3]), Some((6, 6, true)));
        assert_eq!(of(&[2, 3, 2, 2], &[12, 1, 6, 3]), Some((24, 24, true)));
        assert_eq!(of(&[5, 3], &[0, 1]), Some((15, 3, true)));
        assert_eq!(of(&[2, 2], &[5, 1]), Some((4, 7, true)));
        assert_eq!(of(&[], &[]), Some((1, 1, false)));
        assert_eq!(of(&[0, 3], &[3, 1]), Some((0, 0, false)));
        assert_eq!(of(&[2], &[1, 1]), None);
        assert_eq!(of(&[usize::MAX, 3], &[1, 1]), None);
        assert_eq!(of(&[2, 2], &[usize::MAX, 1]), None);
    }
}
