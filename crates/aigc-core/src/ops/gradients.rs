//! Handwritten backward passes of [`GenerativeOps`], for burn's autodiff on any backend.

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

/// The arguments of the backward pass of one operation.
struct BackwardInputs<B: Backend, E, const N: usize> {
    /// The inputs that were kept.
    inputs: [Option<FloatTensor<B>>; N],
    /// Other state of the forward pass.
    extra: E,
    /// Gradient of the output.
    grad: FloatTensor<B>,
    /// Which inputs require a gradient.
    requires_grad: [bool; N],
}

impl<B: Backend, E, const N: usize> BackwardInputs<B, E, N> {
    fn input(&mut self, index: usize) -> FloatTensor<B> {
        self.inputs[index]
            .take()
            .unwrap_or_else(|| unreachable!("the rule reads kept inputs, and each once"))
    }
}

/// Maps the gradient of the output to the gradients of the inputs.
type Rule<B, E, const N: usize> = fn(BackwardInputs<B, E, N>) -> [Option<FloatTensor<B>>; N];

/// An operation of the autodiff graph.
struct Operation<B: Backend, E, const N: usize>(Rule<B, E, N>);

impl<B: Backend, E, const N: usize> Debug for Operation<B, E, N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operation")
    }
}

impl<B: Backend, E: Clone + Send + Debug + 'static, const N: usize> Backward<B, N>
    for Operation<B, E, N>
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
        let requires_grad = ops.parents.each_ref().map(Option::is_some);
        let computed = (self.0)(BackwardInputs {
            inputs,
            extra,
            grad,
            requires_grad,
        });
        for (parent, grad) in ops.parents.into_iter().zip(computed) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

/// Runs `forward`, and records `rule` for the backward pass. `keep` maps which inputs are tracked
/// to which inputs the rule reads.
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
    match Operation(rule)
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
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

/// [`differentiable`] for two inputs and an optional third, such as a bias, which the rule does not
/// read. `rules` are those with and without it.
fn differentiable_with_optional<B: Backend, C: CheckpointStrategy, E>(
    [x, weight]: [FloatTensor<Autodiff<B, C>>; 2],
    optional: OptionalTensor<Autodiff<B, C>>,
    keep: fn([bool; 2]) -> [bool; 2],
    forward: impl FnOnce(FloatTensor<B>, FloatTensor<B>, OptionalTensor<B>) -> (FloatTensor<B>, E),
    rules: (Rule<B, E, 3>, Rule<B, E, 2>),
) -> (FloatTensor<Autodiff<B, C>>, E)
where
    E: Clone + Send + Debug + 'static,
{
    match optional {
        OptionalTensor::Given(bias) => differentiable::<B, C, E, 3>(
            [x, weight, bias],
            |[x, weight, _]| {
                let [x, weight] = keep([x, weight]);
                [x, weight, false]
            },
            |[x, weight, bias]| forward(x, weight, OptionalTensor::Given(bias)),
            rules.0,
        ),
        OptionalTensor::Missing => differentiable::<B, C, E, 2>(
            [x, weight],
            keep,
            |[x, weight]| forward(x, weight, OptionalTensor::Missing),
            rules.1,
        ),
    }
}

/// A statistic of the forward pass: not differentiable.
fn constant<B: Backend, C: CheckpointStrategy>(
    tensor: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    FloatTensor::<Autodiff<B, C>>::new(tensor)
}

/// The inputs that the gradients of a convolution `y = x ∗ w (+ b)` read: `x` for the gradient of
/// `w`; `w` for the gradient of `x` and, because of its shape, for its own. A convolution with a
/// frozen weight does not keep its input.
fn operands([x, weight]: [bool; 2]) -> [bool; 2] {
    [weight, x || weight]
}

/// Maps input, weight and gradient of the output to the gradient of the weight.
type WeightRule<B, O> = fn(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, O) -> FloatTensor<B>;

