//! Adapters of whole pipelines: several at once, attached, taken away, refused, and of parts that
//! are opened again.

use crate::tiny_pipelines::{apart, open, open_with, pixels, request, tiny};
use aigc_core::text_to_image::TextToImage;
use aigc_pipelines::{
    adapters::{LoraScales, TextualInversion},
    text_to_image::{LoraMode, PipelineOpenOptions, Residency, TextToImagePipeline},
};
use image::RgbImage;
use std::path::PathBuf;

/// A file of a case.
fn file(case: &str, name: &str) -> PathBuf {
    tiny(case).expect("checked before").join(name)
}

/// Two adapters with strengths of their own.
fn two() -> [(PathBuf, LoraScales); 2] {
    [("a.safetensors", 0.7), ("b.safetensors", 0.4)]
        .map(|(name, scale)| (file("sd15-lora-two", name), LoraScales::new(scale)))
}

fn image(pipeline: &TextToImagePipeline) -> RgbImage {
    let mut images = pixels(&pipeline.generate(&request()).unwrap());
    images.remove(0)
}

/// Bytes of the network's weights in an estimate.
fn network_bytes(pipeline: &TextToImagePipeline) -> u64 {
    let estimate = pipeline.memory_estimate(&request(), pipeline.options());
    let weights = estimate.unwrap().weights;
    let network = weights.into_iter().find(|(name, _)| name == "unet");
    network.expect("a network").1
}

#[test]
fn attached_adapters_make_the_images_of_merged_ones() {
    let Some(mut pipeline) = open("tiny-sd15") else {
        return;
    };
    let (plain, bytes) = (image(&pipeline), network_bytes(&pipeline));
    let mut images = vec![];
    for mode in [LoraMode::Merged, LoraMode::Attached] {
        let reports = pipeline.load_loras(&two(), mode).unwrap();
        assert!(reports.len() == 2 && reports.iter().all(|report| report.is_complete()));
        // What is attached is in memory beside the weights.
        match mode {
            LoraMode::Attached => assert!(network_bytes(&pipeline) > bytes),
            _ => assert_eq!(network_bytes(&pipeline), bytes),
        }
        let result = pipeline.generate(&request()).unwrap();
        let recorded = result.settings.iter().filter(|(name, _)| name == "lora");
        assert_eq!(recorded.count(), 2);
        images.push(pixels(&result).remove(0));
        pipeline.unload_adapters().unwrap();
        assert_eq!(network_bytes(&pipeline), bytes);
        assert_eq!(image(&pipeline), plain, "{mode:?}");
    }
    assert!(apart(&images[0], &plain) > 8);
    let worst = apart(&images[0], &images[1]);
    assert!(worst <= 1, "{worst}");
    let result = pipeline.generate(&request()).unwrap();
    assert!(result.settings.iter().all(|(name, _)| name != "lora"));
}

/// The parts are as they were, with the adapters that were applied before.
#[test]
fn refused_adapters_change_nothing() {
    let (Some(mut sd), Some(mut other)) = (open("tiny-sd15"), open("tiny-sd21")) else {
        return;
    };
    let plain = image(&other);
    let message = other.load_lora(&two()[0].0, 1.0).unwrap_err().to_string();
    assert!(message.contains("a.safetensors"), "{message}");
    assert_eq!(image(&other), plain);

    let plain = image(&sd);
    let [first, second] = two();
    sd.load_lora(&first.0, 0.7).unwrap();
    let adapted = image(&sd);
    assert_ne!(adapted, plain);
    let unfit = file("sdxl-lora-kohya", "lora.safetensors");
    let both = [second, (unfit, LoraScales::new(1.0))];
    for mode in [LoraMode::Merged, LoraMode::Attached] {
        sd.load_loras(&both, mode).unwrap_err();
        let result = sd.generate(&request()).unwrap();
        assert_eq!(pixels(&result)[0], adapted, "{mode:?}");
        let recorded = result.settings.iter().filter(|(name, _)| name == "lora");
        assert_eq!(recorded.count(), 1);
    }
    sd.unload_adapters().unwrap();
    assert_eq!(image(&sd), plain);
}

/// All adapters that do not fit are named at once.
#[test]
fn every_unfit_adapter_is_named() {
    let Some(mut sd) = open("tiny-sd15") else {
        return;
    };
    let (dir, unfit) = (
        tempfile::tempdir().unwrap(),
        file("sdxl-lora-kohya", "lora.safetensors"),
    );
    let names = ["first.safetensors", "second.safetensors"];
    let mut files = two().to_vec();
    for name in names {
        let path = dir.path().join(name);
        std::fs::copy(&unfit, &path).unwrap();
        files.push((path, LoraScales::new(1.0)));
    }
    let error = sd.load_loras(&files, LoraMode::Merged).unwrap_err();
    let message = error.to_string();
    let fitting = ["a.safetensors", "b.safetensors"];
    for (unfit, fits) in names.into_iter().zip(fitting) {
        assert!(message.contains(unfit), "{unfit}: {message}");
        assert!(!message.contains(fits), "{fits}: {message}");
    }
}

/// Parts that are released after their use are changed again whenever they are opened.
#[test]
fn parts_that_are_opened_again_have_their_adapters() {
    let inversion = |pipeline: &mut TextToImagePipeline| {
        let path = file("sd15-textual-inversion-one", "embedding.safetensors");
        let inversion = TextualInversion::open(path).unwrap();
        pipeline.load_textual_inversion(&inversion.with_token("<toy>"))
    };
    let options = PipelineOpenOptions::default().with_residency(Residency::WhileNeeded);
    let (Some(mut always), Some(mut released)) =
        (open("tiny-sd15"), open_with("tiny-sd15", &options))
    else {
        return;
    };
    let mut request = request();
    request.prompt = "a photo of a <toy>".into();
    let plain = pixels(&always.generate(&request).unwrap());
    assert_eq!(pixels(&released.generate(&request).unwrap()), plain);
    for mode in [LoraMode::Merged, LoraMode::Attached] {
        for pipeline in [&mut always, &mut released] {
            pipeline.load_loras(&two(), mode).unwrap();
        }
        let without = pixels(&always.generate(&request).unwrap());
        for pipeline in [&mut always, &mut released] {
            inversion(pipeline).unwrap();
            // A token is added once.
            inversion(pipeline).unwrap_err();
        }
        let expected = pixels(&always.generate(&request).unwrap());
        assert_ne!(expected, without);
        for _ in 0..2 {
            assert_eq!(pixels(&released.generate(&request).unwrap()), expected);
        }
        for pipeline in [&mut always, &mut released] {
            pipeline.unload_adapters().unwrap();
            assert_eq!(pixels(&pipeline.generate(&request).unwrap()), plain);
        }
    }
}
