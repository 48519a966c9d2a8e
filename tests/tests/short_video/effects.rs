//! Sound effects: a class-conditional diffusion model of log-mel spectra, whose samples a
//! classifier of sounds has to recognise.

use crate::{scheduler, train, trainer};
use aigc_core::{
    audio::Vocoder,
    data::{
        DataLoader, DataLoaderConfig, Dataset, Image, ImageShape, InMemory, collate_images,
        effects::{EffectKind, Effects},
        sound::{Sound, collate_sounds},
    },
    dsp::{GriffinLimConfig, MelConfig, MelSpectrogram},
    eval::{
        Proportion,
        sound_classifier::{
            SoundAugmentation, SoundClassifier, SoundClassifierConfig, SoundClassifierObjective,
        },
    },
    testing::{flex, temp_run},
    train::{Trainer, TrainerConfig},
};
use aigc_diffusion::{ClassifierFreeGuidance, DiffusionSampler, UNet2dConfig};
use burn::tensor::Tensor;

/// Training of the classifier: steps, batch size, sounds in the data set, learning rate.
const CLASSIFIER_STEPS: usize = 150;
const CLASSIFIER_BATCH: usize = 32;
const CLASSIFIER_SOUNDS: usize = 640;
const CLASSIFIER_RATE: f64 = 2e-3;
/// Training of the diffusion model.
const STEPS: usize = 160;
const BATCH: usize = 16;
const SOUNDS: usize = 1024;
const RATE: f64 = 2e-3;
/// Channels at each size.
const CHANNELS: [usize; 3] = [16, 32, 32];

/// Sounds that are drawn of each kind, and how.
const EACH: usize = 8;
const SAMPLING_STEPS: usize = 12;
const GUIDANCE: f64 = 2.0;
/// Rounds of Griffin-Lim.
const ROUNDS: usize = 30;
/// Computed sounds that the classifier has not learned.
const HELD_OUT: usize = 96;

/// The least share of held-out sounds, and of drawn ones, that is read as the right kind.
const LEAST_HELD_OUT: f64 = 0.95;
const LEAST_DRAWN: f64 = 0.6;

const SAMPLE_RATE: u32 = 8000;
/// Sizes of a spectrum.
const MELS: usize = 16;
const FRAMES: usize = 32;
/// Samples that a spectrum covers: a little more than a sound of a second.
const COVERED: usize = 8192;
/// The logarithm that is 1 in an image; those of effects stay below it.
const LOUDEST: f64 = 3.0;

fn mel() -> MelConfig {
    let hop = COVERED / FRAMES;
    MelConfig::hifi_gan(SAMPLE_RATE, 2 * hop, hop, MELS)
}

/// Computed effects; kinds follow each other in turn.
fn effects(count: usize, seed: u64) -> Vec<Sound> {
    let effects = Effects::new(count, SAMPLE_RATE, seed).unwrap();
    (0..count)
        .map(|index| effects.get(index).unwrap())
        .collect()
}

/// The spectrum of a sound as a grey image.
fn image(mel: &MelSpectrogram, sound: &Sound) -> Image {
    let mut samples = sound.wave.channel(0).to_vec();
    samples.resize(COVERED, 0.0);
    let low = mel.config().floor.ln();
    let pixel = |value: &f64| {
        (255.0 * (value - low) / (LOUDEST - low))
            .clamp(0.0, 255.0)
            .round()
    };
    let log_mel = mel.log_mel(&samples).unwrap().transposed();
    Image {
        shape: ImageShape::new(1, MELS, FRAMES),
        pixels: log_mel.iter().map(|value| pixel(value) as u8).collect(),
        label: sound.label,
    }
}

fn images(sounds: &[Sound]) -> Vec<Image> {
    let mel = mel().init().unwrap();
    sounds.iter().map(|sound| image(&mel, sound)).collect()
}

