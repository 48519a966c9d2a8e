//! Wan's pipeline against diffusers, and its requests.

use aigc_core::{Error, Result, device::device, rng::InitWeights, testing::values};
use aigc_diffusion::{Scheduler, WanTransformer3dModel};
use aigc_pipelines::video::{VideoOptions, VideoProgress, VideoRequest, VideoStage, WanPipeline};
use aigc_tests::fixtures::{Case, every};
use burn::tensor::Tensor;

fn is_wan(case: &Case) -> bool {
    case.text("kind") == "WanPipeline"
}

fn number(case: &Case, field: &str) -> usize {
    case.json["config"][field].as_u64().expect("a number") as usize
}

fn open(case: &Case) -> WanPipeline {
    let flex = device("flex").unwrap();
    let opened = WanPipeline::from_pretrained(case.dir.join("pipeline"), &flex).unwrap();
    assert!(opened.unused_tensors.is_empty(), "{opened}");
    let length = number(case, "max_sequence_length");
    opened
        .into_inner()
        .with_max_sequence_length(length)
        .unwrap()
}

fn request(case: &Case) -> VideoRequest {
    let size = ["width", "height"].map(|field| number(case, field) as u32);
    let scale = case.json["config"]["guidance_scale"].as_f64();
    VideoRequest::new(case.text("prompt"))
        .with_negative_prompt(case.text("negative_prompt"))
        .with_num_frames(number(case, "num_frames"))
        .with_size(size[0], size[1])
        .with_num_inference_steps(number(case, "steps"))
        .with_guidance_scale(scale.expect("a number"))
        .with_seed(3)
}

#[test]
fn pipelines() {
    every(is_wan, |case| {
        let (pipeline, request) = (open(case), request(case));
        let prompts = pipeline.encode_prompts(&request).unwrap();
        case.assert_within("prompt_embeds", &prompts.prompt);
        let negative = prompts.negative.as_ref().expect("a request with guidance");
        case.assert_within("negative_prompt_embeds", negative);
        let mut options = VideoOptions::default();
        let latents = pipeline
            .denoise(&request, &prompts, case.float("latents"), &mut options)
            .unwrap();
        case.assert_within("final_latents", &latents);
        let mut parts = vec![];
        let collect = |frames: Tensor<4>| {
            parts.push(frames);
            Ok(())
        };
        pipeline.decode_chunks(latents.clone(), collect).unwrap();
        // The first frame, then those of each latent.
        assert_eq!(parts.len(), latents.dims()[2]);
        let frames = Tensor::cat(parts, 0);
        case.assert_within("frames", &frames.clone().unsqueeze::<5>());
        assert_eq!(values(pipeline.decode(latents).unwrap()), values(frames));
    });
}

/// What a video comes with makes it again.
#[test]
fn videos_can_be_made_again() {
    every(is_wan, |case| {
        let pipeline = open(case);
        let mut stages = vec![];
        let progress = |progress: VideoProgress| {
            stages.push((progress.stage, progress.step, progress.num_steps));
        };
        let mut options = VideoOptions {
            progress: Some(Box::new(progress)),
            ..VideoOptions::default()
        };
        let mut request = request(case);
        (request.seed, request.fps) = (None, None);
        let video = pipeline.generate_with(&request, &mut options).unwrap();
        drop(options);
        let frames = request.num_frames.unwrap();
        assert_eq!(stages.last(), Some(&(VideoStage::Decoding, frames, frames)));
        let steps = request.num_inference_steps.unwrap();
        let denoised = stages.iter().filter(|s| s.0 == VideoStage::Denoising);
        assert_eq!(denoised.count(), steps);
        let [found, channels, ..] = video.frames.dims();
        assert_eq!([found, channels], [frames, 3]);
        assert!(video.request.seed.is_some() && video.request.fps == Some(16.0));
        let again = pipeline.generate(&video.request).unwrap();
        assert_eq!(values(again.frames), values(video.frames));
        assert_eq!(again.request, video.request);
    });
}

