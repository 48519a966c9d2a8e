//! Recordings with transcripts.

use super::SpeechItem;
use crate::speech::VitsTokenizer;
use aigc_core::{
    Error, Result,
    audio::Waveform,
    check::{ensure, ensure_argument, in_range},
    data::Dataset,
    dsp::{MelConfig, MelSpectrogram},
    rng::Rng,
};
use std::collections::BTreeMap;

/// Most silence between joined recordings, in seconds.
const MAX_PAUSE: f64 = 0.2;

/// A recording and what is said in it.
#[derive(Clone, Debug)]
pub struct Utterance {
    /// The sound; of several channels, the mean counts.
    pub wave: Waveform,
    /// The transcript.
    pub text: String,
    /// Index of the speaker.
    pub speaker: usize,
}

/// Recordings with transcripts, as spectrograms and symbols.
///
/// In training, recordings of one speaker can be [joined](Self::with_joined): a speaker that has
/// heard single words only does not know what spaces are, nor how one word follows another.
#[derive(Clone, Debug)]
pub struct SpeechDataset {
    utterances: Vec<Utterance>,
    tokenizer: VitsTokenizer,
    mel: MelSpectrogram,
    /// Indices of each speaker's recordings.
    of_speaker: BTreeMap<usize, Vec<usize>>,
    joined: usize,
    seed: u64,
}

impl SpeechDataset {
    /// The recordings with the symbols of a tokenizer and as these spectrograms.
    ///
    /// # Errors
    /// [`Error::Config`] if the spectrograms are not possible; [`Error::InvalidArgument`] if there
    /// are no recordings, or naming the first one of another sample rate, with unknown characters,
    /// without symbols, with fewer frames than symbols, or with samples that are not finite.
    pub fn new(
        utterances: Vec<Utterance>,
        tokenizer: VitsTokenizer,
        mel: MelConfig,
    ) -> Result<Self> {
        ensure_argument(
            !utterances.is_empty(),
            "utterances",
            "empty",
            "at least one recording with its transcript",
        )?;
        let mut of_speaker: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut mono = Vec::with_capacity(utterances.len());
        for (index, utterance) in utterances.into_iter().enumerate() {
            let (rate, wave) = (utterance.wave.sample_rate(), utterance.wave.to_mono());
            let name = format!("utterances[{index}]");
            if rate != mel.sample_rate {
                let value = format!("{rate} Hz");
                let expected = format!("{} Hz, as `mel.sample_rate`", mel.sample_rate);
                return Err(Error::argument(name, value, expected));
            }
            if wave.channel(0).iter().any(|sample| !sample.is_finite()) {
                return Err(Error::argument(
                    name,
                    "infinite or not a number",
                    "finite samples",
                ));
            }
            of_speaker.entry(utterance.speaker).or_default().push(index);
            mono.push(Utterance { wave, ..utterance });
        }
        let data = Self {
            utterances: mono,
            tokenizer,
            mel: mel.init()?,
            of_speaker,
            joined: 1,
            seed: 0,
        };
        // The transforms are done again when they are needed: spectrograms of all recordings may
        // not fit in memory. Here it is only checked that they can be.
        for (index, utterance) in data.utterances.iter().enumerate() {
            let named = |reason: String| {
                let name = format!("utterances[{index}]");
                Error::argument(
                    name,
                    format!("{:?}: {reason}", utterance.text),
                    "a usable one",
                )
            };
            let ids = data.tokenizer.encode(&utterance.text);
            let ids = ids.map_err(|error| named(error.to_string()))?;
            let frames = data.mel.stft().frames(utterance.wave.len());
            let frames = frames.map_err(|error| named(error.to_string()))?;
            if !data.tokenizer.has_symbols(&ids) {
                return Err(named("no symbols".into()));
            }
            if ids.len() > frames {
                return Err(named(format!("{} symbols in {frames} frames", ids.len())));
            }
        }
        Ok(data)
    }

    /// In training, every item is 1 to `most` recordings of one speaker in random order, which
    /// follow from `seed`, with silence of up to 0.2 seconds between them, and their transcripts
    /// with spaces between them. The first recording is that of the item. Where the joined
    /// recordings have more symbols than frames, the item is the first recording alone.
    ///
    /// # Errors
    /// [`Error::Config`] unless `most` is 1 to 64, or if the voice has no space.
    pub fn with_joined(self, most: usize, seed: u64) -> Result<Self> {
        in_range("most", most, 1..=64)?;
        let has_space = self.tokenizer.config().vocab.contains_key(" ");
        ensure(
            most == 1 || has_space,
            "vocab",
            "without a space",
            "a symbol for spaces",
        )?;
        Ok(Self {
            joined: most,
            seed,
            ..self
        })
    }

