//! Any bytes are tensors in a file, and those a checkpoint in a single file, or an error. The first
//! byte chooses the ending of the file's name.
#![no_main]

use aigc_core::weights::{WeightReader, save_tensors};
use aigc_pipelines::single_file::{SingleFile, SingleFileOptions};
use burn::tensor::TensorData;
use libfuzzer_sys::fuzz_target;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Pickles of PyTorch in both of its formats.
const PICKLES: [(&str, &[u8]); 2] = [
    (
        "archive",
        include_bytes!("../../crates/aigc-core/src/weights/pickle/lightning.ckpt"),
    ),
    (
        "before-archives",
        include_bytes!("../../crates/aigc-core/src/weights/pickle/lightning-legacy.ckpt"),
    ),
];

fn dir() -> &'static PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("aigc-fuzz-single-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        dir
    })
}

/// Reads all tensors. What is read has the number of elements of its shape.
fn tensors(path: &Path) {
    let Ok(reader) = WeightReader::open(path) else {
        return;
    };
    for name in reader.names() {
        let shape = reader.shape(name).expect("it is in the file");
        let len: usize = shape.iter().product();
        if let Ok(values) = reader.read(name) {
            assert_eq!(values.len(), len, "{name}");
        }
        if let Ok(values) = reader.read_int(name) {
            assert_eq!(values.len(), len, "{name}");
        }
    }
}

fn single_file(path: &Path) {
    for options in [
        SingleFileOptions::new(),
        SingleFileOptions::new().with_averaged_weights(),
    ] {
        let Ok(file) = SingleFile::open_with_options(path, &options) else {
            continue;
        };
        let _ = file.report().to_string();
        for part in file.parts() {
            let _ = file.config(part);
            if let Ok(reader) = file.component_reader(part) {
                for name in reader.names() {
                    let _ = reader.read(name);
                }
            }
        }
        file.config("model_index").expect("it is built in");
    }
}

/// Writes valid files, for the fuzzer to start from: `AIGC_SEEDS=corpus/single_file`.
fn write_seeds(to: &Path) {
    std::fs::create_dir_all(to).expect("it can be created");
    let seed = |which: u8, name: &str, content: &[u8]| {
        let seed = [&[which][..], content].concat();
        std::fs::write(to.join(name), seed).expect("it can be written");
    };
    for (name, content) in PICKLES {
        seed(1, name, content);
    }
    let path = to.join("good");
    let write = |name: &str, tensors: &[(&str, &[usize])]| {
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
        seed(0, name, &content);
    };
    write(
        "network",
        &[
            (
                "model.diffusion_model.input_blocks.0.0.weight",
                &[2, 4, 1, 1],
            ),
            (
                "model.diffusion_model.input_blocks.1.0.in_layers.0.weight",
                &[2],
            ),
            (
                "model.diffusion_model.output_blocks.0.0.in_layers.0.weight",
                &[4],
            ),
            (
                "model.diffusion_model.output_blocks.1.0.in_layers.0.weight",
                &[4],
            ),
            (
                "first_stage_model.decoder.mid.attn_1.q.weight",
                &[2, 2, 1, 1],
            ),
            (
                "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias",
                &[6],
            ),
            (
                "model_ema.diffusion_modelinput_blocks00weight",
                &[2, 4, 1, 1],
            ),
        ],
    );
    write(
        "transformer",
        &[("joint_blocks.0.x_block.attn.qkv.weight", &[6, 2])],
    );
    std::fs::remove_file(path).expect("it is there");
}

fuzz_target!(init: {
    if let Some(seeds) = std::env::var_os("AIGC_SEEDS") {
        write_seeds(Path::new(&seeds));
    }
}, |bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else { return };
    let ending = if which % 2 == 0 { "safetensors" } else { "ckpt" };
    let path = dir().join(format!("fuzzed.{ending}"));
    std::fs::write(&path, content).expect("it can be written");
    tensors(&path);
    single_file(&path);
});
