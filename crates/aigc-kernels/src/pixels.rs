//! Nearest-neighbour upsampling by an integer factor, and its gradient.

use super::{
    memory::{filled, row_count, volume},
    threads::{Shared, for_each},
};

/// Nearest-neighbour upsampling: repeats every pixel `factor` times in both directions.
///
/// `x` is rows of `width` pixels; the result has `factor` times as many rows of `factor·width`.
///
/// # Panics
/// If `x` is not whole rows of `width`, or `factor` is 0.
pub fn repeat(x: &[f32], width: usize, factor: usize) -> Vec<f32> {
    assert!(factor > 0, "repeat: factor is 0, expected at least 1");
    row_count("repeat: x", x.len(), width);
    let row_out = volume(&[width, factor]);
    let write = |y: &mut [f32]| {
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
    };
    // SAFETY: the parts cover all rows of `x`. Each row writes the first of its `factor` rows of
    // `y`, pixel by pixel, and copies that row to the others.
    unsafe { filled(volume(&[x.len(), factor, factor]), write) }
}

/// Gradient of [`repeat`]: the sums of blocks of `factor` × `factor` pixels.
///
/// `dy` is rows of `width` pixels; the result has rows of `width / factor`.
///
/// # Panics
/// If `factor` is 0 or does not divide `width`, or `dy` is not whole blocks: a multiple of `factor`
/// rows of `width`.
pub fn sum_blocks(dy: &[f32], width: usize, factor: usize) -> Vec<f32> {
    assert!(
        factor > 0 && width.is_multiple_of(factor),
        "sum_blocks: width is {width}, expected a multiple of the factor {factor}"
    );
    row_count("sum_blocks: dy", dy.len(), volume(&[width, factor]));
    let row_out = width / factor;
    let len = dy.len() / volume(&[factor, factor]);
    let write = |dx: &mut [f32]| {
        let dx = Shared::new(dx);
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
    };
    // SAFETY: the parts cover all `len / row_out` rows, each of which is zeroed before the sums.
    unsafe { filled(len, write) }
}

/// Calls `work` with the first row and the number of rows of every part of `len / width` rows.
fn by_rows(len: usize, width: usize, work: impl Fn(usize, usize) + Send + Sync) {
    let rows = len.checked_div(width).unwrap_or(0);
    let per_part = (8192 / width.max(1)).max(1);
    for_each(rows.div_ceil(per_part), 4 * len, |part| {
        work(part * per_part, per_part.min(rows - part * per_part));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn pixels_reject_other_sizes() {
        let x = [1.0; 12];
        assert_panics("repeat: factor is 0", || repeat(&x, 4, 0));
        assert_panics("repeat: x has 12 elements", || repeat(&x, 5, 2));
        assert_panics("repeat: x has 12 elements", || repeat(&x, 0, 2));
        assert_panics("overflow", || repeat(&x, 4, usize::MAX));
        assert_panics("overflow", || repeat(&[], usize::MAX, 2));
        assert_panics("sum_blocks: width is 4", || sum_blocks(&x, 4, 0));
        assert_panics("sum_blocks: width is 4", || sum_blocks(&x, 4, 3));
        assert_panics("sum_blocks: dy has 12 elements", || sum_blocks(&x, 4, 2));
        assert_panics("overflow", || sum_blocks(&[], 0, usize::MAX));
        assert!(repeat(&[], 4, 2).is_empty() && sum_blocks(&[], 4, 2).is_empty());
        assert_eq!(sum_blocks(&repeat(&x, 4, 3), 12, 3), [9.0; 12]);
    }
}
