//! Sounds of instruments as sums of partials.

use serde::{Deserialize, Serialize};
use std::f64::consts::{PI, TAU};

/// A kind of instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timbre {
    /// A struck string, as a piano's: slightly stretched partials that die away.
    Struck,
    /// A plucked string, as a guitar's: brighter and shorter.
    Plucked,
    /// Pipes of an organ: few partials that last.
    Pipes,
    /// Bowed strings or voices: a soft beginning, and two sources that are not quite in tune.
    Bowed,
    /// A bell: partials that are no multiples of one frequency.
    Bell,
}

/// A sine that dies away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Partial {
    /// In hertz.
    pub(super) frequency: f64,
    pub(super) amplitude: f64,
    /// Falls by the factor e in `1 / decay` seconds.
    pub(super) decay: f64,
}

impl Timbre {
    /// The kind of a program of General MIDI.
    pub fn of_program(program: u8) -> Self {
        match program {
            0..=7 => Timbre::Struck,
            8..=15 | 112..=119 => Timbre::Bell,
            16..=23 | 72..=79 => Timbre::Pipes,
            24..=39 | 45..=46 | 104..=111 => Timbre::Plucked,
            _ => Timbre::Bowed,
        }
    }

    /// Seconds until a note has its full strength.
    pub(super) fn attack(self) -> f64 {
        match self {
            Timbre::Struck | Timbre::Plucked | Timbre::Bell => 0.003,
            Timbre::Pipes => 0.03,
            Timbre::Bowed => 0.07,
        }
    }

    /// The partials of a note. The amplitudes sum to 1, and are smaller for higher partials of a
    /// softly struck string.
    ///
    /// - strength: 0 to 1
    pub(super) fn partials(self, frequency: f64, strength: f64) -> Vec<Partial> {
        // High notes die away sooner.
        let height = (frequency / 261.6).sqrt();
        let partial = |ratio: f64, amplitude: f64, decay: f64| Partial {
            frequency: frequency * ratio,
            amplitude,
            decay: decay * height,
        };
        let dullness = 2.2 - 0.8 * strength;
        let mut partials: Vec<Partial> = match self {
            Timbre::Struck => (1..=12)
                .map(|k| {
                    let k = f64::from(k);
                    let stretched = k * (1.0 + 4e-4 * k * k).sqrt();
                    partial(stretched, k.powf(-dullness), 0.8 + 0.3 * k)
                })
                .collect(),
            Timbre::Plucked => (1..=14)
                .map(|k| {
                    let k = f64::from(k);
                    // Plucked at a fifth of the length: every fifth partial is missing.
                    let place = (PI * k / 5.0).sin().abs();
                    partial(k, place * k.powf(-dullness + 0.4), 1.6 + 0.6 * k)
                })
                .collect(),
            Timbre::Pipes => [1.0, 0.5, 0.3, 0.2, 0.0, 0.1, 0.0, 0.06]
                .into_iter()
                .zip(1..)
                .map(|(amplitude, k)| partial(f64::from(k), amplitude, 0.0))
                .collect(),
            Timbre::Bowed => (1..=10)
                .flat_map(|k| {
                    let k = f64::from(k);
                    let amplitude = k.powf(-1.5) / (1.0 + 0.02 * k * k);
                    [0.9985, 1.0015].map(|detuned| partial(k * detuned, amplitude, 0.0))
                })
                .collect(),
            Timbre::Bell => [
                (0.5, 0.35, 0.6),
                (1.0, 1.0, 0.9),
                (1.19, 0.5, 1.2),
                (1.5, 0.25, 1.6),
                (2.0, 0.6, 1.8),
                (2.51, 0.2, 2.6),
                (3.01, 0.25, 3.2),
                (4.17, 0.15, 4.5),
            ]
            .map(|(ratio, amplitude, decay)| partial(ratio, amplitude, decay))
            .into(),
        };
        let sum: f64 = partials.iter().map(|partial| partial.amplitude).sum();
        for partial in &mut partials {
            partial.amplitude /= sum;
        }
        partials
    }
}

impl Partial {
    /// Adds the partial to samples, unless it is too high for their rate.
    pub(super) fn add_to(self, samples: &mut [f64], sample_rate: f64) {
        if self.frequency >= 0.45 * sample_rate {
            return;
        }
        // A rotating pointer: a sine of every sample would take several times as long.
        let shrink = (-self.decay / sample_rate).exp();
        let (sin, cos) = (TAU * self.frequency / sample_rate).sin_cos();
        let (turn_x, turn_y) = (shrink * cos, shrink * sin);
        let (mut x, mut y) = (self.amplitude, 0.0);
        for sample in samples {
            *sample += y;
            (x, y) = (x * turn_x - y * turn_y, x * turn_y + y * turn_x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_is_a_sine_that_dies_away() {
        let partial = Partial {
            frequency: 440.0,
            amplitude: 0.5,
            decay: 3.0,
        };
        let mut samples = vec![0.0; 8000];
        partial.add_to(&mut samples, 8000.0);
        for i in [0, 1, 17, 4000, 7999] {
            let time = i as f64 / 8000.0;
            let expected = 0.5 * (-3.0 * time).exp() * (TAU * 440.0 * time).sin();
            assert!((samples[i] - expected).abs() < 1e-9, "{i}");
        }
        let high = Partial {
            frequency: 3700.0,
            ..partial
        };
        let mut silence = vec![0.0; 10];
        high.add_to(&mut silence, 8000.0);
        assert_eq!(silence, [0.0; 10]);
    }

    #[test]
    fn every_program_has_partials() {
        for program in 0..128 {
            let timbre = Timbre::of_program(program);
            for strength in [0.0, 1.0] {
                let partials = timbre.partials(220.0, strength);
                let sum: f64 = partials.iter().map(|partial| partial.amplitude).sum();
                assert!((sum - 1.0).abs() < 1e-12);
                assert!(partials.iter().all(|partial| partial.decay >= 0.0));
            }
        }
        // A harder stroke is brighter.
        let second = |strength| Timbre::Struck.partials(220.0, strength)[1].amplitude;
        assert!(second(1.0) > second(0.2));
    }
}
