//! Records in small files of each format, whole, edited, cut and hostile.

use super::*;
use crate::rng::Rng;
use flate2::{Compression, Crc, write::ZlibEncoder};
use std::io::Write;

mod formats;

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    let length = (data.len() as u32).to_be_bytes();
    [&length, kind.as_slice(), data, &crc.sum().to_be_bytes()].concat()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(vec![], Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Two grey pixels.
fn png() -> Vec<u8> {
    [
        png::SIGNATURE.to_vec(),
        chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 1, 8, 0, 0, 0, 0]),
        chunk(b"IDAT", &zlib(&[0, 10, 200])),
        chunk(b"IEND", &[]),
    ]
    .concat()
}

/// Three samples of 8 bits: the data are padded.
fn wav() -> Vec<u8> {
    let format = [1, 0, 1, 0, 64, 31, 0, 0, 64, 31, 0, 0, 1, 0, 8, 0];
    let chunks = [
        b"fmt \x10\0\0\0".as_slice(),
        &format,
        b"data\x03\0\0\0\x80\x90\x70\0",
    ]
    .concat();
    let size = (4 + chunks.len() as u32).to_le_bytes();
    [b"RIFF", size.as_slice(), b"WAVE", &chunks].concat()
}

/// A pixel with colours of its own, after a comment.
fn gif() -> Vec<u8> {
    [
        b"GIF87a\x01\0\x01\0\x80\0\0".as_slice(),
        &[0, 0, 0, 255, 255, 255],
        b"\x21\xfe\x02hi\0",
        b"\x21\xf9\x04\0\x08\0\0\0",
        b"\x2c\0\0\0\0\x01\0\x01\0\x80\x01\x02\x03\x04\x05\x06\x02\x02\x44\x01\0",
        b"\x3b",
    ]
    .concat()
}

fn provenance() -> Provenance {
    Provenance::new("tiny")
        .with_seed(7)
        .with_class(3)
        .with_setting("steps", 20)
}

/// More than a sub-block of a GIF, and not in ASCII.
fn long() -> Provenance {
    provenance().with_prompt("猫 é ".repeat(99))
}

fn files() -> [Vec<u8>; 3] {
    [png(), wav(), gif()]
}

#[test]
fn records_read_back_and_are_replaced() {
    for file in files() {
        assert_eq!(verify(&file).unwrap(), Verification::Missing);
        let with = embed(&file, &long()).unwrap();
        assert_eq!(verify(&with).unwrap(), Verification::Valid(long()));
        // Nothing is left of the record before.
        let again = embed(&with, &provenance()).unwrap();
        assert_eq!(again, embed(&file, &provenance()).unwrap());
        assert_eq!(verify(&again).unwrap().valid(), Some(&provenance()));
    }
}

#[test]
fn records_do_not_move_between_files() {
    for (file, value) in files().into_iter().zip([200, 0x70, 0x44]) {
        let with = embed(&file, &provenance()).unwrap();
        // A file with another content, and the record of this one.
        let at = match file[0] {
            b'R' | b'G' => with.iter().position(|byte| *byte == value),
            _ => None,
        };
        let other = match at {
            Some(at) => {
                let mut other = with.clone();
                other[at] ^= 1;
                other
            }
            None => {
                let record = &with[33..with.len() - file.len() + 33];
                let data = chunk(b"IDAT", &zlib(&[0, 10, 201]));
                [&png()[..33], record, &data, &chunk(b"IEND", &[])].concat()
            }
        };
        let found = verify(&other).unwrap();
        assert_eq!(found, Verification::ContentChanged(provenance()));
        assert_eq!(found.valid(), None);
    }
}

/// The comment for people of a WAV file, a list that begins at a byte.
fn comment(wav: &[u8], at: usize) -> Range<usize> {
    assert_eq!(&wav[at..at + 4], b"LIST");
    let length = u32::from_le_bytes(wav[at + 4..at + 8].try_into().unwrap());
    at..at + 8 + length as usize
}

#[test]
fn every_changed_byte_of_a_record_is_reported() {
    for file in files() {
        for provenance in [provenance(), long()] {
            let with = embed(&file, &provenance).unwrap();
            let scan = Format::of(&with).unwrap().scan(&with).unwrap();
            let mut range = scan.records[0].range.clone();
            if file[0] == b'R' {
                // The comment for people is no part of the record.
                range.start = comment(&with, range.start).end;
            }
            // What has another name is no record. A name in a PNG file has a checksum.
            let name = match file[0] {
                b'R' => range.start..range.start + 4,
                // The kind of the extension, the length of the name, the name.
                b'G' => range.start + 1..range.start + 14,
                _ => 0..0,
            };
            for at in range {
                for bit in 0..8 {
                    let mut changed = with.clone();
                    changed[at] ^= 1 << bit;
                    match verify(&changed).unwrap() {
                        Verification::RecordChanged { .. }
                        | Verification::ContentChanged(_)
                        | Verification::Damaged(_) => {}
                        Verification::Missing if name.contains(&at) => {}
                        found => panic!("{at} {bit}: {found}"),
                    }
                }
            }
        }
    }
}

