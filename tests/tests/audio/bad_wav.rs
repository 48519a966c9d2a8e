//! WAV files that are broken, lie, or are in other encodings: each is an error that names the file
//! and what is wrong.

use aigc_core::{
    Error,
    audio::{read_audio, read_wav},
};
use std::path::Path;

/// The fields of a file.
struct File {
    form: [u8; 4],
    kind: [u8; 4],
    /// What is added to the true size.
    riff_size: i64,
    code: u16,
    channels: u16,
    rate: u32,
    frame: u16,
    bits: u16,
    /// What follows the sixteen bytes of the format.
    extension: Vec<u8>,
    /// Chunks between format and samples, as they are.
    between: Vec<u8>,
    /// What is added to the true size.
    data_size: i64,
    data: Vec<u8>,
}

impl Default for File {
    /// Eight samples of one channel, 16 bits.
    fn default() -> Self {
        Self {
            form: *b"RIFF",
            kind: *b"WAVE",
            riff_size: 0,
            code: 1,
            channels: 1,
            rate: 8000,
            frame: 2,
            bits: 16,
            extension: vec![],
            between: vec![],
            data_size: 0,
            data: vec![0; 16],
        }
    }
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let mut chunks = self.kind.to_vec();
        chunks.extend(b"fmt ");
        chunks.extend((16 + self.extension.len() as u32).to_le_bytes());
        chunks.extend(self.code.to_le_bytes());
        chunks.extend(self.channels.to_le_bytes());
        chunks.extend(self.rate.to_le_bytes());
        let per_second = self.rate.wrapping_mul(u32::from(self.frame));
        chunks.extend(per_second.to_le_bytes());
        chunks.extend(self.frame.to_le_bytes());
        chunks.extend(self.bits.to_le_bytes());
        chunks.extend(&self.extension);
        chunks.extend(&self.between);
        chunks.extend(b"data");
        chunks.extend(((self.data.len() as i64 + self.data_size) as u32).to_le_bytes());
        chunks.extend(&self.data);
        let mut bytes = self.form.to_vec();
        bytes.extend(((chunks.len() as i64 + self.riff_size) as u32).to_le_bytes());
        bytes.extend(chunks);
        bytes
    }
}

/// The extension of an extensible format: its size, valid bits, speakers, an identifier.
fn extensible(valid: u16, code: u16, tail: [u8; 14]) -> Vec<u8> {
    let mut bytes = 22u16.to_le_bytes().to_vec();
    bytes.extend(valid.to_le_bytes());
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(code.to_le_bytes());
    bytes.extend(tail);
    bytes
}

const TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// The default file with a change.
fn with(change: impl FnOnce(&mut File)) -> File {
    let mut file = File::default();
    change(&mut file);
    file
}

/// An extensible format.
fn wide(extension: Vec<u8>) -> File {
    with(|f| (f.code, f.extension) = (0xfffe, extension))
}

/// The error of a file; fails unless it is one of the file's content that names it.
fn error_of(bytes: &[u8], path: &Path) -> String {
    std::fs::write(path, bytes).unwrap();
    let error = read_wav(path).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("bad.wav"), "{text}");
    // Shorter ones could be of any format.
    if bytes.len() >= 4 {
        assert_eq!(read_audio(path).unwrap_err().to_string(), text);
    }
    text
}

