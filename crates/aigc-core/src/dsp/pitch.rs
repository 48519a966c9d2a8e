//! The pitch of sound over time.

use super::{MelConfig, MelPadding};
use crate::{
    Result,
    check::{ensure, in_range, non_negative, positive},
};
use serde::{Deserialize, Serialize};

/// Limit on the samples of a frame's window and on the longest period.
const MAX_LEN: usize = 1 << 16;

/// Sums of squares that are computed at a time.
const LANES: usize = 8;

/// Configuration of a [`PitchTracker`].
///
/// ```
/// use aigc_core::dsp::PitchConfig;
///
/// # fn main() -> aigc_core::Result<()> {
/// let tracker = PitchConfig::new(8000, 64).init()?;
/// let wave: Vec<f32> = (0..4000).map(|t| (t as f32 * 0.1).sin()).collect();
/// let pitch = tracker.track(&wave, 50);
/// let hertz = 8000.0 * 0.1 / std::f32::consts::TAU;
/// assert!((pitch[25] - hertz).abs() < 0.5);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PitchConfig {
    /// Samples per second.
    pub sample_rate: u32,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// Sample on which the first frame is centred.
    pub offset: usize,
    /// Samples that are compared with those a period later.
    pub win_length: usize,
    /// Lowest pitch in hertz.
    pub f_min: f64,
    /// Highest pitch in hertz.
    pub f_max: f64,
    /// Greatest difference between one period and the next, in `(0, 1)`: 0 for equal periods, 1
    /// for noise. Frames above it have no pitch.
    pub threshold: f64,
    /// Mean square of the `win_length` samples around a frame's centre below which it has no pitch.
    pub silence: f64,
}

impl PitchConfig {
    /// For voices, from 65 to 400 Hz, in windows of 32 ms centred in the middle of a hop.
    pub fn new(sample_rate: u32, hop_length: usize) -> Self {
        Self {
            sample_rate,
            hop_length,
            offset: hop_length / 2,
            win_length: (sample_rate as usize * 32 / 1000).max(1),
            f_min: 65.0,
            f_max: 400.0,
            threshold: 0.25,
            silence: 1e-4,
        }
    }

    /// [`new`](Self::new) with a frame for each frame of these spectra, centred on the same sample.
    pub fn for_mel(mel: &MelConfig) -> Self {
        let offset = match mel.padding {
            MelPadding::Center => 0,
            MelPadding::Hop => mel.hop_length / 2,
            MelPadding::None => mel.n_fft / 2,
        };
        Self {
            offset,
            ..Self::new(mel.sample_rate, mel.hop_length)
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        in_range("sample_rate", self.sample_rate as usize, 1..=1 << 24)?;
        in_range("hop_length", self.hop_length, 1..=MAX_LEN)?;
        in_range("offset", self.offset, 0..=MAX_LEN)?;
        in_range("win_length", self.win_length, 1..=MAX_LEN)?;
        let rate = f64::from(self.sample_rate);
        let expected = format!("above 0, at most half of the sample rate, {}", rate / 2.0);
        let fits = self.f_max > 0.0 && self.f_max <= rate / 2.0;
        ensure(fits, "f_max", self.f_max, &expected)?;
        let least = rate / MAX_LEN as f64;
        let expected = format!("at least {least}, below f_max = {}", self.f_max);
        let fits = self.f_min >= least && self.f_min < self.f_max;
        ensure(fits, "f_min", self.f_min, &expected)?;
        positive("threshold", self.threshold)?;
        ensure(
            self.threshold < 1.0,
            "threshold",
            self.threshold,
            "below 1, the value of noise",
        )?;
        non_negative("silence", self.silence)
    }

    /// The tracker.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self) -> Result<PitchTracker> {
        self.validate()?;
        let rate = f64::from(self.sample_rate);
        Ok(PitchTracker {
            config: *self,
            least: (rate / self.f_max).floor() as usize,
            most: (rate / self.f_min).ceil() as usize,
        })
    }
}

/// Finds the pitch of sound, the frequency at which its waveform repeats, by comparing it with
/// itself a period later: YIN (de Cheveigné and Kawahara 2002, *J. Acoust. Soc. Am.* 111(4),
/// steps 1 to 5).
#[derive(Clone, Debug)]
pub struct PitchTracker {
    config: PitchConfig,
    /// Shortest period in samples.
    least: usize,
    /// Longest period in samples.
    most: usize,
}

