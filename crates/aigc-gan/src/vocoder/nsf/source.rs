//! The source: harmonics of a pitch, and noise.

use aigc_core::rng::Rng;
use burn::tensor::{Device, Tensor, TensorData};
use std::f64::consts::TAU;

/// Makes sources of sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) sample_rate: u32,
    pub(super) hop_length: usize,
    pub(super) harmonics: usize,
}

impl Source {
    /// Sources of the pitch of frames in hertz, 0 where there is none: sine waves of its multiples
    /// up to half of the sample rate, and a last channel of normal noise. The phases run on from
    /// frame to frame; the first, and the noise, are drawn from `rng`.
    ///
    /// # Shapes
    /// - pitch: `[batch, frames]`
    /// - output: `[batch, harmonics + 1, frames·hop]`
    pub(super) fn waves(&self, pitch: &[Vec<f32>], rng: &mut Rng, device: &Device) -> Tensor<3> {
        let frames = pitch.first().map_or(0, Vec::len);
        let (batch, time) = (pitch.len(), frames * self.hop_length);
        let mut values = vec![0.0; batch * self.harmonics * time];
        let phases = rng.uniform_vec(batch, 0.0, 1.0);
        let rows = values.chunks_exact_mut((self.harmonics * time).max(1));
        for ((row, pitch), phase) in rows.zip(pitch).zip(phases) {
            self.harmonics(pitch, f64::from(phase), row);
        }
        let sines = TensorData::new(values, [batch, self.harmonics, time]);
        let noise: Tensor<3> = rng.normal([batch, 1, time], device);
        Tensor::cat(vec![Tensor::from_data(sines, device), noise], 1)
    }

    /// Sine waves of one sound, `[harmonics, frames·hop]`, beginning at a phase in cycles.
    fn harmonics(&self, pitch: &[f32], mut phase: f64, out: &mut [f32]) {
        let (rate, hop) = (f64::from(self.sample_rate), self.hop_length);
        let time = pitch.len() * hop;
        for sample in 0..time {
            let hertz = self.pitch_at(pitch, sample);
            if hertz == 0.0 {
                continue;
            }
            let (sine, cosine) = (TAU * phase).sin_cos();
            let heard = (rate / 2.0 / hertz).floor() as usize;
            // sin(kθ) = 2·cos θ·sin((k − 1)θ) − sin((k − 2)θ)
            let (mut before, mut this) = (0.0, sine);
            for harmonic in 0..heard.min(self.harmonics) {
                out[harmonic * time + sample] = this as f32;
                (before, this) = (this, 2.0 * cosine * this - before);
            }
            phase = (phase + hertz / rate).fract();
        }
    }

    /// The pitch at a sample: between the centres of two frames with one, on the line between them.
    fn pitch_at(&self, pitch: &[f32], sample: usize) -> f64 {
        let frame = sample / self.hop_length;
        let position = ((sample % self.hop_length) as f64 + 0.5) / self.hop_length as f64 - 0.5;
        let other = if position < 0.0 {
            frame.checked_sub(1)
        } else {
            Some(frame + 1)
        };
        let here = f64::from(pitch[frame]);
        match other.and_then(|other| pitch.get(other)) {
            Some(other) if here > 0.0 && *other > 0.0 => {
                here + position.abs() * (f64::from(*other) - here)
            }
            _ => here,
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;

    const SOURCE: Source = Source {
        sample_rate: 8000,
        hop_length: 50,
        harmonics: 3,
    };

    fn sines(pitch: &[f32]) -> Vec<Vec<f32>> {
        let rows = [pitch.to_vec()];
        let waves = SOURCE.waves(&rows, &mut Rng::new(0), &Device::flex());
        let time = pitch.len() * SOURCE.hop_length;
        assert_eq!(waves.dims(), [1, 4, time]);
        values(waves).chunks(time).map(<[f32]>::to_vec).collect()
    }

    #[test]
    fn harmonics_are_multiples_of_the_pitch() {
        let waves = sines(&[200.0; 10]);
        // The first sample has the phase of the start.
        let start = f64::from(Rng::new(0).uniform_vec(1, 0.0, 1.0)[0]);
        for (index, wave) in waves[..3].iter().enumerate() {
            let multiple = (index + 1) as f64;
            for (time, found) in wave.iter().enumerate() {
                let cycles = multiple * (start + 200.0 * time as f64 / 8000.0);
                let expected = (TAU * cycles).sin() as f32;
                assert!((found - expected).abs() < 1e-5, "{multiple}, {time}");
            }
        }
        let mean_square = waves[3].iter().map(|x| x * x).sum::<f32>() / 500.0;
        assert!((mean_square - 1.0).abs() < 0.2, "{mean_square}");
    }

    #[test]
    fn what_has_no_pitch_or_lies_above_half_of_the_rate_is_silent() {
        let waves = sines(&[1500.0, 1500.0, 0.0, 0.0]);
        assert!(waves[2].iter().all(|x| *x == 0.0));
        for wave in &waves[..2] {
            assert!(wave[..100].iter().any(|x| *x != 0.0));
            assert!(wave[100..].iter().all(|x| *x == 0.0));
        }
    }

    /// The phase runs on where the pitch changes: no step of the wave is larger than its slope.
    #[test]
    fn phases_run_on_from_frame_to_frame() {
        let wave = &sines(&[100.0, 150.0, 120.0, 300.0, 310.0])[0];
        let most = (TAU * 310.0 / 8000.0) as f32 + 1e-6;
        for pair in wave.windows(2) {
            assert!((pair[1] - pair[0]).abs() <= most, "{pair:?}");
        }
    }
}
