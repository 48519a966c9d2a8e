//! Sounds and spectrograms for people.

use aigc_core::{
    Error, Result,
    audio::{WavFormat, Waveform, write_wav},
    output::SpectrogramPlot,
};
use aigc_examples_sound::SoundGallery;
use std::path::Path;

/// Most sounds that are written.
const MOST: usize = 10;
/// Width of the picture of all of them in pixels.
const WIDTH: u32 = 1600;

/// Writes up to ten sounds as `NAME-0.wav`, `NAME-1.wav`, …, and the spectrograms of all, one after
/// the other, as `NAME.png`. Sounds that a model made, with a gallery and their digits, have a
/// record of it, and a spectrogram each.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written; [`Error::InvalidArgument`] without sounds, or for
/// values that are not finite.
pub(crate) fn write(
    dir: &Path,
    name: &str,
    waves: &[Waveform],
    made: Option<(&SoundGallery, &[u32])>,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let waves = &waves[..waves.len().min(MOST)];
    for (index, wave) in waves.iter().enumerate() {
        let path = dir.join(format!("{name}-{index}.wav"));
        match made {
            Some((gallery, digits)) => {
                let gallery = gallery.clone().with_index(index);
                let gallery = gallery.with_class(digits[index] as usize);
                gallery.save(wave, &path)?;
            }
            None => write_wav(wave, &path, WavFormat::default())?,
        }
    }
    let all = Waveform::concat(&waves.iter().collect::<Vec<_>>())?;
    let plot = SpectrogramPlot {
        width: WIDTH,
        ..SpectrogramPlot::default()
    };
    let path = dir.join(format!("{name}.png"));
    match made {
        Some((gallery, _)) => {
            let gallery = gallery.clone().with_plot(plot);
            gallery
                .draw(&all)?
                .save_with_provenance(gallery.record(), &path)
        }
        None => {
            let plain = SoundGallery::new("none", "none").with_plot(plot);
            plain.draw(&all)?.save(&path)
        }
    }
}
