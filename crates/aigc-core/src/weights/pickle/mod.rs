//! PyTorch's pickles, read without executing them.

mod checkpoint;
mod machine;
mod names;
mod value;

use super::stored::{Place, Stored};
use crate::{Error, Result};
use machine::Machine;
use names::{globals, named_code};
use pytorch_reader::PytorchReader;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::Path,
    sync::Arc,
};
use value::{Fault, Id, Unpickled, Value};

/// Limit on the pickle in a file that is not an archive, in bytes.
const LONGEST_PICKLE: u64 = 1 << 24;

/// How many times as large as the file its archive may be when unpacked. PyTorch's archives are
/// not compressed.
const MOST_UNPACKED: u64 = 16;

/// The tensors of a file, and the numbers and texts beside them.
pub(super) struct Contents {
    pub(super) tensors: Vec<Stored>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// The pickle of a file, or the beginning of a file that has several.
struct Pickle {
    bytes: Vec<u8>,
    /// The folder with the pickle, in an archive: empty, or a name with a slash.
    root: Option<String>,
}

/// The values of a pickle.
struct Parsed {
    values: Vec<Value>,
    root: Id,
    /// Functions and classes that the pickles of the file name.
    names: BTreeSet<String>,
    /// In the format before archives: the storages in order, and the byte where they begin.
    keys: Option<(Vec<String>, u64)>,
}

/// The tensors of a file: of its `model` or `state_dict` entry, or of the file itself. Of a
/// checkpoint, values other than tensors are ignored, but for numbers and texts.
///
/// # Errors
/// [`Error::Weights`] if the file is broken, names code or would need much more memory than its
/// tensors; [`Error::Io`] if it cannot be read.
pub(super) fn contents(path: &Path) -> Result<Contents> {
    let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
    let pickle = Pickle::read(path)?;
    let parsed = match pickle.parse() {
        Err(fault @ Fault::TooLarge(_)) => return Err(Error::weights(path, fault)),
        parsed => parsed.ok(),
    };
    let names = match &parsed {
        Some(parsed) => parsed.names.clone(),
        None => globals(&pickle.bytes),
    };
    let code = named_code(&names);
    if !code.is_empty() {
        let reason = format!(
            "names code that other programs would run on opening it ({}); nothing was read: use safetensors",
            code.join(", ")
        );
        return Err(Error::weights(path, reason));
    }
    let metadata = parsed
        .as_ref()
        .map(checkpoint::metadata)
        .unwrap_or_default();
    let inside = |key: &&str| {
        PytorchReader::with_top_level_key(path, key)
            .ok()
            .filter(|reader| !reader.is_empty())
    };
    let reader = match ["model", "state_dict"].iter().find_map(inside) {
        Some(reader) => Ok(reader),
        None => PytorchReader::new(path),
    };
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => {
            let tensors = parsed.map(|parsed| checkpoint::tensors(path, &pickle, &parsed));
            return match tensors {
                Some(Ok(tensors)) if !tensors.is_empty() => Ok(Contents { tensors, metadata }),
                Some(Err(error)) => Err(error),
                _ => Err(Error::weights(path, error)),
            };
        }
    };
    let file: Arc<Path> = path.into();
    let tensors = reader.into_tensors().into_iter().map(|(name, tensor)| {
        // A tensor may claim to be larger than its storage.
        if tensor.byte_len() as u64 > length {
            let claim = tensor.byte_len();
            let reason = format!("{name} claims {claim} bytes, the file has {length}");
            return Err(Error::weights(path, reason));
        }
        Ok(Stored {
            name,
            shape: tensor.shape().to_vec(),
            path: file.clone(),
            place: Place::Pickled(tensor),
            steps: vec![],
        })
    });
    Ok(Contents {
        tensors: tensors.collect::<Result<_>>()?,
        metadata,
    })
}

