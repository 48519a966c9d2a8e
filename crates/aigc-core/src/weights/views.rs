//! Tensors of files under other names and in other layouts: checkpoints in a single file, and
//! layouts of earlier versions.

use super::{
    WeightReader,
    stored::{Place, Step, Stored},
};
use crate::{Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// A tensor as [`WeightReader::renamed`] presents it: its name, and what it is made of. The changes
/// apply in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorSource {
    /// The new name.
    pub name: String,
    /// Name in the reader.
    pub source: String,
    /// A part of the first axis, such as the queries of fused queries, keys and values.
    pub rows: Option<Range<usize>>,
    /// Whether the halves of the first axis change places, such as scale before shift.
    pub halves_swapped: bool,
    /// Another shape with as many elements: `[o, i]` for a convolution of one pixel `[o, i, 1, 1]`.
    pub shape: Option<Vec<usize>>,
    /// Whether the matrix is transposed.
    pub transpose: bool,
}

impl TensorSource {
    /// The tensor `source` under the name `name`.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            source: source.into(),
            ..Self::default()
        }
    }

    /// Only a part of the first axis.
    pub fn rows(self, rows: Range<usize>) -> Self {
        Self {
            rows: Some(rows),
            ..self
        }
    }

    /// With the halves of the first axis exchanged.
    pub fn halves_swapped(self) -> Self {
        Self {
            halves_swapped: true,
            ..self
        }
    }

    /// In another shape.
    pub fn reshaped(self, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            shape: Some(shape.into()),
            ..self
        }
    }

    /// Transposed.
    pub fn transposed(self) -> Self {
        Self {
            transpose: true,
            ..self
        }
    }
}

impl WeightReader {
    /// The tensors of this reader under other names and in other layouts. Nothing is read yet, and
    /// later only the bytes of the parts that are needed (of a pickle, the whole tensor).
    ///
    /// A tensor that no source refers to is reported as unused by
    /// [`load_into`](Self::load_into), under its name in the file.
    ///
    /// # Errors
    /// [`Error::Weights`] naming the tensor if it is missing, two have the same new name, or its
    /// shape does not allow the change.
    pub fn renamed(self, sources: Vec<TensorSource>) -> Result<Self> {
        let Self {
            path,
            tensors,
            notes,
            metadata,
            mut unreferenced,
        } = self;
        let mut referenced = BTreeSet::new();
        let mut renamed = BTreeMap::new();
        for source in sources {
            let wrong = |reason: String| Error::weights(&path, reason);
            let Some((from, stored)) = tensors.get_key_value(&source.source) else {
                let reason = format!("there is no tensor {}", source.source);
                return Err(wrong(reason));
            };
            referenced.insert(from);
            let tensor = changed(stored, &source).map_err(wrong)?;
            if renamed.insert(source.name.clone(), tensor).is_some() {
                return Err(wrong(format!("two tensors get the name {}", source.name)));
            }
        }
        let rest = tensors
            .iter()
            .filter(|(name, _)| !referenced.contains(name));
        unreferenced.extend(rest.map(|(_, tensor)| tensor.name.clone()));
        Ok(Self {
            path,
            tensors: renamed,
            notes,
            metadata,
            unreferenced,
        })
    }

    /// With an identity matrix as a further tensor: some checkpoints leave out layers that change
    /// nothing.
    pub fn with_identity(mut self, name: &str, size: usize) -> Self {
        let tensor = Stored {
            name: name.into(),
            shape: vec![size, size],
            path: self.path.as_path().into(),
            place: Place::Identity(size),
            steps: vec![],
        };
        self.tensors.insert(name.into(), tensor);
        self
    }

    /// The tensors whose names begin with `prefix`, without it. The others are left out, and are
    /// not reported as unused.
    pub fn subset(&self, prefix: &str) -> Self {
        let inside = |(name, tensor): (&String, &Stored)| {
            let rest = name.strip_prefix(prefix)?;
            Some((rest.to_owned(), tensor.clone()))
        };
        self.with_tensors(self.tensors.iter().filter_map(inside).collect())
    }

