//! Writing sums to the output.

use super::{super::panel::Run, Gather, division::Part, part::Product};
use crate::{threads::Shared, tile::widest};
use pulp::Simd;

/// Writes the pixels of `runs` from the sums to the output, plus the bias. The runs number the
/// pixels of the part's window, which has whole rows of the grid or a part of a single one.
///
/// # Safety
/// No other thread uses the output pixels of the runs in the rows of the part.
#[inline(always)]
pub(super) unsafe fn write_out<S: Simd>(
    simd: S,
    product: &Product,
    part: &Part,
    runs: &[Run],
    y: &Shared<f32>,
) {
    let Product {
        gather,
        ref sums,
        padded_rows,
        ..
    } = *product;
    let Gather {
        output: [height, width],
        output_stride,
        grid,
        ..
    } = *gather;
    let panel = widest::<S>() * S::F32_LANES;
    let first_pixel = part.window.first[0] * grid[1] + part.window.first[1];
    let bias_of = |row: usize| {
        let bias = gather.bias.map(|bias| bias[part.group * gather.rows + row]);
        bias.unwrap_or(0.0)
    };
    let mut next = 0;
    while let Some(&(mut run)) = runs.get(next) {
        next += 1;
        let image = gather.image(part.images.start + run.image, part.group);
        let map = |row: usize| (image * gather.rows + row) * height * width;
        let pixel = first_pixel + run.pixel;
        if output_stride == [1, 1] {
            // Runs that are adjacent in the panel and in the image are merged.
            while let Some(more) = runs.get(next)
                && [more.image, more.pixel, more.to]
                    == [run.image, run.pixel + run.len, run.to + run.len]
            {
                run.len += more.len;
                next += 1;
            }
            for (index, row) in part.rows.clone().enumerate() {
                let from = &sums[index * panel + run.to..][..run.len];
                // SAFETY: the caller's contract. The range ends with this statement's block.
                let to = unsafe { y.range(map(row) + pixel, run.len) };
                add_bias(simd, from, bias_of(row), to);
            }
            continue;
        }
        let (grid_row, grid_column) = (pixel / grid[1], pixel % grid[1]);
        let (columns, first) = (output_stride[1].min(width), grid_column * output_stride[1]);
        let len = (width - first).min(run.len.saturating_mul(output_stride[1]));
        for (index, phase) in (0..gather.jobs.len()).step_by(columns).zip(0..) {
            let y_row = grid_row * output_stride[0] + phase;
            if y_row >= height {
                continue;
            }
            for (row_index, row) in part.rows.clone().enumerate() {
                let bias = bias_of(row);
                // SAFETY: the caller's contract. The range ends with the iteration.
                let to = unsafe { y.range(map(row) + y_row * width + first, len) };
                let source = |column: usize| {
                    let sums = &sums[((index + column) * padded_rows + row_index) * panel..];
                    &sums[run.to..run.to + run.len]
                };
                if columns == 2 {
                    let (even, odd) = (source(0), source(1));
                    let (pairs, last) = to.as_chunks_mut::<2>();
                    for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
                        *pair = [even + bias, odd + bias];
                    }
                    if pairs.len() < run.len {
                        last[0] = even[pairs.len()] + bias;
                    }
                } else {
                    for column in 0..columns.min(to.len()) {
                        for (to, from) in to[column..]
                            .iter_mut()
                            .step_by(output_stride[1])
                            .zip(source(column))
                        {
                            *to = from + bias;
                        }
                    }
                }
            }
        }
    }
}

/// `to = from + bias`, for slices of the same length.
#[inline(always)]
pub(in super::super) fn add_bias<S: Simd>(simd: S, from: &[f32], bias: f32, to: &mut [f32]) {
    let (lanes, wide) = (S::F32_LANES, simd.splat_f32s(bias));
    let (to_body, to_rest) = S::as_mut_simd_f32s(to);
    let (from_body, from_rest) = S::as_simd_f32s(from);
    for (to, from) in to_body.iter_mut().zip(from_body) {
        *to = simd.add_f32s(*from, wide);
    }
    if !to_body.is_empty() && !to_rest.is_empty() {
        // The tail is covered by a vector that overlaps the previous one.
        let at = from.len() - lanes;
        let (from, _) = S::as_simd_f32s(&from[at..]);
        let (to, _) = S::as_mut_simd_f32s(&mut to[at..]);
        to[0] = simd.add_f32s(from[0], wide);
    } else {
        for (to, from) in to_rest.iter_mut().zip(from_rest) {
            *to = from + bias;
        }
    }
}
