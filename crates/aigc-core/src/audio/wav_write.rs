//! The writer of WAV files.

use super::Waveform;
use crate::{
    Error, Result,
    check::ensure_argument,
    fs::write_atomic,
    output::provenance::{Provenance, save_with_provenance},
};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How samples are written. Whole numbers are rounded to the nearest; what lies beyond `[-1, 1]`
/// is clipped. A file that was read is written with the same values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WavFormat {
    /// Whole numbers of 16 bits.
    #[default]
    Pcm16,
    /// Whole numbers of 24 bits.
    Pcm24,
    /// Whole numbers of 32 bits.
    Pcm32,
    /// Floats of 32 bits: nothing is rounded or clipped.
    Float32,
}

/// Length of the header of PCM, up to the first sample.
const PCM_HEADER: u64 = 44;
/// Length of the header of floats: its format is longer, and a chunk `fact` counts the frames.
const FLOAT_HEADER: u64 = 58;

impl WavFormat {
    /// Bytes of a sample.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Pcm16 => 2,
            Self::Pcm24 => 3,
            Self::Pcm32 | Self::Float32 => 4,
        }
    }

    /// Bytes before the first sample.
    pub(super) fn header_len(self) -> u64 {
        if self == Self::Float32 {
            FLOAT_HEADER
        } else {
            PCM_HEADER
        }
    }

    /// The header of a file with `frames` samples of each channel.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the format cannot express the numbers.
    pub(super) fn header(self, channels: usize, sample_rate: u32, frames: u64) -> Result<Vec<u8>> {
        let frame = u16::try_from(channels.saturating_mul(self.width())).map_err(|_| {
            let most = usize::from(u16::MAX) / self.width();
            Error::argument(
                "channels",
                channels,
                format!("at most {most} in a WAV file"),
            )
        })?;
        let data = frames.saturating_mul(u64::from(frame));
        let padded = data.saturating_add(data % 2);
        let size = u32::try_from(padded.saturating_add(self.header_len() - 8)).map_err(|_| {
            Error::argument(
                "wave",
                format!("{frames} samples of {channels} channels"),
                "less than the 4 GiB of a WAV file",
            )
        })?;
        let is_float = self == Self::Float32;
        let mut header = b"RIFF".to_vec();
        header.extend(size.to_le_bytes());
        header.extend(b"WAVEfmt ");
        let (length, code) = if is_float { (18u32, 3u16) } else { (16, 1) };
        header.extend(length.to_le_bytes());
        header.extend(code.to_le_bytes());
        // Both are smaller than the size of a frame, which is one of 16 bits.
        header.extend((channels as u16).to_le_bytes());
        header.extend(sample_rate.to_le_bytes());
        header.extend(sample_rate.saturating_mul(u32::from(frame)).to_le_bytes());
        header.extend(frame.to_le_bytes());
        header.extend((8 * self.width() as u16).to_le_bytes());
        if is_float {
            // Length of what follows in the format: nothing.
            header.extend(0u16.to_le_bytes());
            header.extend(b"fact\x04\0\0\0");
            header.extend((frames as u32).to_le_bytes());
        }
        header.extend(b"data");
        header.extend((data as u32).to_le_bytes());
        debug_assert_eq!(header.len() as u64, self.header_len());
        Ok(header)
    }

    /// Appends the samples of all channels, frame by frame.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a sample is not finite.
    pub(super) fn append(self, wave: &Waveform, to: &mut Vec<u8>) -> Result<()> {
        for (index, channel) in wave.channels().iter().enumerate() {
            if let Some(at) = channel.iter().position(|x| !x.is_finite()) {
                let name = format!("sample {at} of channel {index}");
                return Err(Error::argument(name, channel[at], "a finite number"));
            }
        }
        to.reserve(wave.len() * wave.num_channels() * self.width());
        for at in 0..wave.len() {
            for channel in wave.channels() {
                self.push(channel[at], to);
            }
        }
        Ok(())
    }

    fn push(self, x: f32, to: &mut Vec<u8>) {
        match self {
            Self::Pcm16 => to.extend((whole(x, 15) as i16).to_le_bytes()),
            Self::Pcm24 => to.extend(&whole(x, 23).to_le_bytes()[..3]),
            Self::Pcm32 => to.extend(whole(x, 31).to_le_bytes()),
            Self::Float32 => to.extend(x.to_le_bytes()),
        }
    }
}

