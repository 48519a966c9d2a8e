//! Spectra, mels, cepstra and Griffin-Lim against PyTorch, librosa, torchaudio and scipy, on the
//! host and on the device.

mod config;

use aigc_core::{
    dsp::{
        DctKind, DctNorm, FloorMode, Frames, LogStyle, MelConfig, MelLoss, MfccConfig, PadMode,
        Spectrogram, Stft, StftConfig, StftLoss, Window, dct, mel_filters,
    },
    rng::Rng,
};
use aigc_tests::fixtures::{Case, every};
use burn::tensor::{Device, Tensor};
use config::{log_mel_config, mel_config, number, size, stft_config, window};
use serde_json::Value;

fn stft(json: &Value) -> Stft {
    stft_config(json).init().unwrap()
}

/// The rows of a tensor `[rows, …]`, of equal length.
fn rows(case: &Case, name: &str) -> Vec<Vec<f64>> {
    let (shape, values) = case.values(name);
    let len = values.len() / shape[0];
    values.chunks_exact(len).map(<[f64]>::to_vec).collect()
}

fn samples(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// `[rows, columns]` of `[columns, rows]`.
fn transposed(values: &[f64], rows: usize) -> Vec<f64> {
    let columns = values.len() / rows;
    (0..values.len())
        .map(|i| values[i % columns * rows + i / columns])
        .collect()
}

#[test]
fn windows() {
    every(
        |case| case.text("kind") == "windows",
        |case| {
            for name in case.names() {
                let parts: Vec<&str> = name.rsplitn(3, '.').collect();
                let [symmetry, len, kind] = parts[..] else {
                    panic!("{name}");
                };
                let window = match kind.split_once('-') {
                    Some((_, beta)) => Window::Kaiser {
                        beta: beta.parse().unwrap(),
                    },
                    None => window(&Value::from(kind)),
                };
                let len: usize = len.parse().unwrap();
                let found = match symmetry {
                    "periodic" => window.periodic(len),
                    _ => window.symmetric(len),
                };
                case.assert_values_within(&name, &[len], &found);
            }
        },
    );
}

#[test]
fn spectra() {
    every(
        |case| case.text("kind") == "stft",
        |case| {
            let stft = stft(&case.json["config"]);
            let (re, im) = stft.complex(case.float("x"));
            case.assert_within("spectrum.real", &re);
            case.assert_within("spectrum.imag", &im);
            let (mut all_re, mut all_im) = (vec![], vec![]);
            for row in rows(case, "x") {
                let spectra = stft.forward(&samples(&row)).unwrap();
                for (all, part) in [(&mut all_re, spectra.re()), (&mut all_im, spectra.im())] {
                    let part = Frames::new(part.to_vec(), stft.bins()).unwrap();
                    all.extend(part.transposed());
                }
            }
            case.assert_values_within("spectrum.real", &re.dims(), &all_re);
            case.assert_values_within("spectrum.imag", &im.dims(), &all_im);
        },
    );
}

#[test]
fn inverse_spectra() {
    every(
        |case| case.text("kind") == "istft",
        |case| {
            let config = &case.json["config"];
            let stft = stft(config);
            let (re, im) = (
                case.float::<3>("spectrum.real"),
                case.float::<3>("spectrum.imag"),
            );
            let pairs = rows(case, "spectrum.real").into_iter();
            let host: Vec<Spectrogram> = pairs
                .zip(rows(case, "spectrum.imag"))
                .map(|(re, im)| {
                    let frames = re.len() / stft.bins();
                    let [re, im] = [re, im].map(|part| transposed(&part, frames));
                    Spectrogram::new(re, im, stft.bins()).unwrap()
                })
                .collect();
            for length in config["lengths"].as_array().expect("lengths") {
                let length = length.as_u64().map(|length| length as usize);
                let name = length.map_or("y".to_owned(), |length| format!("y.{length}"));
                let found = stft.inverse_tensor(re.clone(), im.clone(), length);
                case.assert_within(&name, &found);
                let found: Vec<f64> = host
                    .iter()
                    .flat_map(|spectra| stft.inverse(spectra, length).unwrap())
                    .map(f64::from)
                    .collect();
                let dims = [host.len(), found.len() / host.len()];
                case.assert_values_within(&name, &dims, &found);
            }
        },
    );
}

#[test]
fn stft_losses() {
    every(
        |case| case.text("kind") == "stft_loss",
        |case| {
            let config = &case.json["config"];
            let resolutions = config["resolutions"].as_array().expect("resolutions");
            let resolutions: Vec<StftConfig> = resolutions.iter().map(stft_config).collect();
            let loss = StftLoss::new(&resolutions).unwrap();
            let loss = loss.with_floor(number(config, "floor")).unwrap();
            let estimate = case.float::<2>("estimate").to_data();
            let estimate = Tensor::<2>::from_data(estimate, &Device::flex().autodiff());
            let estimate = estimate.require_grad();
            let target = case.float::<2>("target");
            let terms = loss.terms(estimate.clone(), target.clone());
            for (i, terms) in terms.into_iter().enumerate() {
                case.assert_within(&format!("convergence.{i}"), &terms.convergence);
                case.assert_within(&format!("magnitude.{i}"), &terms.magnitude);
            }
            let distance = loss.forward(estimate.clone(), target);
            case.assert_within("loss", &distance);
            let grads = distance.backward();
            case.assert_within("gradient", &estimate.grad(&grads).unwrap());
        },
    );
}

#[test]
fn filters() {
    every(
        |case| case.text("kind") == "mel_filters",
        |case| {
            let config = mel_config(&case.json["config"]);
            let dims = [config.n_mels, config.n_fft / 2 + 1];
            case.assert_values_within("filters", &dims, &mel_filters(&config).unwrap());
        },
    );
}

#[test]
fn log_mels() {
    every(
        |case| case.text("kind") == "log_mel",
        |case| {
            let mel = log_mel_config(case).init().unwrap();
            let x = case.float::<1>("x");
            let len = x.dims()[0];
            let batch = x.reshape([1, len]);
            let host = samples(&case.values("x").1);
            for (name, frames, found) in [
                ("mel", mel.mel(&host), mel.mel_tensor(batch.clone())),
                ("log_mel", mel.log_mel(&host), mel.log_mel_tensor(batch)),
            ] {
                let [_, mels, count] = found.dims();
                case.assert_within(name, &found.reshape([mels, count]));
                let frames = frames.unwrap();
                let dims = [frames.width(), frames.len()];
                case.assert_values_within(name, &dims, &frames.transposed());
            }
        },
    );
}

#[test]
fn cosine_transforms() {
    every(
        |case| case.text("kind") == "dct",
        |case| {
            let (shape, _) = case.values("x");
            for (kind, number) in [(DctKind::Two, 2), (DctKind::Three, 3)] {
                for (norm, text) in [(DctNorm::None, "none"), (DctNorm::Ortho, "ortho")] {
                    let rows = rows(case, "x").into_iter();
                    let found: Vec<f64> = rows.flat_map(|row| dct(&row, kind, norm)).collect();
                    case.assert_values_within(&format!("dct{number}.{text}"), &shape, &found);
                }
            }
        },
    );
}

#[test]
fn cepstra() {
    every(
        |case| case.text("kind") == "mfcc",
        |case| {
            let json = &case.json["config"];
            let mut mel = MelConfig {
                pad_mode: match case.text("library") {
                    "librosa" => PadMode::Constant,
                    _ => PadMode::Reflect,
                },
                log_style: MfccConfig::default().mel.log_style,
                ..mel_config(json)
            };
            if json["log_mels"].as_bool() == Some(true) {
                mel.log_style = LogStyle::HifiGan;
                (mel.floor, mel.floor_mode) = (1e-6, FloorMode::Add);
            }
            let config = MfccConfig {
                mel,
                n_mfcc: size(json, "n_mfcc"),
                lifter: json["lifter"].as_f64().unwrap_or(0.0),
            };
            let x = samples(&case.values("x").1);
            let mfcc = config.init().unwrap().forward(&x).unwrap();
            let dims = [mfcc.width(), mfcc.len()];
            case.assert_values_within("mfcc", &dims, &mfcc.transposed());
        },
    );
}

#[test]
fn griffin_lim() {
    every(
        |case| case.text("kind") == "griffin_lim",
        |case| {
            let json = &case.json["config"];
            let mut config = stft_config(json);
            if case.text("library") == "librosa" {
                config.pad_mode = PadMode::Constant;
            }
            let stft = config.init().unwrap();
            let length = size(json, "length");
            let (shape, magnitude) = case.values("magnitude");
            let frames = shape[1];
            let magnitude = Frames::new(transposed(&magnitude, frames), stft.bins()).unwrap();
            let phase = match case.has("phase") {
                true => transposed(&case.values("phase").1, frames),
                false => vec![0.0; magnitude.values().len()],
            };
            for rounds in json["after"].as_array().expect("after") {
                let rounds = rounds.as_u64().expect("a number of rounds") as usize;
                let momentum = number(json, "momentum");
                let found = stft
                    .griffin_lim(&magnitude, &phase, rounds, momentum, Some(length))
                    .unwrap();
                let found: Vec<f64> = found.into_iter().map(f64::from).collect();
                case.assert_values_within(&format!("y.{rounds:03}"), &[length], &found);
            }
        },
    );
}

/// A step against the gradient of the distance of mels brings a sound nearer to another.
#[test]
fn mel_loss_descends() {
    let loss = MelLoss::new(&[MelConfig::hifi_gan(8000, 256, 64, 20)]).unwrap();
    let noise = |seed| Rng::new(seed).normal::<2>([2, 800], &Device::flex()) * 0.1;
    let (sound, target) = (noise(1), noise(2) * 3.0);
    let value = |x: Tensor<2>| loss.forward(x, target.clone()).into_scalar::<f32>();
    let leaf = Tensor::<2>::from_data(sound.to_data(), &Device::flex().autodiff()).require_grad();
    let grads = loss.forward(leaf.clone(), target.clone()).backward();
    let grad = leaf.grad(&grads).unwrap().to_data();
    let grad = Tensor::<2>::from_data(grad, &Device::flex());
    let norm = (grad.clone() * grad.clone())
        .sum()
        .sqrt()
        .into_scalar::<f32>();
    let before = value(sound.clone());
    let after = value(sound - grad * (0.01 / norm));
    assert!(after < before, "{before} {after}");
}
