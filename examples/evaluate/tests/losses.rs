//! Memorisation by models of each family, through the report of a run.

mod common;

use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, ImageBatch, InMemory, collate_images, digits},
    rng::InitWeights,
    train::{Trainer, TrainerConfig},
};
use aigc_gan::{GanConfig, MlpGanConfig};
use aigc_vae::{
    AnyVae, CodePriorConfig, ConditionKind, DiscreteVae, HierarchicalLevel, HierarchicalVaeConfig,
    KlWeight, MlpVaeConfig, VaeConfig, VaeObjective, VqVaeConfig,
};
use common::{evaluate, flex, save};
use serde_json::Value;
use std::path::Path;

/// The originality of a few samples of a run: the report's JSON.
fn originality(dir: &Path, data: &[&str]) -> Value {
    let only = ["--samples", "10", "--only", "originality"];
    evaluate(dir, &[&only[..], data].concat()).1
}

/// The measures of memorisation of a report.
fn memorisation(json: &Value) -> Vec<&Value> {
    let is = |measure: &&Value| {
        measure["name"]
            .as_str()
            .unwrap()
            .starts_with("Memorisation")
    };
    json["measures"]
        .as_array()
        .unwrap()
        .iter()
        .filter(is)
        .collect()
}

/// An autoencoder with classes that has seen 60 images hundreds of times knows them.
#[test]
fn overfitted_conditional_autoencoder_is_found_out() {
    let root = tempfile::tempdir().unwrap();
    let (train, test) = digits::train_test_split();
    let (train, test) = (train.0[..60].to_vec(), test.0[..80].to_vec());
    let (known, others) = (root.path().join("known"), root.path().join("others"));
    save(&train, &known);
    save(&test, &others);
    let config = VaeConfig::Mlp(MlpVaeConfig {
        hidden_dim: 128,
        latent_dim: 10,
        condition: ConditionKind {
            num_classes: Some(10),
            ..ConditionKind::default()
        },
        ..MlpVaeConfig::new(digits::SHAPE)
    });
    let loader = DataLoaderConfig {
        batch_size: 60,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(InMemory(train), collate_images, loader).unwrap();
    let objective = VaeObjective::<AnyVae, ImageBatch, 4, 2>::new(KlWeight::default()).unwrap();
    let dir = root.path().join("run");
    let model = config.init(&flex()).unwrap();
    Trainer::new(TrainerConfig {
        learning_rate: 3e-3,
        ..TrainerConfig::new(400)
    })
    .with_model_config(&config)
    .unwrap()
    .fit(objective, model, &loader, &RunDir::create(&dir).unwrap())
    .unwrap();

    let against = ["--against", known.to_str().unwrap()];
    let held_out = ["--held-out", others.to_str().unwrap()];
    let json = originality(&dir, &[against, held_out].concat());
    let [found] = memorisation(&json)[..] else {
        panic!("{json}");
    };
    assert_eq!(found["count"], 60);
    assert!(found["value"].as_f64().unwrap() > 0.7, "{found}");
    assert!(found.to_string().contains("negative ELBO"), "{found}");
}

/// Untrained models know no image: their losses of training and held-out images are alike.
#[test]
fn untrained_autoencoders_have_memorised_nothing() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("deep");
    let level = |stride, channels| HierarchicalLevel {
        stride,
        channels,
        hidden_channels: 8,
        encoder_blocks: 1,
        groups: 1,
        latent_channels: 2,
    };
    let config = HierarchicalVaeConfig {
        levels: vec![level(2, 16), level(4, 16)],
        ..HierarchicalVaeConfig::new(digits::SHAPE)
    };
    let vae = config.init(&flex()).unwrap().init_weights(1);
    vae.save_pretrained(deep.join("final")).unwrap();

    let codes = root.path().join("codes");
    let config = VqVaeConfig {
        strides: vec![2],
        channels: vec![16],
        residual_blocks: 1,
        residual_channels: 8,
        ..VqVaeConfig::new(digits::SHAPE)
    };
    let vae = config.init(&flex()).unwrap().init_weights(2);
    vae.save_pretrained(codes.join("final")).unwrap();
    let prior = CodePriorConfig {
        d_model: 16,
        n_layer: 1,
        n_head: 2,
        ..CodePriorConfig::new(vae.code_shapes()[0])
    };
    let prior = prior.init(&flex()).unwrap().init_weights(3);
    prior.save_pretrained(codes.join("prior/final")).unwrap();

    let held_out = digits::train_test_split().1.0.len();
    for (dir, names) in [
        (deep, vec!["Memorisation (AUC)"]),
        (
            codes,
            vec!["Memorisation (AUC)", "Memorisation by the prior (AUC)"],
        ),
    ] {
        let json = originality(&dir, &["--against", "digits"]);
        let found = memorisation(&json);
        let found_names: Vec<&str> = found.iter().filter_map(|x| x["name"].as_str()).collect();
        assert_eq!(found_names, names, "{}", json["warnings"]);
        for measure in found {
            assert_eq!(measure["count"], held_out);
            let auc = measure["value"].as_f64().unwrap();
            assert!((0.35..0.65).contains(&auc), "{measure}");
        }
    }
}

/// A GAN has no loss of an image; the report says which measures stand for it.
#[test]
fn gans_are_judged_by_their_samples() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("gan");
    let gan = GanConfig::Mlp(MlpGanConfig::new(digits::SHAPE)).init(&flex());
    let gan = gan.unwrap().init_weights(0);
    gan.save_pretrained(dir.join("final")).unwrap();
    let json = originality(&dir, &["--against", "digits"]);
    assert!(memorisation(&json).is_empty());
    let warnings = json["warnings"].to_string();
    assert!(
        warnings.contains("Not measured: memorisation") && warnings.contains("authenticity"),
        "{warnings}"
    );
}
