//! The rules, and random choices between them.

use super::{
    Melody, STEPS_PER_BEAT, Tone,
    harmony::{Chord, Key},
};
use crate::rng::Rng;

/// Lengths of the tones of a bar of four beats, in eighths.
const FOUR: [&[usize]; 8] = [
    &[2, 2, 2, 2],
    &[3, 1, 2, 2],
    &[2, 1, 1, 2, 2],
    &[2, 2, 1, 1, 2],
    &[4, 2, 2],
    &[4, 3, 1],
    &[2, 2, 4],
    &[1, 1, 2, 3, 1],
];
/// The same for three beats.
const THREE: [&[usize]; 6] = [
    &[2, 2, 2],
    &[3, 1, 2],
    &[4, 2],
    &[2, 1, 1, 2],
    &[2, 2, 1, 1],
    &[1, 1, 2, 2],
];

/// Lowest and highest step of the melody, from the tonic.
const RANGE: [i32; 2] = [-3, 9];

/// Instruments of melodies: piano, vibraphone, violin, clarinet, flute.
const PROGRAMS: [u8; 5] = [0, 11, 40, 71, 73];

/// A tone by its step of the scale, with its length in eighths.
type Step = (i32, usize);

/// Four bars: their chords and the tones of each.
#[derive(Clone)]
struct Phrase {
    chords: [Chord; 4],
    bars: [Vec<Step>; 4],
}

fn choose<T: Copy>(from: &[T], rng: &mut Rng) -> T {
    from[rng.random_index(from.len())]
}

fn degree(from: &[u8], rng: &mut Rng) -> Chord {
    Chord {
        degree: choose(from, rng),
    }
}

pub(super) fn piece(rng: &mut Rng) -> Melody {
    let key = Key {
        tonic: rng.random_index(12) as u8,
        minor: rng.random_index(3) == 0,
    };
    let beats = choose(&[3, 4, 4], rng);
    let first = choose(&[0, 2, 4], rng);
    let statement = {
        let middle = degree(&[3, 5, 4, 1], rng);
        let chords = [
            Chord::TONIC,
            middle,
            degree(&[3, 1, 0], rng),
            Chord::DOMINANT,
        ];
        phrase(chords, first, beats, rng)
    };
    let answer = {
        let mut answer = statement.clone();
        (answer.chords[2], answer.chords[3]) = (Chord::DOMINANT, Chord::TONIC);
        // The third bar goes on from where the second one ended.
        let last = last_step(&answer.bars[1], first);
        answer.bars[2] = bar(Chord::DOMINANT, rhythm(beats, rng), last, rng);
        let last = last_step(&answer.bars[2], last);
        answer.bars[3] = vec![(nearest(last, &[0]), 2 * beats)];
        answer
    };
    let contrast = {
        let departure = degree(&[3, 5], rng);
        let middle = degree(&[0, 5, 1], rng);
        let chords = [departure, middle, degree(&[1, 3], rng), Chord::DOMINANT];
        // It begins higher than the rest.
        let begin = nearest(6, &departure.degrees());
        phrase(chords, begin, beats, rng)
    };
    let mut melody = Melody {
        key,
        beats_per_bar: beats,
        beats_per_minute: 84.0 + 4.0 * rng.random_index(14) as f64,
        program: choose(&PROGRAMS, rng),
        chords: vec![],
        tones: vec![],
    };
    let mut start = 0;
    for phrase in [&statement, &answer, &contrast, &answer] {
        for (chord, bar) in phrase.chords.iter().zip(&phrase.bars) {
            melody.chords.push(*chord);
            for (step, eighths) in bar {
                let len = eighths * STEPS_PER_BEAT / 2;
                let pitch = key.pitch(*step, *chord);
                melody.tones.push(Tone { start, len, pitch });
                start += len;
            }
        }
    }
    melody
}

/// A phrase that begins near a step of the scale and ends on the dominant.
fn phrase(chords: [Chord; 4], first: i32, beats: usize, rng: &mut Rng) -> Phrase {
    let mut last = first;
    let mut bars: [Vec<Step>; 4] = Default::default();
    for (index, (tones, chord)) in bars.iter_mut().zip(chords).enumerate() {
        *tones = if index < 3 {
            bar(chord, rhythm(beats, rng), last, rng)
        } else {
            // Two short tones, and a long one of the dominant.
            let mut tones = bar(chord, &[2, 2], last, rng);
            let before = last_step(&tones, last);
            tones.push((nearest(before, &[1, 4, 6]), 2 * beats - 4));
            tones
        };
        last = last_step(tones, last);
    }
    Phrase { chords, bars }
}

/// The step of the last tone; `before` if there are no tones.
fn last_step(tones: &[Step], before: i32) -> i32 {
    tones.last().map_or(before, |tone| tone.0)
}

fn rhythm(beats: usize, rng: &mut Rng) -> &'static [usize] {
    if beats == 3 {
        choose(&THREE, rng)
    } else {
        choose(&FOUR, rng)
    }
}

/// The tones of a bar with a rhythm, going on from a step of the scale.
fn bar(chord: Chord, rhythm: &[usize], mut last: i32, rng: &mut Rng) -> Vec<Step> {
    let mut at = 0;
    let mut tones = Vec::with_capacity(rhythm.len());
    for len in rhythm {
        // Eighths between beats are steps; on other beats most tones belong to the chord, and on
        // the first one all do.
        let free = at % 2 == 1 || (at > 0 && rng.random_index(4) == 0);
        let direction = choose(&[-1, 1], rng);
        last = if free {
            within(last + direction)
        } else {
            let leap = choose(&[0, 1, 1, 2, 3], rng);
            nearest(within(last + direction * leap), &chord.degrees())
        };
        tones.push((last, *len));
        at += len;
    }
    tones
}

/// Back into the range by the other direction.
fn within(step: i32) -> i32 {
    let [low, high] = RANGE;
    if step < low {
        2 * low - step
    } else if step > high {
        2 * high - step
    } else {
        step
    }
}

/// The step nearest to `step` within the range that is one of `degrees`; the lower one of two.
fn nearest(step: i32, degrees: &[u8]) -> i32 {
    let [low, high] = RANGE;
    let wanted = (low..=high).filter(|at| degrees.contains(&(at.rem_euclid(7) as u8)));
    wanted.min_by_key(|at| (at - step).abs()).unwrap_or(step)
}
