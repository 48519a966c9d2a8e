//! The header of a safetensors file (<https://huggingface.co/docs/safetensors>): names, types,
//! shapes and places of its tensors, all of which are checked before anything else is read.

use safetensors::tensor::TensorInfo;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt::Formatter};

/// The entry that is no tensor.
const METADATA: &str = "__metadata__";

/// The tensors of a file, in the order of their bytes, and its metadata.
pub(super) struct Header {
    pub(super) tensors: Vec<(String, TensorInfo)>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Number of bytes after the header.
    pub(super) data_len: usize,
}

impl Header {
    /// # Errors
    /// The reason why it is no header, or lies: two tensors have the same name, overlap, leave a
    /// gap, or have another number of bytes than their type and shape.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let entries: Entries = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut tensors: Vec<(String, TensorInfo)> = entries.tensors.into_iter().collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut data_len = 0;
        for (name, info) in &tensors {
            let (start, end) = info.data_offsets;
            if start != data_len || end < start {
                return Err(format!(
                    "{name} has the bytes {start}..{end}, expected that they begin at {data_len}: \
                     tensors neither overlap nor leave gaps"
                ));
            }
            let found = end - start;
            if bytes(info) != Some(found) {
                let TensorInfo { dtype, shape, .. } = info;
                return Err(format!(
                    "{name} has {found} bytes, which is not the size of {shape:?} in {dtype:?}"
                ));
            }
            data_len = end;
        }
        Ok(Self {
            tensors,
            metadata: entries.metadata,
            data_len,
        })
    }
}

/// Number of bytes by type and shape; `None` if it is no number of bytes.
fn bytes(info: &TensorInfo) -> Option<usize> {
    let mut sizes = info.shape.iter();
    let elements = sizes.try_fold(1usize, |product, size| product.checked_mul(*size))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The entries of a header. A name that occurs twice is an error.
#[derive(Default)]
struct Entries {
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReadEntries)
    }
}

struct ReadEntries;

impl<'de> Visitor<'de> for ReadEntries {
    type Value = Entries;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while let Some(name) = map.next_key::<String>()? {
            let in_entry = |error: A::Error| A::Error::custom(format!("{name}: {error}"));
            if name == METADATA {
                let metadata: Option<BTreeMap<String, String>> =
                    map.next_value().map_err(in_entry)?;
                entries.metadata.extend(metadata.unwrap_or_default());
                continue;
            }
            let info: TensorInfo = map.next_value().map_err(in_entry)?;
            if entries.tensors.contains_key(&name) {
                return Err(A::Error::custom(format!("two tensors are called {name}")));
            }
            entries.tensors.insert(name, info);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_lie_name_the_tensor() {
        let entry = |name: &str, shape: &str, from: usize, to: usize| {
            format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let good = [entry("b", "[2]", 0, 8), entry("a", "[0,9]", 8, 8)].join(",");
        let header = Header::parse(format!("{{{good}}}").as_bytes()).unwrap();
        let names: Vec<&str> = header.tensors.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!((names, header.data_len), (vec!["b", "a"], 8));
        for (more, reason) in [
            (
                entry("c", "[1]", 4, 8),
                "c has the bytes 4..8, expected that they begin at",
            ),
            (
                entry("c", "[1]", 12, 16),
                "c has the bytes 12..16, expected that they begin at 8",
            ),
            (entry("c", "[1]", 12, 8), "c has the bytes 12..8"),
            (
                entry("c", "[3]", 8, 16),
                "c has 8 bytes, which is not the size of [3] in F32",
            ),
            (
                entry("c", "[4294967296,4294967296,4294967296]", 8, 16),
                "c has 8 bytes",
            ),
            (entry("b", "[2]", 0, 8), "two tensors are called b"),
            (entry("c", "[-1]", 8, 8), "c: invalid value"),
            (entry("c", "[1.5]", 8, 8), "c: invalid type"),
            (entry("c", "[1e999]", 8, 8), "c: number out of range"),
            (entry("c", "[NaN]", 8, 8), "c: expected"),
            (
                r#""c":{"dtype":"F99","shape":[],"data_offsets":[8,8]}"#.into(),
                "c: unknown variant",
            ),
            (r#""c":7"#.into(), "c: invalid type"),
            (
                r#""__metadata__":{"a":7}"#.into(),
                "__metadata__: invalid type",
            ),
        ] {
            let text = format!("{{{good},{more}}}");
            let error = Header::parse(text.as_bytes()).err().expect(reason);
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
