//! Vocoders: against transformers, in pieces, with weight normalisation, and refusals.

use aigc_core::{
    audio::{Vocoder, Waveform},
    device::device,
    dsp::MelConfig,
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
    weights::{TensorSource, WeightReader, save_tensors},
};
use aigc_gan::vocoder::{HifiGan, HifiGanConfig, UnivNet, UnivNetConfig, VocoderMetrics};
use aigc_tests::fixtures::{Case, every};
use burn::tensor::{Device, Tensor, TensorData};
use std::{collections::BTreeMap, path::Path};

mod training;

fn flex() -> Device {
    device("flex").unwrap()
}

/// Both outputs of a case of HiFi-GAN.
fn assert_waveforms(case: &Case, vocoder: &HifiGan) {
    let log_mel = case.float::<3>("spectrogram").swap_dims(1, 2);
    let waveform = vocoder.vocode(log_mel.clone()).unwrap();
    case.assert_within("waveform", &waveform);
    let single = vocoder.vocode(log_mel.clone().narrow(0, 0, 1)).unwrap();
    case.assert_within("waveform.single", &single.squeeze_dim::<1>(0));
    let pieces = vocoder.vocode_in_chunks(log_mel, 3).unwrap();
    case.assert_within("waveform", &pieces);
}

#[test]
fn hifigan_is_that_of_transformers() {
    every(
        |case| case.text("kind") == "SpeechT5HifiGan",
        |case| {
            let vocoder = HifiGan::from_pretrained(case.dir.join("model"), &flex()).unwrap();
            assert!(vocoder.unused_fields.is_empty() && vocoder.unused_tensors.is_empty());
            assert_waveforms(case, &vocoder);
        },
    );
}

/// The weights of a file as PyTorch's weight norm stores them, under either pair of names.
fn store_normalized(from: &Path, to: &Path, [gain, direction]: [&str; 2]) {
    let files = WeightReader::from_dir(from, &["model"]).unwrap();
    let mut tensors = BTreeMap::new();
    for name in files.names() {
        let (shape, stored) = (
            files.shape(name).unwrap().to_vec(),
            files.read(name).unwrap(),
        );
        let layer = name.strip_suffix("weight").filter(|_| shape.len() == 3);
        let Some(layer) = layer else {
            tensors.insert(name.to_string(), TensorData::new(stored, shape));
            continue;
        };
        let row = stored.len() / shape[0];
        let norms: Vec<f32> = stored
            .chunks_exact(row)
            .map(|row| row.iter().map(|x| x * x).sum::<f32>().sqrt())
            .collect();
        // The length of the direction does not matter.
        let doubled: Vec<f32> = stored.iter().map(|x| 2.0 * x).collect();
        let gains = TensorData::new(norms, [shape[0], 1, 1]);
        tensors.insert(format!("{layer}{gain}"), gains);
        tensors.insert(
            format!("{layer}{direction}"),
            TensorData::new(doubled, shape),
        );
    }
    save_tensors(&tensors, &to.join("model.safetensors")).unwrap();
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
}

#[test]
fn both_names_of_weight_norm_are_read() {
    every(
        |case| case.text("kind") == "SpeechT5HifiGan",
        |case| {
            for names in [
                ["weight_g", "weight_v"],
                [
                    "parametrizations.weight.original0",
                    "parametrizations.weight.original1",
                ],
            ] {
                let dir = tempfile::tempdir().unwrap();
                store_normalized(&case.dir.join("model"), dir.path(), names);
                let vocoder = HifiGan::from_pretrained(dir.path(), &flex()).unwrap();
                assert!(vocoder.config().weight_norm && vocoder.unused_tensors.is_empty());
                assert_waveforms(case, &vocoder);
                let plain = vocoder.into_inner().fold();
                assert!(plain.conv_pre.weight_norm.is_none());
                assert_waveforms(case, &plain);
            }
        },
    );
}

#[test]
fn univnet_is_that_of_transformers() {
    every(
        |case| case.text("kind") == "UnivNetModel",
        |case| {
            let vocoder = UnivNet::from_pretrained(case.dir.join("model"), &flex()).unwrap();
            assert!(vocoder.unused_fields.is_empty() && vocoder.unused_tensors.is_empty());
            let channels_first = |name| case.float::<3>(name).swap_dims(1, 2);
            let (log_mel, noise) = (channels_first("spectrogram"), channels_first("noise"));
            let waveform = vocoder.forward(log_mel, noise).unwrap();
            case.assert_within("waveform", &waveform);
        },
    );
}

fn mel() -> MelConfig {
    MelConfig::hifi_gan(8000, 64, 16, 12)
}

fn small() -> HifiGanConfig {
    HifiGanConfig {
        upsample_initial_channel: 16,
        upsample_rates: vec![4, 4],
        upsample_kernel_sizes: vec![8, 8],
        resblock_kernel_sizes: vec![3],
        resblock_dilation_sizes: vec![vec![1, 3]],
        ..HifiGanConfig::for_mel(mel())
    }
}

/// Tones of several pitches.
fn tones(count: usize) -> Vec<Waveform> {
    let tone = |index: usize| {
        let step = 0.1 + 0.05 * index as f32;
        let samples = (0..800).map(|i| 0.4 * (step * i as f32).sin());
        Waveform::mono(samples.collect(), 8000).unwrap()
    };
    (0..count).map(tone).collect()
}

