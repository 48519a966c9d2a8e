//! One tensor in a file: where it lies, which part of it is meant, and its values.

use crate::{Error, Result};
use aigc_kernels::half::{Half, widen};
use bytemuck::Pod;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use pytorch_reader::DType as ElementType;
use safetensors::Dtype;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex},
};

/// A tensor in a file, or a part of one in another layout.
#[derive(Clone)]
pub(super) struct Stored {
    /// Name in the file.
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// The file.
    pub(super) path: Arc<Path>,
    pub(super) place: Place,
    /// What is done with the elements in the file, in this order.
    pub(super) steps: Vec<Step>,
}

#[derive(Clone)]
pub(super) enum Place {
    /// `len` elements from byte `start` on.
    Bytes {
        file: Arc<Mutex<File>>,
        start: u64,
        len: usize,
        dtype: Dtype,
    },
    Pickled(pytorch_reader::Tensor),
    /// The identity matrix of this size, in 32-bit floats, which is in no file.
    Identity(usize),
}

/// A change from the elements in a file to those of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The elements of a tensor that is not contiguous: size and stride of each axis, the outermost
    /// first. An axis of one element has the stride 0.
    Gather(Arc<[(usize, usize)]>),
    /// `len` elements after the first `skip`.
    Slice { skip: usize, len: usize },
    /// The second half before the first.
    SwapHalves,
    /// The transpose of a matrix with this number of columns.
    Transpose { columns: usize },
}

/// Values of floats in the type in which they are stored; 64 bits become 32.
pub(super) enum Floats {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
}

impl Floats {
    pub(super) fn into_f32(self) -> Vec<f32> {
        match self {
            Floats::F32(values) => values,
            Floats::F16(values) => widen(bytemuck::cast_slice(&values), Half::F16),
            Floats::BF16(values) => widen(bytemuck::cast_slice(&values), Half::BF16),
        }
    }

    /// The transpose of a matrix with this number of columns.
    pub(super) fn transposed(self, columns: usize) -> Self {
        match self {
            Floats::F32(values) => Floats::F32(transposed(&values, columns)),
            Floats::F16(values) => Floats::F16(transposed(&values, columns)),
            Floats::BF16(values) => Floats::BF16(transposed(&values, columns)),
        }
    }

    pub(super) fn into_f16(self) -> Vec<f16> {
        match self {
            Floats::F16(values) => values,
            other => narrowed(&other.into_f32()),
        }
    }

    pub(super) fn into_bf16(self) -> Vec<bf16> {
        match self {
            Floats::BF16(values) => values,
            other => narrowed(&other.into_f32()),
        }
    }
}

fn narrowed<T: Pod>(values: &[f32]) -> Vec<T>
where
    [T]: HalfFloatSliceExt,
{
    let mut narrow = vec![T::zeroed(); values.len()];
    narrow.convert_from_f32_slice(values);
    narrow
}

impl Stored {
    fn wrong(&self, reason: impl std::fmt::Display) -> Error {
        Error::weights(&self.path, format!("{} {reason}", self.name))
    }

    /// The type of the elements.
    pub(super) fn element_type(&self) -> Result<ElementType> {
        let dtype = match &self.place {
            Place::Pickled(tensor) => return Ok(tensor.dtype()),
            Place::Identity(_) => return Ok(ElementType::F32),
            Place::Bytes { dtype, .. } => *dtype,
        };
        Ok(match dtype {
            Dtype::F64 => ElementType::F64,
            Dtype::F32 => ElementType::F32,
            Dtype::F16 => ElementType::F16,
            Dtype::BF16 => ElementType::BF16,
            Dtype::I64 => ElementType::I64,
            Dtype::I32 => ElementType::I32,
            Dtype::I16 => ElementType::I16,
            Dtype::I8 => ElementType::I8,
            Dtype::U64 => ElementType::U64,
            Dtype::U32 => ElementType::U32,
            Dtype::U16 => ElementType::U16,
            Dtype::U8 => ElementType::U8,
            Dtype::BOOL => ElementType::Bool,
            other => return Err(self.wrong(format!("holds {other:?}, which is not supported"))),
        })
    }

    /// Name of the type of the elements in the file.
    pub(super) fn type_name(&self) -> String {
        match &self.place {
            Place::Bytes { dtype, .. } => format!("{dtype:?}"),
            Place::Pickled(tensor) => format!("{:?}", tensor.dtype()),
            Place::Identity(_) => "F32".into(),
        }
    }

