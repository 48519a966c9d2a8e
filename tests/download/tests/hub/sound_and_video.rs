//! Models and pipelines of sound and video by their names: files that are opened, and no others.

use super::{
    Hub, REPO, Result, Site,
    families::{requested, serve, set, site},
};
use aigc_core::{device::device, weights::Loaded};
use aigc_diffusion::{MotionAdapter, UNet1dModel, WanTransformer3dModel};
use aigc_gan::vocoder::{HifiGan, UnivNet};
use aigc_pipelines::{
    audio::{DanceDiffusionPipeline, StableAudioPipeline},
    music::MusicgenPipeline,
    speech::{VitsPipeline, VitsVoice},
    video::{AnimateDiffOpenOptions, AnimateDiffPipeline, WanPipeline},
};
use aigc_tests::{bits, folder_from};
use aigc_vae::{
    AutoencoderKlTemporalDecoder, AutoencoderKlWan,
    codec::{AutoencoderOobleck, DacModel, EncodecModel},
};
use burn::{module::Module, tensor::Device};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

const INDEX: &str = "model_index.json";

fn flex() -> Device {
    device("flex").unwrap()
}

/// Adds or replaces a file.
fn put(site: &mut Site, name: &str, content: impl Into<Vec<u8>>) {
    let content = content.into();
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let etag = format!("{:040x}", hasher.finish());
    site.files.insert(name.into(), (etag, content));
}

/// Has the files of a directory under another name, too.
fn copy(site: &mut Site, from: &str, to: &str) {
    let copies: Vec<_> = site
        .files
        .iter()
        .filter_map(|(name, file)| {
            let rest = name.strip_prefix(from)?;
            Some((format!("{to}{rest}"), file.clone()))
        })
        .collect();
    site.files.extend(copies);
}

/// Changes the index of a pipeline.
fn edit_index(site: &mut Site, change: impl FnOnce(&mut Value)) {
    let mut index: Value = serde_json::from_slice(&site.files[INDEX].1).unwrap();
    change(&mut index);
    put(site, INDEX, index.to_string());
}

fn weights(asked: &BTreeSet<String>) -> Vec<&str> {
    let names = asked.iter().map(String::as_str);
    names.filter(|name| name.contains(".safetensors")).collect()
}

/// A model that is saved in `saved`, and that a repository has in its directory `within`, `""` for
/// the root: it is the same whether it is opened there or by its name.
fn opens_by_name<M: Module>(
    saved: &Path,
    within: &str,
    fetch: impl Fn(&Hub) -> Result<PathBuf>,
    open: impl Fn(&Path) -> Result<Loaded<M>>,
) {
    let mut all = site(saved);
    if !within.is_empty() {
        copy(&mut all, "", &format!("{within}/"));
        all.files.retain(|name, _| name.starts_with(within));
    }
    put(&mut all, "README.md", "A model.");
    put(&mut all, "flax_model.msgpack", "Another format.");
    let (server, hub, _cache) = serve(all);
    let dir = fetch(&hub).unwrap();
    let asked = requested(&server);
    assert_eq!(weights(&asked).len(), 1, "{asked:?}");
    assert!(!asked.contains("README.md") && !asked.contains("flax_model.msgpack"));
    let [found, expected] = [dir.as_path(), saved].map(|dir| bits(&*open(dir).unwrap()));
    assert_eq!(found, expected);
    let offline = Hub {
        offline: true,
        ..hub
    };
    assert_eq!(fetch(&offline).unwrap(), dir);
    assert_eq!(server.log(), [""; 0]);
}

macro_rules! open_by_name {
    ($($model:ty = $saved:expr, in $within:literal;)*) => {$(
        opens_by_name(
            &$saved,
            $within,
            |hub| <$model>::snapshot(hub, REPO, "main", &mut |_, _, _| {}),
            |dir| <$model>::from_pretrained(dir, &flex()),
        );
    )*};
}

#[test]
fn models_of_sound_and_video_open_by_name() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let sound = |name: &str| fixtures.join("audio/nets").join(name).join("model");
    let video = |name: &str| fixtures.join("video/nets").join(name);
    open_by_name! {
        EncodecModel = sound("encodec-causal-mono"), in "";
        DacModel = sound("dac-plain"), in "";
        AutoencoderOobleck = sound("oobleck"), in "vae";
        HifiGan = sound("hifigan-plain"), in "";
        UnivNet = sound("univnet"), in "";
        UNet1dModel = sound("unet1d"), in "unet";
        AutoencoderKlWan = video("wan-autoencoder/model"), in "vae";
        AutoencoderKlTemporalDecoder = video("autoencoder-temporal-decoder/model"), in "vae";
        WanTransformer3dModel = video("wan-transformer/model"), in "transformer";
        MotionAdapter = video("motion-unet-parts/motion_adapter"), in "";
    }
}

