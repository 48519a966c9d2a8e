//! Angles that fit magnitudes.

use super::{Frames, Stft};
use crate::{Result, check::ensure_argument};
use rayon::prelude::*;
use realfft::num_complex::Complex;

/// Values that a thread takes at a time.
const CHUNK: usize = 1 << 14;

impl Stft {
    /// A signal whose spectra have nearly the given magnitudes, by the fast algorithm of Griffin
    /// and Lim (Perraudin et al. 2013, <https://doi.org/10.1109/WASPAA.2013.6701851>). `phase` is
    /// the first guess of the angles in radians, `[frames, bins]`, row by row. Each of the rounds
    /// takes the angles of the spectra of the signal so far, less `momentum / (1 + momentum)` of
    /// those of the round before, as `librosa.griffinlim` and `torchaudio.functional.griffinlim`
    /// do. `length` is the number of samples; by default all those that the frames cover.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the numbers of values do not
    /// fit each other, the transform or the length, or the momentum is negative.
    pub fn griffin_lim(
        &self,
        magnitude: &Frames,
        phase: &[f64],
        rounds: usize,
        momentum: f64,
        length: Option<usize>,
    ) -> Result<Vec<f32>> {
        let (bins, frames) = (self.bins(), magnitude.len());
        ensure_argument(
            magnitude.width() == bins,
            "magnitude",
            format!("of {} bins", magnitude.width()),
            &format!("{bins} bins for frames of {}", self.config().n_fft),
        )?;
        ensure_argument(
            phase.len() == frames * bins,
            "phase",
            format!("of {} values", phase.len()),
            &format!("{}, one for every magnitude", frames * bins),
        )?;
        ensure_argument(
            momentum >= 0.0 && momentum.is_finite(),
            "momentum",
            momentum,
            "a finite number, 0 or above",
        )?;
        let all = self.plan.covered(frames).saturating_sub(2 * self.plan.side);
        let length = length.unwrap_or(all);
        let found = self.frames(length)?;
        ensure_argument(
            found == frames,
            "length",
            length,
            &format!("a length of {frames} frames; this one has {found}"),
        )?;
        let envelope = self.plan.envelope(frames);
        let guess = magnitude.values().iter().zip(phase);
        let mut spectra: Vec<_> = guess
            .map(|(r, angle)| Complex::from_polar(*r, *angle))
            .collect();
        let mut rebuilt = vec![Complex::default(); spectra.len()];
        let mut previous = rebuilt.clone();
        let factor = momentum / (1.0 + momentum);
        for _ in 0..rounds {
            let signal = self.invert(&spectra, &envelope, Some(length));
            self.analyse(&self.plan.padded(&signal), &mut rebuilt);
            advance(
                &mut spectra,
                magnitude.values(),
                [&rebuilt, &previous],
                factor,
            );
            std::mem::swap(&mut rebuilt, &mut previous);
        }
        let signal = self.invert(&spectra, &envelope, Some(length));
        Ok(signal.iter().map(|x| *x as f32).collect())
    }
}

/// The magnitudes with the angles of `rebuilt − factor·previous`; 0 where that is 0.
fn advance(
    spectra: &mut [Complex<f64>],
    magnitudes: &[f64],
    [rebuilt, previous]: [&[Complex<f64>]; 2],
    factor: f64,
) {
    spectra
        .par_chunks_mut(CHUNK)
        .zip(magnitudes.par_chunks(CHUNK))
        .zip(rebuilt.par_chunks(CHUNK))
        .zip(previous.par_chunks(CHUNK))
        .for_each(|(((spectra, magnitudes), rebuilt), previous)| {
            let old = rebuilt.iter().zip(previous);
            for ((value, magnitude), (new, old)) in spectra.iter_mut().zip(magnitudes).zip(old) {
                let direction = new - old * factor;
                let norm = direction.norm_sqr().sqrt();
                *value = if norm > 0.0 {
                    direction * (magnitude / norm)
                } else {
                    Complex::default()
                };
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::StftConfig;
    use std::f64::consts::TAU;

    fn tone(len: usize) -> Vec<f32> {
        let wave = |i: usize| {
            let time = i as f64 / 8000.0;
            (TAU * 440.0 * time).sin() + 0.5 * (TAU * 1100.0 * time).sin()
        };
        (0..len).map(|i| wave(i) as f32 * 0.4).collect()
    }

    /// How far the magnitudes of a signal are from the given ones, in parts of them.
    fn error(stft: &Stft, samples: &[f32], magnitude: &Frames) -> f64 {
        let found = stft.forward(samples).unwrap().magnitude();
        let pairs = found.values().iter().zip(magnitude.values());
        let squares: f64 = pairs.map(|(a, b)| (a - b).powi(2)).sum();
        (squares / magnitude.values().iter().map(|x| x * x).sum::<f64>()).sqrt()
    }

    #[test]
    fn rounds_bring_the_magnitudes_nearer() {
        let stft = StftConfig::new(256, 64).init().unwrap();
        let magnitude = stft.forward(&tone(4000)).unwrap().magnitude();
        let phase: Vec<f64> = (0..magnitude.values().len()).map(|i| i as f64).collect();
        let after = |rounds, momentum| {
            let wave = stft.griffin_lim(&magnitude, &phase, rounds, momentum, Some(4000));
            error(&stft, &wave.unwrap(), &magnitude)
        };
        let (start, slow, fast) = (after(0, 0.0), after(60, 0.0), after(60, 0.99));
        assert!(slow < 0.5 * start && fast < slow, "{start} {slow} {fast}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let stft = StftConfig::new(64, 16).init().unwrap();
        let magnitude = Frames::new(vec![1.0; 33 * 5], 33).unwrap();
        let run = |phase: &[f64], momentum, length| {
            stft.griffin_lim(&magnitude, phase, 1, momentum, length)
        };
        let phase = [0.0; 33 * 5];
        assert_eq!(run(&phase, 0.9, None).unwrap().len(), 64);
        assert!(run(&phase[1..], 0.9, None).is_err());
        assert!(run(&phase, -1.0, None).is_err());
        assert!(run(&phase, 0.9, Some(200)).is_err());
        let few = Frames::new(vec![1.0; 33], 33).unwrap();
        assert!(stft.griffin_lim(&few, &[0.0; 33], 1, 0.0, None).is_err());
        let other = Frames::new(vec![1.0; 34], 34).unwrap();
        assert!(stft.griffin_lim(&other, &[0.0; 34], 1, 0.0, None).is_err());
    }
}