/// Also when the checksum fits: who changes a chunk can compute it anew.
#[test]
fn forged_chunks_of_png_are_reported() {
    for provenance in [provenance(), long()] {
        let with = embed(&png(), &provenance).unwrap();
        let range = Format::Png.scan(&with).unwrap().records[0].range.clone();
        let data = with[range.start + 8..range.end - 4].to_vec();
        let kind: [u8; 4] = with[range.start + 4..range.start + 8].try_into().unwrap();
        for at in 0..data.len() {
            for bit in 0..8 {
                let mut data = data.clone();
                data[at] ^= 1 << bit;
                let forged = [&png()[..33], &chunk(&kind, &data), &png()[33..]].concat();
                let found = verify(&forged).unwrap();
                let is_keyword = at <= png::KEYWORD.len();
                assert!(
                    matches!(found, Verification::RecordChanged { .. })
                        || (is_keyword && found == Verification::Missing),
                    "{at} {bit}: {found}"
                );
            }
        }
    }
}

#[test]
fn cut_and_lengthened_files_are_damaged() {
    for file in files() {
        let with = embed(&file, &provenance()).unwrap();
        for length in 0..with.len() {
            match verify(&with[..length]) {
                Ok(Verification::Damaged(_)) => {}
                Err(Error::InvalidArgument { .. }) if length < 12 => {}
                other => panic!("{length}: {other:?}"),
            }
        }
        let longer = [&with[..], b"\0\0"].concat();
        let found = verify(&longer).unwrap();
        let expected = with.len() as u64;
        assert_eq!(
            found,
            Verification::Damaged(DataFault::Oversized { expected })
        );
        let error = embed(&longer, &provenance()).unwrap_err().to_string();
        assert!(error.contains("an intact"), "{error}");
    }
}

/// No bit of a file, and no random bytes, make it panic. With a changed bit a file is valid only
/// where the bit says nothing of the content: in the padding of sound, and in comments.
#[test]
fn hostile_files_are_reported() {
    let mut rng = Rng::new(1);
    for file in files() {
        let with = embed(&file, &provenance()).unwrap();
        let content: usize = file.len() / 2;
        let (padding, text) = match file[0] {
            b'R' => {
                let list = comment(&with, file.len());
                // Behind `LIST`, its length and `INFO`.
                (file.len() - 1..file.len(), list.start + 12..list.end)
            }
            b'G' => (0..0, 22..24),
            _ => (0..0, 0..0),
        };
        for at in 0..with.len() {
            let may_change = padding.contains(&at) || text.contains(&at);
            for bit in 0..8 {
                let mut changed = with.clone();
                changed[at] ^= 1 << bit;
                let found = verify(&changed);
                let is_valid = found.as_ref().is_ok_and(|found| found.valid().is_some());
                assert_eq!(is_valid, may_change, "{at} {bit}: {found:?}");
            }
            let mut changed = with.clone();
            changed[at] ^= 1 << (at % 8);
            let _ = embed(&changed, &provenance());
        }
        for _ in 0..500 {
            let mut changed = with.clone();
            for _ in 0..1 + rng.random_index(8) {
                let at = rng.random_index(changed.len());
                changed[at] = rng.next_u64() as u8;
            }
            let _ = verify(&changed);
            let start = rng.random_index(content);
            changed.drain(start..start + rng.random_index(content));
            let _ = verify(&changed);
        }
    }
}

#[test]
fn several_records_are_reported() {
    let record = |file: &[u8]| {
        let with = embed(file, &provenance()).unwrap();
        let range = Format::of(&with).unwrap().scan(&with).unwrap().records[0]
            .range
            .clone();
        (with[range.clone()].to_vec(), with, range.start)
    };
    for file in files() {
        let (bytes, mut with, at) = record(&file);
        for count in 2..=MAX_RECORDS + 1 {
            with.splice(at..at, bytes.iter().copied());
            if file[0] == b'R' {
                let size = with.len() as u32 - 8;
                with[4..8].copy_from_slice(&size.to_le_bytes());
            }
            let found = verify(&with).unwrap();
            if count <= MAX_RECORDS {
                assert_eq!(found, Verification::Several(count));
            } else {
                assert!(matches!(found, Verification::Damaged(_)));
            }
        }
    }
}

/// A WAV file with a record, and an empty list behind it.
fn with_list(of: &[u8; 4]) -> Vec<u8> {
    let mut with = embed(&wav(), &provenance()).unwrap();
    with.extend(b"LIST\x04\0\0\0");
    with.extend(of);
    let size = with.len() as u32 - 8;
    with[4..8].copy_from_slice(&size.to_le_bytes());
    with
}

