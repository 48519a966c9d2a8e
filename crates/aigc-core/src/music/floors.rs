//! What counting achieves on chorales: a trained model must do better.
//!
//! Nats a note and nats a frame depend on the grid, the split and the order of notes; see
//! [`VoiceFloors`] and [`chord_floor`].

use super::{ChordGrid, VOICES, VoiceGrid, WittenBell};

/// Symbols of a voice: silence and the pitches 36 to 81, the range of the chorales. More symbols
/// would change the figures by less than a thousandth.
const VOICE_SYMBOLS: usize = 47;

/// Symbols of a frame: the keys of a piano and the end of the frame.
const CHORD_SYMBOLS: usize = 89;

/// Stands for a neighbour that is missing, because the piece or the frame begins.
const NONE: u32 = u32::MAX;

/// Predictions of the notes of four voices on a grid of sixteenths, in the order soprano, alto,
/// tenor, bass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoiceFloors {
    /// Share of the notes from the second step on that repeat the note before.
    pub repeat_accuracy: f64,
    /// Nats a note of a [count](WittenBell) given the voice and its note before.
    pub bigram: f64,
    /// Nats a note of a [count](WittenBell) given the voice, its note before, the sixteenth of the
    /// quarter, the notes of the voices above, and all four notes of the step before.
    pub n_gram: f64,
}

/// Counts the pieces of `train` and predicts those of `eval`.
///
/// Silence counts as a note, and so do held notes. Pitches beyond 36 to 81 count as silence.
pub fn voice_floors(train: &[VoiceGrid], eval: &[VoiceGrid]) -> VoiceFloors {
    let mut bigram = WittenBell::new(VOICE_SYMBOLS);
    let mut n_gram = WittenBell::new(VOICE_SYMBOLS);
    for piece in train {
        voice_events(piece, |context, symbol| {
            bigram.observe(&context[..2], symbol);
            n_gram.observe(context, symbol);
        });
    }
    let (mut sums, mut count) = ([0.0; 2], 0usize);
    let (mut repeats, mut followers) = (0usize, 0usize);
    for piece in eval {
        voice_events(piece, |context, symbol| {
            sums[0] -= bigram.probability(&context[..2], symbol).ln();
            sums[1] -= n_gram.probability(context, symbol).ln();
            count += 1;
            followers += usize::from(context[1] != NONE);
            repeats += usize::from(context[1] == symbol);
        });
    }
    let mean = |sum: f64| sum / count.max(1) as f64;
    VoiceFloors {
        repeat_accuracy: repeats as f64 / followers.max(1) as f64,
        bigram: mean(sums[0]),
        n_gram: mean(sums[1]),
    }
}

/// Calls `each` with the context and the symbol of every note.
fn voice_events(piece: &VoiceGrid, mut each: impl FnMut(&[u32], u32)) {
    let symbol = |pitch: &Option<u8>| match pitch {
        Some(pitch @ 36..=81) => u32::from(pitch - 35),
        _ => 0,
    };
    let pack = |symbols: &[u32]| symbols.iter().fold(1u32, |packed, x| (packed << 6) | x);
    let mut before: Option<[u32; VOICES]> = None;
    for (step, voices) in piece.steps.iter().enumerate() {
        let mut now = [0; VOICES];
        for (now, pitch) in now.iter_mut().zip(voices) {
            *now = symbol(pitch);
        }
        let all_before = before.map_or(NONE, |before| pack(&before));
        for (voice, symbol) in now.iter().enumerate() {
            let own = before.map_or(NONE, |before| before[voice]);
            let phase = (step % 4) as u32;
            let context = [voice as u32, own, phase, pack(&now[..voice]), all_before];
            each(&context, *symbol);
        }
        before = Some(now);
    }
}

/// Nats a frame of sets of pitches: counts the pieces of `train` and predicts those of `eval`.
///
/// The pitches of a frame come in ascending order, then its end; each is predicted from its rank,
/// the pitch before it in the frame, and the pitch of the same rank in the frame before. The nats
/// of a frame are the sum of those of its tokens, so this is the joint probability of its notes.
/// Pitches that a piano does not have are left out.
pub fn chord_floor(train: &[ChordGrid], eval: &[ChordGrid]) -> f64 {
    let mut counts = WittenBell::new(CHORD_SYMBOLS);
    for piece in train {
        chord_events(piece, |context, symbol| counts.observe(context, symbol));
    }
    let mut nats = 0.0;
    for piece in eval {
        chord_events(piece, |context, symbol| {
            nats -= counts.probability(context, symbol).ln();
        });
    }
    let frames: usize = eval.iter().map(|piece| piece.frames.len()).sum();
    nats / frames.max(1) as f64
}

fn chord_events(piece: &ChordGrid, mut each: impl FnMut(&[u32], u32)) {
    let mut before: Vec<u32> = vec![];
    for frame in &piece.frames {
        let pitches = frame.iter().filter(|pitch| (21..=108).contains(*pitch));
        let now: Vec<u32> = pitches.map(|pitch| u32::from(pitch - 20)).collect();
        for rank in 0..=now.len() {
            let lower = if rank > 0 { now[rank - 1] } else { NONE };
            let same = before.get(rank).copied().unwrap_or(NONE);
            let symbol = now.get(rank).copied().unwrap_or(0);
            each(&[rank as u32, lower, same], symbol);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A voice that never moves is predicted ever better; one never seen costs a uniform choice.
    #[test]
    fn closed_forms() {
        let held = VoiceGrid {
            steps: vec![[Some(60); VOICES]; 500],
        };
        let floors = voice_floors(std::slice::from_ref(&held), std::slice::from_ref(&held));
        assert_eq!(floors.repeat_accuracy, 1.0);
        assert!(floors.bigram < 0.02 && floors.n_gram < 0.05, "{floors:?}");
        let unseen = voice_floors(&[], std::slice::from_ref(&held));
        assert!((unseen.n_gram - (VOICE_SYMBOLS as f64).ln()).abs() < 1e-9);
        assert_eq!(voice_floors(&[], &[]).n_gram, 0.0);
        let chords = ChordGrid {
            frames: vec![vec![60, 64], vec![]],
        };
        let unseen = chord_floor(&[], std::slice::from_ref(&chords));
        assert!((unseen - 2.0 * (CHORD_SYMBOLS as f64).ln()).abs() < 1e-9);
    }
}
