//! Any bytes are a WAV file or an error. A sound has no more samples than the file has bytes, all
//! finite, and is the same after it is written and read again.
#![no_main]

use aigc_core::audio::{Resampler, WavFormat, decode_audio, decode_wav, encode_wav};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

/// Valid files, for the fuzzer to start from: `AIGC_SEEDS=corpus/wav`.
fn write_seeds(to: &Path) {
    std::fs::create_dir_all(to).expect("it can be created");
    let sound = include_bytes!("../../tests/fixtures/eval/provenance/sound.wav");
    std::fs::write(to.join("sound.wav"), sound).expect("it can be written");
    let wave = decode_wav(sound).expect("it is valid").to_stereo();
    let wave = wave.slice(0, wave.len().min(16)).expect("it is as long");
    for (name, format) in [
        ("pcm16.wav", WavFormat::Pcm16),
        ("pcm24.wav", WavFormat::Pcm24),
        ("pcm32.wav", WavFormat::Pcm32),
        ("float32.wav", WavFormat::Float32),
    ] {
        let bytes = encode_wav(&wave, format).expect("it is not empty");
        std::fs::write(to.join(name), bytes).expect("it can be written");
    }
}

fuzz_target!(init: {
    if let Some(seeds) = std::env::var_os("AIGC_SEEDS") {
        write_seeds(Path::new(&seeds));
    }
}, |bytes: &[u8]| {
    let found = decode_wav(bytes);
    // A WAV file is recognised by its content.
    assert!(found.is_err() || decode_audio(bytes.to_vec()) == found);
    let Ok(wave) = found else {
        return;
    };
    assert!(!wave.is_empty() && wave.sample_rate() > 0);
    assert!(wave.num_channels() * wave.len() <= bytes.len());
    assert!(wave.channels().iter().flatten().all(|x| x.is_finite()));
    // Floats take four bytes where the file may have one, so that the frames of a sound of many
    // channels may be too long to be written.
    if let Ok(written) = encode_wav(&wave, WavFormat::Float32) {
        assert_eq!(decode_wav(&written).expect("it is ours"), wave);
    }
    // Filters between other rates are large, and slow to compute.
    let mono = wave.to_mono();
    if mono.sample_rate() > 48_000 {
        return;
    }
    if let Ok(resample) = Resampler::default().init(mono.sample_rate(), 16_000) {
        let samples = resample.apply(mono.channel(0));
        assert_eq!(samples.len(), resample.output_len(mono.len()));
    }
});
