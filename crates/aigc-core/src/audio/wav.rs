//! The reader of WAV files (Multimedia Programming Interface and Data Specifications 1.0, chapter
//! 3; Multiple Channel Audio Data and WAVE Files, Microsoft 2007).
//!
//! A header that contradicts itself or the file is an error. Nothing is allocated that the bytes
//! of the file do not fill.

use super::{Waveform, g711};
use crate::{DataFault, Error, Result, fs::read_at_most};
use std::path::Path;

/// Size of a file that is read, in bytes: what the header of a WAV file can express.
pub(super) const MAX_BYTES: u64 = 1 << 32;

/// Length of `RIFF`, the size and `WAVE`.
const HEADER: usize = 12;

/// What follows the code of a format in the identifiers of extensible files.
const EXTENSIBLE_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// Reads a WAV file: PCM of 8 to 32 bits, floats of 32 and 64 bits, A-law and mu-law.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] for another format or encoding, a header that contradicts itself
/// or the file, a sound without samples, or a sample that is not finite.
pub fn read_wav(path: impl AsRef<Path>) -> Result<Waveform> {
    let path = path.as_ref();
    let bytes = read_at_most(path, MAX_BYTES)?;
    decode_wav(&bytes).map_err(|fault| Error::data(path, fault))
}

/// The sound of a WAV file in memory.
///
/// # Errors
/// What is wrong with it, as for [`read_wav`].
pub fn decode_wav(bytes: &[u8]) -> Result<Waveform, DataFault> {
    let end = end_of_riff(bytes)?;
    let (mut at, mut format) = (HEADER, None);
    while at < end {
        let (kind, content) = chunk(bytes, at, end)?;
        match kind {
            b"fmt " => format = Some(Format::parse(content)?),
            b"data" => {
                let format: Format = format.ok_or_else(|| bad("samples before their format"))?;
                return format.waveform(content);
            }
            _ => {}
        }
        // Chunks begin at even bytes.
        at += 8 + content.len() + content.len() % 2;
    }
    Err(DataFault::Empty("no chunk `data`".into()))
}

fn bad(reason: impl Into<String>) -> DataFault {
    DataFault::BadHeader(reason.into())
}

/// Checks the header of the file; returns where its content ends.
fn end_of_riff(bytes: &[u8]) -> Result<usize, DataFault> {
    let found = bytes.len() as u64;
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(DataFault::Truncated {
            expected: HEADER as u64,
            found,
        });
    };
    let is_wave = header.ends_with(b"WAVE");
    match &header[..4] {
        b"RIFF" if is_wave => {}
        b"RF64" | b"BW64" if is_wave => {
            return Err(bad(
                "RF64, the form of WAV files above 4 GiB; split the sound or convert it to WAV",
            ));
        }
        b"RIFX" if is_wave => return Err(bad("RIFX, the form of WAV with big-endian numbers")),
        _ => return Err(bad("no WAV file: it does not begin with `RIFF` and `WAVE`")),
    }
    let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let expected = u64::from(size) + 8;
    if expected < HEADER as u64 {
        return Err(bad(format!(
            "a size of {expected} bytes, less than that of the header"
        )));
    }
    // Bytes behind the end are of other programs, as tags.
    if expected > found {
        return Err(DataFault::Truncated { expected, found });
    }
    Ok(expected as usize)
}

/// The chunk that begins at `at`, before `end`.
fn chunk(bytes: &[u8], at: usize, end: usize) -> Result<(&[u8; 4], &[u8]), DataFault> {
    let truncated = |size: usize| DataFault::Truncated {
        expected: (at + 8).saturating_add(size) as u64,
        found: end as u64,
    };
    let rest = &bytes[at..end];
    let (kind, rest) = rest.split_first_chunk::<4>().ok_or(truncated(0))?;
    let (size, rest) = rest.split_first_chunk::<4>().ok_or(truncated(0))?;
    let size = u32::from_le_bytes(*size) as usize;
    let content = rest.get(..size).ok_or(truncated(size))?;
    Ok((kind, content))
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    Pcm,
    Float,
    ALaw,
    MuLaw,
}