impl Pickle {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        let mut bytes = Vec::new();
        // In the format before archives, the pickles come first and the data after them.
        let Ok(mut archive) = zip::ZipArchive::new(&file) else {
            File::open(path)
                .and_then(|file| file.take(LONGEST_PICKLE).read_to_end(&mut bytes))
                .map_err(Error::io(path))?;
            return Ok(Self { bytes, root: None });
        };
        let wrong = |error: zip::result::ZipError| Error::weights(path, error);
        // The reader's choice: the pickle in the outermost directory.
        let mut chosen: Option<(String, usize)> = None;
        let mut unpacked = 0u64;
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(wrong)?;
            unpacked = unpacked.saturating_add(entry.size());
            let Ok(name) = entry.name() else { continue };
            let root = name.strip_suffix("data.pkl");
            let is_pickle = root.is_some_and(|root| root.is_empty() || root.ends_with('/'));
            if is_pickle
                && chosen
                    .as_ref()
                    .is_none_or(|(best, _)| name.len() < best.len())
            {
                chosen = Some((name.into_owned(), index));
            }
        }
        if unpacked > length.saturating_mul(MOST_UNPACKED) {
            let reason = format!(
                "an archive of {length} bytes that would take {unpacked} when unpacked; PyTorch's \
                 are not compressed"
            );
            return Err(Error::weights(path, reason));
        }
        let name = match chosen {
            Some((name, index)) => {
                let entry = archive.by_index(index).map_err(wrong)?;
                entry
                    .take(pytorch_reader::MAX_PICKLE_SIZE)
                    .read_to_end(&mut bytes)
                    .map_err(Error::io(path))?;
                name
            }
            None => String::new(),
        };
        let root = name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
        Ok(Self {
            bytes,
            root: Some(root),
        })
    }

    /// The values of the pickle; of a file before archives (a magic number, the version, the
    /// system, the values, the keys of their storages), of the fourth pickle.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    fn parse(&self) -> std::result::Result<Parsed, Fault> {
        let (mut at, mut names) = (0, BTreeSet::new());
        let mut next = || {
            let mut read = Machine::read(&self.bytes[at..])?;
            at += read.len;
            names.append(&mut read.names);
            Ok::<Unpickled, Fault>(read)
        };
        let first = next()?;
        let is_whole = matches!(first.values[first.root], Value::Dict(_) | Value::Items(_));
        if self.root.is_some() || is_whole {
            return Ok(Parsed {
                values: first.values,
                root: first.root,
                names,
                keys: None,
            });
        }
        let (_version, system) = (next()?, next()?);
        if is_big_endian(&system) {
            return Err("numbers with the highest byte first".into());
        }
        let (main, list) = (next()?, next()?);
        let Value::Items(items) = &list.values[list.root] else {
            return Err("no list of storages".into());
        };
        let key = |id: &Id| match &list.values[*id] {
            Value::Text(key) => Ok(key.clone()),
            Value::Int(key) => Ok(key.to_string()),
            _ => Err(Fault::from("a storage without a key")),
        };
        let keys = items
            .iter()
            .map(key)
            .collect::<std::result::Result<_, _>>()?;
        Ok(Parsed {
            values: main.values,
            root: main.root,
            names,
            keys: Some((keys, at as u64)),
        })
    }
}

/// Whether the description of a system says that its numbers begin with the highest byte.
fn is_big_endian(system: &Unpickled) -> bool {
    let Value::Dict(entries) = &system.values[system.root] else {
        return false;
    };
    entries.iter().any(|(key, value)| {
        matches!(&system.values[*key], Value::Text(key) if key == "little_endian")
            && system.values[*value] == Value::Int(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reader opens the pickle in the outermost directory, whatever the order of the archive.
    #[test]
    fn the_outermost_pickle_is_checked() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.bin");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, pickle) in [
            ("a/code/data.pkl", &b"\x80\x02}."[..]),
            ("a-data.pkl", b"\x80\x02}."),
            ("a/data.pkl", b"\x80\x02cposix\nsystem\n."),
        ] {
            let options = zip::write::SimpleFileOptions::default();
            archive.start_file(name, options).unwrap();
            archive.write_all(pickle).unwrap();
        }
        archive.finish().unwrap();
        let parsed = Pickle::read(&path).unwrap().parse();
        let names = parsed.expect("a pickle").names;
        assert_eq!(named_code(&names), ["posix.system"]);
        let error = contents(&path).err().unwrap().to_string();
        assert!(error.contains("posix.system"), "{error}");
    }

    /// Module and name may come from anywhere: other instructions, or what the pickle kept. Bytes
    /// of tensors after the pickles name nothing.
    #[test]
    fn names_are_found_however_they_are_written() {
        let pickle = |bytes: &[u8]| Pickle {
            bytes: bytes.to_vec(),
            root: None,
        };
        let names = |bytes: &[u8]| {
            let parsed = pickle(bytes).parse().expect("a pickle");
            parsed.names.into_iter().collect::<Vec<_>>()
        };
        for bytes in [
            &b"\x80\x04}(X\x05\0\0\0posixX\x06\0\0\0system\x93K\x01u."[..],
            b"\x80\x04}(\x8c\x05posixq\x000\x8c\x06systemq\x010h\x00h\x01\x93K\x01u.",
            b"}((iposix\nsystem\nK\x01u.",
        ] {
            assert_eq!(names(bytes), ["posix.system"], "{bytes:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.bin");
        let legacy = include_bytes!("lightning-legacy.ckpt");
        std::fs::write(&path, [&legacy[..], b"cposix\nsystem\n"].concat()).unwrap();
        let code = Pickle::read(&path).unwrap().parse().expect("pickles");
        assert!(named_code(&code.names).is_empty(), "{:?}", code.names);
    }

    /// Numbers beside the tensors, which tell versions apart.
    #[test]
    fn numbers_of_a_training_are_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.ckpt");
        for bytes in [
            &include_bytes!("lightning.ckpt")[..],
            include_bytes!("lightning-legacy.ckpt"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let metadata = contents(&path).unwrap().metadata;
            assert!(metadata.contains_key("global_step"), "{metadata:?}");
        }
    }

    /// An archive of zeros that unpacks to a thousand times its size is refused before it is.
    #[test]
    fn archives_that_unpack_to_much_more_are_refused() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.ckpt");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        let packed = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        for (name, content) in [
            ("a/data.pkl", &b"\x80\x02}."[..]),
            ("a/data/0", &[0; 1 << 20]),
        ] {
            archive.start_file(name, packed).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap();
        let error = contents(&path).err().unwrap().to_string();
        assert!(error.contains("1048580 when unpacked"), "{error}");
        assert!(error.contains("model.ckpt"), "{error}");
    }
}
