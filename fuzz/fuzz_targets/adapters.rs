//! Any bytes are low-rank adapters or a textual inversion, or an error. The first byte chooses the
//! reader, and the ending of the file's name.
#![no_main]

use aigc_core::{
    nn::{Conv2d, Conv2dConfig, Linear, LinearConfig},
    rng::InitWeights,
    weights::{restore_params, save_tensors},
};
use aigc_pipelines::adapters::{Component, Lora, TextualInversion};
use burn::{
    module::Module,
    tensor::{Device, TensorData},
};
use libfuzzer_sys::fuzz_target;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Layers whose names adapters may have.
#[derive(Module, Debug)]
struct Model {
    to_q: Linear,
    conv: Conv2d,
}

fn model() -> Model {
    let device = Device::flex();
    let model = Model {
        to_q: LinearConfig::new(2, 3).init(&device),
        conv: Conv2dConfig::new([2, 3], 3).init(&device),
    };
    model.init_weights(0)
}

fn dir() -> &'static PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("aigc-fuzz-adapters-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        dir
    })
}

fn lora(path: &Path) {
    let Ok(lora) = Lora::open(path) else { return };
    let model = model();
    let before = model.to_q.weight.val().into_data();
    if let Ok((merged, mut originals, report)) = lora.merge(model, Component::Unet, 1.0) {
        assert!(!report.applied.is_empty());
        let restored = restore_params(merged, &mut originals);
        assert_eq!(restored.to_q.weight.val().into_data(), before);
    }
    if let Ok(lora) = Lora::open(path)
        && let Ok((attached, _)) = lora.attach(self::model(), Component::Unet, 1.0)
    {
        let _ = attached.to_q.weight.val().into_data();
    }
}

fn textual_inversion(path: &Path) {
    if let Ok(inversion) = TextualInversion::open(path) {
        assert!(!inversion.tokens().is_empty());
    }
}

/// Writes valid files, for the fuzzer to start from: `AIGC_SEEDS=corpus/adapters`.
fn write_seeds(to: &Path) {
    std::fs::create_dir_all(to).expect("it can be created");
    let path = to.join("good");
    let write = |which: u8, name: &str, tensors: &[(&str, &[usize])]| {
        let data = |shape: &[usize]| {
            let values = vec![0.5f32; shape.iter().product()];
            TensorData::new(values, shape.to_vec())
        };
        let tensors: BTreeMap<String, TensorData> = tensors
            .iter()
            .map(|(name, shape)| (name.to_string(), data(shape)))
            .collect();
        save_tensors(&tensors, &path).expect("it can be written");
        let content = std::fs::read(&path).expect("it was written");
        let seed = [vec![which], content].concat();
        std::fs::write(to.join(name), seed).expect("it can be written");
    };
    write(
        0,
        "lora",
        &[
            ("lora_unet_to_q.lora_down.weight", &[1, 2]),
            ("lora_unet_to_q.lora_up.weight", &[3, 1]),
            ("lora_unet_to_q.alpha", &[]),
            ("unet.conv.lora_A.weight", &[1, 2, 3, 3]),
            ("unet.conv.lora_B.weight", &[3, 1, 1, 1]),
        ],
    );
    write(
        0,
        "products",
        &[
            ("lora_unet_to_q.lokr_w1", &[3, 1]),
            ("lora_unet_to_q.lokr_w2", &[1, 2]),
            ("lora_unet_conv.hada_w1_a", &[3, 1]),
            ("lora_unet_conv.hada_w1_b", &[1, 18]),
            ("lora_unet_conv.hada_w2_a", &[3, 1]),
            ("lora_unet_conv.hada_w2_b", &[1, 18]),
        ],
    );
    write(1, "inversion", &[("<toy>", &[2, 4])]);
    write(
        1,
        "inversion-of-two",
        &[("clip_l", &[1, 4]), ("clip_g", &[1, 6])],
    );
    std::fs::remove_file(path).expect("it is there");
}

fuzz_target!(init: {
    if let Some(seeds) = std::env::var_os("AIGC_SEEDS") {
        write_seeds(Path::new(&seeds));
    }
}, |bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else { return };
    let ending = if which & 128 == 0 { "safetensors" } else { "ckpt" };
    let path = dir().join(format!("fuzzed.{ending}"));
    std::fs::write(&path, content).expect("it can be written");
    match which % 2 {
        0 => lora(&path),
        _ => textual_inversion(&path),
    }
});
