//! [`GenerativeOps`] for LibTorch: its own operations where burn has none that are as fast.
//!
//! Backward passes of convolutions and batch norms and the fused Adam are not among LibTorch's C
//! bindings; a TorchScript module calls them (`tests/reference/libtorch_ops.py` makes it). Another
//! LibTorch may lack them: where the module cannot be loaded, or refuses what it is given, the
//! primitives step in, and [`profile`](super::profile) shows them by name.

use super::Activation;
use super::{
    AdamStep, GenerativeOps, primitives,
    profile::{Timer, timer},
};
use burn::{
    backend::{LibTorch, TensorMetadata, ops::ModuleOps, tensor::FloatTensor},
    tensor::{
        DType, Shape,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};
use std::sync::OnceLock;
use tch::{CModule, IValue, Kind};

type Torch = FloatTensor<LibTorch>;
type Three = (Torch, Torch, Torch);

static SCRIPT: &[u8] = include_bytes!("../../assets/libtorch_ops.pt");

fn module() -> Option<&'static CModule> {
    static MODULE: OnceLock<Option<CModule>> = OnceLock::new();
    MODULE
        .get_or_init(|| CModule::load_data(&mut &*SCRIPT).ok())
        .as_ref()
}

/// Calls the module's `method`.
fn call(method: &str, arguments: &[IValue]) -> Option<IValue> {
    aigc_kernels::pages::keep_pages();
    tch::no_grad(|| module()?.method_is(method, arguments).ok())
}

/// Times what follows under another name.
fn instead(timer: Option<Timer>, name: &'static str) -> Option<Timer> {
    timer.map(|timer| timer.renamed(name))
}

fn one(value: IValue) -> Option<Torch> {
    match value {
        IValue::Tensor(tensor) => Some(Torch::new(tensor)),
        _ => None,
    }
}

fn three(value: IValue) -> Option<Three> {
    let IValue::Tuple(values) = value else {
        return None;
    };
    let mut tensors = values.into_iter().map(one);
    Some((tensors.next()??, tensors.next()??, tensors.next()??))
}

fn value(tensor: &Torch) -> IValue {
    IValue::Tensor(tensor.tensor.shallow_clone())
}

fn list(numbers: [usize; 2]) -> IValue {
    IValue::IntList(numbers.map(|n| n as i64).to_vec())
}

/// A tensor of a shape, for what reads nothing but that.
fn of_shape(shape: &Shape, like: &Torch) -> IValue {
    let sizes: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
    IValue::Tensor(tch::Tensor::empty(
        sizes,
        (like.tensor.kind(), like.tensor.device()),
    ))
}

/// `1/√(var + ε)`.
fn inverse_deviation(var: &Torch, epsilon: f64) -> tch::Tensor {
    (&var.tensor + epsilon).rsqrt()
}

/// A gradient of a convolution, if it is padded evenly.
fn conv_grad(
    method: &str,
    x: IValue,
    weight: &Torch,
    grad: &Torch,
    options: &ConvOptions<2>,
) -> Option<Torch> {
    if options.padding.iter().any(|(begin, end)| begin != end) {
        return None;
    }
    let padding = options.padding.map(|(begin, _)| begin);
    let arguments = [
        value(grad),
        x,
        value(weight),
        list(options.stride),
        list(padding),
        list(options.dilation),
        IValue::Bool(false),
        list([0, 0]),
        IValue::Int(options.groups as i64),
    ];
    one(call(method, &arguments)?)
}

/// A gradient of a transposed convolution.
fn conv_transpose_grad(
    method: &str,
    x: IValue,
    weight: &Torch,
    grad: &Torch,
    options: &ConvTransposeOptions<2>,
) -> Option<Torch> {
    let arguments = [
        value(grad),
        x,
        value(weight),
        list(options.stride),
        list(options.padding),
        list(options.dilation),
        IValue::Bool(true),
        list(options.padding_out),
        IValue::Int(options.groups as i64),
    ];
    one(call(method, &arguments)?)
}

