//! The transform's operations on the CPU, and their backward passes.

use super::{distances, flex};
use crate::dsp::plan::Plan;
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::{FlexTensor, Layout},
        tensor::FloatTensor,
    },
    tensor::{Bytes, DType, Shape, Tensor},
};
use std::{
    fmt::{Debug, Formatter},
    sync::Arc,
};

/// Spectra `[2, batch, frames, bins]` of padded signals `[batch, len]`.
pub(super) fn spectra(padded: Tensor<2>, plan: Arc<Plan>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::stft_spectra(padded.into_dispatch(), plan))
}

/// The transpose of [`spectra`]: signals `[batch, len]`, at least as long as the frames cover.
pub(super) fn transpose(spectra: Tensor<4>, plan: Arc<Plan>, len: usize) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::stft_transpose(spectra.into_dispatch(), plan, len))
}

/// The sums of [`Stft::distances`](crate::dsp::Stft) over padded signals `[batch, len]`.
/// Differentiable with respect to the estimates.
pub(super) fn distances(
    estimate: Tensor<2>,
    target: Tensor<2>,
    plan: Arc<Plan>,
    floor: f32,
) -> Tensor<1> {
    let (estimate, target) = (estimate.into_dispatch(), target.into_dispatch());
    let (sums, _) = Dispatch::stft_distances(estimate, target, plan, floor);
    Tensor::from_dispatch(sums)
}

/// Operations of the transform on `f32` tensors of the CPU.
#[backend_extension(Flex, Autodiff)]
pub(super) trait SpectralOps: Backend {
    /// Spectra `[2, batch, frames, bins]` of padded signals `[batch, len]`.
    fn stft_spectra(padded: FloatTensor<Self>, plan: Arc<Plan>) -> FloatTensor<Self>;

    /// The transpose: signals `[batch, len]`, at least as long as the frames cover.
    fn stft_transpose(spectra: FloatTensor<Self>, plan: Arc<Plan>, len: usize)
    -> FloatTensor<Self>;

    /// Sums of distances `[3]`, and what their gradient needs, `[3, batch, frames, bins]`.
    fn stft_distances(
        estimate: FloatTensor<Self>,
        target: FloatTensor<Self>,
        plan: Arc<Plan>,
        floor: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradient of the sums with respect to the estimates, `[batch, len]`.
    fn stft_distances_grad(
        kept: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        plan: Arc<Plan>,
        floor: f32,
        len: usize,
    ) -> FloatTensor<Self>;
}

impl SpectralOps for Flex {
    fn stft_spectra(padded: FlexTensor, plan: Arc<Plan>) -> FlexTensor {
        let (padded, [batch, len]) = (padded.to_contiguous(), dims(&padded));
        let frames = plan.frames_of_padded(len);
        let values = flex::spectra(slice(&padded), len, &plan);
        tensor(values, [2, batch, frames, plan.bins])
    }

    fn stft_transpose(spectra: FlexTensor, plan: Arc<Plan>, len: usize) -> FlexTensor {
        let (spectra, [_, batch, frames, _]) = (spectra.to_contiguous(), dims(&spectra));
        let values = flex::transpose(slice(&spectra), [batch, frames, len], &plan);
        tensor(values, [batch, len])
    }

    fn stft_distances(
        estimate: FlexTensor,
        target: FlexTensor,
        plan: Arc<Plan>,
        floor: f32,
    ) -> (FlexTensor, FlexTensor) {
        let [batch, len] = dims(&estimate);
        let (estimate, target) = (estimate.to_contiguous(), target.to_contiguous());
        let frames = plan.frames_of_padded(len);
        let (sums, kept) =
            distances::distances(slice(&estimate), slice(&target), len, &plan, floor);
        (
            tensor(sums.to_vec(), [sums.len()]),
            tensor(kept, [3, batch, frames, plan.bins]),
        )
    }

