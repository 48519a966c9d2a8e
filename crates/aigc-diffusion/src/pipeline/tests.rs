//! Pipelines in directories: saved, opened, broken.

use super::*;
use crate::{DdimScheduler, DdpmScheduler, UNet2dConfig, models};
use aigc_core::{
    data::ClassLabels,
    device::device,
    rng::InitWeights,
    weights::{WeightReader, save_tensors},
};
use burn::tensor::TensorData;
use std::{collections::BTreeMap, fs};

fn tiny(classes: Option<usize>) -> UNet2dConfig {
    UNet2dConfig {
        sample_size: Some(8.into()),
        in_channels: 1,
        out_channels: 1,
        down_block_types: vec![models::DownBlockType::DownBlock2D; 2],
        up_block_types: vec![models::UpBlockType::UpBlock2D; 2],
        block_out_channels: vec![8, 8],
        layers_per_block: 1,
        norm_num_groups: 4,
        num_class_embeds: classes,
        ..UNet2dConfig::default()
    }
}

fn pipeline(classes: Option<usize>) -> Pipeline {
    let network = tiny(classes)
        .init(&device("flex").unwrap())
        .unwrap()
        .init_weights(3);
    Pipeline::new(network, DdimScheduler::default(), ImageShape::new(1, 8, 8)).unwrap()
}

/// `DDPMPipeline` passes the network no class embeddings.
#[test]
fn identity_network_is_no_ddpm_pipeline() {
    let (flex, folder) = (device("flex").unwrap(), tempfile::tempdir().unwrap());
    for (class_embed_type, class) in [
        (None, "DDPMPipeline"),
        (Some(models::ClassEmbedType::Identity), "DiffusionPipeline"),
    ] {
        let config = UNet2dConfig {
            class_embed_type,
            ..tiny(None)
        };
        let network = config.init(&flex).unwrap().init_weights(3);
        let shape = ImageShape::new(1, 8, 8);
        let pipeline = Pipeline::new(network, DdimScheduler::default(), shape).unwrap();
        pipeline.save_pretrained(folder.path()).unwrap();
        let index = fs::read_to_string(folder.path().join(INDEX)).unwrap();
        assert!(index.contains(&format!("\"{class}\"")), "{index}");
    }
}

