//! Notes as sound, without recordings of instruments.

use super::{Note, Timbre, note::check_notes, pitch_frequency};
use crate::{
    Error, Result,
    audio::Waveform,
    check::{in_range, non_negative},
};
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};

/// Peak of a single note of velocity 127.
const NOTE_PEAK: f64 = 0.3;

/// The largest absolute value of a sample: louder music is scaled down as a whole.
const MAX_PEAK: f64 = 0.95;

/// Limit on the samples of a channel.
const MAX_SAMPLES: f64 = (1u32 << 27) as f64;

/// A synthesiser: sums of partials with an envelope.
///
/// ```
/// use aigc_core::music::{Note, SynthConfig};
///
/// # fn main() -> aigc_core::Result<()> {
/// let wave = SynthConfig::default().render(&[Note::new(0.0, 0.5, 60), Note::new(0.5, 1.0, 67)])?;
/// assert_eq!((wave.num_channels(), wave.sample_rate()), (2, 44_100));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SynthConfig {
    /// Samples per second.
    pub sample_rate: u32,
    /// Whether there are two channels, with low notes more to the left and high ones more to the
    /// right; otherwise one.
    pub stereo: bool,
    /// The kind of instrument of all notes; `None` for that of each note's program.
    pub timbre: Option<Timbre>,
    /// How long a note fades after its end, in seconds.
    pub release: f64,
}

impl Default for SynthConfig {
    fn default() -> Self {
        Self {
            sample_rate: 44_100,
            stereo: true,
            timbre: None,
            release: 0.25,
        }
    }
}

impl SynthConfig {
    /// Fails if a value is out of range.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        in_range("sample_rate", self.sample_rate, 1000..=384_000)?;
        non_negative("release", self.release)?;
        in_range("release", self.release, 0.0..=60.0)
    }

    /// The sound of notes. Its samples stay within ±0.95.
    ///
    /// # Errors
    /// [`Error::Config`] as [`validate`](Self::validate); [`Error::InvalidArgument`] if a note is
    /// out of range, or the sound would be longer than 2²⁷ samples.
    pub fn render(&self, notes: &[Note]) -> Result<Waveform> {
        self.validate()?;
        check_notes(notes)?;
        let rate = f64::from(self.sample_rate);
        let last = notes.iter().map(|note| note.end).fold(0.0, f64::max);
        let len = if notes.is_empty() {
            0.0
        } else {
            ((last + self.release) * rate).ceil()
        };
        if len > MAX_SAMPLES {
            return Err(Error::argument(
                "notes",
                format!("{last} seconds long"),
                format!("at most {} seconds", (MAX_SAMPLES / rate).floor()),
            ));
        }
        let count = if self.stereo { 2 } else { 1 };
        let mut channels = vec![vec![0f32; len as usize]; count];
        for note in notes {
            let (samples, start) = (self.note(note), (note.start * rate).round() as usize);
            for (channel, gain) in channels.iter_mut().zip(self.gains(note.pitch)) {
                let target = channel.iter_mut().skip(start);
                for (sum, sample) in target.zip(&samples) {
                    *sum += (gain * sample) as f32;
                }
            }
        }
        let samples = channels.iter().flatten();
        let peak = samples.fold(0f32, |peak, sample| peak.max(sample.abs()));
        if f64::from(peak) > MAX_PEAK {
            // Down to a little less, as the products are rounded.
            let scale = (MAX_PEAK / f64::from(peak) * (1.0 - 1e-6)) as f32;
            for sample in channels.iter_mut().flatten() {
                *sample *= scale;
            }
        }
        Waveform::new(channels, self.sample_rate)
    }

    /// The samples of a note, from its start on.
    fn note(&self, note: &Note) -> Vec<f64> {
        let rate = f64::from(self.sample_rate);
        let timbre = self.timbre.unwrap_or(Timbre::of_program(note.program));
        let strength = f64::from(note.velocity) / 127.0;
        let len = ((note.seconds() + self.release) * rate).round() as usize;
        let mut samples = vec![0.0; len];
        for partial in timbre.partials(pitch_frequency(note.pitch), strength) {
            partial.add_to(&mut samples, rate);
        }
        let attack = timbre.attack().min(note.seconds() / 2.0);
        let peak = NOTE_PEAK * strength.powf(1.5);
        for (index, sample) in samples.iter_mut().enumerate() {
            let time = index as f64 / rate;
            let rise = ease(time / attack);
            // Without a release the samples end before the fall.
            let fall = 1.0 - ease((time - note.seconds()) / self.release.max(1e-9));
            *sample *= peak * rise * fall;
        }
        samples
    }

    /// The gains of the channels, of constant power.
    fn gains(&self, pitch: u8) -> [f64; 2] {
        if !self.stereo {
            return [1.0; 2];
        }
        let side = ((f64::from(pitch) - 64.0) / 48.0).clamp(-0.6, 0.6);
        let (right, left) = (FRAC_PI_4 * (1.0 + side)).sin_cos();
        [left, right]
    }
}

