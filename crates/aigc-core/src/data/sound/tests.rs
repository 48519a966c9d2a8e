use super::{Sound, WaveFolder, WaveFolderConfig, collate_sounds, digit_of_name};
use crate::{
    audio::{WavFormat, Waveform, write_wav},
    data::{DataLoader, DataLoaderConfig, Dataset, OnReadError, SampleBatch},
};
use std::path::Path;

/// Samples that count up in steps of 2⁻¹⁰, which files keep.
fn write(path: &Path, len: usize, rate: u32) {
    let samples = (0..len).map(|i| i as f32 / 1024.0).collect();
    write_wav(
        &Waveform::mono(samples, rate).unwrap(),
        path,
        WavFormat::Pcm16,
    )
    .unwrap();
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    write(&dir.path().join("1_b_0.wav"), 4, 8000);
    write(&dir.path().join("sub/2_a_7.WAV"), 12, 8000);
    write(&dir.path().join(".hidden.wav"), 4, 8000);
    std::fs::write(dir.path().join("README.txt"), "no sound").unwrap();
    dir
}

fn config() -> WaveFolderConfig {
    WaveFolderConfig {
        length: Some(6),
        ..WaveFolderConfig::default()
    }
}

#[test]
fn sounds_are_cut_padded_and_labelled() {
    let dir = folder();
    let sounds = WaveFolder::open(dir.path(), config())
        .unwrap()
        .with_label(|path| digit_of_name(path).map(|name| name.digit.into()))
        .unwrap();
    let (short, long) = (sounds.get(0).unwrap(), sounds.get(1).unwrap());
    assert_eq!(
        (short.len, short.label, long.len, long.label),
        (4, Some(1), 6, Some(2))
    );
    let values =
        |sound: &Sound| -> Vec<f32> { sound.wave.channel(0).iter().map(|x| x * 1024.0).collect() };
    assert_eq!(values(&short), [0.0, 1.0, 2.0, 3.0, 0.0, 0.0]);
    assert_eq!(values(&long), [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let test = sounds
        .clone()
        .filter(|path| path.ends_with("1_b_0.wav"))
        .unwrap();
    assert_eq!(test.len(), 1);
    assert!(sounds.clone().filter(|_| false).is_err());
    let error = sounds.with_label(|_| None).unwrap_err().to_string();
    assert!(
        error.contains("1_b_0.wav") && error.contains("label"),
        "{error}"
    );
}

/// The volume is that of the whole file, not of the part that is cut out.
#[test]
fn sounds_are_equally_loud() {
    let dir = folder();
    let [plain, scaled] = [None, Some(0.5)].map(|normalize_peak| {
        let config = WaveFolderConfig {
            normalize_peak,
            ..config()
        };
        WaveFolder::open(dir.path(), config).unwrap()
    });
    let whole = WaveFolder::open(dir.path(), WaveFolderConfig::default()).unwrap();
    for index in 0..2 {
        let [plain, scaled] = [&plain, &scaled].map(|sounds| sounds.get(index).unwrap().wave);
        let gain = 0.5 / whole.get(index).unwrap().wave.peak();
        let same = plain.channel(0).iter().zip(scaled.channel(0));
        for (plain, scaled) in same {
            assert!((plain * gain - scaled).abs() < 1e-6);
        }
        assert!(scaled.peak() <= 0.5);
    }
}

#[test]
fn crops_depend_on_seed_and_epoch_alone() {
    let dir = folder();
    let seeded = WaveFolderConfig {
        crop_seed: Some(3),
        ..config()
    };
    let sounds = WaveFolder::open(dir.path(), seeded).unwrap();
    let first = |epoch| sounds.get_in_epoch(1, epoch).unwrap().wave.channel(0)[0];
    let firsts: Vec<f32> = (0..20).map(first).collect();
    let again: Vec<f32> = (0..20).map(first).collect();
    assert_eq!(firsts, again);
    assert!(firsts.iter().any(|x| *x != firsts[0]));
    let middle = WaveFolder::open(dir.path(), config()).unwrap();
    assert_eq!(middle.get_in_epoch(1, 5).unwrap(), middle.get(1).unwrap());
}

#[test]
fn rates_and_channels_are_converted() {
    let dir = folder();
    let stereo = WaveFolderConfig {
        sample_rate: Some(16_000),
        channels: Some(2),
        ..WaveFolderConfig::default()
    };
    let sound = WaveFolder::open(dir.path(), stereo)
        .unwrap()
        .get(1)
        .unwrap();
    assert_eq!(
        (sound.wave.num_channels(), sound.wave.sample_rate()),
        (2, 16_000)
    );
    assert_eq!((sound.wave.len(), sound.len), (24, 24));
}

/// A batch has one rate. Files of several are named, unless they are resampled.
#[test]
fn files_of_another_rate_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, rate) in [("a.wav", 8000), ("b.wav", 16_000), ("c.wav", 16_000)] {
        write(&dir.path().join(name), 40, rate);
    }
    let sounds = |sample_rate| {
        let config = WaveFolderConfig {
            sample_rate,
            ..WaveFolderConfig::default()
        };
        WaveFolder::open(dir.path(), config).unwrap()
    };
    for first in [0, 1] {
        let kept = sounds(None);
        assert_eq!(kept.get(first).is_ok(), first == 0);
        let message = kept.get(1).unwrap_err().to_string();
        for expected in ["b.wav", "16000 Hz", "a.wav 8000 Hz", "`sample_rate`"] {
            assert!(message.contains(expected), "{message}");
        }
    }
    let others = sounds(None)
        .filter(|path| !path.ends_with("a.wav"))
        .unwrap();
    assert_eq!(others.get(1).unwrap().wave.sample_rate(), 16_000);
    assert_eq!(sounds(Some(8000)).get(1).unwrap().wave.sample_rate(), 8000);
}

