//! Chorales and spoken digits, where `AIGC_DATA` says they are.

use aigc_core::{
    data::{
        Dataset, SampleBatch,
        sound::{WaveFolder, WaveFolderConfig, collate_sounds, digit_of_name},
    },
    music::{
        ChordTokens, CopyIndex, Splits, VoiceGrid, VoiceTokens, chord_floor, parallels,
        pitch_class_distance, pitch_classes, read_chords, read_voices, repeats, voice_floors,
    },
};
use aigc_tests::folder_from;
use flate2::read::GzDecoder;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

fn voices() -> Option<Splits<VoiceGrid>> {
    let folder = folder_from("AIGC_DATA")?.join("jsb-chorales");
    Some(read_voices(folder.join("Jsb16thSeparated.json.gz")).unwrap())
}

fn steps(pieces: &[VoiceGrid]) -> usize {
    pieces.iter().map(|piece| piece.steps.len()).sum()
}

#[test]
fn chorales_have_known_counts() {
    let Some(chorales) = voices() else { return };
    let Splits { train, valid, test } = &chorales;
    assert_eq!((train.len(), valid.len(), test.len()), (229, 76, 77));
    assert_eq!(
        (steps(train), steps(valid), steps(test)),
        (55_228, 18_408, 18_900)
    );
    assert_eq!(train[0].steps[0], [Some(74), Some(70), Some(65), Some(58)]);
    let ranges = train
        .iter()
        .chain(valid)
        .chain(test)
        .filter_map(VoiceGrid::range);
    let (low, high) = ranges.fold((127, 0), |(low, high), range| {
        (low.min(*range.start()), high.max(*range.end()))
    });
    assert_eq!((low, high), (36, 81));
    let tokens = VoiceTokens::default();
    for piece in train {
        let ids = tokens.encode(piece).unwrap();
        assert_eq!(&tokens.decode(&ids).unwrap(), piece);
        assert!(tokens.transpositions(piece).count() >= 12);
    }
}

/// The figures of counting, which trained models must beat: per note of four voices in sixteenths,
/// and per frame of quarters.
#[test]
fn floors_of_chorales() {
    let Some(chorales) = voices() else { return };
    let valid = voice_floors(&chorales.train, &chorales.valid);
    let test = voice_floors(&chorales.train, &chorales.test);
    println!("nats a note: valid {valid:?}, test {test:?}");
    assert!((test.repeat_accuracy - 0.770).abs() < 5e-4);
    assert!((test.bigram - 0.983).abs() < 5e-4);
    assert!((valid.n_gram - 0.559).abs() < 1e-3 && (test.n_gram - 0.576).abs() < 1e-3);

    let Some(folder) = folder_from("AIGC_DATA") else {
        return;
    };
    let path = folder.join("jsb-chorales/jsb-chorales-quarter.json.gz");
    let chords = read_chords(path).unwrap();
    let valid = chord_floor(&chords.train, &chords.valid);
    let test = chord_floor(&chords.train, &chords.test);
    println!("nats a frame: valid {valid:.3}, test {test:.3}");
    assert!((valid - 6.699).abs() < 2e-3 && (test - 6.905).abs() < 2e-3);
    let tokens = ChordTokens::default();
    for piece in &chords.test {
        let ids = tokens.encode(piece).unwrap();
        assert_eq!(&tokens.decode(&ids).unwrap(), piece);
    }
}

#[test]
fn statistics_of_chorales() {
    let Some(chorales) = voices() else { return };
    let classes = |pieces: &[VoiceGrid]| {
        let pitches = pieces
            .iter()
            .flat_map(|piece| piece.steps.iter().flatten().flatten());
        pitch_classes(pitches.copied())
    };
    let distance = pitch_class_distance(&classes(&chorales.train), &classes(&chorales.test));
    let found = parallels(&chorales.train);
    let [fifths, octaves] = found.per_100();
    let held = repeats(&chorales.test);
    println!("pitch classes {distance:.3} apart; per 100 changes {fifths:.2} fifths, {octaves:.2}");
    assert!(distance < 0.1);
    // Counted by a program that shares no code with this one. Bach avoids both.
    assert_eq!(
        (found.changes, found.fifths, found.octaves),
        (19_626, 31, 27)
    );
    // Three quarters of all sixteenths are held.
    assert!((held - 0.77).abs() < 0.01, "{held}");

    let index = CopyIndex::new(&chorales.train);
    let own = index.longest(&chorales.train[5]);
    assert_eq!(own.len, chorales.train[5].steps.len());
    let higher = chorales.train[5].transposed(2).unwrap();
    let moved = index.longest_transposed(&higher);
    assert_eq!((moved.len, moved.semitones), (own.len, 2));
}

/// The files of a gzipped tar archive whose names `wanted` selects, written to a directory.
fn unpack(archive: &Path, wanted: impl Fn(&Path) -> bool, to: &Path) {
    let mut bytes = vec![];
    let file = std::fs::File::open(archive).unwrap();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    let mut rest = &bytes[..];
    while rest.len() >= 512 && rest[0] != 0 {
        let text = |range: std::ops::Range<usize>| {
            let field = rest[range].split(|byte| *byte == 0).next().unwrap();
            String::from_utf8(field.to_vec()).unwrap()
        };
        let name = PathBuf::from(text(0..100));
        let len = usize::from_str_radix(text(124..136).trim(), 8).unwrap();
        if wanted(&name) {
            let to = to.join(name.file_name().unwrap());
            std::fs::write(to, &rest[512..512 + len]).unwrap();
        }
        rest = &rest[512 + len.next_multiple_of(512)..];
    }
}

#[test]
fn spoken_digits_are_read_by_name() {
    let Some(folder) = folder_from("AIGC_DATA") else {
        return;
    };
    let is_test = |path: &Path| digit_of_name(path).is_some_and(|name| name.is_test());
    let dir = tempfile::tempdir().unwrap();
    unpack(&folder.join("fsdd/recordings.tar.gz"), is_test, dir.path());
    let config = WaveFolderConfig {
        sample_rate: Some(8000),
        length: Some(4000),
        ..WaveFolderConfig::default()
    };
    let digits = WaveFolder::open(dir.path(), config)
        .unwrap()
        .with_label(|path| digit_of_name(path).map(|name| u32::from(name.digit)))
        .unwrap();
    assert_eq!(digits.len(), 300);
    let sounds: Vec<_> = (0..300).map(|index| digits.get(index).unwrap()).collect();
    for digit in 0..10 {
        let count = sounds.iter().filter(|sound| sound.label == Some(digit));
        assert_eq!(count.count(), 30);
    }
    let batch = collate_sounds(sounds);
    assert_eq!(
        (batch.sample_shape().dims(), batch.sample_rate()),
        (&[1, 4000][..], 8000)
    );
    assert!(batch.lengths().iter().any(|len| *len < 4000));
    let one = digits
        .filter(|path| path.to_string_lossy().contains("_theo_"))
        .unwrap();
    assert_eq!(one.len(), 50);
}
