//! Encoding and decoding of large images in tiles.
//!
//! The memory of a convolutional autoencoder grows with the area of its images. In tiles, it is
//! that of one tile and of the result. Neighbouring tiles overlap and are blended linearly, since a
//! tile does not see what is around it.

use aigc_core::{CancelToken, Error, Result, check::ensure_argument, ops};
use burn::tensor::{Tensor, TensorData};

/// Tiles of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TileConfig {
    /// Side of a tile in pixels; rounded down to a multiple of the pixels that a latent stands for.
    /// Images that are not larger are not divided.
    pub size: usize,
    /// Part of a tile that the next one repeats, from 0 to 0.5.
    pub overlap: f64,
}

impl TileConfig {
    /// Tiles of `size` pixels in height and width, of which a quarter overlaps.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            overlap: 0.25,
        }
    }

    /// Sets the part of a tile that the next one repeats.
    pub fn with_overlap(self, overlap: f64) -> Self {
        Self { overlap, ..self }
    }

    /// Applies `f`, the encoder, to the tiles of images.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, …, height / factor, width / factor]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for tiles out of range; [`Error::Cancelled`] if `cancel` was
    /// cancelled before the last tile.
    pub(crate) fn encode(
        &self,
        images: Tensor<4>,
        factor: usize,
        cancel: &CancelToken,
        f: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Result<Tensor<4>> {
        self.grid(factor, [factor, 1], "encoding in tiles")?
            .apply(images, cancel, f)
    }

    /// Applies `f`, the decoder, to the tiles of latents.
    ///
    /// # Shapes
    /// - z: `[batch, channels, height, width]`
    /// - output: `[batch, …, factor·height, factor·width]`
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub(crate) fn decode(
        &self,
        z: Tensor<4>,
        factor: usize,
        cancel: &CancelToken,
        f: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Result<Tensor<4>> {
        self.grid(factor, [1, factor], "decoding in tiles")?
            .apply(z, cancel, f)
    }

    fn grid(&self, factor: usize, units: [usize; 2], operation: &'static str) -> Result<Grid> {
        let expected = format!("at least {factor}, the pixels of a latent");
        ensure_argument(self.size >= factor, "tiles.size", self.size, &expected)?;
        let in_range = (0.0..=0.5).contains(&self.overlap);
        ensure_argument(in_range, "tiles.overlap", self.overlap, "0 to 0.5")?;
        let size = self.size / factor;
        let overlap = (size as f64 * self.overlap) as usize;
        Ok(Grid {
            size,
            overlap,
            stride: size - overlap,
            units,
            operation,
        })
    }
}

/// Tiles in latents.
struct Grid {
    size: usize,
    overlap: usize,
    stride: usize,
    /// Pixels of the input and of the output that a latent stands for.
    units: [usize; 2],
    operation: &'static str,
}

impl Grid {
    /// Where tiles begin along an axis of `total` latents. The last one reaches the end.
    fn starts(&self, total: usize) -> Vec<usize> {
        let more = total.saturating_sub(self.size).div_ceil(self.stride);
        (0..=more).map(|i| i * self.stride).collect()
    }

    fn apply(
        &self,
        x: Tensor<4>,
        cancel: &CancelToken,
        f: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Result<Tensor<4>> {
        let f = |tile| match cancel.is_cancelled() {
            true => Err(Error::cancelled(self.operation)),
            false => Ok(f(tile)),
        };
        let [batch, _, height, width] = x.dims();
        let [rows, columns] = [height, width].map(|side| self.starts(side / self.units[0]));
        if rows.len() == 1 && columns.len() == 1 {
            return f(x);
        }
        // One image at a time, so that the memory does not grow with the batch.
        let images = (0..batch).map(|i| self.image(x.clone().narrow(0, i, 1), &rows, &columns, f));
        Ok(Tensor::cat(images.collect::<Result<_>>()?, 0))
    }

    fn image(
        &self,
        x: Tensor<4>,
        rows: &[usize],
        columns: &[usize],
        f: impl Fn(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let mut bands = Vec::with_capacity(rows.len());
        // What the tiles of the row above say of this row.
        let mut above: Vec<Option<Tensor<4>>> = vec![None; columns.len()];
        for row in rows {
            let mut band = Vec::with_capacity(columns.len());
            let mut left = None;
            for (column, above) in columns.iter().zip(&mut above) {
                let input = self.input(self.input(x.clone(), 2, *row), 3, *column);
                let tile = blend(above.take(), f(input)?, 2);
                let tile = blend(left.take(), tile, 3);
                let ends = [Some(row) == rows.last(), Some(column) == columns.last()];
                *above = self.repeated(&tile, 2, ends[0]);
                left = self.repeated(&tile, 3, ends[1]);
                band.push(self.kept(self.kept(tile, 2, ends[0]), 3, ends[1]));
            }
            bands.push(Tensor::cat(band, 3));
        }
        Ok(Tensor::cat(bands, 2))
    }

    /// The part of the input along `axis` of the tile that begins at `start`.
    fn input(&self, x: Tensor<4>, axis: usize, start: usize) -> Tensor<4> {
        let unit = self.units[0];
        let left = x.dims()[axis] - start * unit;
        // The last tile also has what is less than a latent.
        let length = if left / unit > self.size {
            self.size * unit
        } else {
            left
        };
        x.narrow(axis, start * unit, length)
    }

    /// The part of a tile that the next one along `axis` repeats.
    fn repeated(&self, tile: &Tensor<4>, axis: usize, is_last: bool) -> Option<Tensor<4>> {
        let [start, length] = [self.stride, self.overlap].map(|n| n * self.units[1]);
        (!is_last && length > 0).then(|| tile.clone().narrow(axis, start, length))
    }

    /// The part of a tile before the next one along `axis`.
    fn kept(&self, tile: Tensor<4>, axis: usize, is_last: bool) -> Tensor<4> {
        match is_last {
            true => tile,
            false => tile.narrow(axis, 0, self.stride * self.units[1]),
        }
    }
}

/// Passes linearly from `before` to the beginning of `tile`, along `axis`.
fn blend(before: Option<Tensor<4>>, tile: Tensor<4>, axis: usize) -> Tensor<4> {
    let Some(before) = before else {
        return tile;
    };
    let extent = before.dims()[axis];
    let mut shape = [1; 4];
    shape[axis] = extent;
    let weights: Vec<f32> = (0..extent).map(|i| i as f32 / extent as f32).collect();
    let weight = Tensor::<4>::from_data(TensorData::new(weights, shape), &tile.device());
    let weight = ops::cast(weight, tile.dtype());
    let rest = tile.dims()[axis] - extent;
    let head = tile.clone().narrow(axis, 0, extent);
    let mixed = before.clone() + (head - before) * weight;
    Tensor::cat(vec![mixed, tile.narrow(axis, extent, rest)], axis)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::AutoencoderKlConfig;
    use aigc_core::{
        data::ImageShape,
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };
    use burn::tensor::Device;
    use std::cell::Cell;

    fn noise(shape: [usize; 4]) -> Tensor<4> {
        Rng::new(1).normal(shape, &Device::flex())
    }

    /// A decoder without a neighbourhood gives the same in tiles of any size, and so does an
    /// encoder; rows and columns that are less than a latent are seen by the last tiles.
    #[test]
    fn pointwise_functions_are_the_same_in_tiles() {
        let cancel = CancelToken::new();
        for (height, width) in [(5, 5), (8, 17), (13, 4), (20, 9)] {
            let z = noise([2, 3, height, width]);
            let decode = |z| ops::upsample_nearest2d(z, 2);
            for (size, overlap) in [(8, 0.25), (9, 0.5), (6, 0.0), (2, 0.25), (64, 0.25)] {
                let tiles = TileConfig { size, overlap };
                let whole = decode(z.clone());
                let found = tiles.decode(z.clone(), 2, &cancel, decode).unwrap();
                assert_eq!(found.dims(), whole.dims());
                assert_close(&values(found), &values(whole.clone()), 1e-6);
                // An image with a column more than its latents.
                let image = Tensor::cat(vec![whole.clone(), whole.narrow(3, 0, 1)], 3);
                let encode = |x: Tensor<4>| {
                    let [batch, channels, height, width] = x.dims();
                    let x = x.narrow(3, 0, width / 2 * 2);
                    x.reshape([batch, channels, height / 2, 2, width / 2, 2])
                        .mean_dim(5)
                        .mean_dim(3)
                        .reshape([batch, channels, height / 2, width / 2])
                };
                let found = tiles.encode(image, 2, &cancel, encode).unwrap();
                assert_close(&values(found), &values(z.clone()), 1e-6);
            }
        }
    }

    /// Tiles of one value each: the value passes linearly over the overlap.
    #[test]
    fn overlaps_are_blended_linearly() {
        let count = Cell::new(0);
        let number = |z: Tensor<4>| {
            count.set(count.get() + 1);
            z.zeros_like() + count.get() as f32
        };
        let tiles = TileConfig::new(8).with_overlap(0.5);
        let z = noise([1, 1, 1, 16]);
        let found = tiles.decode(z, 1, &CancelToken::new(), number).unwrap();
        let expected = [
            1.0, 1.0, 1.0, 1.0, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.0, 3.0, 3.0,
        ];
        assert_close(&values(found), &expected, 1e-6);
    }

    /// Mean absolute differences of neighbouring rows (axis 2) or columns (axis 3).
    fn steps(x: &Tensor<4>, axis: usize) -> Vec<f32> {
        let count = x.dims()[axis] - 1;
        let step = x.clone().narrow(axis, 1, count) - x.clone().narrow(axis, 0, count);
        values(step.abs().mean_dim(0).mean_dim(1).mean_dim(5 - axis))
    }

    /// Norms have other statistics in tiles than in the whole image, and tiles end in zeros. What
    /// that changes passes from tile to tile as smoothly as within a tile; it jumps if tiles do not
    /// overlap.
    #[test]
    fn images_of_an_autoencoder_have_no_seams() {
        let config = AutoencoderKlConfig {
            block_out_channels: vec![8, 8],
            norm_num_groups: 4,
            latent_channels: 2,
            mid_block_add_attention: false,
            ..AutoencoderKlConfig::new(ImageShape::new(3, 8, 8))
        };
        let model = config.init(&Device::flex()).unwrap().init_weights(1);
        let (z, cancel) = (noise([2, 2, 24, 24]), CancelToken::new());
        let decode = |tiles: TileConfig| model.decode_tiled(z.clone(), &tiles, &cancel).unwrap();
        let whole = decode(TileConfig::new(48));
        let changes = |overlap| decode(TileConfig::new(32).with_overlap(overlap)) - whole.clone();
        let (blended, cut) = (changes(0.5), changes(0.0));
        for axis in [2, 3] {
            let (blended, cut) = (steps(&blended, axis), steps(&cut, axis));
            // Tiles that do not overlap meet between pixels 31 and 32.
            let (worst, jump) = (blended.iter().copied().fold(0.0, f32::max), cut[31]);
            assert!(2.0 * worst < jump, "axis {axis}: {worst}, cut {jump}");
            // The overlap begins at pixel 16 and ends before 32.
            for seam in [16, 32] {
                let around = [&blended[seam - 7..seam - 1], &blended[seam..seam + 6]].concat();
                let mean = around.iter().sum::<f32>() / around.len() as f32;
                let found = blended[seam - 1];
                assert!(
                    found < 2.0 * mean,
                    "axis {axis}, at {seam}: {found}, around it {mean}"
                );
            }
        }
    }

    #[test]
    fn one_tile_is_the_whole() {
        let count = Cell::new(0);
        let f = |z: Tensor<4>| {
            count.set(count.get() + 1);
            z * 0.3
        };
        let z = noise([2, 1, 8, 8]);
        let tiles = TileConfig::new(64);
        let found = tiles.decode(z.clone(), 8, &CancelToken::new(), f).unwrap();
        assert_eq!((values(found), count.get()), (values(z * 0.3), 1));
    }

    #[test]
    fn cancelling_stops_between_tiles() {
        let (cancel, count) = (CancelToken::new(), Cell::new(0));
        let f = |z: Tensor<4>| {
            count.set(count.get() + 1);
            if count.get() == 3 {
                cancel.cancel();
            }
            z
        };
        let error = TileConfig::new(4).decode(noise([1, 1, 9, 9]), 1, &cancel, f);
        let message = error.unwrap_err().to_string();
        assert_eq!(
            (message.as_str(), count.get()),
            ("cancelled: decoding in tiles", 3)
        );
    }

    #[test]
    fn tiles_out_of_range_are_refused() {
        for (tiles, expected) in [
            (TileConfig::new(7), "`tiles.size` is 7, expected at least 8"),
            (
                TileConfig::new(64).with_overlap(0.6),
                "`tiles.overlap` is 0.6, expected 0 to 0.5",
            ),
            (
                TileConfig::new(64).with_overlap(f64::NAN),
                "`tiles.overlap` is NaN",
            ),
        ] {
            let error = tiles.decode(noise([1, 1, 2, 2]), 8, &CancelToken::new(), |z| z);
            let message = error.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
