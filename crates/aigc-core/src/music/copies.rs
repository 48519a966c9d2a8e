//! Passages that a generated piece shares with the pieces it was learnt from.

use super::{VOICES, VoiceGrid};
use std::ops::Range;

/// The transpositions that are searched, in semitones: all that differ by less than an octave.
const TRANSPOSITIONS: Range<i32> = -11..12;

/// The passages of a collection of pieces, to look for copies in.
///
/// It is the array of all suffixes of the pieces in alphabetical order (U. Manber and G. Myers,
/// "Suffix Arrays: A New Method for On-Line String Searches", 1993).
#[derive(Clone, Debug)]
pub struct CopyIndex {
    pieces: Vec<Vec<u32>>,
    /// Piece and first step of each suffix.
    suffixes: Vec<(u32, u32)>,
}

/// A passage of a piece that is also in the collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiedPassage {
    /// Number of steps; 0 if no step is shared.
    pub len: usize,
    /// Its first step in the piece.
    pub start: usize,
    /// Which piece of the collection has it.
    pub source: usize,
    /// Its first step there.
    pub source_start: usize,
    /// By how many semitones the source must be transposed.
    pub semitones: i32,
}

impl CopyIndex {
    /// The index of a collection.
    ///
    /// # Panics
    /// If it has more than 2³² pieces or steps.
    pub fn new(pieces: &[VoiceGrid]) -> Self {
        let pieces: Vec<Vec<u32>> = pieces.iter().map(chords).collect();
        let number = |index: usize| u32::try_from(index).expect("at most 2^32 steps");
        let mut suffixes = Vec::with_capacity(pieces.iter().map(Vec::len).sum());
        for (index, piece) in pieces.iter().enumerate() {
            suffixes.extend((0..piece.len()).map(|step| (number(index), number(step))));
        }
        let suffix = |&(piece, step): &(u32, u32)| &pieces[piece as usize][step as usize..];
        suffixes.sort_by(|a, b| suffix(a).cmp(suffix(b)));
        Self { pieces, suffixes }
    }

    /// The longest run of steps that the piece and the collection have in common, note for note.
    pub fn longest(&self, piece: &VoiceGrid) -> CopiedPassage {
        let chords = chords(piece);
        let mut best = CopiedPassage::default();
        for start in 0..chords.len() {
            let wanted = &chords[start..];
            let at = self.suffixes.partition_point(|s| self.suffix(*s) < wanted);
            // What shares most with it is next to its place in the order.
            for &(source, step) in &self.suffixes[at.saturating_sub(1)..] {
                let found = self.suffix((source, step));
                let len = wanted.iter().zip(found).take_while(|(a, b)| a == b).count();
                if len > best.len {
                    best = CopiedPassage {
                        len,
                        start,
                        source: source as usize,
                        source_start: step as usize,
                        semitones: 0,
                    };
                }
                if found >= wanted {
                    break;
                }
            }
        }
        best
    }

    /// [`longest`](Self::longest) if the collection may be transposed by up to eleven semitones.
    pub fn longest_transposed(&self, piece: &VoiceGrid) -> CopiedPassage {
        let mut best = CopiedPassage::default();
        // Instead of the whole collection upwards, the piece is transposed downwards.
        for semitones in TRANSPOSITIONS {
            if let Some(moved) = piece.transposed(-semitones) {
                let found = self.longest(&moved);
                let nearer = semitones.abs() < best.semitones.abs();
                if found.len > best.len || (found.len == best.len && nearer) {
                    best = CopiedPassage { semitones, ..found };
                }
            }
        }
        best
    }

    fn suffix(&self, (piece, step): (u32, u32)) -> &[u32] {
        &self.pieces[piece as usize][step as usize..]
    }
}

/// A number for each step.
fn chords(piece: &VoiceGrid) -> Vec<u32> {
    let chord = |step: &[Option<u8>; VOICES]| {
        u32::from_be_bytes(step.map(|pitch| pitch.unwrap_or(u8::MAX)))
    };
    piece.steps.iter().map(chord).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn random(len: usize, rng: &mut Rng) -> VoiceGrid {
        let mut voice = || Some(60 + rng.random_index(2) as u8);
        VoiceGrid {
            steps: (0..len)
                .map(|_| [voice(), None, Some(50), voice()])
                .collect(),
        }
    }

    #[test]
    fn longest_copy_is_that_of_a_search_of_all_places() {
        let mut rng = Rng::new(4);
        let pieces: Vec<VoiceGrid> = (0..6).map(|_| random(40, &mut rng)).collect();
        let index = CopyIndex::new(&pieces);
        for _ in 0..10 {
            let piece = random(30, &mut rng);
            let found = index.longest(&piece);
            let mut longest = 0;
            for start in 0..piece.steps.len() {
                for other in &pieces {
                    for at in 0..other.steps.len() {
                        let (a, b) = (&piece.steps[start..], &other.steps[at..]);
                        let len = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                        longest = longest.max(len);
                    }
                }
            }
            assert_eq!(found.len, longest);
            let source = &pieces[found.source].steps[found.source_start..][..found.len];
            assert_eq!(source, &piece.steps[found.start..][..found.len]);
        }
    }

    #[test]
    fn transposed_copies_are_found() {
        let mut rng = Rng::new(5);
        let pieces = [random(40, &mut rng), random(40, &mut rng)];
        let mut piece = VoiceGrid {
            steps: pieces[1].steps[7..27].to_vec(),
        };
        piece = piece.transposed(3).unwrap();
        piece.steps.insert(0, [Some(100); VOICES]);
        let index = CopyIndex::new(&pieces);
        assert_eq!(index.longest(&piece).len, 0);
        let expected = CopiedPassage {
            len: 20,
            start: 1,
            source: 1,
            source_start: 7,
            semitones: 3,
        };
        assert_eq!(index.longest_transposed(&piece), expected);
        assert_eq!(
            CopyIndex::new(&[]).longest(&piece),
            CopiedPassage::default()
        );
    }
}
