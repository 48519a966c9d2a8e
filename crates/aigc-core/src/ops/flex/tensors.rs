//! Tensors as slices and views for the kernels, and back.

use crate::ops::{OptionalTensor, Quantization};
use aigc_kernels::{
    attention::{AttentionSizes, Heads},
    half::{Half, widen},
    product::Matrix,
    quantized::Packed,
    transpose::transpose,
};
use burn::{
    backend::{
        Flex, TensorMetadata,
        flex::{FlexTensor, Layout},
        ops::FloatTensorOps,
    },
    tensor::{Bytes, DType, FloatDType, Shape},
};
use half::{bf16, f16};

/// Whether all tensors are `f32`.
pub(super) fn all_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// Whether an optional tensor is `f32` or missing.
pub(super) fn is_f32_or_missing(tensor: &OptionalTensor<Flex>) -> bool {
    match tensor {
        OptionalTensor::Given(tensor) => tensor.dtype() == DType::F32,
        OptionalTensor::Missing => true,
    }
}

/// `x` as a contiguous tensor.
pub(super) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() {
        return x;
    }
    let Some([rows, columns]) = transposition(&x) else {
        return x.to_contiguous();
    };
    let values: &[f32] = x.storage();
    let values = &values[x.layout().start_offset()..][..x.shape().num_elements()];
    tensor(transpose(values, rows, columns), x.shape())
}

/// The rows and columns of matrices, if `x` is a view of their transposes.
fn transposition(x: &FlexTensor) -> Option<[usize; 2]> {
    let (shape, strides) = (x.shape(), x.layout().strides());
    let last = shape.num_dims().checked_sub(1).filter(|last| *last > 0)?;
    let (columns, rows) = (shape[last - 1], shape[last]);
    let mut whole = strides[last - 1] == 1 && strides[last] == columns as isize;
    let mut stride = rows * columns;
    for axis in (0..last - 1).rev() {
        whole &= strides[axis] == stride as isize;
        stride *= shape[axis];
    }
    (whole && x.dtype() == DType::F32).then_some([rows, columns])
}

/// An optional tensor as a contiguous one.
pub(super) fn given(tensor: OptionalTensor<Flex>) -> Option<FlexTensor> {
    tensor.into_option().map(contiguous)
}

/// `x` with non-negative strides: itself, or a contiguous copy.
pub(super) fn forward_strided(x: FlexTensor) -> FlexTensor {
    if x.layout().strides().iter().all(|stride| *stride >= 0) {
        x
    } else {
        x.to_contiguous()
    }
}

/// `x` as a contiguous tensor that spans its whole storage, which is copied on write if it is
/// shared.
pub(super) fn owned(x: FlexTensor) -> FlexTensor {
    let whole = x.is_contiguous() && x.layout().start_offset() == 0;
    match x.as_slice::<f32>() {
        Some(values) if !whole || values.len() != x.storage::<f32>().len() => {
            tensor(values.to_vec(), x.shape())
        }
        Some(_) => x,
        None => x.to_contiguous(),
    }
}

/// The elements of a [`contiguous`] `f32` tensor.
pub(super) fn slice(x: &FlexTensor) -> &[f32] {
    x.as_slice()
        .unwrap_or_else(|| unreachable!("a contiguous f32 tensor"))
}

/// A tensor of `values`.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    assert_eq!(
        values.len(),
        shape.num_elements(),
        "number of elements of a result of shape {shape:?}"
    );
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

/// Floats of half precision in 32 bits.
pub(super) fn widened(x: FlexTensor) -> FlexTensor {
    let all = x.bytes().len() <= 2 * x.shape().num_elements();
    // The whole storage, so that a transposed weight keeps its layout; but not that of a part.
    let x = if all { x } else { x.to_contiguous() };
    let values = match x.dtype() {
        DType::F16 => widen(bytemuck::cast_slice(x.storage::<f16>()), Half::F16),
        DType::BF16 => widen(bytemuck::cast_slice(x.storage::<bf16>()), Half::BF16),
        _ => return Flex::float_cast(x, FloatDType::F32),
    };
    FlexTensor::new(Bytes::from_elems(values), x.layout().clone(), DType::F32)
}

pub(super) fn dims<const N: usize>(x: &FlexTensor) -> [usize; N] {
    x.shape().dims()
}

/// The shape of `[batch, channels, …]` as `[batch, channels, rest]`.
pub(super) fn channel_dims(x: &FlexTensor) -> [usize; 3] {
    let shape = x.shape();
    [
        shape[0],
        shape[1],
        shape
            .num_elements()
            .checked_div(shape[0] * shape[1])
            .unwrap_or(0),
    ]
}