/// Rises smoothly from 0 at 0 to 1 at 1.
fn ease(at: f64) -> f64 {
    // Most samples of a note are outside, where no sine is needed.
    if at <= 0.0 {
        0.0
    } else if at >= 1.0 {
        1.0
    } else {
        (FRAC_PI_2 * at).sin().powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mono() -> SynthConfig {
        SynthConfig {
            sample_rate: 8000,
            stereo: false,
            ..SynthConfig::default()
        }
    }

    /// Power at a frequency.
    fn power(samples: &[f32], hertz: f64, rate: f64) -> f64 {
        let step = std::f64::consts::TAU * hertz / rate;
        let (mut re, mut im) = (0.0, 0.0);
        for (i, sample) in samples.iter().enumerate() {
            let (sin, cos) = (step * i as f64).sin_cos();
            re += f64::from(*sample) * cos;
            im += f64::from(*sample) * sin;
        }
        re * re + im * im
    }

    #[test]
    fn notes_sound_at_their_pitch_and_time() {
        let wave = mono().render(&[Note::new(0.5, 1.0, 69)]).unwrap();
        assert_eq!((wave.len(), wave.num_channels()), (10_000, 1));
        let samples = wave.channel(0);
        assert!(samples[..4000].iter().all(|sample| *sample == 0.0));
        let sounding = &samples[4000..8000];
        let at = power(sounding, 440.0, 8000.0);
        for hertz in [415.3, 466.2, 523.3] {
            assert!(at > 30.0 * power(sounding, hertz, 8000.0), "{hertz}");
        }
        assert!(samples.last().unwrap().abs() < 1e-4);
    }

    #[test]
    fn nothing_clips() {
        let notes: Vec<Note> = (30..90)
            .map(|pitch| {
                Note::new(0.0, 0.3, pitch)
                    .with_velocity(127)
                    .with_program(pitch)
            })
            .collect();
        for stereo in [false, true] {
            let wave = SynthConfig { stereo, ..mono() }.render(&notes).unwrap();
            assert!(wave.peak() <= 0.95 && wave.peak() > 0.9, "{}", wave.peak());
        }
        let soft = mono()
            .render(&[Note::new(0.0, 0.5, 60).with_velocity(40)])
            .unwrap();
        let loud = mono()
            .render(&[Note::new(0.0, 0.5, 60).with_velocity(120)])
            .unwrap();
        assert!(loud.peak() > 2.0 * soft.peak() && soft.peak() > 0.005);
    }

    #[test]
    fn low_notes_are_more_to_the_left() {
        let config = SynthConfig {
            stereo: true,
            ..mono()
        };
        let level = |pitch| {
            let wave = config.render(&[Note::new(0.0, 0.5, pitch)]).unwrap();
            let power = |channel: &[f32]| channel.iter().map(|x| f64::from(x * x)).sum::<f64>();
            power(wave.channel(0)) / power(wave.channel(1))
        };
        assert!(level(40) > 1.5 && level(90) < 1.0 / 1.5);
        assert!((level(64) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn bad_values_are_named() {
        let error = |config: SynthConfig, note| config.render(&[note]).unwrap_err().to_string();
        let note = Note::new(0.0, 1.0, 60);
        let config = SynthConfig {
            sample_rate: 0,
            ..mono()
        };
        assert!(error(config, note).contains("`sample_rate` is 0"));
        let config = SynthConfig {
            release: f64::NAN,
            ..mono()
        };
        assert!(error(config, note).contains("`release` is NaN"));
        let config = SynthConfig {
            sample_rate: 384_000,
            ..mono()
        };
        assert!(error(config, Note::new(80_000.0, 80_001.0, 60)).contains("at most 349 seconds"));
        assert!(error(mono(), Note::new(0.0, 1.0, 200)).contains("`notes[0].pitch`"));
        assert!(mono().render(&[]).unwrap().is_empty());
    }
}
