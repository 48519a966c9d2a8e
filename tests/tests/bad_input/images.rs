//! Images, and directories of images.

use aigc_core::data::{
    DataLoader, DataLoaderConfig, Dataset, ImageShape, OnReadError, collate_images,
    folder::{ImageFolder, ImageFolderConfig},
};
use flate2::Compression;
use std::io::Write;

/// A PNG whose header announces this size and whose content is `bytes`.
fn png(width: u32, height: u32, bytes: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", bytes), (b"IEND", &[])] {
        file.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        file.extend(body);
        file.extend(crc.sum().to_be_bytes());
    }
    file
}

fn good_png() -> Vec<u8> {
    // Two rows of two RGB pixels, each row after its filter byte.
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(&[0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12])
        .unwrap();
    png(2, 2, &encoder.finish().unwrap())
}

fn image_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("nothing.png", vec![], "cannot be decoded"),
        ("text.png", b"not a picture".to_vec(), "cannot be decoded"),
        ("text.jpg", b"not a picture".to_vec(), "cannot be decoded"),
        (
            "jpeg-start-only.jpg",
            b"\xff\xd8\xff\xe0".to_vec(),
            "cannot be decoded",
        ),
        ("cut.png", good_png()[..50].to_vec(), "cannot be decoded"),
        ("no-pixels.png", png(2, 2, &[]), "cannot be decoded"),
        (
            "announces-16-giga-pixels.png",
            png(131_072, 131_072, &[0; 64]),
            "cannot be decoded",
        ),
        (
            "announces-400-mega-pixels.png",
            png(20_000, 20_000, &[0; 64]),
            "cannot be decoded",
        ),
        (
            "gif-start-only.gif",
            b"GIF89a".to_vec(),
            "cannot be decoded",
        ),
        (
            "bmp-start-only.bmp",
            b"BM\0\0\0\0".to_vec(),
            "cannot be decoded",
        ),
        (
            "webp-start-only.webp",
            b"RIFF\xff\xff\xff\x7fWEBPVP8 ".to_vec(),
            "cannot be decoded",
        ),
    ]
}

#[test]
fn broken_images_are_errors() {
    let config = ImageFolderConfig::new(ImageShape::new(3, 2, 2));
    for (name, content, expected) in image_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        let images = ImageFolder::open(folder.path(), config.clone()).unwrap();
        let error = images.get(0).expect_err(name).to_string();
        assert!(
            error.contains(expected) && error.contains(name),
            "{name}: {error}"
        );
    }
}

/// A picture one pixel wide and a million high: a few kilobytes whose decoding is a few megabytes.
/// Scaled whole to 32 columns it would be gigabytes.
#[test]
#[cfg(target_os = "linux")]
fn tall_images_use_little_memory() {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 4 * 1_000_000]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("tall.png"),
        png(1, 1_000_000, &encoder.finish().unwrap()),
    )
    .unwrap();
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            / 1024
    };
    let before = peak();
    for channels in [1, 3] {
        let config = ImageFolderConfig::new(ImageShape::new(channels, 32, 32));
        let image = ImageFolder::open(folder.path(), config)
            .unwrap()
            .get(0)
            .unwrap();
        assert_eq!(image.pixels.len(), channels * 32 * 32);
    }
    assert!(peak() - before < 200, "{} MiB more", peak() - before);
}

#[test]
fn unreadable_images_fail_or_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..6 {
        std::fs::write(folder.path().join(format!("{i}.png")), good_png()).unwrap();
    }
    std::fs::write(folder.path().join("2.png"), b"broken").unwrap();
    let load = |on_read_error| {
        let images = ImageFolder::open(
            folder.path(),
            ImageFolderConfig::new(ImageShape::new(3, 2, 2)),
        )
        .unwrap();
        let config = DataLoaderConfig {
            batch_size: 6,
            on_read_error,
            ..DataLoaderConfig::default()
        };
        DataLoader::new(images, collate_images, config).unwrap()
    };
    let fatal = load(OnReadError::Fail)
        .iter_from(0)
        .next_batch()
        .unwrap_err()
        .to_string();
    assert!(fatal.contains("2.png"), "{fatal}");
    let skipping = load(OnReadError::Skip);
    assert_eq!(skipping.iter_from(0).next_batch().unwrap().len(), 6);
    assert!(matches!(&skipping.skipped()[..], [one] if one.contains("2.png")));
}

#[test]
fn empty_directories_and_invalid_shapes_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "hello").unwrap();
    let open = |shape, labels| {
        let config = ImageFolderConfig {
            class_labels: labels,
            ..ImageFolderConfig::new(shape)
        };
        ImageFolder::open(folder.path(), config)
            .unwrap_err()
            .to_string()
    };
    assert!(open(ImageShape::new(1, 8, 8), false).contains("no image in it"));
    assert!(open(ImageShape::new(1, 8, 8), true).contains("no image in any subdirectory"));
    assert_eq!(
        open(ImageShape::new(2, 8, 8), false),
        "config field `shape.channels` is 2, expected 1 (grey) or 3 (RGB)"
    );
    assert!(open(ImageShape::new(1, 0, 8), false).contains("`shape.height` is 0"));
    let nowhere = ImageFolder::open(&folder.path().join("nowhere"), ImageFolderConfig::default())
        .unwrap_err();
    assert!(nowhere.to_string().contains("nowhere"), "{nowhere}");
}
