//! MP4 files, read box by box.

mod boxes;
mod sequence;

use aigc_core::{
    device::device,
    output::{ImageGrid, Mp4Config, VideoFormat, VideoWriter, provenance::Provenance, save_video},
};
use boxes::{boxes, find, long, short, word, words};
use burn::tensor::{Tensor, TensorData};
use sequence::{Sequence, units};
use std::path::Path;

/// Frames without margin or magnification.
fn grid() -> ImageGrid {
    ImageGrid {
        padding: 0,
        scale: 1,
        ..ImageGrid::new(1, 64)
    }
}

/// A colour clip of noise: `[1, 3, frames, height, width]`.
fn noise(frames: usize, height: usize, width: usize) -> Tensor<5> {
    let mut state = 1u32;
    let values: Vec<f32> = (0..3 * frames * height * width)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as f32 / 255.0
        })
        .collect();
    let dims = [1, 3, frames, height, width];
    Tensor::from_data(TensorData::new(values, dims), &device("flex").unwrap())
}

/// The fastest settings.
fn fast(quantizer: u8) -> VideoFormat {
    VideoFormat::Mp4(Mp4Config {
        quantizer,
        speed: 10,
    })
}

fn written(clip: &Tensor<5>, format: VideoFormat, fps: f64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let mut video = VideoWriter::create_as(format, &path, grid(), fps).unwrap();
    video.push_clips(clip).unwrap();
    video.finish().unwrap();
    std::fs::read(&path).unwrap()
}

/// A box of the file's only track.
fn of_track<'a>(file: &'a [u8], path: &[&str]) -> &'a [u8] {
    path.iter()
        .fold(find(find(file, "moov"), "trak"), |content, kind| {
            find(content, kind)
        })
}

fn of_samples<'a>(file: &'a [u8], kind: &str) -> &'a [u8] {
    find(of_track(file, &["mdia", "minf", "stbl"]), kind)
}

/// The boxes of the description of frames, and what is before them.
fn description(file: &[u8]) -> (&[u8], &[u8]) {
    let entries = of_samples(file, "stsd");
    assert_eq!(word(entries, 4), 1);
    find(&entries[8..], "av01").split_at(78)
}

/// Bytes of all samples.
fn samples(file: &[u8]) -> Vec<&[u8]> {
    let sizes = of_samples(file, "stsz");
    assert_eq!(word(sizes, 4), 0);
    let places = of_samples(file, "stco");
    assert_eq!(word(places, 4), 1);
    let mut rest = &file[word(places, 8) as usize..];
    words(&sizes[12..])
        .map(|size| {
            let (sample, behind) = rest.split_at(size as usize);
            rest = behind;
            sample
        })
        .collect()
}

#[test]
fn tables_lead_to_all_frames() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    save_video(&noise(12, 32, 48), grid(), 29.97, &path).unwrap();
    let file = std::fs::read(&path).unwrap();
    let kinds: Vec<String> = boxes(&file).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["ftyp", "mdat", "moov"]);
    let brands = find(&file, "ftyp");
    assert!(brands[8..].chunks(4).any(|brand| brand == b"av01"));

    let found = samples(&file);
    assert_eq!(found.len(), 12);
    let data = find(&file, "mdat");
    assert_eq!(found.concat(), data);
    assert_eq!(word(of_samples(&file, "stsz"), 8), 12);
    assert_eq!(of_samples(&file, "stsc")[4..], bytes(&[1, 1, 12, 1]));

    // 12 frames of 1001/30000 seconds.
    assert_eq!(of_samples(&file, "stts")[4..], bytes(&[1, 12, 1001]));
    let media = of_track(&file, &["mdia", "mdhd"]);
    assert_eq!((word(media, 20), long(media, 24)), (30_000, 12 * 1001));
    let movie = find(find(&file, "moov"), "mvhd");
    assert_eq!((word(movie, 20), long(movie, 24)), (30_000, 12 * 1001));
    let track = of_track(&file, &["tkhd"]);
    assert_eq!(long(track, 28), 12 * 1001);
    assert_eq!((word(track, 88), word(track, 92)), (48 << 16, 32 << 16));
    assert_eq!(&of_track(&file, &["mdia", "hdlr"])[8..12], b"vide");
}

