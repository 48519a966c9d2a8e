//! Parameter ids that survive the process.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::Tensor,
};

/// Gives every float parameter an id made of its path. burn's ids are random in each process, and the optimizer's
/// state is keyed by them: with ids from paths it finds its parameters again after a resume.
pub(crate) fn stable_ids<M: Module>(model: M) -> M {
    model.map(&mut Renumber::default())
}

/// FNV-1a, 64 bits.
fn id_of(path: &str) -> ParamId {
    ParamId::from(path.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
}

#[derive(Default)]
struct Renumber {
    path: Vec<String>,
}

impl ModuleMapper for Renumber {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, value, mapper) = param.consume();
        Param::from_mapped_value(id_of(&self.path.join(".")), value, mapper)
    }
}

/// Ids of the trainable parameters under `field`, or of all, and how many values they hold.
pub(crate) fn trainable<M: Module>(model: &M, field: Option<&str>) -> (Vec<ParamId>, usize) {
    let mut found = Trainable { path: Vec::new(), field, ids: Vec::new(), values: 0 };
    model.visit(&mut found);
    (found.ids, found.values)
}

struct Trainable<'a> {
    path: Vec<String>,
    field: Option<&'a str>,
    ids: Vec<ParamId>,
    values: usize,
}

impl ModuleVisitor for Trainable<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let inside = self.field.is_none_or(|field| self.path.first().is_some_and(|first| first == field));
        if inside && param.val().is_require_grad() {
            self.ids.push(param.id);
            self.values += param.lazy_shape().num_elements();
        }
    }
}
