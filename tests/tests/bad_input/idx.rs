//! Files in the format of MNIST.

use aigc_core::data::{
    Dataset,
    idx::{IdxArray, MnistDataset},
};
use flate2::{Compression, write::GzEncoder};
use std::io::Write;

fn idx(magic: [u8; 4], sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let sizes = sizes.iter().flat_map(|s| s.to_be_bytes());
    magic
        .into_iter()
        .chain(sizes)
        .chain(bytes.iter().copied())
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const IMAGES: [u8; 4] = [0, 0, 8, 3];
const LABELS: [u8; 4] = [0, 0, 8, 1];

/// Name, content, and what the error says.
fn idx_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = idx(IMAGES, &[2, 2, 2], &[7; 8]);
    let mut flipped = gzip(&good);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let mut bad_checksum = gzip(&good);
    let at = bad_checksum.len() - 8;
    bad_checksum[at] ^= 1;
    vec![
        ("nothing", vec![], "truncated"),
        ("two bytes", vec![0, 0], "truncated"),
        ("magic only", IMAGES.to_vec(), "truncated"),
        ("half a size", idx(IMAGES, &[2], &[0, 0]), "truncated"),
        (
            "fewer bytes than announced",
            idx(IMAGES, &[2, 2, 2], &[7; 7]),
            "truncated: 24 bytes expected, 23 found",
        ),
        (
            "more bytes than announced",
            idx(IMAGES, &[2, 2, 2], &[7; 9]),
            "oversized: more than the 24 bytes",
        ),
        (
            "text",
            b"hello, world, this is no IDX file".to_vec(),
            "wrong magic number 0x68656c6c",
        ),
        (
            "a PNG",
            b"\x89PNG\r\n\x1a\n0000000000000000".to_vec(),
            "wrong magic number 0x89504e47",
        ),
        (
            "floats instead of bytes",
            idx([0, 0, 0x0d, 3], &[1, 1, 1], &[0; 4]),
            "wrong magic number 0x00000d03",
        ),
        (
            "no axes",
            idx([0, 0, 8, 0], &[], &[1]),
            "wrong magic number 0x00000800",
        ),
        (
            "200 axes",
            idx([0, 0, 8, 200], &[1; 200], &[1]),
            "wrong magic number 0x000008c8",
        ),
        (
            "four thousand million images",
            idx(IMAGES, &[u32::MAX, 28, 28], &[7; 8]),
            "truncated",
        ),
        (
            "sizes whose product overflows",
            idx([0, 0, 8, 4], &[u32::MAX; 4], &[7; 8]),
            "more than a machine can hold",
        ),
        (
            "gzip that lies in its header",
            gzip(&idx(IMAGES, &[60_000, 28, 28], &[7; 8])),
            "47040016 bytes cannot be compressed to",
        ),
        (
            "gzip with more than announced",
            gzip(&idx(IMAGES, &[2, 2, 2], &[7; 4096])),
            "oversized",
        ),
        (
            "gzip cut off",
            gzip(&good)[..20].to_vec(),
            "cannot be decoded",
        ),
        ("gzip with a flipped byte", flipped, ""),
        (
            "gzip with a wrong checksum",
            bad_checksum,
            "cannot be decoded",
        ),
        ("gzip of nothing", gzip(&[]), "truncated"),
        (
            "gzip with something behind it",
            [gzip(&good), b"and more".to_vec()].concat(),
            "cannot be decoded",
        ),
        (
            "images of one axis",
            idx(LABELS, &[3], &[7; 3]),
            "images have 3 or 4 axes, these have 1",
        ),
        (
            "no images",
            idx(IMAGES, &[0, 28, 28], &[]),
            "it holds no image",
        ),
        (
            "images without pixels",
            idx(IMAGES, &[5, 0, 28], &[]),
            "it holds no image",
        ),
    ]
}

#[test]
fn broken_idx_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, expected) in idx_files() {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = MnistDataset::from_files(&path, None)
            .expect_err(name)
            .to_string();
        assert!(
            error.contains(expected) && error.contains(name),
            "{name}: {error}"
        );
    }
    let images = folder.path().join("good");
    std::fs::write(&images, idx(IMAGES, &[2, 2, 2], &[7; 8])).unwrap();
    for (name, labels, expected) in [
        (
            "three labels",
            idx(LABELS, &[3], &[1; 3]),
            "[3] labels for 2 images",
        ),
        (
            "labels of two axes",
            idx([0, 0, 8, 2], &[2, 1], &[1; 2]),
            "[2, 1] labels for 2 images",
        ),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, labels).unwrap();
        let error = MnistDataset::from_files(&images, Some(&path))
            .expect_err(name)
            .to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    assert_eq!(MnistDataset::from_files(&images, None).unwrap().len(), 2);
    let missing = MnistDataset::from_dir(folder.path(), aigc_core::data::idx::Split::Train)
        .unwrap_err()
        .to_string();
    assert!(missing.contains("no train-images-idx3-ubyte"), "{missing}");
}

/// Any prefix of a good file, and any byte changed, gives an error or a valid reading, never a
/// panic.
#[test]
fn altered_idx_files_never_panic() {
    let good = idx(IMAGES, &[3, 2, 2], &[9; 12]);
    for file in [good.clone(), gzip(&good)] {
        for end in 0..file.len() {
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), &file[..end]).unwrap();
            assert!(
                IdxArray::read(path.path()).is_err(),
                "{end} of {} bytes are read",
                file.len()
            );
        }
        for at in 0..file.len() {
            for flip in [1, 0x80, 0xff] {
                let mut altered = file.clone();
                altered[at] ^= flip;
                let path = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(path.path(), &altered).unwrap();
                if let Ok(read) = IdxArray::read(path.path()) {
                    assert_eq!(read.bytes.len(), read.shape.iter().product::<usize>());
                }
            }
        }
    }
}
