use super::*;

/// A file of one track with 96 ticks per beat.
fn file(events: &[u8]) -> Vec<u8> {
    let mut bytes = b"MThd\0\0\0\x06\0\0\0\x01\0\x60MTrk".to_vec();
    let events = [events, b"\0\xff\x2f\0"].concat();
    bytes.extend((events.len() as u32).to_be_bytes());
    bytes.extend(events);
    bytes
}

fn fault(bytes: &[u8]) -> String {
    MidiFile::parse(bytes).unwrap_err().to_string()
}

#[test]
fn both_ends_of_notes_and_running_status_are_read() {
    // C4 ends by velocity 0, E4 by its own event after a change of tempo to 60 beats per minute.
    let bytes = file(
        b"\0\xc0\x13\0\x90\x3c\x50\x60\x3c\0\0\x40\x7f\x60\xff\x51\x03\x0f\x42\x40\x30\x80\x40\0",
    );
    let music = MidiFile::parse(&bytes).unwrap();
    let notes = [
        Note::new(0.0, 0.5, 60).with_program(19),
        Note::new(0.5, 1.5, 64).with_program(19).with_velocity(127),
    ];
    assert_eq!(music.notes, notes);
    assert_eq!(
        music.tempi,
        [Tempo {
            start: 1.0,
            beats_per_minute: 60.0
        }]
    );
    assert_eq!((music.hanging_notes, music.seconds()), (0, 1.5));
}

#[test]
fn hanging_notes_last_until_the_end_of_the_track() {
    let music = MidiFile::parse(&file(b"\0\x90\x3c\x50\0\x3e\x50\x60\x3e\0")).unwrap();
    let notes = [Note::new(0.0, 0.5, 60), Note::new(0.0, 0.5, 62)];
    assert_eq!((&music.notes[..], music.hanging_notes), (&notes[..], 1));
}

#[test]
fn restruck_keys_and_drums() {
    // A key struck again ends with the first end; one that ends and begins at a tick goes on.
    let music = MidiFile::parse(&file(
        b"\0\x90\x3c\x50\x30\x3c\x50\x30\x3c\0\
          \0\x99\x24\x40\x60\x99\x24\x50\0\x89\x24\0\x60\x89\x24\0",
    ))
    .unwrap();
    let notes = [Note::new(0.0, 0.5, 60), Note::new(0.25, 0.5, 60)];
    assert_eq!(music.notes, notes);
    let drums = [
        Note::new(0.5, 1.0, 36).with_velocity(64),
        Note::new(1.0, 1.5, 36),
    ];
    assert_eq!(music.drums, drums);
}

#[test]
fn broken_files_are_typed_errors() {
    let good = file(b"\0\x90\x3c\x50\x60\x3c\0");
    assert!(MidiFile::parse(&good).is_ok());
    for len in 0..good.len() {
        assert!(MidiFile::parse(&good[..len]).is_err(), "{len}");
    }
    assert!(fault(b"RIFX0000").contains("wrong magic number"));
    let header = |division: [u8; 2], format: u8| {
        let mut bytes = good.clone();
        bytes[9] = format;
        bytes[12..14].copy_from_slice(&division);
        bytes
    };
    assert!(fault(&header([0, 0], 0)).contains("0 ticks"));
    assert!(fault(&header([0x80, 1], 0)).contains("-128 frames"));
    assert!(fault(&header([0xe7, 0], 0)).contains("0 ticks"));
    assert!(fault(&header([0x90, 4], 0)).contains("invalid midi"));
    // 25 frames of four ticks in a second, whatever the tempo.
    let music = MidiFile::parse(&header([0xe7, 4], 0)).unwrap();
    assert!((music.notes[0].end - 0.96).abs() < 1e-9);
    assert!(fault(&file(b"\0\xff\x51\x03\0\0\x01")).contains("a tempo of 1 microseconds"));
    assert!(fault(&file(b"\0\xff\x51\x03\0\0\0")).contains("a tempo of 0 microseconds"));
    // A beat of 16.8 seconds, and a pause of 2.8 million beats.
    let slow = b"\0\xff\x51\x03\xff\xff\xff\xff\xff\xff\x7f\x90\x3c\x50";
    assert!(fault(&file(slow)).contains("expected at most 86400"));
    assert!(fault(&file(b"\0\xff\x58\x04\0\x02\x18\x08")).contains("time signature of 0/2^2"));
}

