//! AnimateDiff against diffusers, and its requests.

use aigc_core::{Result, device::device, testing::values};
use aigc_pipelines::video::{
    AnimateDiffOpenOptions, AnimateDiffPipeline, VideoOptions, VideoProgress, VideoRequest,
    VideoStage,
};
use aigc_tests::fixtures::{Case, every};

fn is_animate_diff(case: &Case) -> bool {
    case.text("kind") == "AnimateDiffPipeline"
}

fn open(case: &Case) -> AnimateDiffPipeline {
    let flex = device("flex").unwrap();
    let opened = AnimateDiffPipeline::from_pretrained(case.dir.join("pipeline"), &flex).unwrap();
    assert!(opened.unused_tensors.is_empty(), "{opened}");
    opened.into_inner()
}

fn request(case: &Case) -> VideoRequest {
    let config = &case.json["config"];
    let number = |field: &str| config[field].as_u64().expect("a number") as usize;
    VideoRequest::new(case.text("prompt"))
        .with_negative_prompt(case.text("negative_prompt"))
        .with_num_frames(number("num_frames"))
        .with_size(number("width") as u32, number("height") as u32)
        .with_num_inference_steps(number("steps"))
        .with_guidance_scale(config["guidance_scale"].as_f64().expect("a number"))
        .with_seed(3)
}

#[test]
fn pipelines() {
    every(is_animate_diff, |case| {
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
        let frames = pipeline.decode(latents).unwrap();
        case.assert_within("frames", &frames.unsqueeze::<5>());
    });
}

/// What a video comes with makes it again.
#[test]
fn videos_can_be_made_again() {
    every(is_animate_diff, |case| {
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
        assert!(video.request.seed.is_some() && video.request.fps == Some(8.0));
        let again = pipeline.generate(&video.request).unwrap();
        assert_eq!(values(again.frames), values(video.frames));
        assert_eq!(again.request, video.request);
    });
}

/// More frames than positions are refused, or denoised in windows.
#[test]
fn frames_past_the_positions() {
    every(is_animate_diff, |case| {
        let pipeline = open(case);
        let most = pipeline
            .network()
            .motion_adapter()
            .config()
            .motion_max_seq_length;
        let request = request(case)
            .with_num_frames(most + 5)
            .with_num_inference_steps(1);
        let message = pipeline.generate(&request).unwrap_err().to_string();
        let value = format!("`num_frames` is {}", most + 5);
        assert!(
            message.contains(&value) && message.contains("window_overlap"),
            "{message}"
        );
        let video = pipeline
            .generate(&request.clone().with_window_overlap(4))
            .unwrap();
        assert_eq!(video.frames.dims()[0], most + 5);
        let wrong = request.with_window_overlap(most);
        let message = pipeline.generate(&wrong).unwrap_err().to_string();
        assert!(message.contains("`window_overlap`"), "{message}");
    });
}

/// Without guidance, the negative prompt is not encoded.
#[test]
fn without_guidance_there_is_no_negative_prompt() {
    every(is_animate_diff, |case| {
        let pipeline = open(case);
        let plain = request(case).with_guidance_scale(1.0);
        let prompts = pipeline.encode_prompts(&plain).unwrap();
        assert!(prompts.negative.is_none() && prompts.warnings.is_empty());
        let options = &mut VideoOptions::default();
        let latents = || case.float::<5>("latents");
        pipeline
            .denoise(&plain, &prompts, latents(), options)
            .unwrap();
        let missing = pipeline.denoise(&request(case), &prompts, latents(), options);
        let message = missing.unwrap_err().to_string();
        assert!(message.contains("`prompts`"), "{message}");
    });
}

#[test]
fn wrong_requests_name_their_field() {
    every(is_animate_diff, |case| {
        let pipeline = open(case);
        let requests = [
            ("num_frames", request(case).with_num_frames(0)),
            // Latents that no memory holds.
            (
                "num_frames",
                request(case)
                    .with_num_frames(1 << 14)
                    .with_size(1 << 14, 1 << 14)
                    .with_window_overlap(1),
            ),
            ("width", request(case).with_size(15, 16)),
            ("height", request(case).with_size(16, 0)),
            ("fps", request(case).with_fps(0.0)),
            (
                "guidance_scale",
                request(case).with_guidance_scale(f64::NAN),
            ),
            (
                "num_inference_steps",
                request(case).with_num_inference_steps(0),
            ),
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

        let mut options = VideoOptions::default();
        options.cancel.cancel();
        let stopped = pipeline.generate_with(&request(case), &mut options);
        assert!(stopped.is_err());
    });
}

/// The motion modules may lie elsewhere, and a directory may lack a part.
#[test]
fn directories_are_checked() {
    every(is_animate_diff, |case| {
        let flex = device("flex").unwrap();
        let dir = case.dir.join("pipeline");
        let options =
            AnimateDiffOpenOptions::default().with_motion_adapter(dir.join("motion_adapter"));
        let opened = AnimateDiffPipeline::from_pretrained_with(&dir, &options, &flex).unwrap();
        let prompts = opened.encode_prompts(&request(case)).unwrap();
        case.assert_within("prompt_embeds", &prompts.prompt);

        let broken = tempfile::tempdir().unwrap();
        let open = |index: &str| -> Result<()> {
            std::fs::write(broken.path().join("model_index.json"), index).unwrap();
            AnimateDiffPipeline::from_pretrained(broken.path(), &flex).map(drop)
        };
        for (index, part) in [
            ("{}", "_class_name"),
            ("{\"_class_name\": \"WanPipeline\"}", "_class_name"),
            ("{\"_class_name\": \"AnimateDiffPipeline\"}", "unet"),
            (
                "{\"_class_name\": \"AnimateDiffPipeline\", \"unet\": [\"diffusers\", \"X\"]}",
                "unet",
            ),
        ] {
            let message = open(index).unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains("model_index.json"),
                "{message}"
            );
        }
    });
}
