//! Changing parameters by their names in files, and taking the changes back: the merging of
//! adapters.

use super::{KeyMapping, ParamKey};
use crate::{Error, Result, params::Place};
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{DType, Device, Tensor},
};
use std::{any::Any, collections::BTreeMap};

/// A parameter of floats as files have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredParam {
    /// The usual name in files.
    pub name: String,
    /// Field names joined by dots, without the names of enum variants.
    pub path: String,
    /// Type of the module with the parameter, such as `Linear` or `Conv2d`.
    pub module: String,
    /// Shape in files.
    pub shape: Vec<usize>,
    /// Device of the parameter.
    pub device: Device,
    /// Whether the file has the transpose.
    transposed: bool,
}

impl StoredParam {
    /// The shape as a matrix: the first axis, and all others in one.
    ///
    /// A convolution is one of its output channels × its input channels and kernel; a vector has
    /// one column.
    pub fn matrix_shape(&self) -> [usize; 2] {
        let rows = self.shape.first().copied().unwrap_or(1);
        [rows, self.shape.iter().skip(1).product()]
    }
}

/// The parameters of floats of `model` that `mapping` gives names to.
pub fn stored_params<M: Module>(
    model: &M,
    mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
) -> Vec<StoredParam> {
    let mut list = List {
        place: Place::default(),
        mapping,
        found: vec![],
    };
    model.visit(&mut list);
    list.found
}

/// The values of parameters before [`edit_params`] changed them.
#[derive(Default)]
pub struct Originals(BTreeMap<String, Box<dyn Any + Send + Sync>>);