/// Metadata of other programs may come and go.
#[test]
fn metadata_is_no_content() {
    let mut with = embed(&png(), &provenance()).unwrap();
    png::insert_texts(&mut with, &[("Title", "猫"), ("Author", "x")]).unwrap();
    let credentials = chunk(b"caBX", b"any");
    with.splice(33..33, credentials);
    assert!(verify(&with).unwrap().valid().is_some());
    let title = png::read_texts(&with, &["Title", "none"]).unwrap();
    assert_eq!(title, [("Title".to_owned(), "猫".to_owned())]);

    for list in [b"INFO", b"adtl"] {
        let with = with_list(list);
        assert!(verify(&with).unwrap().valid().is_some());
    }

    let mut with = embed(&gif(), &provenance()).unwrap();
    with.pop();
    with.extend(b"\x21\xfe\x03new\0\x21\xff\x0bXMP DataXMP<x/>");
    // The end of XMP: a byte of each value, each the length of what follows.
    with.extend([1].into_iter().chain((0..=255).rev()).chain([0, 0x3b]));
    let found = verify(&with).unwrap();
    assert!(found.valid().is_some(), "{found}");
}

#[test]
fn comments_for_people_stand_before_records() {
    let with = embed(&wav(), &provenance()).unwrap();
    let text = "AI-generated by aigc ";
    let at = with.windows(text.len()).position(|w| w == text.as_bytes());
    // Behind the header, the two chunks, the heads of the list and of the comment.
    assert_eq!(at, Some(wav().len() + 20));
    assert_eq!(with.len() % 2, 0);
    // A padding that the last chunk lacks is added.
    let mut bare = wav();
    bare.pop();
    bare[4] -= 1;
    assert_eq!(embed(&bare, &provenance()).unwrap(), with);
    // So is one that is there and not counted, also behind a record.
    let padded = |prompt| embed(&wav(), &provenance().with_prompt(prompt)).unwrap();
    let is_padded = |file: &Vec<u8>| file.ends_with(b"\0");
    let mut uncounted = ["x", "xy"].map(padded).into_iter().find(is_padded).unwrap();
    let size = uncounted.len() as u32 - 9;
    uncounted[4..8].copy_from_slice(&size.to_le_bytes());
    assert!(verify(&uncounted).unwrap().valid().is_some());
    assert_eq!(embed(&uncounted, &provenance()).unwrap(), with);
}

#[test]
fn other_formats_are_errors() {
    let mut rf64 = wav();
    rf64[..4].copy_from_slice(b"RF64");
    let message = verify(&rf64).unwrap_err().to_string();
    assert!(message.contains("RF64"), "{message}");
    let message = embed(b"\xff\xd8\xff\xe0", &provenance()).unwrap_err();
    let message = message.to_string();
    assert!(message.contains("a PNG, WAV or GIF file"), "{message}");
    assert!(verify(&[]).is_err());
    for keyword in ["", "\u{e9}", &"k".repeat(80)] {
        let texts = [(keyword, "")];
        assert!(png::insert_texts(&mut png(), &texts).is_err());
    }
    assert!(png::insert_texts(&mut png(), &[("k", "\0")]).is_err());
    assert!(png::insert_texts(&mut vec![1, 2], &[("k", "")]).is_err());
}

#[test]
fn records_of_newer_versions_are_unsupported() {
    let with = embed(&png(), &provenance()).unwrap();
    let (_, text) = png::read_texts(&with, &[png::KEYWORD]).unwrap().remove(0);
    let newer = text.replace("\"version\":1", "\"version\":2");
    // As a newer version would write it.
    let (head, rest) = newer.split_once(",\"record_hash\":\"").unwrap();
    let bare = format!("{head}{}", &rest[72..]);
    let hash = record::sha256([bare.as_bytes()]);
    let newer = format!("{head},\"record_hash\":\"{hash}{}", &rest[71..]);
    let mut file = png();
    png::insert_texts(&mut file, &[(png::KEYWORD, &newer)]).unwrap();
    let message = verify(&file).unwrap_err().to_string();
    assert!(message.contains("version 2"), "{message}");
}

#[test]
fn files_are_saved_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound.wav");
    save_with_provenance(&wav(), &provenance(), &path).unwrap();
    let found = verify_file(&path).unwrap();
    assert_eq!(
        found.to_string(),
        format!(
            "valid: made by aigc {} with model tiny",
            env!("CARGO_PKG_VERSION")
        )
    );
    std::fs::write(&path, "text").unwrap();
    let message = verify_file(&path).unwrap_err().to_string();
    assert!(
        message.contains("sound.wav") && message.contains("expected a PNG, WAV or GIF file"),
        "{message}"
    );
    assert!(verify_file(folder.path().join("none")).is_err());
    // A file without blocks on the disk, and nothing of it is read.
    let large = std::fs::File::create(&path).unwrap();
    large.set_len(MAX_BYTES + 1).unwrap();
    let message = verify_file(&path).unwrap_err().to_string();
    assert!(message.contains("larger than the 4294967296"), "{message}");
}
