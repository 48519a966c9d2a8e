//! Any bytes in any file of a checkpoint are an error or a checkpoint. The first byte chooses the
//! file.
#![no_main]

use aigc_core::{
    checkpoint::{RunDir, assign_path_ids, load_optimizer, save_optimizer},
    nn::{Linear, LinearConfig},
    rng::InitWeights,
    weights::{load_weights, save_weights},
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

fn dir() -> &'static PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("aigc-fuzz-checkpoint-{}", std::process::id()));
        let run = RunDir::create(&dir).expect("the temporary directory can be written");
        let writer = run.write_checkpoint(1).expect("it can be written");
        writer
            .write_json("state.json", &[1, 2])
            .expect("it can be written");
        save_optimizer(&AdamConfig::new().init(), &writer.path("optimizer.bpk"))
            .expect("it can be written");
        writer.commit(1).expect("it can be written");
        dir
    })
}

fn model() -> Linear {
    assign_path_ids(
        LinearConfig::new(2, 3)
            .init(&Device::flex())
            .init_weights(0)
            .train(),
    )
}

/// Writes valid files, for the fuzzer to start from:
/// `AIGC_SEEDS=corpus/checkpoint`.
fn write_seeds(to: &Path) {
    std::fs::create_dir_all(to).expect("it can be created");
    let (model, mut adam): (_, ModuleOptimizer) = (model(), AdamConfig::new().init());
    let loss = model
        .forward(Tensor::<2>::ones([1, 2], &Device::flex().autodiff()))
        .sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = adam.step(0.1, model, gradients);
    let path = to.join("good");
    save_optimizer(&adam, &path).expect("it can be written");
    let optimizer = std::fs::read(&path).expect("it was written");
    save_weights(&model.valid(), &path).expect("it can be written");
    let weights = std::fs::read(&path).expect("it was written");
    let manifest = std::fs::read(crate::dir().join("checkpoints/step-000001/manifest.json"))
        .expect("it is there");
    for (which, content) in [weights, optimizer, manifest].into_iter().enumerate() {
        let seed = [vec![which as u8], content].concat();
        std::fs::write(to.join(format!("seed-{which}")), seed).expect("it can be written");
    }
    std::fs::remove_file(path).expect("it is there");
}

fuzz_target!(init: {
    if let Some(seeds) = std::env::var_os("AIGC_SEEDS") {
        write_seeds(Path::new(&seeds));
    }
}, |bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else { return };
    let run = RunDir::open(dir()).expect("it is there");
    let path = dir().join("fuzzed");
    std::fs::write(&path, content).expect("it can be written");
    match which % 3 {
        0 => {
            if let Ok(model) = load_weights(model(), &path) {
                model.valid().forward(Tensor::<2>::ones([1, 2], &Device::flex())).into_data();
            }
        }
        1 => {
            // An accepted file must also be usable.
            let model = model();
            if let Ok(mut adam) = load_optimizer(AdamConfig::new().init(), &model, &path) {
                let loss = model.forward(Tensor::<2>::ones([1, 2], &Device::flex().autodiff())).sum();
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                adam.step(0.1, model, gradients);
            }
        }
        _ => {
            std::fs::write(run.checkpoint_path(1).join("manifest.json"), content).expect("it can be written");
            if let Ok(checkpoint) = run.checkpoint(1) {
                let _: Result<Vec<u32>, _> = checkpoint.read_json("state.json");
            }
        }
    }
});