    /// The tensors whose names `keep` accepts. The others are left out, and are not reported as
    /// unused.
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.tensors.iter().filter(|(name, _)| keep(name));
        self.with_tensors(
            kept.map(|(n, tensor)| (n.clone(), tensor.clone()))
                .collect(),
        )
    }

    fn with_tensors(&self, tensors: BTreeMap<String, Stored>) -> Self {
        Self {
            path: self.path.clone(),
            tensors,
            notes: self.notes.clone(),
            metadata: self.metadata.clone(),
            unreferenced: vec![],
        }
    }

    /// The tensors of several readers in one, with the path of the first.
    ///
    /// # Errors
    /// [`Error::Weights`] naming a tensor that two of them have; [`Error::InvalidArgument`] if
    /// there is no reader.
    pub fn joined(readers: Vec<Self>) -> Result<Self> {
        let mut readers = readers.into_iter();
        let Some(mut all) = readers.next() else {
            return Err(Error::argument("readers", "none", "at least one"));
        };
        for reader in readers {
            for (name, tensor) in reader.tensors {
                if all.tensors.contains_key(&name) {
                    let reason = format!("{} has {name} too", all.path.display());
                    return Err(Error::weights(&reader.path, reason));
                }
                all.tensors.insert(name, tensor);
            }
            all.notes.extend(reader.notes);
            all.unreferenced.extend(reader.unreferenced);
            for (key, value) in reader.metadata {
                all.metadata.entry(key).or_insert(value);
            }
        }
        Ok(all)
    }
}

