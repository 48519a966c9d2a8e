//! The eight recipes.

use super::{
    EffectKind, EffectParameters,
    voice::{Voice, buzzing, gate, hollow, strike},
};
use crate::{Result, audio::Waveform, check::in_range, rng::Rng};
use std::f64::consts::TAU;

/// Peak of every effect.
const PEAK: f64 = 0.8;

/// A bell's partials: frequency relative to the note, amplitude, and time of decay relative to the
/// lowest one. The third is the minor third that bells have.
const BELL: [(f64, f64, f64); 7] = [
    (0.5, 0.4, 1.0),
    (1.0, 0.9, 0.8),
    (1.19, 0.6, 0.65),
    (1.5, 0.3, 0.5),
    (2.0, 0.7, 0.4),
    (2.67, 0.3, 0.25),
    (3.94, 0.25, 0.15),
];

pub(super) fn check_rate(sample_rate: u32) -> Result<()> {
    in_range("sample_rate", sample_rate, 4000..=192_000)
}

/// One second of an effect in one channel; its largest absolute value is about 0.8. `seed` is that
/// of the noise in it.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if a parameter is not from 0 to 1, or the rate is not
/// from 4,000 to 192,000.
pub fn render(
    kind: EffectKind,
    parameters: &EffectParameters,
    seed: u64,
    sample_rate: u32,
) -> Result<Waveform> {
    parameters.validate()?;
    check_rate(sample_rate)?;
    let mut voice = Voice::new(sample_rate);
    let mut rng = Rng::stream(seed, "data/effects/render", kind as u64);
    let (p, v, rng) = (parameters, &mut voice, &mut rng);
    match kind {
        EffectKind::Coin => coin(p, v),
        EffectKind::Laser => laser(p, v),
        EffectKind::Jump => jump(p, v),
        EffectKind::Explosion => explosion(p, v, rng),
        EffectKind::Bell => bell(p, v),
        EffectKind::Drum => drum(p, v, rng),
        EffectKind::Wind => wind(p, v, rng),
        EffectKind::Alarm => alarm(p, v),
    }
    Waveform::mono(voice.finish(PEAK), sample_rate)
}

/// From `low` at 0 to `high` at 1, by equal steps.
fn linear(low: f64, high: f64, at: f64) -> f64 {
    low + (high - low) * at
}

/// From `low` at 0 to `high` at 1, by equal factors.
fn geometric(low: f64, high: f64, at: f64) -> f64 {
    low * (high / low).powf(at)
}

fn coin(p: &EffectParameters, voice: &mut Voice) {
    let first = geometric(700.0, 1200.0, p.pitch);
    // A fourth, a fifth or a sixth higher.
    let semitones = [5.0, 7.0, 9.0][((3.0 * p.variation) as usize).min(2)];
    let second = first * (semitones / 12.0f64).exp2();
    let change = linear(0.06, 0.1, p.length);
    let ring = strike(0.003, linear(0.12, 0.3, p.length));
    let short = gate(0.0, change, 0.005);
    voice.tone(
        &hollow(linear(1.8, 1.0, p.brightness)),
        |time| if time < change { first } else { second },
        |time| {
            if time < change {
                0.8 * short(time)
            } else {
                ring(time - change)
            }
        },
    );
}

fn laser(p: &EffectParameters, voice: &mut Voice) {
    let high = geometric(1400.0, 3200.0, p.pitch);
    let low = geometric(110.0, 260.0, p.pitch);
    let duration = linear(0.16, 0.45, p.length);
    let bend = linear(0.6, 1.4, p.variation);
    voice.tone(
        &buzzing(linear(1.7, 0.9, p.brightness)),
        |time| geometric(high, low, (time / duration).min(1.0).powf(bend)),
        |time| gate(0.0, duration, 0.006)(time) * (1.0 - 0.6 * (time / duration).min(1.0)),
    );
}

fn jump(p: &EffectParameters, voice: &mut Voice) {
    let low = geometric(160.0, 320.0, p.pitch);
    let high = low * linear(2.0, 3.5, p.variation);
    let duration = linear(0.14, 0.32, p.length);
    voice.tone(
        &hollow(linear(1.8, 1.0, p.brightness)),
        |time| geometric(low, high, (time / duration).min(1.0)),
        |time| gate(0.0, duration, 0.02)(time) * (1.0 - 0.4 * (time / duration).min(1.0)),
    );
}

