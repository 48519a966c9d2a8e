//! Sound files of any format, told apart by their content.

use super::{Waveform, decode_wav, wav::MAX_BYTES};
use crate::{DataFault, Error, Result, fs::read_at_most};
use std::path::Path;

/// Reads a sound file. WAV always; FLAC, MP3, Ogg Vorbis and AIFF with the feature `audio-files`.
/// The format is detected from the content of the file, not from its extension.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] for another format, or a file that is broken.
pub fn read_audio(path: impl AsRef<Path>) -> Result<Waveform> {
    let path = path.as_ref();
    let bytes = read_at_most(path, MAX_BYTES)?;
    decode_audio(bytes).map_err(|fault| Error::data(path, fault))
}

/// The sound of a file in memory.
///
/// # Errors
/// What is wrong with it, as for [`read_audio`].
pub fn decode_audio(bytes: Vec<u8>) -> Result<Waveform, DataFault> {
    match format_of(&bytes) {
        Some(WAV) => decode_wav(&bytes),
        format => decode_other(bytes, format),
    }
}

const WAV: &str = "WAV";

/// The format that the first bytes are typical of.
fn format_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        // RF64 and BW64 for their error.
        [b'R', b'I', b'F', b'F' | b'X', ..]
        | [b'R', b'F', b'6', b'4', ..]
        | [b'B', b'W', b'6', b'4', ..] => Some(WAV),
        [b'f', b'L', b'a', b'C', ..] => Some("FLAC"),
        [b'O', b'g', b'g', b'S', ..] => Some("Ogg"),
        [
            b'F',
            b'O',
            b'R',
            b'M',
            _,
            _,
            _,
            _,
            b'A',
            b'I',
            b'F',
            b'F' | b'C',
            ..,
        ] => Some("AIFF"),
        // Tags, or the bits that a frame begins with.
        [b'I', b'D', b'3', ..] | [0xff, 0xe0..=0xff, ..] => Some("MP3"),
        _ => None,
    }
}

#[cfg(feature = "audio-files")]
fn decode_other(bytes: Vec<u8>, format: Option<&'static str>) -> Result<Waveform, DataFault> {
    super::decoders::decode(bytes).map_err(|reason| match format {
        Some(format) => DataFault::Decode(format!("{format}: {reason}")),
        None => DataFault::Decode(format!(
            "{reason}; expected WAV, FLAC, MP3, Ogg Vorbis or AIFF"
        )),
    })
}

#[cfg(not(feature = "audio-files"))]
fn decode_other(_: Vec<u8>, format: Option<&'static str>) -> Result<Waveform, DataFault> {
    Err(DataFault::Decode(match format {
        Some(format) => format!("{format} is read with the feature `audio-files` only"),
        None => "no sound of a known format, expected WAV".into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_content() {
        for (bytes, format) in [
            (&b"RIFF\0\0\0\0WAVE"[..], Some("WAV")),
            (b"RF64", Some("WAV")),
            (b"fLaC\0", Some("FLAC")),
            (b"OggS", Some("Ogg")),
            (b"FORM\0\0\0\0AIFC", Some("AIFF")),
            (b"ID3\x04", Some("MP3")),
            (b"\xff\xfb\x90", Some("MP3")),
            (b"\xff\x00", None),
            (b"", None),
            (b"RIF", None),
        ] {
            assert_eq!(format_of(bytes), format, "{bytes:?}");
        }
    }

    #[test]
    fn other_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        for bytes in [
            &b""[..],
            b"text",
            b"fLaC",
            b"OggS",
            b"ID3",
            b"RIFF",
            b"\xff\xfb",
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = read_audio(&path).unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{error}");
            assert!(error.to_string().contains("sound.wav"), "{error}");
        }
        assert!(matches!(read_audio(folder.path()), Err(Error::Io { .. })));
    }
}
