//! How numbers are made whole ones of few bits.

use serde::{Deserialize, Serialize};

/// What a packed weight keeps of every number: a whole one, which the scale of its block is
/// multiplied by.
///
/// The largest number of a block becomes the largest whole one, and the others are rounded to the
/// nearest (symmetric absmax quantization; Dettmers et al. 2022, "8-bit Optimizers via Block-wise
/// Quantization", §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// From −127 to 127: 8.5 bits a number, scales counted.
    Int8,
    /// From −7 to 7, two to a byte: 4.5 bits a number.
    Int4,
}

impl Quantization {
    /// Numbers that share a scale.
    pub const BLOCK_SIZE: usize = 64;

    /// Bytes of a row of `width` numbers, the last block filled up.
    pub fn packed_len(self, width: usize) -> usize {
        let blocks = width.div_ceil(Self::BLOCK_SIZE);
        match self {
            Self::Int8 => blocks * Self::BLOCK_SIZE,
            Self::Int4 => blocks * Self::BLOCK_SIZE / 2,
        }
    }

    /// Values and scales of rows of `width` numbers. Four-bit values lie two to a byte, the first
    /// half of a block in the low bits.
    pub fn pack(self, weight: &[f32], width: usize) -> (Vec<i8>, Vec<f32>) {
        let rows = weight.len().checked_div(width).unwrap_or(0);
        let mut values = Vec::with_capacity(rows * self.packed_len(width));
        let mut scales = Vec::with_capacity(rows * width.div_ceil(Self::BLOCK_SIZE));
        for block in weight
            .chunks_exact(width.max(1))
            .flat_map(|row| row.chunks(Self::BLOCK_SIZE))
        {
            let most = block.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let scale = most / self.largest();
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let mut whole = [0; Self::BLOCK_SIZE];
            whole
                .iter_mut()
                .zip(block)
                .for_each(|(whole, x)| *whole = (x * inverse).round() as i8);
            scales.push(scale);
            match self {
                Self::Int8 => values.extend(whole),
                Self::Int4 => {
                    let (low, high) = whole.split_at(Self::BLOCK_SIZE / 2);
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

    fn largest(self) -> f32 {
        match self {
            Self::Int8 => 127.0,
            Self::Int4 => 7.0,
        }
    }
}
