//! Every method on tones, lengths and bad input.

use super::*;
use std::f64::consts::PI;

fn all() -> [Resampler; 4] {
    [
        Resampler::default(),
        Resampler::kaiser_best(),
        Resampler::polyphase(),
        Resampler::Fft,
    ]
}

/// Ten periods of a sine in 0.1 s.
fn sine(rate: u32) -> Vec<f32> {
    let phase = 2.0 * PI * 100.0 / f64::from(rate);
    let len = rate / 10;
    (0..len)
        .map(|i| (phase * f64::from(i)).sin() as f32)
        .collect()
}

#[test]
fn tones_stay_tones() {
    for resampler in all() {
        for (from, to) in [
            (8000, 16_000),
            (44_100, 16_000),
            (16_000, 22_050),
            (8000, 8010),
        ] {
            let found = resampler.init(from, to).unwrap().apply(&sine(from));
            let expected = sine(to);
            assert_eq!(found.len(), expected.len());
            // The filters know nothing beyond the ends.
            let middle = expected.len() / 4..expected.len() * 3 / 4;
            let apart = found[middle.clone()]
                .iter()
                .zip(&expected[middle])
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(apart < 5e-3, "{resampler:?} {from} {to}: {apart}");
        }
    }
}

#[test]
fn frequencies_above_half_the_rate_are_removed() {
    // 6 kHz do not fit into 8 kHz.
    let phase = 2.0 * PI * 6000.0 / 16_000.0;
    let tone: Vec<f32> = (0..1600)
        .map(|i| (phase * f64::from(i)).sin() as f32)
        .collect();
    for resampler in all() {
        let found = resampler.init(16_000, 8000).unwrap().apply(&tone);
        let middle = &found[200..600];
        let peak = middle.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(peak < 5e-3, "{resampler:?}: {peak}");
    }
}

#[test]
fn lengths_and_edges() {
    for resampler in all() {
        let up = resampler.init(8000, 22_050).unwrap();
        assert!(up.apply(&[]).is_empty());
        for len in [1, 2, 3, 7, 160] {
            let found = up.apply(&vec![1.0; len]);
            assert_eq!(found.len(), (len * 441).div_ceil(160), "{resampler:?}");
            assert!(found.iter().all(|x| x.is_finite()));
        }
        let same = resampler.init(8000, 8000).unwrap();
        assert_eq!(same.apply(&[0.25, -3.0]), [0.25, -3.0]);
        let down = resampler.init(48_000, 8000).unwrap();
        assert_eq!(down.apply(&[0.5; 7]).len(), 2);
        assert_eq!(down.apply(&[0.5]).len(), 1);
    }
    let wave = Waveform::silence(2, 80, 8000).unwrap();
    let found = wave.resample(16_000).unwrap();
    assert_eq!(
        (found.num_channels(), found.len(), found.sample_rate()),
        (2, 160, 16_000)
    );
    assert_eq!(found.seconds(), wave.seconds());
}

#[test]
fn bad_rates_and_fields_are_errors() {
    let message = |from, to| {
        let error = Resampler::default().init(from, to).unwrap_err();
        error.to_string()
    };
    assert!(message(8000, 0).contains("`sample_rate` is 0"));
    assert!(message(0, 8000).contains("`from` is 0"));
    assert!(message(1, 48_000).contains("at most 256 times the 1 Hz"));
    assert!(message(u32::MAX, u32::MAX - 1).contains("common divisor"));
    assert!(message(u32::MAX, 8000).contains("common divisor"));
    let resample = Resampler::Fft.init(8000, 16_000).unwrap();
    let other = Waveform::silence(1, 4, 44_100).unwrap();
    let error = resample.forward(&other).unwrap_err().to_string();
    assert!(error.contains("44100 Hz, expected 8000 Hz"), "{error}");
    for (text, field) in [
        (
            r#"{"method": "polyphase", "zero_crossings": 0, "beta": 5}"#,
            "zero_crossings",
        ),
        (
            r#"{"method": "polyphase", "zero_crossings": 9, "beta": -1}"#,
            "beta",
        ),
        (
            r#"{"method": "windowed_sinc", "lowpass_filter_width": 6, "rolloff": 0,
                "window": "hann"}"#,
            "rolloff",
        ),
        (
            r#"{"method": "windowed_sinc", "lowpass_filter_width": 6, "rolloff": 1,
                "window": {"kaiser": {"beta": 1e9}}}"#,
            "beta",
        ),
    ] {
        let resampler: Resampler = serde_json::from_str(text).unwrap();
        let error = resampler.validate().unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
    for resampler in all() {
        let text = serde_json::to_string(&resampler).unwrap();
        assert_eq!(serde_json::from_str::<Resampler>(&text).unwrap(), resampler);
    }
}
