//! Greedy search and sampling.

use super::*;
use crate::{FinishReason, GenerationConfig, GenerationState};
use aigc_core::CancelToken;

pub(super) fn greedy(frames: usize, model: &MusicgenDecoder) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(model.delay_pattern().steps(frames)),
        ..GenerationConfig::default()
    }
}

/// Every code is the most likely one after those before it, in the order of the delay pattern; with
/// guidance, by the combined logits.
#[test]
fn greedy_codes_are_the_most_likely_ones() {
    for (channels, scale) in [(1, 1.0), (2, 1.0), (1, 3.0), (2, 3.0)] {
        let config = MusicgenDecoderConfig {
            audio_channels: channels,
            num_codebooks: 4,
            ..config()
        };
        let model = model(config);
        let pattern = model.delay_pattern();
        let condition = model.encode_condition(&ConditionInputs::text(text(2, None)));
        let condition = condition.unwrap();
        let generator = MultiStreamGenerator::new(&model, greedy(6, &model)).unwrap();
        let generator = generator.with_guidance_scale(scale).unwrap();
        let found = generator.generate(2, condition.as_ref()).unwrap();
        assert_eq!(found.finish_reason, FinishReason::Length);
        let codes = found.to_tensor(&Device::flex()).unwrap();
        assert_eq!(codes.dims(), [2, 4, 6]);
        let steps = pattern.encode(codes.clone(), model.pad_token_id()).unwrap();
        let count = steps.dims()[2];
        let begin = steps
            .clone()
            .narrow(2, 0, 1)
            .full_like(model.pad_token_id() as i32);
        let input = Tensor::cat(vec![begin, steps.narrow(2, 0, count - 1)], 2);
        let conditional = model.forward(input.clone(), condition.as_ref());
        let unconditional = model.forward(input, None);
        let logits = conditional * scale + unconditional * (1.0 - scale);
        let best = logits.argmax(3).reshape([2, 4, count]);
        let best = pattern.decode(best).unwrap();
        let ints = |x: Tensor<3, Int>| -> Vec<i64> { x.into_data().iter().collect() };
        assert_eq!(ints(best), ints(codes));
    }
}

#[test]
fn a_beginning_is_continued_as_it_was() {
    let model = model(config());
    let whole = MultiStreamGenerator::new(&model, greedy(8, &model)).unwrap();
    let whole = whole.generate(1, None).unwrap().codes;
    for given in [1, 2, 5] {
        let beginning = vec![whole[0].iter().map(|x| x[..given].to_vec()).collect()];
        let mut seen = vec![];
        let config = greedy(8 - given, &model);
        let generator = MultiStreamGenerator::new(&model, config).unwrap();
        let generator = generator.with_beginning(beginning).unwrap();
        let found = generator
            .with_streamer(|frame| {
                seen.push(frame[0].clone());
                Ok(())
            })
            .generate(1, None)
            .unwrap();
        assert_eq!(found.codes, whole, "{given}");
        let column = |frame: usize| whole[0].iter().map(|x| x[frame]).collect::<Vec<u32>>();
        assert_eq!(seen, (given..8).map(column).collect::<Vec<_>>());
    }
}

#[test]
fn guidance_and_seeds_do_what_they_say() {
    let model = model(config());
    let condition = model.encode_condition(&ConditionInputs::classes(vec![vec![2, 1]; 2]));
    let condition = condition.unwrap();
    let run = |sample: bool, scale: f64, seed: u64| {
        let config = GenerationConfig {
            do_sample: sample,
            top_k: 250,
            ..greedy(6, &model)
        };
        let generator = MultiStreamGenerator::new(&model, config).unwrap();
        let generator = generator.with_guidance_scale(scale).unwrap();
        let codes = generator.with_seed(seed).generate(2, condition.as_ref());
        codes.unwrap().codes
    };
    let drawn = run(true, 3.0, 7);
    assert_eq!(drawn, run(true, 3.0, 7));
    assert_ne!(drawn, run(true, 3.0, 8));
    assert_ne!(drawn[0], drawn[1], "samples have streams of their own");
    let plain = run(false, 1.0, 0);
    assert_eq!(plain[0], plain[1]);
    // Guidance pushes logits away from those of a model that is told nothing.
    let (told, untold) = (plain, {
        let generator = MultiStreamGenerator::new(&model, greedy(6, &model)).unwrap();
        let generator = generator.with_guidance_scale(3.0).unwrap();
        generator.generate(2, None).unwrap().codes
    });
    assert_ne!(told, untold);
    assert_eq!(run(false, 1.0 + 1e-9, 0), told);
}

#[test]
fn processors_see_one_stream_and_cancelling_keeps_whole_frames() {
    let model = model(config());
    let cancel = CancelToken::new();
    let raise = cancel.clone();
    let only = |state: GenerationState<'_>, scores: &mut [f32]| -> Result<()> {
        let code = state.tokens.len();
        scores.fill(f32::NEG_INFINITY);
        scores[code] = 0.0;
        Ok(())
    };
    let mut count = 0;
    let generator = MultiStreamGenerator::new(&model, greedy(8, &model)).unwrap();
    let found = generator
        .with_logits_processor(only)
        .with_cancel(cancel)
        .with_streamer(|frame| {
            assert_eq!(frame, [[count; 3]]);
            count += 1;
            if count == 4 {
                raise.cancel();
            }
            Ok(())
        })
        .generate(1, None)
        .unwrap();
    assert_eq!(found.codes, [[[0, 1, 2, 3]; 3]]);
    assert_eq!(found.finish_reason, FinishReason::Cancelled);
}

#[test]
fn options_that_do_not_fit_are_errors() {
    let model = model(config());
    let generate = |config: GenerationConfig, batch: usize| {
        let generator = MultiStreamGenerator::new(&model, config)?;
        generator.generate(batch, None)
    };
    let steps = |count: usize| GenerationConfig {
        max_new_tokens: Some(count),
        ..GenerationConfig::default()
    };
    contains(
        generate(steps(2), 1),
        "`max_new_tokens` is 2, expected at least 3",
    );
    contains(generate(steps(25), 1), "at most 24, the positions");
    contains(generate(steps(5), 0), "`batch_size` is 0");
    let beams = GenerationConfig {
        num_beams: 2,
        ..steps(5)
    };
    contains(generate(beams, 1), "`generation_mode` is Beam");
    let begin = |codes: Vec<Vec<Vec<u32>>>| {
        let generator = MultiStreamGenerator::new(&model, steps(5))?;
        generator.with_beginning(codes)
    };
    contains(begin(vec![vec![vec![0]; 2]]), "of lengths [1, 1]");
    contains(
        begin(vec![vec![vec![9]; 3]]),
        "`codes` is 9, expected below 9",
    );
    let scale = MultiStreamGenerator::new(&model, steps(5)).unwrap();
    contains(
        scale.with_guidance_scale(f64::NAN),
        "`guidance_scale` is NaN",
    );
}
