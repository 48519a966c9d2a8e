//! Formats of video files.

use super::y4m::Y4mConfig;
use crate::{Error, Result};
use std::path::Path;

/// Format of a video file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VideoFormat {
    /// GIF: 256 colours a frame, times in hundredths of a second.
    Gif,
    /// Animated PNG: lossless.
    Apng,
    /// YUV4MPEG2: uncompressed, for players and encoders.
    Y4m(Y4mConfig),
}

impl VideoFormat {
    /// The format by the ending of a file's name: `gif`, `png` or `apng`, `y4m`.
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
            _ => Err(Error::argument(
                "path",
                path.display(),
                "a name that ends in .gif, .png, .apng or .y4m",
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
        for path in ["b.mp4", "b", ""] {
            let error = of(path).unwrap_err().to_string();
            assert!(
                error.contains("`path`") && error.contains(".y4m"),
                "{error}"
            );
        }
    }
}
