use super::*;
use crate::{
    audio::Waveform,
    data::{
        DataLoader, DataLoaderConfig, InMemory,
        sound::{Sound, collate_sounds},
    },
    rng::{InitWeights, Rng},
    testing::{assert_close, flex, temp_run, values},
    train::{Objective, StepContext, Trainer, TrainerConfig},
};

fn small() -> SoundClassifierConfig {
    SoundClassifierConfig {
        length: 2000,
        channels: vec![8, 8, 8],
        hidden: 16,
        ..SoundClassifierConfig::new(8000, 3)
    }
}

/// Tones of three pitches with noise.
fn tones(count: usize, seed: u64) -> Vec<Sound> {
    let mut rng = Rng::new(seed);
    let tone = |index: usize| {
        let class = index % 3;
        let step = [0.2, 0.6, 1.4][class] + 0.02 * rng.normal_vec(1)[0];
        let noise = rng.normal_vec(2000);
        let samples = noise.iter().enumerate();
        let samples = samples.map(|(t, noise)| 0.4 * (step * t as f32).sin() + 0.01 * noise);
        Sound {
            wave: Waveform::mono(samples.collect(), 8000).unwrap(),
            len: 2000,
            label: Some(class as u32),
        }
    };
    (0..count).map(tone).collect()
}

#[test]
fn tones_are_learnt() {
    let run = temp_run().unwrap();
    let config = DataLoaderConfig {
        batch_size: 12,
        num_workers: 0,
        shuffle_seed: Some(1),
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(InMemory(tones(48, 1)), collate_sounds, config).unwrap();
    let objective = SoundClassifierObjective::new();
    let objective = objective.with_augmentation(SoundAugmentation::default());
    let training = TrainerConfig {
        learning_rate: 3e-3,
        save_steps: 0,
        ..TrainerConfig::new(60)
    };
    let network = small().init(&flex()).unwrap();
    let trained = Trainer::new(training).fit(objective.unwrap(), network, &loader, &run);
    let network = trained.unwrap().model;
    let test = collate_sounds(tones(30, 2));
    let labels = test.labels().unwrap().to_vec();
    let readings = network.read([Ok(test)], &flex()).unwrap();
    let right = readings
        .predictions()
        .iter()
        .zip(&labels)
        .filter(|(a, b)| a == b)
        .count();
    assert!(right >= 28, "{right} of 30");
    assert_eq!(
        (readings.features.width(), readings.logits.width()),
        (16, 3)
    );

    let dir = run.dir().join("saved");
    network.save_pretrained(&dir).unwrap();
    let again = SoundClassifier::from_pretrained(&dir, &flex())
        .unwrap()
        .into_inner();
    let waves = collate_sounds(tones(3, 3)).to_tensor(&flex());
    let [a, b] = [&network, &again].map(|network| network.extract(waves.clone()).unwrap());
    assert_close(&values(a), &values(b), 1e-6);
    assert_eq!(again.id(), network.id());
}

#[test]
fn sounds_are_cut_padded_and_mixed() {
    let network = small().init(&flex()).unwrap().init_weights(1);
    let waves: Tensor<3> = Rng::new(1).normal([2, 1, 2500], &flex()) * 0.1;
    let features = |waves: Tensor<3>| values(network.extract(waves).unwrap());
    let whole = features(waves.clone());
    let cut = waves.clone().narrow(2, 0, 2000);
    assert_close(&whole, &features(cut.clone()), 1e-6);
    let stereo = Tensor::cat(vec![cut.clone() * 1.5, cut.clone() * 0.5], 1);
    assert_close(&whole, &features(stereo), 1e-4);
    let short = cut.clone().narrow(2, 0, 1200);
    let padded = Tensor::cat(vec![short.clone(), Tensor::zeros([2, 1, 800], &flex())], 2);
    assert_close(&features(short), &features(padded), 1e-6);
}

#[test]
fn bad_settings_and_batches_are_named() {
    let error = |change: fn(&mut SoundClassifierConfig)| {
        let mut config = small();
        change(&mut config);
        config.init(&flex()).unwrap_err().to_string()
    };
    assert!(error(|config| config.channels = vec![8, 8]).contains("`channels`"));
    assert!(error(|config| config.channels = vec![8, 8, 9]).contains("`channels`"));
    assert!(error(|config| config.length = 500).contains("`length`"));
    assert!(error(|config| config.mel.n_mels = 4).contains("`mel.n_mels`"));
    assert!(error(|config| config.num_classes = 1).contains("`num_classes`"));

    let device = flex().autodiff();
    let network = small().init(&device).unwrap().init_weights(0);
    let losses = |sounds: Vec<Sound>| {
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(0));
        SoundClassifierObjective::new().losses(&network, &collate_sounds(sounds), &mut context)
    };
    assert!(losses(tones(3, 0)).is_ok());
    let changed = |change: fn(&mut Sound)| {
        let mut sounds = tones(1, 0);
        change(&mut sounds[0]);
        losses(sounds).unwrap_err().to_string()
    };
    assert!(changed(|sound| sound.label = None).contains("`labels` is missing"));
    assert!(changed(|sound| sound.label = Some(3)).contains("`labels` is 3"));
    let rate = changed(|sound| {
        sound.wave = Waveform::silence(1, 2000, 16_000).unwrap();
    });
    assert!(rate.contains("`sample_rate` is 16000"), "{rate}");
    let other = collate_sounds(vec![Sound {
        wave: Waveform::silence(1, 2000, 16_000).unwrap(),
        len: 2000,
        label: None,
    }]);
    let error = network.read([Ok(other)], &device).unwrap_err().to_string();
    assert!(error.contains("`sample_rate` is 16000"), "{error}");
    assert!(network.read([], &device).is_err());
    for bad in [
        SoundAugmentation {
            shift: 2.0,
            ..SoundAugmentation::default()
        },
        SoundAugmentation {
            gain: 0.5,
            ..SoundAugmentation::default()
        },
        SoundAugmentation {
            noise: [0.0, 0.1],
            ..SoundAugmentation::default()
        },
    ] {
        let objective = SoundClassifierObjective::new();
        assert!(objective.with_augmentation(bad).is_err());
    }
}
