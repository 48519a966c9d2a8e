//! Cutting, joining and levelling of sounds.

use super::{Resampler, Waveform};
use crate::{Error, Result, check::ensure_argument};

/// Length of the frames whose level decides what silence is, in seconds.
const FRAME_SECONDS: f64 = 0.01;

impl Waveform {
    /// The mean of all channels, as one channel.
    pub fn to_mono(&self) -> Self {
        let [first, others @ ..] = self.channels() else {
            return self.clone();
        };
        if others.is_empty() {
            return self.clone();
        }
        let mut sum = first.clone();
        for channel in others {
            sum.iter_mut().zip(channel).for_each(|(sum, x)| *sum += x);
        }
        let count = self.num_channels() as f32;
        sum.iter_mut().for_each(|x| *x /= count);
        self.with_channels(vec![sum])
    }

    /// Two channels: one is doubled, two stay, the mean of more is doubled.
    pub fn to_stereo(&self) -> Self {
        if self.num_channels() == 2 {
            return self.clone();
        }
        let mono = self.to_mono();
        self.with_channels(vec![mono.channel(0).to_vec(); 2])
    }

    /// `len` samples from sample `start` on.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the sound is shorter.
    pub fn slice(&self, start: usize, len: usize) -> Result<Self> {
        let end = start.checked_add(len).filter(|end| *end <= self.len());
        let end = end.ok_or_else(|| {
            Error::argument(
                "start, len",
                format!("{start}, {len}"),
                format!("a range within the {} samples of the sound", self.len()),
            )
        })?;
        let cut = |channel: &Vec<f32>| channel[start..end].to_vec();
        Ok(self.with_channels(self.channels().iter().map(cut).collect()))
    }

    /// The sound without silence at its beginning and end.
    ///
    /// Frames of 10 ms are silent if their level (root mean square over all channels) is more than
    /// `threshold_db` decibels below that of the loudest one. Of a sound of zeros nothing is left.
    pub fn trim_silence(&self, threshold_db: f64) -> Self {
        let frame = (FRAME_SECONDS * f64::from(self.sample_rate())).round() as usize;
        let frame = frame.max(1);
        let mut power = vec![0.0; self.len().div_ceil(frame)];
        for channel in self.channels() {
            for (power, samples) in power.iter_mut().zip(channel.chunks(frame)) {
                // The last frame may be shorter.
                *power += square_sum(samples) / samples.len() as f64;
            }
        }
        let loudest = power.iter().copied().fold(0.0, f64::max);
        let threshold = loudest * 10f64.powf(-threshold_db.abs() / 10.0);
        let is_loud = |power: &f64| *power > 0.0 && *power >= threshold;
        let first = power.iter().position(is_loud);
        let last = power.iter().rposition(is_loud);
        let (start, end) = match (first, last) {
            (Some(first), Some(last)) => (first * frame, ((last + 1) * frame).min(self.len())),
            _ => (0, 0),
        };
        let cut = |channel: &Vec<f32>| channel[start..end].to_vec();
        self.with_channels(self.channels().iter().map(cut).collect())
    }

    /// The largest absolute value.
    pub fn peak(&self) -> f32 {
        let samples = self.channels().iter().flatten();
        samples.map(|x| x.abs()).fold(0.0, f32::max)
    }

    /// The root mean square over all channels; 0 of an empty sound.
    pub fn rms(&self) -> f64 {
        let count = (self.num_channels() * self.len()).max(1);
        let sum: f64 = self.channels().iter().map(|x| square_sum(x)).sum();
        (sum / count as f64).sqrt()
    }

    /// All samples times `gain`.
    pub fn scale(&self, gain: f32) -> Self {
        self.map(|x| x * gain)
    }

    /// Scaled so that the largest absolute value is `peak`; silence stays.
    pub fn normalize_peak(&self, peak: f32) -> Self {
        let found = self.peak();
        if found == 0.0 {
            return self.clone();
        }
        // Not times a quotient, which overflows for very quiet sounds.
        self.map(|x| x / found * peak)
    }

    /// The sum of sounds. Shorter ones end earlier.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none, or their rates or channels differ.
    pub fn mix(waves: &[&Waveform]) -> Result<Self> {
        let first = check_same(waves)?;
        let len = waves.iter().map(|wave| wave.len()).max().unwrap_or(0);
        let mut channels = vec![vec![0.0; len]; first.num_channels()];
        for wave in waves {
            for (sum, channel) in channels.iter_mut().zip(wave.channels()) {
                sum.iter_mut().zip(channel).for_each(|(sum, x)| *sum += x);
            }
        }
        Ok(first.with_channels(channels))
    }

    /// Sounds one after the other.
    ///
    /// # Errors
    /// As for [`mix`](Self::mix).
    pub fn concat(waves: &[&Waveform]) -> Result<Self> {
        let first = check_same(waves)?;
        let join = |index: usize| -> Vec<f32> {
            let parts: Vec<&[f32]> = waves.iter().map(|wave| wave.channel(index)).collect();
            parts.concat()
        };
        Ok(first.with_channels((0..first.num_channels()).map(join).collect()))
    }

