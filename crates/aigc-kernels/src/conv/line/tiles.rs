//! Copies of the pixels of tiles to a row for each pixel of a tile, and back.

use super::{Line, Window, scheme::OUT};

/// Vectors after the rows of [`Line::fill`] that may be read.
pub(super) const SLACK: usize = 1;

impl Line<'_> {
    /// Tiles of the rows of [`fill`](Self::fill): those of the window, and those after them that
    /// its terms read.
    pub(super) fn tiles_read(&self, window: Window) -> usize {
        (window.groups + self.terms) * self.dilation
    }

    /// Copies the pixels that a window reads of a map, zero outside of it, to a row for each pixel
    /// of a tile. `padded` has room for these pixels.
    #[inline(always)]
    pub(super) fn fill(&self, map: &[f32], window: Window, padded: &mut [f32], rows: &mut [f32]) {
        let (len, pad) = (OUT * self.tiles_read(window), self.gather.planes.pad[1]);
        let start = window.first * OUT * self.dilation;
        let pixels = match start.checked_sub(pad) {
            Some(from) if from + len <= map.len() => &map[from..from + len],
            _ => {
                let padded = &mut padded[..len];
                // The first pixel of the map, and the first after it.
                let [from, end] = [pad, pad + map.len()].map(|at| at.max(start).min(start + len));
                padded[..from - start].fill(0.0);
                if from < end {
                    padded[from - start..end - start].copy_from_slice(&map[from - pad..end - pad]);
                }
                padded[end - start..].fill(0.0);
                &*padded
            }
        };
        split(pixels, self.dilation, rows);
    }
}

/// Copies tiles, whose first pixels are `dilation` neighbours in every `4·dilation`, to a row for
/// each pixel of a tile.
#[inline(always)]
fn split(pixels: &[f32], dilation: usize, rows: &mut [f32]) {
    match dilation {
        1 => {
            let [first, second, third, fourth] = quarters(rows, pixels.len() / OUT);
            let rows = first.iter_mut().zip(second).zip(third).zip(fourth);
            for ((((a, b), c), d), tile) in rows.zip(pixels.as_chunks::<OUT>().0) {
                [*a, *b, *c, *d] = *tile;
            }
        }
        2 => split_groups::<2, 2>(pixels, rows),
        3 => split_groups::<3, 4>(pixels, rows),
        4 => split_groups::<4, 4>(pixels, rows),
        5 => split_groups::<5, 8>(pixels, rows),
        dilation => {
            let rows = quarters(rows, pixels.len() / OUT);
            let groups = pixels.chunks_exact(OUT * dilation);
            for (group, from) in groups.enumerate() {
                for (row, from) in from.chunks_exact(dilation).enumerate() {
                    rows[row][group * dilation..][..dilation].copy_from_slice(from);
                }
            }
        }
    }
}

/// [`split`] for a dilation that is known to the compiler. `WIDE` pixels are copied at a time, of
/// which those beyond the dilation are overwritten by the next group.
#[inline(always)]
fn split_groups<const D: usize, const WIDE: usize>(pixels: &[f32], rows: &mut [f32]) {
    let groups = pixels.len() / (OUT * D);
    for (row, to) in quarters(rows, groups * D).into_iter().enumerate() {
        for group in 0..groups {
            let (from, to) = (&pixels[(group * OUT + row) * D..], &mut to[group * D..]);
            match (from.first_chunk::<WIDE>(), to.first_chunk_mut::<WIDE>()) {
                (Some(from), Some(to)) => *to = *from,
                _ => to[..D].copy_from_slice(&from[..D]),
            }
        }
    }
}

/// Four rows of `len`.
fn quarters(rows: &mut [f32], len: usize) -> [&mut [f32]; OUT] {
    let (first, rest) = rows.split_at_mut(len);
    let (second, rest) = rest.split_at_mut(len);
    let (third, rest) = rest.split_at_mut(len);
    [first, second, third, &mut rest[..len]]
}

/// Writes the pixels of the tiles from `first` on, those of a row for each pixel of a tile, to
/// `map`, whose first pixel is that of tile zero. Pixels beyond its end are left out.
#[inline(always)]
pub(super) fn join(rows: [&[f32]; OUT], first: usize, dilation: usize, map: &mut [f32]) {
    let (len, end) = (rows[0].len(), map.len());
    if dilation == 1 {
        let (tiles, rest) = map[(OUT * first).min(end)..].as_chunks_mut::<OUT>();
        let whole = tiles.len();
        let [a, b, c, d] = rows;
        for ((((tile, a), b), c), d) in tiles.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *tile = [*a, *b, *c, *d];
        }
        if whole < len {
            for (pixel, row) in rest.iter_mut().zip(rows) {
                *pixel = row[whole];
            }
        }
        return;
    }
    match dilation {
        3 => join_groups::<3, 4>(rows, first, 3, map),
        5 => join_groups::<5, 8>(rows, first, 5, map),
        _ => join_groups::<1, 1>(rows, first, dilation, map),
    }
}

/// [`join`] for a dilation that is known to the compiler if `D` is greater than one. `WIDE` pixels
/// are copied at a time, of which those beyond the dilation are overwritten by the next row.
#[inline(always)]
fn join_groups<const D: usize, const WIDE: usize>(
    rows: [&[f32]; OUT],
    first: usize,
    dilation: usize,
    map: &mut [f32],
) {
    let (len, end) = (rows[0].len(), map.len());
    let mut at = 0;
    while at < len {
        let (group, inside) = ((first + at) / dilation, (first + at) % dilation);
        let count = (dilation - inside).min(len - at);
        // The rows of a group are neighbours only where they are whole.
        let wide = D > 1 && count == D && at + D < len;
        for (pixel, row) in rows.iter().enumerate() {
            let to = (group * OUT + pixel) * dilation + inside;
            let to = &mut map[to.min(end)..];
            match (
                row[at..].first_chunk::<WIDE>(),
                to.first_chunk_mut::<WIDE>(),
            ) {
                (Some(from), Some(to)) if wide => *to = *from,
                _ => {
                    let fits = count.min(to.len());
                    to[..fits].copy_from_slice(&row[at..at + fits]);
                }
            }
        }
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of pixels become the pixels again, from any tile on.
    #[test]
    fn rows_are_joined_again() {
        for dilation in 1..=7 {
            for groups in [1, 2, 5] {
                let tiles = groups * dilation;
                let pixels: Vec<f32> = (0..OUT * tiles).map(|pixel| pixel as f32).collect();
                let mut rows = vec![f32::NAN; OUT * tiles];
                split(&pixels, dilation, &mut rows);
                for (tile, first) in (0..tiles).map(|tile| (tile, tile / dilation * OUT * dilation))
                {
                    let pixel_of = |pixel: usize| first + pixel * dilation + tile % dilation;
                    for pixel in 0..OUT {
                        assert_eq!(rows[pixel * tiles + tile], pixel_of(pixel) as f32);
                    }
                }
                for len in [
                    OUT * tiles,
                    OUT * tiles - 1,
                    OUT * tiles - OUT * dilation + 1,
                ] {
                    let step = [3, 7, 16, tiles][len % 4];
                    let mut map = vec![-1.0; len];
                    for first in (0..tiles).step_by(step) {
                        let end = tiles.min(first + step);
                        let rows = std::array::from_fn(|pixel| &rows[pixel * tiles..][first..end]);
                        join(rows, first, dilation, &mut map);
                    }
                    assert_eq!(map, pixels[..len]);
                }
            }
        }
    }
}