/// A request in steps: the same video as in one call, whose frames may go elsewhere.
#[test]
fn videos_are_made_in_steps() {
    every(is_wan, |case| {
        let pipeline = open(case);
        let mut given = request(case).with_num_inference_steps(2);
        given.guidance_scale = None;
        let video = pipeline.generate(&given).unwrap();
        let prepared = pipeline.prepare_request(&given).unwrap();
        assert_eq!(prepared, video.request);
        assert_eq!(prepared.guidance_scale, Some(5.0));
        let noise = pipeline.prepare_latents(&prepared).unwrap();
        let prompts = pipeline.encode_prompts(&prepared).unwrap();
        let options = &mut VideoOptions::default();
        let latents = pipeline.denoise(&prepared, &prompts, noise, options);
        let frames = pipeline.decode(latents.unwrap()).unwrap();
        let expected = values(video.frames);
        assert_eq!(values(frames), expected);

        let mut found = vec![];
        let streamed = pipeline.generate_chunks(&given, options, |part| {
            found.extend(values(part));
            Ok(())
        });
        assert_eq!(streamed.unwrap().request, prepared);
        assert_eq!(found, expected);
        let full = |_| Err(Error::cancelled("writing a video"));
        let failed = pipeline.generate_chunks(&given, options, full);
        assert!(matches!(failed, Err(Error::Cancelled { .. })));

        let mut seedless = prepared;
        seedless.seed = None;
        let message = pipeline.prepare_latents(&seedless).unwrap_err();
        assert!(message.to_string().contains("`seed`"), "{message}");
    });
}

/// Without guidance, the negative prompt is not encoded.
#[test]
fn without_guidance_there_is_no_negative_prompt() {
    every(is_wan, |case| {
        let pipeline = open(case);
        let plain = request(case).with_guidance_scale(1.0);
        let prompts = pipeline.encode_prompts(&plain).unwrap();
        assert!(prompts.negative.is_none());
        let options = &mut VideoOptions::default();
        let latents = || case.float::<5>("latents");
        let alone = pipeline.denoise(&plain, &prompts, latents(), options);
        let both = pipeline.encode_prompts(&request(case)).unwrap();
        let same = pipeline.denoise(&plain, &both, latents(), options);
        assert_eq!(values(alone.unwrap()), values(same.unwrap()));
        let missing = pipeline.denoise(&request(case), &prompts, latents(), options);
        let message = missing.unwrap_err().to_string();
        assert!(message.contains("`prompts`"), "{message}");
    });
}

