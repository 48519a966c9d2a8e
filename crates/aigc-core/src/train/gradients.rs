//! The norm of all gradients of a model.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};

/// The Euclidean norm of all gradients together, `√(Σ gᵢ²)`, shape `[1]`; `None` if there are none.
///
/// burn clips each tensor separately, which changes the direction of the step; clipping by this
/// norm does not (Pascanu et al. 2013, <https://arxiv.org/abs/1211.5063>).
pub fn grad_norm<M: Module>(model: &M, gradients: &GradientsParams) -> Option<Tensor<1>> {
    let mut squares = Squares {
        gradients,
        sums: Vec::new(),
    };
    model.visit(&mut squares);
    (!squares.sums.is_empty()).then(|| Tensor::cat(squares.sums, 0).sum().sqrt())
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            // Row by row first: Flex sums 4 Mi elements or more in an order that depends on its
            // number of threads.
            let rows = gradient.dims().first().copied().unwrap_or(1);
            let flat = gradient.reshape([rows as i32, -1]);
            self.sums.push((flat.clone() * flat).sum_dim(1).sum());
        }
    }
}

/// Multiplies every gradient by `factor`.
pub fn scale_gradients<M: Module>(
    model: &M,
    gradients: GradientsParams,
    factor: f64,
) -> GradientsParams {
    let mut scale = Scale {
        from: gradients,
        into: GradientsParams::new(),
        factor,
    };
    model.visit(&mut scale);
    scale.into
}

struct Scale {
    from: GradientsParams,
    into: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.from.remove::<D>(param.id) {
            self.into.register(param.id, gradient * self.factor);
        }
    }
}
