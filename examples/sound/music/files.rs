//! Files of new pieces.

use aigc_core::{
    Error, Result,
    fs::write_atomic,
    music::{MidiFile, SynthConfig},
    output::PianoRollPlot,
};
use aigc_examples_sound::{SoundGallery, Speed};
use serde_json::{Value, json};
use std::{ffi::OsStr, path::Path, time::Instant};

/// Width of a second in pictures, in pixels.
const SECOND: f64 = 40.0;

/// Writes pieces as MIDI files, the first `sounding` of them as sounds and pictures too. They take
/// the place of all pieces in the directory. Bars are counted by the lengths in seconds beside the
/// pieces. Returns how fast the sounds were made.
///
/// # Errors
/// Errors of files.
pub(crate) fn write_pieces(
    dir: &Path,
    pieces: &[(MidiFile, f64)],
    sounding: usize,
    gallery: &SoundGallery,
) -> Result<Speed> {
    remove_pieces(dir)?;
    let mut speed = Speed::default();
    for (index, (file, bar)) in pieces.iter().enumerate() {
        let path = dir.join(format!("piece-{:03}.mid", index + 1));
        file.write(&path)?;
        // Without notes there is nothing to hear.
        if index >= sounding || file.notes.is_empty() {
            continue;
        }
        let began = Instant::now();
        let wave = SynthConfig::default().render(&file.notes)?;
        speed += Speed::since(began, wave.seconds());
        let plot = PianoRollPlot {
            pixels_per_second: SECOND,
            ..PianoRollPlot::default()
        };
        let figure = plot.with_bars_every(*bar).draw(&file.notes)?;
        let gallery = gallery.clone().with_index(index);
        gallery.save_with_figure(&wave, &figure, &path.with_extension("wav"))?;
    }
    Ok(speed)
}

/// Removes the pieces of an earlier evaluation, which can have been more.
fn remove_pieces(dir: &Path) -> Result<()> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<std::io::Result<Vec<_>>>();
    for path in paths.map_err(Error::io(dir))? {
        if is_piece(&path) {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Whether a file has the name of one of [`write_pieces`].
fn is_piece(path: &Path) -> bool {
    let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (name, kind) = (text(path.file_stem()), text(path.extension()));
    let number = name.strip_prefix("piece-").unwrap_or_default();
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && ["mid", "wav", "png"].contains(&kind.as_str())
}

/// Writes pieces in the format of the chorales, all of them as `test`.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write_grids(path: &Path, pieces: &[Value]) -> Result<()> {
    let text = json!({"train": [], "valid": [], "test": pieces}).to_string();
    write_atomic(path, text.as_bytes())
}
