//! A speaker of a language whose letters are tones, each of its own frequency and length.

use super::{loader, settings, train};
use aigc_core::{
    audio::Waveform,
    dsp::{GriffinLimConfig, MelConfig, MelSpectrogram},
    rng::Rng,
    testing::flex,
    train::OptimizerConfig,
};
use aigc_vae::speech::{
    SpeakerConfig, SpeakerOptions, SpeechBatch, SpeechDataset, SpeechObjective, Utterance,
    VitsTokenizer,
};
use std::{collections::BTreeSet, f64::consts::TAU, ops::RangeInclusive};

/// Steps of the training.
const STEPS: usize = 600;
/// Words of a batch.
const BATCH: usize = 16;
/// Learning rate after warm-up.
const LEARNING_RATE: f64 = 3e-3;
/// Words that are trained on.
const TRAINED: usize = 192;
/// Letters of these words.
const TRAINED_LETTERS: RangeInclusive<usize> = 2..=5;
/// Words that are spoken.
const SPOKEN: usize = 40;
/// Letters of these words.
const SPOKEN_LETTERS: RangeInclusive<usize> = 4..=7;
/// Rounds of Griffin-Lim.
const ROUNDS: usize = 30;
/// Least share of letters that are spoken in their places.
const LEAST_RIGHT: f64 = 0.9;
/// Most mean error of the lengths of words, as a share of the length.
const MOST_LENGTH_ERROR: f64 = 0.25;

/// Letters, the frequencies of their tones, and their lengths in frames.
const LETTERS: [(char, f64, usize); 6] = [
    ('a', 160.0, 8),
    ('e', 400.0, 14),
    ('i', 640.0, 10),
    ('m', 880.0, 16),
    ('o', 1130.0, 12),
    ('s', 1560.0, 18),
];
/// Samples per second.
const RATE: u32 = 4000;
/// Samples of a frame.
const HOP: usize = 32;
/// Standard deviation of the noise in all recordings.
const NOISE: f32 = 0.005;
/// Frames of the shortest tone that counts: between two letters, frames have parts of both.
const LEAST_FRAMES: usize = 3;

/// A word by the indices of its letters.
type Word = Vec<usize>;

fn mel() -> MelConfig {
    MelConfig::hifi_gan(RATE, 128, HOP, 20)
}

fn text(word: &[usize]) -> String {
    word.iter().map(|letter| LETTERS[*letter].0).collect()
}

/// Different words that are not among `known`. No letter follows itself: no sound would say where
/// one of the two ends.
fn words(
    count: usize,
    letters: RangeInclusive<usize>,
    known: &BTreeSet<Word>,
    rng: &mut Rng,
) -> BTreeSet<Word> {
    let (least, most) = letters.into_inner();
    let mut words = BTreeSet::new();
    while words.len() < count {
        let mut word = vec![rng.random_index(LETTERS.len())];
        for _ in 1..least + rng.random_index(most - least + 1) {
            let other = 1 + rng.random_index(LETTERS.len() - 1);
            word.push((word[word.len() - 1] + other) % LETTERS.len());
        }
        if !known.contains(&word) {
            words.insert(word);
        }
    }
    words
}

/// The tones of a word, in faint noise.
fn samples(word: &[usize], rng: &mut Rng) -> Vec<f32> {
    let mut samples = Vec::new();
    for letter in word {
        let (_, frequency, frames) = LETTERS[*letter];
        let noise = rng.normal_vec(frames * HOP);
        samples.extend(noise.iter().enumerate().map(|(at, noise)| {
            let phase = TAU * frequency * at as f64 / f64::from(RATE);
            (0.5 * phase.sin()) as f32 + NOISE * noise
        }));
    }
    samples
}

/// The band with the most energy in each frame of a sound.
fn peaks(samples: &[f32], mel: &MelSpectrogram) -> Vec<usize> {
    let frames = mel.log_mel(samples).unwrap();
    let peak = |frame: usize| {
        let bands = frames.frame(frame).iter().enumerate();
        let largest = bands.max_by(|(_, a), (_, b)| a.total_cmp(b));
        largest.expect("a mel has bands").0
    };
    (0..frames.len()).map(peak).collect()
}