/// Gradients of a convolution or transposed convolution with respect to input, weight and bias.
fn convolution_grads<B: GenerativeOps, O: Clone, const N: usize>(
    mut back: BackwardInputs<B, (Shape, O), N>,
    input_grad: fn(Shape, FloatTensor<B>, FloatTensor<B>, O) -> FloatTensor<B>,
    weight_grad: WeightRule<B, O>,
) -> [Option<FloatTensor<B>>; N] {
    let mut grads = [const { None }; N];
    let (shape, options) = back.extra.clone();
    let weight = (back.requires_grad[0] || back.requires_grad[1]).then(|| back.input(1));
    if let Some(weight) = weight.clone().filter(|_| back.requires_grad[0]) {
        grads[0] = Some(input_grad(
            shape,
            weight,
            back.grad.clone(),
            options.clone(),
        ));
    }
    if let Some(weight) = weight.filter(|_| back.requires_grad[1]) {
        grads[1] = Some(weight_grad(
            back.input(0),
            weight,
            back.grad.clone(),
            options,
        ));
    }
    if N > 2 && back.requires_grad[2] {
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
            back: BackwardInputs<B, (Shape, ConvOptions<2>), N>,
        ) -> [Option<FloatTensor<B>>; N] {
            convolution_grads(back, B::conv2d_input_grad, B::conv2d_weight_grad)
        }
        let shape = x.shape();
        differentiable_with_optional::<B, C, _>(
            [x, weight],
            bias,
            operands,
            |x, w, b| {
                let y = B::conv2d_forward(x, w, b, options.clone());
                (y, (shape, options))
            },
            (grads::<B, 3>, grads::<B, 2>),
        )
        .0
    }

    fn conv_transpose2d_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        fn grads<B: GenerativeOps, const N: usize>(
            back: BackwardInputs<B, (Shape, ConvTransposeOptions<2>), N>,
        ) -> [Option<FloatTensor<B>>; N] {
            convolution_grads(
                back,
                B::conv_transpose2d_input_grad,
                B::conv_transpose2d_weight_grad,
            )
        }
        let shape = x.shape();
        differentiable_with_optional::<B, C, _>(
            [x, weight],
            bias,
            operands,
            |x, w, b| {
                let y = B::conv_transpose2d_forward(x, w, b, options.clone());
                (y, (shape, options))
            },
            (grads::<B, 3>, grads::<B, 2>),
        )
        .0
    }

    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: OptionalTensor<Self>,
    ) -> FloatTensor<Self> {
        fn grads<B: GenerativeOps, const N: usize>(
            mut back: BackwardInputs<B, (), N>,
        ) -> [Option<FloatTensor<B>>; N] {
            let mut grads = [const { None }; N];
            if back.requires_grad[0] {
                grads[0] = Some(B::linear_input_grad(back.input(1), back.grad.clone()));
            }
            if back.requires_grad[1] {
                grads[1] = Some(B::linear_weight_grad(back.input(0), back.grad.clone()));
            }
            if N > 2 && back.requires_grad[2] {
                grads[2] = Some(B::linear_bias_grad(back.grad));
            }
            grads
        }
        differentiable_with_optional::<B, C, _>(
            [x, weight],
            bias,
            |[x, w]| [w, x],
            |x, w, b| (B::linear_forward(x, w, b), ()),
            (grads::<B, 3>, grads::<B, 2>),
        )
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

    fn snake_forward(
        x: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        beta: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 3>(
            [x, alpha, beta],
            |_| [true; 3],
            |[x, alpha, beta]| (B::snake_forward(x, alpha, beta), ()),
            |mut back| {
                let (x, alpha, beta) = (back.input(0), back.input(1), back.input(2));
                let grads = B::snake_grads(x, alpha, beta, back.grad);
                [Some(grads.0), Some(grads.1), Some(grads.2)]
            },
        )
        .0
    }

    fn lstm_cell_forward(gates: FloatTensor<Self>, cell: FloatTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [gates, cell],
            |_| [true; 2],
            |[gates, cell]| (B::lstm_cell_forward(gates, cell), ()),
            |mut back| {
                let (gates, cell) = (back.input(0), back.input(1));
                let (gates, cell) = B::lstm_cell_grads(gates, cell, back.grad);
                [Some(gates), Some(cell)]
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
            mut back: BackwardInputs<B, (FloatTensor<B>, FloatTensor<B>, f64), N>,
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
        let (y, (mean, var, _)) = differentiable_with_optional::<B, C, _>(
            [x, gamma],
            beta,
            |_| [true, true],
            |x, gamma, beta| {
                let (y, mean, var) = B::layer_norm_forward(x, gamma, beta, epsilon);
                (y, (mean, var, epsilon))
            },
            (grads::<B, 3>, grads::<B, 2>),
        );
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
                let dt = back.requires_grad[1].then(|| {
                    let rows =
                        B::float_reshape(back.grad.clone(), Shape::new([logits.shape()[0], 1]));
                    B::float_neg(B::float_mul(logits.clone(), rows))
                });
                let dl = back.requires_grad[0]
                    .then(|| B::binary_cross_entropy_grad(logits, targets, back.grad));
                [dl, dt]
            },
        )
        .0
    }

    fn reparameterize_forward(
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        noise: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 3>(
            [mean, log_std, noise],
            |[_, log_std, noise]| [false, log_std || noise, log_std || noise],
            |[mean, log_std, noise]| (B::reparameterize_forward(mean, log_std, noise), ()),
            |mut back| {
                let [_, log_std, noise] = back.requires_grad;
                let grads = (log_std || noise).then(|| {
                    B::reparameterize_grads(back.input(1), back.input(2), back.grad.clone())
                });
                let (log_std, noise) = grads.unzip();
                [Some(back.grad), log_std, noise]
            },
        )
        .0
    }

    fn standard_normal_kl_forward(
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [mean, log_std],
            |_| [true, true],
            |[mean, log_std]| (B::standard_normal_kl_forward(mean, log_std), ()),
            |mut back| {
                let (mean, log_std) = (back.input(0), back.input(1));
                let (mean, log_std) = B::standard_normal_kl_grads(mean, log_std, back.grad);
                [Some(mean), Some(log_std)]
            },
        )
        .0
    }
}
