//! Settings of the cases.

use aigc_core::dsp::{
    DecibelReference, LogStyle, MelConfig, MelNorm, MelPadding, MelScale, PadMode, StftConfig,
    Window,
};
use aigc_tests::fixtures::Case;
use serde_json::Value;

pub(super) fn number(json: &Value, name: &str) -> f64 {
    json[name].as_f64().unwrap_or_else(|| panic!("{name}"))
}

pub(super) fn size(json: &Value, name: &str) -> usize {
    json[name].as_u64().unwrap_or_else(|| panic!("{name}")) as usize
}

pub(super) fn window(json: &Value) -> Window {
    match json.as_str().or(json[0].as_str()) {
        None | Some("hann") => Window::Hann,
        Some("hamming") => Window::Hamming,
        Some("blackman") => Window::Blackman,
        Some("bartlett") => Window::Bartlett,
        Some("boxcar" | "ones" | "rectangular") => Window::Rectangular,
        Some("kaiser") => Window::Kaiser {
            beta: json[1].as_f64().expect("beta"),
        },
        Some(other) => panic!("window {other}"),
    }
}

fn pad_mode(json: &Value) -> PadMode {
    match json["pad_mode"].as_str() {
        None | Some("reflect") => PadMode::Reflect,
        Some("constant") => PadMode::Constant,
        Some("edge" | "replicate") => PadMode::Replicate,
        Some(other) => panic!("padding {other}"),
    }
}

pub(super) fn stft_config(json: &Value) -> StftConfig {
    let n_fft = size(json, "n_fft");
    StftConfig {
        win_length: json["win_length"].as_u64().map_or(n_fft, |x| x as usize),
        window: window(&json["window"]),
        center: json["center"].as_bool().unwrap_or(true),
        pad_mode: pad_mode(json),
        normalized: json["normalized"].as_bool().unwrap_or(false),
        ..StftConfig::new(n_fft, size(json, "hop_length"))
    }
}

pub(super) fn mel_config(json: &Value) -> MelConfig {
    let n_fft = size(json, "n_fft");
    MelConfig {
        sample_rate: size(json, "sample_rate") as u32,
        n_fft,
        hop_length: json["hop_length"].as_u64().unwrap_or(1) as usize,
        win_length: json["win_length"].as_u64().map_or(n_fft, |x| x as usize),
        n_mels: size(json, "n_mels"),
        f_min: number(json, "f_min"),
        f_max: number(json, "f_max"),
        mel_scale: match json["scale"].as_str() {
            Some("htk") => MelScale::Htk,
            Some("slaney") => MelScale::Slaney,
            Some("kaldi") => MelScale::Kaldi,
            other => panic!("scale {other:?}"),
        },
        // A case that does not name it has librosa's default.
        norm: match json.get("norm") {
            Some(Value::Null) => MelNorm::None,
            _ => MelNorm::Slaney,
        },
        triangularize_in_mel_space: json["in_mel_space"].as_bool().unwrap_or(false),
        padding: MelPadding::Center,
        pad_mode: pad_mode(json),
        power: 2,
        power_floor: 0.0,
        floor: 1e-10,
        ..MelConfig::default()
    }
}

/// The settings of a log-mel case.
pub(super) fn log_mel_config(case: &Case) -> MelConfig {
    let json = &case.json["config"];
    let mut config = mel_config(json);
    match case.text("style") {
        "whisper" => config.log_style = LogStyle::Whisper,
        "decibel" => {
            config.floor = number(json, "amin");
            config.log_style = LogStyle::Decibel {
                reference: match json["reference"].as_f64() {
                    Some(value) => DecibelReference::Value(value),
                    None => DecibelReference::Max,
                },
                top_db: json["top_db"].as_f64(),
            };
        }
        style => {
            config.power = 1;
            config.floor = number(json, "floor");
            config.log_style = match style {
                "log10" => LogStyle::Log10,
                "hifigan" => LogStyle::HifiGan,
                other => panic!("style {other}"),
            };
        }
    }
    config.power_floor = json["inside_root"].as_f64().unwrap_or(0.0);
    if json["outer_pad"].as_bool() == Some(true) {
        config.padding = MelPadding::Hop;
    }
    config
}