impl GenerativeOps for LibTorch {
    fn conv2d_input_grad(x: Shape, weight: Torch, grad: Torch, options: ConvOptions<2>) -> Torch {
        let timer = timer("conv2d_input_grad");
        conv_grad(
            "conv_input_grad",
            of_shape(&x, &grad),
            &weight,
            &grad,
            &options,
        )
        .unwrap_or_else(|| {
            let _timer = instead(timer, "conv2d_input_grad of primitives");
            LibTorch::conv2d_x_backward(
                primitives::of_shape::<Self>(x, &grad),
                weight,
                grad,
                options,
            )
        })
    }

    fn conv2d_weight_grad(x: Torch, weight: Torch, grad: Torch, options: ConvOptions<2>) -> Torch {
        let timer = timer("conv2d_weight_grad");
        conv_grad("conv_weight_grad", value(&x), &weight, &grad, &options).unwrap_or_else(|| {
            let _timer = instead(timer, "conv2d_weight_grad of primitives");
            LibTorch::conv2d_weight_backward(x, weight, grad, options)
        })
    }

    fn conv_transpose2d_input_grad(
        x: Shape,
        weight: Torch,
        grad: Torch,
        options: ConvTransposeOptions<2>,
    ) -> Torch {
        let timer = timer("conv_transpose2d_input_grad");
        conv_transpose_grad(
            "conv_input_grad",
            of_shape(&x, &grad),
            &weight,
            &grad,
            &options,
        )
        .unwrap_or_else(|| {
            let _timer = instead(timer, "conv_transpose2d_input_grad of primitives");
            LibTorch::conv_transpose2d_x_backward(weight, grad, options)
        })
    }

    fn conv_transpose2d_weight_grad(
        x: Torch,
        weight: Torch,
        grad: Torch,
        options: ConvTransposeOptions<2>,
    ) -> Torch {
        let timer = timer("conv_transpose2d_weight_grad");
        conv_transpose_grad("conv_weight_grad", value(&x), &weight, &grad, &options).unwrap_or_else(
            || {
                let _timer = instead(timer, "conv_transpose2d_weight_grad of primitives");
                LibTorch::conv_transpose2d_weight_backward(x, weight, grad, options)
            },
        )
    }

    fn activation_forward(x: Torch, activation: Activation) -> Torch {
        match activation {
            // Its own gradient at a gradient of x; the bindings know one slope only.
            Activation::LeakyRelu(slope) => {
                Torch::new(x.tensor.leaky_relu_backward(&x.tensor, slope, false))
            }
            Activation::Gelu => Torch::new(x.tensor.gelu("none")),
            Activation::GeluTanh => Torch::new(x.tensor.gelu("tanh")),
            Activation::Silu => Torch::new(x.tensor.silu()),
            other => primitives::activation::<Self>(x, other),
        }
    }

    fn activation_grad(x: Torch, grad: Torch, activation: Activation) -> Torch {
        match activation {
            Activation::Relu => Torch::new(x.tensor.threshold_backward(&grad.tensor, 0.0)),
            Activation::LeakyRelu(slope) => {
                Torch::new(x.tensor.leaky_relu_backward(&grad.tensor, slope, false))
            }
            Activation::Gelu => Torch::new(x.tensor.gelu_backward(&grad.tensor, "none")),
            Activation::GeluTanh => Torch::new(x.tensor.gelu_backward(&grad.tensor, "tanh")),
            Activation::Silu => Torch::new(x.tensor.silu_backward(&grad.tensor)),
            other => primitives::activation_grad::<Self>(x, grad, other),
        }
    }

