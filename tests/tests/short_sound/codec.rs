//! A codec of sound effects: the one for speech with half of its channels and a quarter of its
//! codes.

use super::{loader, settings, train};
use aigc_core::{
    audio::{AudioCodec, Waveform},
    data::{
        Dataset, InMemory, SampleBatch,
        effects::Effects,
        sound::{Sound, SoundBatch, collate_sounds},
    },
    dsp::MelLoss,
    rng::{InitWeights, Rng},
    testing::flex,
    train::OptimizerConfig,
};
use aigc_vae::codec::{CodecLossConfig, CodecObjective, CodecUsage, EncodecConfig, EncodecModel};
use burn::tensor::{Int, Tensor};

/// Steps of the training.
const STEPS: usize = 300;
/// Sounds of a batch.
const BATCH: usize = 12;
/// Learning rate after warm-up.
const LEARNING_RATE: f64 = 3e-3;
/// Sounds that are trained on.
const TRAINED: usize = 128;
/// Sounds that are measured.
const HELD_OUT: usize = 48;
/// Most mel distance, as a share of that of a codec without training.
const MOST_OF_UNTRAINED: f64 = 0.6;
/// Most mel distance, as a share of that of silence.
const MOST_OF_SILENCE: f64 = 0.4;
/// Least share of the codes of every codebook that are in use.
const LEAST_USED: f64 = 0.5;

/// Samples per second.
const RATE: u32 = 8000;
/// Samples of a sound.
const LENGTH: usize = 4000;
/// Standard deviation of the noise in all sounds. No recording is ever silent; without noise, the
/// distance would be that of the networks' last trace of sound from digital silence.
const NOISE: f32 = 0.004;

/// Four codebooks of 64 codes, 1.2 kbit/s. A short training needs averages with a short memory.
fn config() -> EncodecConfig {
    EncodecConfig {
        target_bandwidths: vec![0.3, 0.6, 0.9, 1.2],
        hidden_size: 32,
        num_filters: 8,
        codebook_size: 64,
        codebook_decay: 0.9,
        revive_below: 0.1,
        ..EncodecConfig::speech_8khz()
    }
}

/// The beginnings of effects of all kinds, with faint noise.
fn sounds(count: usize, seed: u64) -> Vec<Sound> {
    let effects = Effects::new(count, RATE, seed).unwrap();
    let mut rng = Rng::new(seed);
    let sound = |index: usize| {
        let noise = rng.normal_vec(LENGTH);
        let effect = effects.get(index).unwrap().wave;
        let samples = effect.channel(0).iter().zip(&noise);
        let samples = samples.map(|(sample, noise)| sample + NOISE * noise);
        Sound {
            wave: Waveform::mono(samples.collect(), RATE).unwrap(),
            len: LENGTH,
            label: None,
        }
    };
    (0..count).map(sound).collect()
}

/// The mean distance of log-mels of five lengths, those of the training.
fn mel_distance(estimates: &Tensor<3>, targets: &Tensor<3>) -> f64 {
    let mels = MelLoss::new(&CodecLossConfig::new(RATE).mels).unwrap();
    let time = estimates.dims()[2].min(targets.dims()[2]);
    let [estimates, targets] =
        [estimates, targets].map(|waves| waves.clone().narrow(2, 0, time).squeeze_dim::<2>(1));
    f64::from(mels.forward(estimates, targets).into_scalar::<f32>())
}

/// The mel distance of decoded sounds from the sounds, and the codes.
fn reproduce(codec: &EncodecModel, sounds: &Tensor<3>) -> (f64, Tensor<3, Int>) {
    let codes = codec.encode(sounds.clone()).unwrap();
    let decoded = codec.decode(codes.clone()).unwrap();
    (mel_distance(&decoded, sounds), codes)
}

#[test]
fn a_codec_reproduces_effects_it_never_heard() {
    let device = flex();
    let codec = config().init(&device).unwrap();
    let objective = CodecObjective::<_, SoundBatch>::new(CodecLossConfig::new(RATE), &codec);
    let trained = train(
        settings(STEPS, LEARNING_RATE, OptimizerConfig::adam(0.8, 0.99)),
        objective.unwrap(),
        codec,
        &loader(InMemory(sounds(TRAINED, 1)), collate_sounds, BATCH),
    );

    let held_out = collate_sounds(sounds(HELD_OUT, 2)).to_tensor(&device);
    let untrained = config().init(&device).unwrap().init_weights(0);
    let (before, _) = reproduce(&untrained, &held_out);
    let silence = mel_distance(&held_out.zeros_like(), &held_out);
    let (after, codes) = reproduce(&trained, &held_out);
    assert!(
        after <= MOST_OF_UNTRAINED * before && after <= MOST_OF_SILENCE * silence,
        "mel distance {after}; without training {before}, of silence {silence}"
    );

    let codebooks = trained.num_codebooks();
    assert_eq!(codebooks, 4);
    let mut usage = CodecUsage::new(codebooks, trained.codebook_size()).unwrap();
    usage.add(codes);
    let usage = usage.usage();
    assert!(
        usage.iter().all(|share| *share > LEAST_USED),
        "codes in use of each codebook: {usage:?}"
    );
}