/// The shape of `[…, d]` as `[rows, d]`.
pub(super) fn row_dims(x: &FlexTensor) -> [usize; 2] {
    let shape = x.shape();
    let (rows, d) = (0..shape.num_dims() - 1, shape[shape.num_dims() - 1]);
    [rows.map(|axis| shape[axis]).product(), d]
}

/// `shape` with its last axis replaced.
pub(super) fn with_last(shape: Shape, len: usize) -> Shape {
    let mut shape = shape;
    let last = shape.num_dims() - 1;
    shape[last] = len;
    shape
}

/// The indices as `usize`, or `None` if their type is not supported or one is negative.
pub(super) fn usizes(indices: &FlexTensor) -> Option<Vec<usize>> {
    let indices = indices.to_contiguous();
    match indices.dtype() {
        DType::I64 => indices
            .as_slice::<i64>()?
            .iter()
            .map(|i| usize::try_from(*i).ok())
            .collect(),
        DType::I32 => indices
            .as_slice::<i32>()?
            .iter()
            .map(|i| usize::try_from(*i).ok())
            .collect(),
        _ => None,
    }
}

/// A view of a `[rows, columns]` tensor of [`forward_strided`].
pub(super) fn matrix(x: &FlexTensor) -> Matrix<'_> {
    let [row, column] = std::array::from_fn(|axis| x.layout().strides()[axis].unsigned_abs());
    let values: &[f32] = x.storage();
    Matrix {
        values: &values[x.layout().start_offset()..],
        row,
        column,
    }
}

/// A view of a `[batch, heads, tokens, d]` tensor of [`forward_strided`].
pub(super) fn heads(x: &FlexTensor) -> Heads<'_> {
    let steps = std::array::from_fn(|axis| x.layout().strides()[axis].unsigned_abs());
    Heads {
        values: x.storage(),
        start: x.layout().start_offset(),
        steps,
    }
}

/// Transposes `[batch, tokens, heads, d]` in memory to `[batch, heads, tokens, d]`.
pub(super) fn transposed(
    values: Vec<f32>,
    sizes: AttentionSizes,
    heads: usize,
    tokens: usize,
) -> FlexTensor {
    tensor(values, [sizes.batch, tokens, heads, sizes.d]).permute(&[0, 2, 1, 3])
}

/// A quantised weight from contiguous tensors, if the kernels support their types.
pub(super) fn packed<'a>(
    values: &'a FlexTensor,
    scales: &'a FlexTensor,
    k: usize,
    quantization: Quantization,
) -> Option<Packed<'a>> {
    let values = (values.dtype() == DType::I8).then(|| values.as_slice::<i8>())??;
    let scales = (scales.dtype() == DType::F32).then(|| slice(scales))?;
    Some(Packed {
        values,
        scales,
        quantization,
        k,
    })
}

#[cfg(test)]
mod tests {
    use crate::{ops, rng::Rng, testing::values};
    use burn::tensor::{Device, Tensor};

    /// Views of exchanged axes, of whole tensors and of parts, have the values of the view.
    #[test]
    fn contiguous_copies_views() {
        let device = Device::flex();
        let mut rng = Rng::new(1);
        let x: Tensor<3> = rng.normal([3, 20, 33], &device);
        let whole: Tensor<4> = rng.normal([2, 3, 17, 18], &device);
        let exchanged = x.clone().swap_dims(1, 2);
        assert_eq!(
            values(ops::contiguous(exchanged.clone())),
            values(exchanged)
        );
        for view in [
            x.clone().swap_dims(0, 2),
            x.clone().narrow(0, 1, 2).swap_dims(1, 2),
            x.clone().narrow(1, 4, 7).swap_dims(1, 2),
            x.clone().narrow(2, 4, 7).swap_dims(1, 2),
            x.clone()
                .narrow(0, 1, 1)
                .expand([2, 20, 33])
                .swap_dims(1, 2),
            x.clone().swap_dims(1, 2).flip([0]),
            x,
        ] {
            assert_eq!(values(ops::contiguous(view.clone())), values(view));
        }
        for view in [whole.clone().swap_dims(2, 3), whole.swap_dims(1, 2)] {
            assert_eq!(values(ops::contiguous(view.clone())), values(view));
        }
        let matrix: Tensor<2> = rng.normal([40, 7], &device);
        assert_eq!(
            values(ops::contiguous(matrix.clone().transpose())),
            values(matrix.transpose())
        );
    }
}
