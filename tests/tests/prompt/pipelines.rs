//! Whole pipelines against diffusers: tokens, embeddings, times, every step, images.

use crate::{
    cases::{Case, every},
    differences::{largest, tensors_apart},
};
use aigc_core::{device::device, text_to_image::ImageRequest};
use aigc_diffusion::{
    AnyScheduler,
    models::{pack_latents, unpack_latents},
};
use aigc_pipelines::{
    adapters::{LoraScales, TextualInversion},
    single_file::{SingleFile, SingleFileOptions},
    text_to_image::{
        ControlSettings, Denoising, Job, LoraMode, NoiseStream, PipelineOpenOptions,
        PipelineOptions, PromptEmbeddings, Prompts, TextToImagePipeline,
    },
};
use aigc_vae::AutoencoderKl;
use burn::tensor::{Device, Tensor};
use image::{DynamicImage, GrayImage, RgbImage};
use serde_json::Value;
use std::path::PathBuf;

/// Tolerance of embeddings and steps; of what a whole run leads to.
const STEP: f64 = 1e-4;
const FINAL: f64 = 1e-3;
/// Of tables that are computed in double precision. The stored ones are in single: times of σ
/// between two of the schedule are up to 4e-5 off there, by cancellation.
const TABLE: f64 = 1e-4;

/// The arguments of the calls that are understood.
const ARGUMENTS: [&str; 33] = [
    "prompt",
    "prompt_2",
    "prompt_3",
    "negative_prompt",
    "negative_prompt_2",
    "negative_prompt_3",
    "height",
    "width",
    "num_images_per_prompt",
    "num_inference_steps",
    "guidance_scale",
    "strength",
    "eta",
    "guidance_rescale",
    "true_cfg_scale",
    "clip_skip",
    "max_sequence_length",
    "denoising_start",
    "denoising_end",
    "use_resolution_binning",
    "guess_mode",
    "control_guidance_start",
    "control_guidance_end",
    "controlnet_conditioning_scale",
    "original_size",
    "target_size",
    "crops_coords_top_left",
    "negative_original_size",
    "negative_target_size",
    "negative_crops_coords_top_left",
    "aesthetic_score",
    "negative_aesthetic_score",
    "clean_caption",
];

/// The stored noise, in order.
struct Tape<'a> {
    case: &'a Case,
    next: usize,
}

impl NoiseStream for Tape<'_> {
    fn normal(&mut self, shape: [usize; 4], _device: &Device) -> Tensor<4> {
        let name = format!("noise.{:03}", self.next);
        self.next += 1;
        let noise: Tensor<4> = self.case.float(&name);
        assert_eq!(noise.dims(), shape, "{}: {name}", self.case.name());
        noise
    }

    /// diffusers draws once for all images that start from one.
    fn posterior(&mut self, shape: [usize; 4], device: &Device) -> Tensor<4> {
        let [_, channels, height, width] = shape;
        self.normal([1, channels, height, width], device)
    }
}

/// A pipeline, and what a case asks of it.
struct Opened {
    pipeline: TextToImagePipeline,
    request: ImageRequest,
    options: PipelineOptions,
    prompts: Prompts,
    /// Images of each prompt.
    n: usize,
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(all) => Some(all.iter().map(|t| t.as_str().unwrap().to_owned()).collect()),
        _ => None,
    }
}

fn pair(value: &Value) -> Option<[u32; 2]> {
    let side = |i: usize| value.get(i).and_then(Value::as_u64).map(|side| side as u32);
    Some([side(0)?, side(1)?])
}

fn picture(case: &Case, name: &str) -> RgbImage {
    let (shape, values) = case.values(name);
    let bytes = values.into_iter().map(|value| value as u8).collect();
    RgbImage::from_raw(shape[2] as u32, shape[1] as u32, bytes).expect("three channels")
}

fn mask(case: &Case, name: &str) -> GrayImage {
    let (shape, values) = case.values(name);
    let bytes = values.into_iter().map(|value| value as u8).collect();
    GrayImage::from_raw(shape[2] as u32, shape[1] as u32, bytes).expect("one channel")
}

/// Loads the adapters of a case.
fn adapt(case: &Case, pipeline: &mut TextToImagePipeline) {
    let file = |adapter: &Value| case.dir.join(adapter["file"].as_str().unwrap());
    if let Some(loras) = case.json["loras"].as_array() {
        let scales = |lora: &Value| LoraScales::new(lora["scale"].as_f64().unwrap());
        let loras: Vec<(PathBuf, LoraScales)> = loras
            .iter()
            .map(|lora| (file(lora), scales(lora)))
            .collect();
        let reports = pipeline.load_loras(&loras, LoraMode::Merged).unwrap();
        for report in reports {
            assert!(report.is_complete(), "{}: {report:?}", case.name());
        }
    }
    let inversions = case.json["textual_inversions"].as_array();
    for inversion in inversions.into_iter().flatten() {
        let token = inversion["token"].as_str().unwrap();
        let opened = TextualInversion::open(file(inversion)).unwrap();
        pipeline
            .load_textual_inversion(&opened.with_token(token))
            .unwrap();
    }
}