#[test]
fn songs_in_sequence_are_refused() {
    let mut bytes = file(b"\0\x90\x3c\x50\x60\x3c\0");
    let track = bytes[14..].to_vec();
    bytes.extend(track);
    bytes[11] = 2;
    bytes[9] = 1;
    assert_eq!(MidiFile::parse(&bytes).unwrap().notes.len(), 2);
    bytes[9] = 2;
    assert!(fault(&bytes).contains("2 songs"));
}

#[test]
fn written_music_is_read_again() {
    let mut music = MidiFile::new(
        vec![
            Note::new(0.5, 0.75, 60).with_velocity(33),
            Note::new(0.0, 0.5, 60),
            Note::new(0.0, 2.5, 48).with_program(19),
        ],
        120.0,
    );
    music.tempi.push(Tempo {
        start: 1.0,
        beats_per_minute: 60.0,
    });
    music.time_signatures.push(TimeSignature {
        start: 0.0,
        numerator: 6,
        denominator: 8,
    });
    music.drums.push(Note::new(1.0, 1.5, 36));
    assert_eq!(MidiFile::parse(&music.encode().unwrap()).unwrap(), music);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mid");
    music.write(&path).unwrap();
    assert_eq!(MidiFile::read(&path).unwrap(), music);
    std::fs::write(&path, "MThd").unwrap();
    let error = MidiFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("a.mid"), "{error}");
}

/// The percussion channel has one program at a time: that of each drum is set before it begins.
#[test]
fn drums_keep_their_kits() {
    let mut music = MidiFile::new(vec![Note::new(0.0, 1.0, 60)], 120.0);
    music.drums = vec![
        Note::new(0.0, 0.5, 36).with_program(25),
        Note::new(0.0, 0.5, 38),
        Note::new(0.5, 1.0, 36),
        Note::new(1.0, 1.5, 36).with_program(25),
    ];
    assert_eq!(MidiFile::parse(&music.encode().unwrap()).unwrap(), music);
}

#[test]
fn written_notes_of_a_key_do_not_overlap() {
    let notes = vec![
        Note::new(0.0, 1.0, 60),
        Note::new(0.5, 2.0, 60),
        Note::new(0.5, 1.5, 60),
        Note::new(3.0, 3.000_01, 60),
    ];
    let music = MidiFile::new(notes, 120.0).encode().unwrap();
    let notes = MidiFile::parse(&music).unwrap().notes;
    let expected = [(0.0, 0.5), (0.5, 2.0), (3.0, 3.0 + 1.0 / 960.0)];
    assert_eq!(notes.len(), expected.len());
    for (note, (start, end)) in notes.iter().zip(expected) {
        assert!((note.start - start).abs() < 1e-9 && (note.end - end).abs() < 1e-9);
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let error = |music: &MidiFile| music.encode().unwrap_err().to_string();
    let note = Note::new(0.0, 1.0, 60);
    let programs: Vec<Note> = (0..16).map(|program| note.with_program(program)).collect();
    assert!(error(&MidiFile::new(programs, 120.0)).contains("16 programs"));
    for bpm in [0.0, f64::NAN, -3.0, 1e6] {
        let error = error(&MidiFile::new(vec![note], bpm));
        assert!(error.contains("`tempi[0].beats_per_minute`"), "{error}");
    }
    let mut music = MidiFile::new(vec![note], 90.0);
    music.tempi.insert(
        0,
        Tempo {
            start: 2.0,
            ..music.tempi[0]
        },
    );
    assert!(error(&music).contains("`tempi[1].start` is 0"));
    let mut music = MidiFile::new(vec![note], 90.0);
    music.ticks_per_beat = 1 << 15;
    assert!(error(&music).contains("`ticks_per_beat` is 32768"));
    music.ticks_per_beat = 96;
    music.time_signatures.push(TimeSignature {
        start: 0.0,
        numerator: 4,
        denominator: 3,
    });
    assert!(error(&music).contains("`time_signatures[0]` is 4/3"));
}