#[test]
fn bad_files_fail_or_are_skipped() {
    let dir = folder();
    std::fs::write(dir.path().join("0_bad_0.wav"), "RIFF").unwrap();
    for on_read_error in [OnReadError::Fail, OnReadError::Skip] {
        let sounds = WaveFolder::open(dir.path(), config()).unwrap();
        let loader_config = DataLoaderConfig {
            batch_size: 3,
            num_workers: 2,
            on_read_error,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(sounds, collate_sounds, loader_config).unwrap();
        let batch = loader.iter_from(0).next_batch();
        if on_read_error == OnReadError::Skip {
            assert_eq!(batch.unwrap().sample_shape().dims(), [1, 6]);
            assert!(loader.skipped()[0].contains("0_bad_0.wav"));
        } else {
            assert!(batch.unwrap_err().to_string().contains("0_bad_0.wav"));
        }
    }
}

#[test]
fn silent_files_are_named_where_silence_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let silence = Waveform::silence(1, 800, 8000).unwrap();
    let path = dir.path().join("quiet.wav");
    write_wav(&silence, &path, WavFormat::Pcm16).unwrap();
    let read = |trim_silence| {
        let config = WaveFolderConfig {
            trim_silence,
            ..config()
        };
        WaveFolder::open(dir.path(), config).unwrap().get(0)
    };
    assert_eq!(read(None).unwrap().len, 6);
    let error = read(Some(40.0)).unwrap_err().to_string();
    assert!(
        error.contains("quiet.wav") && error.contains("silence"),
        "{error}"
    );
}

/// A data set as it was downloaded is not unpacked yet.
#[test]
fn archives_in_place_of_sounds_are_named() {
    for (name, command) in [
        ("speech.tar.gz", "tar -xzf"),
        ("speech.TGZ", "tar -xzf"),
        ("speech.zip", "unzip"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("README.md"), "sounds").unwrap();
        std::fs::write(dir.path().join(name), "packed").unwrap();
        let error = WaveFolder::open(dir.path(), config()).unwrap_err();
        let (error, path) = (error.to_string(), dir.path().join(name));
        let expected = format!(
            "the archive {name}; unpack it: {command} \"{}\"",
            path.display()
        );
        assert!(error.contains(&expected), "{error}");
        // Beside a sound, an archive is nothing to complain of.
        write(&dir.path().join("one.wav"), 4, 8000);
        assert_eq!(WaveFolder::open(dir.path(), config()).unwrap().len(), 1);
    }
}

#[test]
fn bad_values_and_empty_folders_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = WaveFolder::open(empty.path(), config()).unwrap_err();
    assert!(error.to_string().contains("no sound"), "{error}");
    let error = |config: WaveFolderConfig| config.validate().unwrap_err().to_string();
    let default = WaveFolderConfig::default;
    let bad = WaveFolderConfig {
        channels: Some(3),
        ..default()
    };
    assert!(error(bad).contains("`channels` is 3"));
    let bad = WaveFolderConfig {
        length: Some(0),
        ..default()
    };
    assert!(error(bad).contains("`length` is 0"));
    let bad = WaveFolderConfig {
        trim_silence: Some(-3.0),
        ..default()
    };
    assert!(error(bad).contains("`trim_silence` is -3"));
    for peak in [0.0, 1.5, f32::NAN] {
        let bad = WaveFolderConfig {
            normalize_peak: Some(peak),
            ..default()
        };
        assert!(error(bad).contains("`normalize_peak` is"));
    }
    let bad = WaveFolderConfig {
        sample_rate: Some(0),
        ..default()
    };
    assert!(error(bad).contains("`sample_rate` is 0"));
}
