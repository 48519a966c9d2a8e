//! Saving the weights of a model.

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

/// Writes every tensor of `model` to `path`, with PyTorch's names and layouts: linear weights as
/// `[out, in]`, scale and shift of norms as `weight` and `bias`.
///
/// Running statistics are written with their current values; call [`Module::valid`] first to bring
/// them up to date.
///
/// # Errors
/// [`Error::Weights`] if a tensor cannot be read from the device, [`Error::Io`] if the file cannot
/// be written.
pub fn save_weights<M: Module>(model: &M, path: &Path) -> Result<()> {
    write_atomic_with(path, |temporary| {
        // The store creates files with permissions for their owner only; here they get the default
        // permissions.
        File::create(temporary).map_err(Error::io(temporary))?;
        let rights = fs::metadata(temporary)
            .map_err(Error::io(temporary))?
            .permissions();
        // Only one metadata entry: several would be written in the order of a hash map, so the same
        // weights would give different bytes.
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

/// Writes named tensors to `path`, as 32-bit floats.
///
/// # Errors
/// [`Error::Weights`] if they cannot be serialised, [`Error::Io`] if the file cannot be written.
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