/// Key frames are those of the table, and describe the stream as the file does.
#[test]
fn stream_and_file_describe_the_same() {
    let file = written(&noise(12, 32, 48), fast(64), 25.0);
    let keys: Vec<u32> = words(&of_samples(&file, "stss")[8..]).collect();
    assert_eq!(keys[0], 1);
    let (before, parts) = description(&file);
    assert_eq!((short(before, 24), short(before, 26)), (48, 32));
    let decoder = find(parts, "av1C");
    let mut shown = 0;
    for (number, sample) in (1..).zip(samples(&file)) {
        let found = units(sample);
        // Temporal delimiters stay out of files.
        assert!(found.iter().all(|(kind, _)| *kind != 2));
        let sequence = found.iter().position(|(kind, _)| *kind == 1);
        assert_eq!(sequence, keys.contains(&number).then_some(0));
        if sequence.is_some() {
            assert_eq!(found[0].1, &decoder[4..]);
        }
        shown += usize::from(found.iter().any(|(kind, _)| matches!(kind, 3 | 6)));
    }
    assert_eq!(shown, 12);

    let sequence = Sequence::read(&decoder[4..]);
    assert_eq!((sequence.width, sequence.height), (48, 32));
    assert_eq!(decoder[0], 0x81);
    assert_eq!(decoder[1], (sequence.profile << 5) | sequence.level);
    let Sequence {
        tier,
        high_bit_depth,
        monochrome,
        chroma_position,
        ..
    } = sequence;
    // Both directions have half the colours.
    let flags = (tier << 7) | (high_bit_depth << 6) | (monochrome << 4) | 0b1100 | chroma_position;
    assert_eq!((decoder[2], decoder[3]), (flags, 0));
    let colours = find(parts, "colr");
    assert_eq!(&colours[..4], b"nclx");
    for (index, code) in sequence.colours.into_iter().enumerate() {
        assert_eq!(short(colours, 4 + 2 * index), u16::from(code));
    }
    assert_eq!(sequence.colours, [1, 13, 6]);
    assert_eq!((colours[10], sequence.full_range), (0, 0));
    assert_eq!(find(parts, "pasp"), bytes(&[1, 1]));
    assert!(boxes(parts).all(|(kind, _)| kind != "clap"));
}

#[test]
fn odd_sides_are_cropped() {
    let file = written(&noise(3, 17, 33), fast(128), 8.0);
    let (before, parts) = description(&file);
    assert_eq!((short(before, 24), short(before, 26)), (34, 18));
    let sequence = Sequence::read(&find(parts, "av1C")[4..]);
    assert_eq!((sequence.width, sequence.height), (34, 18));
    let half = [u32::MAX, 2];
    assert_eq!(
        find(parts, "clap"),
        bytes(&[33, 1, 17, 1, half[0], half[1], half[0], half[1]])
    );
    let track = of_track(&file, &["tkhd"]);
    assert_eq!((word(track, 88), word(track, 92)), (33 << 16, 17 << 16));

    let file = written(&noise(1, 16, 17), fast(128), 8.0);
    let aperture = find(description(&file).1, "clap");
    assert_eq!(aperture, bytes(&[17, 1, 16, 1, half[0], half[1], 0, 2]));
}

#[test]
fn every_frame_lasts_as_long_as_asked() {
    let clip = noise(2, 16, 16);
    for (fps, frames, seconds) in [
        (0.001, 1, 1000),
        (8.0, 8, 1),
        (12.5, 25, 2),
        (23.976, 24_000, 1001),
        (1000.0, 1000, 1),
    ] {
        let file = written(&clip, fast(200), fps);
        let timescale = u64::from(word(of_track(&file, &["mdia", "mdhd"]), 20));
        let times = of_samples(&file, "stts");
        assert_eq!((word(times, 4), word(times, 8)), (1, 2));
        let ticks = u64::from(word(times, 12));
        assert_eq!(ticks * frames, timescale * seconds, "{fps}");
        assert!(timescale >= 10_000);
    }
}

/// Frames are written while others come, more than the encoder looks ahead at.
#[test]
fn frames_are_written_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let mut video = VideoWriter::create_as(fast(1), &path, grid(), 25.0).unwrap();
    video.push_clips(&noise(60, 64, 64)).unwrap();
    let sizes = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len());
    let before: u64 = sizes.sum();
    assert!(before > 1 << 15, "{before}");
    assert!(!path.exists());
    video.finish().unwrap();
    let file = std::fs::read(&path).unwrap();
    assert!(file.len() as u64 > before);
    assert_eq!(samples(&file).len(), 60);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_finer_quantizer_makes_a_larger_file() {
    let clip = noise(4, 32, 32);
    let fine = written(&clip, fast(20), 8.0);
    assert!(fine.len() > written(&clip, fast(220), 8.0).len());
    // Nothing but the frames and the settings is in the file.
    assert!(written(&clip, fast(20), 8.0) == fine);
}

#[test]
fn bad_sizes_are_named_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let flex = device("flex").unwrap();
    let create = || VideoWriter::create(&path, grid(), 8.0).unwrap();
    for (height, width) in [(15, 32), (32, 15), (16, 16_385)] {
        let frame = Tensor::zeros([1, 1, height, width], &flex);
        let error = create().push(&frame).unwrap_err().to_string();
        let expected = format!("`frames` is {width}×{height}, expected 16 to 16384");
        assert!(error.contains(&expected), "{error}");
    }
    let mut video = create();
    video.push(&Tensor::zeros([1, 1, 16, 16], &flex)).unwrap();
    let other = video.push(&Tensor::zeros([1, 1, 16, 18], &flex));
    assert!(other.unwrap_err().to_string().contains("1×16×18"));
    drop(video);
    assert!(create().finish().is_err());
    let record = create().with_provenance(Provenance::new("x"));
    assert!(record.unwrap_err().to_string().contains("MP4"));
    assert!(VideoWriter::create(Path::new("clip.mp4"), grid(), 0.0).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
