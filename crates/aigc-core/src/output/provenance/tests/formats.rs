//! Unusual files of each format: without content, of several parts, with long texts.

use super::*;

/// A record would be that of nothing.
#[test]
fn files_without_content_are_damaged() {
    let headers = [
        png()[..33].to_vec(),
        b"RIFF\x04\0\0\0WAVE".to_vec(),
        gif()[..19].to_vec(),
    ];
    let ends = [chunk(b"IEND", &[]), vec![], vec![0x3b]];
    let reasons = ["no chunk `IDAT`", "no chunk `fmt `", "no image"];
    for ((header, end), reason) in headers.into_iter().zip(ends).zip(reasons) {
        let empty = [header, end].concat();
        let found = verify(&empty).unwrap();
        assert!(matches!(found, Verification::Damaged(_)), "{found}");
        assert!(found.to_string().contains(reason), "{found}");
        let error = embed(&empty, &provenance()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// Several parts of data, 16 bits, interlaced, and frames of an animation: the record is that of
/// every part.
#[test]
fn pngs_of_every_kind_have_records() {
    let data = zlib(&[0; 64]);
    let (first, second) = data.split_at(5);
    let control = [
        0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9, 0, 0,
    ];
    let frame = [b"\0\0\0\x01", data.as_slice()].concat();
    let file = |frame: &[u8]| {
        [
            png::SIGNATURE.to_vec(),
            chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 2, 16, 2, 0, 0, 1]),
            chunk(b"acTL", &[0, 0, 0, 1, 0, 0, 0, 0]),
            chunk(b"IDAT", first),
            chunk(b"IDAT", second),
            chunk(b"fcTL", &control),
            chunk(b"fdAT", frame),
            chunk(b"IEND", &[]),
        ]
        .concat()
    };
    let with = embed(&file(&frame), &provenance()).unwrap();
    assert_eq!(verify(&with).unwrap(), Verification::Valid(provenance()));
    // The record before another frame.
    let record = &with[33..with.len() - file(&frame).len() + 33];
    let other = file(&[frame.as_slice(), &[0]].concat());
    let moved = [&other[..33], record, &other[33..]].concat();
    let found = verify(&moved).unwrap();
    assert_eq!(found, Verification::ContentChanged(provenance()));
}

/// WAVE_FORMAT_EXTENSIBLE, and a chunk of odd length before the data.
#[test]
fn extensible_wavs_have_records() {
    let mut chunks = b"fmt \x28\0\0\0\xfe\xff\x01\0\x40\x1f\0\0".to_vec();
    chunks.extend(b"\x80\x3e\0\0\x02\0\x10\0\x16\0\x10\0\x04\0\0\0");
    chunks.extend(b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
    chunks.extend(b"fact\x04\0\0\0\x02\0\0\0odd \x01\0\0\0x\0");
    chunks.extend(b"data\x04\0\0\0\x01\x02\x03\x04");
    let size = (4 + chunks.len() as u32).to_le_bytes();
    let file = [b"RIFF", size.as_slice(), b"WAVE", &chunks].concat();
    let with = embed(&file, &long()).unwrap();
    assert_eq!(verify(&with).unwrap(), Verification::Valid(long()));
    let mut changed = with.clone();
    let at = with.windows(4).position(|four| four == b"odd ").unwrap();
    changed[at + 8] ^= 1;
    let found = verify(&changed).unwrap();
    assert_eq!(found, Verification::ContentChanged(long()));
}

#[test]
fn long_texts_of_png_are_refused() {
    let long = "y".repeat(record::MAX_TEXT + 1);
    let message = png::insert_texts(&mut png(), &[("k", &long)]).unwrap_err();
    assert!(message.to_string().contains("at most"), "{message}");
    for (kind, head) in [(b"tEXt", b"\0".as_slice()), (b"iTXt", b"\0\0\0\0\0")] {
        let data = [png::KEYWORD.as_bytes(), head, long.as_bytes()].concat();
        let file = [&png()[..33], &chunk(kind, &data), &png()[33..]].concat();
        let found = verify(&file).unwrap().to_string();
        assert!(found.contains("the record was changed: it has"), "{found}");
        assert!(png::read_texts(&file, &[png::KEYWORD]).is_err());
    }
}

#[test]
fn compressed_texts_of_png_are_read_up_to_a_limit() {
    let with = embed(&png(), &provenance()).unwrap();
    let text = png::read_texts(&with, &[png::KEYWORD]).unwrap();
    let text = text[0].1.as_bytes();
    let file = |kind: &[u8; 4], head: &[u8], data: &[u8]| {
        let data = [png::KEYWORD.as_bytes(), head, data].concat();
        [&png()[..33], &chunk(kind, &data), &png()[33..]].concat()
    };
    for (kind, head) in [(b"zTXt", b"\0\0".as_slice()), (b"iTXt", b"\0\x01\0en\0k\0")] {
        let packed = file(kind, head, &zlib(text));
        let found = verify(&packed).unwrap();
        assert_eq!(found, Verification::Valid(provenance()));
        let bomb = file(kind, head, &zlib(&vec![b' '; record::MAX_TEXT + 1]));
        let found = verify(&bomb).unwrap().to_string();
        assert!(found.contains("unpacks to more than"), "{found}");
        assert!(png::read_texts(&bomb, &[png::KEYWORD]).is_err());
        let broken = file(kind, head, &zlib(text)[..20]);
        let found = verify(&broken).unwrap();
        assert!(matches!(found, Verification::RecordChanged { .. }));
    }
}

/// What turns a picture, and lists with sound.
#[test]
fn other_chunks_are_content() {
    let mut turned = embed(&png(), &provenance()).unwrap();
    // Orientation 6: to be turned by a quarter.
    let tag = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    turned.splice(33..33, chunk(b"eXIf", tag));
    for changed in [turned, with_list(b"wavl")] {
        let found = verify(&changed).unwrap();
        assert_eq!(found, Verification::ContentChanged(provenance()));
    }
}
