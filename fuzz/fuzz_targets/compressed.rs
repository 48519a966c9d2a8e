//! Any bytes are compressed images or an error, and any coded symbols are decoded to images or an
//! error.
#![no_main]

use aigc_core::{
    data::{Image, digits},
    rng::InitWeights,
};
use aigc_vae::{
    LikelihoodKind, MlpVaeConfig,
    compress::{Codec, CompressedImages, Method, crc32, decode, encode, gaussian_codec},
};
use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

/// A codec of each method, and a file of it.
fn codecs() -> Vec<(Box<dyn Codec>, CompressedImages)> {
    let config = MlpVaeConfig {
        hidden_dim: 8,
        latent_dim: 3,
        likelihood: LikelihoodKind::LogisticMixture { components: 2 },
        ..MlpVaeConfig::new(digits::SHAPE)
    };
    let device = Device::flex();
    let model = config.init(&device).expect("it is valid").init_weights(0);
    let images: Vec<Image> = digits::load().0.into_iter().take(2).collect();
    [Method::BitsBack, Method::Lossless, Method::Lossy]
        .into_iter()
        .map(|method| {
            let codec = gaussian_codec(&model, &device, method, 4).expect("it is valid");
            let file = encode(&*codec, &images).expect("they have the shape of the model");
            (codec, file)
        })
        .collect()
}

thread_local! {
    static CODECS: Vec<(Box<dyn Codec>, CompressedImages)> = codecs();
}

fn check(bytes: &[u8]) {
    if let Ok(file) = CompressedImages::parse(bytes) {
        assert_eq!(file.to_bytes(), bytes);
        assert!(file.count <= 16 * bytes.len());
        CODECS.with(|codecs| {
            for (codec, _) in codecs {
                let _ = decode(&**codec, &file);
            }
        });
    }
}

fuzz_target!(init: {
    // Valid files, for the fuzzer to start from: `AIGC_SEEDS=corpus/compressed`.
    if let Some(seeds) = std::env::var_os("AIGC_SEEDS") {
        let seeds = Path::new(&seeds);
        std::fs::create_dir_all(seeds).expect("it can be created");
        for (index, (_, file)) in codecs().iter().enumerate() {
            let path = seeds.join(format!("seed-{index}"));
            std::fs::write(path, file.to_bytes()).expect("it can be written");
        }
    }
}, |bytes: &[u8]| {
    check(bytes);
    // The same with the checksum that its writer would give it.
    if let Some(content) = bytes.len().checked_sub(4) {
        let content = &bytes[..content];
        check(&[content, &crc32(content).to_le_bytes()].concat());
    }
    // Any coded symbols in a file of this model.
    CODECS.with(|codecs| {
        for (codec, file) in codecs {
            let mut file = file.clone();
            file.count = 1 + usize::from(bytes.first().copied().unwrap_or(0) % 4);
            file.payload = bytes.to_vec();
            if let Ok(images) = decode(&**codec, &file) {
                assert_eq!(images.len(), file.count);
            }
        }
    });
});
