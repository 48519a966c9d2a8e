//! Records of provenance in the files of other programs.

use aigc_core::output::{
    Animation, ImageGrid,
    provenance::{Provenance, Verification, embed, verify, verify_file},
    save_image_with_provenance,
};
use aigc_core::{DataFault, Error};
use aigc_tests::own_fixtures;
use burn::tensor::{Device, Tensor};
use image::ImageFormat;
use serde_json::json;
use std::{path::PathBuf, time::Duration};

const FILES: [&str; 4] = ["plain.png", "packed.png", "sound.wav", "animation.gif"];

fn path(name: &str) -> PathBuf {
    own_fixtures().join("eval/provenance").join(name)
}

/// `tests/reference/provenance.py`: hashed by the documentation alone, in Python.
fn recorded() -> Provenance {
    Provenance::new("by hand")
        .with_generator("reference 1.0")
        .with_seed(u64::MAX)
        .with_prompt("猫 \"é\"\n\u{1f}\\/")
        .with_setting("b", 0.1)
        .with_setting("a", json!([1, null, true]))
        .with_setting("c", json!([1e-5, 1e-4, 20.0, 1e16]))
}

#[test]
fn records_of_the_reference_are_valid() {
    for name in FILES {
        let found = verify_file(path(name)).unwrap();
        assert_eq!(found, Verification::Valid(recorded()), "{name}");
    }
}

/// A record of ours takes the place of theirs, and other programs read the picture as before.
#[test]
fn replaced_records_leave_the_content() {
    let other = Provenance::new("other").with_class(3);
    for name in FILES {
        let before = std::fs::read(path(name)).unwrap();
        let after = embed(&before, &other).unwrap();
        assert_eq!(verify(&after).unwrap().valid(), Some(&other), "{name}");
        // The reference's own record again, in our form: the same file.
        let again = embed(&after, &recorded()).unwrap();
        let found = verify(&again).unwrap();
        assert_eq!(found.valid(), Some(&recorded()), "{name}");
        if let Ok(format) = ImageFormat::from_path(path(name)) {
            let picture = |bytes| image::load_from_memory_with_format(bytes, format).unwrap();
            assert_eq!(picture(&before), picture(&after), "{name}");
        }
    }
    let gif = std::fs::read(path("animation.gif")).unwrap();
    assert_eq!(embed(&gif, &recorded()).unwrap(), gif);
}

/// A picture that is encoded again, with the record kept, is another content.
#[test]
fn transplanted_records_are_found() {
    let grid = ImageGrid::new(1, 4);
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let bytes = |value: f32| {
        let path = folder.path().join("image.png");
        let images = Tensor::<4>::full([1, 1, 4, 4], value, &device);
        save_image_with_provenance(&images, grid, &recorded(), &path).unwrap();
        std::fs::read(path).unwrap()
    };
    let (mut dark, bright) = (bytes(0.2), bytes(0.8));
    assert!(verify(&dark).unwrap().valid().is_some());
    // The record stands behind the header of 33 bytes, and is as long in both.
    let length = u32::from_be_bytes(dark[33..37].try_into().unwrap()) as usize + 12;
    dark.splice(33..33 + length, bright[33..33 + length].iter().copied());
    let found = verify(&dark).unwrap();
    assert_eq!(found, Verification::ContentChanged(recorded()));
    assert!(found.to_string().contains("not that of the record"));
}

#[test]
fn forged_and_cut_files_are_reported() {
    let wav = std::fs::read(path("sound.wav")).unwrap();
    let at = wav.windows(7).position(|w| w == b"by hand").unwrap();
    let mut forged = wav.clone();
    forged[at..at + 7].copy_from_slice(b"by eyes");
    let found = verify(&forged).unwrap();
    assert!(
        matches!(&found, Verification::RecordChanged { reason } if reason.contains("hash")),
        "{found}"
    );
    let mut louder = wav.clone();
    louder[60] = 255;
    let found = verify(&louder).unwrap();
    assert_eq!(found, Verification::ContentChanged(recorded()));
    for name in FILES {
        let bytes = std::fs::read(path(name)).unwrap();
        let found = verify(&bytes[..bytes.len() - 1]).unwrap();
        let is_cut = matches!(found, Verification::Damaged(DataFault::Truncated { .. }));
        assert!(is_cut, "{name}: {found}");
    }
    // One bit of a picture: its checksum shows it.
    let mut png = std::fs::read(path("plain.png")).unwrap();
    let at = png.len() - 17;
    png[at] ^= 1;
    let found = verify(&png).unwrap().to_string();
    assert!(found.contains("checksum of the chunk `IDAT`"), "{found}");
    let error = embed(&png, &recorded()).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
}

#[test]
fn animations_have_records() {
    let device = Device::flex();
    let mut animation = Animation::new(ImageGrid::new(1, 4));
    for value in [0.0, 1.0] {
        animation
            .push(&Tensor::full([1, 1, 4, 4], value, &device))
            .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walk.gif");
    let delay = Duration::from_millis(80);
    animation.save(delay, &path).unwrap();
    assert_eq!(verify_file(&path).unwrap(), Verification::Missing);
    animation
        .save_with_provenance(delay, &recorded(), &path)
        .unwrap();
    assert_eq!(verify_file(&path).unwrap().valid(), Some(&recorded()));
}