    fn stft_distances_grad(
        kept: FlexTensor,
        grad: FlexTensor,
        plan: Arc<Plan>,
        floor: f32,
        len: usize,
    ) -> FlexTensor {
        let (kept, grad) = (kept.to_contiguous(), grad.to_contiguous());
        let [_, batch, frames, _] = dims(&kept);
        let slopes = [slice(&grad)[0], slice(&grad)[2]];
        let sizes = [batch, frames, len];
        let values = distances::distances_grad(slice(&kept), slopes, sizes, &plan, floor);
        tensor(values, [batch, len])
    }
}

impl<B: SpectralOps, C: CheckpointStrategy> SpectralOps for Autodiff<B, C> {
    fn stft_spectra(padded: FloatTensor<Self>, plan: Arc<Plan>) -> FloatTensor<Self> {
        let len = padded.shape()[1];
        recorded::<B, C, (Arc<Plan>, usize)>(
            padded,
            |padded| (B::stft_spectra(padded, plan.clone()), (plan, len)),
            |(plan, len), grad| B::stft_transpose(grad, plan, len),
        )
    }

    fn stft_transpose(
        spectra: FloatTensor<Self>,
        plan: Arc<Plan>,
        len: usize,
    ) -> FloatTensor<Self> {
        let frames = spectra.shape()[2];
        recorded::<B, C, (Arc<Plan>, usize)>(
            spectra,
            |spectra| {
                let signal = B::stft_transpose(spectra, plan.clone(), len);
                (signal, (plan, frames))
            },
            |(plan, frames), grad| {
                // Samples after the last frame are in no spectrum.
                let (batch, covered) = (grad.shape()[0], plan.covered(frames));
                let grad = B::float_slice(grad, &[(0..batch).into(), (0..covered).into()]);
                B::stft_spectra(grad, plan)
            },
        )
    }

    fn stft_distances(
        estimate: FloatTensor<Self>,
        target: FloatTensor<Self>,
        plan: Arc<Plan>,
        floor: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let len = estimate.shape()[1];
        let target = target.into_primitive();
        let mut unread = None;
        let sums = recorded::<B, C, (FloatTensor<B>, Arc<Plan>, f32, usize)>(
            estimate,
            |estimate| {
                let (sums, kept) = B::stft_distances(estimate, target, plan.clone(), floor);
                unread = Some(kept.clone());
                (sums, (kept, plan, floor, len))
            },
            |(kept, plan, floor, len), grad| B::stft_distances_grad(kept, grad, plan, floor, len),
        );
        let kept = unread.unwrap_or_else(|| unreachable!("the forward pass has run"));
        (sums, FloatTensor::<Self>::new(kept))
    }

    fn stft_distances_grad(
        kept: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        plan: Arc<Plan>,
        floor: f32,
        len: usize,
    ) -> FloatTensor<Self> {
        // Not differentiable again.
        let (kept, grad) = (kept.into_primitive(), grad.into_primitive());
        let found = B::stft_distances_grad(kept, grad, plan, floor, len);
        FloatTensor::<Self>::new(found)
    }
}

/// Maps what an operation kept and the gradient of its output to the gradient of its input.
type Rule<B, E> = fn(E, FloatTensor<B>) -> FloatTensor<B>;

/// An operation of one input in the autodiff graph.
struct Operation<B: Backend, E>(Rule<B, E>);

impl<B: Backend, E> Debug for Operation<B, E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operation")
    }
}

impl<B: Backend, E: Clone + Send + Debug + 'static> Backward<B, 1> for Operation<B, E> {
    type State = E;

    fn backward(self, ops: Ops<E, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, (self.0)(ops.state, grad));
        }
    }
}

/// Runs `forward`, and records `rule` for the backward pass with what `forward` kept.
fn recorded<B: Backend, C: CheckpointStrategy, E: Clone + Send + Debug + 'static>(
    input: FloatTensor<Autodiff<B, C>>,
    forward: impl FnOnce(FloatTensor<B>) -> (FloatTensor<B>, E),
    rule: Rule<B, E>,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [input.node()];
    match Operation(rule)
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let (output, kept) = forward(input.into_primitive());
            prep.finish(kept, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(input.into_primitive()).0),
    }
}

fn dims<const N: usize>(x: &FlexTensor) -> [usize; N] {
    x.shape().dims()
}

/// The elements of a contiguous tensor of 32 bits: signals are converted before.
fn slice(x: &FlexTensor) -> &[f32] {
    x.as_slice()
        .unwrap_or_else(|| unreachable!("a contiguous f32 tensor"))
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}
