//! 1×1 convolutions: a matrix product per image, without packing.

use crate::{
    memory::{filled, volume},
    product::{Matrix, multiply_here},
    threads::{Shared, for_each},
};

/// Rows of a product per part, so that `batch` products keep all threads busy.
fn rows_per_part(rows: usize, batch: usize) -> usize {
    let parts = rayon::current_num_threads().div_ceil(batch.max(1));
    rows.div_ceil(parts).next_multiple_of(8).min(rows).max(1)
}

/// `y[n] = weight[rows, channels]·x[n][channels, pixels] + bias[rows]`.
pub(super) fn pointwise(
    [rows, pixels, channels]: [usize; 3],
    weight: Matrix,
    x: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let image_len = channels * pixels;
    let batch = x.len() / image_len;
    let per_part = rows_per_part(rows, batch);
    let parts = rows.div_ceil(per_part);
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        for_each(batch * parts, 2 * batch * rows * image_len, |part| {
            let (image, first) = (part / parts, part % parts * per_part);
            let count = per_part.min(rows - first);
            // SAFETY: parts have disjoint rows.
            let y = unsafe { y.range((image * rows + first) * pixels, count * pixels) };
            if let Some(bias) = bias {
                y.chunks_exact_mut(pixels)
                    .zip(&bias[first..])
                    .for_each(|(row, bias)| row.fill(*bias));
            }
            let weight = Matrix {
                values: &weight.values[first * weight.row..],
                ..weight
            };
            let x = Matrix::rows(&x[image * image_len..][..image_len], pixels);
            multiply_here(
                [count, pixels, channels],
                weight,
                x,
                y,
                pixels,
                1.0,
                bias.is_some(),
            );
        });
    };
    // SAFETY: the parts cover all rows of all images. A part writes the bias before it adds its
    // product, or overwrites its rows with the product.
    unsafe { filled(volume(&[batch, rows, pixels]), write) }
}

/// `dw[rows, channels] = Σ_n dy[n][rows, pixels]·x[n][channels, pixels]ᵀ`.
pub(super) fn pointwise_weight_grad(
    [rows, pixels, channels]: [usize; 3],
    x: &[f32],
    dy: &[f32],
) -> Vec<f32> {
    let (image_len, batch) = (channels * pixels, x.len() / (channels * pixels));
    // Parts split the sums, not their terms: every sum is accumulated by one thread in a fixed
    // order.
    let per_part = rows_per_part(rows, 1);
    assert!(batch > 0, "a weight gradient of no images");
    let write = |dw: &mut [f32]| {
        let dw = Shared::new(dw);
        for_each(
            rows.div_ceil(per_part),
            2 * batch * rows * image_len,
            |part| {
                let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
                // SAFETY: parts have disjoint rows.
                let dw = unsafe { dw.range(first * channels, count * channels) };
                for (image, x) in x.chunks_exact(image_len).enumerate() {
                    let dy = Matrix::rows(
                        &dy[(image * rows + first) * pixels..][..count * pixels],
                        pixels,
                    );
                    let x = Matrix::rows(x, pixels).t();
                    multiply_here(
                        [count, channels, pixels],
                        dy,
                        x,
                        dw,
                        channels,
                        1.0,
                        image > 0,
                    );
                }
            },
        );
    };
    // SAFETY: the parts cover all rows. The product of the first image, which exists by the
    // assertion, overwrites the rows of a part, and the others are added.
    unsafe { filled(volume(&[rows, channels]), write) }
}
