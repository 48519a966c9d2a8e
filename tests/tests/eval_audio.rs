//! Measures of sound against torch, torchmetrics, transformers and librosa: the numbers of
//! `tests/reference/audio_metrics.py`, and those of the directory that `AIGC_FIXTURES` names.

use aigc_core::{
    Result,
    dsp::{LogStyle, MelConfig, MelNorm, MelPadding, MelScale, Stft, StftConfig, mel_filters},
    eval::{
        FeatureExtractor,
        audio::{
            LogMel, log_magnitude_distance, log_spectral_distance, multi_resolution_stft, si_sdr,
            si_snr, snr, spectral_convergence,
        },
    },
};
use aigc_tests::{
    folder_from,
    reference::{Fixture, Stored, read},
};
use burn::tensor::{Device, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;

/// Within 1e-4 of each number, or of the largest where that is larger by far: power spectra span
/// many orders of magnitude.
fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |x, y| x.max(y.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let tolerance = 1e-4 * expected.abs().max(1e-3 * largest);
        assert!(
            (found - expected).abs() <= tolerance,
            "{what}: number {i} is {found}, expected {expected}"
        );
    }
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn number(json: &Value, name: &str) -> f64 {
    json[name].as_f64().expect(name)
}

fn size(json: &Value, name: &str) -> usize {
    json[name].as_u64().expect(name) as usize
}

/// Windows, filters and logarithms of the file, over magnitudes to a power.
fn mel_config(json: &Value, mel_scale: MelScale, norm: MelNorm, power: u32) -> MelConfig {
    let n_fft = size(json, "n_fft");
    MelConfig {
        win_length: size(json, "win_length"),
        padding: MelPadding::Center,
        power,
        power_floor: 0.0,
        f_min: number(json, "f_min"),
        f_max: number(json, "f_max"),
        mel_scale,
        norm,
        floor: 1e-6,
        log_style: LogStyle::HifiGan,
        ..MelConfig::hifi_gan(
            size(json, "sample_rate") as u32,
            n_fft,
            size(json, "hop_length"),
            size(json, "n_mels"),
        )
    }
}

fn stft(json: &Value) -> Stft {
    let size = |name| size(json, name);
    let config = StftConfig::new(size("n_fft"), size("hop_length"));
    config.with_win_length(size("win_length")).init().unwrap()
}

#[test]
fn spectra_and_mel_filters_match_torch_and_transformers() {
    let fixture = Fixture::read("eval/audio/metrics.safetensors");
    let json = &fixture.json;
    let stored = |name: &str| doubles(&fixture.tensors[name].floats());
    for (scale, mel_scale) in [("htk", MelScale::Htk), ("slaney", MelScale::Slaney)] {
        for (norm, mel_norm) in [("none", MelNorm::None), ("slaney", MelNorm::Slaney)] {
            let name = format!("filters.{scale}.{norm}");
            let found = mel_filters(&mel_config(json, mel_scale, mel_norm, 2)).unwrap();
            close(&found, &stored(&name), &name);
        }
    }
    let target: Tensor<3> = fixture.tensors["target"].tensor(&Device::flex());
    let mono: Vec<f32> = target.clone().mean_dim(1).to_data().iter::<f32>().collect();
    let clip = &mono[..mono.len() / 2];
    let power = stft(json).power(clip).unwrap();
    let expected = stored("power");
    close(&power.values()[..expected.len()], &expected, "power");
    for power in [1, 2] {
        let config = mel_config(json, MelScale::Slaney, MelNorm::Slaney, power);
        let log_mel = LogMel::new(&config).unwrap();
        let frames = log_mel.frames(&target).unwrap();
        let expected = stored(&format!("log_mel.{power}"));
        close(&doubles(frames.values()), &expected, "log-mel");
        if power == 2 {
            let statistics = log_mel.extract(target.clone()).unwrap();
            let found: Vec<f64> = statistics.to_data().iter::<f64>().collect();
            close(&found, &stored("statistics"), "statistics");
        }
    }
}

#[test]
fn distances_and_ratios_match_torch_and_torchmetrics() {
    let fixture = Fixture::read("eval/audio/metrics.safetensors");
    let expected = &fixture.json["expected"];
    let sound = |name: &str| -> Tensor<3> { fixture.tensors[name].tensor(&Device::flex()) };
    let (estimate, target) = (sound("estimate"), sound("target"));
    let resolutions: Vec<[usize; 3]> = read(&fixture.json["resolutions"]);
    let resolutions: Vec<Stft> = resolutions
        .iter()
        .map(|[n_fft, win, hop]| {
            let config = StftConfig::new(*n_fft, *hop).with_win_length(*win);
            config.init().unwrap()
        })
        .collect();
    type Distance = fn(&Tensor<3>, &Tensor<3>, &Stft) -> Result<Vec<f64>>;
    let distances: [(&str, Distance); 3] = [
        ("convergence", spectral_convergence),
        ("magnitude", log_magnitude_distance),
        ("log_spectral", log_spectral_distance),
    ];
    let mut sums = vec![0.0; 2];
    for (name, distance) in distances {
        let expected: Vec<Vec<f64>> = read(&expected[name]);
        for (stft, expected) in resolutions.iter().zip(&expected) {
            let found = distance(&estimate, &target, stft).unwrap();
            close(&found, expected, name);
            if name != "log_spectral" {
                for (sum, expected) in sums.iter_mut().zip(expected) {
                    *sum += expected / 3.0;
                }
            }
        }
    }
    let found = multi_resolution_stft(&estimate, &target, &resolutions).unwrap();
    close(&found, &sums, "multi-resolution");
    type Ratio = fn(&Tensor<3>, &Tensor<3>) -> Result<Vec<f64>>;
    let ratios: [(&str, Ratio); 3] = [("snr", snr), ("si_sdr", si_sdr), ("si_snr", si_snr)];
    for (name, ratio) in ratios {
        let expected: Vec<f64> = read(&expected[name]);
        close(&ratio(&estimate, &target).unwrap(), &expected, name);
    }
}

/// The distances of each resolution, and their sum, of the cases of differentiable losses below
/// `AIGC_FIXTURES`, whose own tests are those of `dsp`.
#[test]
fn distances_match_the_losses_of_torch() {
    let Some(folder) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let mut checked = 0;
    for entry in std::fs::read_dir(folder.join("audio/dsp")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(path.join("case.json")) else {
            continue;
        };
        let json: Value = serde_json::from_str(&text).unwrap();
        if json["kind"] == "stft_loss" {
            check_losses(
                &json,
                &std::fs::read(path.join("tensors.safetensors")).unwrap(),
            );
            checked += 1;
        }
    }
    assert!(checked > 0);
}

fn check_losses(json: &Value, bytes: &[u8]) {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let stored = |name: &str| {
        let view = tensors.tensor(name).unwrap();
        Stored {
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        }
    };
    let waves = |name: &str| -> Tensor<3> {
        let x: Tensor<2> = stored(name).tensor(&Device::flex());
        x.unsqueeze()
    };
    let expected = |name: &str| doubles(&stored(name).floats());
    let (estimate, target) = (waves("estimate"), waves("target"));
    let resolutions = json["config"]["resolutions"].as_array().unwrap();
    let resolutions: Vec<Stft> = resolutions.iter().map(stft).collect();
    for (i, stft) in resolutions.iter().enumerate() {
        let found = spectral_convergence(&estimate, &target, stft).unwrap();
        close(
            &found,
            &expected(&format!("convergence.{i}")),
            "convergence",
        );
        let found = log_magnitude_distance(&estimate, &target, stft).unwrap();
        close(&found, &expected(&format!("magnitude.{i}")), "magnitude");
    }
    let found = multi_resolution_stft(&estimate, &target, &resolutions).unwrap();
    close(&found, &expected("loss"), "loss");
}