/// The whole number from `-2^bits` to `2^bits - 1` that is nearest to `x·2^bits`.
fn whole(x: f32, bits: i32) -> i32 {
    let scale = 2f64.powi(bits);
    (f64::from(x) * scale).round().clamp(-scale, scale - 1.0) as i32
}

/// The bytes of a WAV file.
///
/// # Errors
/// [`Error::InvalidArgument`] if the sound is empty, a sample is not finite, or the number of
/// samples or channels exceeds the limits of the WAV format.
pub fn encode_wav(wave: &Waveform, format: WavFormat) -> Result<Vec<u8>> {
    ensure_argument(!wave.is_empty(), "wave", "empty", "at least one sample")?;
    let mut bytes = format.header(wave.num_channels(), wave.sample_rate(), wave.len() as u64)?;
    format.append(wave, &mut bytes)?;
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    Ok(bytes)
}

/// Writes a WAV file, atomically.
///
/// # Errors
/// As for [`encode_wav`]; [`Error::Io`] if the file cannot be written.
pub fn write_wav(wave: &Waveform, path: impl AsRef<Path>, format: WavFormat) -> Result<()> {
    write_atomic(path.as_ref(), &encode_wav(wave, format)?)
}

/// Writes a WAV file with a record of how it was made, atomically.
///
/// # Errors
/// As for [`write_wav`] and [`save_with_provenance`].
pub fn write_wav_with_provenance(
    wave: &Waveform,
    path: impl AsRef<Path>,
    format: WavFormat,
    provenance: &Provenance,
) -> Result<()> {
    save_with_provenance(&encode_wav(wave, format)?, provenance, path.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::decode_wav;

    const ALL: [WavFormat; 4] = [
        WavFormat::Pcm16,
        WavFormat::Pcm24,
        WavFormat::Pcm32,
        WavFormat::Float32,
    ];

    #[test]
    fn what_is_read_is_written_again() {
        // An odd number of bytes with 24 bits, and both ends of the range.
        let values = [-1.0, 0.5, 32_767.0 / 32_768.0, -1.0 / 32_768.0, 0.0];
        for format in ALL {
            for channels in [1, 3] {
                let wave = Waveform::new(vec![values.to_vec(); channels], 44_100).unwrap();
                let bytes = encode_wav(&wave, format).unwrap();
                assert_eq!(bytes.len() % 2, 0);
                assert_eq!(decode_wav(&bytes).unwrap(), wave, "{format:?}");
            }
        }
    }

    #[test]
    fn values_are_rounded_and_clipped() {
        let wave = Waveform::mono(vec![2.0, -2.0, 1.4 / 32_768.0, -1.6 / 32_768.0], 8000).unwrap();
        let found = decode_wav(&encode_wav(&wave, WavFormat::Pcm16).unwrap()).unwrap();
        let steps: Vec<f32> = found.channel(0).iter().map(|x| x * 32_768.0).collect();
        assert_eq!(steps, [32_767.0, -32_768.0, 1.0, -2.0]);
        let found = decode_wav(&encode_wav(&wave, WavFormat::Float32).unwrap()).unwrap();
        assert_eq!(found, wave);
        // The largest float of 32 bits is above the largest whole number.
        let found = decode_wav(&encode_wav(&wave, WavFormat::Pcm32).unwrap()).unwrap();
        assert_eq!(found.peak(), 1.0);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let message = |wave: Waveform| {
            let error = encode_wav(&wave, WavFormat::Pcm16).unwrap_err();
            error.to_string()
        };
        assert!(message(Waveform::mono(vec![], 8000).unwrap()).contains("empty"));
        let error = message(Waveform::mono(vec![0.0, f32::NAN], 8000).unwrap());
        assert!(error.contains("sample 1 of channel 0"), "{error}");
        let error = message(Waveform::silence(40_000, 1, 8000).unwrap());
        assert!(error.contains("at most 32767"), "{error}");
        let error = WavFormat::Pcm16.header(1, 8000, 1 << 31).unwrap_err();
        assert!(error.to_string().contains("4 GiB"), "{error}");
        assert!(WavFormat::Float32.header(1, 8000, u64::MAX).is_err());
    }
}
