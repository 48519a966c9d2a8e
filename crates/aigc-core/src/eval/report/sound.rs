//! Sounds with their waveforms.

use super::{
    html::{data_uri, encoded_length, isolate},
    number::fixed,
    page::Page,
};
use crate::{Error, Result};
use serde::Serialize;

/// Columns of a drawn waveform.
const COLUMNS: usize = 240;
/// Bytes of a WAV header.
const HEADER: usize = 44;

/// A sound that can be played.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SoundSample {
    caption: String,
    sample_rate: u32,
    /// Seconds.
    duration: f64,
    #[serde(skip)]
    pcm: Vec<i16>,
}

impl SoundSample {
    /// A mono sound of values in `[-1, 1]` (beyond, they are clamped), embedded as WAV of 16 bits.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no values, one is not finite, or the rate is 0.
    pub fn new(caption: impl Into<String>, samples: &[f32], sample_rate: u32) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::argument("samples", "empty", "at least one value"));
        }
        if let Some(at) = samples.iter().position(|value| !value.is_finite()) {
            return Err(Error::argument(
                format!("samples[{at}]"),
                samples[at],
                "a finite number",
            ));
        }
        if sample_rate == 0 {
            return Err(Error::argument("sample_rate", 0, "at least 1 Hz"));
        }
        Ok(Self {
            caption: caption.into(),
            sample_rate,
            duration: samples.len() as f64 / f64::from(sample_rate),
            pcm: samples
                .iter()
                .map(|value| (value.clamp(-1.0, 1.0) * 32767.0).round() as i16)
                .collect(),
        })
    }

    fn wav(&self) -> Vec<u8> {
        let length = 2 * self.pcm.len();
        // A page is limited to far less than the 4 GiB that the header can express.
        let u32_of = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = Vec::with_capacity(HEADER + length);
        out.extend_from_slice(b"RIFF");
        out.extend_from_slice(&u32_of(HEADER - 8 + length));
        out.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        out.extend_from_slice(&self.sample_rate.to_le_bytes());
        out.extend_from_slice(&self.sample_rate.saturating_mul(2).to_le_bytes());
        out.extend_from_slice(b"\x02\0\x10\0data");
        out.extend_from_slice(&u32_of(length));
        out.extend(self.pcm.iter().flat_map(|value| value.to_le_bytes()));
        out
    }

    fn size(&self) -> usize {
        encoded_length(HEADER + 2 * self.pcm.len())
    }

    pub(super) fn render(&self, out: &mut String, page: &mut Page) {
        let seconds = format!("{} s", fixed(self.duration, 2));
        out.push_str("<figure class=\"sound\">");
        out.push_str(&format!(
            "<svg class=\"wave\" role=\"img\" viewBox=\"0 -33 {COLUMNS} 66\" \
             preserveAspectRatio=\"none\"><title>Waveform, {seconds}</title><path d=\""
        ));
        let per = self.pcm.len().div_ceil(COLUMNS);
        for (i, part) in self.pcm.chunks(per).enumerate() {
            let height = |value: Option<&i16>| -f64::from(*value.unwrap_or(&0)) / 1024.0;
            let (top, bottom) = (height(part.iter().max()), height(part.iter().min()));
            out.push_str(&format!(
                "M{i}.5 {:.1}V{:.1}",
                top.min(bottom - 0.4),
                bottom + 0.4
            ));
        }
        out.push_str("\"/></svg>");
        if page.take_media([self.size()]) == 1 {
            out.push_str(&format!(
                "<audio controls preload=\"none\" src=\"{}\"></audio>",
                data_uri("audio/wav", &self.wav())
            ));
        } else {
            out.push_str("<p class=\"note\">The size limit of the page leaves this sound out.</p>");
        }
        out.push_str(&format!(
            "<figcaption>{} <span class=\"distance\">{seconds}, {} Hz</span></figcaption></figure>",
            isolate(&self.caption),
            self.sample_rate
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wav_has_its_sizes() {
        let sound = SoundSample::new("a", &[0.0, 1.0, -2.0], 8000).unwrap();
        let wav = sound.wav();
        assert_eq!(wav.len(), 50);
        assert_eq!(wav[4..8], 42u32.to_le_bytes());
        assert_eq!(wav[24..28], 8000u32.to_le_bytes());
        assert_eq!(wav[40..44], 6u32.to_le_bytes());
        assert_eq!(wav[46..48], 32767i16.to_le_bytes());
        assert_eq!(wav[48..50], (-32767i16).to_le_bytes());
    }

    #[test]
    fn broken_sounds_are_errors() {
        assert!(SoundSample::new("", &[], 8000).is_err());
        assert!(SoundSample::new("", &[0.0], 0).is_err());
        let error = SoundSample::new("", &[0.0, f32::NAN], 8000).unwrap_err();
        assert!(error.to_string().contains("samples[1]"), "{error}");
    }
}
