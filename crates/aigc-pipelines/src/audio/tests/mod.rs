//! Requests to pipelines of small networks with random weights.

mod parts;

use super::*;
use crate::text_to_image::NoiseSource;
use aigc_core::{CancelToken, Error, audio::Waveform, device::device};
use aigc_diffusion::{
    DdimScheduler, IpndmScheduler, Term,
    models::{StableAudioProjectionConfig, UNet1dConfig},
};
use burn::tensor::Tensor;
use parts::{FRAMES, HOP, RATE, dance, parts, pipeline, request};
use std::{cell::RefCell, ops::ControlFlow};

#[test]
fn sounds_have_the_length_and_the_seed_that_were_asked() {
    let pipeline = pipeline();
    assert_eq!(
        (pipeline.max_seconds(), pipeline.sample_rate()),
        (2.0, RATE)
    );
    let two = pipeline.generate(&request().with_n(2)).unwrap();
    assert_eq!((two.seed, two.complete, two.sounds.len()), (5, true, 2));
    assert_eq!(two.sounds[0].len(), FRAMES * HOP);
    assert_ne!(two.sounds[0].channels(), two.sounds[1].channels());
    let short = pipeline.generate(&request().with_seconds(0.75)).unwrap();
    assert_eq!(short.sounds[0].len(), 24);
    let second = pipeline.generate(&request().with_seed(6)).unwrap();
    assert_eq!(second.sounds[0].channels(), two.sounds[1].channels());
}

/// A sound does not depend on those that are made with it, with and without a sound to start from.
#[test]
fn batches_do_not_change_sounds() {
    let pipeline = pipeline();
    let native = request().with_n(3).with_noise_source(NoiseSource::Native);
    let start = Waveform::mono(vec![1.0; FRAMES * HOP], RATE).unwrap();
    for request in [native.clone(), native.with_audio(start)] {
        let together = GenerationSettings::default().with_batch_size(2);
        let together = pipeline.generate_with(&request, &together).unwrap();
        let alone = pipeline.generate(&request).unwrap();
        assert_eq!((together.sounds.len(), alone.sounds.len()), (3, 3));
        for (a, b) in together.sounds.iter().zip(&alone.sounds) {
            let apart = a.channel(0).iter().zip(b.channel(0));
            assert!(apart.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-3);
        }
    }
}

#[test]
fn conditions_are_those_of_prompts_and_seconds() {
    let pipeline = pipeline();
    let conditions = |request: &AudioRequest| {
        let job = pipeline.prepare(request).unwrap();
        pipeline.encode_prompt(&job).unwrap()
    };
    let plain = conditions(&request().with_guidance_scale(1.0));
    assert_eq!(plain.encoder_hidden_states.dims(), [1, 4, 4]);
    assert_eq!(plain.global_hidden_states.dims(), [1, 8]);
    let values = |x: Tensor<3>| x.into_data().iter::<f32>().collect::<Vec<_>>();
    let tokens = values(plain.encoder_hidden_states);
    // Padding is hidden.
    assert!(tokens[4..8].iter().all(|x| *x == 0.0) && tokens[0] != 0.0);
    // Without a negative prompt, nothing is compared with; with one, its text, at the same seconds.
    let none = values(conditions(&request()).encoder_hidden_states);
    assert!(none[..16].iter().all(|x| *x == 0.0) && none[16..] == tokens);
    let negative = conditions(&request().with_negative_prompt("loud noise"));
    let negative = values(negative.encoder_hidden_states);
    assert!(negative[..4] != tokens[..4] && negative[8..16] == tokens[8..]);
    let sounds = |request: AudioRequest| pipeline.generate(&request).unwrap().sounds;
    let base = sounds(request());
    for other in [
        AudioRequest::new("a bell and a drum"),
        request().with_negative_prompt("loud noise"),
        request().with_guidance_scale(2.0),
    ] {
        let other = other.with_num_inference_steps(3).with_seed(5);
        assert_ne!(sounds(other)[0].channels(), base[0].channels());
    }
}

/// One of another rate, of two channels, and shorter than what is made.
#[test]
fn sounds_can_be_started_from() {
    let pipeline = pipeline();
    let start = |level: f32| {
        let wave = Waveform::new(vec![vec![level; 20]; 2], RATE / 2).unwrap();
        let result = pipeline.generate(&request().with_audio(wave)).unwrap();
        result.sounds[0].clone()
    };
    let none = pipeline.generate(&request()).unwrap();
    let (silent, loud) = (start(0.0), start(300.0));
    assert_eq!((silent.len(), silent.num_channels()), (FRAMES * HOP, 1));
    assert_eq!(silent.channels(), none.sounds[0].channels());
    assert_ne!(loud.channels(), silent.channels());
}

#[test]
fn eta_is_that_of_the_request() {
    let pipeline = pipeline().with_scheduler(DdimScheduler::default());
    let draws = |eta| {
        let job = pipeline.prepare(&request().with_eta(eta)).unwrap();
        let noisy = |term: &(Term, f64)| term.0 == Term::Noise && term.1 != 0.0;
        job.plan.calls[0].update.iter().any(noisy)
    };
    assert!(!draws(0.0) && draws(0.7));
}

