//! Transposes maps, which are channel by channel, to rows of all channels of a pixel.

/// Transposes maps `[channels, rows, width]` to `[rows, row_len, columns]`: channels are padded
/// with zeros to `columns`, and rows to `row_len`.
pub(super) struct Transpose<'a> {
    pub from: &'a [f32],
    pub rows: usize,
    pub width: usize,
    pub to: &'a mut [f32],
    pub row_len: usize,
    pub columns: usize,
}

impl pulp::NullaryFnOnce for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            from,
            rows,
            width,
            to,
            row_len,
            columns,
        } = self;
        const BLOCK: usize = 16;
        let map_len = rows * width;
        let channels = from.len() / map_len;
        for row in 0..rows {
            let row_to = &mut to[row * row_len * columns..(row + 1) * row_len * columns];
            let (pixels, padding) = row_to.split_at_mut(width * columns);
            padding.fill(0.0);
            for first in (0..columns).step_by(BLOCK) {
                let sources: [&[f32]; BLOCK] = std::array::from_fn(|channel| {
                    // Beyond the last channel any source will do: zeros are written below.
                    &from[(first + channel).min(channels - 1) * map_len + row * width..][..width]
                });
                let wide = BLOCK.min(columns - first);
                for (pixel, to) in pixels.chunks_exact_mut(columns).enumerate() {
                    for (to, source) in to[first..first + wide].iter_mut().zip(&sources) {
                        *to = source[pixel];
                    }
                    if first + wide > channels {
                        to[channels.max(first)..first + wide].fill(0.0);
                    }
                }
            }
        }
    }
}
