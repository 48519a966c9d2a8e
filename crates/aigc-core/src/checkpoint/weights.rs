//! Weights as safetensors, in PyTorch's names and layouts.

use super::atomic::{replace, write_atomic};
use crate::{Error, Result};
use burn::{
    module::Module,
    store::{
        BurnToPyTorchAdapter, FloatCastAdapter, ModuleAdapter, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter,
        SafetensorsStore,
    },
    tensor::{DType, TensorData},
};
use safetensors::{Dtype, tensor::TensorView};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    path::Path,
};

/// How many names an error message lists.
const LISTED: usize = 256;

/// Writes every tensor of `model` to `path`: linear weights as `[out, in]`, norms' scale and shift as `weight` and
/// `bias`, so that Python's `safetensors` opens what PyTorch would have written.
///
/// Running statistics are written as they stand; [`Module::valid`] brings them up to date first.
///
/// # Errors
/// [`Error::Weights`] if a tensor cannot be read back, [`Error::Io`] if the file cannot be written.
pub fn save_weights<M: Module>(model: &M, path: &Path) -> Result<()> {
    replace(path, |temporary| {
        // The store makes files that only their owner may read; a model gets the rights any new file gets.
        File::create(temporary).map_err(Error::io(temporary))?;
        let rights = fs::metadata(temporary).map_err(Error::io(temporary))?.permissions();
        // One metadata entry only: several would come in a hash map's order, and the same weights in other bytes.
        let mut store = SafetensorsStore::from_file(temporary)
            .with_to_adapter(BurnToPyTorchAdapter)
            .skip_enum_variants(true)
            .clear_metadata()
            .metadata("format", "pt")
            .overwrite(true);
        store.collect_from(model).map_err(|error| Error::weights(path, error))?;
        fs::set_permissions(temporary, rights).map_err(Error::io(temporary))
    })
}

/// Writes tensors of any names to `path`, as 32-bit floats.
///
/// # Errors
/// [`Error::Weights`] if they cannot be laid out, [`Error::Io`] if the file cannot be written.
pub fn save_tensors(tensors: &BTreeMap<String, TensorData>, path: &Path) -> Result<()> {
    let bytes = |data: &TensorData| -> Vec<u8> { data.iter::<f32>().flat_map(f32::to_le_bytes).collect() };
    let bytes: Vec<(&String, Vec<usize>, Vec<u8>)> =
        tensors.iter().map(|(name, data)| (name, data.shape().to_vec(), bytes(data))).collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name, view)));
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let file = views
        .collect::<Result<Vec<_>, _>>()
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|error| Error::weights(path, error))?;
    write_atomic(path, &file)
}

/// Reads `path` into a model of the same architecture, on the model's device. The opposite of [`save_weights`]; floats
/// of other precisions become 32-bit ones.
///
/// # Errors
/// [`Error::Weights`] if the file is broken, lacks a tensor of the model, holds one the model does not have, or one of
/// another shape.
pub fn load_weights<M: Module>(model: M, path: &Path) -> Result<M> {
    load_weights_with_mapping(model, path, &[])
}

/// The same for a file in which tensors have other names: `(pattern, replacement)` as the `regex` crate has them, one after the
/// other.
///
/// # Errors
/// As [`load_weights`].
///
/// # Panics
/// If a pattern is none.
pub fn load_weights_with_mapping<M: Module>(mut model: M, path: &Path, renamed: &[(&str, &str)]) -> Result<M> {
    let store =
        renamed.iter().fold(SafetensorsStore::from_file(path), |store, (from, to)| store.with_key_remapping(from, *to));
    let mut store = store
        .skip_enum_variants(true)
        .with_from_adapter(PyTorchToBurnAdapter.chain(FloatCastAdapter::to(DType::F32)))
        .allow_partial(true)
        .validate(false);
    let applied = model.load_from(&mut store).map_err(|error| Error::weights(path, error))?;
    let mut problems = Vec::new();
    if !applied.errors.is_empty() {
        problems.push(list("does not fit", applied.errors.iter().map(ToString::to_string)));
    }
    if !applied.missing.is_empty() {
        problems.push(list("lacks", applied.missing.iter().map(|(name, _)| name.clone())));
    }
    // PyTorch's count of batches, which nothing here needs.
    let foreign: Vec<_> = applied.unused.into_iter().filter(|n| !n.ends_with("num_batches_tracked")).collect();
    if !foreign.is_empty() {
        problems.push(list("holds what the model does not have", foreign.into_iter()));
    }
    if problems.is_empty() { Ok(model) } else { Err(Error::weights(path, problems.join("; "))) }
}

pub(super) fn list(what: &str, names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.sort();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{what}: {}{more}", names.join(", "))
}
