//! Measures of sound against torch, torchmetrics, transformers and librosa: the numbers of
//! `tests/reference/audio_metrics.py`, and those of the directory that `AIGC_FIXTURES` names.

use aigc_core::{
    Result,
    eval::{
        FeatureExtractor,
        audio::{
            LogMel, LogMelConfig, MelConfig, MelNorm, MelScale, Padding, Stft,
            log_magnitude_distance, log_spectral_distance, mel_filters, multi_resolution_stft,
            si_sdr, si_snr, snr, spectral_convergence,
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
use std::path::Path;

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

/// `[columns, rows]` of a matrix `[rows, columns]`.
fn transposed(values: &[f64], columns: usize) -> Vec<f64> {
    let rows = values.len() / columns;
    (0..values.len())
        .map(|i| values[i % rows * columns + i / rows])
        .collect()
}

fn number(json: &Value, name: &str) -> f64 {
    json[name].as_f64().expect(name)
}

fn size(json: &Value, name: &str) -> usize {
    json[name].as_u64().expect(name) as usize
}

fn mel_config(json: &Value, scale: &str, norm: &str) -> MelConfig {
    MelConfig {
        sample_rate: size(json, "sample_rate") as u32,
        n_fft: size(json, "n_fft"),
        n_mels: size(json, "n_mels"),
        f_min: number(json, "f_min"),
        f_max: number(json, "f_max"),
        scale: match scale {
            "htk" => MelScale::Htk,
            _ => MelScale::Slaney,
        },
        norm: match norm {
            "slaney" => MelNorm::Slaney,
            _ => MelNorm::None,
        },
    }
}

fn stft(json: &Value) -> Stft {
    let size = |name| size(json, name);
    Stft::new(size("n_fft"), size("win_length"), size("hop_length")).unwrap()
}

#[test]
fn spectra_and_mel_filters_match_torch_and_transformers() {
    let fixture = Fixture::read("eval/audio/metrics.safetensors");
    let json = &fixture.json;
    let stored = |name: &str| doubles(&fixture.tensors[name].floats());
    for scale in ["htk", "slaney"] {
        for norm in ["none", "slaney"] {
            let name = format!("filters.{scale}.{norm}");
            let found = mel_filters(&mel_config(json, scale, norm)).unwrap();
            close(&found, &stored(&name), &name);
        }
    }
    let target: Tensor<3> = fixture.tensors["target"].tensor(&Device::flex());
    let mono: Vec<f32> = target.clone().mean_dim(1).to_data().iter::<f32>().collect();
    let clip = &mono[..mono.len() / 2];
    let power = stft(json).power(clip).unwrap();
    let expected = stored("power");
    close(&power[..expected.len()], &expected, "power");
    for power in [1, 2] {
        let config = LogMelConfig {
            mel: mel_config(json, "slaney", "slaney"),
            win_length: size(json, "win_length"),
            hop_length: size(json, "hop_length"),
            padding: Padding::Reflect,
            power,
            floor: 1e-6,
        };
        let log_mel = LogMel::new(config).unwrap();
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
        .map(|[n_fft, win, hop]| Stft::new(*n_fft, *win, *hop).unwrap())
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

/// A case below `AIGC_FIXTURES`.
struct DspCase {
    json: Value,
    bytes: Vec<u8>,
}

impl DspCase {
    fn open(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("case.json")).unwrap();
        Self {
            json: serde_json::from_str(&text).unwrap(),
            bytes: std::fs::read(folder.join("tensors.safetensors")).unwrap(),
        }
    }

    fn stored(&self, name: &str) -> Stored {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors.tensor(name).unwrap();
        Stored {
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        }
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        doubles(&self.stored(name).floats())
    }

    fn mel(&self) -> MelConfig {
        let config = &self.json["config"];
        let scale = config["scale"].as_str().unwrap();
        mel_config(config, scale, config["norm"].as_str().unwrap_or("none"))
    }

    /// Whether the case is of a kind and of settings that are here.
    fn check(&self) -> bool {
        let config = &self.json["config"];
        let zeros = config["pad_mode"] == "constant";
        let padding = if zeros {
            Padding::Zeros
        } else {
            Padding::Reflect
        };
        match self.json["kind"].as_str().unwrap() {
            "stft" if config["window"] == "hann" && config["center"] == true => {
                let stft = stft(config).with_padding(padding);
                let (real, imag) = (self.doubles("spectrum.real"), self.doubles("spectrum.imag"));
                let squares = real.iter().zip(&imag).map(|(a, b)| a * a + b * b);
                let expected: Vec<f64> = squares.collect();
                let samples = self.stored("x");
                let of_channel = expected.len() / samples.shape[0];
                let channels = samples.floats();
                let channels = channels.chunks_exact(samples.shape[1]);
                for (samples, expected) in channels.zip(expected.chunks_exact(of_channel)) {
                    let found = transposed(&stft.power(samples).unwrap(), stft.bins());
                    close(&found, expected, "power");
                }
            }
            "mel_filters" if config["scale"] != "kaldi" => {
                let found = mel_filters(&self.mel()).unwrap();
                let expected = self.doubles("filters");
                close(&found, &expected, "filters");
            }
            "log_mel" if config["outer_pad"].is_null() => {
                let style = self.json["style"].as_str().unwrap();
                let log_mel = LogMel::new(LogMelConfig {
                    mel: self.mel(),
                    win_length: size(config, "win_length"),
                    hop_length: size(config, "hop_length"),
                    padding,
                    power: if style == "log10" { 1 } else { 2 },
                    floor: 1e-10,
                });
                let samples = self.stored("x").floats();
                let found = log_mel.unwrap().spectrogram(&samples).unwrap();
                let found = transposed(&found, size(config, "n_mels"));
                let expected = self.doubles("mel");
                let logarithms: Vec<f64> = expected.iter().map(|x| x.max(1e-10).ln()).collect();
                close(&found, &logarithms, style);
            }
            "stft_loss" => {
                let tensor = |name| -> Tensor<3> {
                    let x: Tensor<2> = self.stored(name).tensor(&Device::flex());
                    x.unsqueeze()
                };
                let (estimate, target) = (tensor("estimate"), tensor("target"));
                let resolutions = config["resolutions"].as_array().unwrap();
                let resolutions: Vec<Stft> = resolutions.iter().map(stft).collect();
                for (i, stft) in resolutions.iter().enumerate() {
                    let found = spectral_convergence(&estimate, &target, stft).unwrap();
                    close(
                        &found,
                        &self.doubles(&format!("convergence.{i}")),
                        "convergence",
                    );
                    let found = log_magnitude_distance(&estimate, &target, stft).unwrap();
                    close(
                        &found,
                        &self.doubles(&format!("magnitude.{i}")),
                        "magnitude",
                    );
                }
                let found = multi_resolution_stft(&estimate, &target, &resolutions).unwrap();
                close(&found, &self.doubles("loss"), "loss");
            }
            _ => return false,
        }
        true
    }
}

#[test]
fn spectra_match_torchaudio_and_librosa() {
    let Some(folder) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let mut checked = Vec::new();
    for entry in std::fs::read_dir(folder.join("audio/dsp")).unwrap() {
        let path = entry.unwrap().path();
        if path.join("case.json").is_file() && DspCase::open(&path).check() {
            checked.push(path);
        }
    }
    // Five of the transform, 20 of filters, five of log-mel spectra, one of distances.
    assert!(checked.len() >= 30, "{checked:?}");
}
