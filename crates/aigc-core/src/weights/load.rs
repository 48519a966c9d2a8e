//! Loading weights into a model.

use super::{
    KeyMapping, Loaded, ParamKey, RenamedField, WeightReader, renamed_key,
    stored::{Floats, transposed},
};
use crate::{Error, Result, params::Place};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Bool, DType, Int, Tensor, TensorData},
};
use std::{collections::BTreeSet, path::Path};

/// Limit on the names in an error message.
const LISTED: usize = 256;

/// Prefixes that wrappers put before every name: data-parallel training, `torch.compile`, a
/// trainer's module, a transformer below its head.
const WRAPPERS: [&str; 4] = ["module.", "_orig_mod.", "model.", "transformer."];

/// Names in files, below a layer, of the direction and of the gain of weight normalisation.
const WEIGHT_NORM: [(&str, &str); 3] = [
    ("weight_v", "weight_g"),
    (
        "parametrizations.weight.original1",
        "parametrizations.weight.original0",
    ),
    ("weight", "weight_norm.gain"),
];

/// The floating-point type of a model's parameters in memory.
///
/// Layers compute in the type of their input, whatever the type of their parameters; a parameter
/// of another type is converted for the operation. In half precision, a model takes half the
/// memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightDtype {
    /// 32 bits, whatever the files have.
    #[default]
    F32,
    /// That of the files; 64 bits become 32, and 8 bits 16.
    Stored,
    /// 16 bits, IEEE's half precision: values above 65,504 become infinite.
    F16,
    /// 16 bits with the range of 32 and 8 bits of precision.
    BF16,
}

impl WeightDtype {
    /// Values as data of this type.
    fn data(self, values: Floats, shape: &[usize]) -> TensorData {
        let stored = match (self, &values) {
            (WeightDtype::F32, _) | (WeightDtype::Stored, Floats::F32(_)) => WeightDtype::F32,
            (WeightDtype::F16, _) | (WeightDtype::Stored, Floats::F16(_)) => WeightDtype::F16,
            (WeightDtype::BF16, _) | (WeightDtype::Stored, Floats::BF16(_)) => WeightDtype::BF16,
        };
        match stored {
            WeightDtype::F16 => TensorData::new(values.into_f16(), shape),
            WeightDtype::BF16 => TensorData::new(values.into_bf16(), shape),
            WeightDtype::F32 | WeightDtype::Stored => TensorData::new(values.into_f32(), shape),
        }
    }
}

/// Report of loading weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors in the files without a parameter in the model.
    pub unused: Vec<String>,
    /// A prefix of all names that was removed.
    pub prefix: Option<String>,
}

impl WeightReader {
    /// Loads every parameter of `model` from the tensor that `mapping` assigns to it. Other
    /// floating-point types become 32-bit floats; integers get the type of the parameter. A tensor
    /// of floats does not fit a parameter of integers or booleans, nor the other way round.
    ///
    /// A matrix may be stored with further axes of one element, as the convolution of one pixel
    /// that older files have in place of a linear layer, and the other way round.
    ///
    /// The prefix of a wrapper before all names (`module.`, `_orig_mod.`, `model.`, `transformer.`,
    /// and combinations) is recognised.
    ///
    /// # Errors
    /// [`Error::Weights`] lists all missing keys and size mismatches, together with the unexpected
    /// keys, or the directions of weight-normalised layers whose gains no parameter is loaded from;
    /// [`Error::Io`] if a file cannot be read.
    pub fn load_into<M: Module>(
        &self,
        model: M,
        mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
    ) -> Result<(M, LoadReport)> {
        self.load_into_with_dtype(model, WeightDtype::F32, mapping)
    }