    fn batch_norm_forward(
        x: Torch,
        gamma: Torch,
        beta: Torch,
        epsilon: f64,
        activation: Activation,
    ) -> Three {
        let timer = timer("batch_norm_forward");
        let arguments = [
            value(&x),
            value(&gamma),
            value(&beta),
            IValue::Double(epsilon),
        ];
        match call("batch_norm", &arguments).and_then(three) {
            Some((y, mean, deviation)) => {
                let var =
                    Torch::new((deviation.tensor.pow_tensor_scalar(-2.0) - epsilon).clamp_min(0.0));
                (Self::activation_forward(y, activation), mean, var)
            }
            None => {
                let _timer = instead(timer, "batch_norm_forward of primitives");
                primitives::batch_norm::<Self>(x, gamma, beta, epsilon, activation)
            }
        }
    }

    fn batch_norm_grads(
        x: Torch,
        gamma: Torch,
        beta: Torch,
        mean: Torch,
        var: Torch,
        grad: Torch,
        epsilon: f64,
        activation: Activation,
    ) -> Three {
        let timer = timer("batch_norm_grads");
        let dz = match activation {
            Activation::Identity => grad.clone(),
            activation => {
                let [gamma, beta, mean, var] =
                    [&gamma, &beta, &mean, &var].map(|channels| Some(&channels.tensor));
                let z = x
                    .tensor
                    .batch_norm(gamma, beta, mean, var, false, 0.0, epsilon, false);
                Self::activation_grad(Torch::new(z), grad.clone(), activation)
            }
        };
        let deviation = IValue::Tensor(inverse_deviation(&var, epsilon));
        let arguments = [
            value(&dz),
            value(&x),
            value(&gamma),
            value(&mean),
            deviation,
            IValue::Double(epsilon),
        ];
        let fast = call("batch_norm_grads", &arguments).and_then(three);
        fast.unwrap_or_else(|| {
            let _timer = instead(timer, "batch_norm_grads of primitives");
            primitives::batch_norm_grads::<Self>(
                x, gamma, beta, mean, var, grad, epsilon, activation,
            )
        })
    }

    fn adam_step(
        param: Torch,
        grad: Torch,
        moment_1: Torch,
        moment_2: Torch,
        step: AdamStep,
    ) -> Three {
        let timer = timer("adam_step");
        // LibTorch has one decay or the other.
        let decays = step.weight_decay != 0.0 && step.decoupled_decay != 0.0;
        let plain = [&param, &grad, &moment_1, &moment_2]
            .iter()
            .all(|tensor| tensor.dtype() == DType::F32);
        if decays || !plain || module().is_none() {
            let _timer = instead(timer, "adam_step of primitives");
            return primitives::adam_step::<Self>(param, grad, moment_1, moment_2, step);
        }
        // In place, and by memory rather than by shape: what somebody else holds is copied first,
        // and what does not lie in order is put in order.
        let own = |tensor: &Torch| {
            let shared = if tensor.can_mut() {
                tensor.tensor.shallow_clone()
            } else {
                tensor.tensor.copy()
            };
            shared.contiguous()
        };
        let changed = [&param, &moment_1, &moment_2].map(own);
        let [new_param, new_1, new_2] = changed
            .each_ref()
            .map(|tensor| IValue::TensorList(vec![tensor.shallow_clone()]));
        let time = tch::Tensor::full(
            [] as [i64; 0],
            f64::from(step.time),
            (Kind::Float, param.tensor.device()),
        );
        let arguments = [
            new_param,
            IValue::TensorList(vec![grad.tensor.contiguous()]),
            new_1,
            new_2,
            IValue::TensorList(vec![time]),
            IValue::Double(step.learning_rate),
            IValue::Double(step.beta_1),
            IValue::Double(step.beta_2),
            IValue::Double(step.weight_decay + step.decoupled_decay),
            IValue::Double(step.epsilon),
            IValue::Bool(step.decoupled_decay != 0.0),
        ];
        // Not a matter for the primitives: the tensors may have changed already.
        assert!(
            call("adam", &arguments).is_some(),
            "LibTorch's fused Adam failed on {:?}",
            param.shape()
        );
        let [param, moment_1, moment_2] = changed.map(Torch::new);
        (param, moment_1, moment_2)
    }
}
