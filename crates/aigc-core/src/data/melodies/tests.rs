use super::*;
use std::collections::HashSet;

fn pieces() -> Vec<Melody> {
    let melodies = Melodies::new(200, 1).unwrap();
    (0..200).map(|index| melodies.get(index).unwrap()).collect()
}

#[test]
fn pieces_follow_the_grammar() {
    for piece in pieces() {
        let bar = piece.steps_per_bar();
        assert_eq!(piece.chords.len(), 16);
        // Half, full, half, full cadence.
        let (tonic, dominant) = (Chord::TONIC, Chord::DOMINANT);
        let ends = [3, 7, 11, 15].map(|bar| piece.chords[bar]);
        assert_eq!(ends, [dominant, tonic, dominant, tonic]);
        assert_eq!(piece.chords[0], tonic);
        // The answer comes twice and begins as the statement does.
        let tones = |bars: std::ops::Range<usize>| -> Vec<(usize, usize, u8)> {
            let steps = bars.start * bar..bars.end * bar;
            let inside = piece
                .tones
                .iter()
                .filter(|tone| steps.contains(&tone.start));
            inside
                .map(|tone| (tone.start - steps.start, tone.len, tone.pitch))
                .collect()
        };
        assert_eq!(tones(4..8), tones(12..16));
        assert_eq!(tones(0..2), tones(4..6));
        // The last tone is the tonic, for a whole bar.
        let last = piece.tones.last().unwrap();
        assert_eq!((last.pitch % 12, last.len), (piece.key.tonic, bar));
    }
}

#[test]
fn tones_fill_every_bar_and_strong_beats_have_chord_tones() {
    for piece in pieces() {
        let mut end = 0;
        for tone in &piece.tones {
            assert_eq!(tone.start, end);
            end += tone.len;
            if tone.start.is_multiple_of(piece.steps_per_bar()) {
                let chord = piece.chords[tone.start / piece.steps_per_bar()];
                let classes = piece.key.pitch_classes(chord);
                assert!(classes.contains(&(tone.pitch % 12)), "{tone:?} {chord:?}");
            }
            assert!((50..=86).contains(&tone.pitch), "{tone:?}");
        }
        assert_eq!(end, piece.num_steps());
    }
}

#[test]
fn lower_voices_stay_below_each_other() {
    for piece in pieces() {
        let grid = piece.to_grid();
        for step in &grid.steps {
            let [_, alto, tenor, bass] = step.map(|pitch| pitch.unwrap());
            assert!(
                alto > tenor && tenor >= bass && bass >= 40 && alto <= 73,
                "{step:?}"
            );
        }
        let chord = piece.chords[0];
        let mut classes: Vec<u8> = grid.steps[0][1..].iter().map(|p| p.unwrap() % 12).collect();
        let mut expected = piece.key.pitch_classes(chord);
        classes.sort_unstable();
        expected.sort_unstable();
        assert_eq!(classes, expected);
    }
}

#[test]
fn pieces_differ_and_follow_from_the_seed() {
    let pieces = pieces();
    let distinct: HashSet<Vec<u8>> = pieces
        .iter()
        .map(|piece| piece.tones.iter().map(|tone| tone.pitch).collect())
        .collect();
    assert_eq!(distinct.len(), pieces.len());
    assert!(pieces.iter().any(|piece| piece.key.minor));
    assert!(pieces.iter().any(|piece| piece.beats_per_bar == 3));
    let other = Melodies::new(1, 2).unwrap().get(0).unwrap();
    assert_ne!(other, pieces[0]);
    assert_eq!(Melodies::new(1, 1).unwrap().get(0).unwrap(), pieces[0]);
    assert!(Melodies::new(0, 1).is_err());
}

#[test]
fn files_have_the_notes() {
    let piece = &pieces()[0];
    let file = MidiFile::parse(&piece.to_midi().encode().unwrap()).unwrap();
    assert_eq!(file.notes.len(), piece.to_notes().len());
    assert_eq!(file.hanging_notes, 0);
    let signature = file.time_signatures[0];
    assert_eq!(usize::from(signature.numerator), piece.beats_per_bar);
}
