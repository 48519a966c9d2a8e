//! A pipeline of VITS: from text to sound.

use super::{SentenceOptions, VitsVoice, sentences::sentences};
#[cfg(feature = "download")]
use aigc_core::hub_model::ModelFiles;
use aigc_core::{
    Error, Result,
    audio::Waveform,
    check::in_range,
    rng::Rng,
    weights::{Loaded, OpenOptions},
};
use aigc_vae::speech::{VitsOptions, VitsTokenizer, VitsTokens};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::path::Path;

/// Longest pause between sentences, in seconds.
const MAX_PAUSE: f64 = 60.0;

/// Files of a voice and its tokenizer on the hub.
#[cfg(feature = "download")]
const HUB_FILES: ModelFiles<'static> = ModelFiles {
    config_files: &["config.json", "tokenizer_config.json", "vocab.json"],
    ..ModelFiles::TRANSFORMERS
};

/// A voice and its tokenizer: text to sound.
#[derive(Clone, Debug)]
pub struct VitsPipeline {
    voice: VitsVoice,
    tokenizer: VitsTokenizer,
    device: Device,
}

/// The sound of a text.
#[derive(Clone, Debug)]
pub struct Speech {
    /// The sound.
    pub wave: Waveform,
    /// Characters that the voice does not know and that were left out, each once.
    pub unknown: Vec<char>,
    /// Number of frames of each symbol, with the blanks between letters. Where a text was spoken
    /// sentence by sentence, the last symbol of a sentence has the frames of the pause, too.
    pub durations: Vec<usize>,
}

impl VitsPipeline {
    aigc_core::open_methods!("model");
    #[cfg(feature = "download")]
    aigc_core::hub_methods!(pub config: aigc_vae::speech::VitsConfig, files: HUB_FILES);

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        let tokenizer = VitsTokenizer::from_pretrained(dir)?;
        let voice = VitsVoice::from_pretrained_with(dir, options, device)?;
        voice.try_map(|voice| Self::new(voice, tokenizer, device))
    }

    /// A pipeline of parts on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] if the tokenizer has symbols that the voice does not have.
    pub fn new(voice: VitsVoice, tokenizer: VitsTokenizer, device: &Device) -> Result<Self> {
        let (symbols, known) = (tokenizer.vocab_size(), voice.model.config().vocab_size);
        if symbols > known {
            let expected = format!("at least {symbols}, the number of the tokenizer's symbols");
            return Err(Error::config("vocab_size", known, expected));
        }
        Ok(Self {
            voice,
            tokenizer,
            device: device.clone(),
        })
    }

    /// The voice.
    pub fn voice(&self) -> &VitsVoice {
        &self.voice
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &VitsTokenizer {
        &self.tokenizer
    }

    /// With another tokenizer, such as one with a
    /// [lexicon](VitsTokenizer::with_lexicon) or one that leaves out
    /// [unknown characters](VitsTokenizer::with_unknown).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_tokenizer(self, tokenizer: VitsTokenizer) -> Result<Self> {
        Self::new(self.voice, tokenizer, &self.device)
    }

    /// Speaks a text; a long one sentence by sentence, by the default of [`SentenceOptions`].
    ///
    /// # Errors
    /// As [`VitsTokenizer::encode_with_report`] for characters that the voice does not know, and as
    /// [`VitsVoice::forward`]; [`Error::InvalidArgument`] if nothing of the text can be spoken.
    pub fn speak(&self, text: &str, options: &VitsOptions, rng: &mut Rng) -> Result<Speech> {
        let sentences = SentenceOptions::default();
        self.speak_sentences(text, options, &sentences, rng, |_| Ok(()))
    }

    /// Speaks a text, a long one sentence by sentence with pauses in between. `piece` receives each
    /// sentence with the pause behind it as soon as it is spoken; a text that is spoken at once is
    /// one piece. A sentence that the voice knows no symbol of is left out.
    ///
    /// Sentences end at `.`, `!`, `?` and their like before white space, and at blank lines, so an
    /// abbreviation with a full stop ends one, too. A text without such marks is spoken at once.
    ///
    /// # Errors
    /// As [`speak`](Self::speak), before the first sentence is spoken if the text is at fault;
    /// [`Error::Config`] for a pause out of range; those of `piece`.
    pub fn speak_sentences(
        &self,
        text: &str,
        options: &VitsOptions,
        sentences: &SentenceOptions,
        rng: &mut Rng,
        mut piece: impl FnMut(&Waveform) -> Result<()>,
    ) -> Result<Speech> {
        in_range("pause", sentences.pause, 0.0..=MAX_PAUSE)?;
        // The whole text first, so that all unknown characters are named before anything is spoken.
        let VitsTokens { ids, unknown } = self.tokenizer.encode_with_report(text)?;
        // A blank alone is no text.
        if !self.tokenizer.has_symbols(&ids) {
            let expected = "a text with characters that the voice knows";
            return Err(Error::argument("text", format!("{text:?}"), expected));
        }
        let parts = match text.chars().count() > sentences.whole {
            true => self.sentence_ids(text)?,
            false => vec![],
        };
        if parts.len() < 2 {
            let (wave, durations) = self.speak_ids(&ids, options, rng)?;
            piece(&wave)?;
            return Ok(Speech {
                wave,
                unknown,
                durations,
            });
        }
        let config = self.voice.model.config();
        let (rate, hop) = (config.sampling_rate, config.hop_length());
        let pause = (sentences.pause * f64::from(rate) / hop as f64).round() as usize;
        let (mut samples, mut all_durations) = (vec![], vec![]);
        for (index, ids) in parts.iter().enumerate() {
            let (mut wave, mut durations) = self.speak_ids(ids, options, rng)?;
            if index + 1 < parts.len() {
                if let Some(last) = durations.last_mut() {
                    *last += pause;
                }
                let mut spoken = wave.into_channels().concat();
                // Some kernels give a few samples behind the last frame.
                spoken.resize(durations.iter().sum::<usize>() * hop, 0.0);
                wave = Waveform::mono(spoken, rate)?;
            }
            piece(&wave)?;
            samples.extend_from_slice(wave.channel(0));
            all_durations.extend(durations);
        }
        Ok(Speech {
            wave: Waveform::mono(samples, rate)?,
            unknown,
            durations: all_durations,
        })
    }

    /// The symbols of each sentence, without sentences that have none.
    fn sentence_ids(&self, text: &str) -> Result<Vec<Vec<u32>>> {
        let all = sentences(text).into_iter();
        let all = all.map(|sentence| self.tokenizer.encode(sentence));
        let mut all = all.collect::<Result<Vec<_>>>()?;
        all.retain(|ids| self.tokenizer.has_symbols(ids));
        Ok(all)
    }

    /// The sound of symbols, and the frames of each of them.
    fn speak_ids(
        &self,
        ids: &[u32],
        options: &VitsOptions,
        rng: &mut Rng,
    ) -> Result<(Waveform, Vec<usize>)> {
        let data: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let data = TensorData::new(data, [1, ids.len()]);
        let ids = Tensor::<2, Int>::from_data(data, &self.device);
        let speech = self.voice.forward(ids, None, options, rng)?;
        let rate = self.voice.model.config().sampling_rate;
        let wave = Waveform::from_tensor(speech.waveform, rate)?;
        Ok((wave, speech.latents.durations.concat()))
    }
}