impl PitchTracker {
    /// The configuration.
    pub fn config(&self) -> &PitchConfig {
        &self.config
    }

    /// The pitch of each of `frames` frames in hertz, within `f_min` and `f_max`; 0 for a frame
    /// without one. Around the samples there is silence.
    pub fn track(&self, samples: &[f32], frames: usize) -> Vec<f32> {
        let PitchConfig {
            hop_length, offset, ..
        } = self.config;
        let len = self.config.win_length + self.most + 1;
        let mut frame = vec![0.0; len];
        let mut differences = vec![0.0; self.most + 2];
        let centres = (0..frames).map(|index| offset + index * hop_length);
        let pitch = |centre: usize| {
            // The first sample of the frame, `len / 2` before the centre, may lie before the sound.
            let (before, start) = (
                (len / 2).saturating_sub(centre),
                centre.saturating_sub(len / 2),
            );
            frame.fill(0.0);
            let found = samples.get(start..).unwrap_or_default();
            for (to, from) in frame[before.min(len)..].iter_mut().zip(found) {
                *to = *from;
            }
            self.pitch(&frame, &mut differences)
        };
        centres.map(pitch).collect()
    }

    /// The pitch of one frame. `differences` is overwritten.
    fn pitch(&self, frame: &[f32], differences: &mut [f32]) -> f32 {
        let (config, window) = (&self.config, self.config.win_length);
        let middle = &frame[(frame.len() - window) / 2..][..window];
        let power = squares(middle, &[]) / window as f32;
        // Also for values that are not finite.
        if !power.is_finite() || f64::from(power) < config.silence || power == 0.0 {
            return 0.0;
        }
        // Differences over the mean of those of all shorter periods, equation (8).
        let mut sum = 0.0;
        differences[0] = 1.0;
        for (period, difference) in differences.iter_mut().enumerate().skip(1) {
            let later = &frame[period.min(frame.len() - window)..];
            let found = squares(&frame[..window], &later[..window]);
            sum += found;
            *difference = if sum > 0.0 {
                found * period as f32 / sum
            } else {
                1.0
            };
        }
        let threshold = config.threshold as f32;
        let mut candidates = self.least.max(1)..=self.most;
        let Some(mut period) = candidates.find(|period| differences[*period] < threshold) else {
            return 0.0;
        };
        while period < self.most && differences[period + 1] < differences[period] {
            period += 1;
        }
        let at = |period: usize| f64::from(differences[period]);
        let (before, here, after) = (at(period - 1), at(period), at(period + 1));
        let curvature = before - 2.0 * here + after;
        let shift = if curvature > 0.0 {
            (0.5 * (before - after) / curvature).clamp(-0.5, 0.5)
        } else {
            0.0
        };
        let hertz = f64::from(config.sample_rate) / (period as f64 + shift);
        hertz.clamp(config.f_min, config.f_max) as f32
    }
}