/// How samples are stored.
#[derive(Clone, Copy)]
struct Format {
    encoding: Encoding,
    channels: usize,
    sample_rate: u32,
    /// Bytes of a value.
    width: usize,
}

impl Format {
    fn parse(content: &[u8]) -> Result<Self, DataFault> {
        if content.len() < 16 {
            return Err(bad(format!(
                "a format of {} bytes, expected 16 or more",
                content.len()
            )));
        }
        let short = |at: usize| u16::from_le_bytes([content[at], content[at + 1]]);
        let sample_rate = u32::from_le_bytes([content[4], content[5], content[6], content[7]]);
        let (channels, frame) = (usize::from(short(2)), usize::from(short(12)));
        let code = match short(0) {
            0xfffe => extensible_code(content)?,
            code => code,
        };
        if channels == 0 || sample_rate == 0 {
            return Err(bad(format!("{channels} channels at {sample_rate} Hz")));
        }
        let (bits, width) = (usize::from(short(14)), frame / channels);
        let encoding = encoding(code, bits)?;
        // Samples of 24 bits may take four bytes, of which the first is not used.
        let fits = width == bits.div_ceil(8) || (bits == 24 && width == 4);
        if !frame.is_multiple_of(channels) || !fits {
            return Err(bad(format!(
                "frames of {frame} bytes for {channels} channels of {bits} bits"
            )));
        }
        Ok(Self {
            encoding,
            channels,
            sample_rate,
            width,
        })
    }

    /// The sound of the content of the chunk `data`.
    fn waveform(&self, content: &[u8]) -> Result<Waveform, DataFault> {
        let frame = self.width * self.channels;
        if content.is_empty() {
            return Err(DataFault::Empty("it has no samples".into()));
        }
        if !content.len().is_multiple_of(frame) {
            return Err(bad(format!(
                "{} bytes of samples, no multiple of a frame's {frame}",
                content.len()
            )));
        }
        let value = self.value();
        let channel = |index: usize| -> Vec<f32> {
            let at = index * self.width;
            content
                .chunks_exact(frame)
                .map(|frame| value(&frame[at..at + self.width]))
                .collect()
        };
        let channels: Vec<Vec<f32>> = (0..self.channels).map(channel).collect();
        // Only floats can be infinite or no numbers.
        if self.encoding == Encoding::Float {
            for (index, channel) in channels.iter().enumerate() {
                if let Some(at) = channel.iter().position(|value| !value.is_finite()) {
                    return Err(DataFault::Decode(format!(
                        "sample {at} of channel {index} is {}",
                        channel[at]
                    )));
                }
            }
        }
        let wave = Waveform::new(channels, self.sample_rate);
        wave.map_err(|error| bad(error.to_string()))
    }

    /// Reads the bytes of a value.
    fn value(&self) -> fn(&[u8]) -> f32 {
        match (self.encoding, self.width) {
            (Encoding::Pcm, 1) => pcm8,
            (Encoding::Pcm, 2) => pcm16,
            (Encoding::Pcm, 3) => pcm24,
            (Encoding::Pcm, _) => pcm32,
            (Encoding::Float, 4) => float32,
            (Encoding::Float, _) => float64,
            (Encoding::ALaw, _) => a_law,
            (Encoding::MuLaw, _) => mu_law,
        }
    }
}

/// The code of the format of an extensible file: the beginning of an identifier.
fn extensible_code(content: &[u8]) -> Result<u16, DataFault> {
    let Some(identifier) = content.get(24..40) else {
        return Err(bad(format!(
            "an extensible format of {} bytes, expected 40",
            content.len()
        )));
    };
    if identifier[2..] != EXTENSIBLE_TAIL {
        return Err(bad(format!(
            "the extensible format {identifier:02x?}, which is not known"
        )));
    }
    Ok(u16::from_le_bytes([identifier[0], identifier[1]]))
}