impl Originals {
    /// The paths of the changed parameters, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether no parameter was changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Originals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Changes parameters of `model`, such as the weights that adapters change. `edit` gets every
/// parameter of floats that `mapping` gives a name to, and a function that returns its value as
/// files have it, as a [matrix](StoredParam::matrix_shape) of 32-bit floats. It returns the new
/// value in the same shape, or `None` if the parameter stays as it is. The new value gets the type
/// of the old one.
///
/// `originals` receives the values before their first change, for [`restore_params`].
///
/// # Errors
/// Those of `edit`, and [`Error::InvalidArgument`] for a value of another shape. The model is lost
/// then; a clone, which shares the tensors of the model, is cheap.
pub fn edit_params<M: Module>(
    model: M,
    mapping: impl Fn(ParamKey<'_>) -> KeyMapping,
    originals: &mut Originals,
    edit: impl FnMut(&StoredParam, &dyn Fn() -> Tensor<2>) -> Result<Option<Tensor<2>>>,
) -> Result<M> {
    let mut mapper = Edit {
        place: Place::default(),
        mapping,
        edit,
        originals,
        failed: None,
    };
    let model = model.map(&mut mapper);
    match mapper.failed {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

/// Takes back all changes that [`edit_params`] noted in `originals`, which are empty after it: the
/// parameters have their old values bit for bit.
pub fn restore_params<M: Module>(model: M, originals: &mut Originals) -> M {
    model.map(&mut Restore {
        place: Place::default(),
        originals,
    })
}

/// The current parameter, if `mapping` gives it a name.
fn stored<const D: usize>(
    place: &Place,
    mapping: &impl Fn(ParamKey<'_>) -> KeyMapping,
    param: &Param<Tensor<D>>,
) -> Option<StoredParam> {
    let (path, module) = (place.path(), place.module());
    let KeyMapping {
        candidates,
        transpose,
    } = mapping(ParamKey {
        path: &path,
        module,
    });
    let name = candidates.into_iter().next()?;
    let transposed = transpose && D == 2;
    let mut shape = param.lazy_shape().to_vec();
    if transposed {
        shape.reverse();
    }
    Some(StoredParam {
        name,
        module: module.to_owned(),
        path,
        shape,
        device: param.lazy_device(),
        transposed,
    })
}

struct List<K> {
    place: Place,
    mapping: K,
    found: Vec<StoredParam>,
}

impl<K: Fn(ParamKey<'_>) -> KeyMapping> ModuleVisitor for List<K> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.place.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.extend(stored(&self.place, &self.mapping, param));
    }
}

struct Edit<'a, K, F> {
    place: Place,
    mapping: K,
    edit: F,
    originals: &'a mut Originals,
    failed: Option<Error>,
}

impl<K, F> Edit<'_, K, F>
where
    K: Fn(ParamKey<'_>) -> KeyMapping,
    F: FnMut(&StoredParam, &dyn Fn() -> Tensor<2>) -> Result<Option<Tensor<2>>>,
{
    /// The new value of a parameter; `None` if it keeps its value.
    fn value<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<Option<Tensor<D>>> {
        let Some(stored) = stored(&self.place, &self.mapping, param) else {
            return Ok(None);
        };
        let matrix = || {
            let value = param.val().detach().cast(DType::F32);
            let shape = param.lazy_shape().to_vec();
            match stored.transposed {
                true => value.reshape([shape[0], shape[1]]).transpose(),
                false => value.reshape(stored.matrix_shape()),
            }
        };
        let Some(new) = (self.edit)(&stored, &matrix)? else {
            return Ok(None);
        };
        if new.dims() != stored.matrix_shape() {
            let [rows, columns] = stored.matrix_shape();
            let expected = format!("[{rows}, {columns}]");
            let shape = format!("{:?}", new.dims());
            return Err(Error::argument(stored.name, shape, expected));
        }
        let new = if stored.transposed {
            new.transpose()
        } else {
            new
        };
        let (shape, dtype) = (param.lazy_shape(), param.val().dtype());
        // Through the host, so that it is contiguous in memory.
        let data = new.detach().reshape::<D, _>(shape).cast(dtype).into_data();
        Ok(Some(Tensor::from_data(data, (&stored.device, dtype))))
    }
}

impl<K, F> ModuleMapper for Edit<'_, K, F>
where
    K: Fn(ParamKey<'_>) -> KeyMapping,
    F: FnMut(&StoredParam, &dyn Fn() -> Tensor<2>) -> Result<Option<Tensor<2>>>,
{
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.place.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        match self.value(&param) {
            Ok(None) => param,
            Ok(Some(value)) => {
                let old = self.originals.0.entry(self.place.path());
                old.or_insert_with(|| Box::new(param.val()));
                let id = param.id;
                param.transform_for_load(value, id)
            }
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}

struct Restore<'a> {
    place: Place,
    originals: &'a mut Originals,
}

impl ModuleMapper for Restore<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.place.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let old = self.originals.0.remove(&self.place.path());
        match old.and_then(|old| old.downcast::<Tensor<D>>().ok()) {
            Some(old) => {
                let id = param.id;
                param.transform_for_load(*old, id)
            }
            None => param,
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        nn::{Conv2d, Conv2dConfig, Linear, LinearConfig, diffusers::diffusers_key},
        params::{ParamVisitor, visit_params},
        rng::{InitWeights, Rng},
    };
    use burn::tensor::{FloatDType, TensorData};

    #[derive(Module, Debug)]
    struct Model {
        to_q: Linear,
        conv: Conv2d,
    }

    fn model() -> Model {
        let device = Device::flex();
        let model = Model {
            to_q: LinearConfig::new(3, 5).init(&device),
            conv: Conv2dConfig::new([2, 4], 3).init(&device),
        };
        model.init_weights(1)
    }

    fn values(model: &Model) -> Vec<TensorData> {
        struct Collect(Vec<TensorData>);
        impl ParamVisitor for Collect {
            fn visit<const D: usize>(&mut self, _: &str, param: &Param<Tensor<D>>) {
                self.0.push(param.val().into_data());
            }
        }
        let mut all = Collect(vec![]);
        visit_params(model, &mut all);
        all.0
    }

    #[test]
    fn params_are_listed_as_files_have_them() {
        let all = stored_params(&model(), diffusers_key);
        let found: Vec<_> = all
            .iter()
            .map(|p| (&p.name[..], &p.module[..], &p.shape[..], p.matrix_shape()))
            .collect();
        let expected = [
            ("to_q.weight", "Linear", &[5, 3][..], [5, 3]),
            ("to_q.bias", "Linear", &[5], [5, 1]),
            ("conv.weight", "Conv2d", &[4, 2, 3, 3], [4, 18]),
            ("conv.bias", "Conv2d", &[4], [4, 1]),
        ];
        assert_eq!(found, expected);
    }

    /// A low-rank change of a linear layer and of a convolution, twice, then taken back; in 32 and
    /// in 16 bits.
    #[test]
    fn edits_are_taken_back_bit_for_bit() {
        let device = Device::flex();
        for dtype in [FloatDType::F32, FloatDType::F16] {
            let mut model = model();
            model.to_q.weight = model.to_q.weight.map(|weight| weight.cast(dtype));
            let before = values(&model);
            let mut originals = Originals::default();
            for round in 0..2 {
                model = edit_params(model, diffusers_key, &mut originals, |param, value| {
                    let [rows, columns] = param.matrix_shape();
                    if param.shape.len() < 2 {
                        return Ok(None);
                    }
                    let up: Tensor<2> = Rng::new(round).normal([rows, 1], &device);
                    Ok(Some(
                        value() + up.matmul(Tensor::ones([1, columns], &device)),
                    ))
                })
                .unwrap();
            }
            let paths: Vec<&str> = originals.paths().collect();
            assert_eq!(paths, ["conv.weight", "to_q.weight"]);
            let after = values(&model);
            let ups = [0, 1].map(|round| Rng::new(round).normal_vec(5));
            for (at, (old, new)) in before[0]
                .iter::<f32>()
                .zip(after[0].iter::<f32>())
                .enumerate()
            {
                // `[in, out]` in memory.
                let up = ups[0][at % 5] + ups[1][at % 5];
                assert!((new - old - up).abs() < 4e-3, "{at}: {old} {new} {up}");
            }
            assert_eq!(after[0].dtype(), DType::from(dtype));
            assert!(before[2] != after[2] && before[1] == after[1]);
            let model = restore_params(model, &mut originals);
            assert!(originals.is_empty());
            assert_eq!(values(&model), before);
        }
    }

    #[test]
    fn edits_of_another_shape_are_refused() {
        let device = Device::flex();
        let wrong = edit_params(model(), diffusers_key, &mut Originals::default(), |_, _| {
            Ok(Some(Tensor::ones([1, 1], &device)))
        });
        let message = wrong.unwrap_err().to_string();
        assert!(
            message.contains("`to_q.weight` is [1, 1], expected [5, 3]"),
            "{message}"
        );
    }
}
