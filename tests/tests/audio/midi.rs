//! MIDI files and piano rolls against pretty_midi.

use aigc_core::music::{MidiFile, PianoRoll};
use aigc_tests::fixtures::every;

#[test]
fn notes_and_piano_rolls_are_those_of_pretty_midi() {
    every(
        |case| case.text("kind") == "midi_file",
        |case| {
            let music = MidiFile::read(case.path("file")).unwrap();
            let notes = &music.notes;
            let whole = |name: &str| -> Vec<u8> {
                let (_, values) = case.values(name);
                values.into_iter().map(|value| value as u8).collect()
            };
            let pitches: Vec<u8> = notes.iter().map(|note| note.pitch).collect();
            assert_eq!(pitches, whole("pitch"));
            let programs: Vec<u8> = notes.iter().map(|note| note.program).collect();
            assert_eq!(programs, whole("program"));
            let velocities: Vec<u8> = notes.iter().map(|note| note.velocity).collect();
            assert_eq!(velocities, whole("velocity"));
            let starts: Vec<f64> = notes.iter().map(|note| note.start).collect();
            case.assert_values_within("start", &[notes.len()], &starts);
            let ends: Vec<f64> = notes.iter().map(|note| note.end).collect();
            case.assert_values_within("end", &[notes.len()], &ends);
            assert_eq!(music.hanging_notes, 0);

            let rate = case.json["config"]["piano_roll"]["frames_per_second"].as_f64();
            let roll = PianoRoll::from_notes(notes, rate.unwrap()).unwrap();
            let (shape, expected) = case.values("piano_roll");
            assert_eq!([roll.keys().len(), roll.num_frames()], shape[..]);
            let tensor = roll.to_tensor(&aigc_core::device::device("flex").unwrap());
            let found: Vec<f64> = tensor.into_data().iter::<f64>().collect();
            assert_eq!(found, expected);

            // Written and read again, times are those of the ticks.
            let again = MidiFile::parse(&music.encode().unwrap()).unwrap();
            assert_eq!(again.notes.len(), notes.len());
            for (a, b) in again.notes.iter().zip(notes) {
                assert!((a.start - b.start).abs() < 1e-6 && (a.end - b.end).abs() < 1e-6);
                assert_eq!(
                    (a.pitch, a.program, a.velocity),
                    (b.pitch, b.program, b.velocity)
                );
            }
        },
    );
}
