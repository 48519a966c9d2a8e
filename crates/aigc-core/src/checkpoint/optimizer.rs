//! The optimizer's state on disk, whole or not at all.

use super::atomic::write_atomic;
use crate::{Error, Result};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::{ModuleOptimizer, OptimizerRecord},
    tensor::{Bytes, Tensor},
};
use burn_pack::{Reader, Scalar};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// Writes the state of `optimizer` to `path` in burn's burnpack format.
///
/// # Errors
/// [`Error::Checkpoint`] if it cannot be serialised, [`Error::Io`] if it cannot be written.
pub fn save_optimizer(optimizer: &ModuleOptimizer, path: &Path) -> Result<()> {
    let bytes = optimizer.into_bytes().map_err(|error| Error::checkpoint(path, error))?;
    write_atomic(path, &bytes)
}

/// Gives `optimizer` the state in `path`, which must be that of an optimizer of the same kind over `model`.
///
/// burn drops what it cannot restore without a word; here every entry must be there again afterwards, and every tensor
/// must have the shape of its parameter or hold one value.
///
/// # Errors
/// [`Error::Checkpoint`] naming the first entry that does not fit.
pub fn load_optimizer<M: Module>(optimizer: ModuleOptimizer, model: &M, path: &Path) -> Result<ModuleOptimizer> {
    let fail = |reason: String| Error::checkpoint(path, reason);
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let saved = Content::of(&bytes).map_err(fail)?;
    let mut shapes = Shapes::default();
    model.visit(&mut shapes);
    for (name, (id, shape)) in &saved.tensors {
        let Some((parameter, expected)) = id.and_then(|id| shapes.of.get(&id)) else {
            return Err(fail(format!("`{name}` belongs to no parameter of the model")));
        };
        if shape != expected && shape.iter().product::<usize>() != 1 {
            return Err(fail(format!("state of `{parameter}` has shape {shape:?}, expected {expected:?}")));
        }
    }
    let record = OptimizerRecord::from_bytes(Bytes::from_bytes_vec(bytes)).map_err(|e| fail(e.to_string()))?;
    let optimizer = optimizer.load_record(record);
    let restored = optimizer.into_bytes().map_err(|e| fail(e.to_string()))?;
    let restored = Content::of(&restored).map_err(fail)?;
    if let Some(lost) = saved.tensors.keys().find(|name| !restored.tensors.contains_key(*name)) {
        return Err(fail(format!("`{lost}` cannot be restored: it was saved by another kind of optimizer")));
    }
    if let Some((lost, _)) = saved.scalars.iter().find(|(name, value)| restored.scalars.get(*name) != Some(value)) {
        return Err(fail(format!("`{lost}` cannot be restored: it was saved by another kind of optimizer")));
    }
    Ok(optimizer)
}

/// Names, owners and shapes in a record.
struct Content {
    tensors: BTreeMap<String, (Option<u64>, Vec<usize>)>,
    scalars: BTreeMap<String, Scalar>,
}

impl Content {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes.to_vec())).map_err(|e| e.to_string())?;
        let scalars = reader.scalars().clone();
        let tensors = reader.into_tensors().map_err(|e| e.to_string())?;
        let tensors = tensors.into_iter().map(|t| (t.name.clone(), (t.param_id, t.shape.to_vec()))).collect();
        Ok(Self { tensors, scalars })
    }
}

/// Path and shape of every float parameter, by id.
#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    of: HashMap<u64, (String, Vec<usize>)>,
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.of.insert(param.id.val(), (self.path.join("."), param.lazy_shape().to_vec()));
    }
}