fn encoding(code: u16, bits: usize) -> Result<Encoding, DataFault> {
    match (code, bits) {
        (1, 1..=32) => Ok(Encoding::Pcm),
        (3, 32 | 64) => Ok(Encoding::Float),
        (6, 8) => Ok(Encoding::ALaw),
        (7, 8) => Ok(Encoding::MuLaw),
        _ => Err(bad(format!(
            "samples of format {code:#06x}{} with {bits} bits; expected PCM of 1 to 32 bits, \
             floats of 32 or 64, A-law or mu-law of 8",
            name_of(code)
        ))),
    }
}

/// Names of formats that are met and not read.
fn name_of(code: u16) -> &'static str {
    match code {
        0x01 => " (PCM)",
        0x02 => " (Microsoft's ADPCM)",
        0x03 => " (floats)",
        0x06 => " (A-law)",
        0x07 => " (mu-law)",
        0x11 => " (IMA ADPCM)",
        0x31 => " (GSM 6.10)",
        0x50 | 0x55 => " (MPEG)",
        _ => "",
    }
}

// Values are as long as `Format::value` says. Fewer bits than bytes have room for are the upper
// ones.

fn pcm8(bytes: &[u8]) -> f32 {
    (f32::from(bytes[0]) - 128.0) / 128.0
}

fn pcm16(bytes: &[u8]) -> f32 {
    f32::from(i16::from_le_bytes([bytes[0], bytes[1]])) / 32_768.0
}

fn pcm24(bytes: &[u8]) -> f32 {
    i32::from_le_bytes([0, bytes[0], bytes[1], bytes[2]]) as f32 / 2_147_483_648.0
}

fn pcm32(bytes: &[u8]) -> f32 {
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as f32 / 2_147_483_648.0
}

fn float32(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn float64(bytes: &[u8]) -> f32 {
    let mut value = [0; 8];
    value.copy_from_slice(bytes);
    f64::from_le_bytes(value) as f32
}

fn a_law(bytes: &[u8]) -> f32 {
    f32::from(g711::a_law(bytes[0])) / 32_768.0
}

fn mu_law(bytes: &[u8]) -> f32 {
    f32::from(g711::mu_law(bytes[0])) / 32_768.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a list of odd length before its format.
    fn file(code: u16, channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
        let frame = channels * bits.div_ceil(8);
        let mut chunks = b"WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
        for value in [code, channels, 8000, 0, 0, 0, frame, bits] {
            chunks.extend(value.to_le_bytes());
        }
        chunks.extend(b"data");
        chunks.extend((data.len() as u32).to_le_bytes());
        chunks.extend(data);
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((chunks.len() as u32).to_le_bytes());
        bytes.extend(chunks);
        bytes
    }

    #[test]
    fn values_have_their_scale() {
        let values = |code, channels, bits, data: &[u8]| {
            let wave = decode_wav(&file(code, channels, bits, data)).unwrap();
            assert_eq!(wave.sample_rate(), 8000);
            wave.into_channels().concat()
        };
        assert_eq!(values(1, 1, 8, &[0, 128, 192]), [-1.0, 0.0, 0.5]);
        assert_eq!(values(1, 1, 16, &[0, 0x80, 0, 0x40]), [-1.0, 0.5]);
        assert_eq!(values(1, 1, 12, &[0xf0, 0x7f]), [32_752.0 / 32_768.0]);
        assert_eq!(values(1, 1, 24, &[0, 0, 0x40]), [0.5]);
        assert_eq!(values(1, 1, 32, &[0, 0, 0, 0xc0]), [-0.5]);
        assert_eq!(values(3, 1, 32, &2.5f32.to_le_bytes()), [2.5]);
        assert_eq!(values(3, 1, 64, &0.25f64.to_le_bytes()), [0.25]);
        // Channels are stored frame by frame.
        assert_eq!(values(1, 2, 8, &[0, 128, 192, 64]), [-1.0, 0.5, 0.0, -0.5]);
    }

    #[test]
    fn cut_files_are_errors() {
        let good = file(1, 1, 16, &[0; 4]);
        for end in 0..good.len() {
            assert!(decode_wav(&good[..end]).is_err(), "{end}");
        }
        let mut longer = good.clone();
        longer.extend(b"ID3 of another program");
        assert_eq!(decode_wav(&longer).unwrap(), decode_wav(&good).unwrap());
    }
}
