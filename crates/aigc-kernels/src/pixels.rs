//! Nearest-neighbour upsampling by an integer factor, and its gradient.

use super::{
    memory::{filled, volume},
    threads::{Shared, for_each},
};

/// Nearest-neighbour upsampling: repeats every pixel `factor` times in both directions.
///
/// `x` is rows of `width` pixels; the result has `factor` times as many rows of `factor·width`.
///
/// # Panics
/// If `x` is not whole rows, or `factor` is 0.
pub fn repeat(x: &[f32], width: usize, factor: usize) -> Vec<f32> {
    assert!(
        factor > 0 && is_rows(x.len(), width),
        "upsampling of {} pixels in rows of {width} by {factor}",
        x.len()
    );
    let row_out = width * factor;
    filled(volume(&[x.len(), factor, factor]), |y| {
        let y = Shared::new(y);
        by_rows(x.len(), width, |first, count| {
            // SAFETY: every part has its own rows.
            let y = unsafe { y.range(first * factor * row_out, count * factor * row_out) };
            let rows = x[first * width..(first + count) * width].chunks_exact(width);
            for (row, block) in rows.zip(y.chunks_exact_mut(factor * row_out)) {
                let (top, rest) = block.split_at_mut(row_out);
                if factor == 2 {
                    top.chunks_exact_mut(2)
                        .zip(row)
                        .for_each(|(pair, x)| pair.fill(*x));
                } else {
                    top.chunks_exact_mut(factor)
                        .zip(row)
                        .for_each(|(many, x)| many.fill(*x));
                }
                rest.chunks_exact_mut(row_out)
                    .for_each(|copy| copy.copy_from_slice(top));
            }
        });
    })
}

/// Gradient of [`repeat`]: the sums of blocks of `factor` × `factor` pixels.
///
/// `dy` is rows of `width` pixels; the result has rows of `width / factor`.
///
/// # Panics
/// If `dy` is not whole blocks, or `factor` is 0.
pub fn sum_blocks(dy: &[f32], width: usize, factor: usize) -> Vec<f32> {
    assert!(
        factor > 0 && width.is_multiple_of(factor) && is_rows(dy.len(), volume(&[width, factor])),
        "sums of blocks of {factor} × {factor} of {} pixels in rows of {width}",
        dy.len()
    );
    let row_out = width / factor;
    filled(dy.len() / (factor * factor), |dx| {
        let (dx, len) = (Shared::new(dx), dy.len() / (factor * factor));
        by_rows(len, row_out, |first, count| {
            // SAFETY: every part has its own rows.
            let dx = unsafe { dx.range(first * row_out, count * row_out) };
            let blocks = dy[first * factor * width..(first + count) * factor * width]
                .chunks_exact(factor * width);
            for (block, dx) in blocks.zip(dx.chunks_exact_mut(row_out)) {
                dx.fill(0.0);
                for row in block.chunks_exact(width) {
                    if factor == 2 {
                        dx.iter_mut()
                            .zip(row.chunks_exact(2))
                            .for_each(|(sum, pair)| *sum += pair[0] + pair[1]);
                    } else {
                        let sums = row
                            .chunks_exact(factor)
                            .map(|many| many.iter().sum::<f32>());
                        dx.iter_mut().zip(sums).for_each(|(sum, part)| *sum += part);
                    }
                }
            }
        });
    })
}

/// Whether `len` elements are whole rows of `width`.
fn is_rows(len: usize, width: usize) -> bool {
    len.checked_rem(width).unwrap_or(len) == 0
}

/// Calls `work` with the first row and the number of rows of every part of `len / width` rows.
fn by_rows(len: usize, width: usize, work: impl Fn(usize, usize) + Send + Sync) {
    let rows = len.checked_div(width).unwrap_or(0);
    let per_part = (8192 / width.max(1)).max(1);
    for_each(rows.div_ceil(per_part), 4 * len, |part| {
        work(part * per_part, per_part.min(rows - part * per_part));
    });
}
