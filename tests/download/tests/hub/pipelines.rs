//! Pipelines of images from a prompt by their names: files of the parts that are opened, and no
//! others.

use super::{
    Hub, REPO, Result,
    families::{requested, serve, set, site},
};
use aigc_core::{
    device::device,
    text_to_image::{ImageRequest, TextToImage},
};
use aigc_pipelines::text_to_image::{PipelineOpenOptions, TextToImagePipeline};
use aigc_tests::folder_from;
use std::path::{Path, PathBuf};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";

fn fetch(hub: &Hub, options: &PipelineOpenOptions) -> Result<PathBuf> {
    TextToImagePipeline::snapshot(hub, REPO, "main", options, &mut |_, _, _| {})
}

fn pixels(dir: &Path, options: &PipelineOpenOptions) -> Vec<u8> {
    let flex = device("flex").unwrap();
    let pipeline = TextToImagePipeline::from_pretrained_with(dir, options, &flex).unwrap();
    let request = ImageRequest::new("a cat").with_size(32, 32).with_seed(3);
    let made = pipeline.generate(&request.with_num_inference_steps(2));
    made.unwrap().images[0].image.to_rgb8().into_raw()
}

#[test]
fn files_of_opened_parts_are_downloaded() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let saved = fixtures.join("pipelines/tiny-sd15");
    let mut all = site(&saved);
    let others = [
        "README.md",
        "v1-5-pruned.safetensors",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
    ];
    for name in others {
        let file = all.files[UNET].clone();
        all.files.insert(name.into(), file);
    }
    let (server, hub, _cache) = serve(all);
    let options = PipelineOpenOptions::default();
    let dir = fetch(&hub, &options).unwrap();
    let asked = requested(&server);
    for name in others {
        assert!(!asked.contains(name), "{name} of {asked:?}");
    }
    let wanted = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "vae/config.json",
        TEXT_ENCODER,
        UNET,
        VAE,
    ];
    let missing: Vec<String> = set(&wanted).difference(&asked).cloned().collect();
    assert!(missing.is_empty(), "{missing:?} of {asked:?}");
    assert_eq!(pixels(&dir, &options), pixels(&saved, &options));

    // Again without any request but that of the branch, and without the hub.
    assert_eq!(fetch(&hub, &options).unwrap(), dir);
    assert_eq!(requested(&server), set(&["model_index.json"]));
    let offline = Hub {
        offline: true,
        ..hub
    };
    assert_eq!(fetch(&offline, &options).unwrap(), dir);
    assert_eq!(server.log(), [""; 0]);
}

/// The network has to have the variant, other parts need not; parts that are left out stay there.
#[test]
fn variants_and_parts_that_are_left_out_count() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let saved = fixtures.join("pipelines/tiny-sd15");
    let mut all = site(&saved);
    let variant = UNET.replace(".safetensors", ".fp16.safetensors");
    let file = all.files[UNET].clone();
    all.files.insert(variant.clone(), file);
    let (server, hub, _cache) = serve(all);
    let options = PipelineOpenOptions::default().with_variant("fp16");
    let dir = fetch(&hub, &options).unwrap();
    let asked = requested(&server);
    assert!(
        asked.contains(&variant) && !asked.contains(UNET),
        "{asked:?}"
    );
    assert!(
        asked.contains(VAE) && asked.contains(TEXT_ENCODER),
        "{asked:?}"
    );
    let plain = PipelineOpenOptions::default();
    assert_eq!(pixels(&dir, &options), pixels(&saved, &plain));

    let missing = fetch(&hub, &PipelineOpenOptions::default().with_variant("ema"));
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("diffusion_pytorch_model.ema"), "{message}");

    let (server, hub, _cache) = serve(site(&saved));
    let options = PipelineOpenOptions::default()
        .without("text_encoder")
        .without("tokenizer");
    fetch(&hub, &options).unwrap();
    let asked = requested(&server);
    let left_out =
        |name: &String| name.starts_with("text_encoder") || name.starts_with("tokenizer");
    assert!(
        asked.contains(UNET) && !asked.iter().any(left_out),
        "{asked:?}"
    );
}