fn open_pipeline(case: &Case, device: &Device) -> TextToImagePipeline {
    let mut open = PipelineOpenOptions::default();
    for part in case.json["without"].as_array().into_iter().flatten() {
        open = open.without(part.as_str().unwrap());
    }
    let dir = case.path("pipeline");
    let opened = match case.json["single_file"].as_str() {
        Some(_) => {
            let configs = SingleFileOptions::new().with_configs(&dir);
            SingleFile::open_with_options(case.path("single_file"), &configs)
                .and_then(|file| TextToImagePipeline::from_single_file(&file, &dir, &open, device))
        }
        None => TextToImagePipeline::from_pretrained_with(&dir, &open, device),
    };
    let pipeline = opened.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    let scheduler = AnyScheduler::from_pretrained(&case.dir)
        .unwrap()
        .into_inner();
    let mut pipeline = pipeline.into_inner().with_scheduler(scheduler);
    adapt(case, &mut pipeline);
    match case.json["controlnet"].as_str() {
        Some(_) => pipeline
            .with_controlnet_from(case.path("controlnet"), &open)
            .unwrap(),
        None => pipeline,
    }
}

fn open(case: &Case, device: &Device) -> Opened {
    let arguments = &case.json["arguments"];
    for name in arguments.as_object().expect("arguments").keys() {
        let known = ARGUMENTS.contains(&name.as_str());
        assert!(known, "{}: argument {name} is not known", case.name());
    }
    // Captions are never cleaned here.
    let cleans = arguments["clean_caption"] == true;
    assert!(!cleans, "{}: clean_caption", case.name());
    let number = |name: &str| arguments[name].as_f64();
    let count = |name: &str| arguments[name].as_u64().map(|value| value as usize);
    let pipeline = open_pipeline(case, device);

    let prompt = texts(&arguments["prompt"]).expect("a prompt");
    let mut prompts = Prompts::new(prompt);
    prompts = prompts
        .with_further_prompts(texts(&arguments["prompt_2"]), texts(&arguments["prompt_3"]))
        .with_further_negative_prompts(
            texts(&arguments["negative_prompt_2"]),
            texts(&arguments["negative_prompt_3"]),
        );
    let mut request = ImageRequest::new("");
    if let Some(negative) = texts(&arguments["negative_prompt"]) {
        request.negative_prompt = Some(negative[0].clone());
        prompts = prompts.with_negative_prompt(negative);
    }
    if let (Some(height), Some(width)) = (count("height"), count("width")) {
        request = request.with_size(width as u32, height as u32);
    }
    request.guidance_scale = number("guidance_scale");
    request.num_inference_steps = count("num_inference_steps");
    if case.has("image") {
        let image = DynamicImage::ImageRgb8(picture(case, "image"));
        request = request.with_image(image, number("strength"));
    }
    if case.has("mask_image") {
        request = request.with_mask_image(mask(case, "mask_image"));
    }
    let mut options = PipelineOptions::default();
    if case.has("control_image") {
        let image = picture(case, "control_image");
        request = request.with_control_image(DynamicImage::ImageRgb8(image));
        let mut control = ControlSettings::default().with_guidance(
            number("control_guidance_start").unwrap_or(0.0),
            number("control_guidance_end").unwrap_or(1.0),
        );
        control.conditioning_scale = number("controlnet_conditioning_scale");
        options.control = vec![control];
    }
    options.eta = number("eta").unwrap_or(0.0);
    options.guidance_rescale = number("guidance_rescale").unwrap_or(0.0);
    options.true_cfg_scale = number("true_cfg_scale").unwrap_or(1.0);
    options.clip_skip = count("clip_skip");
    options.max_sequence_length = count("max_sequence_length");
    options.denoising_start = number("denoising_start");
    options.denoising_end = number("denoising_end");
    options.use_resolution_binning = arguments["use_resolution_binning"]
        .as_bool()
        .unwrap_or(options.use_resolution_binning);
    options.guess_mode = arguments["guess_mode"].as_bool().unwrap_or(false);
    let sizes = &mut options.size_conditions;
    sizes.original_size = pair(&arguments["original_size"]);
    sizes.target_size = pair(&arguments["target_size"]);
    sizes.crops_coords_top_left = pair(&arguments["crops_coords_top_left"]).unwrap_or([0; 2]);
    sizes.negative_original_size = pair(&arguments["negative_original_size"]);
    sizes.negative_target_size = pair(&arguments["negative_target_size"]);
    let crops = pair(&arguments["negative_crops_coords_top_left"]).unwrap_or([0; 2]);
    sizes.negative_crops_coords_top_left = crops;
    let scores = [
        number("aesthetic_score"),
        number("negative_aesthetic_score"),
    ];
    if scores.iter().any(Option::is_some) {
        sizes.aesthetic_scores = Some([scores[0].unwrap_or(6.0), scores[1].unwrap_or(2.5)]);
    }
    Opened {
        pipeline,
        request,
        options,
        prompts,
        n: count("num_images_per_prompt").unwrap_or(1),
    }
}

