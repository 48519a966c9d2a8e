//! Runs of each family with random weights: sampled, judged in all parts, and reported.

mod common;

use aigc_core::{
    data::{Image, digits},
    eval::LeNet5Config,
    rng::{InitWeights, Rng},
    weights::save_weights,
};
use aigc_diffusion::{DdimScheduler, Pipeline, UNet2dConfig};
use aigc_gan::{GanConfig, MlpGanConfig};
use aigc_text::{CharacterTokenizer, Gpt2Config, PretrainedModel, Tokenizer};
use aigc_vae::{
    CodePriorConfig, DiscreteVae, HierarchicalLevel, HierarchicalVaeConfig, MlpVaeConfig,
    VaeConfig, VqVaeConfig,
};
use common::{evaluate, few_digits, flex, measure, save};
use serde_json::Value;
use std::{fs, path::Path};

/// The report of 12 samples of a run, against a few digits.
fn judged(root: &Path, run: &Path, further: &[&str]) -> Value {
    let data = few_digits(root);
    let data: Vec<&str> = data.iter().map(String::as_str).collect();
    let (_, json, page) = evaluate(run, &[&data[..], &["--samples", "12"], further].concat());
    for name in [
        "Fréchet distance",
        "Kernel distance",
        "Precision",
        "Recall",
        "Mean pairwise distance",
        "Vendi score",
        "Class entropy",
        "Nearer to training data",
        "Authenticity",
    ] {
        assert_eq!(measure(&json, name)["count"], 12, "{name}");
    }
    assert!(page.contains("Samples and training images"));
    json
}

#[test]
fn vaes_and_gans_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("gan");
    let gan = GanConfig::Mlp(MlpGanConfig::new(digits::SHAPE)).init(&flex());
    let gan = gan.unwrap().init_weights(0);
    gan.save_pretrained(run.join("final")).unwrap();
    let json = judged(root.path(), &run, &[]);
    assert_eq!(json["facts"]["Model"], "GAN");

    let run = root.path().join("vae");
    let config = MlpVaeConfig {
        hidden_dim: 16,
        latent_dim: 4,
        ..MlpVaeConfig::new(digits::SHAPE)
    };
    let vae = VaeConfig::Mlp(config).init(&flex()).unwrap();
    let vae = vae.init_weights(1);
    vae.save_pretrained(run.join("final")).unwrap();
    let json = judged(root.path(), &run, &[]);
    assert_eq!(json["facts"]["Model"], "VAE");
    assert_eq!(measure(&json, "Memorisation (AUC)")["count"], 20);
}

#[test]
fn hierarchical_vaes_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    let level = |stride| HierarchicalLevel {
        stride,
        channels: 16,
        hidden_channels: 8,
        encoder_blocks: 1,
        groups: 1,
        latent_channels: 2,
    };
    let config = HierarchicalVaeConfig {
        levels: vec![level(2), level(4)],
        ..HierarchicalVaeConfig::new(digits::SHAPE)
    };
    let vae = config.init(&flex()).unwrap().init_weights(1);
    vae.save_pretrained(run.join("final")).unwrap();
    let json = judged(root.path(), &run, &[]);
    assert_eq!(json["facts"]["Model"], "hierarchical VAE");
    measure(&json, "Memorisation (AUC)");
}

#[test]
fn autoencoders_with_codes_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    let config = VqVaeConfig {
        strides: vec![2],
        channels: vec![16],
        residual_blocks: 1,
        residual_channels: 8,
        ..VqVaeConfig::new(digits::SHAPE)
    };
    let vae = config.init(&flex()).unwrap().init_weights(2);
    vae.save_pretrained(run.join("final")).unwrap();
    let prior = CodePriorConfig {
        d_model: 16,
        n_layer: 1,
        n_head: 2,
        num_classes: Some(10),
        ..CodePriorConfig::new(vae.code_shapes()[0])
    };
    let prior = prior.init(&flex()).unwrap().init_weights(3);
    prior.save_pretrained(run.join("prior/final")).unwrap();
    let json = judged(root.path(), &run, &[]);
    // The prior draws classes.
    assert_eq!(measure(&json, "Conditional accuracy")["count"], 12);
    measure(&json, "Memorisation by the prior (AUC)");
}

