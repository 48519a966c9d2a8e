//! Sound files of libsndfile, and files of ours.

use aigc_core::{
    Error,
    audio::{
        WavFormat, WavWriter, Waveform, read_audio, read_wav, write_wav, write_wav_with_provenance,
    },
    output::provenance::{Provenance, Verification, verify_file},
};
use aigc_tests::fixtures::every;

/// Every case, by its content; WAV also by the reader that has no other formats.
#[test]
fn files_of_libsndfile_are_read() {
    every(
        |case| case.text("kind") == "audio_file",
        |case| {
            let path = case.path("file");
            let wave = read_audio(&path).unwrap();
            let rate = case.values("sample_rate").1[0];
            assert_eq!(f64::from(wave.sample_rate()), rate, "{}", case.name());
            let dims = [wave.num_channels(), wave.len()];
            let samples = wave.channels().iter().flatten().copied();
            let samples: Vec<f64> = samples.map(f64::from).collect();
            case.assert_values_within("samples", &dims, &samples);
            if path.extension().is_some_and(|extension| extension == "wav") {
                assert_eq!(read_wav(&path).unwrap(), wave);
            }
        },
    );
}

/// The end of a name says nothing about the content.
#[test]
fn names_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    every(
        |case| case.text("kind") == "audio_file",
        |case| {
            let named = folder.path().join("sound.txt");
            // Not copied: fixtures may be read-only, and copies would be.
            let bytes = std::fs::read(case.path("file")).unwrap();
            std::fs::write(&named, bytes).unwrap();
            let expected = read_audio(case.path("file")).unwrap();
            assert_eq!(read_audio(&named).unwrap(), expected, "{}", case.name());
        },
    );
}

/// A file without its end is an error that names it, or a shorter sound where the format has no
/// end.
#[test]
fn cut_files_are_no_panics() {
    let folder = tempfile::tempdir().unwrap();
    every(
        |case| case.text("kind") == "audio_file",
        |case| {
            let bytes = std::fs::read(case.path("file")).unwrap();
            let whole = read_audio(case.path("file")).unwrap();
            let path = folder.path().join("cut");
            let step = (bytes.len() / 40).max(1);
            for end in (0..bytes.len()).step_by(step) {
                std::fs::write(&path, &bytes[..end]).unwrap();
                match read_audio(&path) {
                    Ok(wave) => {
                        assert!(wave.len() <= whole.len(), "{} {end}", case.name());
                        assert!(!case.text("file").ends_with(".wav"), "{end}");
                    }
                    Err(Error::Data { path: named, .. }) => assert_eq!(named, path),
                    Err(error) => panic!("{error}"),
                }
            }
        },
    );
}

fn ramp(channels: usize, len: usize) -> Waveform {
    let channel = |c: usize| {
        let value = |i: usize| ((i * (c + 3)) % 64) as f32 / 32.0 - 1.0;
        (0..len).map(value).collect()
    };
    Waveform::new((0..channels).map(channel).collect(), 22_050).unwrap()
}

#[test]
fn written_files_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").join("sound.wav");
    for format in [
        WavFormat::Pcm16,
        WavFormat::Pcm24,
        WavFormat::Pcm32,
        WavFormat::Float32,
    ] {
        for channels in [1, 2, 6] {
            let wave = ramp(channels, 101);
            write_wav(&wave, &path, format).unwrap();
            assert_eq!(read_audio(&path).unwrap(), wave, "{format:?} {channels}");
        }
    }
}

#[test]
fn records_are_kept_with_the_sound() {
    let folder = tempfile::tempdir().unwrap();
    let provenance = Provenance::new("codec").with_seed(7).with_prompt("rain");
    let wave = ramp(1, 101);
    let (whole, pieces) = (
        folder.path().join("whole.wav"),
        folder.path().join("pieces.wav"),
    );
    write_wav_with_provenance(&wave, &whole, WavFormat::Pcm24, &provenance).unwrap();
    let mut writer = WavWriter::create(&pieces, 1, 22_050, WavFormat::Pcm24).unwrap();
    for start in [0, 50] {
        let piece = wave.slice(start, 50 + start / 50).unwrap();
        writer.write(&piece).unwrap();
        writer.flush().unwrap();
    }
    writer.finish_with_provenance(&provenance).unwrap();
    for path in [&whole, &pieces] {
        let found = verify_file(path).unwrap();
        assert_eq!(found, Verification::Valid(provenance.clone()));
        assert_eq!(read_wav(path).unwrap(), wave);
    }
    assert_eq!(
        std::fs::read(&whole).unwrap(),
        std::fs::read(&pieces).unwrap()
    );
}
