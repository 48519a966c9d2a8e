//! A vocoder that predicts magnitudes: its spectra are nearer to the original than Griffin-Lim's.

use super::{loader, pitch::voices, settings, train, vocoder::sounds};
use aigc_core::{
    data::{
        InMemory,
        sound::{SoundBatch, collate_sounds},
    },
    dsp::GriffinLimConfig,
    rng::InitWeights,
    testing::flex,
    train::OptimizerConfig,
};
use aigc_gan::vocoder::{
    MagnitudeLossConfig, MagnitudeObjective, MagnitudeVocoderConfig, VocoderMetrics,
    VocoderObjectiveConfig,
};

/// Steps of the training.
const STEPS: usize = 800;
/// Sounds of a batch.
const BATCH: usize = 8;
/// Learning rate after warm-up.
const LEARNING_RATE: f64 = 2e-3;
/// Sounds that are trained on.
const TRAINED: usize = 96;
/// Sounds that are measured.
const HELD_OUT: usize = 16;
/// Most distance of spectra, as a share of Griffin-Lim's.
const MOST_OF_GRIFFIN_LIM: f64 = 0.9;

#[test]
fn predicted_magnitudes_beat_those_of_mels() {
    let device = flex();
    let config = MagnitudeVocoderConfig {
        dim: 64,
        intermediate_dim: 192,
        num_layers: 3,
        ..MagnitudeVocoderConfig::speech_8khz()
    };
    let waves = voices(TRAINED, 1);
    let vocoder = config.init(&device).unwrap().init_weights(0);
    let vocoder = vocoder.with_statistics_of(&waves).unwrap();
    let losses = MagnitudeLossConfig::default();
    let objective = MagnitudeObjective::<SoundBatch>::new(losses, &vocoder).unwrap();
    let held_out = voices(HELD_OUT, 2);
    let resolutions = VocoderObjectiveConfig::speech_8khz(0).resolutions;
    let metrics = VocoderMetrics::new(config.mel_config).unwrap();
    let metrics = metrics.with_resolutions(&resolutions).unwrap();
    let start = metrics.evaluate(&vocoder, &held_out, &device).unwrap().stft;
    let trained = train(
        settings(
            STEPS,
            LEARNING_RATE,
            OptimizerConfig::adam_w(0.9, 0.99, 0.01),
        ),
        objective,
        vocoder,
        &loader(InMemory(sounds(waves)), collate_sounds, BATCH),
    );

    let floor = GriffinLimConfig::new(config.mel_config).init().unwrap();
    let floor = metrics.evaluate(&floor, &held_out, &device).unwrap().stft;
    let found = metrics.evaluate(&trained, &held_out, &device).unwrap().stft;
    assert!(
        found <= MOST_OF_GRIFFIN_LIM * floor && found < start,
        "distance of spectra: {found}, {floor} of Griffin-Lim, {start} at the start"
    );
}
