//! Maxima and means of windows of pixels.

use crate::{
    memory::{check_len, filled, volume},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// What becomes of the pixels of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The largest, or NaN if one is.
    Max,
    /// The mean of the pixels that are inside; padding is not counted.
    Mean,
}

/// Sizes of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSizes {
    /// Height and width of the maps.
    pub input: [usize; 2],
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: [usize; 2],
    /// Pixels around the maps; at most half of a window.
    pub padding: [usize; 2],
}

impl PoolSizes {
    /// Height and width of the result; `None` if no window fits, a size is 0, or the padding is
    /// more than half of a window.
    pub fn output(&self) -> Option<[usize; 2]> {
        let side = |axis: usize| {
            let (kernel, padding) = (self.kernel[axis], self.padding[axis]);
            if kernel == 0 || padding > kernel / 2 {
                return None;
            }
            let padded = self.input[axis].checked_add(padding.checked_mul(2)?)?;
            padded
                .checked_sub(kernel)?
                .checked_div(self.stride[axis])?
                .checked_add(1)
        };
        let inside = self.input.iter().all(|side| *side > 0);
        Some([side(0)?, side(1)?]).filter(|_| inside)
    }
}

/// Pools maps `x` of the given height and width, one after the other.
///
/// # Panics
/// If no window fits, or `x` is not whole maps.
pub fn pool2d(x: &[f32], pool: Pool, sizes: PoolSizes) -> Vec<f32> {
    let output = sizes
        .output()
        .unwrap_or_else(|| panic!("pool2d: no window fits in {sizes:?}"));
    let (plane, plane_out) = (volume(&sizes.input), volume(&output));
    let planes = x.len() / plane;
    check_len("pool2d: x", x.len(), planes * plane);
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        for_each(planes, x.len() * sizes.kernel[0], |part| {
            arch().dispatch(Plane {
                x: &x[part * plane..(part + 1) * plane],
                // SAFETY: every part has its own plane.
                y: unsafe { y.range(part * plane_out, plane_out) },
                pool,
                sizes,
                width_out: output[1],
            });
        });
    };
    // SAFETY: the parts cover all planes, whose rows are written as a whole before they are read.
    unsafe { filled(volume(&[planes, plane_out]), write) }
}

struct Plane<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    pool: Pool,
    sizes: PoolSizes,
    width_out: usize,
}

impl WithSimd for Plane<'_> {
    type Output = ();

    // Plain loops: the compiler makes vectors of them, for the instruction set of `S`. Rows of a
    // window come first: they are contiguous.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let PoolSizes {
            input: [height, width],
            kernel: [tall, wide],
            stride: [down, right],
            padding: [above, left],
        } = self.sizes;
        let mut row = vec![0.0f32; width];
        for (i, y) in self.y.chunks_exact_mut(self.width_out).enumerate() {
            let (top, bottom) = covered(i * down, above, tall, height);
            row.copy_from_slice(&self.x[top * width..(top + 1) * width]);
            for r in top + 1..bottom {
                let pairs = row.iter_mut().zip(&self.x[r * width..(r + 1) * width]);
                match self.pool {
                    Pool::Max => pairs.for_each(|(most, x)| *most = larger(*most, *x)),
                    Pool::Mean => pairs.for_each(|(sum, x)| *sum += x),
                }
            }
            for (j, y) in y.iter_mut().enumerate() {
                let (first, end) = covered(j * right, left, wide, width);
                let window = &row[first..end];
                *y = match self.pool {
                    Pool::Max => window[1..].iter().fold(window[0], |a, b| larger(a, *b)),
                    Pool::Mean => {
                        let pixels = (bottom - top) * window.len();
                        window.iter().sum::<f32>() / pixels as f32
                    }
                };
            }
        }
    }
}

/// The pixels of a window that are inside: its first one, and the one behind its last.
#[inline(always)]
fn covered(start: usize, padding: usize, kernel: usize, size: usize) -> (usize, usize) {
    (
        start.saturating_sub(padding),
        (start + kernel - padding).min(size),
    )
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a >= b || a.is_nan() { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    fn sizes(input: [usize; 2], kernel: usize, stride: usize, padding: usize) -> PoolSizes {
        PoolSizes {
            input,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
        }
    }

    /// Window by window, as the definition has it.
    #[test]
    fn pools_match_their_definition() {
        let values = |n: usize| -> Vec<f32> {
            (0..n)
                .map(|i| ((i * 7919 + 13) % 1009) as f32 / 100.0 - 5.0)
                .collect()
        };
        for (input, kernel, stride, padding) in [
            ([5, 7], 3, 1, 1),
            ([35, 35], 3, 2, 0),
            ([8, 6], 2, 2, 0),
            ([9, 4], 3, 2, 1),
            ([3, 3], 3, 1, 0),
            ([1, 20], 1, 3, 0),
            ([6, 5], 5, 4, 2),
        ] {
            let sizes = sizes(input, kernel, stride, padding);
            let [height, width] = input;
            let x = values(3 * height * width);
            let [high, wide] = sizes.output().unwrap();
            for pool in [Pool::Max, Pool::Mean] {
                let found = pool2d(&x, pool, sizes);
                assert_eq!(found.len(), 3 * high * wide);
                for (at, found) in found.iter().enumerate() {
                    let (plane, i, j) = (at / (high * wide), at / wide % high, at % wide);
                    let mut inside = Vec::new();
                    for r in 0..kernel {
                        for c in 0..kernel {
                            let r = (i * stride + r).checked_sub(padding);
                            let c = (j * stride + c).checked_sub(padding);
                            if let (Some(r), Some(c)) = (r, c)
                                && r < height
                                && c < width
                            {
                                inside.push(x[(plane * height + r) * width + c]);
                            }
                        }
                    }
                    let sum: f32 = inside.iter().sum();
                    let expected = match pool {
                        Pool::Max => inside.iter().copied().fold(f32::MIN, f32::max),
                        Pool::Mean => sum / inside.len() as f32,
                    };
                    assert!((found - expected).abs() < 1e-5, "{sizes:?} {pool:?}");
                }
            }
        }
    }

    #[test]
    fn nan_is_the_maximum_of_its_windows() {
        let x = [1.0, f32::NAN, 2.0, 3.0];
        let row = PoolSizes {
            kernel: [1, 2],
            stride: [1, 1],
            ..sizes([1, 4], 1, 1, 0)
        };
        let found = pool2d(&x, Pool::Max, row);
        assert!(found[0].is_nan() && found[1].is_nan());
        assert_eq!(found[2], 3.0);
    }

    #[test]
    fn windows_that_do_not_fit_are_rejected() {
        assert_eq!(sizes([2, 9], 3, 1, 0).output(), None);
        assert_eq!(sizes([9, 9], 3, 1, 2).output(), None);
        assert_eq!(sizes([9, 9], 3, 0, 0).output(), None);
        assert_eq!(sizes([0, 9], 1, 1, 0).output(), None);
        assert_panics("no window fits", || {
            pool2d(&[1.0; 4], Pool::Max, sizes([2, 2], 3, 1, 0))
        });
        assert_panics("pool2d: x", || {
            pool2d(&[1.0; 5], Pool::Max, sizes([2, 2], 2, 1, 0))
        });
    }
}
