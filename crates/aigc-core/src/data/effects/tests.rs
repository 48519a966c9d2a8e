use super::*;
use std::f64::consts::TAU;

const RATE: u32 = 8000;

/// Root mean square of a part, given in seconds.
fn level(samples: &[f32], from: f64, to: f64) -> f64 {
    let at = |time: f64| (time * f64::from(RATE)) as usize;
    let part = &samples[at(from)..at(to)];
    let power: f64 = part.iter().map(|x| f64::from(*x).powi(2)).sum();
    (power / part.len() as f64).sqrt()
}

/// Mean frequency of a part by its crossings of zero, in hertz.
fn pitch(samples: &[f32], from: f64, to: f64) -> f64 {
    let at = |time: f64| (time * f64::from(RATE)) as usize;
    let part = &samples[at(from)..at(to)];
    let crossings = part
        .windows(2)
        .filter(|pair| (pair[0] < 0.0) != (pair[1] < 0.0));
    crossings.count() as f64 / 2.0 / (to - from)
}

/// Power at a frequency.
fn power(samples: &[f32], hertz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (index, sample) in samples.iter().enumerate() {
        let (sin, cos) = (TAU * hertz * index as f64 / f64::from(RATE)).sin_cos();
        re += f64::from(*sample) * cos;
        im += f64::from(*sample) * sin;
    }
    re * re + im * im
}

fn middle(kind: EffectKind) -> Vec<f32> {
    let wave = render(kind, &EffectParameters::default(), 1, RATE).unwrap();
    wave.channel(0).to_vec()
}

#[test]
fn items_follow_from_seed_and_index() {
    let effects = Effects::new(16, RATE, 3).unwrap();
    for index in 0..16 {
        let sound = effects.get(index).unwrap();
        assert_eq!(sound, effects.get(index).unwrap());
        assert_eq!(sound.label, Some(index as u32 % 8));
        assert_eq!((sound.wave.len(), sound.len), (8000, 8000));
        let peak = sound.wave.peak();
        assert!((0.4..=0.801).contains(&peak), "{index}: {peak}");
        assert!(sound.wave.channel(0).iter().all(|x| x.is_finite()));
        // No click at either end, and no effect is silent.
        let samples = sound.wave.channel(0);
        assert_eq!((samples[0], samples[7999]), (0.0, 0.0));
        assert!(sound.wave.rms() > 0.01, "{index}");
    }
    let other = Effects::new(16, RATE, 4).unwrap();
    assert_ne!(effects.get(6).unwrap(), other.get(6).unwrap());
    assert_ne!(effects.get(3).unwrap(), effects.get(11).unwrap());
}

#[test]
fn every_kind_sounds_at_every_rate_and_extreme() {
    for kind in EffectKind::ALL {
        for extreme in [0.0, 1.0] {
            let parameters = EffectParameters {
                pitch: extreme,
                length: extreme,
                brightness: extreme,
                variation: extreme,
            };
            for rate in [4000, 22_050] {
                let wave = render(kind, &parameters, 0, rate).unwrap();
                assert_eq!(wave.len(), rate as usize);
                assert!(
                    wave.peak() > 0.3 && wave.peak() < 0.801,
                    "{kind} {}",
                    wave.peak()
                );
            }
        }
    }
}

#[test]
fn a_laser_falls_and_a_jump_rises() {
    let laser = middle(EffectKind::Laser);
    assert!(pitch(&laser, 0.0, 0.05) > 2.0 * pitch(&laser, 0.15, 0.25));
    let jump = middle(EffectKind::Jump);
    assert!(pitch(&jump, 0.15, 0.22) > 1.5 * pitch(&jump, 0.0, 0.07));
    // Both are short.
    assert!(level(&laser, 0.5, 1.0) < 1e-3 && level(&jump, 0.5, 1.0) < 1e-3);
}

#[test]
fn a_coin_has_a_higher_second_note() {
    let coin = middle(EffectKind::Coin);
    let (first, second) = (pitch(&coin, 0.01, 0.07), pitch(&coin, 0.1, 0.3));
    // A fifth.
    assert!((second / first - 1.5).abs() < 0.1, "{first} {second}");
}

#[test]
fn an_explosion_gets_darker_and_dies_away() {
    let explosion = middle(EffectKind::Explosion);
    assert!(pitch(&explosion, 0.0, 0.1) > 2.0 * pitch(&explosion, 0.5, 0.9));
    assert!(level(&explosion, 0.0, 0.2) > 4.0 * level(&explosion, 0.7, 0.95));
}

#[test]
fn a_bell_has_its_minor_third_and_a_drum_is_low() {
    let bell = middle(EffectKind::Bell);
    let note = (330.0f64 * 880.0).sqrt();
    for ratio in [1.0, 1.19, 2.0] {
        assert!(
            power(&bell, note * ratio) > 20.0 * power(&bell, note * 1.1),
            "{ratio}"
        );
    }
    let drum = middle(EffectKind::Drum);
    let low = (48.0f64 * 110.0).sqrt();
    assert!(power(&drum, low) > 5.0 * power(&drum, 4.0 * low));
    assert!(level(&drum, 0.0, 0.1) > 10.0 * level(&drum, 0.7, 0.9));
}

#[test]
fn wind_and_alarm_last() {
    for kind in [EffectKind::Wind, EffectKind::Alarm] {
        let samples = middle(kind);
        for part in 1..9 {
            let from = f64::from(part) / 10.0;
            assert!(level(&samples, from, from + 0.1) > 0.01, "{kind} {part}");
        }
    }
    // In the middle of its range an alarm alternates four times a second.
    let alarm = middle(EffectKind::Alarm);
    let (high, low) = (pitch(&alarm, 0.27, 0.36), pitch(&alarm, 0.39, 0.48));
    assert!((high / low - 1.35).abs() < 0.1, "{high} {low}");
}

#[test]
fn names_and_bad_values() {
    for kind in EffectKind::ALL {
        assert_eq!(kind.to_string().parse::<EffectKind>().unwrap(), kind);
    }
    let error = "gong".parse::<EffectKind>().unwrap_err().to_string();
    assert!(
        error.contains("gong") && error.contains("coin, laser"),
        "{error}"
    );
    let bad = EffectParameters {
        length: 1.5,
        ..EffectParameters::default()
    };
    let error = render(EffectKind::Bell, &bad, 0, RATE).unwrap_err();
    assert!(error.to_string().contains("`length` is 1.5"), "{error}");
    let good = EffectParameters::default();
    for rate in [0, 3999, 200_000] {
        assert!(render(EffectKind::Bell, &good, 0, rate).is_err());
    }
    assert!(Effects::new(0, RATE, 0).is_err());
}
