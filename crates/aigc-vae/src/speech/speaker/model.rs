//! The speaker.

use super::{SpeakerConfig, decoder::MelDecoder};
use crate::speech::{
    VitsTokenizer,
    duration::DurationPredictor,
    layers::{Embedding, length_mask, repeat, speaker_conditions},
    text_encoder::{TextEncoder, check_length},
};
use aigc_core::{
    Error, Result,
    audio::{Vocoder, Waveform},
    check::{ensure_argument, in_range, non_negative, positive},
    rng::Rng,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};

/// Limit on the frames of a text.
const MAX_FRAMES: usize = 1 << 18;

/// Text to log-mel spectrograms; see the documentation of the module for the method.
///
/// ```no_run
/// use aigc_core::{audio::{Vocoder, WavFormat, write_wav}, device::device, rng::Rng};
/// use aigc_vae::speech::{Speaker, SpeakerOptions};
///
/// # fn example(vocoder: &dyn Vocoder) -> aigc_core::Result<()> {
/// let speaker = Speaker::from_pretrained("runs/speaker/final", &device("flex")?)?;
/// let options = SpeakerOptions::default();
/// let wave = speaker.speak("seven two", &options, vocoder, &mut Rng::new(1))?;
/// write_wav(&wave, "seven-two.wav", WavFormat::default())?;
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct Speaker {
    pub(super) text_encoder: TextEncoder,
    pub(super) duration_predictor: DurationPredictor,
    pub(super) decoder: MelDecoder,
    pub(super) embed_speaker: Option<Embedding>,
    #[module(skip)]
    config: SpeakerConfig,
}

/// How a text is spoken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeakerOptions {
    /// Index of the speaker.
    pub speaker: usize,
    /// Speed; durations are divided by it.
    pub speaking_rate: f64,
    /// Steps from noise to a spectrogram.
    pub steps: usize,
    /// Scale of the noise; with 0, every text has one spectrogram.
    pub temperature: f64,
}

impl Default for SpeakerOptions {
    fn default() -> Self {
        Self {
            speaker: 0,
            speaking_rate: 1.0,
            steps: 10,
            temperature: 0.667,
        }
    }
}

/// Spectrograms of texts.
#[derive(Clone, Debug)]
pub struct SpokenMel {
    /// Log-mel spectrograms, `[batch, mels, frames]`. What lies behind the frames of a text is
    /// padding and has to be cut off; it is not silence.
    pub log_mel: Tensor<3>,
    /// Frames of each text.
    pub frames: Vec<usize>,
    /// Frames of each symbol of each text.
    pub durations: Vec<Vec<usize>>,
}

impl SpeakerConfig {
    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<Speaker> {
        self.validate()?;
        let speakers = [self.num_speakers, self.hidden_size];
        Ok(Speaker {
            text_encoder: TextEncoder::new(&self.text_encoder(), device),
            duration_predictor: DurationPredictor::new(&self.duration(), device),
            decoder: MelDecoder::new(self, device),
            embed_speaker: (self.num_speakers > 1).then(|| Embedding::new(speakers, 1.0, device)),
            config: self.clone(),
        })
    }
}

impl Speaker {
    aigc_core::pretrained_methods!(SpeakerConfig, config: Self::config);

    /// Configuration of the model.
    pub fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// The tokenizer of the model's symbols, which refuses unknown characters. A lexicon is not a
    /// part of a model: a speaker that was trained with one needs it again
    /// ([`VitsTokenizer::with_lexicon`]).
    ///
    /// # Panics
    /// Never: the configuration was checked when the model was created.
    pub fn tokenizer(&self) -> VitsTokenizer {
        VitsTokenizer::new(self.config.tokenizer.clone()).expect("a valid configuration")
    }

    /// The sound of a text, which is spelled by [`tokenizer`](Self::tokenizer), without a lexicon.
    ///
    /// # Errors
    /// As [`speak_symbols`](Self::speak_symbols); [`Error::InvalidArgument`] naming characters that
    /// the speaker does not know, or if the text is empty.
    pub fn speak(
        &self,
        text: &str,
        options: &SpeakerOptions,
        vocoder: &dyn Vocoder,
        rng: &mut Rng,
    ) -> Result<Waveform> {
        let tokenizer = self.tokenizer();
        let ids = tokenizer.encode(text)?;
        let expected = "a text with at least one symbol";
        let value = format!("{text:?}");
        ensure_argument(tokenizer.has_symbols(&ids), "text", value, expected)?;
        self.speak_symbols(ids, options, vocoder, rng)
    }

    /// The sound of the symbols of a text, such as those of a tokenizer with a lexicon.
    ///
    /// # Errors
    /// As [`mel`](Self::mel); [`Error::Config`] naming the first field in which the spectrograms of
    /// the vocoder differ from those of the speaker; errors of the vocoder.
    pub fn speak_symbols(
        &self,
        ids: Vec<u32>,
        options: &SpeakerOptions,
        vocoder: &dyn Vocoder,
        rng: &mut Rng,
    ) -> Result<Waveform> {
        self.config.mel.check_same(vocoder.mel_config())?;
        let spoken = self.mel(&[ids], options, rng)?;
        let wave = vocoder.vocode(spoken.log_mel)?;
        Waveform::from_tensor(wave, self.config.mel.sample_rate)
    }

