//! A WAV file that is written while its sound is made.

use super::{WavFormat, Waveform};
use crate::{
    Error, Result,
    check::ensure_argument,
    fs::read_at_most,
    output::provenance::{Provenance, save_with_provenance},
};
use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Writes a sound piece by piece.
///
/// The header counts what was there at the last [`flush`](Self::flush): a file that is left behind
/// by a killed program plays up to there. Dropping a writer flushes it, without reporting errors.
///
/// ```no_run
/// use aigc_core::audio::{WavFormat, WavWriter, Waveform};
///
/// # fn main() -> aigc_core::Result<()> {
/// let mut writer = WavWriter::create("long.wav", 1, 16_000, WavFormat::default())?;
/// for _ in 0..10 {
///     writer.write(&Waveform::silence(1, 16_000, 16_000)?)?;
///     writer.flush()?;
/// }
/// writer.finish()
/// # }
/// ```
#[derive(Debug)]
pub struct WavWriter {
    path: PathBuf,
    file: File,
    format: WavFormat,
    channels: usize,
    sample_rate: u32,
    frames: u64,
    /// Whether samples were written after the header.
    dirty: bool,
}

impl WavWriter {
    /// Creates the file, with its directory; a file that is there is replaced.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `channels` or `sample_rate` is 0, or a WAV file cannot have so
    /// many channels; [`Error::Io`] naming the file.
    pub fn create(
        path: impl AsRef<Path>,
        channels: usize,
        sample_rate: u32,
        format: WavFormat,
    ) -> Result<Self> {
        let path = path.as_ref();
        ensure_argument(channels > 0, "channels", channels, "at least one channel")?;
        ensure_argument(
            sample_rate > 0,
            "sample_rate",
            sample_rate,
            "at least 1 sample per second",
        )?;
        let header = format.header(channels, sample_rate, 0)?;
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).map_err(Error::io(dir))?;
        }
        let mut file = File::create(path).map_err(Error::io(path))?;
        file.write_all(&header).map_err(Error::io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            format,
            channels,
            sample_rate,
            frames: 0,
            dirty: false,
        })
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if its rate or number of channels is another, a sample is not
    /// finite, or the file would have 4 GiB; [`Error::Io`]. The header then stays as it was.
    pub fn write(&mut self, wave: &Waveform) -> Result<()> {
        ensure_argument(
            wave.sample_rate() == self.sample_rate,
            "wave",
            format!("{} Hz", wave.sample_rate()),
            &format!("{} Hz, as the file", self.sample_rate),
        )?;
        ensure_argument(
            wave.num_channels() == self.channels,
            "wave",
            format!("of {} channels", wave.num_channels()),
            &format!("{} channels, as the file", self.channels),
        )?;
        let frames = self.frames + wave.len() as u64;
        // Whether the header can count them.
        self.format
            .header(self.channels, self.sample_rate, frames)?;
        let mut bytes = vec![];
        self.format.append(wave, &mut bytes)?;
        self.write_at(self.end(), &bytes)?;
        (self.frames, self.dirty) = (frames, true);
        Ok(())
    }

    /// Makes the file a valid one that has all pieces.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<()> {
        let end = self.end();
        if end % 2 == 1 {
            // Chunks have an even length. The next piece is written over it.
            self.write_at(end, &[0])?;
        }
        let header = self
            .format
            .header(self.channels, self.sample_rate, self.frames)?;
        self.write_at(0, &header)?;
        self.dirty = false;
        Ok(())
    }

    /// Number of samples of a channel that were written.
    pub fn num_samples(&self) -> u64 {
        self.frames
    }

    /// Length of what was written, in seconds.
    pub fn seconds(&self) -> f64 {
        self.frames as f64 / f64::from(self.sample_rate)
    }

    /// Flushes the file and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.file.sync_all().map_err(Error::io(&self.path))
    }

    /// [`finish`](Self::finish), and adds a record of how the sound was made. The file is read once
    /// more, since the record has a hash of its content, and replaced atomically.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish) and [`save_with_provenance`].
    pub fn finish_with_provenance(self, provenance: &Provenance) -> Result<()> {
        let path = self.path.clone();
        self.finish()?;
        let bytes = read_at_most(&path, super::wav::MAX_BYTES)?;
        save_with_provenance(&bytes, provenance, &path)
    }

    /// Where the next sample goes.
    fn end(&self) -> u64 {
        let frame = (self.channels * self.format.width()) as u64;
        self.format.header_len() + self.frames * frame
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.write_all(bytes))
            .map_err(Error::io(&self.path))
    }
}

impl Drop for WavWriter {
    fn drop(&mut self) {
        if self.dirty {
            // Who wants to know calls `flush` or `finish`.
            let _ = self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{encode_wav, read_wav};

    #[test]
    fn the_file_is_valid_after_each_flush() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("sound.wav");
        for format in [WavFormat::Pcm16, WavFormat::Pcm24, WavFormat::Float32] {
            let piece = Waveform::mono(vec![0.25, -0.5, 0.75], 8000).unwrap();
            let mut writer = WavWriter::create(&path, 1, 8000, format).unwrap();
            assert!(read_wav(&path).is_err());
            for count in 1..4 {
                writer.write(&piece).unwrap();
                writer.flush().unwrap();
                let all = Waveform::concat(&vec![&piece; count]).unwrap();
                assert_eq!(read_wav(&path).unwrap(), all, "{format:?}");
            }
            // What is not flushed yet does not spoil the file.
            writer.write(&piece).unwrap();
            assert_eq!(read_wav(&path).unwrap().len(), 9);
            assert_eq!(
                (writer.num_samples(), writer.seconds()),
                (12, 12.0 / 8000.0)
            );
            writer.finish().unwrap();
            let all = Waveform::concat(&[&piece; 4]).unwrap();
            assert_eq!(fs::read(&path).unwrap(), encode_wav(&all, format).unwrap());
        }
        let mut writer = WavWriter::create(&path, 1, 8000, WavFormat::Pcm24).unwrap();
        writer
            .write(&Waveform::mono(vec![0.5], 8000).unwrap())
            .unwrap();
        drop(writer);
        assert_eq!(read_wav(&path).unwrap().channel(0), [0.5]);
    }

    #[test]
    fn other_pieces_are_errors_and_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        let mut writer = WavWriter::create(&path, 2, 8000, WavFormat::Pcm16).unwrap();
        let good = Waveform::new(vec![vec![0.5], vec![-0.5]], 8000).unwrap();
        writer.write(&good).unwrap();
        let mut message = |wave: &Waveform| writer.write(wave).unwrap_err().to_string();
        assert!(message(&good.to_mono()).contains("of 1 channels"));
        let other = Waveform::silence(2, 1, 16_000).unwrap();
        assert!(message(&other).contains("16000 Hz, expected 8000 Hz"));
        let nan = Waveform::new(vec![vec![0.0], vec![f32::INFINITY]], 8000).unwrap();
        assert!(message(&nan).contains("sample 0 of channel 1"));
        writer.finish().unwrap();
        assert_eq!(read_wav(&path).unwrap(), good);
        for (channels, rate) in [(0, 8000), (2, 0), (1 << 16, 8000), (usize::MAX, 8000)] {
            let writer = WavWriter::create(&path, channels, rate, WavFormat::Pcm16);
            assert!(matches!(writer, Err(Error::InvalidArgument { .. })));
        }
        let dir = WavWriter::create(folder.path(), 1, 8000, WavFormat::Pcm16);
        assert!(matches!(dir, Err(Error::Io { .. })));
    }
}