/// Fails unless the error of each file has its text.
fn assert_errors(cases: impl IntoIterator<Item = (&'static str, File)>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.wav");
    for (expected, file) in cases {
        let text = error_of(&file.bytes(), &path);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn other_formats_are_named() {
    assert_errors([
        ("RF64", with(|f| f.form = *b"RF64")),
        ("RF64", with(|f| f.form = *b"BW64")),
        ("RIFX", with(|f| f.form = *b"RIFX")),
        ("does not begin with", with(|f| f.kind = *b"AVI ")),
        ("Microsoft's ADPCM", with(|f| (f.code, f.bits) = (2, 4))),
        ("IMA ADPCM", with(|f| (f.code, f.bits) = (0x11, 4))),
        ("MPEG", with(|f| (f.code, f.bits) = (0x55, 0))),
        ("format 0x1234", with(|f| f.code = 0x1234)),
        ("format of 16 bytes", with(|f| f.code = 0xfffe)),
        ("which is not known", wide(extensible(16, 1, [7; 14]))),
        ("format 0x0002", wide(extensible(16, 2, TAIL))),
    ]);
}

#[test]
fn sizes_that_lie_are_errors() {
    let all = i64::from(u32::MAX);
    assert_errors([
        ("truncated", with(|f| f.riff_size = 2)),
        ("truncated", with(|f| f.riff_size = -2)),
        ("truncated", with(|f| f.riff_size = 1 << 31)),
        ("truncated", with(|f| f.data_size = 2)),
        ("truncated", with(|f| f.data_size = all - 16)),
        ("less than that of", with(|f| f.riff_size = -49)),
        ("a frame's 2", with(|f| f.data = vec![0; 15])),
        ("no samples", with(|f| f.data = vec![])),
        ("no samples", with(|f| f.data_size = -16)),
        // A chunk before the samples.
        (
            "truncated",
            with(|f| f.between = b"LIST\xff\xff\xff\xff".to_vec()),
        ),
        (
            "truncated",
            with(|f| f.between = b"LIST\x10\0\0\0abc".to_vec()),
        ),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.wav");
    let bytes = File::default().bytes();
    for end in 0..bytes.len() {
        error_of(&bytes[..end], &path);
    }
    // Samples before their format, and no samples at all.
    let mut bytes = b"RIFF\x0e\0\0\0WAVEdata\x02\0\0\0\0\0".to_vec();
    let text = error_of(&bytes, &path);
    assert!(text.contains("before their format"), "{text}");
    bytes[12..16].copy_from_slice(b"junk");
    let text = error_of(&bytes, &path);
    assert!(text.contains("no chunk `data`"), "{text}");
}

#[test]
fn formats_that_contradict_themselves_are_errors() {
    assert_errors([
        ("0 channels", with(|f| f.channels = 0)),
        ("at 0 Hz", with(|f| f.rate = 0)),
        (
            "frames of 4 bytes for 1 channels of 16 bits",
            with(|f| f.frame = 4),
        ),
        ("frames of 0 bytes", with(|f| f.frame = 0)),
        ("frames of 2 bytes for 3 channels", with(|f| f.channels = 3)),
        (
            "frames of 2 bytes for 1 channels of 24",
            with(|f| f.bits = 24),
        ),
        ("with 0 bits", with(|f| f.bits = 0)),
        ("with 33 bits", with(|f| (f.bits, f.frame) = (33, 5))),
        ("(floats) with 16 bits", with(|f| f.code = 3)),
        ("(A-law) with 16 bits", with(|f| f.code = 6)),
    ]);
}

#[test]
fn samples_that_are_no_numbers_are_errors() {
    let float = |channels: u16, bits: u16, data: Vec<u8>| {
        with(|f| {
            (f.code, f.channels, f.bits) = (3, channels, bits);
            (f.frame, f.data) = (channels * bits / 8, data);
        })
    };
    let nan = [0.0, 0.0, 0.0, f32::NAN].map(f32::to_le_bytes).concat();
    let infinite = [f32::NEG_INFINITY].map(f32::to_le_bytes).concat();
    // Finite, and too large for 32 bits.
    let large = 1e300f64.to_le_bytes().to_vec();
    assert_errors([
        ("sample 1 of channel 1 is NaN", float(2, 32, nan)),
        ("sample 0 of channel 0 is -inf", float(1, 32, infinite)),
        ("sample 0 of channel 0 is inf", float(1, 64, large)),
    ]);
}

#[test]
fn unusual_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.wav");
    let read = |file: File| {
        std::fs::write(&path, file.bytes()).unwrap();
        read_wav(&path).unwrap()
    };
    let half = 0x4000i16.to_le_bytes().to_vec();
    // A chunk of odd length with its padding, and an empty one.
    let between = b"LIST\x03\0\0\0abc\0cue \0\0\0\0".to_vec();
    let wave = read(with(|f| (f.between, f.data) = (between, half.clone())));
    assert_eq!(wave.channel(0), [0.5]);
    // An odd number of bytes, with and without padding.
    for (data, data_size) in [(vec![192], 0), (vec![192, 0], -1)] {
        let wave = read(with(|f| {
            (f.bits, f.frame) = (8, 1);
            (f.data, f.data_size) = (data, data_size);
        }));
        assert_eq!(wave.channel(0), [0.5]);
    }
    // Samples of 24 bits in the upper bytes of 32.
    let wave = read(with(|f| {
        (f.bits, f.frame) = (24, 4);
        f.data = vec![0, 0, 0, 0x40];
    }));
    assert_eq!(wave.channel(0), [0.5]);
    let mut file = wide(extensible(24, 1, TAIL));
    (file.bits, file.frame, file.data) = (32, 4, vec![0, 0, 0, 0xc0]);
    assert_eq!(read(file).channel(0), [-0.5]);
    // Floats beyond full scale are kept.
    let wave = read(with(|f| {
        (f.code, f.bits, f.frame) = (3, 32, 4);
        f.data = [1.5f32, -8.0].map(f32::to_le_bytes).concat();
    }));
    assert_eq!(wave.channel(0), [1.5, -8.0]);
    // As many channels as the header can express.
    let wave = read(with(|f| {
        (f.channels, f.bits, f.frame) = (u16::MAX, 8, u16::MAX);
        f.data = vec![128; usize::from(u16::MAX) * 2];
    }));
    assert_eq!((wave.num_channels(), wave.len()), (65_535, 2));
    // Bytes of other programs behind the end.
    let mut bytes = with(|f| f.data = half).bytes();
    bytes.extend(b"TAG of a player");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(read_wav(&path).unwrap().channel(0), [0.5]);
}

#[test]
fn missing_files_and_directories_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("none.wav"), folder.path().to_path_buf()] {
        for result in [read_wav(&path), read_audio(&path)] {
            match result {
                Err(Error::Io { path: named, .. }) => assert_eq!(named, path),
                other => panic!("{other:?}"),
            }
        }
    }
}
