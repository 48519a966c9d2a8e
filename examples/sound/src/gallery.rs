//! Sounds with a record of how they were made, and a picture of each.

use aigc_core::{
    Error, Result,
    audio::{WavFormat, Waveform, write_wav_with_provenance},
    dsp::StftConfig,
    output::{Figure, SpectrogramPlot, provenance::Provenance},
    weights::hash_files,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Milliseconds of a frame of the pictures.
const FRAME: usize = 32;

/// Directories within directories that are searched for weights.
const DEPTH: usize = 4;

/// Writes sounds of a model as WAV files, and beside each a picture of its spectrogram; both have
/// a [`Provenance`] record.
#[derive(Clone, Debug)]
pub struct SoundGallery {
    record: Provenance,
    plot: SpectrogramPlot,
}

impl SoundGallery {
    /// Sounds of the model `name` of a family of models.
    pub fn new(family: &str, name: &str) -> Self {
        Self {
            record: Provenance::new(name).with_setting("family", family),
            plot: SpectrogramPlot::default(),
        }
    }

    /// Draws pictures in this way.
    pub fn with_plot(self, plot: SpectrogramPlot) -> Self {
        Self { plot, ..self }
    }

    /// Records the [hash](hash_weights) of the weights that make the sounds.
    ///
    /// # Errors
    /// As for [`hash_weights`].
    pub fn with_weights<P: AsRef<Path>>(self, dirs: &[P]) -> Result<Self> {
        Ok(match hash_weights(dirs)? {
            Some(hash) => self.recorded(|record| record.with_model_hash(hash)),
            None => self,
        })
    }

    /// Records the seed of the random numbers.
    pub fn with_seed(self, seed: u64) -> Self {
        self.recorded(|record| record.with_seed(seed))
    }

    /// Records which of the sounds of the seed it is, from 0 on.
    pub fn with_index(self, index: usize) -> Self {
        self.recorded(|record| record.with_index(index))
    }

    /// Records the class of the sound.
    pub fn with_class(self, class: usize) -> Self {
        self.recorded(|record| record.with_class(class))
    }

    /// Records the text that the sound was made from.
    pub fn with_prompt(self, prompt: &str) -> Self {
        self.recorded(|record| record.with_prompt(prompt))
    }

    /// Records a setting.
    pub fn with_setting(self, name: &str, value: impl Into<Value>) -> Self {
        self.recorded(|record| record.with_setting(name, value))
    }

    fn recorded(self, change: impl FnOnce(Provenance) -> Provenance) -> Self {
        Self {
            record: change(self.record),
            ..self
        }
    }

    /// The record, for files of other kinds.
    pub fn record(&self) -> &Provenance {
        &self.record
    }

    /// Writes a sound to `path`, and its spectrogram to the same path with the extension `png`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the sound is shorter than about ten samples, or a sample is
    /// not finite; [`Error::Io`] if a file cannot be written.
    pub fn save(&self, wave: &Waveform, path: &Path) -> Result<()> {
        let figure = self.draw(wave)?;
        self.save_with_figure(wave, &figure, path)
    }

    /// [`save`](Self::save) with another picture, such as one with marks.
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub fn save_with_figure(&self, wave: &Waveform, figure: &Figure, path: &Path) -> Result<()> {
        write_wav_with_provenance(wave, path, WavFormat::default(), &self.record)?;
        figure.save_with_provenance(&self.record, &path.with_extension("png"))
    }

    /// The spectrogram of all channels together: frames of 32 ms, a quarter of that apart.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the sound is shorter than about ten samples.
    pub fn draw(&self, wave: &Waveform) -> Result<Figure> {
        let (mono, rate) = (wave.to_mono(), wave.sample_rate());
        let frame = (rate as usize * FRAME / 1000).min(mono.len()).max(16);
        let stft = StftConfig::new(frame, frame / 4);
        self.plot.draw_wave(mono.channel(0), rate, &stft)
    }
}

/// The hash of the safetensors files in these directories and those within them, in the order of
/// their paths; `None` without such files.
///
/// # Errors
/// [`Error::Io`] if a directory or a file cannot be read.
pub fn hash_weights<P: AsRef<Path>>(dirs: &[P]) -> Result<Option<String>> {
    let mut files = Vec::new();
    for dir in dirs {
        let first = files.len();
        collect_weights(dir.as_ref(), DEPTH, &mut files)?;
        files[first..].sort();
    }
    if files.is_empty() {
        return Ok(None);
    }
    hash_files(files.iter().map(PathBuf::as_path)).map(Some)
}

/// Adds the weights below a directory, in any order.
fn collect_weights(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if path.is_dir() {
            if depth > 0 {
                collect_weights(&path, depth - 1, files)?;
            }
        } else if path.extension().is_some_and(|kind| kind == "safetensors") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{audio::read_wav, output::provenance::verify_file};

    #[test]
    fn sounds_and_their_pictures_name_their_origin() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("model/unet")).unwrap();
        std::fs::write(at("model/unet/weights.safetensors"), "abc").unwrap();
        let samples = (0..2000).map(|t| (0.3 * t as f32).sin() / 2.0).collect();
        let wave = Waveform::mono(samples, 8000).unwrap();
        let gallery = SoundGallery::new("diffusion", "tiny")
            .with_weights(&[at("model")])
            .unwrap()
            .with_seed(7)
            .with_index(2)
            .with_class(1)
            .with_setting("guidance_scale", 2.0);
        gallery.save(&wave, &at("sounds/one.wav")).unwrap();
        let found = read_wav(at("sounds/one.wav")).unwrap();
        assert_eq!((found.len(), found.sample_rate()), (2000, 8000));
        for name in ["sounds/one.wav", "sounds/one.png"] {
            let found = verify_file(at(name)).unwrap();
            let record = found.valid().unwrap();
            assert_eq!((record.seed, record.index), (Some(7), Some(2)), "{name}");
            assert_eq!((&*record.model, record.class), ("tiny", Some(1)));
            assert_eq!(record.settings["guidance_scale"], 2.0);
            // SHA-256 of "abc".
            let hash = record.model_hash.as_deref().unwrap();
            assert!(hash.starts_with("ba7816bf"), "{hash}");
        }
    }

    #[test]
    fn bad_sounds_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.wav");
        let gallery = SoundGallery::new("diffusion", "tiny");
        for samples in [vec![], vec![0.5; 3], vec![f32::NAN; 400]] {
            let wave = Waveform::mono(samples, 8000).unwrap();
            assert!(gallery.save(&wave, &path).is_err());
            assert!(!path.exists());
        }
        let none = hash_weights(&[folder.path()]).unwrap();
        assert_eq!(none, None);
        assert!(hash_weights(&[folder.path().join("none")]).is_err());
    }
}
