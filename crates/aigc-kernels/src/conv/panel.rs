//! Pixels of several rows, or images, side by side.

use pulp::Simd;

/// A stretch of pixels that lie side by side in a plane as well as in a panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// First pixel in the panel.
    pub to: usize,
    /// First element in the planes of the group's first channel.
    pub from: usize,
    /// Image of the group, and first pixel of that image's grid.
    pub image: usize,
    pub pixel: usize,
    pub len: usize,
}

/// The pixels `pixels` of a group of images with `grid` pixels each, one after the other; the
/// planes of an image are `plane_width` wide and lie `map_len` apart.
pub(super) fn packed(
    pixels: std::ops::Range<usize>,
    grid: [usize; 2],
    plane_width: usize,
    map_len: usize,
    into: &mut Vec<Run>,
) {
    into.clear();
    let mut at = pixels.start;
    while at < pixels.end {
        let (image, pixel) = (at / (grid[0] * grid[1]), at % (grid[0] * grid[1]));
        let (row, column) = (pixel / grid[1], pixel % grid[1]);
        let len = (grid[1] - column).min(pixels.end - at);
        let from = image * map_len + row * plane_width + column;
        into.push(Run {
            to: at - pixels.start,
            from,
            image,
            pixel,
            len,
        });
        at += len;
    }
}

/// The pixels of `image` among the `places` of its plane, padding included.
pub(super) fn in_place(
    places: std::ops::Range<usize>,
    grid: [usize; 2],
    plane_width: usize,
    image: usize,
    into: &mut Vec<Run>,
) {
    into.clear();
    for row in places.start / plane_width..grid[0].min(places.end.div_ceil(plane_width)) {
        let first = (row * plane_width).max(places.start);
        let end = (row * plane_width + grid[1]).min(places.end);
        if first < end {
            let pixel = row * grid[1] + first - row * plane_width;
            into.push(Run {
                to: first - places.start,
                from: first,
                image,
                pixel,
                len: end - first,
            });
        }
    }
}

/// Copies the pixels of `runs`, for every offset, side by side into rows of `width`.
#[inline(always)]
pub(super) fn pack<S: Simd>(
    simd: S,
    maps: &[f32],
    offsets: &[usize],
    runs: &[Run],
    panel: &mut [f32],
    width: usize,
) {
    let lanes = S::F32_LANES;
    let furthest = runs
        .iter()
        .map(|run| run.from + run.len.next_multiple_of(lanes))
        .max()
        .unwrap_or(0);
    let end = runs.last().map_or(0, |run| run.to + run.len);
    assert!(
        offsets.iter().max().map_or(0, |o| o + furthest) <= maps.len(),
        "planes end too early"
    );
    assert!(
        end <= width && offsets.len() * width + lanes <= panel.len(),
        "panel ends too early"
    );
    for run in runs {
        for at in (0..run.len).step_by(lanes) {
            let (from, to) = (run.from + at, run.to + at);
            // SAFETY: both ends were held against the slices above. Whole vectors: what is written
            // beyond a run is overwritten by the next one, and what is beyond a row is left as it
            // is.
            unsafe {
                let from = maps.as_ptr().add(from);
                let mut to = panel.as_mut_ptr().add(to);
                if run.to + at + lanes <= width {
                    for offset in offsets {
                        to.cast::<S::f32s>()
                            .write_unaligned(from.add(*offset).cast::<S::f32s>().read_unaligned());
                        to = to.add(width);
                    }
                } else {
                    // Beyond the end lies the beginning of the next row, which stays.
                    let inside = simd.mask_between_m32s(0, (end - run.to - at) as u32).mask();
                    for offset in offsets {
                        let vector = from.add(*offset).cast::<S::f32s>().read_unaligned();
                        let (place, next) = (to.cast::<S::f32s>(), to.add(width));
                        place.write_unaligned(simd.select_f32s(
                            inside,
                            vector,
                            place.read_unaligned(),
                        ));
                        to = next;
                    }
                }
            }
        }
    }
}
