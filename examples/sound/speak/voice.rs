//! Speaking with a voice of digits.

use crate::{
    Args,
    data::DIGITS,
    picture, reader,
    sound::SoundFile,
    text::{self, Word},
    vocoder::MelVocoder,
};
use aigc_core::{
    Result,
    audio::Waveform,
    burn::tensor::{Device, Tensor},
    eval::sound_classifier::SoundClassifier,
    rng::Rng,
};
use aigc_examples::outln;
use aigc_examples_sound::SoundGallery;
use aigc_vae::speech::{Speaker, SpeakerOptions, VitsTokenizer};
use std::path::{Path, PathBuf};

/// Frames that are made at once with `--stream`: about half a second.
const PIECE: usize = 64;

/// A trained voice of digits.
#[derive(Debug)]
pub(crate) struct Voice {
    /// Text to spectra.
    pub(crate) speaker: Speaker,
    /// Spectra to sound.
    pub(crate) vocoder: MelVocoder,
    /// Tells which digit is heard; runs that were stopped early have none.
    pub(crate) reader: Option<SoundClassifier>,
    /// Names of the speakers.
    pub(crate) names: Vec<String>,
    /// Directories of the weights that make the sound.
    pub(crate) weights: Vec<PathBuf>,
}

/// A text to speak.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) text: &'a str,
    pub(crate) ids: Vec<u32>,
    pub(crate) options: SpeakerOptions,
    pub(crate) seed: u64,
    pub(crate) stream: bool,
}

impl<'a> Request<'a> {
    /// The text of the command line for a voice of these symbols and speakers.
    ///
    /// # Errors
    /// Naming characters, the speaker or the line of the lexicon that the voice does not know.
    pub(crate) fn new(
        args: &'a Args,
        symbols: VitsTokenizer,
        names: &[String],
        seed: u64,
    ) -> Result<Self> {
        let tokenizer = text::tokenizer(symbols, args)?;
        let defaults = SpeakerOptions::default();
        Ok(Self {
            text: &args.text,
            ids: text::symbols(&tokenizer, &args.text)?,
            options: SpeakerOptions {
                speaker: text::speaker(args.speaker.as_deref(), names)?,
                speaking_rate: args.rate.unwrap_or(defaults.speaking_rate),
                ..defaults
            },
            seed,
            stream: args.stream,
        })
    }
}

impl Voice {
    /// Speaks into the WAV file `path`, draws the picture beside it, and prints where the words
    /// lie, how long it took, and which digits are heard.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the first field in which the spectra of
    /// the vocoder are others than those of the speaker; errors of the models and of files.
    pub(crate) fn speak(&self, request: &Request<'_>, path: &Path, device: &Device) -> Result<()> {
        let config = self.speaker.config();
        let mel = &config.mel;
        mel.check_same(self.vocoder.as_dyn().mel_config())?;
        let gallery = SoundGallery::new("speech", "speak")
            .with_weights(&self.weights)?
            .with_prompt(request.text)
            .with_seed(request.seed)
            .with_setting("speaker", self.names[request.options.speaker].as_str())
            .with_setting("speaking_rate", request.options.speaking_rate)
            .with_setting("vocoder", self.vocoder.kind().name());
        let record = gallery.record();

        let mut file = SoundFile::new(path, mel.sample_rate);
        let ids = std::slice::from_ref(&request.ids);
        let mut rng = Rng::new(request.seed);
        let spoken = self.speaker.mel(ids, &request.options, &mut rng)?;
        match &self.vocoder {
            MelVocoder::Nsf(vocoder) if request.stream => {
                for samples in vocoder.chunks(spoken.log_mel, PIECE)? {
                    file.push(samples)?;
                }
            }
            vocoder => file.push(vocoder.as_dyn().vocode(spoken.log_mel)?)?,
        }
        let speech = file.finish(record)?;

        let durations = &spoken.durations[0];
        let words = text::words(request.text, &request.ids, durations, &config.tokenizer);
        let drawn = path.with_extension("png");
        picture::save(&speech, mel, (&words, durations), record, &drawn)?;
        outln!();
        picture::print_words(&words, mel);
        speech.print_speed(request.stream);
        let samples = speech.wave.channel(0);
        if let Some((right, asked)) = self.heard(&words, samples, device)? {
            outln!("{right} of {asked} digits are heard as asked");
        }
        outln!("  {:<60} the sound", path.display());
        if drawn.is_file() {
            outln!(
                "  {:<60} its spectrum with words and symbols",
                drawn.display()
            );
        }
        Ok(())
    }

    /// How many of the digits among the words are heard right, and how many there are. None without
    /// digits or without a reader.
    ///
    /// # Errors
    /// Errors of the reader.
    pub(crate) fn heard(
        &self,
        words: &[Word],
        samples: &[f32],
        device: &Device,
    ) -> Result<Option<(usize, usize)>> {
        let Some(classifier) = &self.reader else {
            return Ok(None);
        };
        let mel = &self.speaker.config().mel;
        let (mut asked, mut waves) = (vec![], vec![]);
        for Word { text, frames } in words {
            let word = text.to_lowercase();
            let Some(digit) = DIGITS.iter().position(|known| *known == word) else {
                continue;
            };
            let end = (frames.end * mel.hop_length).min(samples.len());
            let start = (frames.start * mel.hop_length).min(end);
            asked.push(digit);
            waves.push(Waveform::mono(
                samples[start..end].to_vec(),
                mel.sample_rate,
            )?);
        }
        if asked.is_empty() {
            return Ok(None);
        }
        let found = reader::read(classifier, waves, device)?;
        let right = found.iter().zip(&asked).filter(|(a, b)| a == b).count();
        Ok(Some((right, asked.len())))
    }

    /// The sound of one text, `[1, time]`, and where its words lie.
    ///
    /// # Errors
    /// Errors of the models.
    pub(crate) fn sound_of(
        &self,
        text: &str,
        options: &SpeakerOptions,
        seed: u64,
    ) -> Result<(Tensor<2>, Vec<Word>)> {
        let ids = self.speaker.tokenizer().encode(text)?;
        let spoken = self
            .speaker
            .mel(std::slice::from_ref(&ids), options, &mut Rng::new(seed))?;
        let config = &self.speaker.config().tokenizer;
        let words = text::words(text, &ids, &spoken.durations[0], config);
        Ok((self.vocoder.as_dyn().vocode(spoken.log_mel)?, words))
    }
}