fn explosion(p: &EffectParameters, voice: &mut Voice, rng: &mut Rng) {
    let decay = linear(0.14, 0.32, p.length);
    let bright = geometric(1200.0, 3400.0, p.brightness);
    let dark = geometric(60.0, 160.0, p.pitch);
    voice.noise(
        rng,
        0.0,
        0.8,
        |time| dark + bright * (-time / (0.6 * decay)).exp(),
        strike(0.004, decay),
    );
    let rumble = geometric(38.0, 70.0, p.pitch);
    let strength = linear(0.3, 0.9, p.variation);
    let fall = strike(0.01, 1.3 * decay);
    voice.tone(
        &[1.0, 0.4, 0.2],
        |time| rumble * (1.0 + 0.8 * (-time / 0.08).exp()),
        |time| strength * fall(time),
    );
}

fn bell(p: &EffectParameters, voice: &mut Voice) {
    let note = geometric(330.0, 880.0, p.pitch);
    let decay = linear(0.18, 0.5, p.length);
    for (index, (ratio, amplitude, sustain)) in BELL.into_iter().enumerate() {
        // A soft hammer hardly excites the high partials; no two bells are cast alike.
        let dull = linear(0.55, 1.0, p.brightness).powi(index as i32);
        let cast = 1.0 + 0.02 * (p.variation - 0.5) * index as f64;
        let fall = strike(0.002, decay * sustain);
        voice.tone(
            &[1.0],
            |_| note * ratio * cast,
            |time| amplitude * dull * fall(time),
        );
    }
}

fn drum(p: &EffectParameters, voice: &mut Voice, rng: &mut Rng) {
    let low = geometric(48.0, 110.0, p.pitch);
    let body = strike(0.002, linear(0.07, 0.2, p.length));
    voice.tone(
        &[1.0, 0.25, 0.08],
        |time| low * (1.0 + 2.2 * (-time / 0.025).exp()),
        body,
    );
    let snare = linear(0.15, 0.9, p.variation);
    let fall = strike(0.001, linear(0.02, 0.09, p.length));
    let centre = geometric(900.0, 2600.0, p.brightness);
    voice.noise(rng, 1.0, 0.7, |_| centre, |time| snare * fall(time));
}

fn wind(p: &EffectParameters, voice: &mut Voice, rng: &mut Rng) {
    let centre = geometric(260.0, 800.0, p.pitch);
    let quality = linear(5.0, 1.6, p.brightness);
    // Gusts: two slow waves whose periods have no common multiple.
    let speed = linear(0.6, 1.6, p.variation);
    let starts = rng.uniform_vec(2, 0.0, 1.0);
    let [start, other] = [f64::from(starts[0]), f64::from(starts[1])];
    let gust = |time: f64| {
        let first = (TAU * (speed * time + start)).sin();
        0.6 * first + 0.4 * (TAU * (2.37 * speed * time + other)).sin()
    };
    let edge = linear(0.12, 0.3, p.length);
    let fade = gate(0.0, 1.0, edge);
    voice.noise(
        rng,
        1.0,
        quality,
        |time| centre * (0.7 * gust(time)).exp2(),
        |time| fade(time) * (0.65 + 0.35 * gust(time)),
    );
}

fn alarm(p: &EffectParameters, voice: &mut Voice) {
    let low = geometric(420.0, 800.0, p.pitch);
    let high = low * linear(1.2, 1.5, p.length);
    let turns = linear(2.0, 6.0, p.variation);
    let sweeps = p.brightness > 0.5;
    voice.tone(
        &hollow(linear(1.5, 1.0, p.brightness)),
        |time| {
            let at = (turns * time).fract();
            let side = match (sweeps, at < 0.5) {
                (true, true) => 2.0 * at,
                (true, false) => 2.0 - 2.0 * at,
                (false, true) => 1.0,
                (false, false) => 0.0,
            };
            geometric(low, high, side)
        },
        gate(0.0, 1.0, 0.02),
    );
}
