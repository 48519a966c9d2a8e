//! Measures of moving pictures.
//!
//! | item | what it measures |
//! |---|---|
//! | [`flicker`], [`compensated_flicker`] | changes from frame to frame, with and without motion |
//! | [`clip_motions`] | the track of an object, its speed, and how constant that is |
//! | [`FrameReadings`] | whether all frames show what was asked, and one thing |
//! | [`frames`], [`frame_differences`] | images whose features Fréchet distances compare |
//! | [`centred_frames`] | what a classifier of centred objects reads |
//!
//! Clips are `[batch, channels, frames, height, width]` in `[0, 1]`. Flicker and motion mean
//! something beside those of real clips. Fréchet distances of frames and of their differences are
//! no FVD (Unterthiner et al. 2018, <https://arxiv.org/abs/1812.01717>), which is defined on the
//! features of one network for actions: numbers are comparable only among the same extractor.

mod flicker;
mod frames;
mod motion;
mod readings;

pub use flicker::{compensated_flicker, flicker};
pub use frames::{centred_frames, frame_differences, frames};
pub use motion::{ClipMotion, clip_motions};
pub use readings::FrameReadings;

use crate::{Error, Result, check::ensure_argument};
use burn::tensor::Tensor;

/// Clips on the host.
struct Clips {
    /// `[batch, channels, frames, height, width]`
    values: Vec<f32>,
    channels: usize,
    frames: usize,
    height: usize,
    width: usize,
}

impl Clips {
    /// The values of clips, which have pixels and at least `fewest` frames.
    fn new(clips: &Tensor<5>, fewest: usize) -> Result<Self> {
        let dims = clips.dims();
        let [batch, channels, frames, height, width] = dims;
        ensure_argument(
            batch * channels * height * width > 0,
            "clips",
            format!("{dims:?}"),
            "at least one clip, channel and pixel",
        )?;
        ensure_argument(
            frames >= fewest,
            "clips",
            format!("{frames} frames"),
            &format!("at least {fewest} frames"),
        )?;
        let values: Vec<f32> = clips.to_data().iter::<f32>().collect();
        match values.iter().find(|value| !value.is_finite()) {
            Some(bad) => Err(Error::argument("clips", bad, "finite values")),
            None => Ok(Self {
                values,
                channels,
                frames,
                height,
                width,
            }),
        }
    }

    /// The values of each clip, `[channels, frames, height, width]`.
    fn each(&self) -> std::slice::ChunksExact<'_, f32> {
        let clip = self.channels * self.frames * self.height * self.width;
        self.values.chunks_exact(clip)
    }

    /// The pixels of a frame of a clip in a channel.
    fn plane<'a>(&self, clip: &'a [f32], channel: usize, frame: usize) -> &'a [f32] {
        let plane = self.height * self.width;
        &clip[(channel * self.frames + frame) * plane..][..plane]
    }

    /// The centre of mass of a frame as column and row, of what is brighter than `floor` in the
    /// mean of the channels; `None` if nothing is.
    fn centre(&self, clip: &[f32], frame: usize, floor: f64) -> Option<[f64; 2]> {
        let planes: Vec<&[f32]> = (0..self.channels)
            .map(|channel| self.plane(clip, channel, frame))
            .collect();
        let (mut mass, mut sums) = (0.0, [0.0; 2]);
        for y in 0..self.height {
            for x in 0..self.width {
                let at = y * self.width + x;
                let sum: f64 = planes.iter().map(|plane| f64::from(plane[at])).sum();
                let weight = (sum / self.channels as f64 - floor).max(0.0);
                mass += weight;
                sums[0] += weight * x as f64;
                sums[1] += weight * y as f64;
            }
        }
        (mass > 0.0).then(|| sums.map(|sum| sum / mass))
    }
}