#[test]
fn wrong_requests_name_their_field() {
    every(is_wan, |case| {
        let pipeline = open(case);
        let requests = [
            ("num_frames", request(case).with_num_frames(0)),
            ("num_frames", request(case).with_num_frames(6)),
            // More latents than positions.
            ("num_frames", request(case).with_num_frames(65)),
            ("width", request(case).with_size(20, 16)),
            ("height", request(case).with_size(16, 0)),
            ("height", request(case).with_size(16, 8 * 33)),
            ("fps", request(case).with_fps(0.0)),
            ("guidance_scale", request(case).with_guidance_scale(-1.0)),
            (
                "num_inference_steps",
                request(case).with_num_inference_steps(0),
            ),
            ("window_overlap", request(case).with_window_overlap(2)),
        ];
        for (field, request) in requests {
            let message = pipeline.generate(&request).unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
        let prompts = pipeline.encode_prompts(&request(case)).unwrap();
        let latents = case.float::<5>("latents").narrow(2, 0, 1);
        let options = &mut VideoOptions::default();
        let found = pipeline.denoise(&request(case), &prompts, latents, options);
        assert!(found.unwrap_err().to_string().contains("`latents`"));
        // A step whose latents are not finite is named.
        let latents = case.float::<5>("latents") * f32::NAN;
        let found = pipeline.denoise(&request(case), &prompts, latents, options);
        let message = found.unwrap_err().to_string();
        assert!(message.contains("at step 1 of"), "{message}");
        let latents = case.float::<5>("latents").narrow(1, 0, 3);
        let message = pipeline.decode(latents).unwrap_err().to_string();
        assert!(message.contains("`latents`"), "{message}");

        let mut options = VideoOptions::default();
        options.cancel.cancel();
        let stopped = pipeline.generate_with(&request(case), &mut options);
        assert!(stopped.is_err());
    });
}

/// The states of padding are zeros, and a prompt that is too long is cut and named.
#[test]
fn prompts_are_padded_with_zeros() {
    every(is_wan, |case| {
        let pipeline = open(case).with_max_sequence_length(24).unwrap();
        let prompts = pipeline.encode_prompts(&request(case)).unwrap();
        let negative = prompts.negative.expect("a request with guidance");
        let [_, tokens, width] = negative.dims();
        assert_eq!(tokens, 24);
        let last = negative.narrow(1, tokens - 1, 1);
        assert_eq!(values(last), vec![0.0; width]);
        let short = open(case).with_max_sequence_length(3).unwrap();
        let video = short
            .generate(&request(case).with_num_inference_steps(1))
            .unwrap();
        let warned = video.warnings.iter().any(|text| text.contains("`prompt`"));
        assert!(warned, "{:?}", video.warnings);
        let prompts = short.encode_prompts(&request(case)).unwrap();
        assert_eq!(prompts.warnings, video.warnings);
        assert!(open(case).with_max_sequence_length(0).is_err());
    });
}

/// A second network computes the steps below a boundary.
#[test]
fn a_second_network_has_the_steps_with_little_noise() {
    every(is_wan, |case| {
        let flex = device("flex").unwrap();
        let network = || {
            let dir = case.dir.join("pipeline/transformer");
            let opened = WanTransformer3dModel::from_pretrained(dir, &flex).unwrap();
            opened.into_inner()
        };
        // Twice the same network is one.
        let pipeline = open(case).with_transformer_2(network(), 0.5).unwrap();
        let prompts = pipeline.encode_prompts(&request(case)).unwrap();
        let mut options = VideoOptions::default();
        let latents = pipeline
            .denoise(
                &request(case),
                &prompts,
                case.float("latents"),
                &mut options,
            )
            .unwrap();
        case.assert_within("final_latents", &latents);
        for ratio in [-0.1, 1.5, f64::NAN] {
            let wrong = open(case).with_transformer_2(network(), ratio);
            let message = wrong.unwrap_err().to_string();
            assert!(message.contains("`boundary_ratio`"), "{message}");
        }
    });
}

/// Times below the boundary have the second network, and the boundary itself has the first one.
#[test]
fn steps_below_the_boundary_have_the_second_network() {
    every(is_wan, |case| {
        let flex = device("flex").unwrap();
        let denoised = |ratio: f64| {
            let pipeline = open(case);
            let other = pipeline.network().config().init(&flex).unwrap();
            let pipeline = pipeline.with_transformer_2(other.init_weights(9), ratio);
            let pipeline = pipeline.unwrap();
            let prompts = pipeline.encode_prompts(&request(case)).unwrap();
            let options = &mut VideoOptions::default();
            let latents = case.float("latents");
            pipeline
                .denoise(&request(case), &prompts, latents, options)
                .unwrap()
        };
        let plan = open(case).scheduler().plan(number(case, "steps")).unwrap();
        let last = plan.times()[plan.len() - 1] / 1000.0;
        let first_alone = denoised(0.0);
        case.assert_within("final_latents", &first_alone);
        let first_alone = values(first_alone);
        assert_eq!(values(denoised(last - 1e-6)), first_alone);
        assert_ne!(values(denoised(last + 1e-6)), first_alone);
    });
}

/// A second network that has fewer positions could not denoise all videos.
#[test]
fn a_second_network_has_as_many_positions() {
    every(is_wan, |case| {
        let pipeline = open(case);
        let mut config = pipeline.network().config().clone();
        config.rope_max_seq_len -= 1;
        let other = config.init(&device("flex").unwrap()).unwrap();
        let message = pipeline.with_transformer_2(other, 0.5).unwrap_err();
        let message = message.to_string();
        assert!(message.contains("rope_max_seq_len` is 31"), "{message}");
    });
}

/// A directory may be of another pipeline, or lack a part.
#[test]
fn directories_are_checked() {
    let flex = device("flex").unwrap();
    let broken = tempfile::tempdir().unwrap();
    let open = |index: &str| -> Result<()> {
        std::fs::write(broken.path().join("model_index.json"), index).unwrap();
        WanPipeline::from_pretrained(broken.path(), &flex).map(drop)
    };
    for (index, part) in [
        ("{}", "_class_name"),
        ("{\"_class_name\": \"AnimateDiffPipeline\"}", "_class_name"),
        ("{\"_class_name\": \"WanPipeline\"}", "tokenizer"),
        (
            "{\"_class_name\": \"WanPipeline\", \"tokenizer\": [\"transformers\", \"X\"]}",
            "`tokenizer` is X",
        ),
    ] {
        let message = open(index).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let missing = tempfile::tempdir().unwrap();
    assert!(WanPipeline::from_pretrained(missing.path(), &flex).is_err());
}
