//! Any bytes have a provenance record, have none, or are an error. What is verified is that of the
//! content; a new record can be embedded in every intact file.
#![no_main]

use aigc_core::{
    Error,
    output::provenance::{Provenance, Verification, embed, png::read_texts, verify},
};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fn provenance() -> Provenance {
    Provenance::new("fuzzed").with_seed(7).with_prompt("猫")
}

/// Valid files, for the fuzzer to start from: `AIGC_SEEDS=corpus/provenance`.
fn write_seeds(to: &Path) {
    std::fs::create_dir_all(to).expect("it can be created");
    let files: [(&str, &[u8]); 4] = [
        (
            "plain.png",
            include_bytes!("../../tests/fixtures/eval/provenance/plain.png"),
        ),
        (
            "packed.png",
            include_bytes!("../../tests/fixtures/eval/provenance/packed.png"),
        ),
        (
            "sound.wav",
            include_bytes!("../../tests/fixtures/eval/provenance/sound.wav"),
        ),
        (
            "animation.gif",
            include_bytes!("../../tests/fixtures/eval/provenance/animation.gif"),
        ),
    ];
    for (name, bytes) in files {
        std::fs::write(to.join(name), bytes).expect("it can be written");
    }
}

fuzz_target!(init: {
    if let Some(seeds) = std::env::var_os("AIGC_SEEDS") {
        write_seeds(Path::new(&seeds));
    }
}, |bytes: &[u8]| {
    let _ = read_texts(bytes, &["aigc", "parameters"]);
    let found = verify(bytes);
    match embed(bytes, &provenance()) {
        Ok(with) => {
            assert_eq!(verify(&with).expect("it is of our version"), Verification::Valid(provenance()));
            assert_eq!(embed(&with, &provenance()).expect("it is intact"), with);
            assert!(!matches!(found, Ok(Verification::Damaged(_))));
        }
        Err(Error::InvalidArgument { .. }) => {
            assert!(matches!(found, Ok(Verification::Damaged(_)) | Err(Error::InvalidArgument { .. })));
        }
        Err(Error::Unsupported { .. }) => assert!(found.is_err()),
        Err(error) => panic!("{error}"),
    }
});