    /// For floats of 8 bits, which have no type in memory: the same number in 16 bits.
    pub(super) fn f8(&self) -> Option<fn(u8) -> f16> {
        let Place::Bytes { dtype, .. } = &self.place else {
            return None;
        };
        match dtype {
            Dtype::F8_E4M3 => Some(e4m3 as fn(u8) -> f16),
            Dtype::F8_E5M2 => Some(e5m2 as fn(u8) -> f16),
            _ => None,
        }
    }

    /// The values of floats; those of 8 bits in 16.
    pub(super) fn floats(&self) -> Result<Floats> {
        if let Some(wide) = self.f8() {
            let values: Vec<u8> = self.elements()?;
            return Ok(Floats::F16(values.into_iter().map(wide).collect()));
        }
        Ok(match self.element_type()? {
            ElementType::F32 => Floats::F32(self.elements()?),
            ElementType::F16 => Floats::F16(self.elements()?),
            ElementType::BF16 => Floats::BF16(self.elements()?),
            ElementType::F64 => {
                let values: Vec<f64> = self.elements()?;
                Floats::F32(values.into_iter().map(|value| value as f32).collect())
            }
            other => return Err(self.wrong(format!("holds {other:?}, not floats"))),
        })
    }

    /// The values of integers or booleans.
    pub(super) fn integers(&self) -> Result<Vec<i64>> {
        fn wide<T: Into<i64>>(values: Vec<T>) -> Vec<i64> {
            values.into_iter().map(Into::into).collect()
        }
        Ok(match self.element_type()? {
            ElementType::I64 => self.elements()?,
            ElementType::I32 => wide::<i32>(self.elements()?),
            ElementType::I16 => wide::<i16>(self.elements()?),
            ElementType::I8 => wide::<i8>(self.elements()?),
            ElementType::U64 => {
                let signed = |value: u64| {
                    let reason = format!("holds {value}, expected at most {}", i64::MAX);
                    i64::try_from(value).map_err(|_| self.wrong(reason))
                };
                let values: Vec<u64> = self.elements()?;
                values.into_iter().map(signed).collect::<Result<_>>()?
            }
            ElementType::U32 => wide::<u32>(self.elements()?),
            ElementType::U16 => wide::<u16>(self.elements()?),
            ElementType::U8 | ElementType::Bool => wide::<u8>(self.elements()?),
            other
            @ (ElementType::F64 | ElementType::F32 | ElementType::F16 | ElementType::BF16) => {
                return Err(self.wrong(format!("holds {other:?}, expected integers")));
            }
        })
    }

    /// The elements, which are as large as `T`. Of a safetensors file, only their bytes are read.
    fn elements<T: Pod>(&self) -> Result<Vec<T>> {
        let (mut values, steps) = match &self.place {
            Place::Pickled(tensor) => {
                let bytes = tensor.read().map_err(|error| self.wrong(error))?;
                (bytemuck::pod_collect_to_vec(&bytes), &self.steps[..])
            }
            Place::Identity(size) => {
                let mut values = vec![0f32; size * size];
                values
                    .iter_mut()
                    .step_by(size + 1)
                    .for_each(|one| *one = 1.0);
                (bytemuck::pod_collect_to_vec(&values), &self.steps[..])
            }
            Place::Bytes {
                file, start, len, ..
            } => {
                let sliced = |step: &&Step| matches!(step, Step::Slice { .. });
                let slices = self.steps.iter().take_while(sliced).count();
                let (slices, steps) = self.steps.split_at(slices);
                let (mut first, mut len) = (0, *len);
                for step in slices {
                    if let Step::Slice { skip, len: part } = step {
                        (first, len) = (first + skip, *part);
                    }
                }
                let mut values = vec![T::zeroed(); len];
                let at = start + (first * size_of::<T>()) as u64;
                let mut file = file.lock().unwrap_or_else(|e| e.into_inner());
                file.seek(SeekFrom::Start(at))
                    .and_then(|_| file.read_exact(bytemuck::cast_slice_mut(&mut values)))
                    .map_err(Error::io(&self.path))?;
                if cfg!(target_endian = "big") {
                    bytemuck::cast_slice_mut::<T, u8>(&mut values)
                        .chunks_exact_mut(size_of::<T>())
                        .for_each(<[u8]>::reverse);
                }
                (values, steps)
            }
        };
        for step in steps {
            match step {
                Step::Gather(axes) => values = gathered(&values, axes),
                Step::Slice { skip, len } => {
                    values.truncate(skip + len);
                    values.drain(..*skip);
                }
                Step::SwapHalves => {
                    let half = values.len() / 2;
                    values.rotate_left(half);
                }
                Step::Transpose { columns } => values = transposed(&values, *columns),
            }
        }
        Ok(values)
    }
}

