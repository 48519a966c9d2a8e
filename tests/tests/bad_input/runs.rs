//! Run directories: checkpoints, optimizer states, configurations.

use aigc_core::{
    Result,
    checkpoint::{RunDir, assign_path_ids, load_optimizer, save_optimizer},
    device::device,
    rng::InitWeights,
    train::{OptimizerConfig, StartFrom, Trainer, TrainerConfig},
};
use aigc_tests::{Net, NoisyRegression, row_loader};
use burn::{module::Module, optim::ModuleOptimizer, tensor::Bytes};
use burn_pack::Scalar;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A run with checkpoints of steps 2 and 4.
fn trained(folder: &Path) -> RunDir {
    let run = RunDir::create(folder).unwrap();
    fit(&run, StartFrom::Fresh, 4).unwrap();
    run
}

fn fit(run: &RunDir, start: StartFrom, steps: usize) -> Result<usize> {
    let config = TrainerConfig {
        save_steps: 2,
        save_total_limit: 9,
        ..TrainerConfig::new(steps)
    };
    let net = Net::new(&device("flex").unwrap());
    let trained = Trainer::new(config).with_start(start).fit(
        NoisyRegression::default(),
        net,
        &row_loader(8, 0),
        run,
    )?;
    Ok(trained.step)
}

#[test]
fn damaged_checkpoints_name_the_last_intact_one() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str); 10] = [
        (
            "cut weights",
            |c| cut(&c.join("model.safetensors")),
            "model.safetensors: truncated or oversized",
        ),
        (
            "altered weights",
            |c| alter(&c.join("model.safetensors")),
            "model.safetensors: altered",
        ),
        (
            "cut state",
            |c| cut(&c.join("state.json")),
            "state.json: truncated or oversized",
        ),
        (
            "altered optimizer",
            |c| alter(&c.join("optimizer-model.bpk")),
            "optimizer-model.bpk: altered",
        ),
        (
            "empty optimizer",
            |c| std::fs::write(c.join("optimizer-model.bpk"), "").unwrap(),
            "truncated or oversized",
        ),
        (
            "no weights",
            |c| std::fs::remove_file(c.join("model.safetensors")).unwrap(),
            "model.safetensors: missing",
        ),
        (
            "no manifest",
            |c| std::fs::remove_file(c.join("manifest.json")).unwrap(),
            "manifest.json: missing",
        ),
        (
            "cut manifest",
            |c| cut(&c.join("manifest.json")),
            "manifest.json",
        ),
        (
            "a manifest of text",
            |c| std::fs::write(c.join("manifest.json"), "hello").unwrap(),
            "manifest.json: expected",
        ),
        (
            "a manifest of another step",
            |c| {
                std::fs::copy(
                    c.with_file_name("step-000002").join("manifest.json"),
                    c.join("manifest.json"),
                )
                .unwrap();
            },
            "manifest.json: format 1 of step 2, expected format 1 of step 4",
        ),
    ];
    for (name, damage, expected) in damages {
        let folder = tempfile::tempdir().unwrap();
        let run = trained(&folder.path().join("run"));
        damage(&run.checkpoint_path(4));
        let error = fit(&run, StartFrom::Resume, 6).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(
            error.contains("the checkpoint of step 2 is intact: resume from step 2"),
            "{name}: {error}"
        );
        assert_eq!(fit(&run, StartFrom::ResumeAt(2), 6).unwrap(), 6, "{name}");
        // Both damaged: nothing to offer.
        std::fs::remove_dir_all(folder.path().join("run")).unwrap();
        let run = trained(&folder.path().join("run"));
        cut(&run.checkpoint_path(2).join("state.json"));
        cut(&run.checkpoint_path(4).join("state.json"));
        assert!(
            fit(&run, StartFrom::Resume, 6)
                .unwrap_err()
                .to_string()
                .contains("no intact checkpoint"),
            "{name}"
        );
    }
}

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn alter(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Files whose checksum is right and whose content is not: a manifest proves nothing about who
/// wrote it.
#[test]
fn checkpoints_with_valid_checksums_are_validated() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("run"));
    let read = |file| {
        (
            file,
            std::fs::read(run.latest_checkpoint().unwrap().path(file)).unwrap(),
        )
    };
    let good = BTreeMap::from(["state.json", "model.safetensors", "optimizer-model.bpk"].map(read));
    let resign = |name: &str, content: Option<Vec<u8>>| {
        let writer = run.write_checkpoint(4).unwrap();
        for file in ["state.json", "model.safetensors", "optimizer-model.bpk"] {
            let bytes = good[file].clone();
            match &content {
                Some(content) if file == name => {
                    std::fs::write(writer.path(file), content).unwrap()
                }
                None if file == name => {}
                _ => std::fs::write(writer.path(file), bytes).unwrap(),
            }
        }
        writer.commit(4).unwrap();
        fit(&run, StartFrom::Resume, 6).unwrap_err().to_string()
    };
    assert!(resign("state.json", Some(b"[]".to_vec())).contains("state.json"));
    assert!(resign("state.json", Some(b"{\"step\": -1}".to_vec())).contains("state.json"));
    assert!(resign("model.safetensors", Some(vec![0xff; 64])).contains("model.safetensors"));
    assert!(resign("model.safetensors", Some(vec![])).contains("model.safetensors"));
    assert!(resign("model.safetensors", None).contains("model.safetensors"));
    assert!(resign("optimizer-model.bpk", Some(vec![0; 64])).contains("optimizer-model.bpk"));
    assert!(resign("optimizer-model.bpk", None).contains("optimizer-model.bpk"));
}

