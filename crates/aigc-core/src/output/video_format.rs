//! Formats of video files.

use super::{mp4::Mp4Config, y4m::Y4mConfig};
use crate::{Error, Result};
use std::path::Path;

/// Format of a video file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VideoFormat {
    /// GIF: 256 colours a frame, times in hundredths of a second, at most 100 frames per second.
    /// Many viewers show more than 50 frames per second too slowly.
    Gif,
    /// Animated PNG: lossless.
    Apng,
    /// YUV4MPEG2: uncompressed, for players and encoders.
    Y4m(Y4mConfig),
    /// MP4 with AV1, for browsers and players: frames with sides of 16 to 16,384 pixels. With the
    /// feature `mp4` only.
    Mp4(Mp4Config),
}

impl VideoFormat {
    /// The format by the ending of a file's name: `gif`, `png` or `apng`, `y4m`, `mp4`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another ending.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        match ending.to_lowercase().as_str() {
            "gif" => Ok(Self::Gif),
            "png" | "apng" => Ok(Self::Apng),
            "y4m" => Ok(Self::Y4m(Y4mConfig::default())),
            "mp4" => Ok(Self::Mp4(Mp4Config::default())),
            _ => Err(Error::argument(
                "path",
                path.display(),
                "a name that ends in .gif, .png, .apng, .y4m or .mp4",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_follow_from_endings() {
        let of = |path: &str| VideoFormat::from_path(path);
        assert_eq!(of("a/b.GIF").unwrap(), VideoFormat::Gif);
        assert_eq!(of("b.apng").unwrap(), VideoFormat::Apng);
        assert_eq!(of("b.y4m").unwrap(), VideoFormat::Y4m(Y4mConfig::default()));
        assert_eq!(of("b.mp4").unwrap(), VideoFormat::Mp4(Mp4Config::default()));
        for path in ["b.webm", "b", ""] {
            let error = of(path).unwrap_err().to_string();
            assert!(
                error.contains("`path`") && error.contains(".mp4"),
                "{error}"
            );
        }
    }
}
