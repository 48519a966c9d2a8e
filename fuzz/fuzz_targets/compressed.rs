//! Any bytes are compressed images or an error, and any coded symbols are decoded to images or an
//! error.
#![no_main]

use aigc_core::{
    data::{Image, digits},
    rng::InitWeights,
};
use aigc_vae::{
    CodePriorConfig, DiscreteVae, LikelihoodKind, MlpVaeConfig, VectorQuantizerConfig, VqVaeConfig,
    compress::{
        CodeCodec, Codec, CompressedImages, DiscreteCodes, Method, PriorCodes, crc32, decode,
        encode, gaussian_codec,
    },
};
use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

/// Codecs of each method with Gaussian latents.
fn gaussian(device: &Device) -> Vec<Box<dyn Codec>> {
    let config = MlpVaeConfig {
        hidden_dim: 8,
        latent_dim: 3,
        likelihood: LikelihoodKind::LogisticMixture { components: 2 },
        ..MlpVaeConfig::new(digits::SHAPE)
    };
    let model = config.init(device).expect("it is valid").init_weights(0);
    [Method::BitsBack, Method::Lossless, Method::Lossy]
        .into_iter()
        .map(|method| gaussian_codec(&model, device, method, 4).expect("it is valid"))
        .collect()
}

/// Codecs of both methods with codes: equally probable ones, and under a prior.
fn discrete(device: &Device) -> Vec<Box<dyn Codec>> {
    let config = VqVaeConfig {
        strides: vec![2],
        channels: vec![8],
        residual_blocks: 1,
        residual_channels: 4,
        quantizer: VectorQuantizerConfig::new(11, 4).into(),
        likelihood: LikelihoodKind::LogisticMixture { components: 2 },
        ..VqVaeConfig::new(digits::SHAPE)
    };
    let model = config.init(device).expect("it is valid").init_weights(0);
    let config = CodePriorConfig {
        d_model: 8,
        n_layer: 1,
        n_head: 2,
        ..CodePriorConfig::new(model.code_shapes()[0])
    };
    let prior = config.init(device).expect("it is valid").init_weights(1);
    let uniform = DiscreteCodes::new(&model).expect("its samples are images");
    let prior = PriorCodes::new(&[&prior]).expect("there is one level");
    let learned = uniform.clone().with_prior(prior);
    let learned = learned.expect("the prior is over these codes");
    vec![
        Box::new(CodeCodec::lossless(uniform, device)),
        Box::new(CodeCodec::lossy(learned, device)),
    ]
}

/// Codecs, and a file of each.
fn codecs() -> Vec<(Box<dyn Codec>, CompressedImages)> {
    let device = Device::flex();
    let images: Vec<Image> = digits::load().0.into_iter().take(2).collect();
    let with_file = |codec: Box<dyn Codec>| {
        let file = encode(&*codec, &images).expect("they have the shape of the model");
        (codec, file)
    };
    let codecs = gaussian(&device).into_iter().chain(discrete(&device));
    codecs.map(with_file).collect()
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