/// A classifier that has learned computed effects.
fn classifier() -> SoundClassifier {
    let batches = DataLoaderConfig {
        batch_size: CLASSIFIER_BATCH,
        ..DataLoaderConfig::default()
    };
    let sounds = InMemory(effects(CLASSIFIER_SOUNDS, 1));
    let loader = DataLoader::new(sounds, collate_sounds, batches).unwrap();
    let objective = SoundClassifierObjective::new()
        .with_augmentation(SoundAugmentation::default())
        .unwrap();
    let network = SoundClassifierConfig::new(SAMPLE_RATE, EffectKind::ALL.len());
    let network = network.init(&flex()).unwrap();
    let config = TrainerConfig {
        ema: None,
        ..trainer(CLASSIFIER_STEPS, CLASSIFIER_RATE)
    };
    let run = temp_run().unwrap();
    let trained = Trainer::new(config).fit(objective, network, &loader, &run);
    trained.unwrap().model
}

/// The kinds that are read in the sounds of spectra.
///
/// # Shapes
/// - spectra: `[batch, 1, mels, frames]` in `[0, 1]`
fn read_spectra(classifier: &SoundClassifier, spectra: Tensor<4>) -> Vec<u32> {
    let low = mel().floor.ln();
    let log_mel = spectra.squeeze_dim::<3>(1) * (LOUDEST - low) + low;
    let vocoder = GriffinLimConfig {
        rounds: ROUNDS,
        mel_rounds: ROUNDS,
        ..GriffinLimConfig::new(mel())
    };
    let waves = vocoder.init().unwrap().vocode(log_mel).unwrap();
    let output = classifier.classify(waves.unsqueeze_dim::<3>(1));
    output.unwrap().predictions()
}

fn share(read: &[u32], kinds: &[u32]) -> Proportion {
    let pairs = read.iter().zip(kinds);
    let right = pairs.filter(|(read, kind)| read == kind).count();
    Proportion::new(right, kinds.len()).unwrap()
}

#[test]
fn drawn_effects_are_read_as_the_kind_that_was_asked_for() {
    let classifier = classifier();
    let sounds = effects(HELD_OUT, 2);
    let kinds: Vec<u32> = sounds.iter().filter_map(|sound| sound.label).collect();
    let batches = sounds
        .chunks(CLASSIFIER_BATCH)
        .map(|part| Ok(collate_sounds(part.to_vec())));
    let read = classifier.read(batches, &flex()).unwrap().predictions();
    let held_out = share(&read, &kinds);
    // The best that drawn spectra can reach.
    let spectra = collate_images(images(&sounds)).to_tensor(&flex());
    let again = share(&read_spectra(&classifier, spectra), &kinds);
    assert!(
        held_out.value() >= LEAST_HELD_OUT,
        "of held-out sounds {held_out} are read right, of their spectra {again}"
    );

    let frame = ImageShape::new(1, MELS, FRAMES);
    let network = UNet2dConfig {
        block_out_channels: CHANNELS.to_vec(),
        ..UNet2dConfig::small(frame, Some(EffectKind::ALL.len())).with_null_class()
    };
    let batches = DataLoaderConfig {
        batch_size: BATCH,
        ..DataLoaderConfig::default()
    };
    let learned = InMemory(images(&effects(SOUNDS, 0)));
    let loader = DataLoader::new(learned, collate_images, batches).unwrap();
    let network = network.init(&flex()).unwrap();
    let network = train::<_, _, 4>(network, &loader, trainer(STEPS, RATE));

    let samples =
        DiffusionSampler::<_, 4>::new(&network, &scheduler(), SAMPLING_STEPS, frame, &flex())
            .unwrap()
            .with_guidance(ClassifierFreeGuidance::new(GUIDANCE))
            .class_grid(EACH, 0)
            .unwrap();
    let asked = samples.labels.unwrap();
    let read = read_spectra(&classifier, samples.values);
    let drawn = share(&read, &asked);
    assert!(
        drawn.value() >= LEAST_DRAWN,
        "of drawn sounds {drawn} are of the kind that was asked for, of held-out spectra {again}, \
         of held-out sounds {held_out}; read in the order of the kinds: {read:?}"
    );
}
