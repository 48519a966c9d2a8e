//! 1×1 convolutions: a matrix product per image. Products of small maps read their operands in
//! place, where `gemm` would pack the weights again for every image.

use crate::{
    memory::{filled, volume},
    product::{Matrix, multiply_here},
    simd::{arch, vectors},
    threads::{Shared, for_each},
    tile::{Operands, Strided, column_tiles, tallest, tile, widest},
};
use pulp::{Simd, WithSimd};

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
    let in_place = reads_in_place(pixels, channels);
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        for_each(batch * parts, 2 * batch * rows * image_len, |part| {
            let (image, first) = (part / parts, part % parts * per_part);
            let count = per_part.min(rows - first);
            let product = Product {
                sizes: [count, pixels, channels],
                weight: Matrix {
                    values: &weight.values[first * weight.row..],
                    ..weight
                },
                x: &x[image * image_len..][..image_len],
                bias: bias.map(|bias| &bias[first..][..count]),
                // SAFETY: parts have disjoint rows.
                y: unsafe { y.range((image * rows + first) * pixels, count * pixels) },
            };
            match in_place {
                true => arch().dispatch(product),
                false => product.packed(),
            }
        });
    };
    // SAFETY: the parts cover all rows of all images, and each writes all of its rows.
    unsafe { filled(volume(&[batch, rows, pixels]), write) }
}

/// Whether operands are read in place. Maps have a vector at least, and are so small that the rows
/// of all channels stay in the first-level cache; measured against `gemm` with maps of 4×4 to
/// 32×32.
fn reads_in_place(pixels: usize, channels: usize) -> bool {
    (vectors()[0]..64).contains(&pixels) && channels <= 128
}

/// Some rows of the output of an image.
struct Product<'a> {
    /// Rows, pixels and channels.
    sizes: [usize; 3],
    weight: Matrix<'a>,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl Product<'_> {
    /// The product with packed operands.
    fn packed(self) {
        let pixels = self.sizes[1];
        if let Some(bias) = self.bias {
            self.y
                .chunks_exact_mut(pixels)
                .zip(bias)
                .for_each(|(row, bias)| row.fill(*bias));
        }
        let x = Matrix::rows(self.x, pixels);
        let add = self.bias.is_some();
        multiply_here(self.sizes, self.weight, x, self.y, pixels, 1.0, add);
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    /// The product with operands in place.
    ///
    /// # Panics
    /// If a map is smaller than a vector, or an operand does not have its size.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            sizes: [rows, pixels, channels],
            weight,
            x,
            bias,
            y,
        } = self;
        let lanes = S::F32_LANES;
        assert!(
            pixels >= lanes
                && x.len() == channels * pixels
                && y.len() == rows * pixels
                && weight.fits(rows, channels),
            "operands of a {rows}×{channels}×{pixels} product do not fit their slices"
        );
        let vectors = pixels.div_ceil(lanes);
        // A tile must not be wider than a map.
        let widest = match widest::<S>() {
            widest if vectors <= widest && vectors * lanes > pixels => vectors - 1,
            widest => widest,
        };
        for (first, width) in column_tiles(vectors, widest) {
            // The last tile ends with the map: it computes some pixels a second time.
            let column = (first * lanes).min(pixels - width * lanes);
            let mut row = 0;
            while row < rows {
                let height = 1 << (rows - row).min(tallest::<S>()).ilog2();
                // SAFETY: the rows, channels and columns of the tile lie in the operands, by the
                // assertion.
                unsafe {
                    let operands = Operands {
                        k: channels,
                        a: Strided {
                            start: weight.values.as_ptr().add(row * weight.row),
                            row: weight.row,
                            k: weight.column,
                        },
                        b: Strided {
                            start: x.as_ptr().add(column),
                            row: 0,
                            k: pixels,
                        },
                        c: y.as_mut_ptr().add(row * pixels + column),
                        c_row: pixels,
                        add: false,
                    };
                    tile(simd, height, width, operands);
                }
                row += height;
            }
        }
        if let Some(bias) = bias {
            for (row, bias) in y.chunks_exact_mut(pixels).zip(bias) {
                row.iter_mut().for_each(|y| *y += bias);
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    /// Products with operands in place, with vectors of several lengths, and with packed operands,
    /// against sums in f64.
    #[test]
    fn pointwise_products_match_f64() {
        let mut rng = Rng::new(7);
        for case in 0..400 {
            let mut pick = |high: usize| 1 + rng.below(high);
            let (rows, pixels, channels) = (pick(20), pick(70), pick(40));
            let x = rng.normals(channels * pixels);
            let values = rng.normals(rows * channels);
            let weight = match case % 2 {
                0 => Matrix::rows(&values, channels),
                _ => Matrix::rows(&values, rows).t(),
            };
            let bias = (case % 3 > 0).then(|| rng.normals(rows));
            let expected = |row: usize, pixel: usize| -> f64 {
                let terms = (0..channels).map(|channel| {
                    let weight = weight.values[row * weight.row + channel * weight.column];
                    f64::from(weight) * f64::from(x[channel * pixels + pixel])
                });
                terms.sum::<f64>() + bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]))
            };
            let check = |lanes: usize, multiply: &dyn Fn(Product<'_>)| {
                if pixels < lanes {
                    return;
                }
                let mut y = vec![f32::NAN; rows * pixels];
                multiply(Product {
                    sizes: [rows, pixels, channels],
                    weight,
                    x: &x,
                    bias: bias.as_deref(),
                    y: &mut y,
                });
                for (index, y) in y.into_iter().enumerate() {
                    let expected = expected(index / pixels, index % pixels);
                    assert!(
                        (f64::from(y) - expected).abs() < 2e-5,
                        "{y}, expected {expected}, {rows}×{channels}×{pixels}, {lanes} lanes"
                    );
                }
            };
            check(1, &|product| product.packed());
            check(vectors()[0], &|product| arch().dispatch(product));
            check(1, &|product| product.with_simd(pulp::Scalar));
            check(4, &|product| product.with_simd(pulp::Scalar128b));
            check(16, &|product| product.with_simd(pulp::Scalar512b));
        }
    }
}