#[test]
fn foreign_optimizer_state_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("run"));
    let file = run.latest_checkpoint().unwrap().path("optimizer-model.bpk");
    // The file was saved by Adam, with a momentum that RMSprop knows nothing of.
    let rms: ModuleOptimizer = burn::optim::RmsPropConfig::new().init();
    let net = Net::new(&device("flex").unwrap()).init_weights(0).train();
    let foreign = load_optimizer(rms.clone(), &net, &file)
        .err()
        .unwrap()
        .to_string();
    assert!(
        foreign.contains("belongs to no parameter of the model"),
        "{foreign}"
    );
    let net = assign_path_ids(net);
    let lost = load_optimizer(rms, &net, &file).err().unwrap().to_string();
    assert!(
        lost.contains("cannot be restored: it was saved by another kind of optimizer"),
        "{lost}"
    );

    let adam = match OptimizerConfig::adam(0.9, 0.999) {
        OptimizerConfig::Adam(config) => ModuleOptimizer::from(config.build(false)),
        _ => unreachable!(),
    };
    let path = folder.path().join("empty.bpk");
    save_optimizer(&adam, &path).unwrap();
    assert!(
        load_optimizer(adam.clone(), &net, &path).is_ok(),
        "a state without entries is that of a new optimizer"
    );
    // Records that burn would panic on: each entry must be of its parameter's rank and shape.
    let good = burn_pack::Reader::from_bytes(Bytes::from_bytes_vec(std::fs::read(&file).unwrap()))
        .unwrap();
    let scalars = good.scalars().clone();
    let tensors = good.into_tensors().unwrap();
    type Change = (
        &'static str,
        fn(&mut BTreeMap<String, Scalar>),
        fn(&mut burn_pack::Tensor),
    );
    let changes: [Change; 4] = [
        (
            "rank 9",
            |s| {
                s.iter_mut()
                    .filter(|(n, _)| n.ends_with("__rank"))
                    .for_each(|(_, v)| *v = Scalar::from(9usize))
            },
            |_| {},
        ),
        (
            "another rank",
            |s| {
                s.iter_mut()
                    .filter(|(n, _)| n.ends_with("__rank"))
                    .for_each(|(_, v)| *v = Scalar::from(4usize))
            },
            |_| {},
        ),
        ("another owner", |_| {}, |t| t.param_id = Some(1)),
        (
            "another shape",
            |_| {},
            |t| t.shape = burn::tensor::Shape::new([1, 1, t.shape.num_elements()]),
        ),
    ];
    for (name, scalar, tensor) in changes {
        let (mut scalars, mut tensors) = (scalars.clone(), tensors.clone());
        scalar(&mut scalars);
        tensors.iter_mut().for_each(tensor);
        let mut writer = burn_pack::Writer::new(tensors);
        for (key, value) in &scalars {
            writer = writer.with_scalar(key, *value);
        }
        let changed = folder.path().join("changed.bpk");
        std::fs::write(&changed, writer.into_bytes().unwrap().to_vec()).unwrap();
        let error = load_optimizer(adam.clone(), &net, &changed)
            .err()
            .unwrap_or_else(|| panic!("{name} was taken"));
        assert!(error.to_string().contains("changed.bpk"), "{name}: {error}");
    }
    assert!(load_optimizer(adam.clone(), &net, &file).is_ok());
    for content in [&b""[..], b"hello", &[0xff; 200]] {
        std::fs::write(&path, content).unwrap();
        let error = load_optimizer(adam.clone(), &net, &path)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("empty.bpk"), "{error}");
    }
}

/// Training would overwrite the configuration of the model.
#[test]
fn model_directories_are_refused_as_run_directories() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("run"));
    let pretrained = folder.path().join("pretrained");
    std::fs::create_dir(&pretrained).unwrap();
    std::fs::write(pretrained.join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    std::fs::write(pretrained.join("model.safetensors"), "weights").unwrap();
    let content = |dir: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let paths = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        paths
            .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
            .collect()
    };
    for dir in [pretrained, run.final_dir()] {
        let before = content(&dir);
        assert_eq!(before.len(), 2);
        let error = RunDir::create(&dir).unwrap_err().to_string();
        assert!(error.contains(&*dir.to_string_lossy()), "{error}");
        assert!(error.contains("not that of a run"), "{error}");
        assert_eq!(content(&dir), before);
    }
}

#[test]
fn broken_run_configurations_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("run"));
    let path: PathBuf = run.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    for (content, expected) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[1, 2]", "invalid"),
        ("{\"model\": null}", "missing field"),
        (
            &text.replace("\"seed\": 0", "\"seed\": -3")[..],
            "invalid value",
        ),
        (
            &text.replace("\"adam\"", "\"madam\"")[..],
            "unknown variant `madam`",
        ),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = fit(&run, StartFrom::Resume, 6).unwrap_err().to_string();
        assert!(
            error.contains("config.json") && error.contains(expected),
            "{content}: {error}"
        );
    }
    let nowhere = RunDir::open(folder.path().join("nowhere"))
        .unwrap_err()
        .to_string();
    assert!(nowhere.contains("there is no run in it"), "{nowhere}");
    let again = RunDir::create(run.path()).unwrap_err().to_string();
    assert!(again.contains("there is a run in it already"), "{again}");
}
