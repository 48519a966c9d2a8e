//! Panels: pixels of several rows or images packed contiguously (im2col of one panel).

use pulp::Simd;

/// A run of pixels that are contiguous in a plane as well as in a panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// First pixel in the panel.
    pub to: usize,
    /// Offset of the first pixel in the planes of the group's first channel.
    pub from: usize,
    /// Image of the group.
    pub image: usize,
    /// First pixel in the grid of that image.
    pub pixel: usize,
    pub len: usize,
}

/// The runs of `pixels`, which number the pixels of a group of images with `grid` pixels each. The
/// planes of an image have rows of `plane_width`; the stride between images is `map_len`.
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

/// The runs of pixels of `image` in the range `places` of its plane, which includes padding.
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

/// Copies the pixels of `runs` to a panel row of `width`, for every offset.
///
/// # Panics
/// If a run, rounded up to whole vectors, lies beyond `maps`, or a run lies beyond its panel row.
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
    let end = runs.iter().map(|run| run.to + run.len).max().unwrap_or(0);
    assert!(
        offsets.iter().max().map_or(0, |o| o + furthest) <= maps.len(),
        "a tap reaches beyond the planes"
    );
    assert!(
        end <= width && offsets.len() * width + lanes <= panel.len(),
        "pixels exceed the panel"
    );
    for run in runs {
        for at in (0..run.len).step_by(lanes) {
            let (from, to) = (run.from + at, run.to + at);
            // SAFETY: a vector from any place of a run is inside `maps` at every offset, and inside
            // the panel at every row, by the assertions. Copies whole vectors: elements beyond a
            // run are overwritten by the next run, and elements beyond a row are kept.
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
                    // The elements beyond the end are the start of the next row, and are kept.
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