    /// The sound with another sample rate, by the default [`Resampler`].
    ///
    /// # Errors
    /// As for [`Resampler::resample`].
    pub fn resample(&self, sample_rate: u32) -> Result<Self> {
        Resampler::default().resample(self, sample_rate)
    }
}

fn square_sum(samples: &[f32]) -> f64 {
    samples.iter().map(|x| f64::from(*x).powi(2)).sum()
}

/// The first sound; fails if another has another rate or other channels.
fn check_same<'a>(waves: &[&'a Waveform]) -> Result<&'a Waveform> {
    let [first, others @ ..] = waves else {
        return Err(Error::argument("waves", 0, "at least one sound"));
    };
    for (index, wave) in others.iter().enumerate() {
        let name = format!("waves[{}]", index + 1);
        ensure_argument(
            wave.sample_rate() == first.sample_rate(),
            &name,
            format!("{} Hz", wave.sample_rate()),
            &format!("{} Hz, as the first sound", first.sample_rate()),
        )?;
        ensure_argument(
            wave.num_channels() == first.num_channels(),
            &name,
            format!("of {} channels", wave.num_channels()),
            &format!("{} channels, as the first sound", first.num_channels()),
        )?;
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(channels: &[&[f32]]) -> Waveform {
        Waveform::new(channels.iter().map(|c| c.to_vec()).collect(), 1000).unwrap()
    }

    #[test]
    fn channels_are_mixed() {
        let stereo = wave(&[&[1.0, 0.0], &[0.0, -1.0]]);
        assert_eq!(stereo.to_mono(), wave(&[&[0.5, -0.5]]));
        assert_eq!(stereo.to_stereo(), stereo);
        let three = wave(&[&[3.0], &[0.0], &[0.0]]);
        assert_eq!(three.to_stereo(), wave(&[&[1.0], &[1.0]]));
        assert_eq!(three.to_mono().to_mono(), wave(&[&[1.0]]));
    }

    #[test]
    fn sounds_are_cut_and_joined() {
        let (a, b) = (wave(&[&[1.0, 2.0, 3.0]]), wave(&[&[4.0]]));
        assert_eq!(a.slice(1, 2).unwrap(), wave(&[&[2.0, 3.0]]));
        assert!(a.slice(3, 0).unwrap().is_empty());
        for (start, len) in [(2, 2), (usize::MAX, 2), (4, 0)] {
            let error = a.slice(start, len).unwrap_err().to_string();
            assert!(error.contains("the 3 samples"), "{error}");
        }
        let joined = Waveform::concat(&[&a, &b]).unwrap();
        assert_eq!(joined, wave(&[&[1.0, 2.0, 3.0, 4.0]]));
        assert_eq!(Waveform::mix(&[&b, &a]).unwrap(), wave(&[&[5.0, 2.0, 3.0]]));
        assert!(Waveform::mix(&[]).is_err());
        let other = Waveform::mono(vec![0.0], 8000).unwrap();
        let error = Waveform::concat(&[&a, &other]).unwrap_err().to_string();
        assert!(error.contains("`waves[1]` is 8000 Hz"), "{error}");
        let error = Waveform::mix(&[&a, &a.to_stereo()]).unwrap_err();
        assert!(error.to_string().contains("of 2 channels"), "{error}");
    }

    #[test]
    fn silence_is_trimmed_at_both_ends() {
        // Frames of ten samples: silent, loud, quiet, loud, nearly silent.
        let levels = [0.0, 1.0, 0.02, 0.5, 1e-4];
        let samples: Vec<f32> = levels.iter().flat_map(|level| [*level; 10]).collect();
        let wave = wave(&[&samples]);
        assert_eq!(wave.trim_silence(40.0), wave.slice(10, 30).unwrap());
        assert_eq!(wave.trim_silence(5.0), wave.slice(10, 10).unwrap());
        assert_eq!(wave.trim_silence(120.0), wave.slice(10, 40).unwrap());
        assert!(
            Waveform::silence(2, 25, 1000)
                .unwrap()
                .trim_silence(40.0)
                .is_empty()
        );
        assert!(
            Waveform::silence(1, 0, 1000)
                .unwrap()
                .trim_silence(40.0)
                .is_empty()
        );
    }

    #[test]
    fn levels() {
        let wave = wave(&[&[0.0, -0.5], &[0.25, 0.0]]);
        assert_eq!(wave.peak(), 0.5);
        assert!((wave.rms() - (0.3125f64 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(wave.normalize_peak(1.0).channel(0), [0.0, -1.0]);
        let silence = Waveform::silence(1, 3, 8000).unwrap();
        assert_eq!(silence.normalize_peak(1.0), silence);
        assert_eq!(Waveform::silence(1, 0, 8000).unwrap().rms(), 0.0);
    }
}
