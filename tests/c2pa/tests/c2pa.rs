//! Content Credentials signed with a certificate of a test authority (`fixtures/make.sh`).

use aigc_core::{
    Error,
    output::provenance::{
        Provenance,
        c2pa::{CredentialState, Signer, SigningAlgorithm, read, sign},
        embed, verify,
    },
};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use std::io::Cursor;

const CHAIN: &[u8] = include_bytes!("../fixtures/signer.pem");
const KEY: &[u8] = include_bytes!("../fixtures/signer.key");
const ROOT: &str = include_str!("../fixtures/root.pem");

fn signer() -> Signer {
    Signer::from_pem(CHAIN, KEY, SigningAlgorithm::Es256).unwrap()
}

fn provenance() -> Provenance {
    Provenance::new("tiny-sd")
        .with_seed(u64::MAX)
        .with_prompt("a 猫")
        .with_setting("guidance_scale", 7.25)
}

fn picture(format: ImageFormat) -> Vec<u8> {
    let pixels = RgbImage::from_fn(32, 32, |x, y| Rgb([x as u8 * 8, y as u8 * 8, 99]));
    let mut bytes = Cursor::new(vec![]);
    DynamicImage::from(pixels)
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

/// 200 samples of 16 bits at 8 kHz.
fn sound() -> Vec<u8> {
    let format = [1, 0, 1, 0, 64, 31, 0, 0, 128, 62, 0, 0, 2, 0, 16, 0];
    let samples: Vec<u8> = (0..400).map(|i| (i * 7) as u8).collect();
    let chunks = [
        b"fmt \x10\0\0\0".as_slice(),
        &format,
        b"data",
        &400u32.to_le_bytes(),
        &samples,
    ]
    .concat();
    let size = (4 + chunks.len() as u32).to_le_bytes();
    [b"RIFF", size.as_slice(), b"WAVE", &chunks].concat()
}

/// Bytes of a file, and those that begin its content.
fn files() -> [(Vec<u8>, &'static [u8]); 4] {
    [
        (picture(ImageFormat::Png), b"IDAT"),
        // The start of the scan.
        (picture(ImageFormat::Jpeg), b"\xff\xda"),
        // The image descriptor.
        (picture(ImageFormat::Gif), b"\x2c\0\0\0\0\x20\0\x20\0"),
        (sound(), b"data\x90\x01\0\0"),
    ]
}

#[test]
fn signed_files_read_back() {
    for (file, _) in files() {
        assert_eq!(read(&file, None).unwrap(), None);
        let signed = sign(&file, &provenance(), &signer()).unwrap();
        let found = read(&signed, None).unwrap().unwrap();
        // Nobody has said that the authority is to be trusted.
        assert_eq!(found.state, CredentialState::Valid, "{found:?}");
        let code = "signingCredential.untrusted";
        assert!(found.failures.iter().any(|failure| failure == code));
        assert_eq!(found.signer.as_deref(), Some("aigc test signer"));
        assert_eq!(found.issuer.as_deref(), Some("aigc tests"));
        assert_eq!(found.provenance, Some(provenance()));
        let source = found.source_type.unwrap();
        assert!(source.ends_with("/trainedAlgorithmicMedia"), "{source}");
        let found = read(&signed, Some(ROOT)).unwrap().unwrap();
        assert_eq!(found.state, CredentialState::Trusted, "{found:?}");
        assert!(found.failures.is_empty());
    }
}

#[test]
fn signatures_are_replaced() {
    let other = provenance().with_seed(8);
    for (file, _) in files() {
        let first = sign(&file, &provenance(), &signer()).unwrap();
        let second = sign(&first, &other, &signer()).unwrap();
        let found = read(&second, Some(ROOT)).unwrap().unwrap();
        assert_eq!(found.state, CredentialState::Trusted, "{found:?}");
        assert_eq!(found.provenance.as_ref(), Some(&other));
        assert!(found.failures.is_empty());
    }
}

#[test]
fn changed_content_is_invalid() {
    for (file, content) in files() {
        let mut signed = sign(&file, &provenance(), &signer()).unwrap();
        let at = signed
            .windows(content.len())
            .rposition(|window| window == content)
            .unwrap();
        signed[at + content.len() + 20] ^= 1;
        let found = read(&signed, Some(ROOT)).unwrap().unwrap();
        assert_eq!(found.state, CredentialState::Invalid, "{found:?}");
        assert!(!found.failures.is_empty());
    }
}

/// The record in the manifest is signed, too.
#[test]
fn changed_provenance_is_invalid() {
    let mut signed = sign(&sound(), &provenance(), &signer()).unwrap();
    let at = signed.windows(7).position(|w| w == b"tiny-sd").unwrap();
    signed[at] ^= 1;
    let found = read(&signed, Some(ROOT)).unwrap().unwrap();
    assert_eq!(found.state, CredentialState::Invalid, "{found:?}");
}

/// Both kinds of records in one file, the signed one last.
#[test]
fn records_and_signatures_go_together() {
    for (file, _) in files() {
        if file.starts_with(b"\xff\xd8") {
            continue; // JPEG files have no records of ours.
        }
        let with = embed(&file, &provenance()).unwrap();
        let signed = sign(&with, &provenance(), &signer()).unwrap();
        let found = read(&signed, Some(ROOT)).unwrap().unwrap();
        assert_eq!(found.state, CredentialState::Trusted, "{found:?}");
        let found = verify(&signed).unwrap();
        assert_eq!(found.valid(), Some(&provenance()), "{found}");
    }
}

#[test]
fn unfit_signers_are_errors() {
    let refused =
        |chain: &[u8], key: &[u8], algorithm| match Signer::from_pem(chain, key, algorithm) {
            Ok(signer) => sign(&sound(), &provenance(), &signer).map(|_| ()),
            Err(error) => Err(error),
        };
    let es256 = SigningAlgorithm::Es256;
    assert!(refused(CHAIN, KEY, es256).is_ok());
    assert!(matches!(
        refused(b"", KEY, es256),
        Err(Error::InvalidArgument { .. })
    ));
    assert!(matches!(
        refused(CHAIN, b"no key", es256),
        Err(Error::InvalidArgument { .. })
    ));
    assert!(refused(CHAIN, KEY, SigningAlgorithm::Ed25519).is_err());
    // The certificate of the authority is not that of the key, and no end entity.
    assert!(refused(ROOT.as_bytes(), KEY, es256).is_err());
    // A signature that is none.
    let callback = Signer::from_callback(CHAIN, es256, |_| Ok(vec![7; 64])).unwrap();
    assert!(sign(&sound(), &provenance(), &callback).is_err());
    let failing = Signer::from_callback(CHAIN, es256, |_| Err(Error::other("no device")));
    assert!(sign(&sound(), &provenance(), &failing.unwrap()).is_err());
    assert!(!format!("{:?}", signer()).contains("PRIVATE"));
}

#[test]
fn other_files_are_errors() {
    for bytes in [b"".as_slice(), b"text", b"RIFF\0\0\0\0AVI "] {
        assert!(matches!(
            read(bytes, None),
            Err(Error::InvalidArgument { .. })
        ));
        assert!(sign(bytes, &provenance(), &signer()).is_err());
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n";
    for anchors in ["no certificate", "text\n", "", broken] {
        let error = read(&sound(), Some(anchors)).unwrap_err();
        assert!(error.to_string().contains("trust_anchors"), "{error}");
    }
}