/// The part of a tensor that a source describes.
fn changed(stored: &Stored, source: &TensorSource) -> std::result::Result<Stored, String> {
    let refuse = |what: String| {
        Err(format!(
            "{} has the shape {:?}, which {what}",
            source.source, stored.shape
        ))
    };
    let mut tensor = stored.clone();
    if let Some(rows) = &source.rows {
        match tensor.shape.first_mut() {
            Some(first) if rows.start <= rows.end && rows.end <= *first => *first = rows.len(),
            _ => return refuse(format!("does not have the rows {rows:?}")),
        }
        // Overflows only for a tensor without elements.
        let mut row = stored.shape[1..].iter();
        let row = row.try_fold(1usize, |product, size| product.checked_mul(*size));
        let row = row.unwrap_or(0);
        tensor.steps.push(Step::Slice {
            skip: rows.start * row,
            len: rows.len() * row,
        });
    }
    if source.halves_swapped {
        if !tensor
            .shape
            .first()
            .is_some_and(|rows| rows.is_multiple_of(2))
        {
            return refuse("does not have two halves".into());
        }
        tensor.steps.push(Step::SwapHalves);
    }
    if let Some(shape) = &source.shape {
        let elements = |shape: &[usize]| {
            let mut sizes = shape.iter();
            sizes.try_fold(1usize, |product, size| product.checked_mul(*size))
        };
        if elements(shape) != elements(&tensor.shape) {
            return refuse(format!("is not that of {shape:?}"));
        }
        tensor.shape.clone_from(shape);
    }
    if source.transpose {
        let [_, columns] = tensor.shape[..] else {
            return refuse("is not that of a matrix".into());
        };
        tensor.steps.push(Step::Transpose { columns });
        tensor.shape.reverse();
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::hash_files;
    use safetensors::{Dtype, tensor::TensorView};
    use std::{collections::HashMap, path::PathBuf};

    /// A file with tensors of the shapes and types given, each with the values 0, 1, 2, …
    fn file(dir: &tempfile::TempDir, name: &str, tensors: &[(&str, &[usize], Dtype)]) -> PathBuf {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, shape, dtype)| {
                let values = 0..shape.iter().product::<usize>();
                match dtype {
                    Dtype::F16 => values
                        .flat_map(|value| half::f16::from_f32(value as f32).to_le_bytes())
                        .collect(),
                    _ => values
                        .flat_map(|value| (value as f32).to_le_bytes())
                        .collect(),
                }
            })
            .collect();
        let views = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, shape, dtype), bytes)| {
                (
                    *name,
                    TensorView::new(*dtype, shape.to_vec(), bytes).unwrap(),
                )
            });
        let metadata = HashMap::from([("alpha".to_string(), name.to_string())]);
        let path = dir.path().join(format!("{name}.safetensors"));
        let bytes = safetensors::serialize(views, Some(metadata)).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn tensors_are_renamed_cut_and_laid_out_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(
            &dir,
            "one",
            &[
                ("a.qkv", &[6, 2], Dtype::F32),
                ("a.norm", &[4], Dtype::F16),
                ("a.proj", &[3, 2, 1, 1], Dtype::F32),
                ("a.rest", &[1], Dtype::F32),
                ("b.other", &[1], Dtype::F32),
            ],
        );
        let whole = WeightReader::open(&path).unwrap();
        let reader = whole
            .subset("a.")
            .renamed(vec![
                TensorSource::new("q", "qkv").rows(0..2),
                TensorSource::new("v", "qkv").rows(4..6).transposed(),
                TensorSource::new("norm.weight", "norm").halves_swapped(),
                TensorSource::new("shift", "norm")
                    .rows(2..4)
                    .halves_swapped(),
                TensorSource::new("proj", "proj")
                    .reshaped([3, 2])
                    .transposed(),
            ])
            .unwrap();
        let read = |name: &str| {
            (
                reader.shape(name).unwrap().to_vec(),
                reader.read(name).unwrap(),
            )
        };
        assert_eq!(read("q"), (vec![2, 2], vec![0.0, 1.0, 2.0, 3.0]));
        assert_eq!(read("v"), (vec![2, 2], vec![8.0, 10.0, 9.0, 11.0]));
        assert_eq!(read("norm.weight"), (vec![4], vec![2.0, 3.0, 0.0, 1.0]));
        assert_eq!(read("shift"), (vec![2], vec![3.0, 2.0]));
        assert_eq!(
            read("proj"),
            (vec![2, 3], vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0])
        );
        // A part of a part.
        let again = reader
            .clone()
            .renamed(vec![TensorSource::new("x", "v").rows(1..2)])
            .unwrap();
        assert_eq!(again.read("x").unwrap(), [9.0, 11.0]);
        // Tensors are used if a part of them is, and have their names in the file.
        let used = BTreeSet::from(["q".to_string(), "norm.weight".to_string()]);
        assert_eq!(reader.unused(&used), ["a.proj", "a.rest"]);
        let files: Vec<_> = reader.files();
        assert_eq!(files, [&*path]);
        assert_eq!(reader.hash().unwrap(), hash_files([&*path]).unwrap());
        assert_eq!(reader.metadata()["alpha"], "one");
    }

    #[test]
    fn changes_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tensors: &[(&str, &[usize], Dtype)] =
            &[("m", &[3, 2], Dtype::F32), ("s", &[], Dtype::F32)];
        let reader = WeightReader::open(&file(&dir, "one", tensors)).unwrap();
        let fails = |sources: Vec<TensorSource>, reason: &str| {
            let message = reader.clone().renamed(sources).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        };
        let m = || TensorSource::new("x", "m");
        fails(vec![TensorSource::new("x", "n")], "there is no tensor n");
        fails(vec![m(), m()], "two tensors get the name x");
        fails(
            vec![m().rows(2..4)],
            "m has the shape [3, 2], which does not have the rows 2..4",
        );
        fails(vec![m().halves_swapped()], "does not have two halves");
        fails(vec![m().reshaped([5])], "is not that of [5]");
        fails(vec![m().reshaped([usize::MAX, 3])], "is not that of");
        fails(
            vec![m().reshaped([6]).transposed()],
            "is not that of a matrix",
        );
        fails(
            vec![TensorSource::new("x", "s").rows(0..1)],
            "does not have the rows",
        );
    }

    /// The sizes of a tensor without elements may be anything.
    #[test]
    fn rows_of_nothing_do_not_overflow() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "one", &[("z", &[0, 1 << 40, 1 << 40], Dtype::F32)]);
        let nothing = vec![TensorSource::new("x", "z").rows(0..0).halves_swapped()];
        let reader = WeightReader::open(&path).unwrap().renamed(nothing).unwrap();
        assert_eq!(reader.read("x").unwrap(), [0f32; 0]);
    }

    #[test]
    fn readers_are_joined_unless_names_meet() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, tensor: &str| {
            WeightReader::open(&file(&dir, name, &[(tensor, &[2], Dtype::F32)])).unwrap()
        };
        let joined = WeightReader::joined(vec![open("one", "a"), open("two", "b")]).unwrap();
        assert_eq!(joined.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            (joined.read("b").unwrap(), joined.files().len()),
            (vec![0.0, 1.0], 2)
        );
        assert_eq!(joined.metadata()["alpha"], "one");
        let kept = joined.filtered(|name| name == "b");
        assert_eq!(kept.names().collect::<Vec<_>>(), ["b"]);
        let same = WeightReader::joined(vec![open("one", "a"), open("two", "a")]);
        let message = same.unwrap_err().to_string();
        assert!(
            message.contains("two") && message.contains("has a too"),
            "{message}"
        );
        let none = WeightReader::joined(vec![]).unwrap_err().to_string();
        assert!(none.contains("`readers` is none"), "{none}");
    }
}