#[test]
fn pieces_are_the_whole() {
    let vocoder = small().init(&flex()).unwrap().init_weights(1);
    let log_mel: Tensor<3> = Rng::new(2).normal([2, 12, 90], &flex());
    let whole = values(vocoder.vocode(log_mel.clone()).unwrap());
    assert_eq!(whole.len(), 2 * 90 * 16);
    for chunk in [1, 7, 90, 1000] {
        let pieces = vocoder.vocode_in_chunks(log_mel.clone(), chunk).unwrap();
        assert_close(&values(pieces), &whole, 1e-5);
    }
    // Samples come as soon as the frames behind them are there.
    let (mut stream, context) = (vocoder.stream(), vocoder.config().context_frames());
    let first = stream.push(log_mel.clone().narrow(2, 0, context)).unwrap();
    assert!(first.is_none());
    let next = stream.push(log_mel.clone().narrow(2, context, 2)).unwrap();
    assert_eq!(next.unwrap().dims(), [2, 2 * 16]);
    assert!(stream.push(log_mel.narrow(0, 0, 1)).is_err());
    assert_eq!(stream.finish().unwrap().dims(), [2, context * 16]);
    assert!(vocoder.stream().finish().is_none());
}

#[test]
fn saved_models_open_with_their_spectrograms() {
    let dir = tempfile::tempdir().unwrap();
    let vocoder = small().init(&flex()).unwrap().init_weights(1);
    let (mean, scale) = ([0.5; 12], [2.0; 12]);
    let vocoder = vocoder.with_statistics(&mean, &scale).unwrap();
    vocoder.save_pretrained(dir.path()).unwrap();
    let opened = HifiGan::from_pretrained(dir.path(), &flex()).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(*opened.mel_config(), mel());
    assert!(!opened.config().weight_norm && opened.config().normalize_before);
    let log_mel: Tensor<3> = Rng::new(2).normal([1, 12, 20], &flex());
    let expected = values(vocoder.vocode(log_mel.clone()).unwrap());
    assert_close(&values(opened.vocode(log_mel).unwrap()), &expected, 1e-5);

    let config = UnivNetConfig {
        model_in_channels: 4,
        kernel_predictor_hidden_channels: 4,
        model_hidden_channels: 4,
        num_mel_bins: 12,
        resblock_kernel_sizes: vec![3; 2],
        resblock_stride_sizes: vec![5, 2],
        resblock_dilation_sizes: vec![vec![1, 2]; 2],
        weight_norm: true,
        ..UnivNetConfig::default()
    };
    let vocoder = config.init(&flex()).unwrap().init_weights(1);
    let dir = tempfile::tempdir().unwrap();
    vocoder.save_pretrained(dir.path()).unwrap();
    let opened = UnivNet::from_pretrained(dir.path(), &flex()).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    let log_mel: Tensor<3> = Rng::new(2).normal([2, 12, 9], &flex());
    let expected = vocoder.vocode(log_mel.clone()).unwrap();
    assert_eq!(expected.dims(), [2, 90]);
    let found = opened.vocode(log_mel).unwrap();
    assert_close(&values(found), &values(expected), 1e-5);
}

#[test]
fn other_spectrograms_are_refused_by_field() {
    let vocoder = small().init(&flex()).unwrap().init_weights(1);
    let other = MelConfig {
        floor: 1e-9,
        ..mel()
    };
    let refused = vocoder.mel_config().check_same(&other).unwrap_err();
    assert!(refused.to_string().contains("`floor`"), "{refused}");
    let metrics = VocoderMetrics::new(other).unwrap();
    let refused = metrics.evaluate(&vocoder, &tones(1), &flex()).unwrap_err();
    assert!(refused.to_string().contains("`floor`"), "{refused}");
    for shape in [[1, 11, 20], [1, 12, 0], [0, 12, 20]] {
        let log_mel = Tensor::<3>::zeros(shape, &flex());
        let refused = vocoder.vocode(log_mel).unwrap_err().to_string();
        assert!(refused.contains("`log_mel`"), "{refused}");
    }
    let long = MelConfig {
        hop_length: 20,
        ..mel()
    };
    let refused = vocoder.clone().with_mel_config(long).unwrap_err();
    assert!(refused.to_string().contains("hop_length"), "{refused}");
    assert!(
        vocoder
            .clone()
            .with_statistics(&[0.0; 12], &[0.0; 12])
            .is_err()
    );
    assert!(vocoder.with_statistics(&[0.0; 11], &[1.0; 12]).is_err());
}

/// A directory without a configuration of its spectrograms says so, and one with weights missing
/// names them.
#[test]
fn incomplete_directories_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let vocoder = small().init(&flex()).unwrap().init_weights(1);
    vocoder.save_pretrained(dir.path()).unwrap();
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut fields: serde_json::Value = serde_json::from_str(&text).unwrap();
    fields["mel_config"] = serde_json::Value::Null;
    std::fs::write(&path, fields.to_string()).unwrap();
    let opened = HifiGan::from_pretrained(dir.path(), &flex()).unwrap();
    assert!(opened.notes[0].contains("`mel_config`"), "{opened}");
    let opened = opened.into_inner().with_mel_config(mel()).unwrap();
    assert_eq!(*opened.mel_config(), mel());

    let files = WeightReader::from_dir(dir.path(), &["model"]).unwrap();
    let kept = files.names().filter(|name| *name != "conv_post.weight");
    let kept = kept.map(|name| TensorSource::new(name, name)).collect();
    let files = files.renamed(kept).unwrap();
    let tensor = |name: &str| {
        let shape = files.shape(name).unwrap().to_vec();
        (
            name.to_string(),
            TensorData::new(files.read(name).unwrap(), shape),
        )
    };
    let tensors: BTreeMap<String, TensorData> = files.names().map(tensor).collect();
    save_tensors(&tensors, &dir.path().join("model.safetensors")).unwrap();
    let error = HifiGan::from_pretrained(dir.path(), &flex()).unwrap_err();
    assert!(error.to_string().contains("conv_post.weight"), "{error}");
}