/// Rows of each prompt `n` times, as diffusers repeats embeddings.
fn repeated<const D: usize>(x: Tensor<D>, n: usize) -> Tensor<D> {
    let rows = x.dims()[0];
    let each = (0..rows).flat_map(|row| vec![x.clone().narrow(0, row, 1); n]);
    Tensor::cat(each.collect(), 0)
}

fn check_embeddings(case: &Case, embeddings: &PromptEmbeddings, n: usize) {
    for encoder in ["text_encoder", "text_encoder_2", "text_encoder_3"] {
        let inputs = embeddings
            .inputs
            .iter()
            .filter(|input| input.encoder == encoder);
        let mut calls = 0;
        for (k, input) in inputs.enumerate() {
            let name = format!("ids.{encoder}.{k}");
            let (_, expected) = case.values(&name);
            let found: Vec<f64> = input.ids.concat().into_iter().map(f64::from).collect();
            assert_eq!(found, expected, "{}: {name}", case.name());
            calls += 1;
        }
        let stored = case.names();
        let stored = stored
            .iter()
            .filter(|name| name.starts_with(&format!("ids.{encoder}.")));
        assert_eq!(calls, stored.count(), "{}: calls of {encoder}", case.name());
    }
    let negative = match case.has("true_negative.prompt_embeds") {
        true => [
            "true_negative.prompt_embeds",
            "true_negative.pooled_prompt_embeds",
        ],
        false => ["negative_prompt_embeds", "negative_pooled_prompt_embeds"],
    };
    let parts = [
        (
            Some(&embeddings.prompt),
            ["prompt_embeds", "pooled_prompt_embeds"],
        ),
        (embeddings.negative.as_ref(), negative),
    ];
    for (part, [states, pooled]) in parts {
        let Some(part) = part else {
            assert!(!case.has(states), "{}: no {states}", case.name());
            continue;
        };
        case.assert_close(states, &repeated(part.hidden_states.clone(), n), STEP);
        if case.has(pooled) {
            let found = part.pooled.clone().expect("pooled embeddings");
            case.assert_close(pooled, &repeated(found, n), STEP);
        }
    }
}

/// Whether the latents of a case are tokens.
fn is_packed(case: &Case) -> bool {
    case.text("cls").starts_with("Flux")
}

/// Compares latents, which are tokens in some cases.
fn assert_latents(case: &Case, name: &str, found: &Tensor<4>, tolerance: f64) {
    match is_packed(case) {
        true => case.assert_close(name, &pack_latents(found.clone()), tolerance),
        false => case.assert_close(name, found, tolerance),
    }
}

fn stored_latents(case: &Case, name: &str, like: &Tensor<4>) -> Tensor<4> {
    if !is_packed(case) {
        return case.float(name);
    }
    let [_, _, height, width] = like.dims();
    unpack_latents(case.float(name), [height / 2, width / 2])
}

fn check_times(case: &Case, job: &Job) {
    let found = job.plan().times();
    let (_, all) = case.values("timesteps");
    // Calls are left out at the beginning, or at the end for a refiner.
    let ends_early = case.json["arguments"]["denoising_end"].is_number();
    let skipped = match ends_early {
        true => 0,
        false => all.len() - found.len(),
    };
    assert_table(case, "timesteps", &found, &all[skipped..][..found.len()]);
    if !case.has("sigmas") {
        return;
    }
    let (_, sigmas) = case.values("sigmas");
    let is_flow = case.text("cls").starts_with("Flux") || case.text("cls").contains("Diffusion3");
    let levels = job.plan().calls.iter().map(|call| call.level);
    let found: Vec<f64> = match is_flow {
        true => levels.map(|level| level.sigma).collect(),
        false => levels.map(|level| level.sigma / level.alpha).collect(),
    };
    assert_table(case, "sigmas", &found, &sigmas[skipped..][..found.len()]);
}

/// Compares tables of the schedule.
fn assert_table(case: &Case, name: &str, found: &[f64], expected: &[f64]) {
    let pairs = found.iter().zip(expected);
    let worst = largest(pairs.map(|(a, b)| (a - b).abs() / b.abs().max(1.0)));
    let allowed = TABLE.max(4.0 * case.float64(name));
    assert!(
        worst <= allowed,
        "{}: {name} are {found:?}, expected {expected:?}",
        case.name()
    );
}

