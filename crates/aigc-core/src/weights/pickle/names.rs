//! Names of functions and classes in pickles, of which those of tensors and trainings are known.

use std::collections::BTreeSet;

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

/// Of functions and classes, those that are not what tensors and checkpoints of trainings consist
/// of.
pub(super) fn named_code(names: &BTreeSet<String>) -> Vec<&str> {
    let is_known = |name: &str| {
        let built_in = ["builtins.", "__builtin__."];
        let mut types = built_in
            .iter()
            .filter_map(|module| name.strip_prefix(module));
        types.any(|name| BUILT_IN.contains(&name))
            || KNOWN.iter().any(|known| match known.ends_with('.') {
                true => name.starts_with(known),
                false => name == *known,
            })
    };
    let names = names.iter().map(String::as_str);
    names.filter(|name| !is_known(name)).collect()
}

/// What looks like the names of functions and classes in a pickle that cannot be read: in `GLOBAL`
/// (`c`, module, name, one line each) and `INST` (`i`) instructions, and before `STACK_GLOBAL`.
pub(super) fn globals(pickle: &[u8]) -> BTreeSet<String> {
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
}