/// Only the weights of the requested variant are downloaded, and none if the configuration is that
/// of another model.
#[test]
fn variants_and_configurations_of_motion_modules() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let mut all = site(&fixtures.join("video/nets/motion-unet-parts/motion_adapter"));
    let half = "diffusion_pytorch_model.fp16.safetensors";
    let content = all.files["diffusion_pytorch_model.safetensors"].1.clone();
    put(&mut all, half, content);
    let (server, hub, _cache) = serve(all.clone());
    let fetch = |hub: &Hub| {
        MotionAdapter::snapshot_with_variant(hub, REPO, "main", "fp16", &mut |_, _, _| {})
    };
    let dir = fetch(&hub).unwrap();
    assert_eq!(weights(&requested(&server)), [half]);
    MotionAdapter::from_pretrained_with_variant(&dir, "fp16", &flex()).unwrap();

    put(
        &mut all,
        "config.json",
        "{\"_class_name\": \"UNet1DModel\"}",
    );
    let (server, hub, _cache) = serve(all);
    let message = fetch(&hub).unwrap_err().to_string();
    assert!(message.contains("config.json"), "{message}");
    assert!(weights(&requested(&server)).is_empty());
}

/// A pipeline's directory with more files than it opens.
fn with_others(saved: &Path) -> (Site, Vec<String>) {
    let mut all = site(saved);
    let before: BTreeSet<String> = all.files.keys().cloned().collect();
    for part in ["safety_checker", "image_encoder", "feature_extractor"] {
        put(&mut all, &format!("{part}/config.json"), "{}");
        put(&mut all, &format!("{part}/model.safetensors"), "");
    }
    for part in ["unet", "transformer", "vae"] {
        put(&mut all, &format!("{part}/diffusion_pytorch_model.bin"), "");
        let other = format!("{part}/diffusion_pytorch_model.fp16.safetensors");
        put(&mut all, &other, "");
    }
    put(&mut all, "model.safetensors", "");
    edit_index(&mut all, |index| {
        index["safety_checker"] = json!(["transformers", "CLIPModel"]);
    });
    let others = all.files.keys().filter(|name| !before.contains(*name));
    let others = others.cloned().collect();
    (all, others)
}

/// A pipeline opens by its name, and of its repository only what the index needs is downloaded. The
/// directory `idle` of what is saved is none of it.
fn pipeline_opens_by_name<P>(
    saved: &Path,
    idle: &str,
    fetch: impl Fn(&Hub) -> Result<PathBuf>,
    open: impl Fn(&Path) -> Result<Loaded<P>>,
) {
    let (all, others) = with_others(saved);
    let is_idle = |name: &String| name.starts_with(idle) || others.contains(name);
    let names: Vec<String> = all.files.keys().cloned().collect();
    let (server, hub, _cache) = serve(all);
    let dir = fetch(&hub).unwrap();
    let asked = requested(&server);
    let wrong = |name: &&String| asked.contains(*name) == is_idle(name);
    let wrong: Vec<_> = names.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?} of {asked:?}");
    let opened = open(&dir).map(drop);
    assert!(opened.is_ok(), "{opened:?}");

    // Again without any request but that of the branch, and without the hub.
    assert_eq!(fetch(&hub).unwrap(), dir);
    assert_eq!(requested(&server), set(&[INDEX]));
    let offline = Hub {
        offline: true,
        ..hub
    };
    assert_eq!(fetch(&offline).unwrap(), dir);
    assert_eq!(server.log(), [""; 0]);
}

macro_rules! pipelines_open_by_name {
    ($($pipeline:ty = $saved:expr;)*) => {$(
        pipeline_opens_by_name(
            &$saved,
            "none/",
            |hub| <$pipeline>::snapshot(hub, REPO, "main", &mut |_, _, _| {}),
            |dir| <$pipeline>::from_pretrained(dir, &flex()),
        );
    )*};
}

fn animate_diff(hub: &Hub, options: &AnimateDiffOpenOptions) -> Result<PathBuf> {
    AnimateDiffPipeline::snapshot(hub, REPO, "main", options, &mut |_, _, _| {})
}

#[test]
fn pipelines_of_sound_and_video_open_by_name() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let saved = |name: &str| fixtures.join(name).join("pipeline");
    pipelines_open_by_name! {
        StableAudioPipeline = saved("audio/pipelines/stable-audio-dpm");
        DanceDiffusionPipeline = saved("audio/pipelines/dance-diffusion");
        WanPipeline = saved("video/pipelines/wan-UniPCMultistepScheduler");
    }
    // The network's files have the motion modules.
    pipeline_opens_by_name(
        &saved("video/pipelines/animatediff-DDIMScheduler"),
        "motion_adapter/",
        |hub| animate_diff(hub, &AnimateDiffOpenOptions::default()),
        |dir| AnimateDiffPipeline::from_pretrained(dir, &flex()),
    );
}

