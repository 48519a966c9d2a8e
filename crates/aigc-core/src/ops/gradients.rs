//! Handwritten backward passes, the same for every backend.

use super::Activation;
use super::{GenerativeOps, OptionalTensor};
use burn::{
    backend::{
        Autodiff, Backend, TensorMetadata,
        autodiff::{
            NodeId,
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{
        Shape,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};
use std::fmt::{Debug, Formatter};

/// What the backward pass of one operation gets.
struct Backpropagated<B: Backend, E, const N: usize> {
    /// The inputs that it asked to keep.
    inputs: [Option<FloatTensor<B>>; N],
    /// What the forward pass left.
    extra: E,
    /// Gradient of the output.
    grad: FloatTensor<B>,
    /// Which inputs want a gradient.
    wanted: [bool; N],
}

impl<B: Backend, E, const N: usize> Backpropagated<B, E, N> {
    fn input(&mut self, index: usize) -> FloatTensor<B> {
        self.inputs[index]
            .take()
            .unwrap_or_else(|| unreachable!("an input that was kept"))
    }
}

/// From gradient of the output to gradients of the inputs.
type Rule<B, E, const N: usize> = fn(Backpropagated<B, E, N>) -> [Option<FloatTensor<B>>; N];

struct Step<B: Backend, E, const N: usize>(Rule<B, E, N>);

impl<B: Backend, E, const N: usize> Debug for Step<B, E, N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Step")
    }
}

impl<B: Backend, E: Clone + Send + Debug + 'static, const N: usize> Backward<B, N>
    for Step<B, E, N>
{
    type State = ([Option<NodeId>; N], E);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let (kept, extra) = ops.state;
        let inputs =
            kept.map(|id| id.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id)));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let computed = (self.0)(Backpropagated {
            inputs,
            extra,
            grad,
            wanted,
        });
        for (parent, grad) in ops.parents.into_iter().zip(computed) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

/// Runs `forward`, and `rule` when gradients come back. `keep` says which inputs the rule reads,
/// given which are tracked.
fn differentiable<
    B: Backend,
    C: CheckpointStrategy,
    E: Clone + Send + Debug + 'static,
    const N: usize,
>(
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    keep: impl FnOnce([bool; N]) -> [bool; N],
    forward: impl FnOnce([FloatTensor<B>; N]) -> (FloatTensor<B>, E),
    rule: Rule<B, E, N>,
) -> (FloatTensor<Autodiff<B, C>>, E) {
    let nodes = inputs.each_ref().map(|input| input.node());
    let tracked = inputs.each_ref().map(|input| input.is_tracked());
    match Step(rule).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let keep = keep(tracked);
            let kept = std::array::from_fn(|i| keep[i].then(|| prep.checkpoint(&inputs[i])));
            let (output, extra) = forward(inputs.map(|input| input.into_primitive()));
            (prep.finish((kept, extra.clone()), output), extra)
        }
        OpsKind::UnTracked(prep) => {
            let (output, extra) = forward(inputs.map(|input| input.into_primitive()));
            (prep.finish(output), extra)
        }
    }
}

/// A statistic of the forward pass: not differentiable.
fn constant<B: Backend, C: CheckpointStrategy>(
    tensor: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    FloatTensor::<Autodiff<B, C>>::new(tensor)
}

/// What the gradients of a convolution `y = x ∗ w (+ b)` read: the input for the weight's, and the
/// weight for the input's and, for its shape, its own. A frozen convolution holds no input.
const fn operands<const N: usize>(tracked: [bool; N]) -> [bool; N] {
    let mut keep = [false; N];
    keep[0] = tracked[1];
    keep[1] = tracked[0] || tracked[1];
    keep
}

/// From input, weight and gradient of the output to the gradient of the weight.
type WeightRule<B, O> = fn(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, O) -> FloatTensor<B>;

/// Gradients of a convolution of either direction: of the input from its shape, of the weight, and
/// of the bias.
fn convolution_grads<B: GenerativeOps, O: Clone, const N: usize>(
    mut back: Backpropagated<B, (Shape, O), N>,
    input_grad: fn(Shape, FloatTensor<B>, FloatTensor<B>, O) -> FloatTensor<B>,
    weight_grad: WeightRule<B, O>,
) -> [Option<FloatTensor<B>>; N] {
    let mut grads = [const { None }; N];
    let (shape, options) = back.extra.clone();
    let weight = (back.wanted[0] || back.wanted[1]).then(|| back.input(1));
    if let Some(weight) = weight.clone().filter(|_| back.wanted[0]) {
        grads[0] = Some(input_grad(
            shape,
            weight,
            back.grad.clone(),
            options.clone(),
        ));
    }
    if let Some(weight) = weight.filter(|_| back.wanted[1]) {
        grads[1] = Some(weight_grad(
            back.input(0),
            weight,
            back.grad.clone(),
            options,
        ));
    }
    if N > 2 && back.wanted[2] {
        grads[2] = Some(B::channel_sums(back.grad));
    }
    grads
}