#[test]
fn progress_is_reported_and_requests_are_stopped() {
    let seen = RefCell::new(vec![]);
    let watching = GenerationSettings::default().with_callback(|progress| {
        seen.borrow_mut()
            .push((progress.stage, progress.sounds.start, progress.step));
        ControlFlow::Continue(())
    });
    let pipeline = pipeline();
    let both = request().with_n(2);
    pipeline.generate_with(&both, &watching).unwrap();
    let seen = seen.borrow().clone();
    let of = |stage| seen.iter().filter(|(found, ..)| *found == stage).count();
    assert_eq!(of(AudioStage::Encoding), 2);
    assert_eq!(
        (of(AudioStage::Denoising), of(AudioStage::Decoding)),
        (8, 4)
    );
    assert_eq!(seen.last(), Some(&(AudioStage::Decoding, 1, 1)));

    // During the second sound.
    let settings = GenerationSettings::default().with_callback(|progress| {
        match progress.sounds.start == 1 && progress.step == 2 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let result = pipeline.generate_with(&both, &settings).unwrap();
    assert!(!result.complete && result.sounds.len() == 1);
    let request = DanceDiffusionRequest::default()
        .with_n(2)
        .with_num_inference_steps(3)
        .with_seed(1);
    let result = dance().generate_with(&request, &settings).unwrap();
    assert!(!result.complete && result.sounds.len() == 1);

    let token = CancelToken::new();
    token.cancel();
    let settings = GenerationSettings::default().with_cancel(token);
    let error = pipeline.generate_with(&both, &settings).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    let error = dance().generate_with(&request, &settings).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
}

#[test]
fn dance_diffusion_makes_whole_rates_and_cuts_them() {
    let pipeline = dance();
    let request = DanceDiffusionRequest::default()
        .with_num_inference_steps(2)
        .with_seed(1);
    let all = pipeline.generate(&request).unwrap();
    assert_eq!((all.sounds[0].len(), all.sounds[0].num_channels()), (64, 1));
    assert!(all.sounds[0].peak() <= 1.0);
    // 32 samples are made for 27.
    let short = pipeline.generate(&request.clone().with_seconds(27.0 / 32.0));
    assert_eq!(short.unwrap().sounds[0].len(), 27);
    for (seconds, expected) in [
        (0.1, "`seconds` is 0.1, expected at least 0.75"),
        (f64::NAN, "`seconds` is NaN"),
        (1e12, "and at most 8388608 seconds"),
    ] {
        let error = pipeline.generate(&request.clone().with_seconds(seconds));
        let message = error.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    // Two sounds of 2²⁷ samples fit into a batch, three do not.
    let three = request.clone().with_seconds((1u64 << 22) as f64).with_n(3);
    let three = three.with_noise_source(NoiseSource::TorchBatch);
    let message = pipeline.generate(&three).unwrap_err().to_string();
    assert!(message.contains("at most 2 sounds"), "{message}");
    let message = pipeline.generate(&request.with_n(usize::MAX));
    let message = message.unwrap_err().to_string();
    assert!(message.contains("expected 1 to 65536"), "{message}");
    let device = device("flex").unwrap();
    let unet = UNet1dConfig::small(1, 64).init(&device).unwrap();
    let error = DanceDiffusionPipeline::new(unet, IpndmScheduler::default(), &device);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("`sample_rate` is null"), "{message}");
}

#[test]
fn errors_name_what_is_wrong() {
    let pipeline = pipeline();
    for (request, expected) in [
        (request().with_n(0), "`n` is 0"),
        (
            request().with_num_inference_steps(0),
            "`num_inference_steps` is 0",
        ),
        (
            request().with_num_inference_steps(2000),
            "`num_inference_steps` is 2000",
        ),
        (request().with_n(usize::MAX), "expected 1 to 65536"),
        (
            request().with_guidance_scale(f64::NAN),
            "`guidance_scale` is NaN",
        ),
        (request().with_eta(2.0), "`eta` is 2"),
        (
            request().with_seconds(7.0),
            "`seconds_total` is 7, expected 0 to 5",
        ),
        (
            request().with_seconds(3.0),
            "`seconds_total` is 3, expected more than",
        ),
        (request().with_seconds(f64::NAN), "`seconds_total` is NaN"),
        (
            request().with_seconds_start(1.5).with_seconds(1.0),
            "`seconds_total` is 1, expected more than seconds_start (1.5)",
        ),
        (
            request().with_seconds(1e-9),
            "`seconds_total` is 0.000000001",
        ),
    ] {
        let message = pipeline.generate(&request).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let device = device("flex").unwrap();
    let wrong = StableAudioParts {
        projection_model: StableAudioProjectionConfig {
            text_encoder_dim: 3,
            conditioning_dim: 5,
            ..StableAudioProjectionConfig::default()
        }
        .init(&device)
        .unwrap(),
        ..parts()
    };
    let message = StableAudioPipeline::new(wrong, &device)
        .unwrap_err()
        .to_string();
    let expected = "`cross_attention_input_dim` is 4, expected 5";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn indices_of_other_pipelines_are_refused() {
    let device = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let open = |index: &str| {
        std::fs::write(dir.path().join("model_index.json"), index).unwrap();
        let stable = StableAudioPipeline::from_pretrained(dir.path(), &device);
        let dance = DanceDiffusionPipeline::from_pretrained(dir.path(), &device);
        [
            stable.unwrap_err().to_string(),
            dance.unwrap_err().to_string(),
        ]
    };
    let [stable, dance] = open(r#"{"_class_name": "StableDiffusionPipeline"}"#);
    assert!(stable.contains("expected StableAudioPipeline"), "{stable}");
    assert!(dance.contains("expected DanceDiffusionPipeline"), "{dance}");
    let [_, dance] = open(r#"{"_class_name": "DanceDiffusionPipeline"}"#);
    assert!(dance.contains("`scheduler` is missing"), "{dance}");
    let [stable, _] = open("[]");
    assert!(stable.contains("model_index.json"), "{stable}");
}
