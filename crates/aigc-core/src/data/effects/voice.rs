//! Oscillators, filtered noise and envelopes.

use crate::rng::Rng;
use std::f64::consts::{PI, TAU};

/// One second of sound that oscillators and noise are added to. Functions of time take seconds.
pub(super) struct Voice {
    rate: f64,
    pub(super) samples: Vec<f64>,
}

impl Voice {
    pub(super) fn new(sample_rate: u32) -> Self {
        Self {
            rate: f64::from(sample_rate),
            samples: vec![0.0; sample_rate as usize],
        }
    }

    /// Adds a tone of changing frequency. `partials` are the amplitudes of the multiples of the
    /// frequency; those that the sample rate cannot represent fade out.
    pub(super) fn tone(
        &mut self,
        partials: &[f64],
        frequency: impl Fn(f64) -> f64,
        gain: impl Fn(f64) -> f64,
    ) {
        let (low, high) = (0.35 * self.rate, 0.45 * self.rate);
        let mut phase = 0.0;
        for (index, sample) in self.samples.iter_mut().enumerate() {
            let time = index as f64 / self.rate;
            let (hertz, gain) = (frequency(time), gain(time));
            if gain > 1e-5 {
                let mut sum = 0.0;
                for (partial, multiple) in partials.iter().zip(1..) {
                    let multiple = f64::from(multiple);
                    let fade = ((high - multiple * hertz) / (high - low)).clamp(0.0, 1.0);
                    if fade == 0.0 {
                        break;
                    }
                    sum += partial * fade * (multiple * phase).sin();
                }
                *sample += gain * sum;
            }
            phase = (phase + TAU * hertz / self.rate) % TAU;
        }
    }

    /// Adds white noise through a filter of changing frequency: what is below it (`band` is 0), or
    /// what is near it (`band` is 1), narrower for larger `quality`.
    ///
    /// The filter is the state-variable one of A. Simper's "Solving the continuous SVF equations
    /// using trapezoidal integration and equivalent currents", 2013.
    pub(super) fn noise(
        &mut self,
        rng: &mut Rng,
        band: f64,
        quality: f64,
        frequency: impl Fn(f64) -> f64,
        gain: impl Fn(f64) -> f64,
    ) {
        let white = rng.normal_vec(self.samples.len());
        let (mut first, mut second) = (0.0, 0.0);
        for (index, (sample, white)) in self.samples.iter_mut().zip(white).enumerate() {
            let time = index as f64 / self.rate;
            let hertz = frequency(time).clamp(10.0, 0.45 * self.rate);
            let (g, k) = ((PI * hertz / self.rate).tan(), 1.0 / quality);
            let a1 = 1.0 / (1.0 + g * (g + k));
            let above = f64::from(white) - second;
            let middle = a1 * first + g * a1 * above;
            let below = second + g * middle;
            first = 2.0 * middle - first;
            second = 2.0 * below - second;
            *sample += gain(time) * (band * k * middle + (1.0 - band) * below);
        }
    }

    /// The samples with a peak, and without clicks at both ends.
    pub(super) fn finish(self, peak: f64) -> Vec<f32> {
        let loudest = self.samples.iter().fold(0f64, |peak, x| peak.max(x.abs()));
        let scale = if loudest > 0.0 { peak / loudest } else { 0.0 };
        let (rise, fall) = (0.001 * self.rate, 0.02 * self.rate);
        let len = self.samples.len();
        let faded = self.samples.iter().enumerate().map(|(index, sample)| {
            let start = (index as f64 / rise).min(1.0);
            let end = ((len - 1 - index) as f64 / fall).min(1.0);
            (sample * scale * start * end) as f32
        });
        faded.collect()
    }
}

/// Rises in `attack` seconds, then falls by the factor e in every `decay` seconds.
pub(super) fn strike(attack: f64, decay: f64) -> impl Fn(f64) -> f64 {
    move |time| (time / attack).min(1.0) * (-(time - attack).max(0.0) / decay).exp()
}

/// 1 from `start` to `end`, with soft edges of `edge` seconds inside.
pub(super) fn gate(start: f64, end: f64, edge: f64) -> impl Fn(f64) -> f64 {
    move |time| ((time - start).min(end - time) / edge).clamp(0.0, 1.0)
}

/// The amplitudes of the first odd multiples, as of a square wave: hollow. `dullness` is the
/// exponent by which they fall.
pub(super) fn hollow(dullness: f64) -> [f64; 15] {
    std::array::from_fn(|index| match index % 2 {
        0 => (index as f64 + 1.0).powf(-dullness),
        _ => 0.0,
    })
}

/// The amplitudes of all multiples, as of a sawtooth: buzzing.
pub(super) fn buzzing(dullness: f64) -> [f64; 15] {
    std::array::from_fn(|index| (index as f64 + 1.0).powf(-dullness))
}
