//! Block-wise quantisation of weights to 8 or 4 bits.

use super::memory::row_count;
use serde::{Deserialize, Serialize};

/// Integer type of a quantised weight. A weight is the integer times the scale of its block.
///
/// The scale maps the largest magnitude of a block to the largest integer; values are rounded to
/// nearest (symmetric absmax quantization; Dettmers et al. 2022, "8-bit Optimizers via Block-wise
/// Quantization", §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// −127 to 127: 8.5 bits per weight including scales.
    Int8,
    /// −7 to 7, two per byte: 4.5 bits per weight including scales.
    Int4,
}

impl Quantization {
    /// Weights that share a scale.
    pub const BLOCK_SIZE: usize = 64;

    /// Bytes of a packed row of `width` weights, with the last block padded.
    ///
    /// # Panics
    /// If the padded width overflows.
    pub fn packed_len(self, width: usize) -> usize {
        let padded = width
            .checked_next_multiple_of(Self::BLOCK_SIZE)
            .unwrap_or_else(|| panic!("the packed length of {width} weights overflows"));
        match self {
            Self::Int8 => padded,
            Self::Int4 => padded / 2,
        }
    }

    /// Quantises rows of `width` weights; returns the packed integers and the block scales.
    ///
    /// Rows are split into blocks of [`BLOCK_SIZE`](Self::BLOCK_SIZE); the last block of a row is
    /// padded with zeros. Four-bit integers are packed two per byte, with the first half of a block
    /// in the low bits.
    ///
    /// # Panics
    /// If `weight` is not whole rows.
    pub fn pack(self, weight: &[f32], width: usize) -> (Vec<i8>, Vec<f32>) {
        let rows = row_count("pack: weight", weight.len(), width);
        let mut values = Vec::with_capacity(rows * self.packed_len(width));
        let mut scales = Vec::with_capacity(rows * width.div_ceil(Self::BLOCK_SIZE));
        for block in weight
            .chunks_exact(width.max(1))
            .flat_map(|row| row.chunks(Self::BLOCK_SIZE))
        {
            let absmax = block.iter().fold(0.0f32, |absmax, x| absmax.max(x.abs()));
            let scale = absmax / self.largest();
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let mut integers = [0; Self::BLOCK_SIZE];
            integers
                .iter_mut()
                .zip(block)
                .for_each(|(integer, x)| *integer = (x * inverse).round() as i8);
            scales.push(scale);
            match self {
                Self::Int8 => values.extend(integers),
                Self::Int4 => {
                    let (low, high) = integers.split_at(Self::BLOCK_SIZE / 2);
                    values.extend(
                        low.iter()
                            .zip(high)
                            .map(|(low, high)| (low & 15) | (high << 4)),
                    );
                }
            }
        }
        (values, scales)
    }

    /// The largest integer.
    fn largest(self) -> f32 {
        match self {
            Self::Int8 => 127.0,
            Self::Int4 => 7.0,
        }
    }
}
