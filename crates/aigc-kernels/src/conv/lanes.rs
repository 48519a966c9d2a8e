//! Transposes between maps, which are channel by channel, and vectors of the channels of a pixel.

use pulp::Simd;

/// Side of the blocks that are transposed in registers.
const SIDE: usize = 8;

/// Whether [`transpose`] supports vectors of `S`. The instruction sets that are selected on x86-64
/// have AVX if their vectors have [`SIDE`] lanes or more.
const fn in_registers<S: Simd>() -> bool {
    cfg!(target_arch = "x86_64") && S::F32_LANES >= SIDE
}

/// The first `len` pixels of some maps, `from[channel · stride + pixel]`, to vectors `[pixel,
/// channel]` of all lanes. There are at most as many maps as lanes; the lanes beyond become zero.
///
/// # Panics
/// If a slice is too short.
#[inline(always)]
pub(super) fn interleave<S: Simd>(
    from: &[f32],
    stride: usize,
    channels: usize,
    len: usize,
    to: &mut [f32],
) {
    let lanes = S::F32_LANES;
    assert!(
        channels > 0 && channels <= lanes && len <= stride,
        "{channels} maps of {len} pixels at distances of {stride}"
    );
    let (from, to) = (
        &from[..(channels - 1) * stride + len],
        &mut to[..len * lanes],
    );
    if channels < lanes || len < SIDE || !in_registers::<S>() {
        if channels < lanes {
            to.fill(0.0);
        }
        for channel in 0..channels {
            let map = &from[channel * stride..][..len];
            let to = to.iter_mut().skip(channel).step_by(lanes);
            to.zip(map).for_each(|(to, value)| *to = *value);
        }
        return;
    }
    for first in (0..lanes).step_by(SIDE) {
        for pixel in (0..len).step_by(SIDE) {
            // The last block overlaps the one before.
            let pixel = pixel.min(len - SIDE);
            // SAFETY: pixels and channels of the block are inside the slices, and the CPU supports
            // AVX.
            unsafe {
                let from = from.as_ptr().add(first * stride + pixel);
                transpose(
                    from,
                    stride,
                    to.as_mut_ptr().add(pixel * lanes + first),
                    lanes,
                );
            }
        }
    }
}

/// The inverse of [`interleave`]: vectors `[pixel, channel]` to `to + channel · stride + pixel`.
///
/// # Safety
/// `to` is valid for writes of `len` pixels of every map, which no other thread uses.
///
/// # Panics
/// If `from` is too short.
#[inline(always)]
pub(super) unsafe fn deinterleave<S: Simd>(
    from: &[f32],
    channels: usize,
    len: usize,
    to: *mut f32,
    stride: usize,
) {
    let lanes = S::F32_LANES;
    assert!(channels <= lanes, "{channels} maps in {lanes} lanes");
    let from = &from[..len * lanes];
    if channels < lanes || len < SIDE || !in_registers::<S>() {
        for channel in 0..channels {
            for pixel in 0..len {
                // SAFETY: the caller's contract.
                unsafe {
                    to.add(channel * stride + pixel)
                        .write(from[pixel * lanes + channel])
                };
            }
        }
        return;
    }
    for first in (0..lanes).step_by(SIDE) {
        for pixel in (0..len).step_by(SIDE) {
            let pixel = pixel.min(len - SIDE);
            // SAFETY: pixels and channels of the block are inside `from` and, by the caller's
            // contract, valid behind `to`. The CPU supports AVX.
            unsafe {
                let from = from.as_ptr().add(pixel * lanes + first);
                transpose(from, lanes, to.add(first * stride + pixel), stride);
            }
        }
    }
}

/// Transposes a block of [`SIDE`] by [`SIDE`].
///
/// # Safety
/// All rows of the blocks are valid, and the CPU supports AVX.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx")]
unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    // SAFETY: the caller's contract.
    unsafe {
        let rows: [_; SIDE] = std::array::from_fn(|row| _mm256_loadu_ps(from.add(row * from_row)));
        // Pairs of rows, then groups of four, then both halves.
        let mut pairs = rows;
        for pair in 0..SIDE / 2 {
            let [a, b] = [rows[2 * pair], rows[2 * pair + 1]];
            pairs[2 * pair] = _mm256_unpacklo_ps(a, b);
            pairs[2 * pair + 1] = _mm256_unpackhi_ps(a, b);
        }
        let mut fours = pairs;
        for half in 0..2 {
            let [a, b, c, d] = std::array::from_fn(|row| pairs[4 * half + row]);
            fours[4 * half] = _mm256_shuffle_ps::<0b01_00_01_00>(a, c);
            fours[4 * half + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, c);
            fours[4 * half + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(b, d);
            fours[4 * half + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(b, d);
        }
        for row in 0..SIDE / 2 {
            let [a, b] = [fours[row], fours[4 + row]];
            _mm256_storeu_ps(to.add(row * to_row), _mm256_permute2f128_ps::<0x20>(a, b));
            _mm256_storeu_ps(
                to.add((4 + row) * to_row),
                _mm256_permute2f128_ps::<0x31>(a, b),
            );
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn transpose(_: *const f32, _: usize, _: *mut f32, _: usize) {
    unreachable!("blocks are transposed in registers on x86-64 only");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::arch;

    struct Check;

    impl pulp::WithSimd for Check {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            simd.vectorize(|| {
                let lanes = S::F32_LANES;
                for (len, stride) in [(1, 1), (7, 9), (8, 8), (9, 12), (30, 49)] {
                    for channels in 1..=lanes {
                        let maps: Vec<f32> =
                            (0..channels * stride).map(|at| at as f32 + 1.0).collect();
                        let mut vectors = vec![-1.0; len * lanes];
                        interleave::<S>(&maps, stride, channels, len, &mut vectors);
                        for pixel in 0..len {
                            for lane in 0..lanes {
                                let expected = match lane < channels {
                                    true => maps[lane * stride + pixel],
                                    false => 0.0,
                                };
                                assert_eq!(vectors[pixel * lanes + lane], expected);
                            }
                        }
                        let mut back = vec![0.0; channels * stride];
                        // SAFETY: `back` holds all maps.
                        unsafe {
                            deinterleave::<S>(&vectors, channels, len, back.as_mut_ptr(), stride);
                        }
                        for (at, value) in back.into_iter().enumerate() {
                            let expected = if at % stride < len { maps[at] } else { 0.0 };
                            assert_eq!(value, expected);
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn transposes_are_inverse() {
        arch().dispatch(Check);
    }
}