    /// Mean and standard deviation of all values of the spectrograms, for
    /// [`SpeakerConfig`](super::SpeakerConfig).
    ///
    /// # Errors
    /// Errors of reading the items.
    pub fn mel_statistics(&self) -> Result<(f64, f64)> {
        let (mut count, mut sum, mut squares) = (0usize, 0.0, 0.0);
        for index in 0..self.len() {
            for value in self.get(index)?.log_mel {
                let value = f64::from(value);
                count += 1;
                sum += value;
                squares += value * value;
            }
        }
        let mean = sum / count.max(1) as f64;
        let variance = (squares / count.max(1) as f64 - mean * mean).max(1e-12);
        Ok((mean, variance.sqrt()))
    }

    fn item(&self, samples: &[f32], text: &str, speaker: usize) -> Result<SpeechItem> {
        let frames = self.mel.log_mel(samples)?;
        Ok(SpeechItem {
            ids: self.tokenizer.encode(text)?,
            mel: *self.mel.config(),
            log_mel: frames
                .transposed()
                .into_iter()
                .map(|value| value as f32)
                .collect(),
            speaker,
        })
    }
}

impl Dataset for SpeechDataset {
    type Item = SpeechItem;

    fn len(&self) -> usize {
        self.utterances.len()
    }

    fn get(&self, index: usize) -> Result<SpeechItem> {
        let utterance = &self.utterances[index];
        self.item(
            utterance.wave.channel(0),
            &utterance.text,
            utterance.speaker,
        )
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<SpeechItem> {
        if self.joined == 1 {
            return self.get(index);
        }
        let draw = (epoch * self.len() + index) as u64;
        let mut rng = Rng::stream(self.seed, "joined speech", draw);
        let first = &self.utterances[index];
        let others = &self.of_speaker[&first.speaker];
        let mut samples = first.wave.channel(0).to_vec();
        let mut text = first.text.clone();
        for _ in 0..rng.random_index(self.joined) {
            let pause = MAX_PAUSE * f64::from(first.wave.sample_rate());
            let pause = rng.random_index(pause as usize + 1);
            samples.resize(samples.len() + pause, 0.0);
            let next = &self.utterances[others[rng.random_index(others.len())]];
            samples.extend_from_slice(next.wave.channel(0));
            text.push(' ');
            text.push_str(&next.text);
        }
        let joined = self.item(&samples, &text, first.speaker)?;
        // Spaces are further symbols, for which recordings that are as short as their symbols allow
        // have no frames. Such an item would end the training.
        match joined.ids.len() * joined.mel.n_mels <= joined.log_mel.len() {
            true => Ok(joined),
            false => self.get(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(utterances: Vec<Utterance>) -> Result<SpeechDataset> {
        let tokenizer = VitsTokenizer::from_texts(&["ab"]).unwrap();
        SpeechDataset::new(utterances, tokenizer, MelConfig::hifi_gan(4000, 64, 32, 8))
    }

    /// Silence with the transcript "ab", which has five symbols. A frame has 32 samples.
    fn utterance(samples: usize) -> Utterance {
        Utterance {
            wave: Waveform::silence(1, samples, 4000).unwrap(),
            text: "ab".into(),
            speaker: 0,
        }
    }

    /// Recordings that have as many frames as symbols have none for the space between them.
    #[test]
    fn joined_recordings_have_frames_for_their_symbols() {
        let data = dataset(vec![utterance(160)]).unwrap();
        let data = data.with_joined(2, 1).unwrap();
        let alone = data.get(0).unwrap();
        assert_eq!(alone.ids.len() * alone.mel.n_mels, alone.log_mel.len());
        let mut joined = 0;
        for epoch in 0..400 {
            let item = data.get_in_epoch(0, epoch).unwrap();
            assert!(item.ids.len() * item.mel.n_mels <= item.log_mel.len());
            joined += usize::from(item.ids.len() > alone.ids.len());
        }
        assert!(joined > 100, "{joined} of 400 are joined");
    }

    #[test]
    fn unusable_recordings_are_named() {
        type Change = fn(&mut Utterance);
        let cases: [(Change, &str); 5] = [
            (
                |item| item.wave = Waveform::silence(1, 900, 8000).unwrap(),
                "`utterances[1]` is 8000 Hz, expected 4000 Hz",
            ),
            (|item| item.text = "abc".into(), "'c'"),
            (|item| item.text = " ".into(), "no symbols"),
            (|item| *item = utterance(64), "5 symbols in 2 frames"),
            (
                |item| item.wave = Waveform::mono(vec![f32::NAN; 900], 4000).unwrap(),
                "finite samples",
            ),
        ];
        for (change, expected) in cases {
            let mut all = vec![utterance(900); 2];
            change(&mut all[1]);
            let message = dataset(all).unwrap_err().to_string();
            let named = message.contains("`utterances[1]`");
            assert!(named && message.contains(expected), "{message}");
        }
        let message = dataset(vec![]).unwrap_err().to_string();
        assert!(message.contains("`utterances` is empty"), "{message}");
    }
}