#[test]
fn saved_pipeline_opens_and_generates_the_same_images() {
    let flex = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let labels = ["cat", "dog, hound"].map(String::from).to_vec();
    let saved = pipeline(Some(3)).with_labels(labels).unwrap();
    saved.save_pretrained(folder.path()).unwrap();
    let opened = Pipeline::from_pretrained(folder.path(), &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(
        (opened.class("cat").unwrap(), opened.class("hound").unwrap()),
        (0, 1)
    );
    assert_eq!(opened.scheduler, saved.scheduler);
    let images = |pipeline: &Pipeline| {
        pipeline
            .sampler(3, &flex)
            .unwrap()
            .with_classes(ClassLabels::All(1))
            .sample(2, 5)
            .unwrap()
            .values
            .into_data()
    };
    assert_eq!(images(&saved), images(&opened));
    // The third class is the null class, which is not drawn.
    assert_eq!(
        (opened.num_classes(), opened.null_class()),
        (Some(2), Some(2))
    );
    let classes = opened
        .sampler(1, &flex)
        .unwrap()
        .sample(60, 0)
        .unwrap()
        .labels
        .unwrap();
    assert!(
        classes.contains(&0) && classes.contains(&1) && !classes.contains(&2),
        "{classes:?}"
    );
}

#[test]
fn broken_directory_names_file_and_field() {
    let flex = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let message = || {
        Pipeline::from_pretrained(folder.path(), &flex)
            .unwrap_err()
            .to_string()
    };
    assert!(message().contains("model_index.json"), "{}", message());
    pipeline(None).save_pretrained(folder.path()).unwrap();
    let index = fs::read_to_string(at(INDEX)).unwrap();
    let spoilt = |from: &str, to: &str| fs::write(at(INDEX), index.replace(from, to)).unwrap();
    for (from, to, expected) in [
        (
            "UNet2DModel",
            "UNet3DModel",
            "`unet` is UNet3DModel, expected one of UNet2DModel",
        ),
        (
            "DDIMScheduler",
            "MagicScheduler",
            "`scheduler` is MagicScheduler",
        ),
        ("\"unet\"", "\"_unet\"", "`unet` is missing"),
        (
            "\"unet\"",
            "\"id2label\": {\"1\": \"a\"}, \"unet\"",
            "`id2label`",
        ),
        (
            "\"unet\"",
            "\"id2label\": {\"0\": \"a\"}, \"unet\"",
            "`labels` is 1, expected at most 0",
        ),
        ("\"unet\"", "\"transformer\"", "transformer"),
        ("{", "[", "not JSON: "),
    ] {
        spoilt(from, to);
        let message = message();
        assert!(message.contains(expected), "{from} as {to}: {message}");
    }
    // What newer versions add is listed.
    spoilt("\"unet\"", "\"of_tomorrow\": 1, \"unet\"");
    assert_eq!(
        Pipeline::from_pretrained(folder.path(), &flex)
            .unwrap()
            .unused_fields,
        ["model_index.json: of_tomorrow"]
    );
    spoilt("", "");
    // One file after the other is removed, or truncated.
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let whole = fs::read(at(weights)).unwrap();
    fs::write(at(weights), &whole[..whole.len() - 5]).unwrap();
    assert!(
        message().contains("diffusion_pytorch_model.safetensors"),
        "{}",
        message()
    );
    let mut other = tiny(None);
    other.block_out_channels = vec![8, 16];
    let network = other.init(&flex).unwrap().init_weights(0);
    AnyDenoiser::from(network)
        .save_pretrained(at("unet"))
        .unwrap();
    let config = AnyDenoiser::from(tiny(None).init(&flex).unwrap()).to_json();
    fs::write(at("unet/config.json"), config).unwrap();
    assert!(
        message().contains("size mismatch") && message().contains("down_blocks.1"),
        "{}",
        message()
    );
    // Sizes that fit nothing.
    let config = fs::read_to_string(at("unet/config.json")).unwrap();
    for (from, to, expected) in [
        (
            "\"in_channels\": 1",
            "\"in_channels\": 3",
            "`in_channels` is 3",
        ),
        (
            "\"out_channels\": 1",
            "\"out_channels\": 3",
            "`out_channels` is 3",
        ),
        ("\"sample_size\": 8", "\"sample_size\": 9", "multiples of 2"),
        (
            "\"sample_size\": 8",
            "\"sample_size\": 4294967296",
            "`sample_size` is 4294967296",
        ),
        (
            "\"sample_size\": 8",
            "\"sample_size\": [8, 9]",
            "multiples of 2",
        ),
        (
            "\"freq_shift\": 0.0",
            "\"freq_shift\": 4.0",
            "`freq_shift` is 4",
        ),
    ] {
        let spoilt = config.replace(from, to);
        assert_ne!(spoilt, config);
        fs::write(at("unet/config.json"), &spoilt).unwrap();
        // With weights that fit, so that they are not what is complained of.
        if let Ok(network) = AnyDenoiser::from_json(&spoilt, &flex) {
            let network = network.into_inner().init_weights(0);
            network.save_pretrained(at("unet")).unwrap();
        }
        let message = message();
        assert!(
            message.contains("config.json") && message.contains(expected),
            "{to}: {message}"
        );
    }
    fs::write(at("unet/config.json"), config).unwrap();
    let scheduler = fs::read_to_string(at("scheduler/scheduler_config.json")).unwrap();
    fs::write(
        at("scheduler/scheduler_config.json"),
        scheduler.replace("0.02", "2.0"),
    )
    .unwrap();
    assert!(
        message().contains("scheduler_config.json") && message().contains("`beta_end` is 2"),
        "{}",
        message()
    );
    fs::write(at("scheduler/scheduler_config.json"), scheduler).unwrap();
    for file in [
        weights,
        "unet/config.json",
        "scheduler/scheduler_config.json",
    ] {
        let held = fs::read(at(file)).unwrap();
        fs::remove_file(at(file)).unwrap();
        let message = message();
        assert!(
            message.contains(file.rsplit('/').next().unwrap()),
            "{file}: {message}"
        );
        fs::write(at(file), held).unwrap();
    }
}

#[test]
fn labels_and_shapes_are_checked() {
    let two = pipeline(Some(2));
    let cranes = two
        .clone()
        .with_labels(vec!["crane".into(), "crane, lifting".into()])
        .unwrap();
    let message = cranes.class("crane").unwrap_err().to_string();
    assert!(
        message.contains("`class` is crane, expected the name of one class; [0, 1] have it"),
        "{message}"
    );
    assert_eq!(cranes.class("lifting").unwrap(), 1);
    let named = two.with_labels(vec!["a".into(), "b".into()]).unwrap();
    let message = named.class("c").unwrap_err().to_string();
    assert!(
        message.contains("`class` is c, expected one of a, b"),
        "{message}"
    );
    let network = tiny(None).init(&device("flex").unwrap()).unwrap();
    let message = Pipeline::new(
        network.clone(),
        DdpmScheduler::default(),
        ImageShape::new(3, 8, 8),
    )
    .unwrap_err();
    assert!(
        message.to_string().contains("`in_channels` is 1"),
        "{message}"
    );
    let wide = ImageShape::new(1, 8, 10);
    let other = Pipeline::new(network, DdpmScheduler::default(), wide).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let message = other
        .save_pretrained(folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`sample_size` is 1×8×8, expected 1×8×10"),
        "{message}"
    );
    let flex = device("flex").unwrap();
    let config = UNet2dConfig {
        sample_size: Some(wide.into()),
        ..tiny(None)
    };
    let fits = Pipeline::new(config.init(&flex).unwrap(), DdpmScheduler::default(), wide).unwrap();
    fits.save_pretrained(folder.path()).unwrap();
    assert_eq!(
        Pipeline::from_pretrained(folder.path(), &flex)
            .unwrap()
            .shape,
        wide
    );
}

#[test]
fn missing_learned_variance_is_an_error() {
    let flex = device("flex").unwrap();
    let learned = DdpmScheduler {
        variance_type: crate::VarianceType::LearnedRange,
        ..DdpmScheduler::default()
    };
    let pipeline = Pipeline {
        scheduler: learned.into(),
        ..pipeline(None)
    };
    let message = pipeline
        .sampler(3, &flex)
        .unwrap()
        .sample(1, 0)
        .unwrap_err()
        .to_string();
    assert!(message.contains("`variance_type` is learned"), "{message}");
}

fn images(pipeline: &Pipeline) -> TensorData {
    let sampler = pipeline.sampler(3, &device("flex").unwrap()).unwrap();
    sampler.sample(2, 5).unwrap().values.into_data()
}

/// The same files in the layouts that are in circulation.
#[test]
fn pipeline_opens_in_every_layout() {
    let flex = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let saved = pipeline(None);
    let expected = images(&saved);
    let case = |name: &str, moves: &[(&str, &str)], removed: &[&str]| {
        let root = dir.path().join(name);
        saved.save_pretrained(&root).unwrap();
        for (from, to) in moves {
            fs::rename(root.join(from), root.join(to)).unwrap();
        }
        for file in removed {
            fs::remove_file(root.join(file)).unwrap();
        }
        let opened = Pipeline::from_pretrained(&root, &flex).unwrap();
        assert_eq!(images(&opened), expected, "{name}");
        opened.notes.clone()
    };
    let weights = "diffusion_pytorch_model.safetensors";
    let to_root = [
        ("unet/config.json", "config.json"),
        ("unet/diffusion_pytorch_model.safetensors", weights),
        ("scheduler/scheduler_config.json", SCHEDULER_CONFIG),
        ("unet", "old_unet"),
        ("scheduler", "old_scheduler"),
    ];
    assert!(case("flat", &to_root, &[]).is_empty());
    assert!(case("without_index", &to_root, &[INDEX]).is_empty());
    let notes = case("averaged", &[("unet", "unet_ema")], &[]);
    assert_eq!(notes, ["unet_ema was opened, there is no unet"]);
    let variant = "unet/diffusion_pytorch_model.fp16.safetensors";
    let notes = case("variant", &[(to_root[1].0, variant)], &[]);
    assert!(notes.len() == 1 && notes[0].contains("fp16"), "{notes:?}");
    let root = dir.path().join("variant");
    let opened = Pipeline::from_pretrained_with_variant(&root, "fp16", &flex).unwrap();
    assert_eq!(images(&opened), expected);
    assert!(opened.notes.is_empty(), "{opened}");
    let missing = Pipeline::from_pretrained_with_variant(&root, "bf16", &flex);
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("variant bf16"), "{message}");
    // Shards without an index.
    let root = dir.path().join("shards");
    saved.save_pretrained(&root).unwrap();
    let unet = root.join("unet");
    let mut shards = [BTreeMap::new(), BTreeMap::new()];
    let reader = WeightReader::open(&unet.join(weights)).unwrap();
    for (i, name) in reader.names().enumerate() {
        let shape = reader.shape(name).unwrap().to_vec();
        let data = TensorData::new(reader.read(name).unwrap(), shape);
        shards[i % 2].insert(name.to_owned(), data);
    }
    drop(reader);
    fs::remove_file(unet.join(weights)).unwrap();
    for (i, tensors) in shards.iter().enumerate() {
        let name = format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i + 1);
        save_tensors(tensors, &unet.join(name)).unwrap();
    }
    let opened = Pipeline::from_pretrained(&root, &flex).unwrap();
    assert_eq!(images(&opened), expected);
}