impl<B: GenerativeOps, C: CheckpointStrategy> GenerativeOps for Autodiff<B, C> {
    fn conv2d_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        fn grads<B: GenerativeOps, const N: usize>(
            back: Backpropagated<B, (Shape, ConvOptions<2>), N>,
        ) -> [Option<FloatTensor<B>>; N] {
            convolution_grads(back, B::conv2d_input_grad, B::conv2d_weight_grad)
        }
        let shape = x.shape();
        match bias {
            OptionalTensor::Given(bias) => differentiable::<B, C, _, 3>(
                [x, weight, bias],
                operands,
                |[x, w, b]| {
                    (
                        B::conv2d_forward(x, w, OptionalTensor::Given(b), options.clone()),
                        (shape, options),
                    )
                },
                grads::<B, 3>,
            ),
            OptionalTensor::Missing => differentiable::<B, C, _, 2>(
                [x, weight],
                operands,
                |[x, w]| {
                    (
                        B::conv2d_forward(x, w, OptionalTensor::Missing, options.clone()),
                        (shape, options),
                    )
                },
                grads::<B, 2>,
            ),
        }
        .0
    }

    fn conv_transpose2d_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        fn grads<B: GenerativeOps, const N: usize>(
            back: Backpropagated<B, (Shape, ConvTransposeOptions<2>), N>,
        ) -> [Option<FloatTensor<B>>; N] {
            convolution_grads(
                back,
                B::conv_transpose2d_input_grad,
                B::conv_transpose2d_weight_grad,
            )
        }
        let shape = x.shape();
        match bias {
            OptionalTensor::Given(bias) => differentiable::<B, C, _, 3>(
                [x, weight, bias],
                operands,
                |[x, w, b]| {
                    (
                        B::conv_transpose2d_forward(
                            x,
                            w,
                            OptionalTensor::Given(b),
                            options.clone(),
                        ),
                        (shape, options),
                    )
                },
                grads::<B, 3>,
            ),
            OptionalTensor::Missing => differentiable::<B, C, _, 2>(
                [x, weight],
                operands,
                |[x, w]| {
                    (
                        B::conv_transpose2d_forward(x, w, OptionalTensor::Missing, options.clone()),
                        (shape, options),
                    )
                },
                grads::<B, 2>,
            ),
        }
        .0
    }

    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalTensor<Self>,
    ) -> FloatTensor<Self> {
        fn grads<B: GenerativeOps, const N: usize>(
            mut back: Backpropagated<B, (), N>,
        ) -> [Option<FloatTensor<B>>; N] {
            let mut grads = [const { None }; N];
            if back.wanted[0] {
                grads[0] = Some(B::linear_input_grad(back.input(1), back.grad.clone()));
            }
            if back.wanted[1] {
                grads[1] = Some(B::linear_weight_grad(back.input(0), back.grad.clone()));
            }
            if N > 2 && back.wanted[2] {
                grads[2] = Some(B::linear_bias_grad(back.grad));
            }
            grads
        }
        match bias {
            OptionalTensor::Given(bias) => differentiable::<B, C, _, 3>(
                [x, weight, bias],
                |[x, w, _]| [w, x, false],
                |[x, w, b]| (B::linear_forward(x, w, OptionalTensor::Given(b)), ()),
                grads::<B, 3>,
            ),
            OptionalTensor::Missing => differentiable::<B, C, _, 2>(
                [x, weight],
                |[x, w]| [w, x],
                |[x, w]| (B::linear_forward(x, w, OptionalTensor::Missing), ()),
                grads::<B, 2>,
            ),
        }
        .0
    }

    fn activation_forward(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [x],
            |_| [true],
            |[x]| (B::activation_forward(x, activation), activation),
            |mut back| {
                [Some(B::activation_grad(
                    back.input(0),
                    back.grad,
                    back.extra,
                ))]
            },
        )
        .0
    }

    fn group_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (y, (mean, var, ..)) = differentiable::<B, C, _, 3>(
            [x, gamma, beta],
            |_| [true; 3],
            |[x, gamma, beta]| {
                let (y, mean, var) =
                    B::group_norm_forward(x, gamma, beta, groups, epsilon, activation);
                (y, (mean, var, groups, epsilon, activation))
            },
            |mut back| {
                let (x, gamma, beta) = (back.input(0), back.input(1), back.input(2));
                let (mean, var, groups, epsilon, activation) = back.extra;
                let grads = B::group_norm_grads(
                    x, gamma, beta, mean, var, back.grad, groups, epsilon, activation,
                );
                [Some(grads.0), Some(grads.1), Some(grads.2)]
            },
        );
        (y, constant::<B, C>(mean), constant::<B, C>(var))
    }

    fn batch_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (y, (mean, var, ..)) = differentiable::<B, C, _, 3>(
            [x, gamma, beta],
            |_| [true; 3],
            |[x, gamma, beta]| {
                let (y, mean, var) = B::batch_norm_forward(x, gamma, beta, epsilon, activation);
                (y, (mean, var, epsilon, activation))
            },
            |mut back| {
                let (x, gamma, beta) = (back.input(0), back.input(1), back.input(2));
                let (mean, var, epsilon, activation) = back.extra;
                let grads =
                    B::batch_norm_grads(x, gamma, beta, mean, var, back.grad, epsilon, activation);
                [Some(grads.0), Some(grads.1), Some(grads.2)]
            },
        );
        (y, constant::<B, C>(mean), constant::<B, C>(var))
    }

    fn layer_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: OptionalTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        fn grads<B: GenerativeOps, const N: usize>(
            mut back: Backpropagated<B, (FloatTensor<B>, FloatTensor<B>, f64), N>,
        ) -> [Option<FloatTensor<B>>; N] {
            let (x, gamma) = (back.input(0), back.input(1));
            let (mean, var, epsilon) = back.extra;
            let (dx, dgamma, dbeta) = B::layer_norm_grads(x, gamma, mean, var, back.grad, epsilon);
            let mut grads = [const { None }; N];
            (grads[0], grads[1]) = (Some(dx), Some(dgamma));
            if N > 2 {
                grads[2] = Some(dbeta);
            }
            grads
        }
        let forward = |x, gamma, beta| {
            let (y, mean, var) = B::layer_norm_forward(x, gamma, beta, epsilon);
            (y, (mean, var, epsilon))
        };
        let (y, (mean, var, _)) = match beta {
            OptionalTensor::Given(beta) => differentiable::<B, C, _, 3>(
                [x, gamma, beta],
                |_| [true, true, false],
                |[x, gamma, beta]| forward(x, gamma, OptionalTensor::Given(beta)),
                grads::<B, 3>,
            ),
            OptionalTensor::Missing => differentiable::<B, C, _, 2>(
                [x, gamma],
                |_| [true, true],
                |[x, gamma]| forward(x, gamma, OptionalTensor::Missing),
                grads::<B, 2>,
            ),
        };
        (y, constant::<B, C>(mean), constant::<B, C>(var))
    }

    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        causal: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (output, (_, log_sums, _)) = differentiable::<B, C, _, 3>(
            [q, k, v],
            |_| [true; 3],
            |[q, k, v]| {
                let (output, log_sums) = B::attention_forward(q, k, v, causal);
                (output.clone(), (output, log_sums, causal))
            },
            |mut back| {
                let (q, k, v) = (back.input(0), back.input(1), back.input(2));
                let (output, log_sums, causal) = back.extra;
                let grads = B::attention_grads(q, k, v, output, log_sums, back.grad, causal);
                [Some(grads.0), Some(grads.1), Some(grads.2)]
            },
        );
        (output, constant::<B, C>(log_sums))
    }

    fn self_attention_forward(
        qkv: FloatTensor<Self>,
        heads: usize,
        causal: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (output, (_, log_sums, ..)) = differentiable::<B, C, _, 1>(
            [qkv],
            |_| [true],
            |[qkv]| {
                let (output, log_sums) = B::self_attention_forward(qkv, heads, causal);
                (output.clone(), (output, log_sums, heads, causal))
            },
            |mut back| {
                let (qkv, (output, log_sums, heads, causal)) = (back.input(0), back.extra);
                [Some(B::self_attention_grad(
                    qkv, output, log_sums, back.grad, heads, causal,
                ))]
            },
        );
        (output, constant::<B, C>(log_sums))
    }

    fn embedding_forward(weight: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [weight],
            |_| [false],
            |[weight]| {
                let rows = weight.shape()[0];
                (
                    B::embedding_forward(weight, indices.clone()),
                    (indices, rows),
                )
            },
            |back| {
                [Some(B::embedding_grad(
                    back.grad,
                    back.extra.0,
                    back.extra.1,
                ))]
            },
        )
        .0
    }

    fn upsample_nearest2d_forward(x: FloatTensor<Self>, factor: usize) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [x],
            |_| [false],
            |[x]| (B::upsample_nearest2d_forward(x, factor), factor),
            |back| [Some(B::upsample_nearest2d_grad(back.grad, back.extra))],
        )
        .0
    }

    fn cross_entropy_forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [logits],
            |_| [true],
            |[logits]| (B::cross_entropy_forward(logits, targets.clone()), targets),
            |mut back| {
                [Some(B::cross_entropy_grad(
                    back.input(0),
                    back.extra,
                    back.grad,
                ))]
            },
        )
        .0
    }

    fn binary_cross_entropy_forward(
        logits: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [logits, targets],
            |_| [true, true],
            |[logits, targets]| (B::binary_cross_entropy_forward(logits, targets), ()),
            |mut back| {
                let (logits, targets) = (back.input(0), back.input(1));
                // d/dt (softplus(l) − t·l) = −l
                let dt = back.wanted[1].then(|| {
                    let rows =
                        B::float_reshape(back.grad.clone(), Shape::new([logits.shape()[0], 1]));
                    B::float_neg(B::float_mul(logits.clone(), rows))
                });
                let dl = back.wanted[0]
                    .then(|| B::binary_cross_entropy_grad(logits, targets, back.grad));
                [dl, dt]
            },
        )
        .0
    }
}
