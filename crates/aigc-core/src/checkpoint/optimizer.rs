//! Saving and loading the optimizer's state.

use crate::fs::write_atomic;
use crate::{
    Error, Result,
    params::{ParamVisitor, visit_params},
};
use burn::{
    module::{Module, Param},
    optim::{ModuleOptimizer, OptimizerRecord},
    tensor::{Bytes, DType, Tensor},
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
    let bytes = optimizer
        .into_bytes()
        .map_err(|error| Error::checkpoint(path, error))?;
    write_atomic(path, &bytes)
}

/// Loads the state in `path` into `optimizer`. The file must come from an optimizer of the same
/// kind over `model`, whose ids are [stable](super::assign_path_ids).
///
/// burn silently drops entries that it cannot restore. This function checks that every entry is
/// restored, and that every tensor has the shape of its parameter or holds one value.
///
/// # Errors
/// [`Error::Checkpoint`] naming the first entry that does not fit.
pub fn load_optimizer<M: Module>(
    optimizer: ModuleOptimizer,
    model: &M,
    path: &Path,
) -> Result<ModuleOptimizer> {
    let fail = |reason: String| Error::checkpoint(path, reason);
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let saved = Content::of(&bytes).map_err(fail)?;
    let mut shapes = Shapes::default();
    visit_params(model, &mut shapes);
    // burn trusts the ranks in a record and panics on wrong ones, so each is first compared with
    // its parameter.
    for (name, value) in &saved.scalars {
        let Some((id, field)) = name.split_once('.') else {
            return Err(fail(format!("`{name}` is not the state of a parameter")));
        };
        let Some((parameter, expected)) = id.parse().ok().and_then(|id: u64| shapes.of.get(&id))
        else {
            return Err(fail(format!(
                "`{name}` belongs to no parameter of the model"
            )));
        };
        if field == "__rank" && usize::try_from(*value).ok() != Some(expected.len()) {
            return Err(fail(format!(
                "state of `{parameter}` has rank {value:?}, expected {}",
                expected.len()
            )));
        }
    }
    for (name, (id, shape, dtype)) in &saved.tensors {
        let Some((parameter, expected)) = id.and_then(|id| shapes.of.get(&id)) else {
            return Err(fail(format!(
                "`{name}` belongs to no parameter of the model"
            )));
        };
        let owner = name
            .split_once('.')
            .and_then(|(owner, _)| owner.parse().ok());
        if owner != *id
            || !saved
                .scalars
                .contains_key(&format!("{}.__rank", id.unwrap_or_default()))
        {
            return Err(fail(format!(
                "`{name}` is not stored under its parameter `{parameter}`"
            )));
        }
        let single = shape.len() == expected.len() && shape.iter().all(|side| *side == 1);
        if (shape != expected && !single) || !dtype.is_float() {
            return Err(fail(format!(
                "state of `{parameter}` is {dtype:?} {shape:?}, expected floats {expected:?}"
            )));
        }
    }
    let record = OptimizerRecord::from_bytes(Bytes::from_bytes_vec(bytes))
        .map_err(|e| fail(e.to_string()))?;
    let optimizer = optimizer.load_record(record);
    let restored = optimizer.into_bytes().map_err(|e| fail(e.to_string()))?;
    let restored = Content::of(&restored).map_err(fail)?;
    if let Some(lost) = saved
        .tensors
        .keys()
        .find(|name| !restored.tensors.contains_key(*name))
    {
        return Err(fail(format!(
            "`{lost}` cannot be restored: it was saved by another kind of optimizer"
        )));
    }
    if let Some((lost, _)) = saved
        .scalars
        .iter()
        .find(|(name, value)| restored.scalars.get(*name) != Some(value))
    {
        return Err(fail(format!(
            "`{lost}` cannot be restored: it was saved by another kind of optimizer"
        )));
    }
    Ok(optimizer)
}

/// Names, owners and shapes in a record.
struct Content {
    tensors: BTreeMap<String, (Option<u64>, Vec<usize>, DType)>,
    scalars: BTreeMap<String, Scalar>,
}

impl Content {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        let reader =
            Reader::from_bytes(Bytes::from_bytes_vec(bytes.to_vec())).map_err(|e| e.to_string())?;
        let scalars = reader.scalars().clone();
        let tensors = reader.into_tensors().map_err(|e| e.to_string())?;
        let tensors = tensors
            .into_iter()
            .map(|t| (t.name.clone(), (t.param_id, t.shape.to_vec(), t.dtype)))
            .collect();
        Ok(Self { tensors, scalars })
    }
}

/// Path and shape of every float parameter, by id.
#[derive(Default)]
struct Shapes {
    of: HashMap<u64, (String, Vec<usize>)>,
}

impl ParamVisitor for Shapes {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.of.insert(
            param.id.val(),
            (path.to_string(), param.lazy_shape().to_vec()),
        );
    }
}
