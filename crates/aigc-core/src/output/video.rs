//! Videos, written frame by frame.

#[cfg(feature = "mp4")]
use super::mp4::{Mp4Writer, SIDES};
use super::{
    ImageGrid,
    apng::ApngWriter,
    provenance::{Provenance, embed},
    video_format::VideoFormat,
    y4m::{Y4mWriter, frame_rate},
};
use crate::{Error, Result, check::ensure_argument, fs::write_atomic_with};
use burn::tensor::Tensor;
use image::{
    Delay, DynamicImage, Frame,
    codecs::gif::{GifEncoder, Repeat},
};
use std::{
    fs::{self, File},
    io::{BufWriter, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

type Out = BufWriter<File>;

/// Most frames per second of a GIF file. At a higher rate, some frames would last no time, which
/// viewers show for a tenth of a second.
const MAX_GIF_RATE: f64 = 100.0;

enum Encoder {
    Gif(Box<GifEncoder<Out>>),
    Apng(ApngWriter<Out>),
    Y4m(Y4mWriter<Out>),
    #[cfg(feature = "mp4")]
    Mp4(Box<Mp4Writer<Out>>),
}

/// Writes a video one frame at a time: memory holds one frame, or those that MP4's encoder looks
/// ahead at, however long the video is. The file appears under its name when it is
/// [finished](Self::finish); without that, nothing is left.
///
/// ```no_run
/// use aigc_core::output::{ImageGrid, VideoWriter};
/// use burn::tensor::{Device, Tensor};
/// use std::path::Path;
///
/// # fn main() -> aigc_core::Result<()> {
/// let mut video = VideoWriter::create(Path::new("clip.y4m"), ImageGrid::new(1, 64), 8.0)?;
/// for step in 0..16 {
///     let frame = Tensor::<4>::full([1, 3, 64, 64], step as f32 / 16.0, &Device::flex());
///     video.push(&frame)?;
/// }
/// video.finish()?;
/// # Ok(()) }
/// ```
pub struct VideoWriter {
    grid: ImageGrid,
    format: VideoFormat,
    fps: f64,
    rate: (u32, u32),
    provenance: Option<Provenance>,
    path: PathBuf,
    temporary: PathBuf,
    /// The file until the first frame.
    file: Option<File>,
    encoder: Option<Encoder>,
    size: (u32, u32),
    channels: usize,
    frames: usize,
}

impl std::fmt::Debug for VideoWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VideoWriter")
            .field("path", &self.path)
            .field("format", &self.format)
            .field("fps", &self.fps)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl VideoWriter {
    /// Begins a video of `fps` frames per second, in the format that the path's ending names. Every
    /// frame is a grid of images.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another ending, or if `fps` is not from 0.001 to 1,000, or
    /// above 100 for a GIF file; [`Error::Unsupported`] for MP4 without the feature `mp4`;
    /// [`Error::Io`] if the file cannot be created.
    pub fn create(path: &Path, grid: ImageGrid, fps: f64) -> Result<Self> {
        Self::create_as(VideoFormat::from_path(path)?, path, grid, fps)
    }

    /// [`create`](Self::create) in a format, whatever the path's ending is.
    ///
    /// # Errors
    /// As [`create`](Self::create), but for the ending.
    pub fn create_as(format: VideoFormat, path: &Path, grid: ImageGrid, fps: f64) -> Result<Self> {
        let rate = frame_rate(fps)?;
        ensure_argument(
            format != VideoFormat::Gif || fps <= MAX_GIF_RATE,
            "fps",
            fps,
            "at most 100 frames per second in a GIF file, whose times are hundredths of a second",
        )?;
        #[cfg(not(feature = "mp4"))]
        if let VideoFormat::Mp4(_) = format {
            return Err(without_mp4());
        }
        let temporary = temporary_name(path);
        if let Some(dir) = temporary.parent() {
            fs::create_dir_all(dir).map_err(Error::io(dir))?;
        }
        let file = File::create(&temporary).map_err(Error::io(&temporary))?;
        Ok(Self {
            grid,
            format,
            fps,
            rate,
            provenance: None,
            path: path.into(),
            temporary,
            file: Some(file),
            encoder: None,
            size: (0, 0),
            channels: 0,
            frames: 0,
        })
    }

    /// Puts a record of how the video was made into the file. At the end, the encoded file is read
    /// into memory for it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for YUV4MPEG2, which has no place for it, and for MP4.
    pub fn with_provenance(self, provenance: Provenance) -> Result<Self> {
        let without_record = match self.format {
            VideoFormat::Gif | VideoFormat::Apng => None,
            VideoFormat::Y4m(_) => Some("a Y4M file"),
            VideoFormat::Mp4(_) => Some("an MP4 file"),
        };
        if let Some(file) = without_record {
            return Err(Error::unsupported(
                format!("a provenance record in {file}"),
                "VideoWriter",
                "write a GIF or an animated PNG",
            ));
        }
        let mut writer = self;
        writer.provenance = Some(provenance);
        Ok(writer)
    }

    /// Number of frames so far.
    pub fn num_frames(&self) -> usize {
        self.frames
    }

    /// Adds a frame.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`, channels 1 (grey) or 3 (RGB); the same for
    ///   every frame
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the images cannot be drawn, differ in size or channels from
    /// the first frame, or are too large for the format; [`Error::Io`] if the file cannot be
    /// written. The video cannot be continued after that.
    pub fn push(&mut self, images: &Tensor<4>) -> Result<()> {
        let frame = self.grid.draw(images)?;
        let channels = images.dims()[1];
        if self.frames > 0 {
            let of = |(width, height): (u32, u32), channels: usize| {
                format!("{channels}×{height}×{width}")
            };
            ensure_argument(
                frame.dimensions() == self.size && channels == self.channels,
                &format!("frames[{}]", self.frames),
                of(frame.dimensions(), channels),
                &format!("{}, like the first frame", of(self.size, self.channels)),
            )?;
        }
        if self.encoder.is_none() {
            (self.size, self.channels) = (frame.dimensions(), channels);
            self.begin()?;
        }
        let delay = self.hundredths(self.frames + 1) - self.hundredths(self.frames);
        let Some(encoder) = &mut self.encoder else {
            return Err(ended());
        };
        let written = match encoder {
            Encoder::Apng(writer) => writer.push(&frame),
            Encoder::Y4m(writer) => writer.push(&frame),
            #[cfg(feature = "mp4")]
            Encoder::Mp4(writer) => writer.push(&frame),
            Encoder::Gif(encoder) => {
                let delay = Delay::from_numer_denom_ms(10 * delay, 1);
                let rgba = DynamicImage::from(frame).into_rgba8();
                let frame = Frame::from_parts(rgba, 0, 0, delay);
                encoder.encode_frame(frame).map_err(std::io::Error::other)
            }
        };
        written.map_err(Error::io(&self.path))?;
        self.frames += 1;
        Ok(())
    }

    /// Adds all frames of clips, or of a part of them; each frame shows all clips.
    ///
    /// # Shapes
    /// - clips: `[batch, channels, frames, height, width]`
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_clips(&mut self, clips: &Tensor<5>) -> Result<()> {
        for index in 0..clips.dims()[2] {
            let frame = clips.clone().narrow(2, index, 1).squeeze_dim::<4>(2);
            self.push(&frame)?;
        }
        Ok(())
    }

    /// Ends the video; the file appears under its name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no frames, [`Error::Io`] if the file cannot be
    /// written; errors of [`embed`].
    pub fn finish(mut self) -> Result<()> {
        ensure_argument(self.frames > 0, "frames", 0, "at least 1")?;
        let path = self.path.clone();
        let written = match self.encoder.take().ok_or_else(ended)? {
            Encoder::Apng(writer) => writer.finish().map(drop),
            Encoder::Y4m(writer) => writer.finish().map(drop),
            #[cfg(feature = "mp4")]
            Encoder::Mp4(writer) => writer.finish().map(drop),
            Encoder::Gif(encoder) => {
                // Its end is written when it is dropped, where an error is lost.
                drop(encoder);
                check_trailer(&self.temporary)
            }
        };
        written.map_err(Error::io(&path))?;
        if let Some(provenance) = &self.provenance {
            let bytes = fs::read(&self.temporary).map_err(Error::io(&self.temporary))?;
            let bytes = embed(&bytes, provenance)?;
            fs::write(&self.temporary, bytes).map_err(Error::io(&self.temporary))?;
        }
        write_atomic_with(&path, |target| {
            fs::rename(&self.temporary, target).map_err(Error::io(target))
        })
    }

    fn begin(&mut self) -> Result<()> {
        let (width, height) = self.size;
        if self.format == VideoFormat::Gif {
            ensure_argument(
                width.max(height) <= u32::from(u16::MAX),
                "frames",
                format!("{width}×{height}"),
                "at most 65535 pixels wide and high, as in GIF files: a smaller scale or grid",
            )?;
        }
        #[cfg(feature = "mp4")]
        if let VideoFormat::Mp4(_) = self.format {
            ensure_argument(
                SIDES.contains(&width) && SIDES.contains(&height),
                "frames",
                format!("{width}×{height}"),
                "16 to 16384 pixels wide and high, as in MP4 files: another scale or grid",
            )?;
        }
        let out = BufWriter::new(self.file.take().ok_or_else(ended)?);
        let failed = Error::io(&self.path);
        self.encoder = Some(match self.format {
            VideoFormat::Gif => {
                let mut encoder = Box::new(GifEncoder::new(out));
                encoder.set_repeat(Repeat::Infinite).map_err(Error::other)?;
                Encoder::Gif(encoder)
            }
            VideoFormat::Apng => Encoder::Apng(ApngWriter::new(out, self.channels == 1, self.rate)),
            VideoFormat::Y4m(config) => {
                let writer = Y4mWriter::new(out, config, self.size, self.rate).map_err(failed)?;
                Encoder::Y4m(writer)
            }
            #[cfg(feature = "mp4")]
            VideoFormat::Mp4(config) => {
                let writer = Mp4Writer::new(out, config, self.size, self.rate).map_err(failed)?;
                Encoder::Mp4(Box::new(writer))
            }
            #[cfg(not(feature = "mp4"))]
            VideoFormat::Mp4(_) => return Err(without_mp4()),
        });
        Ok(())
    }

    /// When a frame begins, in hundredths of a second. Their differences do not add up to drift.
    fn hundredths(&self, frame: usize) -> u32 {
        (100.0 * frame as f64 / self.fps).round() as u32
    }
}

impl Drop for VideoWriter {
    fn drop(&mut self) {
        // Open files cannot be removed everywhere.
        self.encoder = None;
        self.file = None;
        let _ = fs::remove_file(&self.temporary); // after `finish`, there is none
    }
}

fn ended() -> Error {
    Error::argument("video", "one that failed before", "a video without errors")
}

#[cfg(not(feature = "mp4"))]
fn without_mp4() -> Error {
    Error::unsupported(
        "an MP4 file",
        "VideoWriter",
        "build with the feature `mp4`, or write a .y4m file, which encoders read",
    )
}

/// A name beside `path` that no other writer has.
fn temporary_name(path: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    path.with_file_name(format!(".{name}.{process}.{count}.video.tmp"))
}

/// Fails unless a GIF file ends as such files do.
fn check_trailer(path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    match last {
        [0x3b] => Ok(()),
        _ => Err(std::io::Error::other("the end could not be written")),
    }
}

/// Writes clips as a video of `fps` frames per second, in the format that the path's ending names.
/// Every frame shows all clips as a grid.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`, channels 1 (grey) or 3 (RGB)
///
/// # Errors
/// As for [`VideoWriter::create`], [`push`](VideoWriter::push) and
/// [`finish`](VideoWriter::finish).
pub fn save_video(clips: &Tensor<5>, grid: ImageGrid, fps: f64, path: &Path) -> Result<()> {
    let mut video = VideoWriter::create(path, grid, fps)?;
    video.push_clips(clips)?;
    video.finish()
}

/// [`save_video`] with a record of how the clips were made.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`, channels 1 (grey) or 3 (RGB)
///
/// # Errors
/// As for [`save_video`] and [`VideoWriter::with_provenance`].
pub fn save_video_with_provenance(
    clips: &Tensor<5>,
    grid: ImageGrid,
    fps: f64,
    provenance: &Provenance,
    path: &Path,
) -> Result<()> {
    let mut video = VideoWriter::create(path, grid, fps)?.with_provenance(provenance.clone())?;
    video.push_clips(clips)?;
    video.finish()
}
