//! A vocoder with a harmonic source: voices whose pitch rises and falls keep it.

use super::{
    loader, settings, train,
    vocoder::{idle_discriminators, resonance, sounds},
};
use aigc_core::{
    audio::{Vocoder, Waveform},
    data::{
        InMemory,
        sound::{SoundBatch, collate_sounds},
    },
    rng::{InitWeights, Rng},
    testing::{flex, values},
    train::OptimizerConfig,
};
use aigc_gan::{
    Gan,
    vocoder::{NsfHifiGan, NsfHifiGanConfig, VocoderObjective, VocoderObjectiveConfig},
};
use std::f32::consts::TAU;

/// Steps of the training.
const STEPS: usize = 300;
/// Sounds of a batch.
const BATCH: usize = 8;
/// Learning rate after warm-up.
const LEARNING_RATE: f64 = 2e-3;
/// Sounds that are trained on.
const TRAINED: usize = 96;
/// Sounds that are measured.
const HELD_OUT: usize = 16;
/// Most frames with another pitch or none.
const MOST_WRONG: f64 = 0.35;
/// Greatest difference of pitches that are the same, relative to the right one.
const TOLERANCE: f32 = 0.08;
/// Frames of a sound.
const FRAMES: usize = 32;
/// Frames at both ends that are not measured.
const ENDS: usize = 5;
/// Samples of a sound.
const LENGTH: usize = 64 * FRAMES;
/// Standard deviation of the noise in all sounds.
const NOISE: f32 = 1e-3;

/// Sounds of a pitch between 90 and 250 Hz, which moves by a third, and of two resonances.
pub(super) fn voices(count: usize, seed: u64) -> Vec<Waveform> {
    let rate = 8000;
    let mut rng = Rng::new(seed);
    let voice = |_| {
        let drawn = rng.uniform_vec(4, 0.0, 1.0);
        let noise = rng.normal_vec(LENGTH);
        let start = 90.0 * (250f32 / 90.0).powf(drawn[0]);
        let end = start * (0.75 + 0.58 * drawn[1]);
        let (low, high) = (300.0 + 700.0 * drawn[2], 1300.0 + 1900.0 * drawn[3]);
        let mut phase = 0.0f32;
        let sample = |(at, noise): (usize, &f32)| {
            let pitch = start + (end - start) * at as f32 / LENGTH as f32;
            phase = (phase + pitch / rate as f32).fract();
            let partial = |index: usize| {
                let frequency = index as f32 * pitch;
                let gain =
                    resonance(frequency, low, 120.0) + 0.5 * resonance(frequency, high, 200.0);
                gain * (TAU * index as f32 * phase).cos()
            };
            let heard = (rate as f32 / 2.0 / pitch) as usize;
            let sum: f32 = (1..heard).map(partial).sum();
            0.15 * sum + NOISE * noise
        };
        let samples = noise.iter().enumerate().map(sample).collect();
        Waveform::mono(samples, rate).unwrap()
    };
    (0..count).map(voice).collect()
}

#[test]
fn a_vocoder_with_a_source_keeps_the_pitch() {
    let device = flex();
    let config = NsfHifiGanConfig::speech_8khz();
    let waves = voices(TRAINED, 1);
    let generator = config.init(&device).unwrap();
    let model = Gan {
        generator: generator.with_statistics_of(&waves).unwrap(),
        discriminator: idle_discriminators(&device),
    };
    let losses = VocoderObjectiveConfig::speech_8khz(STEPS);
    let objective = VocoderObjective::<_, _, SoundBatch>::new(losses, &model).unwrap();
    let sounds = sounds(waves);
    let optimizer = OptimizerConfig::adam_w(0.8, 0.99, 0.01);
    let trained = train(
        settings(STEPS, LEARNING_RATE, optimizer),
        objective,
        model,
        &loader(InMemory(sounds), collate_sounds, BATCH),
    );

    let held_out = voices(HELD_OUT, 2);
    let mel = config.mel_config.init().unwrap();
    let tracker = config.pitch_config().init().unwrap();
    // Of the inner frames with a pitch, the share with another or none: at the ends, sounds fade.
    let error = |vocoder: &NsfHifiGan| {
        let (mut wrong, mut count) = (0, 0);
        for wave in &held_out {
            let wave = wave.to_tensor(&device);
            let again = vocoder.vocode(mel.log_mel_tensor(wave.clone())).unwrap();
            let [found, expected] = [again, wave].map(|wave| tracker.track(&values(wave), FRAMES));
            let pairs = found.iter().zip(&expected);
            let inner = pairs.skip(ENDS).take(FRAMES - 2 * ENDS);
            for (found, expected) in inner.filter(|(_, expected)| **expected > 0.0) {
                count += 1;
                wrong += usize::from((found / expected - 1.0).abs() > TOLERANCE);
            }
        }
        wrong as f64 / count as f64
    };
    let start = error(&config.init(&device).unwrap().init_weights(0));
    let found = error(&trained.generator);
    assert!(
        found <= MOST_WRONG && start > 0.8,
        "frames with another pitch: {found}, {start} at the start"
    );
}
