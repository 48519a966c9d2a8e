//! A reader of WAV files: PCM of 8 to 32 bits and floats of 32 bits.

use aigc_core::{DataFault, Error, Result, fs::read_at_most};
use std::path::Path;

/// Size of a file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Codes of the format chunk.
const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xfffe;

/// A sound of one channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Clip {
    /// Values in `[−1, 1]`; several channels are averaged.
    pub(crate) samples: Vec<f32>,
    /// Samples per second.
    pub(crate) rate: u32,
}

/// Reads a file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] for another format, a file that is cut or has no samples.
pub(crate) fn read(path: &Path) -> Result<Clip> {
    let bytes = read_at_most(path, MAX_BYTES)?;
    parse(&bytes).map_err(|fault| Error::data(path, fault))
}

/// How samples are stored.
struct Format {
    code: u16,
    channels: usize,
    rate: u32,
    bits: u16,
}

fn parse(bytes: &[u8]) -> Result<Clip, DataFault> {
    let bad = |reason: &str| DataFault::BadHeader(reason.into());
    if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
        return Err(bad("no RIFF file of the kind WAVE"));
    }
    let (mut at, mut format) = (12, None);
    while let Some(header) = bytes.get(at..at + 8) {
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let start = at + 8;
        let content = bytes.get(start..start.saturating_add(size));
        let content = content.ok_or(DataFault::Truncated {
            expected: (start + size) as u64,
            found: bytes.len() as u64,
        })?;
        match &header[..4] {
            b"fmt " => format = Some(parse_format(content)?),
            b"data" => {
                let format = format.ok_or_else(|| bad("samples before their format"))?;
                return samples(content, &format);
            }
            _ => {}
        }
        // Chunks begin at even bytes.
        at = start + size + size % 2;
    }
    Err(DataFault::Empty("no chunk with samples".into()))
}

fn parse_format(content: &[u8]) -> Result<Format, DataFault> {
    let bad = DataFault::BadHeader;
    if content.len() < 16 {
        return Err(bad(format!(
            "a format of {} bytes, expected 16",
            content.len()
        )));
    }
    let short = |at: usize| u16::from_le_bytes([content[at], content[at + 1]]);
    let rate = u32::from_le_bytes([content[4], content[5], content[6], content[7]]);
    let code = match short(0) {
        // The code is the beginning of an identifier behind the other fields.
        EXTENSIBLE if content.len() >= 26 => short(24),
        code => code,
    };
    let format = Format {
        code,
        channels: usize::from(short(2)),
        rate,
        bits: short(14),
    };
    let known = match format.code {
        PCM => [8, 16, 24, 32].contains(&format.bits),
        FLOAT => format.bits == 32,
        _ => false,
    };
    if !known {
        return Err(bad(format!(
            "samples of format {} with {} bits; expected PCM of 8, 16, 24 or 32 bits or floats of \
             32",
            format.code, format.bits
        )));
    }
    if format.channels == 0 || format.rate == 0 {
        return Err(bad(format!("{} channels at {rate} Hz", format.channels)));
    }
    Ok(format)
}

fn samples(content: &[u8], format: &Format) -> Result<Clip, DataFault> {
    let width = usize::from(format.bits / 8);
    let frame = width * format.channels;
    let value = |bytes: &[u8]| match (format.code, bytes) {
        (FLOAT, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (_, &[a]) => (f32::from(a) - 128.0) / 128.0,
        (_, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
        (_, &[a, b, c]) => i32::from_le_bytes([0, a, b, c]) as f32 / 2_147_483_648.0,
        (_, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32 / 2_147_483_648.0,
        _ => f32::NAN,
    };
    let mean = |frame: &[u8]| {
        let sum: f32 = frame.chunks_exact(width).map(value).sum();
        sum / format.channels as f32
    };
    let samples: Vec<f32> = content.chunks_exact(frame).map(mean).collect();
    if samples.is_empty() {
        return Err(DataFault::Empty("it has no samples".into()));
    }
    if samples.iter().any(|value| !value.is_finite()) {
        return Err(DataFault::Decode("a sample is not finite".into()));
    }
    Ok(Clip {
        samples,
        rate: format.rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(code: u16, channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
        bytes.extend(code.to_le_bytes());
        bytes.extend(channels.to_le_bytes());
        bytes.extend(8000u32.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(bits.to_le_bytes());
        bytes.extend(b"data");
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn values_have_their_scale() {
        let values = |code, channels, bits, data: &[u8]| {
            let clip = parse(&file(code, channels, bits, data)).unwrap();
            assert_eq!(clip.rate, 8000);
            clip.samples
        };
        assert_eq!(values(PCM, 1, 8, &[0, 128, 192]), [-1.0, 0.0, 0.5]);
        assert_eq!(values(PCM, 1, 16, &[0, 0x80, 0, 0x40]), [-1.0, 0.5]);
        assert_eq!(values(PCM, 1, 24, &[0, 0, 0x40]), [0.5]);
        assert_eq!(values(PCM, 1, 32, &[0, 0, 0, 0xc0]), [-0.5]);
        assert_eq!(values(FLOAT, 1, 32, &0.25f32.to_le_bytes()), [0.25]);
        assert_eq!(values(PCM, 2, 16, &[0, 0x40, 0, 0]), [0.25]);
    }

    #[test]
    fn broken_files_are_errors() {
        let error = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        let good = file(PCM, 1, 16, &[0; 4]);
        for end in 0..good.len() {
            assert!(parse(&good[..end]).is_err(), "{end}");
        }
        assert!(error(b"ID3").contains("no RIFF"));
        assert!(error(&file(PCM, 1, 12, &[0; 4])).contains("with 12 bits"));
        assert!(error(&file(2, 1, 16, &[0; 4])).contains("format 2"));
        assert!(error(&file(PCM, 0, 16, &[0; 4])).contains("0 channels"));
        assert!(error(&file(PCM, 1, 16, &[])).contains("no samples"));
        assert!(error(&file(FLOAT, 1, 32, &f32::NAN.to_le_bytes())).contains("not finite"));
        assert!(error(&good[..good.len() - 1]).contains("truncated"));
    }
}