/// A pipeline whose classes have names, in another order than the folders of the data.
#[test]
fn diffusion_models_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    let network = UNet2dConfig {
        block_out_channels: vec![16, 16],
        ..UNet2dConfig::small(digits::SHAPE, Some(10))
    };
    let network = network.init(&flex()).unwrap().init_weights(5);
    let pipeline = Pipeline::new(network, DdimScheduler::default(), digits::SHAPE).unwrap();
    let names = (0..10).rev().map(|class: u32| class.to_string()).collect();
    let pipeline = pipeline.with_labels(names).unwrap();
    pipeline.save_pretrained(run.join("pipeline")).unwrap();
    let json = judged(root.path(), &run, &["--sampling-steps", "2"]);
    assert_eq!(json["facts"]["Model"], "diffusion model");
    assert_eq!(measure(&json, "Conditional accuracy")["count"], 12);
    measure(&json, "Memorisation (AUC)");
    let command = json["facts"]["Command"].as_str().unwrap();
    assert!(command.contains("--sampling-steps 2"), "{command}");
}

/// A language model has perplexity, and its texts are judged.
#[test]
fn language_models_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let (run, book) = (root.path().join("run"), root.path().join("book.txt"));
    let mut rng = Rng::new(1);
    let mut word = || -> String {
        let letters = 2 + rng.random_index(6);
        let letter = |_| char::from(b'a' + rng.random_index(26) as u8);
        (0..letters).map(letter).collect()
    };
    let lines = (0..200).map(|_| (0..9).map(|_| word()).collect::<Vec<_>>().join(" ") + ".\n");
    let text: String = lines.collect();
    fs::write(&book, &text).unwrap();
    let tokenizer = CharacterTokenizer::from_text(&text);
    let model = Gpt2Config::nano(tokenizer.vocab_size(), 256, [1, 2, 16]);
    let model = model.init(&flex()).unwrap().init_weights(2);
    let dir = run.join("model");
    fs::create_dir_all(&dir).unwrap();
    tokenizer.save_pretrained(&dir).unwrap();
    model.save_pretrained(&dir).unwrap();
    let against = ["--against", book.to_str().unwrap(), "--samples", "6"];
    let (_, json, page) = evaluate(&run, &against);
    assert_eq!(json["facts"]["Model"], "language model");
    for name in ["self-BLEU", "distinct-2", "Repetition", "Copied characters"] {
        assert_eq!(measure(&json, name)["count"], 6, "{name}");
    }
    // Random weights hesitate between about all characters.
    let perplexity = measure(&json, "Perplexity")["value"].as_f64().unwrap();
    let all = tokenizer.vocab_size() as f64;
    assert!((0.5 * all..2.0 * all).contains(&perplexity), "{perplexity}");
    measure(&json, "Bits per character");
    let found = measure(&json, "Memorisation")["value"].as_f64().unwrap();
    assert!((0.1..0.9).contains(&found), "{found}");
    assert!(page.contains("sample 0"));
}

/// LeNet-5 gives features, logits and classes.
#[test]
fn classifiers_judge_images() {
    let root = tempfile::tempdir().unwrap();
    let samples = root.path().join("samples");
    let images: Vec<Image> = digits::train_test_split().1.0[24..36].to_vec();
    save(&images, &samples);
    let weights = root.path().join("lenet.safetensors");
    let lenet = LeNet5Config.init(&flex()).init_weights(0);
    save_weights(&lenet, &weights).unwrap();
    let further = ["--features", "lenet", weights.to_str().unwrap()];
    let data = few_digits(root.path());
    let data: Vec<&str> = data.iter().map(String::as_str).collect();
    let (_, json, _) = evaluate(&samples, &[&data[..], &further[..]].concat());
    for name in [
        "Fréchet distance (LeNet-5)",
        "Inception Score (LeNet-5)",
        "Class entropy",
        "Conditional accuracy",
    ] {
        let notes = measure(&json, name)["notes"].to_string();
        assert_eq!(measure(&json, name)["count"], 12, "{name}");
        let by_net = !name.starts_with('C') || notes.contains("by a LeNet-5");
        assert!(by_net, "{notes}");
    }
}