/// The sum of squared differences of two slices, or of squares if the second is empty.
fn squares(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    if b.is_empty() {
        for a in a.chunks(LANES) {
            for (sum, a) in sums.iter_mut().zip(a) {
                *sum += a * a;
            }
        }
    } else {
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += (a - b) * (a - b);
            }
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::f64::consts::TAU;

    const RATE: f64 = 8000.0;

    fn tracker() -> PitchTracker {
        PitchConfig::new(8000, 64).init().unwrap()
    }

    /// A second of these harmonics with equal amplitudes.
    fn harmonics(hertz: f64, which: &[u32]) -> Vec<f32> {
        let sample = |t: usize| {
            let phase = TAU * hertz * t as f64 / RATE;
            let sum: f64 = which.iter().map(|k| (f64::from(*k) * phase).sin()).sum();
            (0.3 * sum) as f32
        };
        (0..8000).map(sample).collect()
    }

    /// Frames whose windows lie within the second.
    fn inside(pitch: &[f32]) -> &[f32] {
        &pitch[5..pitch.len() - 5]
    }

    #[test]
    fn pitch_of_tones_is_their_frequency() {
        for hertz in [70.0, 101.3, 150.0, 222.2, 333.0, 390.0] {
            for which in [&[1][..], &[1, 2, 3], &[2, 3, 4, 5]] {
                let pitch = tracker().track(&harmonics(hertz, which), 125);
                for found in inside(&pitch) {
                    let error = (f64::from(*found) / hertz - 1.0).abs();
                    assert!(error < 4e-3, "{hertz} Hz, {which:?}: {found}");
                }
            }
        }
    }

    #[test]
    fn frames_follow_a_glide_at_their_centres() {
        // From 100 to 200 Hz in a second.
        let phase = |t: f64| TAU * (100.0 * t + 50.0 * t * t);
        let wave: Vec<f32> = (0..8000)
            .map(|t| phase(f64::from(t) / RATE).sin() as f32)
            .collect();
        let pitch = tracker().track(&wave, 125);
        for (frame, found) in pitch.iter().enumerate().skip(5).take(115) {
            let time = (frame as f64 + 0.5) * 64.0 / RATE;
            let expected = 100.0 * (1.0 + time);
            let error = (f64::from(*found) / expected - 1.0).abs();
            assert!(error < 0.02, "frame {frame}: {found}, expected {expected}");
        }
    }

    #[test]
    fn noise_and_silence_have_no_pitch() {
        let noise = Rng::new(3).uniform_vec(8000, -0.5, 0.5);
        let pitch = tracker().track(&noise, 125);
        let voiced = pitch.iter().filter(|hertz| **hertz > 0.0).count();
        assert!(voiced < 5, "{voiced} of 125");
        assert_eq!(tracker().track(&[0.0; 4000], 20), [0.0; 20]);
        assert_eq!(tracker().track(&[0.5; 4000], 20)[10], 0.0);
        assert_eq!(tracker().track(&[f32::NAN; 4000], 20), [0.0; 20]);
        assert_eq!(tracker().track(&[], 3), [0.0; 3]);
        let quiet: Vec<f32> = harmonics(150.0, &[1]).iter().map(|x| x * 1e-3).collect();
        assert_eq!(tracker().track(&quiet, 125), [0.0; 125]);
    }

    #[test]
    fn frames_are_those_of_mel_spectra() {
        let mel = MelConfig::hifi_gan(8000, 256, 64, 40);
        assert_eq!(PitchConfig::for_mel(&mel).offset, 32);
        let whisper = PitchConfig::for_mel(&MelConfig::whisper(80));
        assert_eq!((whisper.offset, whisper.hop_length), (0, 160));
        let none = MelConfig {
            padding: MelPadding::None,
            ..mel
        };
        assert_eq!(PitchConfig::for_mel(&none).offset, 128);
    }

    /// Also where the neighbours of the shortest period are outside.
    #[test]
    fn pitches_are_within_their_range() {
        let config = PitchConfig {
            f_max: 4000.0,
            ..PitchConfig::new(8000, 64)
        };
        let tracker = config.init().unwrap();
        for hertz in [3900.0, 3990.0] {
            let pitch = tracker.track(&harmonics(hertz, &[1]), 125);
            assert!(pitch.iter().all(|hertz| *hertz <= 4000.0), "{pitch:?}");
        }
    }

    /// A tone ends where its samples end.
    #[test]
    fn silence_is_that_around_the_centre() {
        let wave = &harmonics(150.0, &[1])[..4000];
        let pitch = tracker().track(wave, 125);
        let last = pitch.iter().rposition(|hertz| *hertz > 0.0).unwrap();
        let end = (last * 64 + 32) as f64 - 4000.0;
        assert!(end.abs() < 128.0, "{end} samples behind the end");
    }

    #[test]
    fn invalid_values_are_refused_by_name() {
        type Change = fn(&mut PitchConfig);
        let changes: [(&str, Change); 10] = [
            ("sample_rate", |c| c.sample_rate = 0),
            ("hop_length", |c| c.hop_length = 0),
            ("offset", |c| c.offset = 1 << 20),
            ("win_length", |c| c.win_length = 0),
            ("f_min", |c| c.f_min = 0.0),
            ("f_min", |c| c.f_min = f64::NAN),
            ("f_max", |c| c.f_max = 4001.0),
            ("f_max", |c| c.f_max = f64::NAN),
            ("threshold", |c| c.threshold = 1.0),
            ("silence", |c| c.silence = -1.0),
        ];
        for (field, change) in changes {
            let mut config = PitchConfig::new(8000, 64);
            change(&mut config);
            let error = config.init().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
    }
}
