//! MP4 files with AV1, the video that browsers and players read without patents to pay for.
//!
//! Pictures are encoded by rav1e with half the colour resolution (4:2:0) in limited range, with the
//! matrix of ITU-R BT.601 and the curve of sRGB; the stream and the file both say so. The encoder
//! takes even sizes only, so an odd side gets its last column or row once more, which the file
//! tells players to crop. A file is its kind, the data, and the tables of frames at the end.

#[cfg(feature = "mp4")]
mod boxes;
#[cfg(feature = "mp4")]
mod units;
#[cfg(feature = "mp4")]
mod writer;

#[cfg(feature = "mp4")]
pub(super) use writer::{Mp4Writer, SIDES};

/// Form of an [`Mp4`](super::VideoFormat::Mp4) file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mp4Config {
    /// How coarse colours may become: 0 is nearly without loss, 255 the smallest file.
    pub quantizer: u8,
    /// How fast frames are encoded: 0, which makes the smallest file of a quality, to 10. Higher
    /// values are as 10.
    pub speed: u8,
}

impl Default for Mp4Config {
    /// A quantizer of 64, where losses are hard to see, and a speed of 8.
    fn default() -> Self {
        Self {
            quantizer: 64,
            speed: 8,
        }
    }
}

#[cfg(all(test, not(feature = "mp4")))]
mod tests {
    use crate::output::{ImageGrid, VideoWriter};

    #[test]
    fn the_missing_feature_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.mp4");
        let created = VideoWriter::create(&path, ImageGrid::new(1, 64), 8.0);
        let error = created.unwrap_err().to_string();
        assert!(error.contains("feature `mp4`"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
