//! PyTorch's pickles, read without executing them.

mod checkpoint;
mod machine;

use super::stored::Place;
use crate::{Error, Result};
use pytorch_reader::PytorchReader;
use std::{collections::BTreeSet, fs::File, io::Read, path::Path};

/// Limit on the pickle in a file that is not an archive, in bytes.
const LONGEST_PICKLE: u64 = 1 << 24;

/// Modules whose functions and classes are in files of weights and of trainings. A name that ends
/// with a dot stands for all that begin with it.
const KNOWN: &[&str] = &[
    "torch.",
    "collections.",
    "numpy.",
    "_codecs.",
    "pytorch_lightning.",
    "lightning.",
    "lightning_fabric.",
    "omegaconf.",
    "typing.",
    "datetime.",
    "pathlib.",
    "argparse.Namespace",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
];

/// Types of Python's that are harmless, in its module of built-in functions.
const BUILT_IN: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "set",
    "slice",
    "str",
    "tuple",
    "unicode",
];

/// The pickle of a file, or the beginning of a file that has several.
struct Pickle {
    bytes: Vec<u8>,
    /// The folder with the pickle, in an archive: empty, or a name with a slash.
    root: Option<String>,
}

/// The tensors of a file with their shapes: of its `model` or `state_dict` entry, or of the file
/// itself. Of a checkpoint, values other than tensors are ignored.
///
/// # Errors
/// [`Error::Weights`] if the file is broken or names code; [`Error::Io`] if it cannot be read.
pub(super) fn tensors(path: &Path) -> Result<Vec<(String, Vec<usize>, Place)>> {
    let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
    let pickle = Pickle::read(path)?;
    let code = pickle.named_code();
    if !code.is_empty() {
        let reason = format!(
            "names code that other programs would run on opening it ({}); nothing was read: use safetensors",
            code.into_iter().collect::<Vec<_>>().join(", ")
        );
        return Err(Error::weights(path, reason));
    }
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
            let tensors = checkpoint::tensors(path, &pickle).ok();
            let tensors = tensors.filter(|tensors| !tensors.is_empty());
            return tensors.ok_or_else(|| Error::weights(path, error));
        }
    };
    let tensors = reader.into_tensors().into_iter().map(|(name, tensor)| {
        // A tensor may claim to be larger than its storage.
        if tensor.byte_len() as u64 > length {
            let claim = tensor.byte_len();
            let reason = format!("{name} claims {claim} bytes, the file has {length}");
            return Err(Error::weights(path, reason));
        }
        Ok((name, tensor.shape().to_vec(), Place::Pickled(tensor)))
    });
    tensors.collect()
}

impl Pickle {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut bytes = Vec::new();
        // In the format before archives, the pickles come first and the data after them.
        let Ok(mut archive) = zip::ZipArchive::new(&file) else {
            File::open(path)
                .and_then(|file| file.take(LONGEST_PICKLE).read_to_end(&mut bytes))
                .map_err(Error::io(path))?;
            return Ok(Self { bytes, root: None });
        };
        // The reader's choice: the pickle in the outermost directory.
        let name = archive
            .file_names()
            .flatten()
            .filter(|name| {
                let root = name.strip_suffix("data.pkl");
                root.is_some_and(|root| root.is_empty() || root.ends_with('/'))
            })
            .min_by_key(|name| name.len())
            .map(|name| name.into_owned());
        if let Some(name) = &name {
            let entry = archive
                .by_name(name)
                .map_err(|error| Error::weights(path, error))?;
            entry
                .take(pytorch_reader::MAX_PICKLE_SIZE)
                .read_to_end(&mut bytes)
                .map_err(Error::io(path))?;
        }
        let root = name.unwrap_or_default();
        let root = root.strip_suffix("data.pkl").unwrap_or_default().to_owned();
        Ok(Self {
            bytes,
            root: Some(root),
        })
    }

    /// Functions and classes that the pickle names, except those that tensors and checkpoints of
    /// trainings consist of.
    fn named_code(&self) -> BTreeSet<String> {
        let is_known = |name: &String| {
            let built_in = ["builtins.", "__builtin__."];
            let mut types = built_in
                .iter()
                .filter_map(|module| name.strip_prefix(module));
            types.any(|name| BUILT_IN.contains(&name))
                || KNOWN.iter().any(|known| match known.ends_with('.') {
                    true => name.starts_with(known),
                    false => name == known,
                })
        };
        let names = globals(&self.bytes).into_iter();
        names.filter(|name| !is_known(name)).collect()
    }
}

/// Names in `GLOBAL` (`c`, module, name, one line each) and `INST` (`i`) instructions, and those
/// before `STACK_GLOBAL`.
fn globals(pickle: &[u8]) -> BTreeSet<String> {
    let is_word = |bytes: &[u8]| {
        bytes.len() > 1
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"_.".contains(b))
            && !bytes[0].is_ascii_digit()
    };
    let line = |from: usize| {
        pickle
            .get(from..)?
            .iter()
            .take(200)
            .position(|b| *b == b'\n')
            .map(|n| &pickle[from..from + n])
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // The string that ends before `end`, with its length in one byte, and the position where it
    // begins.
    let string_before = |end: usize| {
        (2..end.min(200)).find_map(|n| {
            let start = end - n;
            let holds = pickle[start] == 0x8c && usize::from(pickle[start + 1]) == n - 2;
            (holds && is_word(&pickle[start + 2..end]))
                .then(|| (start, text(&pickle[start + 2..end])))
        })
    };
    // A `MEMOIZE` instruction may be in between.
    let skip = |end: usize| {
        if end > 0 && pickle[end - 1] == 0x94 {
            end - 1
        } else {
            end
        }
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickles_name_their_code_in_every_protocol() {
        let names = |pickle: &[u8]| globals(pickle).into_iter().collect::<Vec<_>>();
        assert_eq!(
            names(b"\x80\x02ccollections\nOrderedDict\nq\x00)R."),
            ["collections.OrderedDict"]
        );
        assert_eq!(
            names(b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00exit\x85R."),
            ["posix.system"]
        );
        // Protocol 4: module and name as strings, memoized or not.
        assert_eq!(
            names(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."),
            ["posix.system"]
        );
        assert_eq!(
            names(b"\x80\x04\x8c\x05posix\x8c\x06system\x93."),
            ["posix.system"]
        );
        assert_eq!(names(b"c\n\nc1\n2\n\x93\x94\x93"), [] as [&str; 0]);
    }

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
        let code = Pickle::read(&path).unwrap().named_code();
        assert_eq!(code.into_iter().collect::<Vec<_>>(), ["posix.system"]);
        let error = tensors(&path).err().unwrap().to_string();
        assert!(error.contains("posix.system"), "{error}");
    }
}
