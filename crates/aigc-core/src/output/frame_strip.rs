//! The frames of clips side by side.

use super::{ImageGrid, save_image};
use crate::{Result, check::ensure_argument};
use burn::tensor::Tensor;
use std::path::Path;

/// `num_frames` frames of each clip, at equal distances from the first to the last, as the images
/// of a grid with this number of columns: one row per clip. Fewer frames are shown if the clips
/// have no more; one is the first.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`
/// - output: `[batch·num_frames, channels, height, width]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is nothing to show.
pub fn frame_strip(clips: &Tensor<5>, num_frames: usize) -> Result<Tensor<4>> {
    let [batch, channels, frames, height, width] = clips.dims();
    ensure_argument(num_frames > 0, "num_frames", num_frames, "at least 1")?;
    ensure_argument(
        batch > 0 && frames > 0,
        "clips",
        format!("{batch} of {frames} frames"),
        "at least one clip and frame",
    )?;
    let shown = num_frames.min(frames);
    let parts = (0..shown).map(|index| {
        let at = (index * (frames - 1) + (shown - 1) / 2) / (shown - 1).max(1);
        clips.clone().narrow(2, at, 1)
    });
    let strip = Tensor::cat(parts.collect(), 2).swap_dims(1, 2);
    Ok(strip.reshape([batch * shown, channels, height, width]))
}

/// Writes [`frame_strip`] of as many frames as the grid has columns as one PNG.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`, channels 1 (grey) or 3 (RGB)
///
/// # Errors
/// As [`frame_strip`] and [`save_image`].
pub fn save_frame_strip(clips: &Tensor<5>, grid: ImageGrid, path: &Path) -> Result<()> {
    let columns = grid.columns.min(clips.dims()[2]);
    save_image(
        &frame_strip(clips, grid.columns)?,
        ImageGrid { columns, ..grid },
        path,
    )
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::testing::values;
    use burn::tensor::Device;

    #[test]
    fn frames_are_at_equal_distances() {
        let device = Device::flex();
        let frames: Vec<f32> = (0..10).map(|value| value as f32).collect();
        let clips = Tensor::<1>::from_floats(frames.as_slice(), &device);
        let clips = clips.reshape([2, 1, 5, 1, 1]);
        let shown = |count| values(frame_strip(&clips, count).unwrap());
        assert_eq!(shown(3), [0.0, 2.0, 4.0, 5.0, 7.0, 9.0]);
        assert_eq!(shown(1), [0.0, 5.0]);
        assert_eq!(shown(9), frames);
        assert!(frame_strip(&clips, 0).is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("strip.png");
        let grid = ImageGrid {
            padding: 0,
            scale: 3,
            ..ImageGrid::new(8, 1).with_value_range(0.0, 9.0)
        };
        save_frame_strip(&clips, grid, &path).unwrap();
        let picture = image::open(&path).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (15, 6));
        assert_eq!(picture.get_pixel(14, 4).0, [255; 3]);
    }
}
