//! Statistics that tell generated music from the music it was learnt from.

use super::{VOICES, VoiceGrid};

/// Semitones of a perfect fifth.
const FIFTH: i32 = 7;

/// Share of each of the twelve pitch classes, C first; all 0 if there are no pitches.
pub fn pitch_classes(pitches: impl IntoIterator<Item = u8>) -> [f64; 12] {
    let (mut shares, mut count) = ([0.0; 12], 0.0);
    for pitch in pitches {
        shares[usize::from(pitch % 12)] += 1.0;
        count += 1.0;
    }
    shares.map(|share| if count > 0.0 { share / count } else { 0.0 })
}

/// Half the sum of the differences of two histograms (total variation): 0 if they are equal, 1 if
/// they have no pitch class in common.
pub fn pitch_class_distance(a: &[f64; 12], b: &[f64; 12]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

/// Share of the notes, of all voices from the second step on, that repeat or hold the one before;
/// 0 if there are none. Silence is no note.
pub fn repeats(pieces: &[VoiceGrid]) -> f64 {
    let (mut same, mut count) = (0usize, 0usize);
    for pair in pieces.iter().flat_map(|piece| piece.steps.windows(2)) {
        for (before, now) in pair[0].iter().zip(&pair[1]) {
            count += usize::from(now.is_some());
            same += usize::from(now.is_some() && before == now);
        }
    }
    same as f64 / count.max(1) as f64
}

/// Parallel fifths and octaves, which the rules of counterpoint forbid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parallels {
    /// Number of changes of chord.
    pub changes: usize,
    /// Pairs of voices that move by the same interval from one fifth to another.
    pub fifths: usize,
    /// The same for octaves and unisons.
    pub octaves: usize,
}

impl Parallels {
    /// Fifths and octaves per 100 changes of chord; 0 without changes.
    pub fn per_100(&self) -> [f64; 2] {
        let changes = self.changes.max(1) as f64;
        [self.fifths, self.octaves].map(|count| 100.0 * count as f64 / changes)
    }
}

/// Counts parallels between neighbouring steps in which a voice moves. Fifths and octaves include
/// those that are wider by whole octaves; both voices must sound and move. The interval is counted
/// from the lower pitch, also where the voices cross: a crossed fourth is no fifth.
pub fn parallels(pieces: &[VoiceGrid]) -> Parallels {
    let mut found = Parallels::default();
    for pair in pieces.iter().flat_map(|piece| piece.steps.windows(2)) {
        let (before, now) = (&pair[0], &pair[1]);
        if before == now {
            continue;
        }
        found.changes += 1;
        let motion = |voice: usize| match (before[voice], now[voice]) {
            (Some(from), Some(to)) if from != to => Some((i32::from(from), i32::from(to))),
            _ => None,
        };
        for upper in 0..VOICES {
            for lower in upper + 1..VOICES {
                let (Some(above), Some(below)) = (motion(upper), motion(lower)) else {
                    continue;
                };
                if above.1 - above.0 != below.1 - below.0 {
                    continue;
                }
                match (above.0 - below.0).abs() % 12 {
                    0 => found.octaves += 1,
                    FIFTH => found.fifths += 1,
                    _ => {}
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(steps: &[[u8; VOICES]]) -> VoiceGrid {
        let voice = |pitch: u8| (pitch > 0).then_some(pitch);
        VoiceGrid {
            steps: steps.iter().map(|step| step.map(voice)).collect(),
        }
    }

    #[test]
    fn pitch_class_histograms() {
        let major = pitch_classes([60, 64, 67, 72]);
        assert_eq!(
            (major[0], major[4], major[7], major[1]),
            (0.5, 0.25, 0.25, 0.0)
        );
        assert_eq!(pitch_class_distance(&major, &major), 0.0);
        assert_eq!(pitch_class_distance(&major, &pitch_classes([61, 63])), 1.0);
        assert_eq!(pitch_class_distance(&major, &pitch_classes([60])), 0.5);
        assert_eq!(pitch_classes([]), [0.0; 12]);
    }

    #[test]
    fn repeats_are_counted_per_voice() {
        let piece = grid(&[[72, 67, 60, 0], [72, 65, 60, 48], [74, 65, 0, 48]]);
        // 72, 60, 65 and 48 of seven notes.
        assert!((repeats(&[piece]) - 4.0 / 7.0).abs() < 1e-12);
        assert_eq!(repeats(&[]), 0.0);
    }

    #[test]
    fn parallels_need_two_moving_voices() {
        // Alto and tenor a fifth apart, then soprano and bass two octaves.
        let piece = grid(&[
            [72, 67, 60, 45],
            [71, 69, 62, 45],
            [72, 69, 62, 48],
            [74, 69, 60, 50],
            [74, 69, 60, 50],
        ]);
        let found = parallels(&[piece]);
        assert_eq!((found.changes, found.fifths, found.octaves), (3, 1, 1));
        let rates = found.per_100();
        assert!(rates.iter().all(|rate| (rate - 100.0 / 3.0).abs() < 1e-9));
        // Held fifths, and voices that cross the octave in opposite directions, are allowed.
        let fine = grid(&[[67, 60, 0, 48], [67, 60, 0, 36], [69, 57, 0, 41]]);
        let found = parallels(&[fine]);
        assert_eq!((found.fifths, found.octaves), (0, 0));
        assert_eq!(parallels(&[]).per_100(), [0.0, 0.0]);
    }

    #[test]
    fn crossed_voices_are_measured_from_the_lower_pitch() {
        // The soprano is five, then seven semitones below the alto: a fourth and a fifth.
        for (soprano, fifths) in [(60, 0), (58, 1)] {
            let piece = grid(&[[soprano, 65, 0, 0], [soprano + 2, 67, 0, 0]]);
            let found = parallels(&[piece]);
            assert_eq!((found.fifths, found.octaves), (fifths, 0), "{soprano}");
        }
    }
}