/// What the index has besides network and scheduler.
#[test]
fn unknown_components_are_listed() {
    let flex = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    pipeline(None).save_pretrained(dir.path()).unwrap();
    let index = fs::read_to_string(dir.path().join(INDEX)).unwrap();
    let more = r#""vae": ["diffusers", "AutoencoderKL"], "safety_checker": [null, null], "unet""#;
    fs::write(dir.path().join(INDEX), index.replace("\"unet\"", more)).unwrap();
    let opened = Pipeline::from_pretrained(dir.path(), &flex).unwrap();
    assert_eq!(
        opened.notes,
        ["component vae (AutoencoderKL) was not opened"]
    );
    assert!(opened.unused_fields.is_empty());
    let [vae] = opened.components() else {
        panic!("{:?}", opened.components())
    };
    assert_eq!(
        (vae.class.as_str(), vae.dir.as_path()),
        ("AutoencoderKL", dir.path().join("vae").as_path())
    );
}

/// As in diffusers, the index says which scheduler it is; networks have to agree.
#[test]
fn index_names_the_classes() {
    let flex = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    pipeline(None).save_pretrained(dir.path()).unwrap();
    let index = fs::read_to_string(dir.path().join(INDEX)).unwrap();
    let spoil = |from, to| fs::write(dir.path().join(INDEX), index.replace(from, to)).unwrap();
    spoil("DDIMScheduler", "PNDMScheduler");
    let opened = Pipeline::from_pretrained(dir.path(), &flex).unwrap();
    assert_eq!(opened.scheduler.class(), "PNDMScheduler");
    assert!(
        opened.notes[0].contains("PNDMScheduler and scheduler_config.json DDIMScheduler"),
        "{:?}",
        opened.notes
    );
    spoil("UNet2DModel", "UNet2DConditionModel");
    let message = Pipeline::from_pretrained(dir.path(), &flex)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`_class_name` is UNet2DModel, expected UNet2DConditionModel"),
        "{message}"
    );
}
