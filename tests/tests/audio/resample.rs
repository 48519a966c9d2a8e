//! Sample rates and companding against torchaudio, scipy and librosa.

use aigc_core::audio::{
    Resampler, SincWindow, Waveform, mu_law_compress, mu_law_decode, mu_law_encode, mu_law_expand,
    polyphase_taps,
};
use aigc_tests::fixtures::{Case, every};

fn number(case: &Case, field: &str) -> f64 {
    let value = case.json["config"][field].as_f64();
    value.unwrap_or_else(|| panic!("{}: no {field}", case.name()))
}

/// The resampler of a case.
fn resampler(case: &Case) -> Resampler {
    let config = &case.json["config"];
    let window = match (case.text("method"), config["method"].as_str()) {
        ("poly", _) => return Resampler::polyphase(),
        ("fft", _) => return Resampler::Fft,
        (_, Some("sinc_interp_hann")) => SincWindow::Hann,
        (_, Some("sinc_interp_kaiser")) => SincWindow::Kaiser {
            beta: number(case, "beta"),
        },
        other => panic!("{}: {other:?}", case.name()),
    };
    Resampler::WindowedSinc {
        lowpass_filter_width: number(case, "width") as usize,
        rolloff: number(case, "rolloff"),
        window,
    }
}

#[test]
fn rates_are_changed_as_by_the_libraries() {
    every(
        |case| case.text("kind") == "resample",
        |case| {
            let (shape, x) = case.values("x");
            let x: Vec<f32> = x.into_iter().map(|x| x as f32).collect();
            let channels = x.chunks_exact(shape[1]).map(<[f32]>::to_vec).collect();
            let (from, to) = (number(case, "from") as u32, number(case, "to") as u32);
            let wave = Waveform::new(channels, from).unwrap();
            let found = resampler(case).resample(&wave, to).unwrap();
            assert_eq!(found.sample_rate(), to);
            let samples = found.channels().iter().flatten().copied();
            let samples: Vec<f64> = samples.map(f64::from).collect();
            case.assert_values_within("y", &[found.num_channels(), found.len()], &samples);
            if case.has("taps") {
                let taps = polyphase_taps(to, from, 10, 5.0).unwrap();
                case.assert_values_within("taps", &[taps.len()], &taps);
            }
        },
    );
}

#[test]
fn samples_are_companded_as_by_the_libraries() {
    every(
        |case| case.text("kind") == "mu_law",
        |case| {
            let floats = |name: &str| -> Vec<f32> {
                let values = case.values(name).1;
                values.into_iter().map(|x| x as f32).collect()
            };
            let within = |name: &str, found: &[f32]| {
                let found: Vec<f64> = found.iter().copied().map(f64::from).collect();
                case.assert_values_within(name, &[found.len()], &found);
            };
            let (x, mu) = (floats("x"), number(case, "mu") as u32);
            let codes = mu_law_encode(&x, mu).unwrap();
            let expected: Vec<u32> = floats("codes").iter().map(|code| *code as u32).collect();
            assert_eq!(codes, expected, "{}", case.name());
            within("decoded", &mu_law_decode(&codes, mu).unwrap());
            let compressed = mu_law_compress(&x, mu).unwrap();
            within("compressed", &compressed);
            within("expanded", &mu_law_expand(&compressed, mu).unwrap());
        },
    );
}

/// A filter that is computed once serves sounds of all lengths.
#[test]
fn one_filter_for_many_sounds() {
    let resample = Resampler::default().init(22_050, 16_000).unwrap();
    for len in [0, 1, 100, 5000] {
        let samples: Vec<f32> = (0..len).map(|i| ((i % 17) as f32 - 8.0) / 8.0).collect();
        let wave = Waveform::mono(samples, 22_050).unwrap();
        let found = resample.forward(&wave).unwrap();
        assert_eq!(found, wave.resample(16_000).unwrap());
        assert_eq!(found.len(), resample.output_len(len));
    }
}

/// Channels do not leak into each other, and the operation is linear.
#[test]
fn channels_are_apart_and_sums_are_kept() {
    for resampler in [Resampler::default(), Resampler::polyphase(), Resampler::Fft] {
        let channel = |k: i32| -> Vec<f32> {
            let value = |i: i32| ((i * k) % 23 - 11) as f32 / 11.0;
            (0..500).map(value).collect()
        };
        let (a, b) = (channel(3), channel(7));
        let both = Waveform::new(vec![a.clone(), b.clone()], 8000).unwrap();
        let both = resampler.resample(&both, 11_025).unwrap();
        let resample = resampler.init(8000, 11_025).unwrap();
        assert_eq!(both.channel(0), resample.apply(&a));
        assert_eq!(both.channel(1), resample.apply(&b));
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let sum = resample.apply(&sum);
        for (at, sum) in sum.iter().enumerate() {
            let parts = both.channel(0)[at] + both.channel(1)[at];
            assert!((sum - parts).abs() < 1e-5, "{resampler:?}: {sum} {parts}");
        }
    }
}
