//! Parameter ids that are the same in every process.

use crate::{
    params::{ParamMapper, map_params},
    weights::RenamedField,
};
use burn::{
    module::{Module, Param, ParamId},
    tensor::Tensor,
};

/// Gives every float parameter an id computed from its path.
///
/// burn's ids are random in each process, and an optimizer's state is keyed by them. With ids
/// computed from paths, a loaded state matches the parameters of a new process. The trainer calls
/// this function; a custom loop must call it once, before the first step.
pub fn assign_path_ids<M: Module>(model: M) -> M {
    assign_path_ids_with(model, &[])
}

/// [`assign_path_ids`] for a model whose fields were renamed: their parameters keep the ids of
/// their former paths, under which older checkpoints store the optimizer's state.
pub(crate) fn assign_path_ids_with<M: Module>(model: M, renamed: &[RenamedField]) -> M {
    map_params(model, &mut Renumber { renamed })
}

struct Renumber<'a> {
    renamed: &'a [RenamedField],
}

impl ParamMapper for Renumber<'_> {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let former = self
            .renamed
            .iter()
            .find_map(|field| field.former_path(path));
        let (_, value, mapper) = param.consume();
        Param::from_mapped_value(id_of(former.as_deref().unwrap_or(path)), value, mapper)
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
fn id_of(path: &str) -> ParamId {
    ParamId::from(path.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    }))
}
