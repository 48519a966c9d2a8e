//! A vocoder of a synthetic voice: pulses, one in every frame, through two moving resonances.

use super::{loader, settings, train};
use aigc_core::{
    audio::{Vocoder, Waveform},
    burn::tensor::Device,
    data::{
        InMemory,
        sound::{Sound, SoundBatch, collate_sounds},
    },
    dsp::GriffinLimConfig,
    rng::{InitWeights, Rng},
    testing::flex,
    train::OptimizerConfig,
};
use aigc_gan::{
    Gan,
    vocoder::{
        HifiGanConfig, MultiPeriodDiscriminatorConfig, VocoderMetrics, VocoderObjective,
        VocoderObjectiveConfig, WaveDiscriminators, WaveDiscriminatorsConfig,
    },
};
use std::f32::consts::TAU;

/// Steps of the training.
const STEPS: usize = 300;
/// Sounds of a batch.
const BATCH: usize = 8;
/// Learning rate after warm-up.
const LEARNING_RATE: f64 = 2e-3;
/// Channels before the first upsampling.
const CHANNELS: usize = 64;
/// Weight of the distance of spectra, which is measured; that of mels is 45.
const STFT_WEIGHT: f64 = 45.0;
/// Sounds that are trained on.
const TRAINED: usize = 96;
/// Sounds that are measured.
const HELD_OUT: usize = 16;
/// Rounds of Griffin-Lim.
const ROUNDS: usize = 2;
/// Most distance of spectra, as a share of that at the start.
const MOST_OF_START: f64 = 0.5;
/// Most distance of spectra, as a share of Griffin-Lim's.
const MOST_OF_GRIFFIN_LIM: f64 = 0.9;

/// Samples of a sound, 32 frames.
const LENGTH: usize = 2048;
/// Samples of a period of the voice, a frame. A short training does not learn other pitches, whose
/// phase differs from frame to frame.
const PERIOD: usize = 64;
/// Partials of the voice.
const PARTIALS: usize = 28;
/// Standard deviation of the noise in all sounds.
const NOISE: f32 = 1e-3;

fn config() -> HifiGanConfig {
    HifiGanConfig {
        upsample_initial_channel: CHANNELS,
        ..HifiGanConfig::speech_8khz()
    }
}

/// Sounds whose resonances move, and whose loudness swells and fades.
fn voices(count: usize, seed: u64) -> Vec<Waveform> {
    let rate = config().sampling_rate;
    let wave: Vec<f32> = (0..PERIOD)
        .map(|at| (TAU * at as f32 / PERIOD as f32).cos())
        .collect();
    let mut rng = Rng::new(seed);
    let voice = |_| {
        let drawn = rng.uniform_vec(6, 0.0, 1.0);
        let noise = rng.normal_vec(LENGTH);
        let between = |low: f32, high: f32, at: f32| low + (high - low) * at;
        let sample = |(at, noise): (usize, &f32)| {
            let time = at as f32 / LENGTH as f32;
            let low = between(300.0, 1000.0, between(drawn[0], drawn[1], time));
            let high = between(1300.0, 3200.0, between(drawn[2], drawn[3], time));
            let swell = (TAU * (between(0.5, 1.5, drawn[4]) * time + drawn[5])).cos();
            let partial = |index: usize| {
                let frequency = (index * rate as usize) as f32 / PERIOD as f32;
                let gain =
                    resonance(frequency, low, 120.0) + 0.5 * resonance(frequency, high, 200.0);
                gain * wave[index * at % PERIOD]
            };
            let sum: f32 = (1..=PARTIALS).map(partial).sum();
            0.1 * (1.0 + 0.8 * swell) / 1.8 * sum + NOISE * noise
        };
        let samples = noise.iter().enumerate().map(sample).collect();
        Waveform::mono(samples, rate).unwrap()
    };
    (0..count).map(voice).collect()
}

/// The gain of a resonance of this width.
pub(super) fn resonance(frequency: f32, centre: f32, width: f32) -> f32 {
    1.0 / (1.0 + ((frequency - centre) / width).powi(2))
}

/// Discriminators, which have to be there although none takes part before the last step.
pub(super) fn idle_discriminators(device: &Device) -> WaveDiscriminators {
    let config = WaveDiscriminatorsConfig {
        multi_period: Some(MultiPeriodDiscriminatorConfig {
            periods: vec![2],
            channels: vec![4, 4],
            ..MultiPeriodDiscriminatorConfig::default()
        }),
        multi_scale: None,
        multi_resolution: None,
    };
    config.init(device).unwrap()
}

/// Sounds without labels.
pub(super) fn sounds(waves: Vec<Waveform>) -> Vec<Sound> {
    let sound = |wave: Waveform| Sound {
        len: wave.len(),
        wave,
        label: None,
    };
    waves.into_iter().map(sound).collect()
}

#[test]
fn a_vocoder_beats_a_few_rounds_of_griffin_lim() {
    let device = flex();
    let model = Gan {
        generator: config().init(&device).unwrap(),
        discriminator: idle_discriminators(&device),
    };
    let losses = VocoderObjectiveConfig {
        stft_weight: STFT_WEIGHT,
        ..VocoderObjectiveConfig::speech_8khz(STEPS)
    };
    let objective = VocoderObjective::<_, _, SoundBatch>::new(losses.clone(), &model).unwrap();
    let sounds = sounds(voices(TRAINED, 1));
    let optimizer = OptimizerConfig::adam_w(0.8, 0.99, 0.01);
    let trained = train(
        settings(STEPS, LEARNING_RATE, optimizer),
        objective,
        model,
        &loader(InMemory(sounds), collate_sounds, BATCH),
    );

    let mel = config().mel();
    let metrics = VocoderMetrics::new(mel).unwrap();
    let metrics = metrics.with_resolutions(&losses.resolutions).unwrap();
    let held_out = voices(HELD_OUT, 2);
    let distance = |vocoder: &dyn Vocoder| {
        let scores = metrics.evaluate(vocoder, &held_out, &device).unwrap();
        scores.stft
    };
    let start = distance(&config().init(&device).unwrap().init_weights(0));
    let griffin_lim = GriffinLimConfig {
        rounds: ROUNDS,
        ..GriffinLimConfig::new(mel)
    };
    let griffin_lim = distance(&griffin_lim.init().unwrap());
    let found = distance(&trained.generator.fold());
    assert!(
        found <= MOST_OF_START * start && found <= MOST_OF_GRIFFIN_LIM * griffin_lim,
        "distance of spectra {found}; at the start {start}, of Griffin-Lim {griffin_lim}"
    );
}
