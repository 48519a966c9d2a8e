//! From a model into a file.

use crate::{
    Error, Result,
    checkpoint::{write_atomic, write_atomic_with},
};
use burn::{
    module::Module,
    store::{BurnToPyTorchAdapter, ModuleStore, SafetensorsStore},
    tensor::TensorData,
};
use safetensors::{Dtype, tensor::TensorView};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    path::Path,
};

/// Writes every tensor of `model` to `path`: linear weights as `[out, in]`, norms' scale and shift
/// as `weight` and `bias`, so that Python's `safetensors` opens what PyTorch would have written.
///
/// Running statistics are written as they stand; [`Module::valid`] brings them up to date first.
///
/// # Errors
/// [`Error::Weights`] if a tensor cannot be read back, [`Error::Io`] if the file cannot be written.
pub fn save_weights<M: Module>(model: &M, path: &Path) -> Result<()> {
    write_atomic_with(path, |temporary| {
        // The store makes files that only their owner may read; a model gets the rights any new
        // file gets.
        File::create(temporary).map_err(Error::io(temporary))?;
        let rights = fs::metadata(temporary)
            .map_err(Error::io(temporary))?
            .permissions();
        // One metadata entry only: several would come in a hash map's order, and the same weights
        // in other bytes.
        let mut store = SafetensorsStore::from_file(temporary)
            .with_to_adapter(BurnToPyTorchAdapter)
            .skip_enum_variants(true)
            .clear_metadata()
            .metadata("format", "pt")
            .overwrite(true);
        store
            .collect_from(model)
            .map_err(|error| Error::weights(path, error))?;
        fs::set_permissions(temporary, rights).map_err(Error::io(temporary))
    })
}

/// Writes tensors of any names to `path`, as 32-bit floats.
///
/// # Errors
/// [`Error::Weights`] if they cannot be laid out, [`Error::Io`] if the file cannot be written.
pub fn save_tensors(tensors: &BTreeMap<String, TensorData>, path: &Path) -> Result<()> {
    let bytes =
        |data: &TensorData| -> Vec<u8> { data.iter::<f32>().flat_map(f32::to_le_bytes).collect() };
    let bytes: Vec<(&String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, data)| (name, data.shape().to_vec(), bytes(data)))
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name, view))
    });
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let file = views
        .collect::<Result<Vec<_>, _>>()
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|error| Error::weights(path, error))?;
    write_atomic(path, &file)
}