    /// [`load_into`](Self::load_into) with a type for the parameters of floats. One tensor at a
    /// time is read and converted.
    ///
    /// # Errors
    /// As [`load_into`](Self::load_into).
    pub fn load_into_with_dtype<M: Module>(
        &self,
        model: M,
        dtype: WeightDtype,
        mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
    ) -> Result<(M, LoadReport)> {
        let mut fill = Fill {
            files: self,
            mapping: &mapping,
            dtype,
            place: Place::default(),
            prefix: None,
            used: BTreeSet::new(),
            missing: vec![],
            mismatched: vec![],
            failed: None,
        };
        let model = model.map(&mut fill);
        let Fill {
            used,
            missing,
            mismatched,
            failed,
            prefix,
            ..
        } = fill;
        let unused = self.unused(&used);
        if !missing.is_empty() || !mismatched.is_empty() {
            return Err(Error::weights(
                self.path(),
                problems([
                    ("size mismatch", mismatched),
                    ("missing keys", missing),
                    ("unexpected keys", unused),
                ]),
            ));
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let bare = self.bare_directions(&used);
        if !bare.is_empty() {
            let kind = "directions of weight-normalised layers, for layers without normalisation";
            return Err(Error::weights(self.path(), problems([(kind, bare)])));
        }
        Ok((model, LoadReport { unused, prefix }))
    }

    /// Loads a model that was created from its configuration, and adds to its report what was
    /// found in the files.
    ///
    /// # Errors
    /// As [`load_into`](Self::load_into).
    pub fn load<M: Module>(
        &self,
        created: Loaded<M>,
        dtype: WeightDtype,
        mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
    ) -> Result<Loaded<M>> {
        let mut report = None;
        let mut loaded = created.try_map(|model| {
            let (model, found) = self.load_into_with_dtype(model, dtype, mapping)?;
            report = Some(found);
            Ok(model)
        })?;
        let LoadReport { unused, prefix } = report.unwrap_or_default();
        loaded.unused_tensors.extend(unused);
        loaded.notes.extend(self.notes().iter().cloned());
        let note = prefix.map(|prefix| format!("the prefix `{prefix}` of all tensors was removed"));
        loaded.notes.extend(note);
        Ok(loaded)
    }

    /// The `used` directions of weight-normalised layers whose gains are in the files and not used.
    /// Such a direction is no weight: a layer without normalisation would compute with wrong
    /// lengths, and nothing else would show it.
    fn bare_directions(&self, used: &BTreeSet<String>) -> Vec<String> {
        let gain = |name: &String| {
            WEIGHT_NORM.iter().find_map(|(direction, gain)| {
                let layer = name.strip_suffix(direction)?;
                (layer.is_empty() || layer.ends_with('.')).then(|| format!("{layer}{gain}"))
            })
        };
        used.iter()
            .filter_map(|name| {
                let gain = gain(name)?;
                let is_bare = self.contains(&gain) && !used.contains(&gain);
                is_bare.then(|| format!("{name} (its gain is {gain})"))
            })
            .collect()
    }

    /// Names in the files of the tensors that are not `used`, in order.
    pub(super) fn unused(&self, used: &BTreeSet<String>) -> Vec<String> {
        let (used, unused): (Vec<_>, Vec<_>) = self
            .tensors
            .iter()
            .partition(|(name, _)| used.contains(*name));
        // A tensor is used if a part of it is.
        let used: BTreeSet<&String> = used.into_iter().map(|(_, tensor)| &tensor.name).collect();
        let unused = unused.into_iter().map(|(_, tensor)| &tensor.name);
        let unused: BTreeSet<&String> = unused
            .chain(&self.unreferenced)
            .filter(|name| !used.contains(name))
            .collect();
        unused.into_iter().cloned().collect()
    }
}

/// Loads a file written by [`save_weights`](super::save_weights), or by PyTorch for the same
/// architecture, into `model`, on the model's device.
///
/// # Errors
/// [`Error::Weights`] if the file is broken or does not fit: it lists missing keys, unexpected keys
/// and size mismatches; [`Error::Io`] if the file cannot be read.
pub fn load_weights<M: Module>(model: M, path: &Path) -> Result<M> {
    load_weights_with_mapping(model, path, &[])
}

/// [`load_weights`], also for files from before fields of the model were renamed.
///
/// # Errors
/// As [`load_weights`].
pub fn load_weights_with_mapping<M: Module>(
    model: M,
    path: &Path,
    renamed: &[RenamedField],
) -> Result<M> {
    let (model, report) =
        WeightReader::open(path)?.load_into(model, |key| renamed_key(key, renamed))?;
    // PyTorch's counter of batches is not used.
    let unexpected: Vec<String> = report
        .unused
        .into_iter()
        .filter(|name| !name.ends_with("num_batches_tracked"))
        .collect();
    match unexpected.is_empty() {
        true => Ok(model),
        false => Err(Error::weights(
            path,
            problems([("unexpected keys", unexpected)]),
        )),
    }
}

/// All problems with a file's tensors, by kind, as one sentence.
fn problems<const N: usize>(kinds: [(&str, Vec<String>); N]) -> String {
    let parts = kinds
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, mut names)| {
            names.sort();
            let more = names.len().saturating_sub(LISTED);
            names.truncate(LISTED);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("{what}: {}{more}", names.join(", "))
        });
    parts.collect::<Vec<_>>().join("; ")
}

struct Fill<'a, K> {
    files: &'a WeightReader,
    mapping: &'a K,
    dtype: WeightDtype,
    place: Place,
    /// The prefix of a wrapper, once a parameter was found with it.
    prefix: Option<String>,
    used: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<String>,
    failed: Option<Error>,
}

impl<K> Fill<'_, K> {
    /// The first of the possible names that is in the files.
    fn find(&mut self, candidates: &[String]) -> Option<String> {
        let has = |name: &String| self.files.shape(name).is_some();
        if let Some(prefix) = &self.prefix {
            let wrapped = candidates
                .iter()
                .map(|name| format!("{prefix}{name}"))
                .find(has);
            return wrapped.or_else(|| candidates.iter().find(|name| has(name)).cloned());
        }
        if let Some(name) = candidates.iter().find(|name| has(name)) {
            return Some(name.clone());
        }
        // One wrapper, or one inside another.
        let pairs = WRAPPERS
            .iter()
            .flat_map(|outer| WRAPPERS.iter().map(move |inner| format!("{outer}{inner}")));
        for prefix in WRAPPERS
            .iter()
            .map(|prefix| prefix.to_string())
            .chain(pairs)
        {
            if let Some(name) = candidates
                .iter()
                .map(|name| format!("{prefix}{name}"))
                .find(has)
            {
                self.prefix = Some(prefix);
                return Some(name);
            }
        }
        None
    }
}

