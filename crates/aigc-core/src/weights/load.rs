//! Loading weights into a model.

use super::WeightReader;
use crate::{Error, Result};
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

/// Name and layout of a parameter in files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMapping {
    /// Possible names, the usual one first. Without any, the parameter keeps its value.
    pub candidates: Vec<String>,
    /// Whether a matrix is stored transposed.
    pub transpose: bool,
}

impl KeyMapping {
    /// A parameter called `name`, not transposed.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            candidates: vec![name.into()],
            transpose: false,
        }
    }

    /// A parameter that the files do not contain.
    pub fn skip() -> Self {
        Self::default()
    }

    /// Adds another possible name.
    pub fn or(mut self, name: impl Into<String>) -> Self {
        self.candidates.push(name.into());
        self
    }
}

/// A parameter of a model, as the argument of a mapping.
#[derive(Clone, Copy, Debug)]
pub struct ParamKey<'a> {
    /// Field names joined by dots, without the names of enum variants.
    pub path: &'a str,
    /// Type of the module with the parameter, such as `Linear`.
    pub module: &'a str,
}

/// The name and layout of a parameter in PyTorch: `weight` and `bias` for the `gamma` and `beta` of
/// a norm, `[out, in]` for the weight of a `Linear`.
pub fn pytorch_key(key: ParamKey<'_>) -> KeyMapping {
    let (parent, field) = key
        .path
        .rsplit_once('.')
        .map_or(("", key.path), |(parent, field)| (parent, field));
    let dot = if parent.is_empty() { "" } else { "." };
    let named = |field: &str| format!("{parent}{dot}{field}");
    match (key.module, field) {
        (norm, "gamma") if norm.ends_with("Norm") => {
            KeyMapping::new(named("weight")).or(named("gamma"))
        }
        (norm, "beta") if norm.ends_with("Norm") => {
            KeyMapping::new(named("bias")).or(named("beta"))
        }
        ("Linear", "weight") => KeyMapping {
            candidates: vec![key.path.into()],
            transpose: true,
        },
        _ => KeyMapping::new(key.path),
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
    /// The prefix of a wrapper before all names (`module.`, `_orig_mod.`, `model.`, `transformer.`,
    /// and combinations) is recognised.
    ///
    /// # Errors
    /// [`Error::Weights`] lists all missing keys and size mismatches, together with the unexpected
    /// keys; [`Error::Io`] if a file cannot be read.
    pub fn load_into<M: Module>(
        &self,
        model: M,
        mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
    ) -> Result<(M, LoadReport)> {
        let mut fill = Fill {
            files: self,
            mapping: &mapping,
            path: vec![],
            modules: vec![],
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
        let unused: Vec<String> = self
            .names()
            .filter(|name| !used.contains(*name))
            .map(str::to_owned)
            .collect();
        if !missing.is_empty() || !mismatched.is_empty() {
            return Err(Error::weights(
                self.path(),
                problems(missing, mismatched, unused),
            ));
        }
        match failed {
            Some(error) => Err(error),
            None => Ok((model, LoadReport { unused, prefix })),
        }
    }
}

/// A field at the root of a model that has another name in files of earlier versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenamedField {
    /// Name of the field.
    pub name: &'static str,
    /// Former name of the field.
    pub former: &'static str,
}

impl RenamedField {
    /// The former path of a parameter of this field; `None` for other parameters.
    pub fn former_path(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.name)?;
        rest.starts_with('.')
            .then(|| format!("{}{rest}", self.former))
    }
}

/// [`pytorch_key`], with the former names of renamed fields as further candidates.
pub fn renamed_key(key: ParamKey<'_>, renamed: &[RenamedField]) -> KeyMapping {
    let former = renamed
        .iter()
        .find_map(|field| field.former_path(key.path))
        .map(|path| pytorch_key(ParamKey { path: &path, ..key }));
    let mut mapping = pytorch_key(key);
    mapping
        .candidates
        .extend(former.into_iter().flat_map(|former| former.candidates));
    mapping
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
        false => Err(Error::weights(path, problems(vec![], vec![], unexpected))),
    }
}

/// All problems with a file's tensors, as one sentence.
fn problems(missing: Vec<String>, mismatched: Vec<String>, unexpected: Vec<String>) -> String {
    let kinds = [
        ("size mismatch", mismatched),
        ("missing keys", missing),
        ("unexpected keys", unexpected),
    ];
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
    path: Vec<String>,
    /// Types of the enclosing modules, outermost first.
    modules: Vec<String>,
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
    /// The values of the current parameter, read with `read`; `None` if it keeps its value, because
    /// the mapping skips it or loading has failed.
    fn values<T: Copy>(
        &mut self,
        shape: &[usize],
        read: impl FnOnce(&WeightReader, &str) -> Result<Vec<T>>,
    ) -> Option<Vec<T>> {
        let path = self.path.join(".");
        let module = self
            .modules
            .iter()
            .rev()
            .find_map(|module| module.strip_prefix("Struct:"))
            .unwrap_or("");
        let KeyMapping {
            candidates,
            transpose,
        } = (self.mapping)(ParamKey {
            path: &path,
            module,
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
        if found != expected {
            self.mismatched
                .push(format!("{name} ({found:?}, expected {expected:?})"));
            return None;
        }
        // Tensors are not read if loading has already failed.
        if self.failed.is_some() || !self.missing.is_empty() || !self.mismatched.is_empty() {
            return None;
        }
        match read(self.files, &name) {
            Ok(values) if transpose => Some(transposed(&values, expected[1])),
            Ok(values) => Some(values),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }
}

impl<K: Fn(ParamKey<'_>) -> KeyMapping> ModuleMapper for Fill<'_, K> {
    fn enter_module(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.push(name.to_string());
        }
        self.modules.push(container.to_string());
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.pop();
        }
        self.modules.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape().to_vec();
        let Some(values) = self.values(&shape, WeightReader::read) else {
            return param;
        };
        let data = TensorData::new(values, shape);
        let (id, tensor) = (param.id, Tensor::from_data(data, &param.lazy_device()));
        param.transform_for_load(tensor, id)
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
        let Some(values) = self.values(&shape, read) else {
            return param;
        };
        let data = TensorData::new(values, shape);
        let (id, device) = (param.id, param.lazy_device());
        param.transform_for_load(Tensor::from_data(data, (&device, dtype)), id)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        let shape = param.lazy_shape().to_vec();
        let Some(values) = self.values(&shape, WeightReader::read_bool) else {
            return param;
        };
        let data = TensorData::new(values, shape);
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

/// The transpose of a matrix, contiguous in memory; a backend's transpose may be a view.
fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    (0..columns)
        .flat_map(|column| values.iter().skip(column).step_by(columns))
        .copied()
        .collect()
}