    /// Spectrograms of the symbols of texts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no texts, a text has no symbols, more symbols than
    /// attention has memory for, more than 2¹⁸ frames or an id that is no symbol's, or the speaker
    /// is unknown; [`Error::Config`] for an option out of range; [`Error::NotFiniteSamples`] if
    /// durations or spectrograms are not finite.
    pub fn mel(
        &self,
        ids: &[Vec<u32>],
        options: &SpeakerOptions,
        rng: &mut Rng,
    ) -> Result<SpokenMel> {
        let SpeakerOptions {
            speaker,
            speaking_rate,
            steps,
            temperature,
        } = *options;
        positive("speaking_rate", speaking_rate)?;
        non_negative("temperature", temperature)?;
        in_range("steps", steps, 1..=1 << 12)?;
        let device = self.devices().into_iter().next().unwrap_or_default();
        let speaker = self.speaker(&[speaker], &device)?;
        let (tokens, lengths) = self.tokens(ids, &device)?;
        let token_mask = length_mask(&lengths, tokens.dims()[1], &device);
        let encoded = self
            .text_encoder
            .forward(tokens, &token_mask, speaker.clone());
        let (hidden, means) = encoded;
        let log_duration = self.duration_predictor.forward(hidden, &token_mask, None);
        let exact = log_duration.exp() * (1.0 / speaking_rate);
        let durations = whole_durations(&exact, &lengths)?;

        let frames: Vec<usize> = durations.iter().map(|row| row.iter().sum()).collect();
        let most = frames.iter().copied().max().unwrap_or(0);
        let mask = length_mask(&frames, most, &device);
        let mean = repeat(means, &durations, most);
        let mut x = rng.normal(mean.dims(), &device) * temperature * mask.clone();
        for step in 0..steps {
            let time = step as f64 / steps as f64;
            let time = Tensor::<2>::full([frames.len(), 1], time, &device);
            let velocity = self
                .decoder
                .forward(x.clone(), &mean, &mask, time, speaker.as_ref());
            x = x + velocity * (1.0 / steps as f64);
        }
        let log_mel = x * self.config.mel_std + self.config.mel_mean;
        if !log_mel.clone().sum().into_scalar::<f32>().is_finite() {
            return Err(not_finite("the spectrogram"));
        }
        Ok(SpokenMel {
            log_mel,
            frames,
            durations,
        })
    }

    /// The conditions of speakers; none for a model with one speaker.
    pub(super) fn speaker(&self, speakers: &[usize], device: &Device) -> Result<Option<Tensor<3>>> {
        let (table, known) = (self.embed_speaker.as_ref(), self.config.num_speakers);
        speaker_conditions(table, known, speakers, device)
    }

    /// Ids of symbols as a tensor `[batch, tokens]`, and the number of each text.
    pub(super) fn tokens(
        &self,
        ids: &[Vec<u32>],
        device: &Device,
    ) -> Result<(Tensor<2, Int>, Vec<usize>)> {
        let known = self.config.text_encoder().vocab_size as u32;
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        ensure_argument(!ids.is_empty(), "ids", "empty", "at least one text")?;
        if let Some(text) = lengths.iter().position(|length| *length == 0) {
            let value = format!("without symbols: text {text}");
            return Err(Error::argument("ids", value, "at least one symbol each"));
        }
        if let Some(unknown) = ids.iter().flatten().find(|id| **id >= known) {
            return Err(Error::argument("ids", unknown, format!("below {known}")));
        }
        let most = lengths.iter().copied().max().unwrap_or(0);
        check_length("ids", [ids.len(), most], self.config.num_attention_heads)?;
        let row = |ids: &Vec<u32>| {
            let mut row: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
            row.resize(most, 0);
            row
        };
        let data: Vec<i32> = ids.iter().flat_map(row).collect();
        let data = TensorData::new(data, [ids.len(), most]);
        Ok((Tensor::from_data(data, device), lengths))
    }
}

/// The durations in `exact`, `[batch, 1, tokens]`, as whole numbers of at least 1.
fn whole_durations(exact: &Tensor<3>, lengths: &[usize]) -> Result<Vec<Vec<usize>>> {
    let tokens = exact.dims()[2];
    let values: Vec<f32> = exact.to_data().iter::<f32>().collect();
    let rows = values.chunks_exact(tokens).zip(lengths);
    rows.map(|(row, length)| {
        let row = &row[..*length];
        if row.iter().any(|value| !value.is_finite()) {
            return Err(not_finite("the durations of symbols"));
        }
        let total: f64 = row
            .iter()
            .map(|value| f64::from(value.round().max(1.0)))
            .sum();
        if total > MAX_FRAMES as f64 {
            let expected = format!("a text of at most {MAX_FRAMES} frames of speech");
            return Err(Error::argument("ids", format!("{total} frames"), expected));
        }
        let mut durations: Vec<usize> = row
            .iter()
            .map(|value| value.round().max(1.0) as usize)
            .collect();
        durations.resize(tokens, 0);
        Ok(durations)
    })
    .collect()
}

fn not_finite(what: &str) -> Error {
    Error::NotFiniteSamples {
        what: what.into(),
        step: None,
        hint: "the weights are damaged, or of a training that diverged".into(),
    }
}
