//! Any bytes in any file of a checkpoint are an error or a checkpoint. The first byte chooses the file.
#![no_main]

use aigc_core::{
    checkpoint::{RunFolder, load_optimizer, load_weights, save_optimizer},
    nn::{Linear, LinearConfig},
    rng::Seeded,
};
use burn::{optim::AdamConfig, tensor::Device};
use libfuzzer_sys::fuzz_target;
use std::{path::PathBuf, sync::OnceLock};

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("aigc-fuzz-checkpoint-{}", std::process::id()));
        let run = RunFolder::create(&folder).expect("the temporary folder can be written");
        let writer = run.write_checkpoint(1).expect("it can be written");
        writer.json("state.json", &[1, 2]).expect("it can be written");
        save_optimizer(&AdamConfig::new().init(), &writer.file("optimizer.bpk")).expect("it can be written");
        writer.finish(1).expect("it can be written");
        folder
    })
}

fn model() -> Linear {
    LinearConfig::new(2, 3).init(&Device::flex()).seeded(0)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else { return };
    let run = RunFolder::open(folder()).expect("it is there");
    let path = folder().join("fuzzed");
    std::fs::write(&path, content).expect("it can be written");
    match which % 3 {
        0 => drop(load_weights(model(), &path)),
        1 => drop(load_optimizer(AdamConfig::new().init(), &model(), &path)),
        _ => {
            std::fs::write(run.checkpoint_path(1).join("manifest.json"), content).expect("it can be written");
            if let Ok(checkpoint) = run.at(1) {
                let _: Result<Vec<u32>, _> = checkpoint.json("state.json");
            }
        }
    }
});