impl<K: Fn(ParamKey<'_>) -> KeyMapping> Fill<'_, K> {
    /// The values of the current parameter, read with `read`, and the number of columns in the file
    /// of a matrix to be transposed. `None` if the parameter keeps its value, because the mapping
    /// skips it or loading has failed.
    fn values<T>(
        &mut self,
        shape: &[usize],
        read: impl FnOnce(&WeightReader, &str) -> Result<T>,
    ) -> Option<(T, Option<usize>)> {
        let path = self.place.path();
        let KeyMapping {
            candidates,
            transpose,
        } = (self.mapping)(ParamKey {
            path: &path,
            module: self.place.module(),
        });
        if candidates.is_empty() {
            return None;
        }
        let Some(name) = self.find(&candidates) else {
            self.missing.extend(candidates.into_iter().next());
            return None;
        };
        self.used.insert(name.clone());
        let transpose = transpose && shape.len() == 2;
        let mut expected = shape.to_vec();
        if transpose {
            expected.reverse();
        }
        let found = self.files.shape(&name).unwrap_or_default();
        if !is_same_matrix(found, &expected) {
            self.mismatched
                .push(format!("{name} ({found:?}, expected {expected:?})"));
            return None;
        }
        // Tensors are not read if loading has already failed.
        if self.failed.is_some() || !self.missing.is_empty() || !self.mismatched.is_empty() {
            return None;
        }
        match read(self.files, &name) {
            Ok(values) => Some((values, transpose.then(|| expected[1]))),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }
}

impl<K: Fn(ParamKey<'_>) -> KeyMapping> ModuleMapper for Fill<'_, K> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.place.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape().to_vec();
        let Some((values, columns)) = self.values(&shape, WeightReader::read_floats) else {
            return param;
        };
        let values = match columns {
            Some(columns) => values.transposed(columns),
            None => values,
        };
        let data = self.dtype.data(values, &shape);
        let (id, device, dtype) = (param.id, param.lazy_device(), data.dtype());
        param.transform_for_load(Tensor::from_data(data, (&device, dtype)), id)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let (shape, dtype) = (param.lazy_shape().to_vec(), param.val().dtype());
        let read = |files: &WeightReader, name: &str| {
            let values = files.read_int(name)?;
            match values.iter().find(|value| !fits(**value, dtype)) {
                None => Ok(values),
                Some(value) => {
                    let reason = format!("{name} holds {value}, which {dtype:?} does not have");
                    Err(Error::weights(files.path(), reason))
                }
            }
        };
        let Some((values, columns)) = self.values(&shape, read) else {
            return param;
        };
        let data = TensorData::new(laid_out(values, columns), shape);
        let (id, device) = (param.id, param.lazy_device());
        param.transform_for_load(Tensor::from_data(data, (&device, dtype)), id)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        let shape = param.lazy_shape().to_vec();
        let Some((values, columns)) = self.values(&shape, WeightReader::read_bool) else {
            return param;
        };
        let data = TensorData::new(laid_out(values, columns), shape);
        let (id, tensor) = (param.id, Tensor::from_data(data, &param.lazy_device()));
        param.transform_for_load(tensor, id)
    }
}

/// Whether an integer type has this value.
fn fits(value: i64, dtype: DType) -> bool {
    match dtype {
        DType::I32 => i32::try_from(value).is_ok(),
        DType::I16 => i16::try_from(value).is_ok(),
        DType::I8 => i8::try_from(value).is_ok(),
        DType::U64 => u64::try_from(value).is_ok(),
        DType::U32 => u32::try_from(value).is_ok(),
        DType::U16 => u16::try_from(value).is_ok(),
        DType::U8 => u8::try_from(value).is_ok(),
        _ => true,
    }
}

/// The values of a parameter. If `columns` is given, the file holds a matrix with this number of
/// columns, which is transposed.
fn laid_out<T: Copy>(values: Vec<T>, columns: Option<usize>) -> Vec<T> {
    match columns {
        Some(columns) => transposed(&values, columns),
        None => values,
    }
}

/// Whether two shapes are the same but for axes of one element after the first.
fn is_same_matrix(found: &[usize], expected: &[usize]) -> bool {
    fn matrix(shape: &[usize]) -> &[usize] {
        match shape {
            [first @ .., 1] if !first.is_empty() => matrix(first),
            shape => shape,
        }
    }
    found == expected || (found.len() >= 2 && matrix(found) == matrix(expected))
}
