//! Any bytes in any file of a checkpoint are an error or a checkpoint. The first byte chooses the
//! file.
#![no_main]

use aigc_core::{
    checkpoint::{RunDir, load_optimizer, save_optimizer, assign_path_ids}, weights::{load_weights, save_weights},
    nn::{Linear, LinearConfig},
    rng::InitWeights,
};
use burn::{
    module::Module,
    optim::{AdamConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, Tensor},
};
use libfuzzer_sys::fuzz_target;
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("aigc-fuzz-checkpoint-{}", std::process::id()));
        let run = RunDir::create(&folder).expect("the temporary folder can be written");
        let writer = run.write_checkpoint(1).expect("it can be written");
        writer.json("state.json", &[1, 2]).expect("it can be written");
        save_optimizer(&AdamConfig::new().init(), &writer.file("optimizer.bpk")).expect("it can be written");
        writer.finish(1).expect("it can be written");
        folder
    })
}

fn model() -> Linear {
    assign_path_ids(LinearConfig::new(2, 3).init(&Device::flex()).seeded(0).train())
}

/// Writes what the files look like when they are good, for the fuzzer to start from:
/// `AIGC_SEEDS=corpus/checkpoint`.
fn write_seeds(folder: &Path) {
    std::fs::create_dir_all(folder).expect("it can be made");
    let (model, mut adam): (_, ModuleOptimizer) = (model(), AdamConfig::new().init());
    let loss = model.forward(Tensor::<2>::ones([1, 2], &Device::flex().autodiff())).sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = adam.step(0.1, model, gradients);
    let path = folder.join("good");
    save_optimizer(&adam, &path).expect("it can be written");
    let optimizer = std::fs::read(&path).expect("it was written");
    save_weights(&model.valid(), &path).expect("it can be written");
    let weights = std::fs::read(&path).expect("it was written");
    let manifest = std::fs::read(crate::folder().join("checkpoints/step-000001/manifest.json")).expect("it is there");
    for (which, content) in [weights, optimizer, manifest].into_iter().enumerate() {
        let seed = [vec![which as u8], content].concat();
        std::fs::write(folder.join(format!("seed-{which}")), seed).expect("it can be written");
    }
    std::fs::remove_file(path).expect("it is there");
}

fuzz_target!(init: {
    if let Some(seeds) = std::env::var_os("AIGC_SEEDS") {
        write_seeds(Path::new(&seeds));
    }
}, |bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else { return };
    let run = RunDir::open(folder()).expect("it is there");
    let path = folder().join("fuzzed");
    std::fs::write(&path, content).expect("it can be written");
    match which % 3 {
        0 => {
            if let Ok(model) = load_weights(model(), &path) {
                model.valid().forward(Tensor::<2>::ones([1, 2], &Device::flex())).into_data();
            }
        }
        1 => {
            // What is taken must also be usable.
            let model = model();
            if let Ok(mut adam) = load_optimizer(AdamConfig::new().init(), &model, &path) {
                let loss = model.forward(Tensor::<2>::ones([1, 2], &Device::flex().autodiff())).sum();
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                adam.step(0.1, model, gradients);
            }
        }
        _ => {
            std::fs::write(run.checkpoint_path(1).join("manifest.json"), content).expect("it can be written");
            if let Ok(checkpoint) = run.at(1) {
                let _: Result<Vec<u32>, _> = checkpoint.json("state.json");
            }
        }
    }
});