/// The first call of the network.
fn check_call(case: &Case, input: &Tensor<4>, output: &Tensor<4>) {
    let name = match case.has("call.sample") {
        true => "call.sample",
        false => "call.hidden_states",
    };
    // FLUX's two predictions are two calls there, that of the prompt first.
    let rows = case.values(name).0[0];
    let last = |x: &Tensor<4>| x.clone().narrow(0, x.dims()[0] - rows, rows);
    assert_latents(case, name, &last(input), STEP);
    let (shape, _) = case.values("call.output");
    let found = last(output);
    if !is_packed(case) && shape[1] == 2 * found.dims()[1] {
        // A variance beside the prediction is not used here.
        let expected: Tensor<4> = case.float("call.output");
        let expected = expected.narrow(1, 0, found.dims()[1]);
        let apart = tensors_apart(found, expected);
        let allowed = STEP.max(4.0 * case.float64("call.output"));
        assert!(apart <= allowed, "{}: call.output {apart}", case.name());
    } else {
        assert_latents(case, "call.output", &found, STEP);
    }
}

/// Every step, from the stored latents of the step before it.
fn check_steps(case: &Case, mut denoising: Denoising<'_>, tape: &mut Tape<'_>) {
    assert_latents(case, "init", &denoising.latents(), STEP);
    let mut steps = 0;
    while let Some(step) = denoising.step(tape).unwrap() {
        if step.index == 0 {
            check_call(case, &step.network_input, &step.network_output);
        }
        let name = |kind: &str| format!("{kind}.{:03}", step.index);
        assert_latents(case, &name("guided"), &step.guided, STEP);
        assert_latents(case, &name("latents"), &step.latents, STEP);
        let stored = stored_latents(case, &name("latents"), &step.latents);
        denoising.set_latents(stored).unwrap();
        steps += 1;
    }
    let stored = |kind: &str| {
        let names = case.names();
        names.iter().filter(|name| name.starts_with(kind)).count()
    };
    for kind in ["guided.", "latents."] {
        assert_eq!(stored(kind), steps, "{}: {kind}", case.name());
    }
    // Some schedulers of diffusers draw in the last step, too, where noise has no part.
    let (used, all) = (tape.next, stored("noise."));
    let is_last = all == used + 1 && case.json["draws"][used] == "scheduler";
    assert!(
        all == used || is_last,
        "{}: {used} of {all} draws",
        case.name()
    );
}

fn check(case: &Case) {
    let flex = device("flex").unwrap();
    let Opened {
        pipeline,
        request,
        options,
        prompts,
        n,
    } = open(case, &flex);
    let job = pipeline.prepare(&request, &options).unwrap();
    check_times(case, &job);
    let embeddings = pipeline.encode_prompts(&prompts, &job).unwrap();
    check_embeddings(case, &embeddings, n);
    let rows: Vec<usize> = (0..prompts.len()).flat_map(|row| vec![row; n]).collect();
    let start = |tape: &mut Tape<'_>| pipeline.denoise(&job, &embeddings, &rows, tape).unwrap();

    let mut tape = Tape { case, next: 0 };
    let denoising = start(&mut tape);
    check_steps(case, denoising, &mut tape);

    // All the way from the stored noise.
    let mut tape = Tape { case, next: 0 };
    let mut denoising = start(&mut tape);
    while denoising.step(&mut tape).unwrap().is_some() {}
    let latents = denoising.into_latents();
    let vae = AutoencoderKl::from_pretrained(case.path("pipeline").join("vae"), &flex).unwrap();
    case.assert_close("final", &vae.unscale_latents(latents.clone()), FINAL);
    let decoded = pipeline.decode(&job, latents).unwrap();
    case.assert_close("decoded", &(decoded.clone() * 2.0 - 1.0), FINAL);
    check_pixels(case, decoded);
}

/// Images in bytes, within one level.
fn check_pixels(case: &Case, images: Tensor<4>) {
    let (shape, expected) = case.values("pixels");
    let images = images.permute([0, 2, 3, 1]);
    assert_eq!(images.dims().to_vec(), shape, "{}: pixels", case.name());
    let levels = images.into_data();
    let pairs = levels.iter::<f32>().zip(expected);
    let worst = largest(pairs.map(|(x, level)| {
        let found = (x.clamp(0.0, 1.0) * 255.0).round_ties_even();
        (f64::from(found) - level).abs()
    }));
    assert!(worst <= 1.0, "{}: pixels are off by {worst}", case.name());
}

#[test]
fn pipelines_match_diffusers() {
    every(|case| case.text("kind") == "prompt-pipeline", check);
}
