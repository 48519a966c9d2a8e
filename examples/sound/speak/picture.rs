//! A picture of the spectrum of speech with the places of words and symbols.

use crate::{
    sound::Finished,
    text::{Word, symbol_starts},
};
use aigc_core::{
    Result,
    dsp::{Frames, MelConfig},
    output::{SpectrogramPlot, provenance::Provenance},
};
use aigc_examples::outln;
use std::path::Path;

/// Widths of the spectrum in pixels: a frame has a pixel at least, up to the larger one.
const WIDTH: [usize; 2] = [800, 8000];

/// Draws the log-mel spectrum of speech: a line over the whole height where a word begins and ends,
/// and one at the bottom where a symbol begins. Speech that is shorter than a frame has no picture.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn save(
    speech: &Finished,
    mel: &MelConfig,
    (words, durations): (&[Word], &[usize]),
    record: &Provenance,
    path: &Path,
) -> Result<()> {
    let mel = mel.init()?;
    let samples = speech.wave.channel(0);
    if mel.stft().frames(samples.len()).is_err() {
        return Ok(());
    }
    let log_mel = mel.log_mel(samples)?;
    let edges: Vec<usize> = words
        .iter()
        .flat_map(|word| [word.frames.start, word.frames.end])
        .collect();
    let marked = marked(&log_mel, &edges, &symbol_starts(durations))?;
    let plot = SpectrogramPlot {
        width: log_mel.len().clamp(WIDTH[0], WIDTH[1]) as u32,
        ..SpectrogramPlot::default()
    };
    let record = record.clone().with_setting(
        "content",
        "log-mel spectrum; lines at words and, at the bottom, at symbols",
    );
    plot.draw_log_mel(&marked, mel.config())?
        .save_with_provenance(&record, path)
}

/// Frames with the largest value in all bands of the frames `whole`, and in the lowest eighth of
/// the bands of the frames `low`.
fn marked(log_mel: &Frames, whole: &[usize], low: &[usize]) -> Result<Frames> {
    let (bands, last) = (log_mel.width(), log_mel.len().saturating_sub(1));
    let mut values = log_mel.values().to_vec();
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let ticks = low.iter().map(|frame| (*frame, bands.div_ceil(8)));
    let lines = whole.iter().map(|frame| (*frame, bands));
    for (frame, bands_of_mark) in ticks.chain(lines) {
        // The end of the last word is that of the sound.
        let start = frame.min(last) * bands;
        values[start..start + bands_of_mark].fill(largest);
    }
    Frames::new(values, bands)
}

/// Prints where words lie.
pub(crate) fn print_words(words: &[Word], mel: &MelConfig) {
    let seconds = |frame: usize| (frame * mel.hop_length) as f64 / f64::from(mel.sample_rate);
    for Word { text, frames } in words {
        let (start, end) = (seconds(frames.start), seconds(frames.end));
        outln!("  {start:6.2} to {end:6.2} s  {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_lie_in_their_frames() {
        let frames = Frames::new((0..48).map(f64::from).collect(), 16).unwrap();
        let found = marked(&frames, &[0, 3], &[1]).unwrap();
        assert!(found.frame(0).iter().all(|value| *value == 47.0));
        assert_eq!(found.frame(1)[..3], [47.0, 47.0, 18.0]);
        assert!(found.frame(2).iter().all(|value| *value == 47.0));
    }
}