/// The number with 4 bits of exponent and 3 of mantissa, without infinity (Micikevicius et al.
/// 2022, <https://arxiv.org/abs/2209.05433>).
fn e4m3(bits: u8) -> f16 {
    let (sign, rest) = (u16::from(bits & 0x80) << 8, u16::from(bits & 0x7f));
    let magnitude = match rest {
        0x7f => f16::NAN.to_bits(),
        // Multiples of 2⁻⁹.
        0..8 => f16::from_f32(f32::from(rest) / 512.0).to_bits(),
        // The exponent's bias is 15 in place of 7.
        _ => (rest << 7) + (8 << 10),
    };
    f16::from_bits(sign | magnitude)
}

/// The number with 5 bits of exponent and 2 of mantissa: half of a half-precision one.
fn e5m2(bits: u8) -> f16 {
    f16::from_bits(u16::from(bits) << 8)
}

/// The elements at all indices of `axes`, each with its size and its stride, the last one fastest.
fn gathered<T: Copy>(values: &[T], axes: &[(usize, usize)]) -> Vec<T> {
    let len = axes.iter().map(|(size, _)| size).product();
    let (mut index, mut from) = (vec![0; axes.len()], 0);
    let mut result = Vec::with_capacity(len);
    for _ in 0..len {
        result.push(values[from]);
        for (at, (size, stride)) in index.iter_mut().zip(axes).rev() {
            *at += 1;
            from += stride;
            if *at < *size {
                break;
            }
            from -= size * stride;
            *at = 0;
        }
    }
    result
}

/// The transpose of a matrix, contiguous in memory; a backend's transpose may be a view.
pub(super) fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    /// Side of the squares that are transposed at once, so that both lie in the cache.
    const BLOCK: usize = 32;
    let rows = values.len().checked_div(columns).unwrap_or(0);
    let Some(first) = values.first() else {
        return Vec::new();
    };
    let mut result = vec![*first; values.len()];
    for left in (0..columns).step_by(BLOCK) {
        for top in (0..rows).step_by(BLOCK) {
            for column in left..columns.min(left + BLOCK) {
                for row in top..rows.min(top + BLOCK) {
                    result[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition of the formats: sign, exponent with its bias, mantissa.
    #[test]
    fn numbers_of_8_bits_are_exact() {
        let number = |bits: u8, mantissa: u32| {
            let exponent_bits = 7 - mantissa;
            let bias = (1 << (exponent_bits - 1)) - 1;
            let exponent = i32::from(bits & 0x7f) >> mantissa;
            let fraction = f32::from(bits & ((1 << mantissa) - 1)) / (1 << mantissa) as f32;
            let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
            match exponent {
                0 => sign * fraction * 2f32.powi(1 - bias),
                _ => sign * (1.0 + fraction) * 2f32.powi(exponent - bias),
            }
        };
        for bits in 0..=u8::MAX {
            match bits & 0x7f {
                0x7f => assert!(e4m3(bits).is_nan()),
                _ => assert_eq!(e4m3(bits).to_f32(), number(bits, 3), "{bits:#x}"),
            }
            match bits & 0x7f {
                0x7c => assert!(e5m2(bits).is_infinite()),
                0x7d.. => assert!(e5m2(bits).is_nan()),
                _ => assert_eq!(e5m2(bits).to_f32(), number(bits, 2), "{bits:#x}"),
            }
        }
        assert_eq!(e4m3(0x7e).to_f32(), 448.0);
    }

    #[test]
    fn strides_are_followed() {
        let values: Vec<u8> = (0..12).collect();
        // A transpose, every second column, one repeated row, one number, nothing.
        assert_eq!(
            gathered(&values[..6], &[(3, 1), (2, 3)]),
            [0, 3, 1, 4, 2, 5]
        );
        assert_eq!(
            gathered(&values, &[(2, 6), (1, 0), (3, 2)]),
            [0, 2, 4, 6, 8, 10]
        );
        assert_eq!(gathered(&values, &[(2, 0), (2, 1)]), [0, 1, 0, 1]);
        assert_eq!(gathered(&values, &[]), [0]);
        assert_eq!(gathered(&values, &[(3, 1), (0, 5)]), [0u8; 0]);
    }
}
