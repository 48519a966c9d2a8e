//! Floats of 16 bits as floats of 32.

use crate::{
    memory::filled,
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Elements that are converted by one part.
const PART: usize = 1 << 15;

/// A floating-point type of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// IEEE's half precision: 5 bits of exponent, 10 of fraction.
    F16,
    /// The upper half of a 32-bit float: 8 bits of exponent, 7 of fraction.
    BF16,
}

/// The values of 16-bit floats, given by their bits, which are exact in 32 bits.
pub fn widen(bits: &[u16], half: Half) -> Vec<f32> {
    let write = |values: &mut [f32]| {
        let values = Shared::new(values);
        for_each(bits.len().div_ceil(PART), bits.len(), |part| {
            let bits = &bits[part * PART..bits.len().min((part + 1) * PART)];
            // SAFETY: every part has its own elements.
            let values = unsafe { values.range(part * PART, bits.len()) };
            arch().dispatch(Widen { bits, values, half });
        });
    };
    // SAFETY: the parts cover all elements, which are written only.
    unsafe { filled(bits.len(), write) }
}

struct Widen<'a> {
    bits: &'a [u16],
    values: &'a mut [f32],
    half: Half,
}

impl WithSimd for Widen<'_> {
    type Output = ();

    // Plain loops: the compiler makes vectors of them, for the instruction set of `S`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let pairs = self.values.iter_mut().zip(self.bits);
        match self.half {
            Half::F16 => pairs.for_each(|(value, bits)| *value = of_f16(*bits)),
            Half::BF16 => pairs.for_each(|(value, bits)| *value = of_bf16(*bits)),
        }
    }
}

#[inline(always)]
fn of_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[inline(always)]
fn of_f16(bits: u16) -> f32 {
    /// How far the exponents of both types are apart, in the bits of a 32-bit float.
    const REBIAS: u32 = (127 - 15) << 23;
    /// The exponent of infinity and of NaN, in the same place.
    const TOP: u32 = 31 << 23;
    let bits = u32::from(bits);
    let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    let exponent = rest & TOP;
    let normal = rest + REBIAS;
    let infinite = normal + REBIAS;
    // A subnormal number is its fraction times the smallest exponent: that of `smallest`, less the
    // implicit bit. No operand is subnormal in 32 bits, which would be slow.
    let smallest = f32::from_bits(REBIAS + (1 << 23));
    let subnormal = (f32::from_bits(normal + (1 << 23)) - smallest).to_bits();
    let value = if exponent == TOP { infinite } else { normal };
    let value = if exponent == 0 { subnormal } else { value };
    f32::from_bits(sign | value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// All numbers of both types, and lengths around those of vectors and parts.
    #[test]
    fn all_halves_are_widened_exactly() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let same = |found: f32, expected: f32| {
            found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan())
        };
        for len in [0, 1, 15, 17, PART, PART + 1, all.len()] {
            let bits = &all[all.len() - len..];
            for (bits, value) in bits.iter().zip(widen(bits, Half::F16)) {
                assert!(
                    same(value, f16::from_bits(*bits).to_f32()),
                    "{bits:#x}: {value}"
                );
            }
            for (bits, value) in bits.iter().zip(widen(bits, Half::BF16)) {
                assert!(
                    same(value, bf16::from_bits(*bits).to_f32()),
                    "{bits:#x}: {value}"
                );
            }
        }
    }
}
