//! Text to sound.

use super::VitsVoice;
use aigc_core::{
    Error, Result,
    audio::Waveform,
    rng::Rng,
    weights::{Loaded, OpenOptions},
};
use aigc_vae::speech::{VitsOptions, VitsTokenizer, VitsTokens};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::path::Path;

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
    /// Characters that the voice does not know and that were left out, each once, for a warning.
    pub unknown: Vec<char>,
    /// Frames of each symbol.
    pub durations: Vec<usize>,
}

impl VitsPipeline {
    aigc_core::open_methods!("model");

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

    /// Speaks a text.
    ///
    /// # Errors
    /// As [`VitsTokenizer::encode_with_report`] for characters that the voice does not know, and as
    /// [`VitsVoice::forward`]; [`Error::InvalidArgument`] if nothing of the text can be spoken.
    pub fn speak(&self, text: &str, options: &VitsOptions, rng: &mut Rng) -> Result<Speech> {
        let VitsTokens { ids, unknown } = self.tokenizer.encode_with_report(text)?;
        // A blank alone is no text.
        let blanks = usize::from(self.tokenizer.config().add_blank);
        if ids.len() <= blanks {
            let expected = "a text with characters that the voice knows";
            return Err(Error::argument("text", format!("{text:?}"), expected));
        }
        let data: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let data = TensorData::new(data, [1, ids.len()]);
        let ids = Tensor::<2, Int>::from_data(data, &self.device);
        let speech = self.voice.forward(ids, None, options, rng)?;
        let rate = self.voice.model.config().sampling_rate;
        Ok(Speech {
            wave: Waveform::from_tensor(speech.waveform, rate)?,
            unknown,
            durations: speech.latents.durations.concat(),
        })
    }
}
