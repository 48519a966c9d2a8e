//! Clips as files: GIF, APNG, Y4M and, with the feature `mp4`, MP4, and a strip of frames as PNG,
//! with a record of how they were made.

use aigc_core::{
    Error, Result,
    burn::tensor::Tensor,
    output::{
        ImageGrid, VideoWriter, frame_strip, provenance::Provenance, save_image_with_provenance,
        save_video_with_provenance,
    },
    sampling::Samples,
    weights::hash_files,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Frames of a strip.
const STRIP: usize = 8;
/// Endings of the files of a video.
const ENDINGS: &[&str] = if cfg!(feature = "mp4") {
    &["gif", "apng", "y4m", "mp4"]
} else {
    &["gif", "apng", "y4m"]
};

/// Hash of the weights in a directory and in the directories of its parts.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read.
pub fn hash_weights(dir: &Path) -> Result<String> {
    let mut files = entries(dir)?;
    let parts: Vec<PathBuf> = files.iter().filter(|at| at.is_dir()).cloned().collect();
    for part in parts {
        files.extend(entries(&part)?);
    }
    files.sort();
    let of_kind = |kind: &str| -> Vec<&Path> {
        let files = files.iter().map(PathBuf::as_path);
        files
            .filter(|at| at.extension().is_some_and(|found| found == kind))
            .collect()
    };
    let safetensors = of_kind("safetensors");
    hash_files(match safetensors.is_empty() {
        true => of_kind("bin"),
        false => safetensors,
    })
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: std::io::Result<Vec<PathBuf>> = paths.collect();
    paths.map_err(Error::io(dir))
}

/// Writes clips of a model, several in each frame.
#[derive(Clone, Debug)]
pub struct Gallery {
    grid: ImageGrid,
    fps: f64,
    record: Provenance,
}

impl Gallery {
    /// Clips of the model `name`, whose frames have sides of `side` pixels, at `fps` frames a
    /// second.
    pub fn new(name: &str, side: usize, fps: f64) -> Self {
        let grid = ImageGrid::new(5, side);
        let grid = match side {
            0..32 => grid.with_interpolation(),
            _ => grid,
        };
        Self {
            grid,
            fps,
            record: Provenance::new(name)
                .with_setting("family", "video diffusion")
                .with_setting("fps", fps),
        }
    }

    /// Records a setting.
    pub fn with_setting(self, name: &str, value: impl Into<Value>) -> Self {
        Self {
            record: self.record.with_setting(name, value),
            ..self
        }
    }

    /// Records the hash of weights.
    pub fn with_model_hash(self, hash: String) -> Self {
        Self {
            record: self.record.with_model_hash(hash),
            ..self
        }
    }

    /// The record of samples: their seed and their classes.
    fn record(&self, samples: &Samples<5>) -> Provenance {
        let record = self.record.clone().with_seed(samples.seed);
        match samples.labels.as_deref() {
            Some([first, rest @ ..]) if rest.iter().all(|class| class == first) => {
                record.with_class(*first as usize)
            }
            Some(classes) => record.with_setting("classes", classes.to_vec()),
            None => record,
        }
    }

    /// Writes clips side by side as GIF.
    ///
    /// # Errors
    /// Errors of the files.
    pub fn save_gif(&self, samples: &Samples<5>, path: &Path) -> Result<()> {
        let record = self.record(samples);
        save_video_with_provenance(&samples.values, self.grid, self.fps, &record, path)
    }

    /// Writes clips side by side as `stem.gif`, `stem.apng`, `stem.y4m` and, with the feature
    /// `mp4`, `stem.mp4`, and eight frames of each as a row of `stem-strip.png`. YUV4MPEG2 and MP4
    /// have no record.
    ///
    /// # Errors
    /// Errors of the files.
    pub fn save(&self, samples: &Samples<5>, dir: &Path, stem: &str) -> Result<()> {
        let frames = samples.values.dims()[2];
        let record = self.record(samples);
        let mut writer = ClipWriter::create(dir, stem, self.grid, self.fps, &record, frames)?;
        for index in 0..frames {
            let frame = samples.values.clone().narrow(2, index, 1);
            writer.push(&frame.squeeze_dim::<4>(2))?;
        }
        writer.finish()
    }
}

/// Writes a video in all formats at once, frame by frame, and a strip of some frames. Nothing but
/// these is kept in memory.
#[derive(Debug)]
pub struct ClipWriter {
    videos: Vec<VideoWriter>,
    /// Frames of the strip that are still to come, by number, in order.
    wanted: Vec<usize>,
    kept: Vec<Tensor<4>>,
    grid: ImageGrid,
    record: Provenance,
    strip: PathBuf,
    frames: usize,
}

impl ClipWriter {
    /// Begins `dir/stem.gif`, `dir/stem.apng`, `dir/stem.y4m` and, with the feature `mp4`,
    /// `dir/stem.mp4` of `frames` frames, each a grid of images.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for frames a second that are out of range; [`Error::Io`] if a
    /// file cannot be created.
    pub fn create(
        dir: &Path,
        stem: &str,
        grid: ImageGrid,
        fps: f64,
        record: &Provenance,
        frames: usize,
    ) -> Result<Self> {
        let begin = |ending: &&str| {
            let path = dir.join(format!("{stem}.{ending}"));
            let video = VideoWriter::create(&path, grid, fps)?;
            match *ending {
                "y4m" | "mp4" => Ok(video),
                _ => video.with_provenance(record.clone()),
            }
        };
        let shown = STRIP.min(frames);
        let last = frames.saturating_sub(1);
        let wanted = (0..shown).map(|index| index * last / (shown - 1).max(1));
        Ok(Self {
            videos: ENDINGS.iter().map(begin).collect::<Result<_>>()?,
            wanted: wanted.collect(),
            kept: vec![],
            grid,
            record: record.clone(),
            strip: dir.join(format!("{stem}-strip.png")),
            frames: 0,
        })
    }

    /// Adds a frame.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// Errors of the files.
    pub fn push(&mut self, images: &Tensor<4>) -> Result<()> {
        for video in &mut self.videos {
            video.push(images)?;
        }
        if self.wanted.contains(&self.frames) {
            self.kept.push(images.clone());
        }
        self.frames += 1;
        Ok(())
    }

    /// Number of frames so far.
    pub fn num_frames(&self) -> usize {
        self.frames
    }

    /// Ends the videos and writes the strip; all files appear.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no frames; errors of the files.
    pub fn finish(self) -> Result<()> {
        for video in self.videos {
            video.finish()?;
        }
        let kept = self.kept.len();
        let clips: Vec<Tensor<5>> = self
            .kept
            .into_iter()
            .map(|frame| frame.unsqueeze_dim::<5>(2))
            .collect();
        let strip = frame_strip(&Tensor::cat(clips, 2), kept)?;
        let grid = ImageGrid {
            columns: kept,
            ..self.grid
        };
        save_image_with_provenance(&strip, grid, &self.record, &self.strip)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{burn::tensor::Device, output::provenance::verify_file};

    #[test]
    fn clips_are_written_in_all_formats() {
        let dir = tempfile::tempdir().unwrap();
        let values = Tensor::<5>::full([3, 1, 5, 8, 8], 0.5, &Device::flex());
        let samples = Samples::new((values, true), Some(vec![7; 3]), 4);
        let gallery = Gallery::new("tiny", 8, 8.0).with_setting("steps", 2);
        gallery.save(&samples, dir.path(), "clips").unwrap();
        for name in ["clips.gif", "clips.apng", "clips-strip.png"] {
            let found = verify_file(dir.path().join(name)).unwrap();
            let record = found.valid().unwrap();
            assert_eq!((record.seed, record.class), (Some(4), Some(7)), "{name}");
        }
        let video = std::fs::read(dir.path().join("clips.y4m")).unwrap();
        assert!(video.starts_with(b"YUV4MPEG2 "));
        // Five frames of three clips.
        let strip = image::open(dir.path().join("clips-strip.png")).unwrap();
        assert_eq!((strip.width(), strip.height()), (5 * 66 + 2, 3 * 66 + 2));
        // One more than the videos: the strip.
        let files = std::fs::read_dir(dir.path()).unwrap();
        assert_eq!(files.count(), ENDINGS.len() + 1);
    }
}
