//! Any bytes are a MIDI file or an error; what was read can be written and read again.
#![no_main]

use aigc_core::music::{MidiFile, Note, PianoRoll};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

/// Valid files, for the fuzzer to start from: `AIGC_SEEDS=corpus/midi`.
fn write_seeds(to: &Path) {
    std::fs::create_dir_all(to).expect("it can be created");
    let mut music = MidiFile::new(
        vec![
            Note::new(0.0, 0.5, 60),
            Note::new(0.5, 1.5, 64).with_program(40),
        ],
        90.0,
    );
    music.drums.push(Note::new(0.5, 0.6, 36));
    let bytes = music.encode().expect("it is valid");
    std::fs::write(to.join("music.mid"), bytes).expect("it can be written");
}

fuzz_target!(init: {
    if let Some(seeds) = std::env::var_os("AIGC_SEEDS") {
        write_seeds(Path::new(&seeds));
    }
}, |bytes: &[u8]| {
    let Ok(music) = MidiFile::parse(bytes) else {
        return;
    };
    // A note takes at least three bytes, and one of running status.
    assert!(music.notes.len() + music.drums.len() <= bytes.len());
    assert!(music.notes.iter().all(|note| note.start >= 0.0 && note.end > note.start));
    // A roll of too many cells is an error; in another, notes may have become one.
    if let Ok(roll) = PianoRoll::from_notes(&music.notes, 0.1) {
        assert!(roll.to_notes(0).len() <= music.notes.len());
    }
    // Notes of more programs than there are channels cannot be written.
    if let Ok(written) = music.encode() {
        match MidiFile::parse(&written) {
            Ok(again) => {
                assert!(again.notes.len() <= music.notes.len());
                assert_eq!(again.hanging_notes, 0);
            }
            // Rounded to a tick, the end of the day may be passed.
            Err(fault) => assert!(fault.to_string().contains("at most 86400"), "{fault}"),
        }
    }
});
