//! Settings of moving digits.

use crate::{
    Result,
    check::{ensure, in_range},
};
use serde::{Deserialize, Serialize};

/// Limit on the values of a clip.
const MAX_VALUES: usize = 1 << 28;

/// Configuration of [`MovingDigits`](super::MovingDigits).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MovingDigitsConfig {
    /// Number of clips of a pass over the data.
    pub len: usize,
    /// Frames of a clip.
    pub num_frames: usize,
    /// Height and width of a frame in pixels.
    pub canvas: usize,
    /// Height and width that the images are resized to; `None` leaves them as they are.
    pub digit_size: Option<usize>,
    /// Digits in a clip.
    pub num_digits: usize,
    /// The slowest and the fastest speed in pixels per frame.
    pub speed: [f32; 2],
    /// Another seed gives other clips.
    pub seed: u64,
}

impl Default for MovingDigitsConfig {
    /// 10,000 clips of 16 frames of 32×32 pixels, one digit, 1 to 2 pixels per frame.
    fn default() -> Self {
        Self {
            len: 10_000,
            num_frames: 16,
            canvas: 32,
            digit_size: None,
            num_digits: 1,
            speed: [1.0, 2.0],
            seed: 0,
        }
    }
}

impl MovingDigitsConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if a number is out of range.
    pub fn validate(&self) -> Result<()> {
        ensure(self.len > 0, "len", self.len, "at least one clip")?;
        in_range("canvas", self.canvas, 2..=4096)?;
        let most = MAX_VALUES / (self.canvas * self.canvas);
        in_range("num_frames", self.num_frames, 1..=most)?;
        in_range("num_digits", self.num_digits, 1..=16)?;
        if let Some(size) = self.digit_size {
            in_range("digit_size", size, 1..=self.canvas - 1)?;
        }
        let [slow, fast] = self.speed;
        ensure(
            slow >= 0.0 && slow <= fast && fast <= self.canvas as f32,
            "speed",
            format!("{slow} to {fast}"),
            &format!(
                "0 to the canvas of {} pixels, the slower one first",
                self.canvas
            ),
        )
    }
}