/// The letters of a sound: those whose `bands` are nearest to the peaks of its frames.
fn heard(samples: &[f32], mel: &MelSpectrogram, bands: &[usize]) -> Word {
    let nearest = |peak: usize| {
        let letters = 0..bands.len();
        letters.min_by_key(|letter| bands[*letter].abs_diff(peak))
    };
    let letters: Word = peaks(samples, mel)
        .into_iter()
        .filter_map(nearest)
        .collect();
    let tones = letters.chunk_by(|a, b| a == b);
    let tones = tones.filter(|tone| tone.len() >= LEAST_FRAMES);
    let mut letters: Word = tones.map(|tone| tone[0]).collect();
    letters.dedup();
    letters
}

/// The least number of letters to insert, remove or replace that turns one word into another.
fn edits(found: &[usize], expected: &[usize]) -> usize {
    let mut row: Vec<usize> = (0..=expected.len()).collect();
    for (index, letter) in found.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], index + 1);
        for (at, other) in expected.iter().enumerate() {
            let replaced = before + usize::from(letter != other);
            before = row[at + 1];
            row[at + 1] = replaced.min(before + 1).min(row[at] + 1);
        }
    }
    row[expected.len()]
}

#[test]
fn words_never_trained_are_spoken_letter_by_letter() {
    let mut rng = Rng::new(1);
    let trained = words(TRAINED, TRAINED_LETTERS, &BTreeSet::new(), &mut rng);
    let spoken = words(SPOKEN, SPOKEN_LETTERS, &trained, &mut rng);
    let spectra = mel().init().unwrap();
    let bands: Vec<usize> = (0..LETTERS.len())
        .map(|letter| {
            let peaks = peaks(&samples(&[letter], &mut rng), &spectra);
            peaks[peaks.len() / 2]
        })
        .collect();
    let different: BTreeSet<usize> = bands.iter().copied().collect();
    assert_eq!(different.len(), LETTERS.len(), "bands {bands:?}");

    let recordings = trained.iter().map(|word| Utterance {
        wave: Waveform::mono(samples(word, &mut rng), RATE).unwrap(),
        text: text(word),
        speaker: 0,
    });
    let recordings: Vec<Utterance> = recordings.collect();
    // What is read in the recordings is what they say.
    for (recording, word) in recordings.iter().zip(&trained) {
        assert_eq!(heard(recording.wave.channel(0), &spectra, &bands), *word);
    }
    let alphabet = text(&(0..LETTERS.len()).collect::<Word>());
    let tokenizer = VitsTokenizer::from_texts(&[alphabet]).unwrap();
    let data = SpeechDataset::new(recordings, tokenizer.clone(), mel()).unwrap();
    let (mel_mean, mel_std) = data.mel_statistics().unwrap();
    let config = SpeakerConfig {
        mel_mean,
        mel_std,
        hidden_size: 32,
        num_hidden_layers: 2,
        ffn_dim: 64,
        duration_filter_channels: 32,
        decoder_channels: 48,
        decoder_dilations: vec![1, 2, 4],
        dropout: 0.0,
        ..SpeakerConfig::new(&tokenizer, mel())
    };
    let speaker = train(
        settings(STEPS, LEARNING_RATE, OptimizerConfig::default()),
        SpeechObjective::new(),
        config.init(&flex()).unwrap(),
        &loader(data, SpeechBatch::collate, BATCH),
    );

    let vocoder = GriffinLimConfig {
        rounds: ROUNDS,
        ..GriffinLimConfig::new(mel())
    };
    let (vocoder, options) = (vocoder.init().unwrap(), SpeakerOptions::default());
    let (mut wrong, mut letters, mut error) = (0, 0, 0.0);
    let mut faults = Vec::new();
    for word in &spoken {
        let wave = speaker.speak(&text(word), &options, &vocoder, &mut rng);
        let wave = wave.unwrap();
        let found = heard(wave.channel(0), &spectra, &bands);
        wrong += edits(&found, word);
        letters += word.len();
        if found != *word {
            faults.push([text(word), text(&found)]);
        }
        let frames: usize = word.iter().map(|letter| LETTERS[*letter].2).sum();
        error += (wave.len() as f64 / (frames * HOP) as f64 - 1.0).abs();
    }
    let right = 1.0 - wrong as f64 / letters as f64;
    assert!(
        right >= LEAST_RIGHT,
        "{right} of {letters} letters are right; words and what was heard: {faults:?}"
    );
    let error = error / spoken.len() as f64;
    assert!(
        error <= MOST_LENGTH_ERROR,
        "words are wrong in length by {error}"
    );
}