/// A second network needs the setting that says when it is used; motion modules may be elsewhere.
#[test]
fn parts_that_are_not_used_are_not_downloaded() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let saved = fixtures.join("video/pipelines/wan-UniPCMultistepScheduler/pipeline");
    let mut all = site(&saved);
    copy(&mut all, "transformer/", "transformer_2/");
    edit_index(&mut all, |index| {
        index["transformer_2"] = index["transformer"].clone();
    });
    let second = "transformer_2/diffusion_pytorch_model.safetensors";
    let fetch = |hub: &Hub| WanPipeline::snapshot(hub, REPO, "main", &mut |_, _, _| {});
    for has_boundary in [false, true] {
        if has_boundary {
            edit_index(&mut all, |index| index["boundary_ratio"] = json!(0.5));
        }
        let (server, hub, _cache) = serve(all.clone());
        let dir = fetch(&hub).unwrap();
        assert_eq!(requested(&server).contains(second), has_boundary);
        WanPipeline::from_pretrained(&dir, &flex()).unwrap();
    }

    // Image network and motion modules with files of their own.
    let parts = fixtures.join("video/nets/motion-unet-parts");
    let mut all = site(&fixtures.join("video/pipelines/animatediff-DDIMScheduler/pipeline"));
    for part in ["unet", "motion_adapter"] {
        for (name, (_, content)) in site(&parts.join(part)).files {
            put(&mut all, &format!("{part}/{name}"), content);
        }
    }
    edit_index(&mut all, |index| {
        index["unet"] = json!(["diffusers", "UNet2DConditionModel"]);
    });
    let plain = AnimateDiffOpenOptions::default();
    let other = plain
        .clone()
        .with_motion_adapter(parts.join("motion_adapter"));
    for (options, downloaded) in [(plain, true), (other, false)] {
        let (server, hub, _cache) = serve(all.clone());
        animate_diff(&hub, &options).unwrap();
        let asked = requested(&server);
        let found = asked.iter().any(|name| name.starts_with("motion_adapter/"));
        assert_eq!(found, downloaded, "{asked:?}");
    }
}

/// A configuration that cannot be opened ends the download before any weights.
#[test]
fn configurations_of_all_parts_are_checked_before_weights() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let saved = fixtures.join("video/pipelines/wan-UniPCMultistepScheduler/pipeline");
    let fetch = |hub: &Hub| WanPipeline::snapshot(hub, REPO, "main", &mut |_, _, _| {});
    for (file, content, expected) in [
        (
            "vae/config.json",
            "{\"_class_name\": \"VQModel\"}",
            "VQModel",
        ),
        ("scheduler/scheduler_config.json", "[]", "scheduler_config"),
        (INDEX, "{\"_class_name\": \"FluxPipeline\"}", "FluxPipeline"),
    ] {
        let mut all = site(&saved);
        put(&mut all, file, content);
        let (server, hub, _cache) = serve(all);
        let message = fetch(&hub).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(weights(&requested(&server)).is_empty());
    }
}

/// Pipelines of transformers have all parts in one file, and a tokenizer beside it.
#[test]
fn voices_and_music_open_by_name() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let nets = fixtures.join("audio/nets");
    let saved = nets.join("musicgen-mono/model");
    let (server, hub, _cache) = serve(site(&saved));
    let dir = MusicgenPipeline::snapshot(&hub, REPO, "main", &mut |_, _, _| {}).unwrap();
    assert_eq!(weights(&requested(&server)), ["model.safetensors"]);
    MusicgenPipeline::from_pretrained(&dir, &flex()).unwrap();

    let mut all = site(&saved);
    let mut config: Value = serde_json::from_slice(&all.files["config.json"].1).unwrap();
    config["audio_encoder"]["model_type"] = json!("dac");
    put(&mut all, "config.json", config.to_string());
    let (server, hub, _cache) = serve(all);
    let failed = MusicgenPipeline::snapshot(&hub, REPO, "main", &mut |_, _, _| {});
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("audio_encoder.model_type"), "{message}");
    assert!(weights(&requested(&server)).is_empty());

    let mut all = site(&nets.join("vits-deterministic/model"));
    for (name, (_, content)) in site(&nets.join("vits-tokenizer/tokenizer")).files {
        put(&mut all, &name, content);
    }
    let (server, hub, _cache) = serve(all);
    let dir = VitsPipeline::snapshot(&hub, REPO, "main", &mut |_, _, _| {}).unwrap();
    let wanted = [
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
        "vocab.json",
    ];
    assert_eq!(requested(&server), set(&wanted));
    VitsVoice::from_pretrained(&dir, &flex()).unwrap();
}
