//! Nearest-neighbour enlargement.

use super::{
    memory::filled,
    threads::{Shared, for_each},
};

/// Every pixel of rows of `width` repeated `factor` times in both directions.
pub fn repeat(x: &[f32], width: usize, factor: usize) -> Vec<f32> {
    let row_out = width * factor;
    filled(x.len() * factor * factor, |y| {
        let y = Shared::new(y);
        by_rows(x.len(), width, |first, count| {
            // SAFETY: parts have rows of their own.
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

/// Sum of every block of `factor` × `factor` pixels of rows of `width`.
pub fn sum_blocks(dy: &[f32], width: usize, factor: usize) -> Vec<f32> {
    let row_out = width / factor;
    filled(dy.len() / (factor * factor), |dx| {
        let (dx, len) = (Shared::new(dx), dy.len() / (factor * factor));
        by_rows(len, row_out, |first, count| {
            // SAFETY: parts have rows of their own.
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

/// Calls `work` with first row and number of rows of every part of `len / width` rows.
fn by_rows(len: usize, width: usize, work: impl Fn(usize, usize) + Send + Sync) {
    let rows = len.checked_div(width).unwrap_or(0);
    let per_part = (8192 / width.max(1)).max(1);
    for_each(rows.div_ceil(per_part), 4 * len, |part| {
        work(part * per_part, per_part.min(rows - part * per_part));
    });
}
