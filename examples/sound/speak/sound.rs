//! The file of a sound, written while the sound is made.

use aigc_core::{
    Error, Result,
    audio::{WavFormat, WavWriter, Waveform},
    burn::tensor::Tensor,
    output::provenance::Provenance,
};
use aigc_examples::outln;
use aigc_examples_sound::Speed;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A WAV file that grows with every piece. The clock runs from its creation to the last piece.
#[derive(Debug)]
pub(crate) struct SoundFile {
    path: PathBuf,
    sample_rate: u32,
    writer: Option<WavWriter>,
    samples: Vec<f32>,
    started: Instant,
    /// Time until the first piece and until the last.
    spent: Option<(Duration, Duration)>,
}

/// A finished sound.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) wave: Waveform,
    /// Time until the first piece.
    first: Duration,
    /// Time until the last piece.
    all: Duration,
}

impl SoundFile {
    /// Starts the clock. The file is created with the first piece.
    pub(crate) fn new(path: &Path, sample_rate: u32) -> Self {
        Self {
            path: path.to_path_buf(),
            sample_rate,
            writer: None,
            samples: vec![],
            started: Instant::now(),
            spent: None,
        }
    }

    /// Appends a piece, `[1, time]`.
    ///
    /// # Errors
    /// As [`push_wave`](Self::push_wave).
    pub(crate) fn push(&mut self, samples: Tensor<2>) -> Result<()> {
        self.push_wave(&Waveform::from_tensor(samples, self.sample_rate)?)
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; [`Error::InvalidArgument`] for samples that are
    /// not finite.
    pub(crate) fn push_wave(&mut self, piece: &Waveform) -> Result<()> {
        let now = self.started.elapsed();
        let first = self.spent.map_or(now, |(first, _)| first);
        self.spent = Some((first, now));
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => WavWriter::create(&self.path, 1, self.sample_rate, WavFormat::default())?,
        };
        writer.write(piece)?;
        writer.flush()?;
        self.writer = Some(writer);
        self.samples.extend_from_slice(piece.channel(0));
        Ok(())
    }

    /// Ends the file with a record of how it was made.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; [`Error::InvalidArgument`] without a piece.
    pub(crate) fn finish(self, record: &Provenance) -> Result<Finished> {
        let (Some(writer), Some((first, all))) = (self.writer, self.spent) else {
            return Err(Error::argument("sound", "empty", "at least one piece"));
        };
        writer.finish_with_provenance(record)?;
        Ok(Finished {
            wave: Waveform::mono(self.samples, self.sample_rate)?,
            first,
            all,
        })
    }
}

impl Finished {
    /// Prints how long the sound is and how long it took.
    pub(crate) fn print_speed(&self, streamed: bool) {
        outln!("{}", Speed::new(self.wave.seconds(), self.all));
        if streamed {
            outln!("first sound after {:.2} s", self.first.as_secs_f64());
        }
    }
}
